"""Order, growth, signature and publication: dense leaves, tiles that give the signed root, crashes that repeat a step."""

import json
import shutil
import threading
import uuid

import pytest
from django.db import DatabaseError, connection, connections, transaction

from consents import ledger
from consents.actors import Actor
from consents.ledger import Fact, cosigning, merkle, notes, proofs, signer, tiles
from consents.ledger.sequencer import Sequencer, Stopped
from consents.models import Leaf, LedgerEntry, Promise, SignedCheckpoint

SYSTEM = Actor.system("test")


def write(count: int, at) -> list[bytes]:
    """So many small entries in the log; their leaf hashes in order."""
    with transaction.atomic():
        sealed = ledger.append(
            [Fact("channel.opened", fields={"dig": f"{n}"}) for n in range(count)], by=SYSTEM, at=at
        )
    return [entry.leaf_hash for entry in sealed]


def published() -> proofs.Published:
    cosigning.run(now=1_800_000_000)
    shown = proofs.published()
    assert shown is not None
    return shown


@pytest.mark.parametrize("batch", [256, 16_384])
def test_what_waits_becomes_dense_leaves_whose_tiles_give_the_signed_root(db, now, batch):
    sequencer, written = Sequencer(), []
    before = Leaf.objects.count()
    for count in (1, 255, 1, 300, 7):
        written += write(count, now)
        sequencer.run(batch=batch)
    hashes = [bytes(h) for h in Leaf.objects.order_by("leaf_index").values_list("leaf_hash", flat=True)]
    assert hashes[before:] == written  # entries of one act stay in their order
    checkpoint = SignedCheckpoint.objects.latest("tree_size")
    assert (checkpoint.tree_size, bytes(checkpoint.root_hash)) == (len(hashes), merkle.root(hashes))
    tree = tiles.Tree(proofs.directory().read, len(hashes))
    assert tree.root() == merkle.root(hashes)
    assert [merkle.leaf_hash(entry) for _index, entry in tree.entries()] == hashes
    shown = published()
    assert shown.checkpoint.size == len(hashes) and shown.checkpoint.root == merkle.root(hashes)


def test_a_fresh_sequencer_goes_on_where_the_last_one_stopped(db, now):
    write(300, now)
    Sequencer().run()
    write(300, now)
    Sequencer().run()
    checkpoint = SignedCheckpoint.objects.latest("tree_size")
    hashes = [bytes(h) for h in Leaf.objects.order_by("leaf_index").values_list("leaf_hash", flat=True)]
    assert bytes(checkpoint.root_hash) == merkle.root(hashes)


def test_tiles_that_were_lost_are_made_again(db, now, published_log):
    write(700, now)
    Sequencer().run()
    size = published().checkpoint.size
    shutil.rmtree(published_log / "tile")
    write(1, now)
    Sequencer().run()
    tree = tiles.Tree(proofs.directory().read, size + 1)
    assert tree.root() == bytes(SignedCheckpoint.objects.latest("tree_size").root_hash)


def test_every_entry_has_its_proof(db, now, published_log):
    write(520, now)
    with pytest.raises(proofs.NotYet):
        proofs.tlog_proof(LedgerEntry.objects.latest("created_at").event_id)
    Sequencer().run()
    published()
    policy = proofs.policy()
    for entry in LedgerEntry.objects.order_by("?")[:40]:
        proof = notes.Proof.parse(proofs.tlog_proof(entry.event_id))
        proof.verify(bytes(entry.leaf_hash), policy)
        extra = json.loads(proof.extra)
        assert extra["entry"].encode() == bytes(entry.entry) and len(extra["disclosures"]) == 3
    with pytest.raises(proofs.Unknown):
        proofs.tlog_proof(uuid.uuid4())


def test_an_older_database_stops_the_log(db, now):
    """The signer has signed more than the database knows: a backup was restored (F11)."""
    write(3, now)
    with transaction.atomic():
        Sequencer().run()
        transaction.set_rollback(True)  # the leaves are gone, the signer remembers
    write(1, now)
    with pytest.raises(Stopped) as stopped:
        Sequencer().run()
    assert stopped.value.code == "signer_ahead"


