"""The words of terms: the one exact text a person is shown, its digest, and what differs between two versions."""

import hashlib
import unicodedata
from collections.abc import Iterable

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

# These labels are part of the text that people agreed to. They are not translated with the screens: changing one
# would change the digest of everything published since.
_LABELS = {
    "ko": {
        "version": "약관 {version}판",
        "required": "꼭 필요한 동의",
        "optional": "안 해도 되는 동의",
        "transfer": "정보 가져오기",
        "use": "정보 이용",
        "third_party": "다른 회사에 주기",
        "marketing": "광고·마케팅",
        "source": "어디에서",
        "scopes": "무엇을",
        "riders": "따로 켤 때만",
        "receiver": "누가 받나요",
        "cycle": "얼마나 자주",
        "on_open": "앱을 열었을 때만",
        "regular": "{weeks}주에 한 번, 앱을 열지 않아도",
        "until": "언제까지",
        "months": "동의한 날부터 {months}개월",
        "purpose": "무엇에",
        "retention": "얼마나 오래 보관",
        "paid": "대가",
        "is_paid": "돈을 받아요",
        "is_not_paid": "돈을 받지 않아요",
        "grade": "정보활용 동의등급",
    },
    "en": {
        "version": "Terms, version {version}",
        "required": "Needed",
        "optional": "Your choice",
        "transfer": "Getting information",
        "use": "Using information",
        "third_party": "Giving to another company",
        "marketing": "Offers and news",
        "source": "From",
        "scopes": "What",
        "riders": "Only if switched on",
        "receiver": "Who receives it",
        "cycle": "How often",
        "on_open": "only when you open the app",
        "regular": "once in {weeks} week(s), even if you do not open the app",
        "until": "Until when",
        "months": "{months} month(s) from the day you agree",
        "purpose": "What for",
        "retention": "Kept how long",
        "paid": "Money",
        "is_paid": "is paid for the data",
        "is_not_paid": "is not paid for",
        "grade": "Official consent grade",
    },
}

# What makes a change material (product.md): purpose, recipient, retention, scope, cycle, and what follows from them.
_MATERIAL = (
    "required", "scopes", "riders", "cycle", "valid_months", "purpose_ko", "purpose_en",
    "retention_days", "retention_ko", "retention_en", "paid",
)  # fmt: skip


def terms_text(terms, language: str, *, items: Iterable | None = None) -> str:
    """The canonical text of one version of terms in `language` (`ko` or `en`): what the digest is taken over.

    Lines end in LF, text is in Unicode NFC, and the order is fixed: name of the service; version; summary; each item
    with its title, kind, whether it is needed, and the items of 신용정보법 제33조의2⑤ (from whom, what, to whom, how
    often, until when, what for, how long kept), its riders, whether money is paid, its grade; then the full text.
    Scopes and riders stand as their standard codes, which do not change; their plain names are in the full text.
    `items` are the terms' items in order where the caller has them; otherwise they are read."""
    words = _LABELS[language]
    service = terms.service
    operator = _in(service.organization, "name", language)
    lines = [
        f"# {_in(service, 'name', language)}",
        words["version"].format(version=terms.version),
        "",
        _in(terms, "summary", language),
    ]
    for item in (
        terms.items.select_related("source", "recipient").order_by("position") if items is None else items
    ):
        lines += ["", *_item_lines(item, operator=operator, language=language)]
    lines += ["", _in(terms, "text", language).strip()]
    text = "\n".join(lines).replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text) + "\n"


def _item_lines(item, *, operator: str, language: str) -> list[str]:
    words = _LABELS[language]
    receiver = _in(item.recipient, "name", language) if item.recipient else operator
    # "1/2w" is once in two weeks; empty is only when the person opens the app (표준API 공통-002).
    cycle = words["regular"].format(weeks=item.cycle[2:-1]) if item.cycle else words["on_open"]
    facts = [
        ("source", _in(item.source, "name", language) if item.source else ""),
        ("scopes", " ".join(item.scopes)),
        ("riders", " ".join(item.riders)),
        ("receiver", receiver),
        ("cycle", cycle if item.kind == "transfer" else ""),
        ("until", words["months"].format(months=item.valid_months)),
        ("purpose", _in(item, "purpose", language)),
        ("retention", _in(item, "retention", language)),
        (
            "paid",
            (words["is_paid"] if item.paid else words["is_not_paid"]) if item.kind == "third_party" else "",
        ),
        ("grade", item.grade),
    ]
    needed = words["required"] if item.required else words["optional"]
    head = f"## {item.position}. {_in(item, 'title', language)}"
    return [
        head,
        f"{words[item.kind]} / {needed}",
        *(f"- {words[name]}: {fact}" for name, fact in facts if fact),
    ]


# Operators write the text: raw HTML is shown as text, pictures are off, and what is left passes a list of the allowed.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_TAGS = {
    "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "strong", "em", "a", "blockquote", "code", "pre",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


def render(markdown: str, *, top: int = 3) -> SafeString:
    """Safe HTML of a terms text; its highest heading becomes `<h{top}>`, so that it fits into a page."""
    tokens = _MARKDOWN.parse(markdown)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + top - 1)}"
    return mark_safe(  # noqa: S308  what nh3 lets through
        nh3.clean(
            _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}),
            tags=_TAGS,
            attributes={"a": {"href", "title"}},
            url_schemes={"https"},
            url_relative="deny",
            link_rel="noopener noreferrer nofollow ugc",
        )
    )


def text_digest(terms, language: str, *, items: Iterable | None = None) -> str:
    """`sha256:` and the lower-case hexadecimal SHA-256 of `terms_text` in UTF-8."""
    return "sha256:" + hashlib.sha256(terms_text(terms, language, items=items).encode()).hexdigest()


def missing_legal_items(items: Iterable) -> list[str]:
    """What the law demands of each transfer item and is not there, as `position: field` (시행령 제28조의3⑧)."""
    found = []
    for item in items:
        demanded = [
            "title_ko",
            "title_en",
            "purpose_ko",
            "purpose_en",
            "retention_ko",
            "retention_en",
            "valid_months",
        ]
        if item.kind == "transfer":
            demanded += ["source_id", "scopes"]
        if item.kind == "third_party":
            demanded += ["recipient_id", "scopes"]
        found += [f"{item.position}: {field}" for field in demanded if not getattr(item, field)]
    return found


def material_differences(before: Iterable, after: Iterable) -> list[str]:
    """What changed between the items of two versions so that every subscriber must be asked again.

    Items are the same item when kind, source and recipient are; added and dropped items differ too. Titles, grades
    and the running text may be corrected freely."""
    old, new = _by_identity(before), _by_identity(after)
    found = [f"{kind}: dropped" for kind, *_ in old.keys() - new.keys()]
    found += [f"{kind}: added" for kind, *_ in new.keys() - old.keys()]
    for key in old.keys() & new.keys():
        found += [f"{key[0]}: {field}" for field in _MATERIAL if _differs(old[key], new[key], field)]
    return sorted(found)


def _by_identity(items: Iterable) -> dict:
    found: dict = {}
    for item in items:
        same = (item.kind, item.source_id, item.recipient_id)
        found[(*same, sum(1 for key in found if key[:3] == same))] = item
    return found


def _differs(old, new, field: str) -> bool:
    one, other = getattr(old, field), getattr(new, field)
    return sorted(one) != sorted(other) if isinstance(one, list) else one != other


def _in(thing, name: str, language: str) -> str:
    return getattr(thing, f"{name}_{language}")
