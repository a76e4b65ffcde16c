"""Bad input at every form and every JSON door: told in words, answered with 4xx, and the database is as it was, to the byte.

Cases come from surface.FORMS and surface.BODIES, which test_access.py holds against the resolver: a new page or door
without a case fails there. What the generated cases cannot know stands in the tables below.
"""

import json
import uuid
from collections.abc import Iterator

import pytest
from django.db import connection, transaction
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from drf_spectacular.generators import SchemaGenerator

from consents import access
from consents.api import poll
from tests import factories
from tests.consents import surface
from tests.consents.surface import BODIES, FORMS, Address, Side, changed, fingerprint, words

pytestmark = pytest.mark.django_db
ADDRESSES = surface.addresses()
PAGES = {address.name: address for address in ADDRESSES if address.name in FORMS}
DOORS = {address.path.removeprefix("api/v1/"): address for address in ADDRESSES if address.is_api}
TEN_MEGABYTES = 10 * 1024 * 1024
MOST_QUERIES = 12


@pytest.fixture(autouse=True)
def keys(settings, tmp_path_factory, monkeypatch):
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "surface-keys"
    monkeypatch.setattr(poll, "LONGEST_WAIT", 0.1)


class Watch:
    """Holds every answer against the rule, and the database against what it was."""

    def __init__(self):
        self.before = fingerprint()

    def refused(self, response, *, allowed=range(400, 500)):
        before, self.before = self.before, fingerprint()
        assert response.status_code in allowed, (response.status_code, response.content[:300])
        if response.status_code not in (302, 303):
            assert len(words(response)) > 10, (
                f"not told in words: {response.status_code} {response.content[:200]}"
            )
        assert self.before == before, changed(before, self.before)


def post(address: Address, side: Side, data, **more):
    return side.browser(address.rule).post(side.fill(address.path), data, **more)


# --- pages -------------------------------------------------------------------------------------------------------------------

# Pages where an honest browser may send nothing at all, with the reason.
NOTHING_IS_FINE = {
    name: "a button: the address says everything; an unticked box sends nothing"
    for name, form in FORMS.items()
    if form.button
}
# Where sending the same again is answered with a page that says so instead of an error, because a person presses twice.
AGAIN_IS_TOLD = {
    "erase", "withdraw", "resume", "pause", "erase_consent", "answer_notice", "confirm_delivery", "end", "end_several",
    "consent_request", "replay_delivery",
}  # fmt: skip
# Where the same again is a new act by right.
AGAIN_IS_NEW = {
    "account": "the same profile saved twice is the same profile",
    "reveal": "each look at an identity leaves its own trace",
    "check_integrity": "each check keeps what it found, with its moment",
    "rotate_channel_key": "answered with the new secret, once; pressed twice in test_channels.py",
    "return_request": "each way back has a code of its own, in the place of the one before",
    "rotate_api_secret": "answered with the new secret, once; pressed twice in test_clients.py",
    "count_code": "each code takes the place of the one before, and the page shows it",
    "verify_me": "who somebody is comes from outside, and may come again",
    "verify": "a file may be checked as often as one likes: nothing of it is kept",
}


def wrong_values(name: str, honest: dict):
    """Each field in turn with something no browser sends."""
    for field in honest:
        for value in ("\x00", "x" * 5000, "<script>alert(1)</script>" * 20, "-1e309", "\u202e\ufeff" * 4):
            yield field, honest | {field: value}


# Fields whose every value of a sensible length is right.
ANY_TEXT = {
    ("account", "name"),
    ("reveal", "case"),
    ("reveal", "reason"),
    ("new_api_app", "name"),
    ("oversight_apps", "name"),
}
# Plain checkboxes: Django takes whatever is sent for a tick, and that is all they can say.
TICKS = {"erase", "reviewed"}


def test_nothing(alice, subtests):
    watch = Watch()
    for name in FORMS.keys() - NOTHING_IS_FINE.keys():
        with subtests.test(name):
            # The ask has lost its way without the note of the speed bump, and begins again there.
            allowed = range(300, 500) if name == "ask" else range(400, 500)
            watch.refused(post(PAGES[name], alice, {}), allowed=allowed)


