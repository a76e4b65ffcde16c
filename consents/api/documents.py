"""The JSON documents that go out: one class, one form."""

from typing import Literal

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from consents import models
from consents.api import shapes
from providers import models as catalogue
from providers.models.organizations import LicenceStatus

RECEIPT = "JWS consent-receipt+jwt: entry id (jti), leaf hash, log, disclosures (sd), and the promise to merge within mmd seconds"


class Name(serializers.Serializer):
    code = serializers.CharField()
    name_ko = serializers.CharField()
    name_en = serializers.CharField()


class ProblemPlace(serializers.Serializer):
    pointer = serializers.CharField(required=False, help_text="RFC 6901, into the body")
    parameter = serializers.CharField(required=False, help_text="name of a query parameter")
    detail = serializers.CharField()


class Problem(serializers.Serializer):
    """Problem details (RFC 9457)."""

    type = serializers.URLField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    errors = ProblemPlace(many=True, required=False)  # type: ignore[assignment]


class Summary(serializers.Serializer):
    operators_holding = serializers.IntegerField(help_text="operators that hold the person's data")
    receiving = serializers.IntegerField(help_text="of these, with a live subscription")
    held_after_end = serializers.IntegerField(help_text="of these, left but not yet erased")
    subscriptions = serializers.IntegerField(help_text="live subscriptions")
    notices = serializers.IntegerField(help_text="notices without an answer")


class ServiceName(serializers.Serializer):
    client_id = serializers.CharField()
    slug = serializers.CharField()
    name_ko = serializers.CharField()
    name_en = serializers.CharField()


class Subscription(serializers.Serializer):
    id = serializers.UUIDField()
    service = ServiceName()
    operator = Name()
    state = serializers.ChoiceField(models.Subscription.State.choices)
    holds = serializers.BooleanField(help_text="the operator holds data: active, or not confirmed erased")
    origin = serializers.ChoiceField(models.Subscription.Origin.choices)
    joined_at = shapes.Instant()
    until_on = serializers.DateField()
    ended_at = shapes.Instant(allow_null=True)
    end_reason = serializers.CharField()
    erasure = serializers.ChoiceField(models.Erasure.choices)
    erasure_requested_at = shapes.Instant(allow_null=True)
    erasure_confirmed_at = shapes.Instant(allow_null=True)
    erasure_refusal = serializers.CharField()
    last_used_on = serializers.DateField(allow_null=True)
    last_transfer_at = shapes.Instant(allow_null=True)
    language = serializers.CharField()
    text_digest = serializers.CharField(help_text="of the exact text agreed to")
    version = serializers.IntegerField()


class Consent(serializers.Serializer):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(models.Consent.Kind.choices)
    required = serializers.BooleanField()  # type: ignore[assignment]
    source = Name(allow_null=True)  # type: ignore[assignment]
    recipient = Name(allow_null=True)
    scopes = serializers.ListField(child=serializers.CharField())
    riders = serializers.ListField(child=serializers.CharField())
    cycle = serializers.CharField()
    purpose_ko = serializers.CharField()
    purpose_en = serializers.CharField()
    until_on = serializers.DateField()
    retained_until = serializers.DateField(allow_null=True, help_text="null: until the person leaves or asks")
    paid = serializers.BooleanField()
    state = serializers.ChoiceField(models.Consent.State.choices)
    granted_at = shapes.Instant()
    paused_at = shapes.Instant(allow_null=True)
    paused_until = serializers.DateField(allow_null=True)
    ended_at = shapes.Instant(allow_null=True)
    end_reason = serializers.CharField()
    erasure = serializers.ChoiceField(models.Erasure.choices)
    version = serializers.IntegerField()


class Steps(serializers.Serializer):
    """One message to one organization, and how far it has come."""

    jti = serializers.UUIDField()
    txn = serializers.UUIDField()
    event = serializers.CharField()
    role = serializers.ChoiceField(models.Delivery.Role.choices)
    goal = serializers.ChoiceField(models.Delivery.Goal.choices)
    state = serializers.ChoiceField(models.Delivery.State.choices)
    version = serializers.IntegerField()
    created_at = shapes.Instant()
    sent_at = shapes.Instant(allow_null=True)
    received_at = shapes.Instant(allow_null=True)
    stopped_at = shapes.Instant(allow_null=True)
    erased_at = shapes.Instant(allow_null=True)
    refused_at = shapes.Instant(allow_null=True)
    refusal = serializers.CharField()
    due_at = shapes.Instant(allow_null=True, help_text="deadline of the next step")
    closed_at = shapes.Instant(allow_null=True)


class PartySteps(Steps):
    organization = Name()
    seen_by_portal = serializers.ListField(
        child=serializers.ChoiceField(["received", "stopped"]),
        help_text="steps it never said: we asked, and saw that it had stopped; `received_at` is null then",
    )


class SubscriptionDetail(Subscription):
    consents = Consent(many=True)
    deliveries = PartySteps(many=True)


