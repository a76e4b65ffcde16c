"""Every address of the portal. The name of a URL is the name of its view and of its template."""

from django.urls import include, path
from django.views.i18n import set_language

from config import health
from consents.views import desk, join, log, oversight, person, public, start

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
    # joining
    path("services/<slug:slug>/join/", join.join, name="join"),
    path("services/<slug:slug>/join/ask/", join.ask, name="ask"),
    path("requests/<uuid:pk>/", join.consent_request, name="consent_request"),
    path("requests/<uuid:pk>/decline/", join.decline_request, name="decline_request"),
    # the person
    path("me/", person.me, name="me"),
    path("me/end/", person.end_several, name="end_several"),
    path("me/subscriptions/<uuid:pk>/", person.subscription, name="subscription"),
    path("me/subscriptions/<uuid:pk>/tracker/", person.tracker, name="tracker"),
    path("me/subscriptions/<uuid:pk>/end/", person.end, name="end"),
    path("me/subscriptions/<uuid:pk>/erase/", person.erase, name="erase"),
    path("me/subscriptions/<uuid:pk>/certificate/", person.certificate, name="certificate"),
    path("me/subscriptions/<uuid:pk>/receipt/", person.receipt, name="receipt"),
    path("me/subscriptions/<uuid:pk>/terms/", person.terms, name="terms"),
    path("me/consents/<uuid:pk>/withdraw/", person.withdraw, name="withdraw"),
    path("me/consents/<uuid:pk>/pause/", person.pause, name="pause"),
    path("me/consents/<uuid:pk>/resume/", person.resume, name="resume"),
    path("me/consents/<uuid:pk>/erase/", person.erase_consent, name="erase_consent"),
    path("me/history/", person.history, name="history"),
    path("me/notices/", person.notices, name="notices"),
    path("me/notices/<uuid:pk>/", person.answer_notice, name="answer_notice"),
    path("me/account/", person.account, name="account"),
    # the regulator
    path("oversight/", oversight.oversight, name="oversight"),
    path("oversight/entries/<uuid:event_id>/", oversight.entry, name="entry"),
    path("oversight/entries/<uuid:event_id>/reveal/", oversight.reveal, name="reveal"),
    path("oversight/overdue/", oversight.overdue, name="overdue"),
    # the operator's or source's admin
    path("desk/", desk.desk, name="desk"),
    path("desk/deliveries/", desk.desk_deliveries, name="desk_deliveries"),
    path("desk/deliveries/<uuid:jti>/", desk.desk_delivery, name="desk_delivery"),
    path("desk/deliveries/<uuid:jti>/confirm/", desk.confirm_delivery, name="confirm_delivery"),
    # machines
    path("api/", include("consents.api.urls")),
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
