"""WRITES files of rows while they come in: opened, received in pieces, complete, forgotten.

A piece is kept as soon as it is here, sealed, so that a broken connection costs what was on its way and no more. What the
rows mean is decided later (`intake`); memory holds one piece at a time, whatever the size of the file.
"""

import datetime
import uuid
from collections.abc import Iterator

from django.db import transaction
from django.db.models import Q

from consents.actors import Actor
from consents.models import Person, Upload, UploadPart
from providers import vault
from providers.models import Organization

MOST_ROWS = 1_000_000
MOST_BYTES = 1 << 30
MOST_OPEN = 5  # files of one organization that are not finished
PIECE = 1 << 20  # bytes of a part
UNREAD = (Upload.State.RECEIVING, Upload.State.WAITING)  # what can still be dropped
PATIENCE = datetime.timedelta(days=2)  # with a file of which nothing more comes
KEPT = datetime.timedelta(days=90)  # what became of a file, and which rows were refused


class NotNow(Exception):
    """The file takes no more pieces: it is complete."""


class Begun(Exception):
    """Rows of the file are in, or were looked at: it cannot be forgotten any more."""


class WrongPlace(Exception):
    """The piece does not begin where the last one ended; `received` bytes are here."""

    def __init__(self, received: int):
        super().__init__(str(received))
        self.received = received


class OtherTotal(Exception):
    """The piece says that the file has another length than a piece before it said."""


class TooMuch(Exception):
    """More rows or bytes than a file may have: send several."""


class TooManyOpen(Exception):
    """Several files are under way: one of them must finish, or be dropped, first."""


def start(
    organization: Organization,
    *,
    kind: str,
    format: str,
    member: Person | None = None,
    by: Actor,
    at: datetime.datetime,
) -> Upload:
    """A new file, of which nothing is here yet. Raises TooManyOpen."""
    with transaction.atomic():
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        if Upload.objects.filter(organization=organization, finished_at=None).count() >= MOST_OPEN:
            raise TooManyOpen(organization.code)
        return Upload.objects.create(
            organization=organization, member=member, kind=kind, format=format, opened_at=at, touched_at=at
        )


def receive(
    upload: Upload,
    stream,
    *,
    begin: int,
    most: int | None = None,
    total: int | None = None,
    by: Actor,
    at: datetime.datetime,
) -> Upload:
    """Take what `stream` gives, from byte `begin` of the file on, at most `most` bytes. Each piece is kept by itself. `total`
    is how long the whole is said to be.

    Raises OtherTotal, NotNow, WrongPlace, TooMuch; what came before that stays."""
    end = begin + (most or 0)
    left = MOST_BYTES + 1 if most is None else most
    while left and (piece := _piece(stream, min(PIECE, left))):
        upload = _keep(upload, piece, begin=begin, end=end, total=total, at=at)
        begin += len(piece)
        left -= len(piece)
    return upload


def _piece(stream, size: int) -> bytes:
    """`size` bytes, fewer only at the end: a reader may give less at a time."""
    found = bytearray()
    while len(found) < size and (more := stream.read(size - len(found))):
        found += more
    return bytes(found)


def _keep(
    upload: Upload, piece: bytes, *, begin: int, end: int, total: int | None, at: datetime.datetime
) -> Upload:
    with transaction.atomic():
        row = _receiving(upload)
        if begin != row.received:
            raise WrongPlace(row.received)
        if row.total is None:
            row.total = total
        if row.total is not None and (total not in (None, row.total) or end > row.total):
            raise OtherTotal(str(row.pk))
        row.received += len(piece)
        row.lines += piece.count(b"\n")
        if (
            row.received > MOST_BYTES or row.lines > MOST_ROWS + 1
        ):  # the header, and an end of line after the last row
            raise TooMuch(str(row.pk))
        row.touched_at = at
        row.save(update_fields=["received", "total", "lines", "touched_at"])
        UploadPart.objects.create(
            upload=row, start=begin, size=len(piece), sealed=vault.seal(piece, aad=_place(row.pk, begin))
        )
    return row


def complete(upload: Upload, *, by: Actor, at: datetime.datetime) -> Upload:
    """Nothing more comes: its turn comes next. Raises NotNow where that was said before, OtherTotal where something is missing."""
    with transaction.atomic():
        row = _receiving(upload)
        if row.total not in (None, row.received):
            raise OtherTotal(str(row.pk))
        row.state, row.touched_at = Upload.State.WAITING, at
        row.save(update_fields=["state", "touched_at"])
    return row


def drop(upload: Upload, *, by: Actor, at: datetime.datetime) -> None:
    """A file of which no row is in yet is forgotten with its pieces. Raises Begun where its turn has come, or is over."""
    with transaction.atomic():
        row = Upload.objects.select_for_update().filter(pk=upload.pk).first()
        if row is None or row.state not in UNREAD:
            raise Begun(str(upload.pk))
        row.delete()


def _receiving(upload: Upload) -> Upload:
    row = Upload.objects.select_for_update().filter(pk=upload.pk).first()
    if row is None or row.state != Upload.State.RECEIVING:
        raise NotNow(str(upload.pk))
    return row


def pieces(upload: Upload, *, begin: int) -> Iterator[bytes]:
    """What is here from byte `begin` on, one part in memory at a time."""
    while part := (UploadPart.objects.filter(upload=upload.pk, start__lte=begin).order_by("-start").first()):
        if begin >= part.start + part.size:
            return
        yield vault.unseal(bytes(part.sealed), aad=_place(upload.pk, part.start))[begin - part.start :]
        begin = part.start + part.size


def forget_old(*, at: datetime.datetime, limit: int = 100) -> int:
    """Forget files that were never completed, and after KEPT what became of the others. Returns how many."""
    stale = Q(state=Upload.State.RECEIVING, touched_at__lt=at - PATIENCE)
    old = Upload.objects.filter(stale | Q(finished_at__lt=at - KEPT)).order_by("pk").values("pk")[:limit]
    return Upload.objects.filter(pk__in=list(old.values_list("pk", flat=True))).delete()[0]


def _place(upload: uuid.UUID, start: int) -> bytes:
    return f"upload|{upload}|{start}".encode()
