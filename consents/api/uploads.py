"""JSON doors for files of up to a million rows: opened, sent in pieces that may be sent on later, and followed.

POST /uploads                 → an id, and where the file goes
PUT  /uploads/{id}/content    the file or a piece of it; `Content-Range` says which; with its last byte it is complete
GET  /uploads/{id}            how far it is, and how many rows became what; DELETE drops it while no row is in
GET  /uploads/{id}/refused    which rows did not go in, and why; `refused.csv` is the same as a file
"""

import functools
import io
import re

from django.http import StreamingHttpResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from consents import access, uploads
from consents.actors import Actor
from consents.api import problems, shapes
from consents.api.authentication import Organization, needs
from consents.api.doors import Door, results
from consents.api.idempotency import once
from consents.api.operator import own_rows
from consents.api.paging import PageQuery, page
from consents.api.problems import Problem
from consents.models import Upload
from consents.queries import uploads as queries

SCOPES: dict[str, str] = {Upload.Kind.HOLDINGS: "holdings:write", Upload.Kind.TRANSFERS: "transfers:write"}
MEDIA_TYPES = {Upload.Format.CSV: "text/csv", Upload.Format.NDJSON: "application/x-ndjson"}
_RANGE = re.compile(r"bytes ([0-9]{1,12})-([0-9]{1,12})/([0-9]{1,12}|\*)", re.ASCII)


class Opening(shapes.Strict):
    kind = serializers.ChoiceField(
        Upload.Kind.choices, help_text="what a row is: as in /holdings, or as in /transfers"
    )
    format = serializers.ChoiceField(Upload.Format.choices)


class UploadDocument(serializers.Serializer):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(Upload.Kind.choices)
    format = serializers.ChoiceField(Upload.Format.choices)
    state = serializers.ChoiceField(
        Upload.State.choices,
        help_text="receiving, waiting for its turn, running, done, or failed (the file cannot be read: see `fault`)",
    )
    received = serializers.IntegerField(help_text="bytes that are here: send on from there")
    taken_in = serializers.IntegerField(source="read_to", help_text="bytes whose rows are in")
    percent = serializers.IntegerField()
    rows = serializers.IntegerField(help_text="rows that were looked at: the sum of what follows")
    created = serializers.IntegerField()
    updated = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    mismatched = serializers.IntegerField()
    waiting = serializers.IntegerField(help_text="of people who are not here yet")
    refused = serializers.IntegerField()
    fault = serializers.SerializerMethodField(
        help_text="why the file cannot be read, in your language; empty where it can"
    )
    opened_at = shapes.Instant()
    finished_at = shapes.Instant(allow_null=True)

    def get_fault(self, upload) -> str:
        return queries.fault(upload)


class FaultDocument(serializers.Serializer):
    pointer = serializers.CharField(help_text="into the row")
    code = serializers.CharField()
    detail = serializers.CharField()


class RefusalDocument(serializers.Serializer):
    number = serializers.IntegerField(help_text="of the line, as an editor shows it")
    pointer = serializers.SerializerMethodField(help_text="into the row")
    code = serializers.CharField()
    detail = serializers.SerializerMethodField()
    errors = serializers.SerializerMethodField(  # type: ignore[assignment]
        help_text="all that is wrong with the row; the first stands above"
    )

    def get_pointer(self, row) -> str:
        return _pointer(row.column)

    def get_detail(self, row) -> str:
        return queries.reason(row.code, row.values)

    @extend_schema_field(FaultDocument(many=True))
    def get_errors(self, row) -> list[dict]:
        return [
            {"pointer": _pointer(column), "code": code, "detail": queries.reason(code, values)}
            for column, code, values in queries.faults(row)
        ]


def _pointer(column: str) -> str:
    return f"#/{column}" if column else "#"


class Reporter(Organization):
    """An organization's server whose token carries `holdings:write` or `transfers:write`; which of them, its file decides."""

    def has_permission(self, request, view) -> bool:
        if request.auth is None:
            return False
        if not set(SCOPES.values()) & set(
            request.auth.get_scopes() if hasattr(request.auth, "get_scopes") else ()
        ):
            needs(view.scope, request=request)
        return request.organization is not None


