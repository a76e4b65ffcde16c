"""The rules of the speed bump: what about a person's subscriptions deserves a word, one function a rule. Reads only."""

import datetime
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dateutil.relativedelta import relativedelta
from django.db.models import OuterRef, Subquery

from consents.ledger.entries import SEOUL
from consents.models import Consent, Erasure, Notice, Person, Subscription
from providers import policy
from providers.models import Licence, Scope, Service, Terms, TermsItem
from providers.models.organizations import OPEN_STATUSES

INFORM, SOFT, STRONG = "inform", "soft", "strong"
HEALTH = {"health"}


@dataclass(frozen=True, slots=True)
class Reason:
    """One plain sentence about one matter, in both languages."""

    kind: str
    text_ko: str
    text_en: str
    subscription: Subscription | None = None
    matter: str = ""
    urgent: bool = False


@dataclass(slots=True)
class Facts:
    """Everything the rules look at, of one person at one moment."""

    person: Person
    at: datetime.datetime
    live: list[Subscription]
    held: list[Subscription]  # ended, erasure not confirmed
    consents: dict  # subscription id -> live consents

    @property
    def today(self) -> datetime.date:
        return self.at.astimezone(SEOUL).date()

    def number(self, key: str) -> int:
        return policy.number(key, on=self.today)

    @property
    def operators(self) -> set:
        return {row.operator_id for row in self.live + self.held}


def level(person: Person, operators: int, *, at: datetime.datetime) -> str:
    """inform, soft or strong, by policy or by the person's own threshold (which takes the place of the soft one)."""
    on = at.astimezone(SEOUL).date()
    strong = policy.number("STRONG_WARN_AT", on=on)
    soft = person.warn_at or policy.number("SOFT_WARN_AT", on=on)
    if operators >= max(strong, soft):
        return STRONG
    return SOFT if operators >= soft else INFORM


def flows(consents: list[Consent]) -> set[tuple]:
    return {
        (c.source_id, scope)
        for c in consents
        if c.source_id
        for scope in c.scopes
        if not scope.endswith(".list")
    }


def unused_months(row: Subscription, facts: Facts) -> int:
    if row.last_used_on is None:
        return 0
    gone = relativedelta(facts.today, row.last_used_on)
    months = gone.years * 12 + gone.months
    return months if months >= facts.number("DORMANT_MONTHS") else 0


# --- rules: each yields its reasons; `service` is the one about to be joined, or None in the daily job ----------------------


def count(facts: Facts, service=None) -> Iterator[Reason]:
    n = len(facts.operators)
    if level(facts.person, n, at=facts.at) != INFORM:
        yield Reason(
            Notice.Kind.COUNT,
            f"지금 {n}곳이 내 정보를 가지고 있어요. 안 쓰는 곳이 있는지 한번 살펴보세요.",
            f"{n} companies hold your data now. Have a look whether you still need all of them.",
            matter=level(facts.person, n, at=facts.at),
        )


def pace(facts: Facts, service=None) -> Iterator[Reason]:
    days, most = facts.number("PACE_DAYS"), facts.number("PACE_JOINS")
    recent = [row for row in facts.live if row.joined_at > facts.at - datetime.timedelta(days=days)]
    if len(recent) >= most:
        yield Reason(
            Notice.Kind.PACE,
            f"최근 {days}일 동안 {len(recent)}곳에 가입했어요. 서두르지 않아도 괜찮아요.",
            f"You joined {len(recent)} services in the last {days} days. There is no hurry.",
            matter=max(row.joined_at for row in recent).date().isoformat(),
        )


def overlap(facts: Facts, service=None) -> Iterator[Reason]:
    """The same source and scope flow to several operators, or several services serve the same purpose."""
    several = facts.number("OVERLAP_OPERATORS")
    by_flow, by_purpose = defaultdict(set), defaultdict(list)
    names: dict = {}
    for row in facts.live:
        by_purpose[row.service.purpose_code].append(row)
        for consent in facts.consents[row.pk]:
            if consent.source_id:
                names[consent.source_id] = consent.source
        for flow in flows(facts.consents[row.pk]):
            by_flow[flow].add(row.operator_id)
    shared = {source for (source, _scope), operators in by_flow.items() if len(operators) >= several}
    for source in sorted(shared, key=lambda pk: names[pk].name_ko):
        n = max(len(operators) for (pk, _scope), operators in by_flow.items() if pk == source)
        yield Reason(
            Notice.Kind.OVERLAP,
            f"{names[source].name_ko}에 있는 같은 정보가 {n}곳으로 가고 있어요.",
            f"The same data from {names[source].name_en} goes to {n} companies.",
            matter=f"source {names[source].code}",
        )
    for purpose, rows in sorted(by_purpose.items()):
        if len(rows) >= several:
            ko = ", ".join(row.service.name_ko for row in rows)
            en = ", ".join(row.service.name_en for row in rows)
            yield Reason(
                Notice.Kind.OVERLAP, f"비슷한 일을 하는 서비스를 함께 쓰고 있어요: {ko}"[:300],
                f"You use services that do similar things: {en}"[:300], matter=f"purpose {purpose}",
            )  # fmt: skip


