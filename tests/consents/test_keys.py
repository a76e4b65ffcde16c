"""Keys that change: a routine rotation refuses no message, a compromise is answered by signing every open one anew."""

import datetime
import io
import json
import os
import uuid

import jwt
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from consents import answers, keys, lifecycle, polling, propagation
from consents.actors import Actor
from consents.models import Delivery, EntryIndex, Reissue
from providers import keyring, signing, vault
from tests import factories
from tests.receivers import receiving

pytestmark = pytest.mark.django_db
BY = Actor.system("keys")
SECOND, DAY = datetime.timedelta(seconds=1), datetime.timedelta(days=1)


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.PORTAL_KEYS_DIR = tmp_path / "keys"
    vault.forget_keys()
    yield tmp_path / "keys"
    vault.forget_keys()


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def receiver(settings):
    with receiving(settings) as running:
        yield running


@pytest.fixture
def stopped(receiver, now):
    """A subscription that was left; its messages wait."""
    service = factories.offered()
    items = service.terms.get(state="published").items.all()
    receiver.connect(
        service.organization, *(i.source or i.recipient for i in items if i.source or i.recipient)
    )
    subscription = factories.joined(factories.PersonFactory(), service, now)
    propagation.deliver_due(now=lambda: now)
    lifecycle.leave(subscription, erase=True, by=Actor.person(subscription.person), at=now)
    receiver.arrivals.clear()
    return subscription


def run(*args) -> str:
    out = io.StringIO()
    call_command("keys", *args, stdout=out)
    return out.getvalue()


def kid(compact: str) -> str:
    return jwt.get_unverified_header(compact)["kid"]


def verified(compact: str, audience: str) -> dict:
    """By another library, with what we publish now."""
    key = next(one for one in signing.public_jwks()["keys"] if one["kid"] == kid(compact))
    return jwt.decode(compact, jwt.PyJWK(key), algorithms=["ES256"], audience=audience)


def test_a_key_is_published_a_day_before_it_signs_and_long_after(folder, now):
    old = kid(signing.sign_set({"a": 1}))
    fresh = run("prepare", "set").split()[0]
    assert run("prepare", "set").startswith(fresh), "asked twice it is the same key"
    assert kid(signing.sign_set({"a": 1})) == old
    assert {old, fresh} <= {key["kid"] for key in signing.public_jwks()["keys"]}
    with pytest.raises(CommandError, match="published for a day"):
        run("use", "set")
    os.utime(folder / "set.next.pem", (now.timestamp() - 90_000,) * 2)
    assert fresh in run("use", "set")
    assert kid(signing.sign_set({"a": 1})) == fresh
    assert {old, fresh} <= {key["kid"] for key in signing.public_jwks()["keys"]}
    assert "retired" in run("list") and old in run("list")
    with pytest.raises(CommandError, match="less than 30 days ago"):
        run("retire", "set", old)
    (retired,) = folder.glob(f"set.{old[:16]}.pem")
    os.utime(retired, (now.timestamp() - 31 * 86_400,) * 2)
    run("retire", "set", old)
    assert old not in run("list")
    logged = EntryIndex.objects.filter(typ__startswith="key.").order_by("seq").values_list("typ", flat=True)
    assert list(logged) == ["key.added", "key.retired"]


def test_a_key_that_open_messages_are_signed_with_stays(stopped, folder, now):
    old = kid(Delivery.objects.filter(subscription=stopped).first().set_compact)
    run("prepare", "set")
    os.utime(folder / "set.next.pem", (now.timestamp() - 90_000,) * 2)
    run("use", "set")
    with pytest.raises(CommandError, match="open messages are signed with it"):
        run("retire", "set", old)
    assert old in {key["kid"] for key in signing.public_jwks()["keys"]}


@pytest.mark.parametrize("args", [("use",), ("retire", "set"), ("retire", "set", "nobody"), ("compromised",)])
def test_a_command_that_lacks_something_says_what(args):
    with pytest.raises(CommandError):
        run(*args)
    assert not EntryIndex.objects.filter(typ__startswith="key.").exists()


def test_the_key_in_use_is_not_retired():
    with pytest.raises(CommandError, match="this key signs"):
        run("retire", "set", kid(signing.sign_set({"a": 1})))


def test_after_a_compromise_every_open_message_goes_out_under_a_new_signature(stopped, receiver, now):
    before = {row.pk: row for row in Delivery.objects.filter(subscription=stopped, closed_at__isnull=True)}
    dropped = kid(next(iter(before.values())).set_compact)
    out = run("compromised", "set")
    assert f"{dropped} is dropped" in out and "keys reissue" in out
    assert dropped not in {key["kid"] for key in signing.public_jwks()["keys"]}
    propagation.deliver_due(now=timezone.now)
    stops = [row for row in before.values() if row.event == "subscription-ended"]
    assert len(receiver.arrivals) == len(stops) == 4
    first = {str(row.jti): row for row in stops}
    for arrival in receiver.arrivals:
        data = arrival.message["data"]
        row = first[data["replaces"]]
        claims = verified(data["set"], row.organization.code)
        assert arrival.id == data["jti"] == claims["jti"] != str(row.jti)
        assert claims["replaces"] == str(row.jti) and claims["txn"] == str(row.txn)
        (facts,) = claims["events"].values()
        (same,) = jwt.decode(row.set_compact, options={"verify_signature": False})["events"].values()
        assert facts == same, "the same facts"
    typs = EntryIndex.objects.filter(typ__startswith="key.").order_by("seq").values_list("typ", flat=True)
    assert list(typs) == ["key.retired", "key.added"]