class UploadDoor(Door):
    permission_classes = [Reporter]
    scope = "holdings:write"

    @property
    def actor(self) -> Actor:
        return Actor.organization(self.request.organization)  # type: ignore[attr-defined]

    def own(self, pk) -> Upload:
        """A file of this organization, for whoever may send rows of that kind."""
        upload = access.own_upload(self.request.organization, pk)  # type: ignore[attr-defined]
        needs(SCOPES[upload.kind], request=self.request)
        return upload


class Uploads(UploadDoor):
    @extend_schema(
        operation_id="open_upload", summary=_("많은 줄을 파일로 보내기 시작하기"), tags=["operator", "source"],
        request=Opening, responses={201: UploadDocument},
    )  # fmt: skip
    @once
    def post(self, request):
        """Send the file to `Location` + `/content`. Up to 1,000,000 rows and 1 GiB; five files at a time: more is 409 `too-many-uploads` until one
        of them is finished or dropped (`DELETE /uploads/{id}`)."""
        asked = self.read(Opening)
        needs(SCOPES[asked["kind"]], request=request)
        if asked["kind"] == Upload.Kind.HOLDINGS and not request.organization.is_operator:
            raise Problem("forbidden")
        upload = uploads.start(request.organization, **asked, by=self.actor, at=timezone.now())
        return Response(
            UploadDocument(upload).data, 201, headers={"Location": f"/api/v1/uploads/{upload.pk}"}
        )

    @extend_schema(
        operation_id="uploads", summary=_("보낸 파일"), tags=["operator", "source"], parameters=[PageQuery],
        responses=results(UploadDocument, "UploadPage"),
    )  # fmt: skip
    @own_rows
    def get(self, request):
        """Newest first; those of the kinds that the token may send."""
        query = self.query(PageQuery)
        kinds = [kind for kind, scope in SCOPES.items() if scope in request.auth.get_scopes()]
        rows = Upload.objects.of(request.organization).filter(kind__in=kinds)
        found, following = page(
            rows, order="-id", name=f"uploads of {request.organization.code}", query=query
        )
        return Response({"results": UploadDocument(found, many=True).data, "next": following})


class OneUpload(UploadDoor):
    http_method_names = ["get", "head", "delete"]

    @extend_schema(
        operation_id="upload", summary=_("보낸 파일 하나가 어디까지 들어갔는지"), tags=["operator", "source"],
        responses=UploadDocument,
    )  # fmt: skip
    def get(self, request, pk):
        """Ask again while it is `waiting` or `running`. A file of which nothing came for two days is forgotten, what became of the
        others after 90 days."""
        return Response(UploadDocument(self.own(pk)).data)

    @extend_schema(
        operation_id="drop_upload", summary=_("끝나지 않은 파일 그만두기"), tags=["operator", "source"],
        responses={204: OpenApiResponse(description="forgotten, with what was received"), 409: problems.described("already-begun")},
    )  # fmt: skip
    def delete(self, request, pk):
        """While it is `receiving` or `waiting`: it is forgotten, with every piece that came, and counts no more among the five.
        Once its rows go in it runs to its end: 409 `already-begun`."""
        uploads.drop(self.own(pk), by=self.actor, at=timezone.now())
        return Response(status=204)


class BytesParser(BaseParser):
    """The body as it comes, unread."""

    media_type = "application/octet-stream"

    def parse(self, stream, media_type=None, parser_context=None):
        return stream


class CsvBytes(BytesParser):
    media_type = MEDIA_TYPES[Upload.Format.CSV]


class LineBytes(BytesParser):
    media_type = MEDIA_TYPES[Upload.Format.NDJSON]


def _honest(door):
    """A piece that contradicts an earlier one is told so."""

    @functools.wraps(door)
    def put(*args, **kwargs):
        try:
            return door(*args, **kwargs)
        except uploads.OtherTotal as error:
            raise _not(_("전체 길이가 앞 조각에 적힌 것과 달라요.")) from error

    return put


