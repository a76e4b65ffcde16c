"""The exact text a person agreed to, and what has changed since."""

from dataclasses import dataclass

from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from consents.models import Subscription
from consents.templatetags.portal import label
from providers import wording
from providers.models import Terms

CHANGES = {
    "added": gettext_lazy("새로 물어요"),
    "dropped": gettext_lazy("더는 묻지 않아요"),
    "required": gettext_lazy("꼭 필요한지"),
    "scopes": gettext_lazy("무엇을"),
    "riders": gettext_lazy("더 민감한 것"),
    "cycle": gettext_lazy("얼마나 자주"),
    "valid_months": gettext_lazy("언제까지"),
    "purpose_ko": gettext_lazy("무엇을 위해"),
    "purpose_en": gettext_lazy("무엇을 위해"),
    "retention_days": gettext_lazy("얼마나 보관"),
    "retention_ko": gettext_lazy("얼마나 보관"),
    "retention_en": gettext_lazy("얼마나 보관"),
    "paid": gettext_lazy("돈을 받는지"),
}


@dataclass(frozen=True, slots=True)
class Agreed:
    """`genuine` when the digest recomputed now is the one recorded at the moment of agreeing."""

    text: str
    html: SafeString
    digest: str
    recomputed: str
    genuine: bool
    newer: Terms | None
    changed: list[str]


def agreed(subscription: Subscription) -> Agreed | None:
    """None where the operator only reported the subscription: nothing was shown here. Four queries."""
    terms = subscription.terms
    if terms is None:
        return None
    terms.service = subscription.service
    terms.service.organization = subscription.operator
    items = list(terms.items.select_related("source", "recipient").order_by("position"))
    text = wording.terms_text(terms, subscription.language, items=items)
    recomputed = wording.text_digest(terms, subscription.language, items=items)
    newer = _newer(terms)
    differences = wording.material_differences(items, list(newer.items.all())) if newer else []
    return Agreed(
        text=text,
        html=wording.render(text, top=3),
        digest=subscription.text_digest,
        recomputed=recomputed,
        genuine=recomputed == subscription.text_digest,
        newer=newer,
        changed=list(dict.fromkeys(_in_words(difference) for difference in differences)),
    )


def _in_words(difference: str) -> str:
    """`kind: what` of wording.material_differences, in the words of the pages."""
    kind, _colon, what = difference.partition(": ")
    return f"{label(kind, 'consent_kind')} · {CHANGES.get(what, what)}"


def _newer(terms: Terms) -> Terms | None:
    return (
        Terms.objects.filter(service=terms.service_id, version__gt=terms.version, state=Terms.State.PUBLISHED)
        .order_by("-version")
        .first()
    )