def test_wrong_values(alice, subtests):
    watch = Watch()
    for name, form in FORMS.items():
        for field, data in wrong_values(name, form.honest(alice)):
            if field in TICKS:
                continue
            with subtests.test(name, field=field, value=str(data[field])[:20]):
                if (
                    (name, field) in ANY_TEXT
                    and len(str(data[field])) < 300
                    and "\x00" not in data[field]
                    and "\u202e" not in data[field]
                ):
                    continue
                allowed = range(300, 500) if (name, field) == ("ask", "seen") else range(400, 500)
                watch.refused(post(PAGES[name], alice, data), allowed=allowed)


def test_fields_that_nobody_asked_for(alice, subtests):
    """T15: nothing is taken over in silence."""
    watch = Watch()
    for name, form in FORMS.items():
        if name in ("consent_request", "decline_request", "return_request"):
            continue  # no form is read at all: nothing could be taken over
        for extra in ({"state": "active"}, {"person": str(uuid.uuid4())}, {"is_staff": "1"}):
            with subtests.test(name, extra=next(iter(extra))):
                watch.refused(post(PAGES[name], alice, form.honest(alice) | extra))


def test_fields_sent_twice(alice, subtests):
    watch = Watch()
    for name, form in FORMS.items():
        for field, value in form.honest(alice).items():
            if isinstance(value, list):
                continue
            with subtests.test(name, field=field):
                watch.refused(post(PAGES[name], alice, form.honest(alice) | {field: [value, value]}))


def test_ten_megabytes(alice, subtests):
    """As a form, as a file, and as a hundred thousand fields; before anything is read into memory (T26)."""
    watch = Watch()
    large, many = "x" * TEN_MEGABYTES, "&".join(f"f{n}=1" for n in range(1000))
    form = "application/x-www-form-urlencoded"
    for name, address in PAGES.items():
        with subtests.test(name):
            client, url = alice.browser(address.rule), alice.fill(address.path)
            # Where no form is read the body stays unread too, and the button does what it always does.
            if name in ("consent_request", "decline_request", "return_request"):
                client = alice.browser(address.rule, enforce_csrf_checks=True)
            watch.refused(client.post(url, f"erase=on&note={large}", content_type=form))
            watch.refused(client.post(url, many, content_type=form))


def test_a_file_of_ten_megabytes(alice, subtests):
    from django.core.files.uploadedfile import SimpleUploadedFile

    watch = Watch()
    file = SimpleUploadedFile("x.bin", b"x" * TEN_MEGABYTES)
    for name in ("end_several", "account", "reveal", "confirm_delivery", "join"):
        with subtests.test(name):
            file.seek(0)
            with transaction.atomic():
                response = post(PAGES[name], alice, {"file": file})
            watch.refused(response)


def test_a_body_of_another_kind(alice, subtests):
    watch = Watch()
    for name in FORMS.keys() - NOTHING_IS_FINE.keys():
        with subtests.test(name):
            allowed = range(300, 500) if name == "ask" else range(400, 500)
            body = json.dumps({key: str(value) for key, value in FORMS[name].honest(alice).items()})
            watch.refused(post(PAGES[name], alice, body, content_type="application/json"), allowed=allowed)


def test_somebody_elses_ids(alice, bob, subtests):
    """In the address: test_access.py. Here: in the fields."""
    watch = Watch()
    for name, form in FORMS.items():
        hers = form.honest(alice)
        for field in form.ids:
            for value in (hers.get(field, str(alice.lodged.pk)), str(uuid.uuid4())):
                with subtests.test(name, field=field):
                    data = form.honest(bob) | {field: value}
                    if name == "ask" and field == "request" and value == str(alice.lodged.pk):
                        continue  # nobody took it up: it belongs to whoever comes
                    watch.refused(post(PAGES[name], bob, data))