def test_a_changed_entry_stops_the_log(db, now):
    """Somebody with every right on the database drops the triggers, changes an entry and rebuilds all that follows."""
    write(5, now)
    Sequencer().run()
    size = Leaf.objects.count()
    root = bytes(SignedCheckpoint.objects.get(tree_size=size).root_hash)
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE ledger.event DISABLE TRIGGER USER; ALTER TABLE ledger.leaf DISABLE TRIGGER USER"
        )
        cursor.execute("ALTER TABLE ledger.checkpoint DISABLE TRIGGER USER")
        victim = Leaf.objects.order_by("-leaf_index")[2]
        cursor.execute("UPDATE ledger.event SET entry = entry || ' ' WHERE event_id = %s", [victim.event_id])
        cursor.execute(
            "UPDATE ledger.leaf SET leaf_hash = e.leaf_hash FROM ledger.event e WHERE e.event_id = leaf.event_id"
        )
        cursor.execute("DELETE FROM ledger.checkpoint")
    with pytest.raises(Stopped) as stopped:
        Sequencer().run()
    assert stopped.value.code == "rewritten"
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER z_enqueue")
    write(1, now)
    with pytest.raises(Stopped) as stopped:
        Sequencer().run()
    assert stopped.value.code == "rewritten"
    tree = tiles.Tree(proofs.directory().read, size)
    tree.check()
    assert tree.root() == root, "what was published is not written over"


def test_what_is_restored_twice_is_ordered_once(db, now):
    write(4, now)
    Sequencer().run()
    size = Leaf.objects.count()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO ledger.pending (event_id, leaf_hash) SELECT event_id, leaf_hash FROM ledger.leaf"
        )
        cursor.execute("SELECT count(*) FROM ledger.pending")
        assert cursor.fetchone()[0] == size
        cursor.execute(
            "INSERT INTO ledger.pending (event_id, leaf_hash) SELECT event_id, leaf_hash FROM ledger.pending"
        )
    write(2, now)
    Sequencer().run()
    assert Leaf.objects.count() == size + 2


def test_a_waiting_entry_that_was_changed_stops_the_log(db, now):
    write(2, now)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger.event DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE ledger.event SET entry = entry || ' ' WHERE event_id = (SELECT event_id FROM ledger.pending LIMIT 1)"
        )
    with pytest.raises(Stopped) as stopped:
        Sequencer().run()
    assert stopped.value.code == "rewritten"


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("INSERT INTO ledger.leaf (leaf_index, event_id, leaf_hash) SELECT 1000000, event_id, leaf_hash FROM ledger.event LIMIT 1", "23L02"),
        ("INSERT INTO ledger.leaf (leaf_index, event_id, leaf_hash) SELECT (SELECT coalesce(max(leaf_index) + 1, 0) FROM ledger.leaf), event_id, sha256('x') FROM ledger.event LIMIT 1", "23L03"),
        ("INSERT INTO ledger.checkpoint (tree_size, root_hash, note) VALUES (1000000, sha256('x'), 'x')", "23L05"),
        ("UPDATE ledger.leaf SET leaf_hash = sha256('x')", "23L01"),
        ("DELETE FROM ledger.leaf", "23L01"),
        ("TRUNCATE ledger.cosignature", "23L01"),
        ("DELETE FROM ledger.checkpoint", "23L01"),
    ],
)  # fmt: skip
def test_the_database_refuses(db, now, statement, code):
    write(1, now)
    with pytest.raises(DatabaseError) as refused, connection.cursor() as cursor:
        cursor.execute(statement)
    assert refused.value.__cause__.sqlstate == code


def test_a_checkpoint_never_rolls_back(db, now):
    write(2, now)
    Sequencer().run()
    size = SignedCheckpoint.objects.latest("tree_size").tree_size
    with pytest.raises(DatabaseError) as refused, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO ledger.checkpoint (tree_size, root_hash, note) VALUES (%s, sha256('x'), 'x')",
            [size - 1],
        )
    assert refused.value.__cause__.sqlstate == "23L04"


@pytest.mark.django_db(transaction=True)
def test_a_writer_that_commits_late_is_not_passed_over(now):
    """The watermark bug of section 1.5: first in, last committed."""
    started, commit = threading.Event(), threading.Event()

    def slow():
        try:
            with transaction.atomic():
                write(1, now)
                started.set()
                assert commit.wait(20)
        finally:
            connections.close_all()

    before = Leaf.objects.count()
    thread = threading.Thread(target=slow)
    thread.start()
    assert started.wait(20)
    write(1, now)
    sequencer = Sequencer()
    waiting = LedgerEntry.objects.count() - before
    sequencer.run()
    assert Leaf.objects.count() == before + waiting
    commit.set()
    thread.join()
    sequencer.run()
    assert Leaf.objects.count() == before + waiting + 1


@pytest.mark.django_db(transaction=True)
def test_the_second_sequencer_leaves_at_once(now):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    seen = []

    def other():
        try:
            seen.append(Sequencer().run().busy)
        finally:
            connections.close_all()

    from consents import locks

    with locks.alone(locks.SEQUENCER) as alone:
        assert alone
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [True]


