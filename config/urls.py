"""Every address of the portal. The name of a URL is the name of its view and of its template."""

from django.urls import include, path
from django.views.i18n import set_language

from config import health
from consents.views import (
    account,
    asking,
    cases,
    channels,
    desk,
    gym,
    integrity,
    join,
    log,
    oversight,
    papers,
    person,
    public,
    start,
    verify,
)

urlpatterns = [
    # the public
    path("", public.home, name="home"),
    path("operators/", public.operators, name="operators"),
    path("operators/<slug:code>/", public.operator, name="operator"),
    path("services/", public.services, name="services"),
    path("services/<slug:slug>/", public.service, name="service"),
    path("language/", set_language, name="set_language"),
    path("start/", start.start, name="start"),
    # the log
    path("log/checkpoint", log.checkpoint, name="log_checkpoint"),
    path("log/tile/<path:path>", log.tile, name="log_tile"),
    path("verify/", verify.verify, name="verify"),
    path("verify/verify.py", verify.verify_program, name="verify_program"),
    path("verify/policy.txt", verify.verify_policy, name="verify_policy"),
    # joining
    path("services/<slug:slug>/join/", join.join, name="join"),
    path("services/<slug:slug>/join/ask/", join.ask, name="ask"),
    path("requests/<uuid:pk>/", join.consent_request, name="consent_request"),
    path("requests/<uuid:pk>/decline/", join.decline_request, name="decline_request"),
    path("requests/<uuid:pk>/return/", join.return_request, name="return_request"),
    # the person
    path("me/", person.me, name="me"),
    path("me/end/", person.end_several, name="end_several"),
    path("me/subscriptions/<uuid:pk>/", person.subscription, name="subscription"),
    path("me/subscriptions/<uuid:pk>/tracker/", person.tracker, name="tracker"),
    path("me/subscriptions/<uuid:pk>/end/", person.end, name="end"),
    path("me/subscriptions/<uuid:pk>/erase/", person.erase, name="erase"),
    path("me/subscriptions/<uuid:pk>/certificate/", papers.certificate, name="certificate"),
    path("me/subscriptions/<uuid:pk>/receipt/", papers.receipt, name="receipt"),
    path("me/subscriptions/<uuid:pk>/terms/", papers.terms, name="terms"),
    path("me/consents/<uuid:pk>/withdraw/", person.withdraw, name="withdraw"),
    path("me/consents/<uuid:pk>/pause/", person.pause, name="pause"),
    path("me/consents/<uuid:pk>/resume/", person.resume, name="resume"),
    path("me/consents/<uuid:pk>/erase/", person.erase_consent, name="erase_consent"),
    path("me/history/", person.history, name="history"),
    path("me/history/<uuid:event_id>/receipt/", papers.entry_receipt, name="entry_receipt"),
    path("me/history/<uuid:event_id>/proof/", papers.entry_proof, name="entry_proof"),
    path("me/notices/", person.notices, name="notices"),
    path("me/notices/<uuid:pk>/", person.answer_notice, name="answer_notice"),
    path("me/ask/", asking.ask_companies, name="ask_companies"),
    path("me/account/", account.account, name="account"),
    # the regulator
    path("oversight/", oversight.oversight, name="oversight"),
    path("oversight/entries/<uuid:event_id>/", oversight.entry, name="entry"),
    path("oversight/entries/<uuid:event_id>/reveal/", oversight.reveal, name="reveal"),
    path("oversight/entries/<uuid:event_id>/proof/", integrity.oversight_proof, name="oversight_proof"),
    path("oversight/overdue/", oversight.overdue, name="overdue"),
    path("oversight/reconciliation/", cases.reconciliation, name="reconciliation"),
    path("oversight/reconciliation/counts/", cases.reconciliation_counts, name="reconciliation_counts"),
    path("oversight/reconciliation/<uuid:pk>/", cases.reconciliation_case, name="reconciliation_case"),
    path("oversight/reconciliation/<uuid:pk>/settle/", cases.settle_case, name="settle_case"),
    path("oversight/integrity/", integrity.integrity, name="integrity"),
    path("oversight/integrity/consistency/", integrity.consistency, name="consistency"),
    path("oversight/integrity/check/", integrity.check_integrity, name="check_integrity"),
    path("oversight/integrity/acknowledge/", integrity.acknowledge_integrity, name="acknowledge_integrity"),
    # the operator's or source's admin
    path("desk/", desk.desk, name="desk"),
    path("desk/cases/", cases.desk_cases, name="desk_cases"),
    path("desk/cases/<uuid:pk>/", cases.desk_case, name="desk_case"),
    path("desk/cases/<uuid:pk>/settle/", cases.desk_settle, name="desk_settle"),
    path("desk/requests/", desk.desk_requests, name="desk_requests"),
    path("desk/deliveries/", desk.desk_deliveries, name="desk_deliveries"),
    path("desk/deliveries/<uuid:jti>/", desk.desk_delivery, name="desk_delivery"),
    path("desk/deliveries/<uuid:jti>/confirm/", desk.confirm_delivery, name="confirm_delivery"),
    path("desk/deliveries/<uuid:jti>/replay/", desk.replay_delivery, name="replay_delivery"),
    path("desk/entries/<uuid:event_id>/receipt/", desk.desk_receipt, name="desk_receipt"),
    path("desk/entries/<uuid:event_id>/proof/", desk.desk_proof, name="desk_proof"),
    path("desk/channel/", channels.desk_channel, name="desk_channel"),
    path("desk/channel/ask/", channels.ask_channel, name="ask_channel"),
    path("desk/channel/<uuid:pk>/approve/", channels.approve_channel, name="approve_channel"),
    path("desk/channel/<uuid:pk>/withdraw/", channels.withdraw_channel, name="withdraw_channel"),
    path("desk/channel/<uuid:pk>/rotate/", channels.rotate_channel_key, name="rotate_channel_key"),
    path("desk/gym/", gym.desk_gym, name="desk_gym"),
    path("desk/gym/channels/<uuid:pk>/start/", gym.start_gym, name="start_gym"),
    path("desk/gym/<uuid:pk>/", gym.gym_run, name="gym_run"),
    path("desk/gym/<uuid:pk>/progress/", gym.gym_progress, name="gym_progress"),
    # machines
    path("api/", include("consents.api.urls")),
    path("mydata/", include("consents.api.mydata_urls")),
    path("", include("consents.api.oauth_urls")),
    path("accounts/", include("allauth.urls")),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("", include("django_prometheus.urls")),
]
handler400 = "consents.views.errors.bad_request"
handler403 = "consents.views.errors.permission_denied"
handler404 = "consents.views.errors.page_not_found"
handler429 = "consents.views.errors.too_many_requests"  # allauth's rate limits
handler500 = "consents.views.errors.server_error"