def test_the_same_again(alice, subtests):
    for name, form in FORMS.items():
        if name in AGAIN_IS_NEW:
            continue
        with subtests.test(name), transaction.atomic():
            data, address = form.honest(alice), PAGES[name]
            first = post(address, alice, data)
            assert first.status_code in (302, 303), first.status_code
            watch = Watch()
            again = post(address, alice, data)
            watch.refused(
                again, allowed=(302, 303, 400, 404, 409, 410) if name in AGAIN_IS_TOLD else range(300, 500)
            )
            transaction.set_rollback(True)


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_methods_that_no_page_knows(alice, subtests, method):
    watch = Watch()
    for address in ADDRESSES:
        if (
            address.is_api
            or address.rule is None
            or address.path.startswith(("identity/", ".well-known", "healthz", "readyz", "api/"))
        ):
            continue
        with subtests.test(address.path):
            client = alice.browser(address.rule)
            # Both only show the way on, whoever asks and however.
            allowed = (302, 405) if address.path in ("start/", "language/") else (405,)
            watch.refused(getattr(client, method)(alice.fill(address.path)), allowed=allowed)


# --- addresses with nonsense in them --------------------------------------------------------------------------------------------------

# What every address is asked: bytes that are no text, a null, very many and very long parameters.
EVERYWHERE = ["?kind[]=%00&sector=%ff%fe", "?" + "a=b&" * 300, "?q=" + "x" * 9000]
# What an address is asked beside it if it looks up one of these names: what it does not look up it cannot trip over.
NONSENSE = [
    "?after=%00", "?after=zzz", "?after=-1", "?after=99999999999999999999999", "?sort=;drop", "?state=no-such", "?on=2026-13-45",
    "?on=0001-01-01", "?kind=x", "?request=not-a-uuid", "?seen=x.y.z", "?typ=%F0%9F%92%A9", "?operator=%27--", "?event=1",
    "?since=yesterday&until=1", "?sector=%ff%fe", "?format=exe", "?next=https://evil.example", "?subject=p_x",
]  # fmt: skip


@pytest.fixture
def looked_up(monkeypatch) -> set[str]:
    """The names of parameters that somebody has looked up since this set was emptied."""
    names: set[str] = set()

    def noting(read):
        def reader(self, name, *more, **options):
            if not self._mutable:  # while it is made from an address it looks up its own names
                names.add(name)
            return read(self, name, *more, **options)

        return reader

    for reader in ("__getitem__", "__contains__", "getlist"):
        monkeypatch.setattr(QueryDict, reader, noting(getattr(QueryDict, reader)))
    return names


def nonsense_for(looked_up: set[str]) -> Iterator[str]:
    """The nonsense for one address; its first questions tell which names it looks up."""
    looked_up.clear()
    yield ""
    yield from EVERYWHERE
    for nonsense in NONSENSE:
        if looked_up & QueryDict(nonsense[1:]).keys():
            yield nonsense


def test_no_address_breaks_whatever_is_asked(alice, subtests, looked_up):
    watch, asked = Watch(), set()
    for address in ADDRESSES:
        if address.rule is None or address.path.startswith(("identity/", "api/")):
            continue
        client, url = alice.browser(address.rule), alice.fill(address.path)
        with subtests.test(address.path):
            for nonsense in nonsense_for(looked_up):
                asked.add(nonsense)
                response = client.get(url + nonsense)
                assert response.status_code < 500, nonsense
                assert (
                    response.streaming or response.content or response.status_code in (204, 301, 302, 303)
                ), nonsense
    assert fingerprint() == watch.before
    assert not set(NONSENSE) - asked, f"no page looks these up: {set(NONSENSE) - asked}"


def test_no_json_door_breaks_whatever_is_asked(alice, subtests, looked_up):
    for path, address in DOORS.items():
        if "GET" not in address.methods() or path == "schema/":
            continue
        caller, url = (
            alice.callers[surface.caller_of(address)],
            alice.fill(address.path).removeprefix("/api/v1/"),
        )
        with subtests.test(path):
            for nonsense in filter(None, nonsense_for(looked_up)):
                response = caller.get(url + nonsense)
                assert response.status_code < 500, nonsense
                # One thing by its id, and a person's own sum or export, read no parameters at all; a code that no company
                # has is an honest question.
                if (
                    "<" not in path
                    and path not in ("me/summary", "me/export")
                    and "operator=" not in nonsense
                ):
                    assert response.status_code in range(400, 500), f"{nonsense} is taken in silence"