def dormant(facts: Facts, service=None) -> Iterator[Reason]:
    stop = facts.number("INACTIVE_STOP_MONTHS")
    for row in facts.live:
        if unused_months(row, facts) and (used := row.last_used_on):
            flows_ko, flows_en = _still_flows(row)
            yield Reason(
                Notice.Kind.DORMANT,
                f"{row.service.name_ko}: {used:%Y}년 {used.month}월 {used.day}일 뒤로 쓰지 않았어요.{flows_ko} {stop}개월 동안 쓰지 않으면 정기 전송이 멈춰요.",
                f"{row.service.name_en}: not used since {used.day} {used:%b %Y}.{flows_en} Regular transfer stops after {stop} months without use.",
                subscription=row,
                matter=str(row.pk),
            )


def _still_flows(row: Subscription) -> tuple[str, str]:
    """What the calendar carried on after the last use, in both languages."""
    if row.last_transfer_at is None or row.last_used_on is None:
        return "", ""
    last = row.last_transfer_at.astimezone(SEOUL).date()
    if last <= row.last_used_on:
        return "", ""
    return (
        f" 그래도 {last:%Y}년 {last.month}월 {last.day}일까지 정보를 가져갔어요.",
        f" Data was still fetched until {last.day} {last:%b %Y}.",
    )


def sensitive(facts: Facts, service=None) -> Iterator[Reason]:
    """Health beside finance at one operator; level-5 scopes at two or more."""
    levels = _sensitivities()
    deep: dict = {}
    by_operator: dict = defaultdict(set)
    operators: dict = {}
    for row in facts.live:
        operators[row.operator_id] = row.operator
        for consent in facts.consents[row.pk]:
            for scope in consent.scopes:
                by_operator[row.operator_id].add(scope.split(".")[0])
                if levels.get(scope, 0) >= 5:
                    deep[row.operator_id] = row.operator
            if consent.riders:
                deep[row.operator_id] = row.operator
    for pk, kinds in by_operator.items():
        if kinds & HEALTH and kinds & {"bank", "card", "invest", "insu"}:
            yield Reason(
                Notice.Kind.SENSITIVE,
                f"{operators[pk].name_ko} 한곳에 건강 정보와 금융 정보가 함께 모여 있어요.",
                f"{operators[pk].name_en} holds both health and financial data about you.",
                matter=f"mix {operators[pk].code}",
            )
    if len(deep) >= 2:
        names_ko = ", ".join(sorted(o.name_ko for o in deep.values()))
        names_en = ", ".join(sorted(o.name_en for o in deep.values()))
        yield Reason(
            Notice.Kind.SENSITIVE, f"아주 민감한 정보를 여러 곳이 가지고 있어요: {names_ko}"[:300],
            f"Several companies hold very sensitive data: {names_en}"[:300], matter="deep",
        )  # fmt: skip


def licence(facts: Facts, service=None) -> Iterator[Reason]:
    for row in facts.live:
        status = row.operator_status  # type: ignore[attr-defined]  # annotated by gather
        if status not in OPEN_STATUSES:
            yield Reason(
                Notice.Kind.LICENCE,
                f"{row.operator.name_ko}: 지금은 마이데이터 허가가 있는 회사가 아니에요. 그만두는 것을 생각해 보세요.",
                f"{row.operator.name_en} does not have a MyData licence in force now. Consider leaving.",
                subscription=row,
                matter=f"{row.operator.code} {status}",
                urgent=True,
            )


def expiring(facts: Facts, service=None) -> Iterator[Reason]:
    soon = facts.today + datetime.timedelta(days=facts.number("EXPIRING_DAYS"))
    for row in facts.live:
        if facts.today <= row.until_on <= soon:
            yield Reason(
                Notice.Kind.EXPIRING,
                f"{row.service.name_ko}: {row.until_on:%Y}년 {row.until_on.month}월 {row.until_on.day}일에 끝나요. 아무것도 하지 않으면 저절로 멈춰요.",
                f"{row.service.name_en}: ends on {row.until_on.day} {row.until_on:%b %Y}. It stops by itself if you do nothing.",
                subscription=row,
                matter=row.until_on.isoformat() + str(row.pk),
            )


