"""What an admin decides about the OAuth2 clients of their organization."""

import re
from urllib.parse import urlsplit

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from consents import clients, oauth
from providers import keysets, outbound
from providers.models import ApiClient

from .channels import refused
from .strict import StrictForm, visible

MOST_ADDRESSES = 10
LONGEST_ADDRESS = 500
# What an application may have; a regulator's is registered by the platform.
APP_SCOPES = {name: words for name, words in oauth.PERSON_SCOPES.items() if name != "oversight:read"}
_SCHEME = re.compile(
    r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+"
)  # an application's own, named after its domain (RFC 8252 §7.1)

# What keysets says, in words; the first that its sentence holds counts.
REFUSALS = (
    ("private key", gettext_lazy("비공개 키가 들어 있어요. 그 키는 이미 새어 나간 것이니 버리고, 공개 키만 넣어 주세요.")),
    ("not plain JSON", gettext_lazy("JSON으로 읽을 수 없어요.")),
    ("list of keys", gettext_lazy("keys라는 목록이 있는 JWK 모음이어야 해요.")),
    ("more than", gettext_lazy("열쇠가 너무 많아요. 20개까지 넣을 수 있어요.")),
    ("same kid", gettext_lazy("kid가 같은 열쇠가 둘 있어요.")),
    ("needs a kid", gettext_lazy("열쇠마다 64자 이하의 kid가 있어야 해요.")),
    ("no key is for", gettext_lazy("서명에 쓰는 열쇠가 없어요.")),
    ("larger than", gettext_lazy("너무 커요. 32 kB까지 받아요.")),
    ("shorter than 2048", gettext_lazy("RSA 열쇠는 2048비트 이상이어야 해요.")),
    ("no answer", gettext_lazy("그 주소에서 5초 안에 JWK 모음을 받지 못했어요. 주소와 서버를 살펴봐 주세요.")),
    ("refused", gettext_lazy("부를 수 없는 주소예요. 인터넷에서 찾을 수 있는 이름이어야 해요.")),
)  # fmt: skip


def why(problem: str) -> str:
    """Why keys were refused, in words."""
    found = next((words for part, words in REFUSALS if part in problem), None)
    return str(
        found or _("쓸 수 없는 열쇠가 있어요. P-256, Ed25519, 2048비트 이상 RSA 공개 키를 넣어 주세요.")
    )


class _Scopes(forms.MultipleChoiceField):
    widget = forms.CheckboxSelectMultiple


def _lives() -> list[tuple[int, str]]:
    """The longest first, in the reader's language."""
    return [(days, _("%(days)d일") % {"days": days}) for days in reversed(clients.LIVES)]


def _lines(text: str) -> list[str]:
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def _address(uri: str, *, native: bool) -> str:
    """An address that people may be sent back to: https, or of an application on their own machine."""
    parts = urlsplit(uri)
    own = native and (
        _SCHEME.fullmatch(parts.scheme) or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1"))
    )
    plain = (
        uri.isascii()
        and uri.isprintable()
        and not any(char in uri for char in " \\*#")
        and "@" not in parts.netloc
    )
    if len(uri) > LONGEST_ADDRESS or not plain or not (own or (parts.scheme == "https" and parts.hostname)):
        raise ValidationError(_("쓸 수 없는 주소예요: %(line)s") % {"line": uri[:60]})
    return uri


class ClientForm(StrictForm):
    """What a client may do, and where people may come back to."""

    many = frozenset({"scopes"})
    native = False

    scopes = _Scopes(label=gettext_lazy("권한"))
    redirect_uris = forms.CharField(
        label=gettext_lazy("돌아올 주소"), required=False, max_length=MOST_ADDRESSES * (LONGEST_ADDRESS + 2), validators=[visible],
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "autocomplete": "off", "autocapitalize": "none"}),
        help_text=gettext_lazy("한 줄에 하나씩, 글자 그대로 견줘요. 동의 요청을 마친 사람이 이 주소로 돌아가요."),
    )  # fmt: skip

    def __init__(self, *args, kind: str, **kwargs):
        super().__init__(*args, **kwargs)
        offered = oauth.ORGANIZATION_SCOPES if kind == ApiClient.Kind.SERVER else APP_SCOPES
        self.fields["scopes"].choices = [  # type: ignore[attr-defined]
            (name, f"{words} ({name})") for name, words in offered.items()
        ]
        self.native = kind == ApiClient.Kind.APP
        self.fields["redirect_uris"].required = self.native

    def clean_redirect_uris(self) -> list[str]:
        found = [_address(line, native=self.native) for line in _lines(self.cleaned_data["redirect_uris"])]
        if len(found) > MOST_ADDRESSES:
            raise ValidationError(_("돌아올 주소는 10개까지예요."))
        return found