def nonsense_ids(path: str) -> tuple[str, ...]:
    """The resolver takes a UUID or nothing at all; a word reaches the page as it is."""
    no_such = ("%00", "99999999-9999-9999-9999-999999999999")
    words = ("x" * 3000, "..%2f..%2fetc%2fpasswd", "%F0%9F%92%A9", "0")
    return no_such if "<uuid:" in path else no_such + words


def test_ids_that_are_none(alice, subtests):
    watch = Watch()
    for address in ADDRESSES:
        if "<" not in address.path or address.rule is None:
            continue
        with subtests.test(address.path):
            for value in nonsense_ids(address.path):
                url = "/" + address.path.split("<")[0] + value + address.path.split(">")[1]
                if address.is_api:
                    caller = alice.callers[surface.caller_of(address)]
                    method = "get" if "GET" in address.methods() else "post"
                    body = BODIES.get(address.path.removeprefix("api/v1/"), lambda side: None)(alice)
                    response = getattr(caller, method)(
                        url.removeprefix("/api/v1/"), *([body] if method == "post" else [])
                    )
                else:
                    response = alice.browser(address.rule).get(url)
                watch.refused(response, allowed=(400, 404, 405))


# --- JSON doors -------------------------------------------------------------------------------------------------------------------------


def knock(path: str, side: Side, data, **more):
    address = DOORS[path]
    verb = "put" if "PUT" in address.methods() else "post"
    return side.callers[surface.caller_of(address)].post(
        side.fill(address.path).removeprefix("/api/v1/"), data, verb=verb, **more
    )


# Lists, whose rows are judged one by one: tests/consents/api/test_reports.py sends these what is wrong.
# And texts, of which almost any is right: test_offers.py.
LISTS = {"holdings", "transfers", "weekly-counts", "services/<slug:slug>", "services/<slug:slug>/terms"}
JSON_DOORS = sorted(BODIES.keys() - surface.OWN_BYTES.keys() - LISTS)
# Doors of protocols that no channel of a side speaks: tests/consents/api/test_inbound.py; and of sources, which its operator
# is not: test_mydata.py.
OTHER_PROTOCOLS = {
    "event-notifications", "arrangements/revoke", "consents/result", "mydata/v2/mgmts/statistics/provider",
}  # fmt: skip


def test_bodies_that_are_no_object(alice, subtests):
    watch = Watch()
    for path in JSON_DOORS:
        for body in (
            b"[]",
            b'"x"',
            b"1",
            b"null",
            b"true",
            b"{",
            b"",
            b"\xff",
            b'{"a":1}{"b":2}',
            b"[" * 5000,
            b"{" * 30 + b"}" * 30,
            b"NaN",
        ):
            if body == b"" and BODIES[path](alice) == {}:
                continue  # an empty body is the empty object
            with subtests.test(path, body=str(body[:10])):
                watch.refused(knock(path, alice, body))


FINE = [("consent-requests", "redirect_uri", ""), ("references", "identifier", "true")]  # they may say so


def test_json_values_of_another_kind(alice, subtests):
    watch = Watch()
    for path in JSON_DOORS:
        honest = BODIES[path](alice)
        for name in honest:
            for value in (None, [], {}, "", "\x00", 1e400, -1, "x" * 3000, [None], {"id": 1}, "true"):
                if (path, name, value) in FINE:
                    continue
                with subtests.test(path, name=name, value=str(value)[:20]):
                    watch.refused(knock(path, alice, json.dumps(honest | {name: value})))


def test_json_without_what_is_needed(alice, subtests):
    watch = Watch()
    for path in JSON_DOORS:
        honest = BODIES[path](alice)
        for name in honest:
            with subtests.test(path, without=name):
                watch.refused(
                    knock(path, alice, {key: value for key, value in honest.items() if key != name})
                )


def test_json_names_that_nobody_asked_for(alice, subtests):
    """T15, and doubled names: what one reader takes and another overlooks."""
    watch = Watch()
    for path in JSON_DOORS:
        honest = BODIES[path](alice)
        for extra in (
            {"holds": False},
            {"person": str(alice.person.pk)},
            {"at": "2020-01-01T00:00:00Z"},
            {"organization": "X"},
        ):
            with subtests.test(path, extra=next(iter(extra))):
                watch.refused(knock(path, alice, honest | extra), allowed=(400,))
        with subtests.test(path, doubled=True):
            text = json.dumps(honest)[1:-1] or '"a": 1'
            watch.refused(knock(path, alice, f"{{{text}, {text}}}"), allowed=(400,))