def terms(facts: Facts, service=None) -> Iterator[Reason]:
    for row in facts.live:
        retired = row.terms and row.terms.state == Terms.State.RETIRED
        if retired and row.newer_change == Terms.Change.MATERIAL:  # type: ignore[attr-defined]  # set by gather
            yield Reason(
                Notice.Kind.TERMS,
                f"{row.service.name_ko}: 약관의 중요한 내용이 바뀌었어요. 동의하기 전까지는 예전 약관이 그대로예요.",
                f"{row.service.name_en}: important terms have changed. Until you agree the old ones stand.",
                subscription=row,
                matter=f"{row.pk} {row.terms_id}",
            )


def still_held(facts: Facts, service=None) -> Iterator[Reason]:
    limit = facts.at - datetime.timedelta(days=facts.number("STILL_HELD_DAYS"))
    for row in facts.held:
        if row.ended_at is None or row.ended_at >= limit:
            continue
        asked = row.erasure != Erasure.NOT_REQUESTED
        yield Reason(
            Notice.Kind.STILL_HELD,
            f"{row.service.name_ko}: 그만뒀지만 아직 "
            + ("지웠다는 확인이 없어요." if asked else "내 정보를 가지고 있어요. 지워 달라고 할 수 있어요."),
            f"{row.service.name_en}: you left, but "
            + (
                "erasure is not confirmed yet."
                if asked
                else "they still hold your data. You can ask them to erase it."
            ),
            subscription=row,
            matter=str(row.pk),
            urgent=asked,
        )


def broad(facts: Facts, service: Service | None = None) -> Iterator[Reason]:
    """The service asks for more scopes than three quarters of the services with the same purpose."""
    if service is None:
        return
    sizes: dict = defaultdict(set)
    items = TermsItem.objects.filter(
        terms__service__purpose_code=service.purpose_code, terms__state=Terms.State.PUBLISHED
    ).values_list("terms__service_id", "scopes")
    for pk, scopes in items:
        sizes[pk].update(scopes)
    peers = [len(scopes) for pk, scopes in sizes.items() if pk != service.pk]
    if peers and sum(size < len(sizes[service.pk]) for size in peers) / len(peers) > 0.75:
        yield Reason(
            Notice.Kind.BROAD,
            f"{service.name_ko}: 비슷한 서비스 대부분보다 더 많은 정보를 달라고 해요.",
            f"{service.name_en} asks for more data than most similar services.",
            matter=service.slug,
        )


Rule = Callable[..., Iterator[Reason]]
RULES_BEFORE: tuple[Rule, ...] = (broad,)
RULES: tuple[Rule, ...] = (count, pace, overlap, dormant, sensitive, licence, expiring, terms, still_held)


def _sensitivities() -> dict[str, int]:
    """Highest sensitivity by standard scope code, riders apart."""
    levels: dict[str, int] = {}
    for codes, sensitivity in Scope.objects.filter(rider="").values_list("codes", "sensitivity"):
        for code in codes:
            levels[code] = max(levels.get(code, 0), sensitivity)
    return levels


def gather(people: list[Person], *, at: datetime.datetime) -> Iterator[Facts]:
    """Facts of some people, in a fixed number of queries."""
    on = at.astimezone(SEOUL).date()
    decisions = Licence.objects.filter(organization=OuterRef("operator"), effective_on__lte=on)
    rows = list(
        Subscription.objects.holding()
        .filter(person__in=people)
        .select_related("service", "operator", "terms")
        .annotate(
            operator_status=Subquery(
                decisions.order_by("-effective_on", "-decided_on", "-id").values("status")[:1]
            )
        )
        .order_by("joined_at", "id")
    )
    newest = dict(
        Terms.objects.filter(
            service__in={row.service_id for row in rows}, state=Terms.State.PUBLISHED
        ).values_list("service_id", "change_kind")
    )
    consents: dict = defaultdict(list)
    for consent in (
        Consent.objects.live()
        .filter(person__in=people, subscription__state="active")
        .select_related("source")
    ):
        consents[consent.subscription_id].append(consent)
    mine: dict = defaultdict(list)
    for row in rows:
        row.newer_change = newest.get(row.service_id)
        mine[row.person_id].append(row)
    for person in people:
        live = [row for row in mine[person.pk] if row.state == Subscription.State.ACTIVE]
        held = [row for row in mine[person.pk] if row.state == Subscription.State.ENDED]
        yield Facts(person, at, live, held, consents)
