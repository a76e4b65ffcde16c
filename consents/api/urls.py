"""Every address under /api/."""

from django.urls import include, path, re_path

from consents.api import (
    counts,
    docs,
    evidence,
    grants,
    gym,
    holdings,
    inbound,
    operator,
    oversight,
    person,
    poll,
    proofs,
    public,
    transfers,
    uploads,
)
from consents.api.doors import Nowhere

v1 = [
    path("schema/", docs.Schema.as_view(), name="schema"),
    # the person
    path("me/summary", person.Summary.as_view()),
    path("me/subscriptions", person.Subscriptions.as_view()),
    path("me/subscriptions:end", person.EndMany.as_view()),
    path("me/subscriptions/<uuid:pk>", person.OneSubscription.as_view()),
    path("me/subscriptions/<uuid:pk>/end", person.End.as_view()),
    path("me/subscriptions/<uuid:pk>/erase", person.Erase.as_view()),
    path("me/consents/<uuid:pk>/withdraw", person.Withdraw.as_view()),
    path("me/consents/<uuid:pk>/pause", person.Pause.as_view()),
    path("me/consents/<uuid:pk>/resume", person.Resume.as_view()),
    path("me/history", person.History.as_view()),
    path("me/entries/<uuid:event_id>/receipt", proofs.Receipt.as_view()),
    path("me/entries/<uuid:event_id>/proof", proofs.Proof.as_view()),
    path("me/notices", person.Notices.as_view()),
    path("me/export", person.Export.as_view()),
    path("services/<slug:slug>/subscriptions", person.Join.as_view()),
    # operators and sources
    path("consent-requests", operator.ConsentRequests.as_view()),
    path("consent-requests/redeem", operator.RedeemCode.as_view()),
    path("consent-requests/<uuid:pk>", operator.OneConsentRequest.as_view()),
    path("consents", operator.Consents.as_view()),
    path("consents/<uuid:pk>", operator.OneConsent.as_view()),
    path("deliveries", operator.Deliveries.as_view()),
    path("deliveries/<uuid:jti>/ack", operator.Acknowledge.as_view()),
    path("channel/test", gym.TestChannel.as_view()),
    path("channel/tests/<uuid:pk>", gym.OneTest.as_view()),
    path("deliveries/<uuid:jti>/replay", operator.Replay.as_view()),
    path("grants/<uuid:pk>", grants.Grant.as_view()),
    path("sets", inbound.Sets.as_view()),
    path("sets/poll", poll.Poll.as_view()),
    path("arrangements/revoke", inbound.ArrangementRevocation.as_view()),
    path("event-notifications", inbound.EventNotifications.as_view()),
    path("consents/result", inbound.KoreanResult.as_view()),
    path("holdings", holdings.Holdings.as_view()),
    path("transfers", transfers.Transfers.as_view()),
    path("uploads", uploads.Uploads.as_view()),
    path("uploads/<uuid:pk>", uploads.OneUpload.as_view()),
    path("uploads/<uuid:pk>/content", uploads.Content.as_view()),
    path("uploads/<uuid:pk>/refused", uploads.Refused.as_view()),
    path("uploads/<uuid:pk>/refused.csv", uploads.RefusedFile.as_view()),
    path("weekly-counts", counts.WeeklyCounts.as_view()),
    path("evidence", evidence.EvidenceDoor.as_view()),
    path("evidence/<str:jti>", evidence.OneEvidence.as_view()),
    # the regulator
    path("oversight/reconciliation", oversight.Reconciliation.as_view()),
    # the public
    path("operators", public.Operators.as_view()),
    path("services", public.Services.as_view()),
    path("services/<slug:slug>", public.OneService.as_view()),
    path("scopes", public.Scopes.as_view()),
]
urlpatterns = [
    path("docs/", docs.docs, name="api_docs"),
    path("docs/problems", docs.problem_types, name="api_problems"),
    path("v1/", include(v1)),
    re_path(r"", Nowhere.as_view()),
]
