"""What is ended by its name over there, and what is not: the same for every protocol that ends one thing after the other."""

import json

import pytest

from providers.wires import (
    ABSENT,
    CHECK,
    REFUSED,
    SENT,
    UNKNOWN,
    Message,
    Reference,
    cdr,
    grants,
    revocation,
    uk,
)
from tests.providers.wires.asked import JTI, Server, run

# The wire, its kind of name, what its channel is told.
WIRES = {
    "uk": (uk, "consent", {"credential": "t"}),
    "grants": (grants, "grant", {"credential": "t"}),
    "cdr": (cdr, "arrangement", {"details": {"party": "recipient", "client_id": "c"}}),
    "revocation": (revocation, "token", {"details": {"client_id": "c"}, "credential": "s"}),
}
every_wire = pytest.mark.parametrize("name", WIRES)


def stop(kind, event, consents, references, role="operator"):
    """`consents` by id and kind, `references` by identifier and consent."""
    data = {"role": role, "consents": [{"id": one, "kind": what} for one, what in consents.items()]}
    given = tuple(Reference(kind, identifier, consent) for identifier, consent in references.items())
    return Message(JTI, json.dumps({"type": event, "data": data}).encode(), given)


def send(settings, name, *about, **more):
    """What came of it, and how many requests that took."""
    wire, kind, endpoint = WIRES[name]
    server = Server([200 if name == "revocation" else 204])
    outcome = run(settings, server, wire.send, stop(kind, *about, **more), **endpoint)
    return outcome, len(server.asked)


@every_wire
@pytest.mark.parametrize(
    "event",
    ["consent-granted", "consent-amended", "consent-paused", "consent-resumed", "operator-suspended", "terms-superseded",
     "erasure-requested"],
)  # fmt: skip
def test_what_is_no_end_ends_nothing(settings, name, event):
    """A pause can be taken back; a deleted consent cannot."""
    outcome, asked = send(settings, name, event, {"c-1": "transfer"}, {"a": "c-1"})
    assert (outcome.verdict, asked) == (REFUSED, 0) and event in outcome.detail


@every_wire
@pytest.mark.parametrize("event", ["consent-withdrawn", "subscription-ended", "operator-ended"])
def test_what_is_an_end_is_sent(settings, name, event):
    outcome, asked = send(settings, name, event, {"c-1": "transfer"}, {"a": "c-1"})
    assert (outcome.verdict, asked) == (CHECK if name == "revocation" else SENT, 1)


@every_wire
def test_one_consent_is_not_ended_by_the_name_of_all_of_them(settings, name):
    outcome, asked = send(settings, name, "consent-withdrawn", {"c-1": "transfer"}, {"all": "", "b": "c-2"})
    assert (outcome.verdict, asked) == (REFUSED, 0) and "names no" in outcome.detail


@every_wire
def test_what_a_source_sends_to_a_subscription_is_one_consent(settings, name):
    outcome, asked = send(
        settings, name, "consent-withdrawn", {"c-1": "transfer"}, {"all": ""}, role="source"
    )
    assert (outcome.verdict, asked) == (CHECK if name == "revocation" else SENT, 1)


@every_wire
@pytest.mark.parametrize(
    ("consents", "references", "asked", "complete"),
    [
        ({"c-1": "transfer", "c-2": "transfer"}, {"a": "c-1"}, 1, False),
        ({"c-1": "transfer", "c-2": "third_party"}, {"a": "c-1"}, 1, False),
        ({"c-1": "transfer", "c-2": "transfer"}, {"a": "c-1", "b": "c-2"}, 2, True),
        ({"c-1": "transfer", "c-2": "transfer"}, {"all": ""}, 1, True),
        ({"c-1": "transfer", "c-2": "use", "c-3": "marketing"}, {"a": "c-1"}, 1, True),
        # ended long ago, and no longer among what the message ends
        ({"c-1": "transfer"}, {"a": "c-1", "b": "c-9"}, 2, True),
    ],
)
def test_what_has_no_name_is_said_and_the_rest_is_ended(
    settings, name, consents, references, asked, complete
):
    outcome, made = send(settings, name, "subscription-ended", consents, references)
    fine = CHECK if name == "revocation" else SENT
    assert (outcome.verdict, made) == (fine if complete else REFUSED, asked)
    assert complete or outcome.detail.endswith("of consent c-2")


@pytest.mark.parametrize(
    ("references", "says"), [({"a": "c-1"}, UNKNOWN), ({"a": "c-1", "b": "c-2"}, ABSENT)]
)
def test_of_what_has_no_name_nothing_is_known(settings, references, says):
    message = stop("grant", "subscription-ended", {"c-1": "transfer", "c-2": "transfer"}, references)
    assert run(settings, Server([404]), grants.read_back, message, credential="t").says == says