class NewServerForm(ClientForm):
    days = forms.TypedChoiceField(label=gettext_lazy("비밀의 수명"), choices=_lives, coerce=int)


class NewAppForm(ClientForm):
    name = forms.CharField(
        label=gettext_lazy("앱 이름"), max_length=60, validators=[visible],
        help_text=gettext_lazy("사람들이 권한을 줄 때 보는 이름이에요. 회사 이름은 우리가 함께 보여 줘요."),
    )  # fmt: skip
    field_order = ("name",)


class OversightAppForm(NewAppForm):
    """The regulator's own: it reads the record, and nothing else."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, kind=ApiClient.Kind.APP, **kwargs)
        del self.fields["scopes"]
        self.fields["name"].help_text = _("감독자가 권한을 줄 때 보는 이름이에요.")
        self.fields["redirect_uris"].help_text = _(
            "한 줄에 하나씩, 글자 그대로 견줘요. 권한을 준 감독자가 이 주소로 돌아가요."
        )


class ChangeForm(ClientForm):
    """`method` and `dpop` are for who wants more than a secret and a bearer token (FAPI 2.0)."""

    method = forms.ChoiceField(
        label=gettext_lazy("로그인 방법"), choices=[choice for choice in ApiClient.Method.choices if choice[0] != "none"],
        help_text=gettext_lazy("private_key_jwt로 바꾸면 등록한 공개 키로만 로그인하고, 비밀은 통하지 않아요."),
    )  # fmt: skip
    dpop = forms.BooleanField(
        label=gettext_lazy("토큰을 열쇠에 묶기(DPoP)"), required=False,
        help_text=gettext_lazy("훔친 토큰이 쓸모없어져요. 서버가 요청마다 DPoP 증명을 보내야 해요."),
    )  # fmt: skip

    def __init__(self, *args, kind: str, **kwargs):
        super().__init__(*args, kind=kind, **kwargs)
        if kind == ApiClient.Kind.APP:
            del self.fields["method"]


class RotateForm(StrictForm):
    days = forms.TypedChoiceField(label=gettext_lazy("새 비밀의 수명"), choices=_lives, coerce=int)


class KeysForm(StrictForm):
    """A JWK set by value, or the address that it can be fetched from."""

    address = forms.CharField(
        label=gettext_lazy("JWK 모음의 주소"), required=False, max_length=outbound.LONGEST_ADDRESS, strip=False,
        help_text=gettext_lazy("https 주소예요. 지금 한 번 받아 보고, 그 뒤로는 한 시간에 한 번, 모르는 열쇠가 오면 그때 다시 받아요."),
        widget=forms.TextInput(attrs={"inputmode": "url", "autocomplete": "off", "spellcheck": "false"}),
    )  # fmt: skip
    jwks = forms.CharField(
        label=gettext_lazy("또는 JWK 모음을 붙여 넣기"), required=False, max_length=keysets.LARGEST,
        help_text=gettext_lazy("공개 키만 넣어 주세요. 열쇠마다 kid가 있어야 해요."),
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "autocomplete": "off"}),
    )  # fmt: skip

    def clean(self):
        """`keys` are what will be registered."""
        cleaned = super().clean()
        address, text = cleaned.get("address", ""), cleaned.get("jwks", "")
        if bool(address) == bool(text.strip()):
            raise ValidationError(_("주소와 붙여 넣은 열쇠 가운데 하나만 채워 주세요."))
        try:
            if address:
                outbound.check_address(address)
            if not self.errors:
                cleaned["keys"] = keysets.fetch(address) if address else keysets.read(text)
        except outbound.Refused as refusal:
            self.add_error("address", refused(str(refusal)))
        except keysets.BadKeys as problem:
            self.add_error("address" if address else "jwks", why(str(problem)))
        return cleaned
