"""Files of many rows: taken in by batches, wherever they were cut, killed or sent again; and the people they are about."""

import base64
import csv
import datetime
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from urllib.parse import quote, urlencode

import pytest
from django.conf import settings as configured
from django.db import connection
from django.utils import timezone

from consents import (
    identities,
    intake,
    jobs,
    lifecycle,
    reconciliation,
    reports,
    uploads,
    waiting,
)
from consents.actors import Actor
from consents.identities import Vouched
from consents.models import (
    EntryIndex,
    Notice,
    Subscription,
    Transfer,
    Upload,
    UploadPart,
    UploadRefusal,
    WaitingHolding,
)
from consents.queries import uploads as queries
from tests import factories

pytestmark = pytest.mark.django_db
BY = Actor.system("test")


def ci_of(name: object) -> str:
    return base64.b64encode(hashlib.sha512(f"{name}".encode()).digest()).decode()


@pytest.fixture
def service():
    return factories.offered()


@pytest.fixture
def source():
    return factories.OrganizationFactory()


def row(subject, service, source, **changes) -> dict:
    today = timezone.localdate()
    given = {
        "subject": str(subject), "service_client_id": service.client_id, "joined_on": str(today - datetime.timedelta(days=90)),
        "source_org_code": source.code, "scopes": "bank.list bank.deposit", "purpose": "가계부, 그리고 \"자산\" 관리",
        "cycle": "1/w", "end_date": str(today + datetime.timedelta(days=200)), "retained_until": "99991231",
        "last_used_on": str(today - datetime.timedelta(days=9)),
    }  # fmt: skip
    return given | changes


def csv_of(rows) -> bytes:
    out = io.StringIO()
    lines = csv.DictWriter(out, reports.COLUMNS, extrasaction="ignore")
    lines.writeheader()
    lines.writerows(rows)
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def send(organization, data: bytes, *, kind="holdings", format="csv", pieces=1) -> Upload:
    at = timezone.now()
    upload = uploads.start(organization, kind=kind, format=format, by=BY, at=at)
    size = -(-len(data) // pieces)
    for begin in range(0, len(data), size):
        uploads.receive(upload, io.BytesIO(data[begin : begin + size]), begin=begin, by=BY, at=at)
    return uploads.complete(upload, by=BY, at=at)


def take(upload: Upload) -> Upload:
    intake.run(now=timezone.now)
    upload.refresh_from_db()
    return upload


def counts(upload: Upload) -> dict[str, int]:
    return {name: number for name, number in queries.progress(upload)["counts"] if number}


def waiting_rows() -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), md5(string_agg(w::text, '|' ORDER BY digest, source_id)) FROM (SELECT digest, service_id, source_id,"
            " joined_on, scopes, purpose, cycle, end_date, retained_until, last_used_on FROM consents_waitingholding) AS w"
        )
        return str(cursor.fetchone())


@pytest.mark.parametrize("pieces", [1, 3, 400])
@pytest.mark.parametrize("format", ["csv", "ndjson"])
def test_a_file_goes_in_wherever_it_was_cut(person, service, source, monkeypatch, format, pieces):
    monkeypatch.setitem(intake.BATCH, "holdings", 3)
    other = factories.OrganizationFactory()
    rows = [
        row(person.subject_id, service, source),
        row("nobody", service, source),
        row(ci_of(1), service, other),
    ]
    rows += [row(ci_of(n), service, source) for n in range(2, 7)] + [row(person.subject_id, service, source)]
    data = (
        csv_of(rows)
        if format == "csv"
        else "\n".join(json.dumps(one, ensure_ascii=False) for one in rows).encode()
    )
    upload = take(send(service.organization, data, format=format, pieces=pieces))
    assert upload.state == "done" and upload.read_to == len(data) and upload.percent == 100
    assert counts(upload) == {"created": 1, "waiting": 6, "refused": 1, "unchanged": 1}
    refused = UploadRefusal.objects.get()
    assert (refused.number, refused.column, refused.code) == (
        3 if format == "csv" else 2,
        "subject",
        "not-a-subject",
    )
    assert Subscription.objects.get().consents.get().purpose_ko == '가계부, 그리고 "자산" 관리'
    assert not UploadPart.objects.exists(), "what was read is not kept"
    again = take(send(service.organization, data, format=format))
    assert counts(again) == {"unchanged": 8, "refused": 1}