# --- the signer ------------------------------------------------------------------------------------------------------------


def leaves(count: int, twist: bytes = b"") -> list[bytes]:
    return [merkle.leaf_hash(twist + str(n).encode()) for n in range(count)]


def proof(hashes: list[bytes], old: int) -> list[bytes]:
    files: dict[str, bytes] = {}
    edge = tiles.Edge()
    files |= edge.grow(hashes) | edge.partials()
    return tiles.Tree(files.__getitem__, len(hashes)).consistency_proof(old)


@pytest.fixture
def own(settings):
    signer.make(settings.SIGNER_DIR, settings.LEDGER_ORIGIN)
    with signer.Signer(settings.SIGNER_DIR, settings.LEDGER_ORIGIN) as made:
        yield made


def test_the_signer_signs_what_continues_and_the_same_again_in_the_same_bytes(own):
    first = own.sign(size=5, root=merkle.root(leaves(5)), old=0, proof=[])
    assert own.sign(size=5, root=merkle.root(leaves(5)), old=0, proof=[]) == first
    second = own.sign(size=7, root=merkle.root(leaves(7)), old=5, proof=proof(leaves(7), 5))
    assert notes.verified(notes.Note.parse(second), own.state().key)
    assert own.state().size == 7 and own.state().note == second


@pytest.mark.parametrize(
    ("size", "twist", "old", "code"),
    [
        (4, b"", 5, "stale"),
        (5, b"x", 5, "fork"),
        (7, b"x", 5, "fork"),
        (7, b"", 0, "stale"),
        (7, b"", 4, "stale"),
    ],
)
def test_the_signer_refuses_to_go_back_or_to_fork(own, size, twist, old, code):
    own.sign(size=5, root=merkle.root(leaves(5)), old=0, proof=[])
    hashes = leaves(size, twist)
    with pytest.raises(signer.Refused) as refused:
        own.sign(size=size, root=merkle.root(hashes), old=old, proof=proof(hashes, min(old, size)))
    assert refused.value.code == code
    assert own.state().size == 5


def test_a_signer_without_its_memory_does_not_start(settings, own):
    own.__exit__()
    (settings.SIGNER_DIR / "last.json").unlink()
    with pytest.raises(signer.Unavailable, match="memory"), signer.connect():
        pass


def test_the_memory_survives_a_restart(settings, own):
    note = own.sign(size=5, root=merkle.root(leaves(5)), old=0, proof=[])
    own.__exit__()
    with signer.Signer(settings.SIGNER_DIR, settings.LEDGER_ORIGIN) as again:
        assert again.state().note == note


def test_one_signer_at_a_time(settings, own):
    with pytest.raises(signer.Unavailable, match="holds"):
        signer.Signer(settings.SIGNER_DIR, settings.LEDGER_ORIGIN)


def test_a_named_signer_that_is_away_is_not_replaced(settings, tmp_path):
    settings.SIGNER_SOCKET = str(tmp_path / "nobody.sock")
    with pytest.raises(signer.Unavailable, match="start it"), signer.connect():
        pass


def test_the_key_is_for_its_owner_alone(settings, own):
    assert (settings.SIGNER_DIR / "key.pem").stat().st_mode & 0o777 == 0o600


def test_over_the_socket_it_answers_the_same_and_never_falls(settings, tmp_path_factory):
    import socket
    import tempfile

    folder = tempfile.mkdtemp(prefix="sg-")
    settings.SIGNER_SOCKET = f"{folder}/s"
    signer.make(settings.SIGNER_DIR, settings.LEDGER_ORIGIN)
    thread = threading.Thread(
        target=signer.serve,
        args=(settings.SIGNER_DIR, settings.LEDGER_ORIGIN, signer.socket_path()),
        daemon=True,
    )
    thread.start()
    for _ in range(100):
        if signer.socket_path().exists():
            break
        threading.Event().wait(0.05)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(settings.SIGNER_SOCKET)
        stranger.sendall(b'{"op": "sign", "size": "x"}\nnonsense\n[]\n')
        answers = stranger.makefile().readline()
        assert json.loads(answers)["refused"] == "form"
    with signer.connect() as remote:
        note = remote.sign(size=5, root=merkle.root(leaves(5)), old=0, proof=[])
        assert remote.state().note == note
        with pytest.raises(signer.Refused) as refused:
            remote.sign(size=4, root=merkle.root(leaves(4)), old=5, proof=[])
        assert refused.value.code == "stale"


def test_promises_are_kept_apart_from_the_tree(db, now):
    """The table is there for whoever promises; the sequencer does not touch it."""
    write(1, now)
    assert Promise.objects.count() == 0
