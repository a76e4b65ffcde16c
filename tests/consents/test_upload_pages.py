"""Files at the desk: sent, watched, and the rows that did not go in."""

import io
import tempfile

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from consents import intake, uploads
from consents.actors import Actor
from consents.forms import sealed
from consents.models import Upload
from consents.views import errors
from consents.views.uploads import desk_uploads
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


def test_an_unfinished_file_can_be_dropped(desk, service):
    """Five of them lock nobody out: each page says that it is not all here, and ends it."""
    own = service.organization
    by, at = Actor.organization(own), timezone.now()
    first, *_others = [
        uploads.start(own, kind="holdings", format="csv", by=by, at=at) for _n in range(uploads.MOST_OPEN)
    ]
    file = SimpleUploadedFile("holdings.csv", b"subject\n")
    told = desk.post("/desk/uploads/", {"kind": "holdings", "file": file}, follow=True).content.decode()
    assert "그만두거나" in told and str(first.pk) in told
    page = desk.get(f"/desk/uploads/{first.pk}/").content.decode()
    assert "아직 다 오지 않았어요" in page and "이 화면을 닫아도" not in page and "이 파일 그만두기" in page
    assert desk.post(f"/desk/uploads/{first.pk}/drop/")["Location"] == "/desk/uploads/"
    assert Upload.objects.count() == uploads.MOST_OPEN - 1
    again = uploads.start(own, kind="holdings", format="csv", by=by, at=at)
    Upload.objects.filter(pk=again.pk).update(state="running")
    assert "이 파일 그만두기" not in desk.get(f"/desk/uploads/{again.pk}/").content.decode()
    told = desk.post(f"/desk/uploads/{again.pk}/drop/", follow=True).content.decode()
    assert "이미 넣기 시작해서" in told and Upload.objects.filter(pk=again.pk).exists()


@pytest.mark.parametrize(("language", "words"), [("ko", "첫 줄에 없는 칸이 있어요: service_client_id"), ("en", "The first row lacks the column service_client_id")])  # fmt: skip
def test_why_a_file_cannot_be_read_is_told_in_the_readers_language(desk, language, words):
    file = SimpleUploadedFile("holdings.csv", b"subject\n")
    page = desk.post("/desk/uploads/", {"kind": "holdings", "file": file})["Location"]
    intake.run(now=timezone.now)
    assert words in desk.get(page, HTTP_ACCEPT_LANGUAGE=language).content.decode()


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


def test_a_large_file_is_nowhere_in_clear_while_it_is_read(desk, service, monkeypatch):
    """T24: what does not fit in memory lies on the disk, sealed; and it goes in whole."""
    source, written = factories.OrganizationFactory(), []

    class Watched:
        def __init__(self):
            self._file = io.BytesIO()
            written.append(self._file)

        def __getattr__(self, name):
            return getattr(self._file, name)

        def close(self):
            """So that what was written can still be looked at."""

    monkeypatch.setattr(tempfile, "TemporaryFile", Watched)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", None)
    data = csv_of([row(ci_of(n), service, source) for n in range(12_000)])
    assert len(data) > settings.FILE_UPLOAD_MAX_MEMORY_SIZE
    sent = desk.post("/desk/uploads/", {"kind": "holdings", "file": SimpleUploadedFile("a.csv", data)})
    upload = Upload.objects.get()
    assert sent["Location"] == f"/desk/uploads/{upload.pk}/" and upload.received == len(data)
    assert b"".join(uploads.pieces(upload, begin=0)) == data
    (file,) = written
    assert (
        len(file.getvalue()) > len(data)
        and ci_of(0).encode() not in file.getvalue()
        and b"bank.list" not in file.getvalue()
    )


def test_a_file_beyond_the_limit_is_refused_in_words_and_never_kept(desk, service, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    monkeypatch.setattr(sealed, "LARGEST", 1 << 20)
    monkeypatch.setattr(desk_uploads, "largest_form", sealed.LARGEST + sealed.FIELDS)
    monkeypatch.setattr(errors, "LARGEST", 1 << 20)
    answer = desk.post(
        "/desk/uploads/", {"kind": "holdings", "file": SimpleUploadedFile("a.csv", b"x" * (3 << 20))}
    )
    assert answer.status_code == 413 and not Upload.objects.exists()
    assert (
        "1 MB까지 받아요" in answer.content.decode()
        and 'href="/api/docs/#reporting"' in answer.content.decode()
    )


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
