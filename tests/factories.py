"""Rows for tests, made the way the portal makes them: terms are published through the registry, joins through lifecycle."""

import datetime
import time

import factory
from allauth.idp.oidc.models import Client
from factory.django import DjangoModelFactory

from consents import lifecycle
from consents.actors import Actor
from consents.models import Member, Person
from providers import registry
from providers.models import ApiClient, Channel, Licence, Organization, Service, Terms, TermsItem

LONG_AGO = datetime.date(2021, 1, 27)
PUBLISHED_AT = datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC)


class OrganizationFactory(DjangoModelFactory):
    """A fictional source without a licence. `is_operator=True` or OperatorFactory for the other side."""

    class Meta:
        model = Organization
        skip_postgeneration_save = True

    code = factory.Sequence(lambda n: f"TEST{n:06d}")
    name_ko = factory.Sequence(lambda n: f"모퉁이은행 {n}")
    name_en = factory.Sequence(lambda n: f"Corner Bank {n}")
    sector = "bank"
    is_operator = False
    is_source = True
    is_fictional = True
    duty_contact = factory.LazyAttribute(lambda made: f"privacy@{made.code.lower()}.example")


class OperatorFactory(OrganizationFactory):
    """A fictional operator, licensed since 2021; `licence=None` for none, or another status."""

    name_ko = factory.Sequence(lambda n: f"골목핀테크 {n}")
    name_en = factory.Sequence(lambda n: f"Alley Fintech {n}")
    sector = "fintech"
    is_operator = True
    is_source = False

    @factory.post_generation
    def licence(self, create, status="licensed", **kwargs):
        status = "licensed" if status is None and not kwargs else status
        if create and status:
            LicenceFactory(organization=self, status=status)


class LicenceFactory(DjangoModelFactory):
    class Meta:
        model = Licence

    organization = factory.SubFactory(OperatorFactory)
    status = "licensed"
    decided_on = LONG_AGO
    effective_on = LONG_AGO
    source = "시험을 위해 지어낸 결정"


class ServiceFactory(DjangoModelFactory):
    """A live service of a licensed operator, without terms: add TermsFactory, or make both with `offered()`."""

    class Meta:
        model = Service

    organization = factory.SubFactory(OperatorFactory)
    client_id = factory.Sequence(lambda n: f"client-{n}")
    slug = factory.Sequence(lambda n: f"service-{n}")
    name_ko = factory.Sequence(lambda n: f"골목 가계부 {n}")
    name_en = factory.Sequence(lambda n: f"Alley Ledger {n}")
    summary_ko = "통장을 모아 저절로 쓰는 가계부"
    summary_en = "A ledger that fills itself in"
    benefit_ko = "손으로 적지 않아도 돼요."
    benefit_en = "Nothing to write down."
    loss_ko = "가계부에 새 내역이 쌓이지 않아요."
    loss_en = "No new entries reach your ledger."
    purpose_code = "budgeting"
    state = "live"
    opened_on = LONG_AGO


class TermsItemFactory(DjangoModelFactory):
    """One transfer item; other kinds by arguments. Only draft terms take items."""

    class Meta:
        model = TermsItem

    position = factory.Sequence(lambda n: n % 30_000 + 1)
    kind = "transfer"
    required = True
    source = factory.Maybe(
        factory.LazyAttribute(lambda made: made.kind == "transfer"),
        yes_declaration=factory.SubFactory(OrganizationFactory),
        no_declaration=None,
    )
    recipient = None
    title_ko = "은행에서 예금 정보 가져오기"
    title_en = "Get deposit information"
    scopes = factory.LazyFunction(lambda: ["bank.list", "bank.deposit"])
    riders = factory.LazyFunction(list)
    cycle = "1/1w"
    valid_months = 12
    purpose_ko = "가계부에 적으려고 받아요."
    purpose_en = "To enter it in your ledger."
    retention_days = None
    retention_ko = "그만두거나 지워 달라고 할 때까지"
    retention_en = "Until you leave or ask for it to be erased"
    paid = False
    grade = ""


