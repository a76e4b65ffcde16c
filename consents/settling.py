"""WRITES the three verbs that end a case: adopt what is not known or has ended over there, send again, dispute.

No verb can revive or extend what has ended (T40): to adopt only adds a new row, or ends a live one.
"""

import contextlib
import datetime

from django.db import transaction

from consents import cases, ledger, lifecycle, messages, propagation, reconciliation, speedbump
from consents.actors import Actor
from consents.ledger import Fact
from consents.models import Case, Consent, Delivery, EndReason, Notice, Subscription
from consents.reconciliation import Report

Verb = Case.Verb


class NotPossible(Exception):
    """This verb cannot settle this case."""


def possible(case: Case) -> list[str]:
    """The verbs that can settle this case."""
    verbs = [Verb.ADOPT] if case.kind in {Case.Kind.UNKNOWN_HERE, Case.Kind.MISSING_THERE} else []
    if case.subscription_id and case.kind != Case.Kind.COUNTS:
        verbs.append(Verb.SEND_AGAIN)
    return [*verbs, Verb.DISPUTE]


def settle(case: Case, verb: str, *, reason: str, by: Actor, at: datetime.datetime) -> Case:
    """Settle an open case, for the reason given. Raises NotPossible, cases.AlreadySettled."""
    with transaction.atomic():
        case = (
            Case.objects.select_for_update(no_key=True, of=("self",))
            .select_related(
                "organization", "person", "subscription__service", "consent__source", "consent__recipient"
            )
            .get(pk=case.pk)
        )
        if case.settled_at is not None:
            raise cases.AlreadySettled(str(case.pk))
        if verb not in possible(case):
            raise NotPossible(verb)
        if verb == Verb.ADOPT:
            _adopt(case, at=at)
        elif verb == Verb.SEND_AGAIN:
            _send_again(case, by=by, at=at)
        settled = cases.close(case, verb=verb, reason=reason, by=by, at=at)
        ledger.append([_fact(case, verb)], by=by, at=at, txn=messages.new_id())
        if case.person and verb != Verb.DISPUTE:
            about = case.subscription_id or case.matter
            matter = f"{case.kind} {case.organization.code} {about}"[:120]
            speedbump.take_back(case.person, Notice.Kind.MISMATCH, matter, by=by, at=at)
    return settled


def _fact(case: Case, verb: str) -> Fact:
    """A case is answered as a notice is. The reason stays with the case: people write it, and what they write may name somebody."""
    subscription = case.subscription
    operator = case.organization if case.organization.is_operator else None
    kind = f"case.{case.kind}"
    return Fact(
        "notice.answered",
        person=case.person,
        operator=subscription.operator_id if subscription else operator,
        party=case.organization,
        subscription=subscription,
        consent=case.consent,
        reason=kind,
        fields={
            "knd": kind, "nid": case.pk, "opr": case.organization.code,
            "sbs": subscription.pk if subscription else None, "ans": verb,
        },
    )  # fmt: skip


def _adopt(case: Case, *, at: datetime.datetime) -> None:
    by = Actor.organization(
        case.organization
    )  # it is their word that is taken; nobody is told back what they said
    if case.kind == Case.Kind.UNKNOWN_HERE:
        _add(case, by=by, at=at)
    elif case.consent is None or not _end(case.consent, case, by=by, at=at):
        raise NotPossible("there is nothing live to end")


def _end(consent: Consent, case: Case, *, by: Actor, at: datetime.datetime) -> bool:
    is_source = consent.source_id == case.organization_id
    reason = EndReason.SOURCE_LEFT if is_source else EndReason.OPERATOR_CLOSED
    return lifecycle.ended_by(consent, reason=reason, by=by, at=at)


def _add(case: Case, *, by: Actor, at: datetime.datetime) -> None:
    """As if the operator had reported it (reconciliation): a row that begins before an end we know is refused there."""
    stated, person = case.stated, case.person
    since = stated.get("since_on") or ""
    ended = Subscription.objects.filter(
        person=person, service__client_id=stated.get("service"), state=Subscription.State.ENDED
    )
    if person is None or not case.organization.is_operator or (not since and ended.exists()):
        raise NotPossible("it may be what has ended here")
    row = {
        "subject": str(person.subject_id), "service_client_id": stated.get("service"),
        "joined_on": since or case.opened_at.date().isoformat(), "source_org_code": stated.get("source"),
        "scopes": " ".join(stated.get("scopes", ())), "purpose": "회사가 알려 온 연동이에요.", "cycle": "",
        "end_date": stated.get("until_on"), "retained_until": "99991231", "last_used_on": "",
    }  # fmt: skip
    report: Report = reconciliation.report_holdings([(1, row)], organization=case.organization, by=by, at=at)
    if report.created != 1:
        raise NotPossible("the row cannot go in as it is stated")


def _send_again(case: Case, *, by: Actor, at: datetime.datetime) -> None:
    """The last message about it goes out once more, under the same id: it has no second effect over there."""
    told = Delivery.objects.filter(subscription=case.subscription_id, replay_of__isnull=True)
    parties = {case.organization_id}
    if case.kind == Case.Kind.AFTER_STOP and case.consent and case.consent.source_id:
        parties.add(case.consent.source_id)
    about = [case.consent_id, None] if case.consent_id else [None]
    sent = 0
    for organization in parties:
        rows = told.filter(organization=organization).order_by("-pk")
        last = next((row for row in rows[:50] if row.consent_id in about or case.consent_id is None), None)
        if last is None:
            continue
        with contextlib.suppress(propagation.AlreadyWaiting):  # on its way: that is what was wanted
            propagation.replay(last, by=by, at=at)
        sent += 1
    if not sent:
        raise NotPossible("nothing was ever sent about it")
