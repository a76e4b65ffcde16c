"""A superuser of the database who also holds the portal's files and the log's key changes one entry, rebuilds everything
that follows from it and starts the portal anew. Three others notice: the nightly check, the witness, an old receipt."""

import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.db import connection
from django.utils import timezone

from consents.ledger import (
    cosigning,
    merkle,
    monitor,
    notes,
    promises,
    proofs,
    recount,
    sequencer,
    signer,
    tiles,
    upkeep,
    witness,
)
from consents.models import EntryIndex, Leaf, LedgerEntry, SignedCheckpoint, Verification
from providers import signing
from tests.consents.ledger.test_sequencer import write

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.ledger_faults


@pytest.fixture(autouse=True)
def restarted(monkeypatch):
    restart(monkeypatch)


def restart(monkeypatch) -> None:
    """Nothing of the processes' memory is left."""
    monkeypatch.setattr(upkeep, "_sequencer", sequencer.Sequencer())
    proofs._tree.cache_clear()
    cosigning._resting.clear()


@pytest.fixture
def log(db, now, published_log) -> int:
    """A published log of 300 entries and a few more; its size."""
    write(300, now)
    upkeep.sequence(at=timezone.now())
    return upkeep.cosign(at=timezone.now())


def rewrite(index: int, settings, monkeypatch) -> None:
    """Change the entry that stands there, and everything else so that it fits again."""
    tables = ("event", "leaf", "checkpoint", "cosignature")
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER")
        victim = Leaf.objects.get(leaf_index=index).event_id
        cursor.execute(
            "UPDATE ledger.event SET event_type = 'channel.closed', entry = "
            "convert_to(replace(convert_from(entry, 'UTF8'), 'channel.opened', 'channel.closed'), 'UTF8') WHERE event_id = %s",
            [victim],
        )
        cursor.execute("DELETE FROM ledger.cosignature")
        cursor.execute("DELETE FROM ledger.checkpoint")
        cursor.execute(
            "UPDATE ledger.leaf SET leaf_hash = e.leaf_hash FROM ledger.event e WHERE e.event_id = leaf.event_id"
        )
        for table, trigger in recount.TRIGGERS:
            if table in tables:
                cursor.execute(f"ALTER TABLE ledger.{table} ENABLE ALWAYS TRIGGER {trigger}")
    forge(settings)
    restart(monkeypatch)


def forge(settings) -> None:
    """Tiles, checkpoint row and published checkpoint over what the database says now, signed with the log's own key."""
    rows = list(Leaf.objects.order_by("leaf_index").values_list("event_id", "leaf_hash"))
    entries = dict(LedgerEntry.objects.values_list("event_id", "entry"))
    bodies = [bytes(entries[event_id]) for event_id, _hash in rows]
    edge = tiles.Edge()
    files = edge.grow(bytes(hash_) for _id, hash_ in rows) | edge.partials()
    for n, part in enumerate(tiles.batches(bodies, tiles.WIDTH)):
        files[tiles.path(tiles.ENTRIES, n, len(part))] = tiles.bundle(part)
    private = load_pem_private_key((settings.SIGNER_DIR / signer.KEY).read_bytes(), None)
    text = notes.Checkpoint(settings.LEDGER_ORIGIN, edge.size, edge.root()).text
    note = str(notes.Note(text, (notes.note_signature(private, name=settings.LEDGER_ORIGIN, text=text),)))
    shutil.rmtree(settings.LEDGER_DIR / "tile")
    proofs.directory().write(files)
    proofs.directory().write({tiles.CHECKPOINT: note.encode()})
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO ledger.checkpoint (tree_size, root_hash, note) VALUES (%s, %s, %s)",
            [edge.size, edge.root(), note],
        )


def codes(findings) -> set[str]:
    return {finding["code"] for finding in findings}


# --- the three -----------------------------------------------------------------------------------------------------------------


def test_the_nightly_check_notices(log, settings, monkeypatch):
    """And so do the sequencer, which signs nothing any more, and our own monitor."""
    now = timezone.now()
    monitor.watch(at=now)
    assert recount.run().ok
    memory = (settings.SIGNER_DIR / signer.MEMORY).read_bytes()
    rewrite(17, settings, monkeypatch)
    proofs.published()  # the forged checkpoint is signed with the right key: by itself it is beyond reproach
    tree = tiles.Tree(proofs.directory().read, log)
    tree.check()
    assert "signer_root" in codes(recount.run().findings)
    assert Verification.objects.filter(kind="nightly").first().findings
    assert "forked" in codes(monitor.watch(at=now).findings)
    write(2, now)
    assert upkeep.sequence(at=now) == 0
    assert codes(Verification.objects.filter(kind="sequencer").first().findings) == {"rewritten"}
    assert (settings.SIGNER_DIR / signer.MEMORY).read_bytes() == memory