class TermsFactory(DjangoModelFactory):
    """Published terms with four items: a required and an optional source (rider memo), a third party (paid, grade 04),
    and marketing. `items=[dict, …]` replaces them; `published=False` leaves a draft."""

    class Meta:
        model = Terms
        skip_postgeneration_save = True

    service = factory.SubFactory(ServiceFactory)
    version = factory.LazyAttribute(lambda made: Terms.objects.filter(service=made.service).count() + 1)
    change_kind = factory.LazyAttribute(lambda made: "first" if made.version == 1 else "material")
    change_reason_ko = factory.LazyAttribute(
        lambda made: "" if made.version == 1 else "보관 기간을 바꿨어요."
    )
    change_reason_en = factory.LazyAttribute(
        lambda made: "" if made.version == 1 else "We changed how long we keep it."
    )
    summary_ko = "통장 내역으로 가계부를 써 드려요."
    summary_en = "We keep your ledger."
    text_ko = "## 누가 받나요\n\n우리가 받아요.\n"
    text_en = "## Who receives it\n\nWe do.\n"

    @factory.post_generation
    def items(self, create, given, **kwargs):
        if not create:
            return
        for position, item in enumerate(_usual_items() if given is None else given, start=1):
            TermsItemFactory(terms=self, position=position, **item)

    @factory.post_generation
    def published(self, create, wanted, **kwargs):
        if create and wanted is not False:
            publish(self)


def _usual_items() -> list[dict]:
    return [
        {"riders": ["memo"]},
        {"required": False, "title_ko": "다른 은행에서 예금 정보 가져오기", "title_en": "Another bank", "riders": ["memo"]},
        {
            "kind": "third_party", "required": False, "recipient": OrganizationFactory(is_source=False, name_ko="귀띔연구소"),
            "title_ko": "연구소에 주기", "title_en": "Give to an institute", "scopes": ["bank.deposit"], "cycle": "",
            "paid": True, "grade": "04",
        },
        {
            "kind": "marketing", "required": False, "title_ko": "새 소식 받기", "title_en": "News", "scopes": [],
            "cycle": "", "grade": "02",
        },
    ]  # fmt: skip


def publish(terms: Terms, *, at: datetime.datetime = PUBLISHED_AT) -> Terms:
    """Publish a draft; the version before is retired by it."""
    registry.publish_terms(terms=terms, at=at)
    terms.refresh_from_db()
    return terms


def offered(**service_fields) -> Service:
    """A service that can be joined: live, licensed operator, published terms."""
    return TermsFactory(service=ServiceFactory(**service_fields)).service


class PersonFactory(DjangoModelFactory):
    """A consumer without a password: sign in with `client.force_login(person)`."""

    class Meta:
        model = Person

    email = factory.Sequence(lambda n: f"person{n}@example.com")
    name = factory.Sequence(lambda n: f"김하나 {n}")
    born_on = datetime.date(1990, 5, 1)


class MemberFactory(DjangoModelFactory):
    """An operator's admin; `role="regulator", organization=None` for the regulator."""

    class Meta:
        model = Member

    person = factory.SubFactory(PersonFactory)
    role = "operator_admin"
    organization = factory.SubFactory(OperatorFactory)


class ChannelFactory(DjangoModelFactory):
    """An open desk: the organization confirms by hand, nothing goes over a wire."""

    class Meta:
        model = Channel

    organization = factory.SubFactory(OperatorFactory)
    protocol = "desk"
    state = "open"
    opened_at = PUBLISHED_AT


def api_client(
    organization: Organization, *, redirect_uris: str = "https://app.example.com/back"
) -> ApiClient:
    """The OAuth2 client of an organization; its secret is `secret`."""
    client = Client(
        name=organization.name_en,
        grant_types=Client.GrantType.CLIENT_CREDENTIALS,
        redirect_uris=redirect_uris,
        scopes="requests:write\nconsents:read\nholdings:write\ntransfers:write\ndeliveries:ack",
        type=Client.Type.CONFIDENTIAL,
    )
    client.set_secret("secret")
    client.save()
    return ApiClient.objects.create(organization=organization, client=client, created_at=PUBLISHED_AT)


def joined(
    person: Person,
    service: Service | None = None,
    at: datetime.datetime | None = None,
    *,
    optional: bool = True,
):
    """A subscription of a person to a service (a fresh one if none is given), as if joined on the portal.

    `optional=False` agrees to the required items only."""
    service = service or offered()
    at = at or datetime.datetime.now(datetime.UTC)
    terms = Terms.objects.get(service=service, state="published")
    items = terms.items.select_related("source", "recipient").order_by("position")
    return lifecycle.join(
        person=person,
        service=service,
        terms=terms,
        choices=[lifecycle.Choice(item) for item in items if item.required or optional],
        language="ko",
        by=Actor.person(person),
        at=at,
    )


def prove(client, person: Person, *, ago: float = 0.0) -> None:
    """The session of this browser says that its owner proved who they are `ago` seconds ago, as allauth notes it."""
    session = client.session
    session["account_authentication_methods"] = [{"method": "password", "at": time.time() - ago}]
    session["account_authentication_methods_user"] = str(person.pk)
    session.save()