def test_json_of_ten_megabytes_and_other_kinds_of_bodies(alice, subtests):
    watch = Watch()
    for path in BODIES:
        right = surface.OWN_BYTES.get(path, "application/json")
        with subtests.test(path):
            if path != "uploads/<uuid:pk>/content":  # which is there for that
                watch.refused(
                    knock(path, alice, b'{"a":"' + b"x" * TEN_MEGABYTES + b'"}', content_type=right),
                    allowed=(413,),
                )
            for kind in (
                "text/plain",
                "application/xml",
                "multipart/form-data; boundary=x",
                "application/x-www-form-urlencoded",
            ):
                if kind != right:
                    watch.refused(knock(path, alice, b"erase=true", content_type=kind), allowed=(415,))


def test_json_that_came_before(alice, subtests):
    """Without a key: the act is done, or the answer says why not; with one: test_idempotency.py."""
    for path in BODIES.keys() - OTHER_PROTOCOLS - LISTS:
        with subtests.test(path), transaction.atomic():
            body = BODIES[path](alice)
            kind = surface.OWN_BYTES.get(path, "application/json")
            first = knock(path, alice, body, content_type=kind)
            assert first.status_code in (200, 201, 202), first.content
            watch = Watch()
            again = knock(path, alice, body, content_type=kind)
            if path in ("consent-requests", "uploads"):
                assert again.status_code == 201, "another request is another request"
            elif path == "channel/test":
                assert again.status_code == 202 and fingerprint() == watch.before, "the run that waits"
            elif path in ("deliveries/<uuid:jti>/ack", "evidence", "references", "sets", "sets/poll"):
                assert again.status_code in (200, first.status_code) and fingerprint() == watch.before, (
                    "the same answer is the same answer"
                )
            elif path == "holding-count":
                watch.refused(again, allowed=(404,))
            elif path == "services/<slug:slug>/close":
                assert again.status_code == 202, "its end is on its way already"
            elif path == "consent-requests/redeem":
                watch.refused(again, allowed=(400,))
            elif path.startswith("mydata/"):
                assert again.status_code == 200, "another token; the same week again"
            elif path == "me/subscriptions:end":
                (result,) = again.json()["results"]
                assert result["status"] == 409 and fingerprint() == watch.before
            else:
                watch.refused(again, allowed=(409,))
            transaction.set_rollback(True)


def test_evidence_that_is_none(alice, subtests):
    watch = Watch()
    signed = alice.signer.sign(alice.signer.claims(alice.delivery))
    head, payload, signature = signed.split(".")
    bad = {
        "nothing": "", "no parts": "abc", "two parts": f"{head}.{payload}", "no signature": f"{head}.{payload}.", "unsigned": f"eyJhbGciOiJub25lIn0.{payload}.",
        "another signature": f"{head}.{payload}.{signature[::-1]}", "another kid": alice.signer.sign(alice.signer.claims(alice.delivery), kid="other"),
        "another type": alice.signer.sign(alice.signer.claims(alice.delivery), typ="JWT"),
        "no json": alice.signer.sign(b"not json"), "a list": alice.signer.sign(b"[]"),
    }  # fmt: skip
    for claim, value in {
        "iss": "OTHER00001",
        "aud": "https://elsewhere.example",
        "status": "gone",
        "version": "one",
        "txn": "x",
        "subscription": None,
        "completed_at": "soon",
        "jti": "a b",
        "extra": True,
    }.items():
        bad[f"{claim}: {value}"] = alice.signer.sign(alice.signer.claims(alice.delivery, **{claim: value}))
    bad["foreign delivery"] = alice.signer.sign(
        alice.signer.claims(alice.delivery, delivery=str(uuid.uuid4()))
    )
    for name, body in bad.items():
        with subtests.test(name):
            watch.refused(knock("evidence", alice, body, content_type="application/jwt"))


