"""Changes of channels: two people, a badge, an answer at the new address, a day's notice; and the old one until then."""

import datetime
import re
import threading

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consents import channels, gym, jobs, trials
from consents import mail as letters
from consents.actors import Actor
from consents.models import ChannelChange, EntryIndex, GymRun
from consents.queries import channels as queries
from consents.queries import paging
from providers import registry
from providers.models import Channel
from tests import factories

BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
BY = Actor.system("test")
NEW = "https://stops.durumi.example.com/hooks"
# Addresses that could lead into our own network, or are none (T01).
BAD = [
    "", " ", "http://example.com/", "ftp://example.com/", "example.com", "//example.com/", "https://", "https:///x",
    "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/",
    "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[fe80::1%25eth0]/", "https://10.0.0.1/", "https://192.168.0.1/",
    "https://169.254.169.254/latest/meta-data/", "https://metadata.google.internal/", "https://localhost/",
    "https://app.localhost/", "https://printer.local/", "https://db.internal/", "https://router.lan/", "https://intranet/",
    "https://example.com:8443/", "https://example.com:22/", "https://user@example.com/", "https://user:pw@example.com/",
    "https://example.com/#x", "https://example.com\\@127.0.0.1/", "https://example.com/a b", "https://example.com/\r\nX: y",
    "https://example.com/\x00", "https://testserver/", "javascript:alert(1)", "file:///etc/passwd", "gopher://example.com/",
    "https://example..com/", "https://-example.com/", "https://example.com:0/", "https://①②⑦.⓪.⓪.①/", "https://" + "a" * 2048 + ".com/",
]  # fmt: skip


def browser(person, *, signed_in: float | None = 0.0):
    """Their browser; `signed_in` seconds ago they proved who they are (None: long ago)."""
    made = Client()
    made.force_login(person, backend=BACKEND)
    if signed_in is not None:
        factories.prove(made, person, ago=signed_in)
    return made


@pytest.fixture
def own(db):
    operator = factories.OperatorFactory(duty_contact="duty@durumi.example.com")
    registry.open_channel(
        organization=operator, protocol="native", address="https://old.durumi.example.com/hooks",
        at=timezone.now() - datetime.timedelta(days=99),
    )  # fmt: skip
    return operator


@pytest.fixture
def admins(own):
    return [factories.MemberFactory(organization=own).person for _ in range(2)]


def asked(own, member, *, at=None, **given) -> ChannelChange:
    given = {"protocol": "native", "address": NEW} | given
    change, _secret = channels.ask(own, **given, member=member, by=BY, at=at or timezone.now())
    return change


def badge(change, *, at=None) -> GymRun:
    """A run of the new channel that went well."""
    at = at or timezone.now()
    run = gym.ask(change.channel, by=BY, at=at)
    results = [{"name": name, "passed": True, "detail": "", "answers": []} for name in trials.names("native")]
    assert gym.finish(run, results=results, by=BY, at=at)
    return run


def proved(own, admins, *, at=None) -> ChannelChange:
    """A change that lacks nothing but time."""
    at = at or timezone.now()
    change = asked(own, admins[0], at=at)
    channels.approve(change, member=admins[1], by=BY, at=at)
    badge(change, at=at)
    ChannelChange.objects.filter(pk=change.pk).update(state="proved", proved_at=at)
    return change


def entries(own) -> list[str]:
    return list(EntryIndex.objects.filter(party=own).order_by("seq").values_list("typ", flat=True))


# --- the whole way -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_channel_changes_by_two_people_a_badge_an_answer_and_a_day(own, admins, monkeypatch, settings):
    old = own.channels.get()
    registry.add_public_key(channel=old, kid="evidence-1", jwk={"kty": "EC"}, at=timezone.now())
    change = asked(own, admins[0])
    heard = []
    monkeypatch.setattr(channels, "_answers", lambda channel, *, at: heard.append(channel) or True)
    jobs.change_channels()
    assert not heard, "nobody approved it yet"
    channels.approve(change, member=admins[1], by=BY, at=timezone.now())
    jobs.change_channels()
    assert not heard, "it has no badge yet"
    badge(change)
    assert jobs.change_channels() == {"proved": 1, "live": 0, "dropped": 0}
    change.refresh_from_db()
    assert change.state == "proved" and change.live_from - change.proved_at > datetime.timedelta(hours=23.9)
    assert {letter.to[0] for letter in mail.outbox} == {own.duty_contact, *(one.email for one in admins)}
    assert all(NEW in letter.body and reverse("desk_channel") in letter.body for letter in mail.outbox)
    assert own.channels.get(state="open") == old
    jobs.change_channels()
    assert len(mail.outbox) == 3, "told once"
    assert channels.go_live_due(by=BY, at=change.live_from - datetime.timedelta(seconds=1))["live"] == 0
    assert channels.go_live_due(by=BY, at=change.live_from) == {"live": 1, "dropped": 0}
    assert channels.go_live_due(by=BY, at=change.live_from) == {"live": 0, "dropped": 0}
    opened = own.channels.get(state="open")
    old.refresh_from_db()
    assert opened == change.channel and opened.address == NEW and old.state == "retired"
    assert opened.keys.filter(kid="evidence-1", retired_at__isnull=True).exists(), "their keys go along"
    assert entries(own)[-2:] == ["channel.retired", "channel.opened"]