def test_a_file_goes_on_where_it_was_left(service, source, monkeypatch):
    """Each run does one batch, as if the worker had been stopped after it."""
    monkeypatch.setitem(intake.BATCH, "holdings", 2)
    upload = send(service.organization, csv_of(row(ci_of(n), service, source) for n in range(7)), pieces=9)
    seen = []
    while upload.state != "done":
        intake.run(now=timezone.now, seconds=0) or intake._some(upload, now=timezone.now, until=0)
        upload.refresh_from_db()
        seen.append(upload.rows)
    assert seen[:4] == [2, 4, 6, 7] and WaitingHolding.objects.count() == 7


def test_a_batch_that_fails_leaves_nothing_and_comes_again(service, source, monkeypatch):
    upload = send(service.organization, csv_of(row(ci_of(n), service, source) for n in range(3)))
    with monkeypatch.context() as broken:
        broken.setattr(intake, "_write_refused", lambda *_: 1 / 0)
        intake.run(now=timezone.now, seconds=0.2)
    upload.refresh_from_db()
    assert not WaitingHolding.objects.exists() and upload.faults
    if upload.state == "failed":  # it was tried MOST_FAULTS times in that time
        assert "ZeroDivisionError" in upload.fault
    else:
        assert counts(take(upload)) == {"waiting": 3}


@pytest.mark.parametrize(
    ("line", "code", "column"),
    [
        ('"an open quote', "unreadable", ""),
        ("x" * 70_000, "too-long", "subject"),
        (",".join("a" * 11), "unreadable", ""),
        ("a,b", "missing", "joined_on"),
    ],
)
def test_a_line_that_cannot_be_read_spoils_no_other(service, source, line, code, column):
    data = csv_of([row(ci_of(1), service, source)]) + line.encode() + b"\r\n"
    data += csv_of([row(ci_of(2), service, source)]).split(b"\n", 1)[1]
    upload = take(send(service.organization, data))
    assert counts(upload) == {"waiting": 2, "refused": 1}
    refused = UploadRefusal.objects.get()
    assert (refused.number, refused.code) == (3, code) and refused.column in (column, "subject", "")


@pytest.mark.parametrize(
    "line",
    [
        r'{"\u0000": 1}',
        r'{"\ud800": 1}',
        r'{"subject": "\u0000"}',
        r'{"subject": "\ud800"}',
        "[" * 9999,
        '{"a": NaN}',
    ],
)
def test_signs_that_cannot_be_kept_are_refused(service, source, line):
    lines = "\n".join([line, json.dumps(row(ci_of(1), service, source))])
    assert counts(take(send(service.organization, lines.encode(), format="ndjson"))) == {
        "waiting": 1,
        "refused": 1,
    }


@pytest.mark.parametrize("first", [b"", b"one,two\n", b"subject,subject\n", b"\xff\xfe\n"])
def test_a_file_without_its_first_row_fails_in_words(service, first):
    upload = take(send(service.organization, first + b"\n"))
    assert upload.state == "failed" and "subject" in upload.fault and upload.finished_at
    assert not UploadPart.objects.exists()