@pytest.mark.parametrize("grown", [0, 40])
def test_the_witness_notices(witnessed, log, settings, monkeypatch, now, grown):
    """It has cosigned what was before, and answers 422 to a tree of the same size and to a larger one."""
    shown = proofs.published()
    assert shown.seen, "the witness has cosigned"
    if grown:
        write(grown, now)
        sequencer.Sequencer().run()
    rewrite(17, settings, monkeypatch)
    forged = SignedCheckpoint.objects.latest("tree_size")
    assert forged.tree_size == log + grown and not witnessed.evidence()
    upkeep.cosign(at=timezone.now())
    told = Verification.objects.filter(kind="witness").first().findings
    assert codes(told) == {"witness_refuses"} and "422" in told[0]["detail"]
    with pytest.raises(notes.BadNote):
        proofs.published()  # the quorum is missing: nobody takes it for the log
    origin = notes.Note.parse(forged.note).text.splitlines()[0]
    evidence = witnessed.evidence()
    assert evidence and evidence[0][0] == origin and evidence[0][2] == forged.root_hash.hex()
    assert witnessed.last(hashlib.sha256(origin.encode()).hexdigest()) is not None


def test_an_old_receipt_notices(log, settings, monkeypatch, tmp_path):
    """Whoever kept the receipt or the proof of the changed entry shows with verify.py that the log lies."""
    victim = Leaf.objects.get(leaf_index=17)
    (tmp_path / "receipt").write_text(promises.receipt(EntryIndex.objects.get(event_id=victim.event_id)))
    (tmp_path / "keys").write_text(json.dumps(signing.public_jwks()))
    (tmp_path / "proof").write_text(proofs.tlog_proof(victim.event_id))
    (tmp_path / "policy").write_text(proofs.policy_text())
    old = notes.Proof.parse((tmp_path / "proof").read_text()).checkpoint
    (tmp_path / "checkpoint").write_text(str(old))
    asked = {
        "receipt": ["--receipt", "receipt", "--keys", "keys", "--log", settings.LEDGER_DIR, "policy"],
        "proof": ["proof", "policy"],
        "checkpoint": ["--log", settings.LEDGER_DIR, "policy", "--since", "checkpoint"],
        "log": ["--log", settings.LEDGER_DIR, "policy"],
    }
    for name, arguments in asked.items():
        assert verified(tmp_path, *arguments)[0] == 0, name
    rewrite(17, settings, monkeypatch)
    assert verified(tmp_path, *asked["log"])[0] == 0, "the new log is beyond reproach by itself"
    exit_, said = verified(tmp_path, *asked["receipt"])
    assert exit_ == 1 and "PROOF OF MISBEHAVIOUR" in said
    assert verified(tmp_path, *asked["proof"])[0] == 0, "the old proof stays what it was: evidence"
    exit_, said = verified(tmp_path, *asked["checkpoint"])
    assert exit_ == 1, "two checkpoints of one log contradict each other"
    with pytest.raises(merkle.BadProof):
        leaf = merkle.leaf_hash(
            json.loads(notes.Proof.parse((tmp_path / "proof").read_text()).extra)["entry"].encode()
        )
        shown = proofs.published().checkpoint
        merkle.verify_inclusion(
            leaf=leaf,
            index=17,
            size=shown.size,
            proof=proofs.tree(shown).inclusion_proof(17),
            root=shown.root,
        )


def verified(folder: Path, *arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-I", str(ROOT / "verify.py"), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


# --- a witness -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def witnessed(db, settings, tmp_path) -> Iterator[witness.Witness]:
    """The regulator's witness behind an address of its own; the policy asks for its cosignature. Use it before `log`."""
    key = signer.make(settings.SIGNER_DIR, settings.LEDGER_ORIGIN)
    holder: list[witness.Witness] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = holder[0].add_checkpoint(body, int(time.time()))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    settings.WITNESS_URL = f"http://127.0.0.1:{server.server_address[1]}"
    folder = tmp_path / "witness"
    witness.make(folder, name="regulator.portal.example/w", logs=[str(key)], url=settings.WITNESS_URL)
    holder.append(witness.Witness(folder))
    settings.LEDGER_POLICY = folder / witness.POLICY
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield holder[0]
    server.shutdown()
    server.server_close()
