"""The API described: the OpenAPI document, and pages that a person can read."""

import functools
from collections.abc import Mapping

from django.conf import settings
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiJsonRenderer2, OpenApiYamlRenderer
from drf_spectacular.views import SpectacularAPIView

from consents import access, requests
from consents.api import changelog, mydata, problems, tutorial
from consents.api.authentication import Anyone
from consents.oauth import ORGANIZATION_SCOPES, PERSON_SCOPES
from providers.wires.korea_fields import Field
from providers.wires.korea_served import SERVED

AUDIENCES = {
    "person": _("나를 대신하는 앱"),
    "operator": _("마이데이터 회사의 서버"),
    "source": _("내 정보를 가지고 있는 곳의 서버"),
    "korea": _("한국 지원 API를 쓰는 기관"),
    "regulator": _("감독자"),
    "public": _("누구나"),
}


class Schema(SpectacularAPIView):
    """OpenAPI 3.1, JSON unless YAML is asked for."""

    access = "api"
    authentication_classes = []
    permission_classes = [Anyone]
    renderer_classes = [OpenApiJsonRenderer2, OpenApiJsonRenderer, OpenApiYamlRenderer]


@access.public
def docs(request):
    context = {
        "audiences": _audiences(get_language() or "ko"),
        "organization_scopes": ORGANIZATION_SCOPES.items(),
        "person_scopes": PERSON_SCOPES.items(),
        "portal": settings.PORTAL_URL,
        "minutes": requests.minutes(at=timezone.now()),
    }
    return render(request, "api/docs.html", context)


@access.public
@require_safe
def start(request):
    steps = [
        {
            "title": step.title,
            "words": step.words,
            "commands": step.commands.strip().replace("%PORTAL%", settings.PORTAL_URL),
        }
        for step in tutorial.STEPS
    ]
    return render(request, "api/start.html", {"steps": steps})


@access.public
@require_safe
def changes(request):
    return render(request, "api/changes.html", {"changes": changelog.CHANGES})


@access.public
@require_safe
def korea(request):
    calls = [
        {
            "name": name, "ident": f"call-{number}", "method": call.method, "path": call.path,
            "parts": [
                {"title": _("요청"), "ident": f"request-{number}", "rows": _rows(call.request)},
                {"title": _("답"), "ident": f"answer-{number}", "rows": _rows(call.answer)},
            ],
        }
        for number, (name, call) in enumerate(SERVED.items(), start=1)
    ]  # fmt: skip
    shown = {"calls": calls, "codes": mydata.CODES.items(), "portal": settings.PORTAL_URL}
    return render(request, "api/korea.html", shown)


def _rows(fields: Mapping[str, Field], depth: int = 0) -> list[dict]:
    """The table of a message, lists opened below their names."""
    found = []
    for name, field in fields.items():
        kind = (
            f"list ≤ {field.length}"
            if field.type == "rows"
            else f"{field.type}({field.length})" * bool(field.length)
        )
        values = " · ".join(field.values)
        found.append(
            {
                "name": "– " * depth + name,
                "type": kind or field.type,
                "values": values,
                "required": field.required,
            }
        )
        found += _rows(field.rows, depth + 1)
    return found


@access.public
def problem_types(request):
    rows = [
        {"slug": slug, "status": status, "title": title, "remedy": remedy}
        for slug, (status, title, remedy) in problems.TYPES.items()
    ]
    return render(request, "api/problems.html", {"rows": rows})


@functools.cache
def _audiences(language: str) -> list[dict]:
    """The operations of the schema by audience; made once a language and process."""
    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    found: dict[str, list[dict]] = {tag: [] for tag in AUDIENCES}
    for path, operations in paths.items():
        for method, operation in operations.items():
            if method not in ("get", "post", "put", "delete"):
                continue
            scopes = [scope for need in operation.get("security", []) for scope in need.get("oauth2", [])]
            row = {
                "method": method.upper(),
                "path": path.removeprefix(settings.SPECTACULAR_SETTINGS["SCHEMA_PATH_PREFIX"]),
                "summary": operation["summary"],
                "scope": " ".join(scopes),
            }
            for tag in operation["tags"]:
                found[tag].append(row)
    return [{"tag": tag, "title": AUDIENCES[tag], "operations": rows} for tag, rows in found.items() if rows]