class Content(UploadDoor):
    http_method_names = ["put"]
    parser_classes = [BytesParser, CsvBytes, LineBytes]

    @extend_schema(
        operation_id="send_upload", summary=_("파일이나 그 조각 보내기"), tags=["operator", "source"],
        request={"application/octet-stream": OpenApiTypes.BINARY, "text/csv": OpenApiTypes.STR, "application/x-ndjson": OpenApiTypes.STR},
        parameters=[OpenApiParameter("Content-Range", str, OpenApiParameter.HEADER, description="`bytes 0-1048575/5242880`")],
        responses={200: UploadDocument, 202: UploadDocument, 409: problems.described("wrong-place"), 413: problems.described("too-large"), 415: problems.described("unsupported-media-type")},
    )  # fmt: skip
    @_honest
    def put(self, request, pk):
        """The whole file, or with `Content-Range` (RFC 9110 §14.4) a piece: the next one begins at `received`. The total may be `*`
        until the last piece; once told it stays. A body longer or shorter than the range is 400, and nothing of it is kept. 200: more is to come; 202: complete, its turn comes next. What was here when a connection broke
        stays. A piece that begins elsewhere is 409 `wrong-place`, with the bytes that are here in its `detail`."""
        upload, at = self.own(pk), timezone.now()
        begin, end, total = _range(request)
        most = None if end is None else end + 1 - begin
        _check_length(request, most)
        stream = request.data if hasattr(request.data, "read") else io.BytesIO()  # no body at all
        upload = uploads.receive(upload, stream, begin=begin, most=most, total=total, by=self.actor, at=at)
        if end is not None and upload.received != end + 1:
            raise _not(
                _("본문이 적힌 것보다 짧아요.")
            )  # the connection broke: nobody hears this, and what came stays
        done = end is None or upload.total == upload.received
        if done:
            upload = uploads.complete(upload, by=self.actor, at=timezone.now())
        return Response(UploadDocument(upload).data, 202 if done else 200)


def _check_length(request, wanted: int | None) -> None:
    """A body of another length than its range is refused before anything of it is kept. Raises Problem."""
    told = request.META.get("CONTENT_LENGTH") or "0"
    announced = int(told) if told.isascii() and told.isdigit() else 0
    if wanted is not None and announced != wanted:
        raise _not(_("본문이 적힌 것보다 짧아요.") if announced < wanted else _("본문이 적힌 것보다 길어요."))


def _not(words) -> Problem:
    return Problem("invalid-request", errors=[{"parameter": "Content-Range", "detail": str(words)}])


def _range(request) -> tuple[int, int | None, int | None]:
    """First and last byte of a piece and how long the file is; for a whole file 0 and None. Raises Problem."""
    told = request.headers.get("Content-Range")
    if told is None:
        return 0, None, None
    found = _RANGE.fullmatch(told)
    if found:
        begin, end = int(found[1]), int(found[2])
        total = None if found[3] == "*" else int(found[3])
        if begin <= end and (total is None or end < total):
            return begin, end, total
    raise _not(_("bytes 처음-끝/전체로 적어 주세요."))


class Refused(UploadDoor):
    @extend_schema(
        operation_id="refused_rows", summary=_("들어가지 못한 줄"), tags=["operator", "source"], parameters=[PageQuery],
        responses=results(RefusalDocument, "RefusalPage"),
    )  # fmt: skip
    def get(self, request, pk):
        """By number of the line, each with a code that stays the same and words in your language."""
        upload, query = self.own(pk), self.query(PageQuery)
        found, following = page(
            upload.refusals.all(), order="number", name=f"refused of {upload.pk}", query=query
        )
        return Response({"results": RefusalDocument(found, many=True).data, "next": following})


class CsvRenderer(JSONRenderer):
    """Lets a caller ask for CSV; what goes wrong is told as everywhere."""

    media_type = MEDIA_TYPES[Upload.Format.CSV]
    format = "csv"


class RefusedFile(UploadDoor):
    renderer_classes = [CsvRenderer, JSONRenderer]

    @extend_schema(
        operation_id="refused_file", summary=_("들어가지 못한 줄을 파일로"), tags=["operator", "source"],
        responses={(200, "text/csv"): OpenApiTypes.STR},
    )  # fmt: skip
    def get(self, request, pk):
        """CSV: number, column, code, reason; a line for each fault of a row."""
        return refused_file(self.own(pk))


def refused_file(upload: Upload) -> StreamingHttpResponse:
    response = StreamingHttpResponse(queries.refused_lines(upload), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{upload.pk}.refused.csv"'
    return response