@pytest.mark.django_db(transaction=True)
def test_the_new_address_must_answer(partners, admins, own):
    service = factories.offered()
    partners.connect(service.organization)
    address = service.organization.channels.get().address
    change = asked(own, admins[0], address=address)
    channels.approve(change, member=admins[1], by=BY, at=timezone.now())
    badge(change)
    assert channels.prove_due(now=timezone.now) == 0, "that server does not know our new secret"
    change.refresh_from_db()
    assert change.state == "approved"


@pytest.mark.django_db(transaction=True)
def test_a_server_that_was_given_the_key_answers_for_the_new_address(partners):
    partners.connect(own_partner := factories.OperatorFactory())
    member, other = (factories.MemberFactory(organization=own_partner).person for _ in range(2))
    address = own_partner.channels.get().address
    change, secret = channels.ask(
        own_partner, protocol="native", address=address, member=member, by=BY, at=timezone.now()
    )
    partners.server.post("/_/keys", {"organization": own_partner.code, "secret": secret})
    channels.approve(change, member=other, by=BY, at=timezone.now())
    badge(change)
    assert channels.prove_due(now=timezone.now) == 1


@pytest.mark.django_db(transaction=True)
def test_two_jobs_at_once_open_it_once(own, admins):
    change = proved(own, admins)
    at = timezone.now()
    channels.note_told(change, by=BY, at=at)
    later, done = at + datetime.timedelta(days=2), []

    def job():
        done.append(channels.go_live_due(by=BY, at=later)["live"])
        connection.close()

    threads = [threading.Thread(target=job) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 0, 1]
    assert entries(own).count("channel.opened") == 1 and entries(own).count("channel.retired") == 1


# --- what is refused -----------------------------------------------------------------------------------------------------


def test_whoever_asked_cannot_approve_and_the_database_says_so_too(own, admins):
    change = asked(own, admins[0])
    with pytest.raises(channels.SamePerson):
        channels.approve(change, member=admins[0], by=BY, at=timezone.now())
    with pytest.raises(IntegrityError), transaction.atomic():
        ChannelChange.objects.filter(pk=change.pk).update(approved_by=admins[0], approved_at=timezone.now())


def test_one_change_at_a_time(own, admins):
    asked(own, admins[0])
    with pytest.raises(channels.ChangePending):
        asked(own, admins[1])
    assert own.channels.filter(state="testing").count() == 1


def test_nothing_goes_live_without_a_badge_for_this_very_address(own, admins):
    change = proved(own, admins)
    at = timezone.now()
    channels.note_told(change, by=BY, at=at)
    later = at + datetime.timedelta(days=2)
    Channel.objects.filter(pk=change.channel_id).update(address=NEW + "/2")
    with pytest.raises(channels.NoBadge):
        channels.go_live(change, by=BY, at=later)
    assert channels.go_live_due(by=BY, at=later)["live"] == 0
    Channel.objects.filter(pk=change.channel_id).update(address=NEW)
    GymRun.objects.update(valid_until=later)
    with pytest.raises(channels.NoBadge):
        channels.go_live(change, by=BY, at=later)
    assert own.channels.get(state="open").address.startswith("https://old.")


def test_an_address_is_judged_again_when_it_goes_live(own, admins):
    change = proved(own, admins)
    at = timezone.now()
    channels.note_told(change, by=BY, at=at)
    Channel.objects.filter(pk=change.channel_id).update(address="https://127.0.0.1/")
    GymRun.objects.update(address="https://127.0.0.1/")
    with pytest.raises(channels.BadAddress):
        channels.go_live(change, by=BY, at=at + datetime.timedelta(days=2))


