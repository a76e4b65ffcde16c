"""What we send, as it is described: a real message keeps to the document, and the published examples prove what they claim."""

import base64
import json

import jwt
import pytest
from django.test import Client
from jsonschema import Draft202012Validator
from standardwebhooks import Webhook

from consents.api import events
from consents.models import Delivery
from providers import signing
from providers.wires.korea_served import SERVED

pytestmark = pytest.mark.django_db
VECTORS = events.published_vectors()
KEYS = VECTORS["keys"]


def keeps_to(name: str, content) -> None:
    document = events.document()
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    errors = list(Draft202012Validator(schema).iter_errors(content))
    assert not errors, (errors[0].message, list(errors[0].path))


def test_a_real_message_keeps_to_the_document_and_says_nothing_more(stopped):
    for delivery in Delivery.objects.all():
        body = json.loads(delivery.body)
        keeps_to(delivery.event, body)
        assert set(body["data"]) == {"txn", "jti", "set", *events.FACTS}
        claims = jwt.decode(delivery.set_compact, options={"verify_signature": False})
        keeps_to("SetClaims", claims)
        (inside,) = claims["events"].values()
        assert set(inside) == {*events.FACTS, "event_timestamp", "initiating_entity", "leaf"}


def test_the_document_is_asyncapi_3_and_refers_to_what_is_there():
    served = Client().get("/api/docs/events/asyncapi.json")
    document = served.json()
    assert document["asyncapi"] == "3.0.0" and document["info"]["version"]

    def resolve(address: str):
        at = document
        for step in address.removeprefix("#/").split("/"):
            at = at[step]
        return at

    refs = [part.split('"')[0] for part in json.dumps(document).split('"$ref": "')[1:]]
    assert refs and all(resolve(ref) for ref in refs)
    for message in document["components"]["messages"].values():
        Draft202012Validator.check_schema(
            resolve(message["payload"]["$ref"]) | {"components": document["components"]}
        )


# --- the examples -----------------------------------------------------------------------------------------------------------------


def webhook(vector, *, now=VECTORS["now"]) -> None:
    secrets = [signing.webhook_secret(KEYS["webhook_secret"])]
    signing.verify_webhook(vector["headers"], vector["body"].encode(), secrets=secrets, now=now)
    public = KEYS["webhook_public_key"]
    signing.verify_webhook(vector["headers"], vector["body"].encode(), secrets=[], public_key=public, now=now)


def event(compact: str) -> dict:
    return signing.verify_jws(
        compact, jwks=KEYS["jwks"], typ="secevent+jwt", issuer=VECTORS["issuer"], audience=VECTORS["audience"], now=VECTORS["now"]
    )  # fmt: skip


def test_the_signed_example_is_genuine_and_keeps_to_the_document(settings):
    webhook(VECTORS["webhook"])
    assert event(VECTORS["set"]["compact"]) == VECTORS["set"]["claims"]
    body = json.loads(VECTORS["webhook"]["body"])
    assert body["data"]["set"] == VECTORS["set"]["compact"]
    assert body["data"]["jti"] == VECTORS["webhook"]["headers"]["webhook-id"]
    settings.PORTAL_URL = VECTORS["issuer"]
    keeps_to(body["type"], body)
    keeps_to("SetClaims", VECTORS["set"]["claims"])
    keeps_to("WebhookHeaders", VECTORS["webhook"]["headers"])


def test_other_peoples_libraries_find_it_genuine_too(monkeypatch):
    import datetime

    key = jwt.PyJWK(KEYS["jwks"]["keys"][0])
    claims = jwt.decode(
        VECTORS["set"]["compact"], key, algorithms=["ES256"], audience=VECTORS["audience"], issuer=VECTORS["issuer"],
        options={"verify_iat": False},
    )  # fmt: skip
    assert claims == VECTORS["set"]["claims"]
    import standardwebhooks.webhooks as theirs

    class Then(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(VECTORS["now"], tz)

    monkeypatch.setattr(theirs, "datetime", Then)
    assert Webhook(KEYS["webhook_secret"]).verify(VECTORS["webhook"]["body"], VECTORS["webhook"]["headers"])


@pytest.mark.parametrize("vector", VECTORS["refuse"], ids=lambda vector: vector["why"])
def test_what_is_to_be_refused_is_refused(vector):
    with pytest.raises(signing.BadSignature):
        if vector["part"] == "webhook":
            webhook(vector, now=vector["now"])
        else:
            event(vector["set"])


def test_the_evidence_example_is_what_an_organization_would_sign():
    claims = signing.verify_jws(
        VECTORS["evidence"]["compact"], jwks=KEYS["jwks"], typ="deletion-evidence+jwt", issuer=VECTORS["audience"],
        audience=VECTORS["issuer"], now=VECTORS["evidence"]["claims"]["iat"],
    )  # fmt: skip
    assert claims == VECTORS["evidence"]["claims"]
    from consents.api.evidence import Claims

    checked = Claims(data=claims)
    assert checked.is_valid() or set(checked.errors) == {"completed_at"}, (
        checked.errors
    )  # it lies ahead on some days


def test_the_keys_are_published_and_of_nobody():
    private, (public,) = KEYS["set_private_jwk"], KEYS["jwks"]["keys"]
    assert "d" in private and "d" not in public and private["kid"] == public["kid"]
    assert len(base64.b64decode(KEYS["webhook_secret"].removeprefix("whsec_"))) == 32
    assert Client().get("/api/docs/events/vectors.json").json() == VECTORS


# --- the pages --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["ko", "en"])
def test_the_pages_tell_everything(language):
    headers = {"Accept-Language": language}
    html = Client().get("/api/docs/events/", headers=headers).content.decode()
    assert all(name in html for name in [*events.EVENTS, *events.FACTS])
    assert VECTORS["set"]["compact"] in html and KEYS["webhook_secret"] in html
    korea = Client().get("/api/docs/korea/", headers=headers).content.decode()
    for call in SERVED.values():
        assert f"/mydata{call.path}" in korea
        assert all(f">{name}<" in korea for name in [*call.request, *call.answer])
    changes = Client().get("/api/docs/changes/", headers=headers).content.decode()
    assert "2026-11-22" in changes and "RFC 8594" in changes
    index = Client().get("/api/docs/", headers=headers).content.decode()
    assert all(f'href="/api/docs/{page}/"' in index for page in ("events", "korea", "changes"))
