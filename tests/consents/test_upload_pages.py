"""Files at the desk: sent, watched, and the rows that did not go in."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from consents import intake, uploads
from consents.actors import Actor
from consents.models import Upload
from tests import factories
from tests.consents.test_uploads import ci_of, csv_of, row

pytestmark = pytest.mark.django_db


@pytest.fixture
def service():
    return factories.offered()


@pytest.fixture
def desk(client, service):
    admin = factories.MemberFactory(organization=service.organization).person
    client.force_login(admin, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def test_a_file_is_sent_watched_and_its_refused_rows_are_told(desk, service):
    source = factories.OrganizationFactory()
    rows = [row(ci_of(n), service, source) for n in range(3)] + [
        row("me", service, source) for _ in range(25)
    ]
    file = SimpleUploadedFile("holdings.csv", csv_of(rows))
    sent = desk.post("/desk/uploads/", {"kind": "holdings", "file": file})
    upload = Upload.objects.get()
    assert sent["Location"] == f"/desk/uploads/{upload.pk}/"
    assert "every 2s" in desk.get(sent["Location"]).content.decode()
    intake.run(now=timezone.now)
    page = desk.get(sent["Location"]).content.decode()
    assert "every 2s" not in desk.get(f"/desk/uploads/{upload.pk}/progress/").content.decode()
    assert "not-a-subject" not in page and "연계정보" in page and "beyond=24" in page
    further = desk.get(f"/desk/uploads/{upload.pk}/?beyond=24").content.decode()
    assert ">29<" in further and ">24<" not in further
    lines = (
        b"".join(desk.get(f"/desk/uploads/{upload.pk}/refused.csv").streaming_content).decode().splitlines()
    )
    assert len(lines) == 26 and lines[1].startswith('"5","subject"')
    assert "연계정보" in lines[1]
    assert str(upload.pk) in desk.get("/desk/uploads/").content.decode()


@pytest.mark.parametrize("wrong", [{"kind": "gold"}, {"name": "a.xlsx"}, {"file": None}, {"more": "1"}])
def test_what_is_no_file_of_rows_is_told(desk, wrong):
    name = wrong.pop("name", "a.csv")
    data = {"kind": "holdings", "file": SimpleUploadedFile(name, b"x")} | wrong
    answer = desk.post("/desk/uploads/", {key: value for key, value in data.items() if value is not None})
    assert answer.status_code == 400 and not Upload.objects.exists()


def test_a_source_reports_transfers_only(client):
    admin = factories.MemberFactory(organization=factories.OrganizationFactory()).person
    client.force_login(admin, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert (
        "holdings"
        not in client.get("/desk/uploads/").content.decode().split("<form")[-1].split("</select>")[0]
    )
    answer = client.post("/desk/uploads/", {"kind": "holdings", "file": SimpleUploadedFile("a.csv", b"x")})
    assert answer.status_code == 400


def test_too_many_rows_leave_nothing(desk, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_ROWS", 2)
    desk.post("/desk/uploads/", {"kind": "holdings", "file": SimpleUploadedFile("a.csv", b"a\n" * 9)})
    assert not Upload.objects.exists()


def test_somebody_elses_file_is_not_there(desk, service):
    other = factories.offered().organization
    upload = uploads.start(other, kind="holdings", format="csv", by=Actor.system("test"), at=timezone.now())
    for path in ("", "progress/", "refused.csv"):
        assert desk.get(f"/desk/uploads/{upload.pk}/{path}").status_code == 404


@pytest.mark.parametrize("nonsense", ["x", "-1", "٣", "9" * 40])
def test_a_page_that_is_none(desk, service, nonsense):
    upload = uploads.start(
        service.organization, kind="holdings", format="csv", by=Actor.system("test"), at=timezone.now()
    )
    assert desk.get(f"/desk/uploads/{upload.pk}/", {"beyond": nonsense}).status_code == 400