def test_what_is_answered_to_the_new_id_counts_for_the_delivery(stopped, now):
    run("compromised", "set")
    row = stopped.deliveries.get(role="operator", event="subscription-ended")
    again = Reissue.objects.get(delivery=row)
    own = row.organization
    by = Actor.organization(own)
    with pytest.raises(answers.UnknownDelivery):
        answers.acknowledge(again.jti, organization=factories.OperatorFactory(), by=by, at=now)
    answers.acknowledge(again.jti, organization=own, by=by, at=now + SECOND)
    row.refresh_from_db()
    assert row.state == "received"
    assert (
        answers.acknowledge(row.jti, organization=own, by=by, at=now + 2 * SECOND).received_at == now + SECOND
    )


def test_a_poll_is_given_the_new_signature(stopped, now):
    run("compromised", "set")
    row = stopped.deliveries.get(role="operator", event="subscription-ended")
    factories.api_client(row.organization)
    offered, _more = polling.offer(row.organization, most=10, by=BY, at=timezone.now())
    again = Reissue.objects.get(delivery=row)
    assert offered[str(again.jti)] == again.set_compact and str(row.jti) not in offered


def test_asked_again_only_what_was_signed_with_the_dropped_key_meanwhile(stopped, folder, now):
    old = (folder / "set.pem").read_bytes()
    run("compromised", "set")
    assert keys.reissue(by=BY, at=timezone.now()) == 0
    fresh = (folder / "set.pem").read_bytes()
    (folder / "set.pem").write_bytes(old)  # a process that was not restarted
    vault.forget_keys()
    late = factories.joined(factories.PersonFactory(), stopped.service, now)
    (folder / "set.pem").write_bytes(fresh)
    vault.forget_keys()
    assert keys.reissue(by=BY, at=timezone.now()) == late.deliveries.count()
    assert keyring.keys("set")[0] == (signing.kid_of(fresh), "current")


def test_a_second_compromise_replaces_the_replacement(stopped):
    run("compromised", "set")
    run("compromised", "set")
    row = stopped.deliveries.get(role="operator", event="subscription-ended")
    one, two = row.reissues.all()
    assert json.loads(two.body)["data"]["replaces"] == str(one.jti)
    assert uuid.UUID(str(two.jti)).version == 7 and verified(two.set_compact, row.organization.code)


def test_closed_messages_are_left_as_they_were(stopped, now):
    Delivery.objects.filter(subscription=stopped).update(
        state="erased",
        sent_at=now,
        received_at=now,
        stopped_at=now,
        erased_at=now,
        closed_at=now,
        next_at=None,
    )
    run("compromised", "set")
    assert not Reissue.objects.exists()


def test_a_kid_that_begins_like_an_option_is_a_kid():
    with pytest.raises(CommandError, match="no published key has the kid -If5mA1"):
        run("retire", "receipt", "-If5mA1")
    for words in (["retire", "set"], ["list", "set", "x"], ["retire", "set", "a", "b"]):
        with pytest.raises(CommandError, match="needs one kid"):
            run(*words)


def test_a_stop_that_was_taken_under_the_old_signature_goes_out_again(stopped, receiver, now):
    """Whoever has not said that it was good may not have checked it yet; grants must not arrive behind it."""
    propagation.deliver_due(now=timezone.now)
    answered = stopped.deliveries.get(role="operator", event="subscription-ended")
    own = answered.organization
    answers.acknowledge(answered.jti, organization=own, by=Actor.organization(own), at=now)
    receiver.arrivals.clear()
    run("compromised", "set")
    propagation.deliver_due(now=timezone.now)
    stops = stopped.deliveries.filter(event="subscription-ended", replay_of__isnull=True)
    others = {str(row.jti) for row in stops.exclude(pk=answered.pk)}
    told = [arrival.message for arrival in receiver.arrivals]
    assert {one["type"] for one in told} == {"subscription-ended"}
    assert sorted(one["data"]["replaces"] for one in told) == sorted(others)


def test_what_is_on_its_way_once_more_is_signed_anew_though_it_was_answered(stopped, receiver, now):
    row = stopped.deliveries.get(role="operator", event="subscription-ended")
    Delivery.objects.filter(pk=row.pk).update(
        state="erased",
        sent_at=now,
        received_at=now,
        stopped_at=now,
        erased_at=now,
        closed_at=now,
        next_at=None,
    )
    propagation.replay(row, by=BY, at=now)
    run("compromised", "set")
    propagation.deliver_due(now=timezone.now)
    (arrival,) = [one for one in receiver.of(row.organization) if one.message["type"] == row.event]
    assert verified(arrival.message["data"]["set"], row.organization.code)["replaces"] == str(row.jti)


def test_a_new_signature_that_cannot_be_read_is_noted_on_the_delivery(stopped, now):
    run("compromised", "set")
    row = stopped.deliveries.get(role="operator", event="subscription-ended")
    again = Reissue.objects.get(delivery=row)
    said = {
        "organization": row.organization,
        "code": "invalid_key",
        "description": "no such kid",
        "by": BY,
        "at": now,
    }
    assert polling.note_unreadable(again.jti, **said)
    row.refresh_from_db()
    assert row.last_error == "invalid_key: no such kid"