def test_exactly_the_bad_rows_are_reported(service, source):
    wrong = {
        "subject": "x",
        "joined_on": "2026-13-01",
        "scopes": "bank.gold",
        "end_date": "99991231",
        "cycle": "daily",
    }
    rows = []
    for number in range(600):
        column = list(wrong)[number // 100 % 5] if number % 100 == 42 else None
        rows.append(row(ci_of(number), service, source) | ({column: wrong[column]} if column else {}))
    upload = take(send(service.organization, csv_of(rows)))
    assert [r.number for r in upload.refusals.all()] == [44 + 100 * n for n in range(6)]
    assert [r.column for r in upload.refusals.all()] == [*wrong, "subject"]
    page, beyond = queries.refusals(upload)
    assert len(page) == 6 and beyond is None and page[2]["reason"].startswith("bank.gold")
    lines = "".join(queries.refused_lines(upload)).splitlines()
    assert len(lines) == 7 and lines[1].startswith('"44","subject","not-a-subject"')


def test_more_than_a_million_rows_are_too_many(service, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_ROWS", 3)
    upload = uploads.start(service.organization, kind="holdings", format="csv", by=BY, at=timezone.now())
    uploads.receive(upload, io.BytesIO(b"h\n1\n2\n3\n"), begin=0, by=BY, at=timezone.now())
    with pytest.raises(uploads.TooMuch):
        uploads.receive(upload, io.BytesIO(b"4\n"), begin=8, by=BY, at=timezone.now())


def test_pieces_follow_each_other(service):
    upload = uploads.start(service.organization, kind="holdings", format="csv", by=BY, at=timezone.now())
    uploads.receive(upload, io.BytesIO(b"abc"), begin=0, by=BY, at=timezone.now())
    for begin in (0, 2, 4):
        with pytest.raises(uploads.WrongPlace) as told:
            uploads.receive(upload, io.BytesIO(b"x"), begin=begin, by=BY, at=timezone.now())
        assert told.value.received == 3
    uploads.complete(upload, by=BY, at=timezone.now())
    with pytest.raises(uploads.NotNow):
        uploads.receive(upload, io.BytesIO(b"x"), begin=3, by=BY, at=timezone.now())


def test_files_take_turns_and_are_few(service):
    own = service.organization
    for _ in range(uploads.MOST_OPEN):
        uploads.start(own, kind="holdings", format="csv", by=BY, at=timezone.now())
    with pytest.raises(uploads.TooManyOpen):
        uploads.start(own, kind="holdings", format="csv", by=BY, at=timezone.now())
    assert uploads.forget_old(at=timezone.now()) == 0
    assert uploads.forget_old(at=timezone.now() + datetime.timedelta(days=3)) == uploads.MOST_OPEN


def test_transfers_come_as_files_too(person, service, source):
    subscription = factories.joined(person, service, timezone.now() - datetime.timedelta(days=3))
    consent = subscription.consents.filter(kind="transfer").first()
    at = timezone.now().isoformat()
    lines = ["key,subscription,consent,source,scopes,regular,at", f"1,{subscription.pk},{consent.pk},,{consent.scopes[0]},true,{at}",
             f"2,{subscription.pk},{consent.pk},,,maybe,{at}", f"3,{service.pk},,,,,{at}"]  # fmt: skip
    upload = take(send(service.organization, "\n".join(lines).encode(), kind="transfers"))
    assert counts(upload) == {"created": 1, "refused": 2} and Transfer.objects.get().key == "1"
    assert [(r.number, r.column) for r in upload.refusals.all()] == [(3, "regular"), (4, "subscription")]
    again = take(send(service.organization, "\n".join(lines).encode(), kind="transfers"))
    assert counts(again) == {"unchanged": 1, "refused": 2}


# --- people who come later -------------------------------------------------------------------------------------------


def test_what_waits_is_the_persons_once_they_prove_who_they_are(person, service, source):
    data = csv_of([row(ci_of("a"), service, source), row(ci_of("b"), service, source)])
    assert counts(take(send(service.organization, data))) == {"waiting": 2}
    assert not EntryIndex.objects.exists(), "nobody has agreed to anything, and nobody can be told"
    assert identities.verify(person, Vouched("pretend", ci_of("a")), by=BY, at=timezone.now()) == 1
    subscription = Subscription.objects.get(person=person)
    assert subscription.origin == "reported" and subscription.consents.get().source == source
    assert set(EntryIndex.objects.values_list("typ", flat=True)) == {"subscription.joined", "consent.granted"}
    assert WaitingHolding.objects.get().digest == reports.person_digest(ci_of("b"))
    assert identities.verify(person, Vouched("pretend", ci_of("a")), by=BY, at=timezone.now()) == 0
    # From now on their CI is as good as our own id of them, and what has ended does not come back by it.
    assert counts(take(send(service.organization, data))) == {"unchanged": 2}
    lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=timezone.now())
    assert counts(take(send(service.organization, data))) == {"mismatched": 1, "unchanged": 1}
    assert Subscription.objects.count() == 1 and Notice.objects.get(person=person).kind == "mismatch"


def test_an_identity_is_one_accounts(person):
    identities.verify(person, Vouched("pretend", ci_of("a")), by=BY, at=timezone.now())
    with pytest.raises(identities.Taken):
        identities.verify(factories.PersonFactory(), Vouched("pretend", ci_of("a")), by=BY, at=timezone.now())
    with pytest.raises(identities.Taken):
        identities.verify(person, Vouched("pretend", ci_of("b")), by=BY, at=timezone.now())
    with pytest.raises(identities.NotProved):
        identities.verify(person, Vouched("pretend", "me"), by=BY, at=timezone.now())


def test_the_newest_report_of_a_stranger_counts(service, source):
    later = str(timezone.localdate() + datetime.timedelta(days=300))
    rows = [
        row(ci_of(1), service, source),
        row(ci_of(1), service, source, end_date=later),
        row(ci_of(1), service, source, end_date=later),
    ]
    assert counts(take(send(service.organization, csv_of(rows)))) == {"waiting": 2, "unchanged": 1}
    assert str(WaitingHolding.objects.get().end_date) == later


def test_what_waited_and_has_ended_is_forgotten(service, source):
    take(send(service.organization, csv_of([row(ci_of(1), service, source)])))
    today = timezone.localdate()
    assert waiting.forget_ended(by=BY, at=timezone.now(), today=today) == 0
    assert waiting.forget_ended(by=BY, at=timezone.now(), today=today + datetime.timedelta(days=201)) == 1


def test_whoever_came_in_the_same_moment_is_found_later(person, service, source):
    identities.verify(person, Vouched("pretend", ci_of("a")), by=BY, at=timezone.now())
    organization = service.organization
    market, report = reconciliation.Market.of(organization), reconciliation.Report()
    held = reports.holding(
        1, row(ci_of("a"), service, source), today=timezone.localdate(), codes=market.codes
    )
    waiting.keep([held], services=market.services, sources=market.sources, by=BY, at=timezone.now())
    jobs.take_in()
    assert Subscription.objects.filter(person=person).exists() and not WaitingHolding.objects.exists()
    assert report.created == 0


# --- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.fault
@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_killed_halfway_changes_nothing(service, source, monkeypatch):
    """SIGKILL in the middle of a file, then another worker: the same as if nothing had happened."""
    count = 12_000
    rows = [row(ci_of(n), service, source, **({"cycle": "x"} if n % 100 == 7 else {})) for n in range(count)]
    data = csv_of(rows)
    take(send(service.organization, data))
    whole = waiting_rows()
    WaitingHolding.objects.all().delete()
    upload = send(service.organization, data)
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER],
        cwd=configured.BASE_DIR,
        env=_environment(),
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while upload.rows < count // 4 and time.monotonic() < until:
            upload.refresh_from_db()
            time.sleep(0.005)
        worker.send_signal(signal.SIGKILL)
        worker.wait(20)
    finally:
        worker.kill()
        worker.wait(20)
    upload.refresh_from_db()
    assert 0 < upload.rows < count, "it was killed in the middle"
    time.sleep(0.3)  # the server notices that its client is gone
    upload = take(upload)
    assert counts(upload) == {"waiting": count - count // 100, "refused": count // 100}
    assert waiting_rows() == whole
    assert [r.number for r in upload.refusals.all()] == [n + 2 for n in range(count) if n % 100 == 7]


_WORKER = """
import django; django.setup()
from django.utils import timezone
from consents import intake
intake.BATCH["holdings"] = 500
while intake.run(now=timezone.now): pass
"""


def _environment() -> dict[str, str]:
    database = connection.settings_dict
    who = quote(database["USER"]) + (f":{quote(database['PASSWORD'])}" if database["PASSWORD"] else "")
    query = urlencode({"host": database["HOST"], "port": database["PORT"]})
    return {
        **os.environ, "DATABASE_URL": f"postgresql://{who}@/{database['NAME']}?{query}",
        "DJANGO_SETTINGS_MODULE": "config.settings", "PORTAL_KEYS_DIR": str(configured.PORTAL_KEYS_DIR),
    }  # fmt: skip