class Act(serializers.Serializer):
    """An accepted act: what it was done to, its state now, and a signed receipt."""

    id = serializers.UUIDField()
    txn = serializers.UUIDField()
    state = serializers.CharField()
    erasure = serializers.CharField()
    receipt = serializers.CharField(help_text=RECEIPT)


class ActResult(serializers.Serializer):
    id = serializers.UUIDField()
    status = serializers.IntegerField()
    act = Act(required=False)
    problem = Problem(required=False)


class ActResults(serializers.Serializer):
    results = ActResult(many=True)


class Entry(serializers.Serializer):
    """One fact of the log, as its subject may see it."""

    event_id = serializers.UUIDField()
    typ = serializers.CharField()
    at = shapes.Instant()
    txn = serializers.UUIDField(allow_null=True)
    operator = Name(allow_null=True)
    party = Name(allow_null=True)
    subscription = serializers.UUIDField(source="subscription_id", allow_null=True)
    consent = serializers.UUIDField(source="consent_id", allow_null=True)
    jti = serializers.UUIDField(allow_null=True)
    by = serializers.CharField(source="actor_kind")
    reason = serializers.CharField()


class Notice(serializers.Serializer):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(models.Notice.Kind.choices)
    subscription = serializers.UUIDField(source="subscription_id", allow_null=True)
    reason_ko = serializers.CharField()
    reason_en = serializers.CharField()
    urgent = serializers.BooleanField()
    raised_at = shapes.Instant()
    answer = serializers.CharField(help_text="empty, kept, ended or gone")
    answered_at = shapes.Instant(allow_null=True)


class Message(Steps):
    subscription = serializers.UUIDField(source="subscription_id")
    set = serializers.CharField(source="set_compact", help_text="the signed SET (RFC 8417)")


class GrantScope(serializers.Serializer):
    scope = serializers.CharField(help_text="kinds of data, separated by spaces")
    resource = serializers.ListField(
        child=serializers.CharField(), help_text="the organization they come from"
    )


class Grant(serializers.Serializer):
    """A consent as a grant (FAPI Grant Management, draft 03 §6.4)."""

    grant_id = serializers.UUIDField(source="consent.pk")
    scopes = serializers.SerializerMethodField()
    claims = serializers.SerializerMethodField(help_text="always empty: no identity goes with a grant")
    authorization_details = serializers.SerializerMethodField()
    created_at = shapes.Instant(source="consent.granted_at")
    last_updated_at = shapes.Instant(source="updated")
    expires_at = shapes.Instant(source="ends", help_text="the end of its last day in Seoul")

    def get_scopes(self, shown) -> list[dict]:
        consent = shown["consent"]
        resource = [consent.source.code] if consent.source else []
        return list(GrantScope([{"scope": " ".join(consent.scopes), "resource": resource}], many=True).data)

    def get_claims(self, shown) -> list[str]:
        return []

    def get_authorization_details(self, shown) -> list[dict]:
        consent = shown["consent"]
        return [
            {
                "type": "consent", "kind": consent.kind, "state": consent.state, "service": consent.subscription.service.client_id,
                "operator": consent.subscription.operator.code, "recipient": consent.recipient.code if consent.recipient else None,
                "cycle": consent.cycle, "riders": consent.riders, "purpose_ko": consent.purpose_ko, "purpose_en": consent.purpose_en,
            }
        ]  # fmt: skip


class Replayed(serializers.Serializer):
    jti = serializers.UUIDField(help_text="of the message: the same as the first time")
    replay = serializers.UUIDField(help_text="of this sending")
    state = serializers.ChoiceField(models.Delivery.State.choices)


class Polled(serializers.Serializer):
    """RFC 8936 §2.3."""

    sets = serializers.DictField(child=serializers.CharField(), help_text="jti: signed SET, oldest first")
    moreAvailable = serializers.BooleanField()


class Ack(serializers.Serializer):
    jti = serializers.UUIDField()
    state = serializers.ChoiceField(models.Delivery.State.choices)
    receipt = serializers.CharField(
        allow_null=True, help_text=RECEIPT + "; null where our log has no answer yet"
    )


class Evidence(serializers.Serializer):
    id = serializers.CharField(source="jti", help_text="the organization's own jti")
    delivery = serializers.UUIDField(source="delivery.jti")
    state = serializers.ChoiceField(models.Delivery.State.choices, source="delivery.state")
    status = serializers.ChoiceField(models.Evidence.Status.choices)
    digest = serializers.CharField(help_text="sha256: of the bytes received")
    stated_at = shapes.Instant()
    received_at = shapes.Instant()


class ReceivedEvidence(Evidence):
    """Evidence as its organization sees it, with the receipt of the entry that says it was handed in."""

    receipt = serializers.SerializerMethodField(help_text=RECEIPT)

    def get_receipt(self, evidence) -> str | None:
        return self.context["receipt"]


class OperatorConsent(Consent):
    subscription = serializers.UUIDField(source="subscription_id")
    subject = serializers.UUIDField(help_text="random; the same as in messages")
    service = serializers.CharField(source="subscription.service.client_id")


