"""Publishing takes a digest and never goes back; channels have one open way and two secrets while one is rotated."""

import datetime

import pytest

from providers import datafiles, policy, registry, signing, wording
from providers.models import Channel, ChannelKey, Licence, Organization, Service, Terms, TermsItem

AT = datetime.datetime(2026, 11, 22, 3, 0, tzinfo=datetime.UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture
def service():
    datafiles.load_fictional(at=AT)
    return Service.objects.get(slug="durumi-week")


def draft(service, *, kind="clarification", **change):
    """A copy of the published terms as the next draft; `change` alters its first item."""
    old = service.terms.get(state="published")
    terms = Terms.objects.create(
        service=service, version=old.version + 1, change_kind=kind, change_reason_ko="쉽게 고침", change_reason_en="Plainer",
        summary_ko=old.summary_ko, summary_en=old.summary_en, text_ko=old.text_ko + "\n덧붙인 말", text_en=old.text_en,
    )  # fmt: skip
    for item in old.items.all():
        item.pk, item.terms = None, terms
        item._state.adding = True
        if item.position == 1:
            for name, value in change.items():
                setattr(item, name, value)
        item.save()
    return terms


def test_publishing_retires_the_version_before(service):
    before = service.terms.get(state="published")
    terms = registry.publish_terms(terms=draft(service), at=AT)
    before.refresh_from_db()
    assert (before.state, before.retired_at) == ("retired", AT)
    assert (terms.state, terms.published_at) == ("published", AT)
    assert terms.digest_ko == wording.text_digest(Terms.objects.get(pk=terms.pk), "ko") != before.digest_ko
    with pytest.raises(registry.NotADraft):
        registry.publish_terms(terms=terms, at=AT)


@pytest.mark.parametrize(
    "change",
    [
        {"purpose_ko": "광고에 써요."},
        {"scopes": ["bank.list", "bank.loan"]},
        {"cycle": "1/2w"},
        {"retention_days": None},
    ],
)
def test_a_material_change_cannot_pass_as_a_clarification(service, change):
    terms = draft(service, **change)
    with pytest.raises(registry.ChangeIsMaterial) as error:
        registry.publish_terms(terms=terms, at=AT)
    assert error.value.differences == [f"transfer: {next(iter(change))}"]
    assert Terms.objects.get(pk=terms.pk).state == "draft"
    assert service.terms.get(state="published").version == terms.version - 1
    Terms.objects.filter(pk=terms.pk).update(change_kind="material")
    assert registry.publish_terms(terms=terms, at=AT).state == "published"


def test_a_dropped_item_is_material(service):
    terms = draft(service)
    terms.items.filter(kind="marketing").delete()
    with pytest.raises(registry.ChangeIsMaterial, match="marketing: dropped"):
        registry.publish_terms(terms=terms, at=AT)


def test_terms_without_the_legal_items_are_not_published(service):
    with pytest.raises(registry.TermsIncomplete) as error:
        registry.publish_terms(terms=draft(service, purpose_en=""), at=AT)
    assert error.value.missing == ["1: purpose_en"]
    empty = Terms.objects.create(
        service=service, version=9, change_reason_ko="빈 약관", text_ko="글", text_en="Text"
    )
    with pytest.raises(registry.TermsIncomplete) as error:
        registry.publish_terms(terms=empty, at=AT)
    assert error.value.missing == ["items", "summary_ko", "summary_en"]


def test_the_text_agreed_to_changes_with_every_legal_item(service):
    terms = service.terms.get(state="published")
    items = list(terms.items.select_related("source", "recipient").order_by("position"))
    other = {
        "scopes": ["bank.list", "bank.loan"], "riders": ["merchant"], "cycle": "1/4w", "valid_months": 3,
        "purpose_ko": "다른 일", "retention_ko": "하루", "required": False, "title_ko": "다른 이름",
        "source": Organization.objects.get(name_ko="물레은행"),
    }  # fmt: skip
    digests = {wording.text_digest(terms, "ko", items=items)}
    for name, value in other.items():
        was = getattr(items[0], name)
        setattr(items[0], name, value)
        digests.add(wording.text_digest(terms, "ko", items=items))
        setattr(items[0], name, was)
    assert len(digests) == len(other) + 1


def test_a_decision_is_recorded_once_and_only_for_operators(service):
    day = datetime.date(2026, 11, 20)
    facts = {"status": "suspended", "decided_on": day, "effective_on": day, "source": "시험", "at": AT}
    first = registry.record_decision(organization=service.organization, **facts)
    assert registry.record_decision(organization=service.organization, **facts) == first
    assert service.organization.status_on(day) == "suspended"
    count = Licence.objects.count()
    with pytest.raises(registry.NotAnOperator):
        registry.record_decision(organization=Organization.objects.filter(is_operator=False).first(), **facts)
    assert Licence.objects.count() == count


def test_of_the_decisions_of_one_day_the_last_one_counts(service):
    operator, day = service.organization, datetime.date(2026, 11, 20)
    facts = {"organization": operator, "decided_on": day, "effective_on": day, "source": "시험", "at": AT}
    made = []
    for status in ("suspended", "licensed", "suspended", "suspended", "conditional", "suspended"):
        made.append(registry.record_decision(status=status, **facts))
        assert operator.status_on(day) == status
    assert made[3] == made[2] and len(set(made)) == 5
    assert [licence.nth for licence in made] == [1, 1, 2, 2, 1, 3]


def test_a_decision_said_again_does_not_come_before_one_of_a_later_day(service):
    operator, day = service.organization, datetime.date(2026, 11, 20)
    facts = {"organization": operator, "effective_on": datetime.date(2026, 12, 1), "source": "시험", "at": AT}
    first = registry.record_decision(status="suspended", decided_on=day, **facts)
    registry.record_decision(status="licensed", decided_on=day + datetime.timedelta(days=1), **facts)
    assert registry.record_decision(status="suspended", decided_on=day, **facts) == first
    assert operator.status_on(datetime.date(2026, 12, 1)) == "licensed"


def test_a_native_channel_has_a_sealed_secret_and_only_one_is_open(service):
    secret = signing.new_webhook_secret()
    native = {
        "organization": service.organization,
        "protocol": "native",
        "address": "https://durumi.example/in",
    }
    channel = registry.open_channel(**native, secret=secret, at=AT)
    assert registry.channel_secrets(channel) == [signing.webhook_secret(secret)]
    assert signing.webhook_secret(secret) not in bytes(channel.keys.get().sealed_secret)
    with pytest.raises(registry.ChannelAlreadyOpen):
        registry.open_channel(**native, at=AT)
    registry.retire_channel(channel=channel, at=AT)
    assert registry.channel_secrets(channel) == []
    desk = registry.open_channel(organization=service.organization, protocol="desk", at=AT)
    assert Channel.objects.get(state="open") == desk and not desk.keys.exists()


def test_a_sealed_secret_is_good_in_its_own_channel_only(service):
    sources = Organization.objects.filter(is_source=True)[:2]
    one, other = (
        registry.open_channel(organization=source, protocol="native", address="https://a.example/", at=AT)
        for source in sources
    )
    ChannelKey.objects.filter(channel=other).update(sealed_secret=bytes(one.keys.get().sealed_secret))
    with pytest.raises(signing.BadSeal):
        registry.channel_secrets(other)


def test_two_secrets_sign_while_one_is_rotated(service):
    datafiles.load_policy(at=AT)
    channel = registry.open_channel(
        organization=service.organization, protocol="native", address="https://durumi.example/in", at=AT
    )
    [old] = registry.channel_secrets(channel)
    now = datetime.datetime.now(datetime.UTC)
    key = registry.rotate_key(channel=channel, at=now)
    assert registry.channel_secrets(channel)[1:] == [old] and len(registry.channel_secrets(channel)) == 2
    assert channel.keys.exclude(pk=key.pk).get().retired_at == now + datetime.timedelta(hours=24)
    registry.retire_channel(channel=channel, at=now)
    assert registry.channel_secrets(channel) == []
    with pytest.raises(registry.ChannelRetired):
        registry.rotate_key(channel=channel, at=now)
    policy.forget()


def test_items_keep_their_order_and_parties(service):
    items = TermsItem.objects.filter(terms__service=service)
    assert list(items.order_by("position").values_list("kind", flat=True)) == [
        "transfer", "transfer", "transfer", "transfer", "use", "marketing",
    ]  # fmt: skip
