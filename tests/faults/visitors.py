"""Signs everybody in: prints, as JSON, for each consumer of the demo a session and a token of an application of theirs;
with `regulator` for each regulator.

Run as a program in the environment of a portal, because sessions and tokens are made by Django there.
"""

import datetime
import json
import os
import secrets
import sys

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from allauth.idp.oidc.models import Token
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore
    from django.utils import timezone

    from consents import oauth
    from consents.models import Person

    role, scope = (sys.argv[1], "oversight:read") if len(sys.argv) > 1 else (None, "me")
    app = oauth.create_app_client(name="내 앱", redirect_uris=["https://my.example/back"])
    visitors = []
    for person in (
        Person.objects.filter(member__role=role)
        if role
        else Person.objects.filter(member=None).order_by("email")
    ):
        session = SessionStore()
        session[SESSION_KEY] = str(person.pk)
        session[BACKEND_SESSION_KEY] = "allauth.account.auth_backends.AuthenticationBackend"
        session[HASH_SESSION_KEY] = person.get_session_auth_hash()
        session.create()
        value = secrets.token_urlsafe(32)
        token = Token(
            client=app,
            user=person,
            type=Token.Type.ACCESS_TOKEN,
            expires_at=timezone.now() + datetime.timedelta(hours=1),
        )
        token.set_value(value)
        token.set_scopes([scope])
        token.save()
        visitors.append(
            {
                "email": person.email,
                "subject": str(person.subject_id),
                "session": session.session_key,
                "token": value,
            }
        )
    print(json.dumps(visitors))