RETURNS_CODE = "whether a yes sends the browser back with a code; only with a code_challenge, which ties the code to who asked"


class Lodged(serializers.Serializer):
    id = serializers.UUIDField()
    authorize_url = serializers.URLField(help_text="where to send the person's browser")
    expires_in = serializers.IntegerField(help_text="seconds in which the person has to open it")
    expires_at = shapes.Instant(help_text="the same as a moment; opening it sets another")
    decide_in = serializers.IntegerField(help_text="seconds that the person has to decide, from opening it")
    returns_code = serializers.BooleanField(help_text=RETURNS_CODE)
    receipt = serializers.CharField(help_text=RECEIPT)


class AskedItem(serializers.Serializer):
    item = serializers.IntegerField()
    kind = serializers.ChoiceField(models.Consent.Kind.choices)
    title_ko = serializers.CharField()
    title_en = serializers.CharField()
    required = serializers.BooleanField()  # type: ignore[assignment]
    granted = serializers.BooleanField(allow_null=True, help_text="null while nobody has decided")
    consent = serializers.UUIDField(allow_null=True)


class ConsentRequest(serializers.Serializer):
    """The stored request. `items` and `outcome` come from queries.lodged, in the context."""

    id = serializers.UUIDField()
    service = serializers.CharField(source="service.client_id")
    state = serializers.ChoiceField(models.ConsentRequest.State.choices)
    lodged_at = shapes.Instant()
    opened = serializers.SerializerMethodField(
        help_text="somebody has it before them; nobody else can use it now"
    )
    expires_at = shapes.Instant(
        help_text="until when it has to be opened; once it is opened, until when it has to be decided"
    )
    returns_code = serializers.BooleanField(help_text=RETURNS_CODE)
    decided_at = shapes.Instant(allow_null=True)
    subscription = serializers.UUIDField(source="subscription_id", allow_null=True)
    outcome = serializers.SerializerMethodField(
        help_text="the state, or partly_granted where optional items were declined"
    )
    items = serializers.SerializerMethodField()

    def get_opened(self, lodged) -> bool:
        return lodged.person_id is not None

    def get_outcome(self, lodged) -> Literal["pending", "granted", "partly_granted", "declined", "expired"]:
        return self.context["outcome"]

    @extend_schema_field(AskedItem(many=True))
    def get_items(self, lodged) -> list[dict]:
        return list(AskedItem(self.context["items"], many=True).data)


class RedeemedRequest(ConsentRequest):
    subject = serializers.UUIDField(source="person.subject_id", help_text="random; the same as in messages")


class Operator(serializers.ModelSerializer):
    licence_status = serializers.ChoiceField(LicenceStatus.choices, allow_null=True)

    class Meta:
        model = catalogue.Organization
        fields = ["code", "name_ko", "name_en", "sector", "is_source", "is_fictional", "licence_status"]


class Item(serializers.Serializer):
    item = serializers.IntegerField(source="pk")
    kind = serializers.ChoiceField(models.Consent.Kind.choices)
    required = serializers.BooleanField()  # type: ignore[assignment]
    source = Name(allow_null=True)  # type: ignore[assignment]
    recipient = Name(allow_null=True)
    title_ko = serializers.CharField()
    title_en = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    riders = serializers.ListField(child=serializers.CharField())
    cycle = serializers.CharField()
    valid_months = serializers.IntegerField()
    purpose_ko = serializers.CharField()
    purpose_en = serializers.CharField()
    retention_days = serializers.IntegerField(allow_null=True)
    retention_ko = serializers.CharField()
    retention_en = serializers.CharField()
    paid = serializers.BooleanField()
    grade = serializers.CharField()


class Terms(serializers.Serializer):
    id = serializers.UUIDField()
    version = serializers.IntegerField()
    published_at = shapes.Instant()
    digest_ko = serializers.CharField()
    digest_en = serializers.CharField()
    summary_ko = serializers.CharField()
    summary_en = serializers.CharField()


class TermsDetail(Terms):
    text_ko = serializers.CharField()
    text_en = serializers.CharField()
    items = Item(many=True, source="listed")


class Service(serializers.ModelSerializer):
    operator = Name(source="organization")

    class Meta:
        model = catalogue.Service
        fields = [
            "client_id", "slug", "operator", "name_ko", "name_en", "summary_ko", "summary_en", "benefit_ko", "benefit_en",
            "loss_ko", "loss_en", "purpose_code", "state",
        ]  # fmt: skip


class ServiceDetail(Service):
    terms = TermsDetail(allow_null=True)

    class Meta(Service.Meta):
        fields = [*Service.Meta.fields, "terms"]


class Scope(serializers.ModelSerializer):
    class Meta:
        model = catalogue.Scope
        fields = [
            "item",
            "sector",
            "codes",
            "rider",
            "name_ko",
            "name_en",
            "plain_ko",
            "plain_en",
            "sensitivity",
            "flags",
        ]
