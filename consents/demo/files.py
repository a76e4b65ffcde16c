"""The demo's uploaded file: an operator reports whom it has known for long, among them somebody who has not said yet who they are."""

import csv
import datetime
import io

from dateutil.relativedelta import relativedelta

from consents import intake, reports, uploads
from consents.actors import Actor
from consents.forms.identity import pretend
from providers.models import Organization, Service

from . import cast

OPERATOR, SERVICE = "FTDURU9001", "durumi-week"
SOURCES = ("BKNEUT9001", "CDBEOD9001")  # the second of the one who will come
STRANGERS = 240  # people who are not here
WRONG = (("subject", "홍길동"), ("end_date", "20351301"), ("scopes", "bank.everything"))


def report(*, at: datetime.datetime) -> None:
    """As if its server had sent the file: received, taken in, three rows refused, the rest waiting for their people."""
    organization = Organization.objects.get(code=OPERATOR)
    service = Service.objects.get(slug=SERVICE)
    waiting = next(role for role in cast.STARS if role.key == "none")
    people = [(waiting.name, waiting.born_on)]
    people += [
        (f"손님 {n}", datetime.date(1990, 1, 1) + datetime.timedelta(days=n)) for n in range(STRANGERS)
    ]
    out = io.StringIO()
    lines = csv.writer(out)
    lines.writerow(reports.COLUMNS)
    for number, (name, born_on) in enumerate(people):
        for source in SOURCES if number == 0 else SOURCES[:1]:
            lines.writerow(_row(pretend(name, born_on).ci, service, source, number, at=at).values())
    for number, (column, value) in enumerate(WRONG):
        name, born_on = people[-1 - number]
        row = _row(pretend(name, born_on).ci, service, SOURCES[0], number, at=at)
        lines.writerow((row | {column: value}).values())
    by = Actor.organization(organization)
    upload = uploads.start(organization, kind="holdings", format="csv", by=by, at=at)
    uploads.receive(upload, io.BytesIO(out.getvalue().encode()), begin=0, by=by, at=at)
    uploads.complete(upload, by=by, at=at)
    intake.run(now=lambda: at)


def _row(ci: str, service: Service, source: str, number: int, *, at: datetime.datetime) -> dict[str, str]:
    joined = (at - relativedelta(months=3 + number % 6)).date()
    scopes = "bank.list bank.deposit" if source.startswith("BK") else "card.list card.card"
    return {
        "subject": ci, "service_client_id": service.client_id, "joined_on": joined.isoformat(), "source_org_code": source,
        "scopes": scopes, "purpose": "한 주의 씀씀이를 정리해 드려요.", "cycle": "1/1w",
        "end_date": (joined + relativedelta(months=12)).isoformat(), "retained_until": reports.UNTIL_ERASED,
        "last_used_on": (at - datetime.timedelta(days=5 + number % 40)).date().isoformat(),
    }  # fmt: skip
