"""WRITES what follows a change of the portal's own keys: entries in the log, and open messages signed anew.

A message that was signed with a key we no longer publish cannot be checked by anybody: each that is still open gets a
second SET with an id of its own, which names the first in `replaces` (security brief 2.10). What is answered to either is
written on the one delivery.
"""

import base64
import contextlib
import datetime
import json

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Greatest

from consents import ledger, messages, propagation
from consents.actors import Actor
from consents.ledger import Fact
from consents.models import Delivery, Reissue
from providers import keyring, signing

log = structlog.get_logger(__name__)

BATCH = 500


def note_added(kid: str, *, by: Actor, at: datetime.datetime) -> None:
    """The log says which keys its messages may be signed with."""
    ledger.append([Fact("key.added", fields={"kid": kid})], by=by, at=at)


def note_retired(kid: str, *, by: Actor, at: datetime.datetime) -> None:
    ledger.append([Fact("key.retired", fields={"kid": kid})], by=by, at=at)


def replace_compromised(purpose: str, *, by: Actor, at: datetime.datetime) -> tuple[str, str, int]:
    """Drop a key that others may have, sign with a new one, and sign open messages anew. Returns (old kid, new kid, messages).

    The files change first: an entry that is missing is seen and can be written again, a key that goes on signing cannot."""
    old, new = keyring.replace(purpose)
    with transaction.atomic():
        note_retired(old, by=by, at=at)
        note_added(new, by=by, at=at)
    return old, new, reissue(by=by, at=at)


def reissue(*, by: Actor, at: datetime.datetime) -> int:
    """Sign every open message anew whose key is published no more; returns how many. Safe to run again, which finds what a
    process that was not restarted yet has signed meanwhile."""
    published = {key["kid"] for key in signing.public_jwks()["keys"]}
    done, last = 0, 0
    while True:
        keys = list(_open().filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:BATCH])
        if not keys:
            break
        last = keys[-1]
        with transaction.atomic():
            rows = _open().select_for_update(no_key=True).filter(pk__in=keys).order_by("pk")
            newest = {
                one.delivery_id: one for one in Reissue.objects.filter(delivery__in=keys).order_by("pk")
            }
            stale = [row for row in rows if _kid((newest.get(row.pk) or row).set_compact) not in published]
            Reissue.objects.bulk_create(_again(row, newest.get(row.pk) or row, at=at) for row in stale)
            _send(stale, by=by, at=at)
            done += len(stale)
    log.info("messages signed anew", count=done)
    return done


def _open() -> QuerySet[Delivery]:
    """Messages whose signature somebody has yet to check: what is not closed, and what is on its way once more."""
    again = Delivery.objects.filter(replay_of=OuterRef("pk"), closed_at__isnull=True)
    return Delivery.objects.filter(
        Q(closed_at__isnull=True) | Exists(again), overtaken=False, replay_of__isnull=True
    )


def _send(deliveries: list[Delivery], *, by: Actor, at: datetime.datetime) -> None:
    """What was signed anew goes out at once; a stop also to who took it under the old signature, and has not said that it was
    good. News about grants can be fetched: they must not arrive behind the stop that followed them."""
    rows = Delivery.objects.filter(pk__in=[row.pk for row in deliveries], received_at__isnull=True)
    rows.update(offered_at=None)
    waiting = rows.filter(state__in=["retrying", "dead"], lease__isnull=True)
    waiting.update(next_at=Greatest(Value(at), "not_before"), attempts=0, key_fault_at=None)
    for row in rows.filter(state="sent").exclude(goal="received").order_by("pk"):
        with contextlib.suppress(propagation.AlreadyWaiting):
            propagation.replay(row, by=by, at=at)


def still_open(kid: str) -> int:
    """How many open messages can only be checked with this key."""
    open_ones = _open()
    newest = {
        one.delivery_id: one.set_compact
        for one in Reissue.objects.filter(delivery__in=open_ones).order_by("pk")
    }
    rows = open_ones.values_list("pk", "set_compact").iterator(chunk_size=BATCH)
    return sum(_kid(newest.get(key, compact)) == kid for key, compact in rows)


def _kid(compact: str) -> str:
    return _part(compact, 0).get("kid", "")


def _again(delivery: Delivery, before: Delivery | Reissue, *, at: datetime.datetime) -> Reissue:
    """The same facts under a new id, with the id that it replaces."""
    jti = messages.new_id()
    claims = _part(before.set_compact, 1) | {
        "jti": str(jti),
        "iat": int(at.timestamp()),
        "replaces": str(before.jti),
    }
    compact = signing.sign_set(claims)
    body = json.loads(before.body)
    body["data"] |= {"jti": str(jti), "set": compact, "replaces": str(before.jti)}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return Reissue(delivery=delivery, jti=jti, body=text, set_compact=compact, at=at)


def _part(compact: str, place: int) -> dict:
    """A part of a SET of our own; what others sign is read by signing.verify_jws only."""
    text = compact.split(".")[place]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
