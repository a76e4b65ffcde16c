"""/log/ and its export: the same bytes, for everybody, for ever, without the database; and the command line."""

import hashlib
import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from consents.ledger import cosigning, exporting, merkle, notes, proofs, tiles
from consents.ledger.sequencer import Sequencer
from consents.models import LedgerEntry
from tests.consents.ledger.test_sequencer import write

NOW = 1_800_000_000


@pytest.fixture
def shown(db, now) -> proofs.Published:
    write(600, now)
    Sequencer().run()
    cosigning.run(now=NOW)
    found = proofs.published()
    assert found is not None
    return found


def body(response) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


def test_everything_of_the_tree_is_served_without_the_database(
    client, shown, django_assert_num_queries, published_log
):
    with django_assert_num_queries(0):
        answer = client.get("/log/checkpoint")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Cache-Control"] == "public, max-age=2"
        assert answer.content.decode() == shown.note
        for address in tiles.all_paths(shown.checkpoint.size):
            answer = client.get(f"/log/{address}")
            assert answer.status_code == 200, address
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert answer.content == (published_log / address).read_bytes()
            assert not {"Last-Modified", "Set-Cookie", "ETag"} & set(answer.headers)
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_the_tree_can_be_rebuilt_from_what_is_served(client, shown):
    tree = tiles.Tree(lambda address: client.get(f"/log/{address}").content, shown.checkpoint.size)
    leaves = [merkle.leaf_hash(entry) for _index, entry in tree.entries()]
    assert merkle.root(leaves) == tree.root() == shown.checkpoint.root


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/1", "tile/00/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/07", "tile/9/000", "tile/0/999",
        "tile/-1/000", "tile/64/000", "tile/0/x000/001", "tile/0/000/", "tile/entries/x", "tile/0/000.p/255/..",
        "tile/../policy.txt", "tile/..%2fpolicy.txt", "tile/%2e%2e/policy.txt", "policy.txt", "tile/", "tile/0/.000.1",
        "tile/0/%00", "tile/0/٠٠٠", "checkpoint/",
    ],
)  # fmt: skip
def test_what_is_no_tile_does_not_exist(client, shown, path):
    assert client.get(f"/log/{path}").status_code == 404


@pytest.mark.parametrize("path", ["checkpoint", "tile/0/000"])
def test_it_is_for_reading(client, shown, path):
    assert client.post(f"/log/{path}").status_code == 405
    assert client.head(f"/log/{path}").status_code == 200


def test_a_partial_tile_stays_at_its_address_when_the_tree_has_grown(client, shown, now, published_log):
    size = shown.checkpoint.size
    addresses = [address for address in tiles.all_paths(size) if ".p/" in address]
    before = {address: client.get(f"/log/{address}").content for address in addresses}
    write(900, now)
    Sequencer().run()
    cosigning.run(now=NOW)
    assert not any(
        (published_log / address).exists() for address in addresses if address.startswith("tile/0/")
    )
    assert {address: client.get(f"/log/{address}").content for address in addresses} == before


def test_before_the_first_checkpoint_there_is_nothing(client, db):
    assert client.get("/log/checkpoint").status_code == 404
    with pytest.raises(CommandError, match="nothing is published"):
        call_command("ledger", "checkpoint")
    with pytest.raises(exporting.NotPossible, match="nothing is published"):
        exporting.export(Path("/nonexistent/nowhere"))


def test_the_export_has_the_same_bytes_and_a_second_one_adds_what_is_new(client, shown, now, tmp_path):
    folder = tmp_path / "mirror"
    size, _written = exporting.export(folder)
    assert size == shown.checkpoint.size
    for address in [tiles.CHECKPOINT, *tiles.all_paths(size)]:
        assert (folder / address).read_bytes() == client.get(f"/log/{address}").content
    assert exporting.export(folder) == (size, 1)
    write(300, now)
    Sequencer().run()
    cosigning.run(now=NOW)
    grown, written = exporting.export(folder)
    assert grown == size + 300 and written < 12
    tree = tiles.Tree(lambda address: (folder / address).read_bytes(), grown)
    assert tree.root() == merkle.root([merkle.leaf_hash(entry) for _index, entry in tree.entries()])
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {tiles.CHECKPOINT, *tiles.all_paths(grown)}


@pytest.mark.parametrize(
    "content", ["something else", "other.example/log\n7\n" + notes.b64(b"x" * 32) + "\n\n— a AAAAAAA=\n"]
)
def test_an_export_does_not_write_over_something_else(shown, tmp_path, content):
    (tmp_path / tiles.CHECKPOINT).write_text(content)
    with pytest.raises(exporting.NotPossible, match="folder"):
        exporting.export(tmp_path)
    assert (tmp_path / tiles.CHECKPOINT).read_text() == content


def test_the_command_line_prints_proves_and_exports(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    call_command("ledger", "checkpoint", stdout=out)
    assert out.getvalue() == shown.note
    entry = LedgerEntry.objects.order_by("?")[0]
    call_command("ledger", "prove", str(entry.event_id), stdout=io.StringIO())
    proof = notes.Proof.parse((tmp_path / f"{entry.event_id}.tlog-proof").read_text())
    proof.verify(bytes(entry.leaf_hash), proofs.policy())
    out = io.StringIO()
    call_command("ledger", "export", str(tmp_path / "mirror"), stdout=out)
    assert f"{shown.checkpoint.size} entries" in out.getvalue()
    for wrong in ("nonsense", "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(CommandError, match="there is no entry"):
            call_command("ledger", "prove", wrong)


def test_an_entry_that_waits_has_no_proof_yet(db, now, shown):
    write(1, now)
    waiting = LedgerEntry.objects.latest("created_at")
    with pytest.raises(CommandError, match="try again in a minute"):
        call_command("ledger", "prove", str(waiting.event_id))


def test_a_policy_that_is_missing_is_told(shown, settings):
    settings.LEDGER_POLICY = settings.LEDGER_DIR / "elsewhere.txt"
    with pytest.raises(CommandError, match="name it in LEDGER_POLICY"):
        call_command("ledger", "checkpoint")


def test_a_broken_tile_gives_no_proof(shown, published_log):
    path = published_log / "tile/0/000"
    path.write_bytes(hashlib.sha256(b"other").digest() + path.read_bytes()[32:])
    proofs._tree.cache_clear()
    with pytest.raises(proofs.Broken):
        for entry in LedgerEntry.objects.all():
            proofs.tlog_proof(entry.event_id)


def test_damaged_tiles_are_repaired_by_hand(shown, published_log):
    path = published_log / "tile/0/000"
    right = path.read_bytes()
    path.write_bytes(right[:100])
    (published_log / "tile/entries/001").unlink()
    call_command("ledger", "repair", stdout=io.StringIO())
    assert path.read_bytes() == right
    tree = tiles.Tree(proofs.directory().read, shown.checkpoint.size)
    assert merkle.root([merkle.leaf_hash(entry) for _n, entry in tree.entries()]) == shown.checkpoint.root
