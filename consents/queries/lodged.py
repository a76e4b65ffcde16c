"""What became of a consent request, as its operator may know it: item by item, and never whose browser it was."""

from django.db.models import Count, OuterRef, Subquery

from consents import access
from consents.models import Consent, ConsentRequest
from consents.queries.paging import Page, page
from providers.models import Organization, TermsItem

PARTLY = "partly_granted"
OUTCOMES = (*ConsentRequest.State.values, PARTLY)


def items(lodged: ConsentRequest) -> list[dict]:
    """Each thing that was asked, and whether it was agreed to; null while nobody has decided. Two queries."""
    decided = lodged.state in (ConsentRequest.State.GRANTED, ConsentRequest.State.DECLINED)
    given = _given(lodged) if lodged.subscription_id else {}
    asked = TermsItem.objects.filter(terms=lodged.terms_id).order_by("position")
    return [
        {
            "item": item.pk, "kind": item.kind, "title_ko": item.title_ko, "title_en": item.title_en,
            "required": item.required, "granted": item.pk in given if decided else None, "consent": given.get(item.pk),
        }
        for item in asked
    ]  # fmt: skip


def _given(lodged: ConsentRequest) -> dict:
    agreed = Consent.objects.filter(subscription=lodged.subscription_id, terms_item__terms=lodged.terms_id)
    return dict(agreed.values_list("terms_item_id", "pk"))


def outcome(lodged: ConsentRequest, asked: list[dict]) -> str:
    """The state, and `partly_granted` where optional items were declined."""
    if lodged.state == ConsentRequest.State.GRANTED and not all(item["granted"] for item in asked):
        return PARTLY
    return lodged.state


@access.only_own
def of_operator(organization: Organization, *, after: str) -> Page:
    """The requests that it has lodged, newest first; of a granted one `given` of `asked` items were agreed to. Raises
    paging.BadCursor. One query."""
    mine = ConsentRequest.objects.of(organization).select_related("service", "terms")
    asked = TermsItem.objects.filter(terms=OuterRef("terms")).order_by().values("terms")
    given = Consent.objects.filter(subscription=OuterRef("subscription"), terms_item__terms=OuterRef("terms"))
    numbers = given.order_by().values("subscription").annotate(n=Count("terms_item", distinct=True))
    rows = mine.annotate(
        asked=Subquery(asked.annotate(n=Count("pk")).values("n")),
        given=Subquery(numbers.values("n")),
    )
    return page(rows, moment="lodged_at", number="pk", after=after)