def test_every_described_operation_is_swept():
    """The OpenAPI document and the sweep know the same doors."""
    described = {
        path.removeprefix("/api/v1/").removeprefix("/")
        for path, operations in SchemaGenerator().get_schema(public=True)["paths"].items()
        if {"post", "put"} & operations.keys()
    }
    plain = {
        path.replace("<uuid:", "{").replace("<slug:", "{").replace("<str:", "{").replace(">", "}")
        for path in BODIES
    }
    assert {path.split("{")[0] + path.count("{") * "{}" + path.rpartition("}")[2] for path in described} == {
        path.split("{")[0] + path.count("{") * "{}" + path.rpartition("}")[2] for path in plain
    }


# --- the OAuth2 doors -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/identity/o/api/token",
        "/identity/o/api/revoke",
        "/identity/o/api/introspect",
        "/identity/o/authorize",
    ],
)
def test_oauth_doors_refuse_nonsense(alice, path):
    watch, client = Watch(), Client()
    form = "application/x-www-form-urlencoded"
    for body in (
        "",
        "grant_type=client_credentials",
        "grant_type=\x00",
        "client_id=x&client_secret=y&grant_type=client_credentials",
        "a=1&a=2",
    ):
        response = client.post(path, body, content_type=form)
        assert response.status_code in range(300, 500), body
    assert client.post(path, "x" * TEN_MEGABYTES, content_type=form).status_code in range(400, 500)
    assert client.post(path, "{}", content_type="application/json").status_code in range(300, 500)
    assert fingerprint() == watch.before


@pytest.mark.parametrize(
    "path",
    [
        "accounts/login/",
        "accounts/signup/",
        "accounts/login/code/",
        "accounts/password/reset/",
        "accounts/signup/passkey/",
        "language/",
    ],
)
def test_sign_in_pages_refuse_nonsense(alice, path):
    watch, client = Watch(), Client()
    for data in (
        {},
        {"email": "\x00"},
        {"email": "x" * 5000},
        {"email": "a@b", "password": ["1", "2"]},
        {"login": "%", "born_on": "soon"},
    ):
        assert client.post(f"/{path}", data).status_code < 500
    large = client.post(
        f"/{path}", "email=" + "x" * TEN_MEGABYTES, content_type="application/x-www-form-urlencoded"
    )
    assert large.status_code in range(400, 500) and len(words(large)) > 10
    assert fingerprint() == watch.before


# --- queries ----------------------------------------------------------------------------------------------------------------------------------


def count(client, url: str) -> int:
    with CaptureQueriesContext(connection) as seen:
        response = client.get(url)
    assert response.status_code in (200, 302, 303), (url, response.status_code)
    # A savepoint is how a transaction looks inside a test's own; what is asked in it counts.
    return sum("SAVEPOINT" not in query["sql"] for query in seen)


def test_every_page_asks_twelve_queries_whatever_the_number_of_subscriptions(alice, subtests):
    """Once to warm what is remembered for the life of the process; then with a few rows, and with ten more of each."""
    pages = [
        a
        for a in ADDRESSES
        if a.rule in (access.PUBLIC, access.PERSON, access.REGULATOR, access.OPERATOR_ADMIN, access.SIGNED_IN)
    ]
    pages = [
        a
        for a in pages
        # files of the log: no queries at all, see tests/consents/ledger/test_log.py
        if not a.path.startswith(
            ("identity/", ".well-known", "healthz", "readyz", "language/", "api/", "log/")
        )
    ]

    # Public pages too are looked at by somebody signed in: that costs more.
    clients = {a.path: alice.browser(access.PERSON if a.rule == access.PUBLIC else a.rule) for a in pages}
    shown = [path for path, client in clients.items() if client.get(alice.fill(path)).status_code != 405]

    def counts() -> dict[str, int]:
        return {path: count(clients[path], alice.fill(path)) for path in shown}

    few = counts()
    for _ in range(10):
        one_more = factories.joined(alice.person)
        factories.joined(factories.PersonFactory(), alice.service)
        assert one_more.consents.count() == 4
    many = counts()
    for path, queries in many.items():
        with subtests.test(path):
            assert queries <= MOST_QUERIES
            assert queries == few[path], "more rows, more queries"
