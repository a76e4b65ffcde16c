"""Who may vouch for a person, from the environment: Kakao, Naver, and one OpenID Connect provider of your choice."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Env = Callable[..., str]


def providers(env: Env) -> dict[str, dict[str, Any]]:
    """allauth's SOCIALACCOUNT_PROVIDERS: those whose client id is set."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("kakao", "naver"):
        if client := env(f"IDENTITY_{name.upper()}_CLIENT_ID"):
            app: dict[str, Any] = {
                "client_id": client,
                "secret": env(f"IDENTITY_{name.upper()}_SECRET"),
                "key": "",
            }
            found[name] = {"APPS": [app]}
    if client := env("IDENTITY_OIDC_CLIENT_ID"):
        app = {
            "provider_id": "identity", "name": env("IDENTITY_OIDC_NAME", "OpenID Connect"), "client_id": client,
            "secret": env("IDENTITY_OIDC_SECRET"), "settings": {"server_url": env("IDENTITY_OIDC_ISSUER")},
        }  # fmt: skip
        found["openid_connect"] = {"APPS": [app], "OAUTH_PKCE_ENABLED": True}
    return found


def origins(env: Env) -> list[str]:
    """Where the button leads: a browser must be allowed to follow it there."""
    known = {"kakao": "https://kauth.kakao.com", "naver": "https://nid.naver.com"}
    issuer = urlsplit(env("IDENTITY_OIDC_ISSUER"))
    found = {name: known.get(name, f"{issuer.scheme}://{issuer.netloc}") for name in providers(env)}
    return list(found.values())
