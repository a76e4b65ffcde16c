"""What an organization ends by itself: one customer, or a whole service."""

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from consents.models import EndReason
from consents.templatetags.portal import loc
from providers.models import Organization, Service

from .strict import StrictForm

# What a reason is called by those who say it; the person reads of the same as "your account".
_SAID_BY_US = {EndReason.ACCOUNT_CLOSED: gettext_lazy("고객이 계정을 닫았어요")}


class OwnService(forms.ModelChoiceField):
    """A service by its name in the reader's language."""

    def label_from_instance(self, obj) -> str:
        return loc(obj, "name")


class EndCustomerForm(StrictForm):
    """`subject` as messages call the customer; for an operator one of its services, or all of them."""

    subject = forms.UUIDField(
        label=gettext_lazy("고객 번호(subject)"), help_text=gettext_lazy("우리가 보낸 알림에 적힌 번호예요.")
    )
    service = OwnService(
        Service.objects.none(), label=gettext_lazy("서비스"), to_field_name="client_id", required=False,
        empty_label=gettext_lazy("모두"),
    )  # fmt: skip
    reason = forms.ChoiceField(label=gettext_lazy("까닭"))

    def __init__(self, *args, organization: Organization, **options):
        super().__init__(*args, **options)
        services = Service.objects.filter(organization=organization).exclude(state=Service.State.CLOSED)
        self.fields["service"].queryset = services  # type: ignore[attr-defined]
        own = [EndReason.OPERATOR_CLOSED] if organization.is_operator else []
        own += [EndReason.SOURCE_LEFT] if organization.is_source else []
        reasons = [(one.value, _SAID_BY_US.get(one, one.label)) for one in [*own, EndReason.ACCOUNT_CLOSED]]
        self.fields["reason"].choices = reasons  # type: ignore[attr-defined]
        if not organization.is_operator:
            del self.fields["service"]


class CloseServiceForm(StrictForm):
    """A service, and its name once more: what is closed stays closed."""

    service = OwnService(
        Service.objects.none(), label=gettext_lazy("닫을 서비스"), to_field_name="client_id",
        error_messages={"invalid_choice": gettext_lazy("닫을 수 있는 서비스가 아니에요. 이미 닫았다면 더 할 일이 없어요.")},
    )  # fmt: skip
    name = forms.CharField(
        label=gettext_lazy("서비스 이름"),
        max_length=120,
        help_text=gettext_lazy("되돌릴 수 없어요. 이름을 그대로 한 번 더 적어 주세요."),
    )

    def __init__(self, *args, organization: Organization, **options):
        super().__init__(*args, **options)
        services = Service.objects.filter(organization=organization).exclude(state=Service.State.CLOSED)
        self.fields["service"].queryset = services  # type: ignore[attr-defined]

    def clean(self):
        cleaned = super().clean() or {}
        service = cleaned.get("service")
        if service and cleaned.get("name", "").strip() not in (service.name_ko, service.name_en):
            self.add_error("name", _("이름이 서비스와 달라요."))
        return cleaned
