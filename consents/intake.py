"""WRITES what came of uploaded files: their rows go in a batch at a time, each batch one transaction with its ledger entries.

How far a file has been read stands in the row and moves in the same transaction, so that whoever is killed loses one batch,
whoever starts again goes on there, and nothing goes in twice. Files take turns.
"""

import datetime
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice

import structlog
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.utils import translation

from consents import locks, mail, reconciliation, reports, transfers, uploads
from consents.actors import Actor
from consents.api.transfers import COLUMNS as TRANSFER_COLUMNS
from consents.api.transfers import of_cells, shaped
from consents.models import Upload, UploadPart
from consents.reconciliation import Market, Refusal, Report

log = structlog.get_logger(__name__)

BATCH: dict[str, int] = {Upload.Kind.HOLDINGS: 10_000, Upload.Kind.TRANSFERS: transfers.MOST}
LONGEST_LINE = 65_536  # bytes; of a longer one the rest is not read
SLICE_SECONDS = 5.0  # of one file, then the next has its turn
RUN_SECONDS = 40.0  # of a job, then others have theirs
MOST_FAULTS = 5  # of one batch, then the file is given up
COLUMNS: dict[str, tuple[str, ...]] = {
    Upload.Kind.HOLDINGS: reports.COLUMNS,
    Upload.Kind.TRANSFERS: TRANSFER_COLUMNS,
}
_REFUSALS = 'COPY consents_uploadrefusal (upload_id, number, "column", code, "values") FROM STDIN'


def run(*, now: Callable[[], datetime.datetime], seconds: float = RUN_SECONDS) -> int:
    """Take in what waits, one run at a time; returns how many rows were looked at. The next beat goes on after `seconds`."""
    until, done = time.monotonic() + seconds, 0
    with locks.alone(locks.UPLOADS) as alone:
        while alone and time.monotonic() < until and (upload := _next()) is not None:
            try:
                done += _some(upload, now=now, until=min(until, time.monotonic() + SLICE_SECONDS))
            except (
                OperationalError
            ) as error:  # a deadlock, a database that went away: the batch is undone and comes again
                log.warning("batch failed", upload=str(upload.pk), exception=type(error).__name__)
                break
            except Exception as error:
                log.exception("batch failed", upload=str(upload.pk))
                _fault(upload, type(error).__name__, at=now())
    return done


def _next() -> Upload | None:
    """The file that has waited longest for its turn."""
    open_now = Upload.objects.filter(state__in=[Upload.State.WAITING, Upload.State.RUNNING])
    return open_now.select_related("organization").order_by("touched_at", "pk").first()


def _some(upload: Upload, *, now: Callable[[], datetime.datetime], until: float) -> int:
    """Batches of one file until `until`, at least one."""
    lines, done = Lines(upload), 0
    try:
        rows = _rows(upload, lines)
    except reports.NotAReport as error:
        _give_up(upload, error, at=now())
        return 0
    market = Market.of(upload.organization)
    while True:
        found, going_on = _batch(upload, rows, lines, market, at=now())
        done += found
        if not going_on or time.monotonic() >= until:
            return done


def _batch(
    upload: Upload,
    rows: Iterator[tuple[int, Mapping]],
    lines: "Lines",
    market: Market,
    *,
    at: datetime.datetime,
) -> tuple[int, bool]:
    """One batch, in one transaction; how many rows it had, and whether there may be more."""
    with transaction.atomic():
        _without_waiting_for_the_disk()
        row = Upload.objects.select_for_update().filter(pk=upload.pk).first()
        if row is None or row.read_to != upload.read_to or not row.is_open:
            return 0, False  # dropped, or somebody else was faster: what was read here is read again there
        batch = list(islice(rows, BATCH[row.kind]))
        report = Report()
        by = Actor.organization(upload.organization, member=row.member)
        if batch:
            _TAKERS[row.kind](batch, report, upload=upload, market=market, by=by, at=at)
        _write_refused(row, report.refused)
        for name in ("created", "updated", "unchanged", "mismatched", "waiting"):
            setattr(row, name, getattr(row, name) + getattr(report, name))
        row.refused += len(report.refused)
        row.read_to, row.line, row.header, row.faults = lines.offset, lines.number, upload.header, 0
        row.state, row.touched_at = Upload.State.RUNNING, at
        if not batch:
            row.state, row.finished_at = Upload.State.DONE, at
        row.save()
        UploadPart.objects.filter(upload=row, start__lte=row.read_to - F("size")).delete()
    upload.read_to, upload.line = row.read_to, row.line
    return len(batch), bool(batch)


