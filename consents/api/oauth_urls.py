"""Addresses of the OAuth2 server at the root; ours stand before allauth's, of which they keep the names."""

from allauth.idp.oidc import views
from django.urls import include, path

from consents.api import oauth

urlpatterns = [
    path(".well-known/jwks.json", oauth.jwks),
    path(
        ".well-known/oauth-authorization-server", views.configuration
    ),  # RFC 8414's name for the same document
    path("identity/o/authorize", oauth.authorization),
    path("identity/o/device", oauth.nowhere),
    path("identity/o/api/device/code", oauth.nowhere),
    path("identity/o/api/token", oauth.token),
    path("identity/o/api/revoke", oauth.revoke),
    path("identity/o/api/introspect", oauth.introspect),
    path("identity/o/api/userinfo", oauth.userinfo),
    path("", include("allauth.idp.urls")),
]
