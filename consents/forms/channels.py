"""What an admin asks for when their organization is to be reached in another way."""

import re

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from consents import channels, routes
from providers import outbound
from providers.models import Channel
from providers.wires import native

from .strict import StrictForm, visible

MOST_DETAILS = 20
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_VALUE = re.compile(r"[\x20-\x7e]{1,500}")

# What outbound says, in words; the first that its sentence holds counts.
REFUSALS = (
    ("empty or too long", gettext_lazy("주소가 비었거나 2048자보다 길어요.")),
    ("space, a control", gettext_lazy("주소에 빈칸이나 제어 문자, 역슬래시가 있어요.")),
    ("fragment", gettext_lazy("주소에 #이 있으면 안 돼요.")),
    ("user or password", gettext_lazy("주소에 사용자 이름이나 비밀번호를 넣지 마세요.")),
    ("only https", gettext_lazy("https:// 로 시작하는 주소만 쓸 수 있어요.")),
    ("port", gettext_lazy("443번 포트만 쓸 수 있어요.")),
    ("our own", gettext_lazy("우리 자신의 주소는 쓸 수 없어요.")),
    ("local one", gettext_lazy("내부에서만 쓰는 이름이에요. 인터넷에서 찾을 수 있는 이름이어야 해요.")),
    ("full host name", gettext_lazy("숫자 주소나 짧은 이름은 쓸 수 없어요. example.co.kr처럼 온전한 이름이어야 해요.")),
)  # fmt: skip


def refused(detail: str) -> str:
    """Why an address was refused, in words."""
    found = next((words for part, words in REFUSALS if part in detail), None)
    return str(found or _("읽을 수 없는 주소예요. https:// 로 시작하는 온전한 주소를 써 주세요."))


class AskForm(StrictForm):
    """Protocol, address, the wire's settings (one `name: value` a line) and the secret that signs us in there."""

    protocol = forms.ChoiceField(
        label=gettext_lazy("방식"), choices=[],
        help_text=gettext_lazy("호주 CDR, 영국, FAPI, 토큰 폐기, 한국 지원 API로는 회사가 부르는 이름으로 끝내요. 이름은 POST /api/v1/references로 알려 주세요. 이름이 없으면 사람이 처리해야 해요."),
    )  # fmt: skip
    address = forms.CharField(
        label=gettext_lazy("주소"), max_length=outbound.LONGEST_ADDRESS, strip=False,
        help_text=gettext_lazy("https로 시작하는, 인터넷에서 찾을 수 있는 주소예요. 업무함과 회사가 가져가는 방식에는 쓰지 않아요."),
        widget=forms.TextInput(attrs={"inputmode": "url", "autocomplete": "off", "spellcheck": "false"}),
    )  # fmt: skip
    details = forms.CharField(
        label=gettext_lazy("설정"), required=False, max_length=8000, validators=[visible],
        help_text=gettext_lazy("한 줄에 하나씩 ‘이름: 값’으로 써 주세요. 서명된 웹훅에는 한 요청에 담을 메시지 수만 있어요(together: 1~100, 쓰지 않으면 1). 비밀은 쓰지 마세요."),
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
    )  # fmt: skip
    credential = forms.CharField(
        label=gettext_lazy("우리에게 준 자격"), required=False, max_length=3500,
        help_text=gettext_lazy("토큰이나 클라이언트 비밀이에요. 잠가서 보관하고 다시 보여 드리지 않아요."),
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
    )  # fmt: skip

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        usable = {*routes.WIRES, *channels.UNCALLED}
        self.fields["protocol"].choices = [  # type: ignore[attr-defined]
            (value, label) for value, label in Channel.Protocol.choices if value in usable
        ]
        self.fields["address"].required = self.data.get("protocol") not in channels.UNCALLED

    def clean_details(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in self.cleaned_data["details"].splitlines():
            if not line.strip():
                continue
            name, colon, value = (part.strip() for part in line.partition(":"))
            if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name in found:
                raise ValidationError(
                    _("‘이름: 값’으로 읽을 수 없는 줄이 있어요: %(line)s") % {"line": line[:60]}
                )
            found[name] = value
        if len(found) > MOST_DETAILS:
            raise ValidationError(_("설정이 너무 많아요."))
        return found

    def clean(self):
        cleaned = super().clean()
        protocol, address = cleaned.get("protocol"), cleaned.get("address", "")
        if protocol and protocol in channels.UNCALLED:
            if address:
                self.add_error("address", _("이 방식에는 주소가 없어요. 칸을 비워 주세요."))
        elif protocol and "address" in cleaned:
            try:
                outbound.check_address(address)
            except outbound.Refused as refusal:
                self.add_error("address", refused(str(refusal)))
        known = getattr(routes.WIRES.get(protocol), "DETAILS", {}) if protocol else {}
        if unknown := sorted(set(cleaned.get("details") or {}) - set(known)):
            names = ", ".join(known) or "–"
            words = _("이 방식에 없는 설정이에요: %(unknown)s (있는 것: %(known)s)")
            self.add_error("details", words % {"unknown": ", ".join(unknown)[:80], "known": names})
        if protocol == Channel.Protocol.NATIVE:
            try:
                native.together(cleaned.get("details") or {})
            except ValueError:
                words = _("together는 1에서 %(most)s까지의 수예요.")
                self.add_error("details", words % {"most": native.MOST_TOGETHER})
        return cleaned


class Button(StrictForm):
    """A button: the address says everything, and nothing else may come along."""


class RotateForm(StrictForm):
    """`kid` is the key that was in use when the page was shown: a button pressed twice changes it once."""

    kid = forms.RegexField(r"^hmac-[0-9a-f]{16}$", widget=forms.HiddenInput)
