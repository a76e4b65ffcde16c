"""WRITES idempotency keys: a request sent twice with the same `Idempotency-Key` is done once and answered twice.

The answer is kept sealed: receipts carry the salts and values of entries, which lie nowhere in clear."""

import base64
import datetime
import functools
import hashlib
import json
import re

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.response import Response

from consents.api.problems import Problem
from consents.models import IdempotencyKey
from providers import vault

LIFE = datetime.timedelta(hours=24)
KEY = re.compile(r"[\x21-\x7e]{1,255}")


def once(handler):
    """A POST method that honours `Idempotency-Key`. The key's row is written first, in the transaction of the act: a
    second request waits for it and then repeats the answer. A failed act leaves no row and may be tried again."""

    @functools.wraps(handler)
    def kept(self, request, *args, **kwargs):
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return handler(self, request, *args, **kwargs)
        if not KEY.fullmatch(key):
            raise Problem(
                "invalid-request",
                errors=[
                    {"parameter": "Idempotency-Key", "detail": _("눈에 보이는 ASCII 1–255자로 적어 주세요.")}
                ],
            )
        with transaction.atomic():
            row, fresh = _claim(_caller(request), key, request, at=timezone.now())
            if not fresh:
                return _again(row, request)
            response = handler(self, request, *args, **kwargs)
            row.status, row.body = response.status_code, _sealed(row, self.render(response.data))
            row.location = response.headers.get("Location", "")
            row.save(update_fields=["status", "body", "location"])
        return response

    kept.once = True  # type: ignore[attr-defined]
    return kept


def _caller(request) -> str:
    if request.organization is not None:
        return f"organization:{request.organization.pk}"
    return f"person:{request.user.pk}"


def _claim(actor: str, key: str, request, *, at) -> tuple[IdempotencyKey, bool]:
    IdempotencyKey.objects.filter(actor=actor, key=key, created_at__lte=at - LIFE).delete()
    return IdempotencyKey.objects.get_or_create(
        actor=actor,
        key=key,
        defaults={
            "method": request.method,
            "path": request.path[:500],
            "digest": _digest(request),
            "created_at": at,
        },
    )


def _digest(request) -> str:
    content = json.dumps(request.data, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def _again(row: IdempotencyKey, request) -> Response:
    if (row.method, row.path, row.digest) != (request.method, request.path[:500], _digest(request)):
        raise Problem("idempotency-key-reused")
    headers = {"Idempotent-Replayed": "true"} | ({"Location": row.location} if row.location else {})
    return Response(_opened(row), row.status, headers=headers)


def _place(row: IdempotencyKey) -> bytes:
    return f"answer|{row.actor}|{row.key}".encode()


def _sealed(row: IdempotencyKey, answer: bytes) -> dict:
    key = vault.derived_key("idempotent answers")
    return {"sealed": base64.b64encode(vault.seal(answer, aad=_place(row), key=key)).decode("ascii")}


def _opened(row: IdempotencyKey):
    """The answer as it was; one that was kept in clear by an older version is a day old at most."""
    if row.body is None or set(row.body) != {"sealed"}:
        return row.body
    key = vault.derived_key("idempotent answers")
    return json.loads(vault.unseal(base64.b64decode(row.body["sealed"]), aad=_place(row), key=key))


def forget_old(*, at: datetime.datetime, limit: int = 5000) -> int:
    """Remove keys older than a day, at most `limit` a run. Returns how many."""
    old = IdempotencyKey.objects.filter(created_at__lte=at - LIFE).order_by("created_at").values("pk")[:limit]
    return IdempotencyKey.objects.filter(pk__in=old).delete()[0]
