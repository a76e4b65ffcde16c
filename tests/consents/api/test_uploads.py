"""The doors for holdings and for files of rows: per-row answers, pieces that follow each other, nobody else's files."""

import json

import pytest
from django.utils import timezone, translation

from consents import intake, reports
from consents.models import Subscription, Upload, WaitingHolding
from tests import factories
from tests.consents.api.conftest import of, problem
from tests.consents.test_uploads import ci_of, csv_of, row, waiting_rows

pytestmark = pytest.mark.django_db


@pytest.fixture
def source():
    return factories.OrganizationFactory()


def results(answer) -> list[dict]:
    assert answer.status_code == 200, answer.content
    return answer.json()["results"]


@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson", "text/csv"])
def test_each_row_is_answered(operator, person, service, source, form):
    rows = [
        row(person.subject_id, service, source), row(ci_of(1), service, source), row("me", service, source),
        row(person.subject_id, service, source), row(person.subject_id, service, source, last_used_on=str(timezone.localdate())),
        row(person.subject_id, service, source, scopes="bank.list bank.deposit card.list"),
        row("0b6c0b34-2f0e-4b0e-9f5c-3d2f8a1c9e77", service, source), row(ci_of(2), factories.offered(), source),
    ]  # fmt: skip
    lines = "\n".join(json.dumps(one, ensure_ascii=False) for one in rows)
    sent = {"application/json": json.dumps(rows), "application/x-ndjson": lines, "text/csv": csv_of(rows)}[
        form
    ]
    found = results(operator.post("holdings", sent, content_type=form))
    assert [one["result"] for one in found] == [
        "created", "waiting", "refused", "unchanged", "updated", "mismatched", "refused", "refused",
    ]  # fmt: skip
    assert [one["number"] for one in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [one["errors"][0]["code"] for one in found if one["errors"]] == [
        "not-a-subject",
        "unknown-person",
        "not-own-service",
    ]
    assert found[2]["errors"][0]["pointer"] == "#/subject" and "CI" in found[2]["errors"][0]["detail"]
    assert Subscription.objects.get().consents.get().scopes == ["bank.deposit", "bank.list"]
    again = results(operator.post("holdings", sent, content_type=form))
    assert [one["result"] for one in again] == [
        "unchanged", "unchanged", "refused", "unchanged", "unchanged", "mismatched", "refused", "refused",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("language", "words"), [("ko", "첫 줄에 없는 칸이 있어요"), ("en", "The first row lacks the column")]
)
def test_a_csv_without_its_columns_is_told_in_the_readers_language(operator, service, language, words):
    headers = {"content_type": "text/csv", "Accept_Language": language}
    told = operator.post("holdings", "subject,joined_on\n", **headers)
    assert (
        told.status_code == 400
        and words in told.json()["detail"]
        and "service_client_id" in told.json()["detail"]
    )
    path = operator.post("uploads", {"kind": "holdings", "format": "csv"}).json()["id"]
    operator.put(f"uploads/{path}/content", "subject\n", content_type="text/csv")
    intake.run(now=timezone.now)
    found = operator.get(f"uploads/{path}", Accept_Language=language).json()
    assert found["state"] == "failed" and words in found["fault"]


def dropped(caller, path: str):
    return caller.client.delete(caller.url(path), headers=caller.headers)


def test_an_unfinished_file_is_dropped_and_room_is_made(operator, service):
    opened = [operator.post("uploads", {"kind": "holdings", "format": "csv"}).json()["id"] for _n in range(5)]
    refused = operator.post("uploads", {"kind": "holdings", "format": "csv"})
    assert refused.status_code == 409 and "DELETE /uploads/{id}" in refused.json()["detail"]
    stranger = of(factories.OperatorFactory())
    assert dropped(stranger, f"uploads/{opened[0]}").status_code == 404
    operator.put(
        f"uploads/{opened[1]}/content", "subject\n", content_type="text/csv"
    )  # complete, and waiting
    for one in opened[:2]:
        assert dropped(operator, f"uploads/{one}").status_code == 204
        assert (
            operator.get(f"uploads/{one}").status_code
            == dropped(operator, f"uploads/{one}").status_code
            == 404
        )
    assert intake.run(now=timezone.now) == 0
    Upload.objects.filter(pk=opened[2]).update(state="running")
    told = dropped(operator, f"uploads/{opened[2]}")
    assert told.status_code == 409 and told.json()["type"].endswith("#already-begun")
    assert operator.post("uploads", {"kind": "holdings", "format": "csv"}).status_code == 201


UNSTORABLE = [
    {"purpose": "\0"}, {"purpose": "\ud800"}, {"scopes": ["bank.list", "\0"]}, {"subject": "\udfff"}, {"\0": "x"}, {"\ud800": "\ud800"},
]  # fmt: skip


@pytest.mark.parametrize("wrong", UNSTORABLE)
@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson"])
def test_signs_that_cannot_be_kept_refuse_their_own_row(operator, service, source, form, wrong):
    rows = [
        row(ci_of(1), service, source),
        row(ci_of(2), service, source) | wrong,
        row(ci_of(3), service, source),
    ]
    sent = json.dumps(rows) if form.endswith("/json") else "\n".join(map(json.dumps, rows))
    found = results(operator.post("holdings", sent, content_type=form, Idempotency_Key="k"))
    assert [one["result"] for one in found] == ["waiting", "refused", "waiting"]
    code, place = (
        ("invisible", next(iter(wrong))) if next(iter(wrong)).isprintable() else ("unknown-column", "?")
    )
    assert [(one["code"], one["pointer"]) for one in found[1]["errors"]] == [(code, f"#/{place}")]
    again = operator.post("holdings", sent, content_type=form, Idempotency_Key="k")
    assert results(again) == found and again["Idempotent-Replayed"]


@pytest.mark.parametrize(
    "wrong",
    [{"key": "\0"}, {"key": "\ud800"}, {"source": "\0"}, {"scopes": ["\ud800"]}, {"\0": 1}, {"at": "\0"}],
)
@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson"])
def test_so_do_they_among_transfers(operator, subscription, form, wrong):
    one = {"key": "a", "subscription": str(subscription.pk), "at": timezone.now().isoformat()}
    rows = [one, one | {"key": "b"} | wrong, one | {"key": "c"}]
    sent = json.dumps(rows) if form.endswith("/json") else "\n".join(map(json.dumps, rows))
    found = results(operator.post("transfers", sent, content_type=form))
    assert [row["result"] for row in found] == ["created", "refused", "created"] and found[1]["errors"]


def test_json_that_is_broken_as_a_whole_is_refused_as_a_whole(operator):
    for sent in ('[{"a": 1, "a": 2}]', '[{"a": NaN}]', '[{"a": "\\ud800"}', '"\\u0000"', '{"\\u0000": 1}'):
        assert operator.post("holdings", sent).status_code == 400


def test_all_that_is_wrong_with_a_row_is_told(operator, service, source):
    wrong = row(
        "me",
        service,
        source,
        joined_on="2026-13-01",
        scopes="bank.gold",
        cycle="daily",
        source_org_code="X",
        more="x",
    )
    del wrong["purpose"]
    rows = [
        wrong,
        row(ci_of(1), service, source),
        row(ci_of(2), service, source, end_date="2020-01-01", last_used_on="2999-01-01"),
    ]
    found = results(operator.post("holdings", rows))
    assert [one["pointer"].removeprefix("#/") for one in found[0]["errors"]] == [
        "more", "purpose", "subject", "joined_on", "source_org_code", "scopes", "cycle",
    ]  # fmt: skip
    assert [one["code"] for one in found[0]["errors"]] == [
        "unknown-column", "missing", "not-a-subject", "not-a-day", "unknown-source", "unknown-scope", "cycle",
    ]  # fmt: skip
    assert [one["code"] for one in found[2]["errors"]] == ["end-date", "last-use"]
    path = opened(operator, format="ndjson")
    put(operator, path, "\n".join(map(json.dumps, rows)).encode(), content_type="application/x-ndjson")
    intake.run(now=timezone.now)
    refused = operator.get(f"{path}/refused").json()["results"]
    assert [one["number"] for one in refused] == [1, 3] and operator.get(path).json()["refused"] == 2
    assert [one["errors"] for one in refused] == [found[0]["errors"], found[2]["errors"]]
    file = b"".join(operator.get(f"{path}/refused.csv", Accept="text/csv").streaming_content).decode()
    assert file.count('"1",') == 7 and file.count('"3",') == 2


def test_a_later_word_about_a_stranger_replaces_and_says_so(operator, service, source):
    rows = [
        row(ci_of(1), service, source),
        row(ci_of(1), service, source, purpose="다른 일"),
        row(ci_of(2), service, source),
    ]
    found = results(operator.post("holdings", rows))
    assert [(one["result"], one["replaced"]) for one in found] == [
        ("waiting", False),
        ("waiting", True),
        ("waiting", False),
    ]
    again = results(operator.post("holdings", [rows[1], rows[0]]))
    assert [(one["result"], one["replaced"]) for one in again] == [("unchanged", False), ("waiting", True)]
    assert WaitingHolding.objects.get(purpose=rows[0]["purpose"], digest=reports.person_digest(ci_of(1)))


def test_words_come_in_the_callers_language(operator, service, source):
    given = [row("me", service, source), None, {"subject": 5}, [1]]
    for language, words in (("ko", "번호"), ("en", "must be")):
        with translation.override(language):
            found = results(operator.post("holdings", given, Accept_Language=language))
        assert words in found[0]["errors"][0]["detail"]
        assert [one["errors"][0]["code"] for one in found[1:]] == ["unreadable", "not-text", "unreadable"]


def test_the_same_request_is_done_once(operator, person, service, source):
    body = [row(person.subject_id, service, source)]
    first = operator.post("holdings", body, Idempotency_Key="k")
    assert operator.post("holdings", body, Idempotency_Key="k").json() == first.json()
    assert results(operator.post("holdings", body))[0]["result"] == "unchanged"
    assert operator.post("holdings", [*body, *body], Idempotency_Key="k").status_code == 409


@pytest.mark.parametrize("body", ["[]", "{}", "null", json.dumps([{}] * 1001)])
def test_a_list_of_one_to_a_thousand(operator, body):
    assert operator.post("holdings", body).status_code == 400


def test_csv_needs_its_first_row(operator):
    answer = operator.post("holdings", "a,b\n1,2\n", content_type="text/csv")
    assert answer.status_code == 400 and "subject" in answer.json()["detail"]


def test_only_operators_with_the_scope_report(service, source):
    assert of(source).post("holdings", [{}]).status_code == 403
    assert of(service.organization, "transfers:write").post("holdings", [{}]).status_code == 403


# --- files -----------------------------------------------------------------------------------------------------------


def opened(operator, **more) -> str:
    answer = operator.post("uploads", {"kind": "holdings", "format": "csv"} | more)
    assert answer.status_code == 201, answer.content
    assert answer["Location"] == f"/api/v1/uploads/{answer.json()['id']}"
    return f"uploads/{answer.json()['id']}"


def put(operator, path: str, data: bytes, told: str | None = None, content_type="text/csv"):
    headers = operator.headers | ({"Content-Range": told} if told else {})
    return operator.client.put(f"/api/v1/{path}/content", data, content_type=content_type, headers=headers)


def test_a_file_is_sent_in_pieces_and_followed(operator, person, service, source):
    data = csv_of(
        [row(person.subject_id, service, source), row(ci_of(1), service, source), row("me", service, source)]
    )
    path, size = opened(operator), len(data)
    first = put(operator, path, data[:100], f"bytes 0-99/{size}")
    assert (first.status_code, first.json()["received"], first.json()["state"]) == (200, 100, "receiving")
    wrong = put(operator, path, data[50:], f"bytes 50-{size - 1}/{size}")
    assert wrong.status_code == 409 and "received: 100" in wrong.json()["detail"]
    last = put(operator, path, data[100:], f"bytes 100-{size - 1}/{size}")
    assert (last.status_code, last.json()["state"]) == (202, "waiting")
    assert put(operator, path, b"more").json()["type"].endswith("already-complete")
    intake.run(now=timezone.now)
    now = operator.get(path).json()
    assert (now["state"], now["percent"], now["rows"]) == ("done", 100, 3)
    assert (now["created"], now["waiting"], now["refused"]) == (1, 1, 1)
    (refused,) = operator.get(f"{path}/refused").json()["results"]
    assert (refused["number"], refused["pointer"], refused["code"]) == (4, "#/subject", "not-a-subject")
    file = operator.get(f"{path}/refused.csv", Accept="text/csv")
    assert b"".join(file.streaming_content).decode().startswith('number,column,code,reason\r\n"4"')
    assert [one["id"] for one in operator.get("uploads").json()["results"]] == [now["id"]]


def test_a_whole_file_needs_no_range(operator, service, source):
    path = opened(operator, format="ndjson")
    line = json.dumps(row(ci_of(1), service, source))
    assert put(operator, path, line.encode(), content_type="application/x-ndjson").status_code == 202
    intake.run(now=timezone.now)
    assert operator.get(path).json()["waiting"] == 1


def test_the_length_of_the_whole_is_told_once(operator, service, source, unchanged):
    data = csv_of([row(ci_of(n), service, source) for n in range(40)])
    path, size = opened(operator), len(data)
    assert size > 5000
    assert put(operator, path, data[:50], "bytes 0-49/5000").json()["received"] == 50
    with unchanged():
        for piece, told in (
            (data[50:100], "bytes 50-99/100"), (data[50:100], "bytes 50-99/5001"), (data[50:], f"bytes 50-{size - 1}/*"),
            (data[50:], f"bytes 50-{size - 1}/{size}"), (b"", None),
        ):  # fmt: skip
            refused = put(operator, path, piece, told)
            assert problem(refused, 400, "invalid-request")["errors"][0]["parameter"] == "Content-Range", told
    assert put(operator, path, data[50:100], "bytes 50-99/*").status_code == 200
    last = put(operator, path, data[100:5000], "bytes 100-4999/*")
    assert (last.status_code, last.json()["state"]) == (202, "waiting"), "the length is known"


def test_a_piece_elsewhere_tells_no_length(operator):
    path = opened(operator)
    assert put(operator, path, b"x" * 50, "bytes 50-99/100").status_code == 409
    assert put(operator, path, b"x" * 50, "bytes 0-49/80").status_code == 200
    assert put(operator, path, b"x" * 30, "bytes 50-79/80").status_code == 202


@pytest.mark.parametrize(
    "told",
    ["bytes 5-1/9", "bytes 0-9/9", "bytes=0-1", "bytes 0-/4", "lines 0-1/2", "bytes 0-98/99", "x" * 500],
)
def test_a_range_that_says_something_else(operator, told):
    answer = put(operator, opened(operator), b"abc", told)
    assert answer.status_code == 400 and answer.json()["errors"][0]["parameter"] == "Content-Range"


def test_a_piece_of_another_length_than_its_range_leaves_nothing(operator):
    path, size = opened(operator), 3 << 20
    assert put(operator, path, b"x" * 100, "bytes 0-99/*").status_code == 200
    for body, told in (
        (b"abc", f"bytes 100-{size - 1}/{size}"),
        (b"abc", "bytes 100-100/*"),
        (b"", "bytes 100-102/103"),
        (b"y" * (2 << 20), f"bytes 100-{size - 1}/{size}"),
    ):
        refused = put(operator, path, body, told)
        assert refused.status_code == 400 and refused.json()["errors"][0]["parameter"] == "Content-Range"
        now = operator.get(path).json()
        assert (now["received"], now["state"]) == (100, "receiving")
    assert put(operator, path, b"abc", "bytes 100-102/103").status_code == 202


def test_a_file_is_its_organizations_own(operator, source):
    path = opened(operator)
    stranger = of(factories.offered().organization)
    for answer in (
        stranger.get(path),
        stranger.get(f"{path}/refused"),
        stranger.get(f"{path}/refused.csv"),
        put(stranger, path, b"x"),
    ):
        assert answer.status_code == 404
    assert stranger.get("uploads").json()["results"] == []
    assert of(source).post("uploads", {"kind": "holdings", "format": "csv"}).status_code == 403
    assert (
        of(source, "transfers:write").post("uploads", {"kind": "transfers", "format": "csv"}).status_code
        == 201
    )


def test_the_scope_is_that_of_the_rows(service):
    narrow = of(service.organization, "transfers:write")
    assert narrow.post("uploads", {"kind": "holdings", "format": "csv"}).status_code == 403
    path = opened(of(service.organization), kind="holdings")
    assert narrow.get(path).status_code == 403 and narrow.get("uploads").json()["results"] == []
    assert of(service.organization, "consents:read").get("uploads").status_code == 403


def test_five_files_at_a_time(operator):
    for _ in range(5):
        opened(operator)
    answer = operator.post("uploads", {"kind": "holdings", "format": "csv"})
    assert answer.status_code == 409 and answer.json()["type"].endswith("too-many-uploads")


# --- T24 -------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_no_ci_stands_anywhere_in_clear(operator, person, service, source, every_value):
    """A CI comes in by every door; no table holds it, in no encoding, and neither does the log of the application."""
    from consents import identities
    from consents.actors import Actor
    from consents.identities import Vouched

    rows = [row(ci_of(n), service, source) for n in range(3)] + [row(ci_of(3) + "x", service, source)]
    results(operator.post("holdings", rows, Idempotency_Key="k"))
    path = opened(operator)
    put(operator, path, csv_of(rows))
    before = every_value()
    intake.run(now=timezone.now)
    identities.verify(person, Vouched("pretend", ci_of(0)), by=Actor.person(person), at=timezone.now())
    kept = before + every_value()
    for n in range(4):
        ci = ci_of(n)
        for form in (ci, ci.encode().hex(), ci[:40]):
            assert form not in kept
    assert reports.person_digest(ci_of(1)) in kept and waiting_rows()
    assert WaitingHolding.objects.count() == 2 and Upload.objects.get().refused == 1


@pytest.fixture
def every_value():
    """All that a dump of the database would hold, as text."""
    from django.db import connection

    def read() -> str:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
            tables = [name for (name,) in cursor.fetchall() if "pg_temp" not in name]
            found = []
            for table in tables:
                cursor.execute(f"SELECT string_agg(t::text, '|') FROM {table} t")
                found.append(cursor.fetchone()[0] or "")
        return "|".join(found)

    return read