def _without_waiting_for_the_disk() -> None:
    """A batch that a crash of the database takes back takes its own progress back with it, and comes again; whatever is committed
    after it, such as the log's order, is on disk only with it."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")


def _take_holdings(
    batch, report: Report, *, upload: Upload, market: Market, by: Actor, at: datetime.datetime
) -> None:
    reconciliation.take_in(batch, report, market=market, by=by, at=at)


def _take_transfers(
    batch, report: Report, *, upload: Upload, market: Market, by: Actor, at: datetime.datetime
) -> None:
    rows: list[tuple[int, transfers.Row]] = []
    for number, raw in batch:
        given = of_cells(raw) if upload.format == Upload.Format.CSV else raw
        row = shaped(given)
        if isinstance(row, transfers.Row):
            rows.append((number, row))
        else:
            report.refused.append(_misshapen(number, given, row["errors"]))
    answers = transfers.report([row for _n, row in rows], organization=upload.organization, by=by, at=at)
    if any(answer.after_stop for answer in answers):
        transaction.on_commit(partial(mail.tell_after_stop, at=at), robust=True)
    for (number, _row), answer in zip(rows, answers, strict=True):
        if answer.errors:
            (place, why), *others = answer.errors
            also = tuple({"column": place, "code": why, "values": {}} for place, why in others)
            report.refused.append(Refusal(number, place, why, {}, also))
        else:
            report.note(number, "created" if answer.result == "created" else "unchanged")


def _misshapen(number: int, given: object, errors: list[dict]) -> Refusal:
    """What is wrong with the form of a row, in both languages: who reads it later may speak either."""
    told: list[dict] = [{} for _error in errors]
    for language in ("ko", "en"):
        with translation.override(language):
            for words, wrong in zip(told, shaped(given)["errors"], strict=True):  # type: ignore[index]
                words[language] = wrong["detail"][:200]
    places = [wrong["pointer"].removeprefix("#").removeprefix("/")[:60] for wrong in errors]
    also = [
        {"column": place, "code": "words", "values": words}
        for place, words in zip(places[1:], told[1:], strict=True)
    ]
    return Refusal(number, places[0], "words", told[0], tuple(also))


_TAKERS: dict[str, Callable[..., None]] = {
    Upload.Kind.HOLDINGS: _take_holdings,
    Upload.Kind.TRANSFERS: _take_transfers,
}


def _write_refused(upload: Upload, refused: list[Refusal]) -> None:
    if not refused:
        return
    with connection.cursor() as cursor, cursor.copy(_REFUSALS) as copy:
        for row in sorted(refused):
            values = row.values | ({"also": row.also} if row.also else {})
            copy.write_row((upload.pk, row.number, row.column[:60], row.code, json.dumps(values)))


def _fault(upload: Upload, name: str, *, at: datetime.datetime) -> None:
    """A batch failed for a reason nobody foresaw: the file goes to the end of the queue, and after MOST_FAULTS it is given up."""
    with transaction.atomic():
        row = Upload.objects.select_for_update().filter(pk=upload.pk).first()
        if row is None:
            return
        row.faults, row.touched_at = row.faults + 1, at
        row.save(update_fields=["faults", "touched_at"])
    if row.faults >= MOST_FAULTS:
        _give_up(upload, reports.NotAReport("ours", line=str(row.line), name=name), at=at)


def _give_up(upload: Upload, fault: reports.NotAReport, *, at: datetime.datetime) -> None:
    """Why is kept as a code with its values: it is told in the language of whoever asks."""
    why = json.dumps([fault.code, fault.values])
    with transaction.atomic():
        row = Upload.objects.select_for_update().filter(pk=upload.pk).first()
        if row is None or not row.is_open:  # dropped in the same moment
            return
        row.state, row.fault, row.finished_at, row.touched_at = Upload.State.FAILED, why[:300], at, at
        row.save(update_fields=["state", "fault", "finished_at", "touched_at"])
        row.parts.all().delete()


# --- reading -----------------------------------------------------------------------------------------------------------


def _rows(upload: Upload, lines: "Lines") -> Iterator[tuple[int, Mapping]]:
    """The rows that have not been read. Raises NotAReport where the first line of a CSV names no columns."""
    if upload.format == Upload.Format.NDJSON:
        return reports.objects(lines)
    if not upload.header:
        upload.header = reports.header_of(next(lines, (1, ""))[1], COLUMNS[upload.kind])
    return reports.cells(lines, upload.header)


class Lines:
    """Numbered lines of a file from where it was left, as text. `offset` is the byte after the last line given out, `number`
    its number."""

    def __init__(self, upload: Upload):
        self.offset, self.number = upload.read_to, upload.line
        self._pieces = uploads.pieces(upload, begin=upload.read_to)
        self._lines: Iterator[bytes] = iter(())
        self._rest = b""

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> tuple[int, str]:
        line, length = self._line()
        self.offset += length
        self.number += 1
        if self.number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        return self.number, line.decode("utf-8", "replace")

    def _line(self) -> tuple[bytes, int]:
        """A line, cut where it is too long to be one, and how long it was."""
        for line in self._lines:
            if line.endswith(b"\n"):
                return line, len(line)
            self._rest = line  # the end of a piece
        length = len(self._rest)
        for piece in self._pieces:
            head, end, tail = piece.partition(b"\n")
            line = (self._rest + head)[:LONGEST_LINE]
            length += len(head) + len(end)
            self._rest = line
            if end:
                self._rest, self._lines = b"", io.BytesIO(tail)  # which knows no other end of a line
                return line, length
        if not self._rest:
            raise StopIteration
        line, self._rest = self._rest, b""
        return line, length