def test_a_withdrawn_change_never_comes_back(own, admins):
    change = proved(own, admins)
    channels.note_told(change, by=BY, at=timezone.now())
    channels.withdraw(change, by=BY, at=timezone.now())
    with pytest.raises(channels.NotNow):
        channels.withdraw(change, by=BY, at=timezone.now())
    with pytest.raises(channels.NotNow):
        channels.approve(change, member=admins[1], by=BY, at=timezone.now())
    assert channels.go_live_due(by=BY, at=timezone.now() + datetime.timedelta(days=9)) == {
        "live": 0,
        "dropped": 0,
    }
    change.channel.refresh_from_db()
    assert change.channel.state == "retired" and own.channels.filter(state="open").count() == 1
    asked(own, admins[0])  # room for another one


def test_what_goes_nowhere_is_dropped(own, admins):
    change = asked(own, admins[0], at=timezone.now() - channels.LASTS)
    assert channels.go_live_due(by=BY, at=timezone.now())["dropped"] == 1
    change.refresh_from_db()
    assert change.state == "dropped" and change.closed_at


def test_without_the_letter_no_notice_begins(own, admins, monkeypatch):
    proved(own, admins)

    class Down:
        def send_messages(self, messages):
            raise OSError("the mail server is down")

    monkeypatch.setattr(letters.mail, "get_connection", Down)
    assert jobs.change_channels()["live"] == 0
    assert ChannelChange.objects.get().live_from is None


def test_a_desk_needs_no_badge(own, admins, monkeypatch):
    change = asked(own, admins[0], protocol="desk", address="")
    channels.approve(change, member=admins[1], by=BY, at=timezone.now())
    assert channels.prove_due(now=timezone.now) == 1


# --- the pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", BAD)
def test_a_bad_address_is_refused_when_it_is_saved_with_words(own, admins, address):
    site = browser(admins[0])
    answer = site.post(reverse("ask_channel"), {"protocol": "native", "address": address})
    assert answer.status_code == 400, address
    problems = answer.context["form"].errors["address"]
    assert problems and all(re.search("[가-힣]", words) for words in problems), address
    assert not ChannelChange.objects.exists() and own.channels.count() == 1
    with pytest.raises(channels.BadAddress):
        asked(own, admins[0], address=address)


def test_asking_shows_the_secret_once_and_it_is_the_one_that_signs(own, admins):
    site = browser(admins[0])
    answer = site.post(reverse("ask_channel"), {"protocol": "native", "address": NEW})
    assert answer.status_code == 200 and answer["Cache-Control"] == "no-store, private"
    secret = re.search(r"whsec_[A-Za-z0-9+/=]+", answer.content.decode())[0]
    channel = ChannelChange.objects.get().channel
    assert registry.channel_secrets(channel) == [registry.signing.webhook_secret(secret)]
    for name in ("desk_channel", "desk_gym", "desk"):
        assert secret not in site.get(reverse(name)).content.decode()


def test_who_signed_in_long_ago_is_asked_again_and_nothing_is_kept(own, admins):
    before = ChannelChange.objects.count()
    for seconds in (None, 301.0, -5.0):
        site = browser(admins[0], signed_in=seconds)
        for method in ("get", "post"):
            answer = getattr(site, method)(
                reverse("ask_channel"), {"protocol": "native", "address": NEW, "credential": "s3cret-token"}
            )
            assert answer.status_code == 302 and answer.url.startswith(reverse("account_reauthenticate"))
        assert "s3cret-token" not in str(dict(site.session))
        channel = own.channels.get(state="open")
        kid = channel.keys.get(kind="hmac").kid
        assert site.post(reverse("rotate_channel_key", args=[channel.pk]), {"kid": kid}).status_code == 302
    assert ChannelChange.objects.count() == before and own.channels.get().keys.count() == 1


def test_signing_in_with_the_password_is_fresh_enough(own):
    person = factories.MemberFactory(organization=own).person
    person.set_password("a-very-good-password")
    person.save()
    EmailAddress.objects.create(user=person, email=person.email, verified=True, primary=True)
    site = Client()
    site.post(reverse("account_login"), {"login": person.email, "password": "a-very-good-password"})
    assert site.get(reverse("ask_channel")).status_code == 200


def test_approving_by_pages(own, admins):
    change = asked(own, admins[0])
    first, second = browser(admins[0]), browser(admins[1])
    page = first.get(reverse("desk_channel")).content.decode()
    assert reverse("approve_channel", args=[change.pk]) not in page
    first.post(reverse("approve_channel", args=[change.pk]))
    change.refresh_from_db()
    assert change.state == "asked"
    assert (
        reverse("approve_channel", args=[change.pk]) in second.get(reverse("desk_channel")).content.decode()
    )
    second.post(reverse("approve_channel", args=[change.pk]))
    change.refresh_from_db()
    assert change.state == "approved" and change.approved_by == admins[1]
    first.post(reverse("withdraw_channel", args=[change.pk]))
    change.refresh_from_db()
    assert change.state == "dropped"


def test_nobody_reaches_another_organizations_channel(own, admins):
    change = asked(own, admins[0])
    channel = own.channels.get(state="open")
    stranger = browser(factories.MemberFactory(organization=factories.OperatorFactory()).person)
    for name, pk in (
        ("approve_channel", change.pk), ("withdraw_channel", change.pk), ("rotate_channel_key", channel.pk),
        ("start_gym", channel.pk), ("start_gym", change.channel_id),
    ):  # fmt: skip
        assert stranger.post(reverse(name, args=[pk]), {"kid": "x"}).status_code == 404, name
    change.refresh_from_db()
    assert change.state == "asked" and not GymRun.objects.exists()
    page = stranger.get(reverse("desk_channel")).content.decode()
    assert NEW not in page and channel.address not in page
    for person in (
        factories.PersonFactory(),
        factories.MemberFactory(role="regulator", organization=None).person,
    ):
        assert browser(person).get(reverse("desk_channel")).status_code == 403


def test_a_key_is_rotated_once_however_often_the_button_is_pressed(own, admins):
    site, channel = browser(admins[0]), own.channels.get()
    url, kid = reverse("rotate_channel_key", args=[channel.pk]), channel.keys.get(kind="hmac").kid
    answer = site.post(url, {"kid": kid})
    secret = re.search(r"whsec_[A-Za-z0-9+/=]+", answer.content.decode())[0]
    assert site.post(url, {"kid": kid}).status_code == 302
    assert channel.keys.filter(kind="hmac").count() == 2 and entries(own) == ["channel.rotated"]
    secrets = registry.channel_secrets(channel)
    assert secrets[0] == registry.signing.webhook_secret(secret) and len(secrets) == 2
    assert secret not in site.get(reverse("desk_channel")).content.decode()
    assert site.post(url, {}).status_code == 400 and site.get(url).status_code == 405


def test_settings_that_the_wire_does_not_know_are_refused(own, admins):
    site = browser(admins[0])
    for details in ("audience: x", "not a line", "a: b\na: c", "Name: x", "together: 0", "together: many"):
        answer = site.post(reverse("ask_channel"), {"protocol": "native", "address": NEW, "details": details})
        assert answer.status_code == 400 and "details" in answer.context["form"].errors, details
    assert site.post(reverse("ask_channel"), {"protocol": "desk", "address": NEW}).status_code == 400
    assert site.post(reverse("ask_channel"), {"protocol": "no-such"}).status_code == 400


def test_the_page_costs_six_queries_and_past_changes_are_paged(own, admins):
    at = timezone.now()
    for days in range(paging.SIZE + 2):
        change = asked(own, admins[0], at=at - datetime.timedelta(days=days + 1))
        channels.withdraw(change, by=BY, at=at)
    asked(own, admins[0])
    with CaptureQueriesContext(
        connection,
    ) as seen:
        queries.screen(own, admins[1], at=at)
    assert len(seen) <= 6
    site = browser(admins[1])
    first = site.get(reverse("desk_channel"))
    assert len(first.context["rows"]) == paging.SIZE and first.context["next_url"]
    second = site.get(reverse("desk_channel") + first.context["next_url"])
    assert len(second.context["rows"]) == 2
    for cursor in ("x", "1-1", "1-u" + "9" * 39):
        assert site.get(reverse("desk_channel"), {"after": cursor}).status_code == 400


def test_a_post_from_elsewhere_is_refused(own, admins):
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(admins[0], backend=BACKEND)
    for name, args in (("ask_channel", []), ("rotate_channel_key", [own.channels.get().pk])):
        assert careful.post(reverse(name, args=args), {"protocol": "desk"}).status_code == 403
    assert not ChannelChange.objects.exists()
