"""Our own monitor and the nightly count: green on a healthy log, and every way to lie is provoked and seen."""

import datetime
import shutil
import threading
import uuid

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.db import connection, connections, transaction
from django.utils import timezone

from consents import jobs, ledger, locks
from consents.actors import Actor
from consents.ledger import Fact, cosigning, merkle, monitor, notes, proofs, recount, tiles
from consents.ledger.sequencer import Sequencer
from consents.models import Leaf, LedgerEntry, Promise, SignedCheckpoint, Verification

SYSTEM = Actor.system("test")


def write(count: int, at) -> list:
    with transaction.atomic():
        return ledger.append(
            [Fact("channel.opened", fields={"dig": f"{n}"}) for n in range(count)], by=SYSTEM, at=at
        )


def publish() -> int:
    Sequencer().run()
    return cosigning.run(now=1_800_000_000).published


@pytest.fixture
def published(db, now) -> int:
    """A log of several hundred entries in three checkpoints; its size."""
    for count in (260, 3, 290):
        write(count, now)
        size = publish()
    return size


def watch(now, **more) -> Verification:
    found = monitor.watch(at=now, **more)
    assert found is not None
    return found


def codes(found) -> list[str]:
    return sorted({finding["code"] for finding in found.findings})


def change(address: str, data: bytes) -> None:
    path = proofs.directory().root / address
    path.write_bytes(data)


def flip(address: str, place: int = 40) -> None:
    data = bytearray(proofs.directory().read(address))
    data[place] ^= 1
    change(address, bytes(data))


def signed(size: int, root: bytes, settings) -> bytes:
    """A checkpoint with the log's real key: what a thief of the key, or we, could write."""
    key = load_pem_private_key((settings.SIGNER_DIR / "key.pem").read_bytes(), None)
    text = notes.Checkpoint(settings.LEDGER_ORIGIN, size, root).text
    return str(
        notes.Note(text, (notes.note_signature(key, name=settings.LEDGER_ORIGIN, text=text),))
    ).encode()


def forged(size: int, settings, *, twist: int = 3) -> None:
    """Another history of the same shape, signed and with all its tiles."""
    entries = [entry for _index, entry in tiles.Tree(proofs.directory().read, size).entries()]
    entries[twist] = entries[twist].replace(b"channel", b"channez")
    edge = tiles.Edge()
    files = edge.grow(merkle.leaf_hash(entry) for entry in entries)
    files |= edge.partials()
    for n, bundle in enumerate(tiles.batches(entries, tiles.WIDTH)):
        files[tiles.path(tiles.ENTRIES, n, len(bundle))] = tiles.bundle(bundle)
    files[tiles.CHECKPOINT] = signed(size, edge.root(), settings)
    proofs.directory().write(files)


def promise(entry, due_at) -> uuid.UUID:
    Promise.objects.update_or_create(
        event_id=entry.event_id, defaults={"leaf_hash": entry.leaf_hash, "due_at": due_at}
    )
    return entry.event_id


def as_owner(statement: str, parameters=()) -> None:
    """What somebody with every right does: triggers off, change, triggers on."""
    tables = ("event", "leaf", "checkpoint")
    with connection.cursor() as cursor:
        cursor.execute("".join(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER;" for table in tables))
        cursor.execute("ALTER TABLE ledger.disclosure DROP CONSTRAINT IF EXISTS disclosure_event_id_fkey")
        cursor.execute(statement, parameters)
        for table in tables:
            cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [f"ledger.{table}"])  # fmt: skip
            for (name,) in cursor.fetchall():
                cursor.execute(f"ALTER TABLE ledger.{table} ENABLE ALWAYS TRIGGER {name}")


# --- the monitor ---------------------------------------------------------------------------------------------------------


def test_a_healthy_log_is_green(published, now):
    first = watch(now)
    assert (first.findings, first.size) == ([], published)
    assert first.root_hash == bytes(SignedCheckpoint.objects.get(tree_size=published).root_hash).hex()
    write(5, now)
    size = publish()
    again = watch(now + datetime.timedelta(minutes=1))
    assert (again.findings, again.size) == ([], size) and again.pk == first.pk, "one row an hour"
    assert watch(now + datetime.timedelta(hours=2)).pk != first.pk
    assert watch(now + datetime.timedelta(hours=2), full=True).holds


def test_before_anything_is_published_nothing_is_wrong(db, now):
    found = watch(now)
    assert (found.findings, found.size) == ([], 0)


def test_only_what_is_new_is_read_again(published, now):
    read: list[str] = []

    def reading(address: str) -> bytes:
        read.append(address)
        return proofs.directory().read(address)

    watch(now, read=reading)
    assert {tiles.path(tiles.ENTRIES, n) for n in range(2)} <= set(read)
    read.clear()
    watch(now + datetime.timedelta(minutes=1), read=reading)
    assert read == ["checkpoint"]
    write(1, now)
    publish()
    read.clear()
    watch(now + datetime.timedelta(minutes=2), read=reading)
    assert [address for address in read if "entries" in address] == [
        tiles.path(tiles.ENTRIES, published // 256, (published + 1) % 256)
    ]


@pytest.mark.parametrize(
    "address", ["tile/entries/000", "tile/entries/001", "tile/0/000", "tile/0/001", "tile/1/000.p/2"]
)
def test_a_flipped_byte_is_seen(published, now, address):  # fmt: skip
    flip(address)
    found = watch(now)
    assert codes(found) == ["tile_damaged"]
    where = address.replace("entries", "0") if "entries" in address else address
    assert where in found.findings[0]["detail"]


@pytest.mark.parametrize("address", ["tile/entries/000", "tile/0/001"])
def test_a_flipped_byte_in_what_was_verified_is_seen_within_a_day(published, now, address):
    assert watch(now).holds
    flip(address)
    assert watch(now + datetime.timedelta(hours=23)).holds, "not read again yet"
    found = watch(now + datetime.timedelta(hours=24))
    assert codes(found) == ["tile_damaged"]
    flip(address)
    assert watch(now + datetime.timedelta(hours=25)).holds


def test_the_daily_hashing_goes_in_steps(published, now, monkeypatch):
    assert watch(now).holds
    monkeypatch.setattr(monitor, "SWEEP", 256)
    flip("tile/entries/001")
    assert watch(now + datetime.timedelta(hours=24)).holds
    assert codes(watch(now + datetime.timedelta(hours=24, minutes=1))) == ["tile_damaged"]


def test_a_button_hashes_everything(published, now):
    assert watch(now).holds
    flip("tile/entries/000")
    assert codes(watch(now, full=True)) == ["tile_damaged"]


@pytest.mark.parametrize("address", ["tile/entries/001", "tile/0/000"])
@pytest.mark.parametrize("left", [0, 1, 33, 600])
def test_a_torn_tile_is_seen(published, now, address, left):
    change(address, proofs.directory().read(address)[:left])
    assert codes(watch(now)) == ["tile_damaged"]


def test_a_tile_that_is_gone_is_seen(published, now):
    shutil.rmtree(proofs.directory().root / "tile" / "0")
    found = watch(now)
    assert codes(found) == ["tile_damaged"] and "is not there" in found.findings[0]["detail"]


def test_a_checkpoint_put_back_stays_red_until_somebody_says_why(db, now):
    write(10, now)
    publish()
    older = proofs.directory().read("checkpoint")
    write(300, now)
    publish()
    newer = proofs.directory().read("checkpoint")
    assert watch(now).holds
    change("checkpoint", older)
    assert codes(watch(now)) == ["rolled_back"]
    change("checkpoint", newer)
    assert codes(watch(now)) == ["rolled_back"], "the right one again does not make it good"
    assert monitor.acknowledge(reason="백업에서 되살림", by=Actor.system("test"), at=now) == 1
    assert watch(now).holds
    change("checkpoint", older)
    watch(now)
    assert monitor.acknowledge(reason="아직 그대로", by=Actor.system("test"), at=now) == 1
    assert codes(watch(now)) == ["rolled_back"], "what is still so comes back"


@pytest.mark.parametrize("forgotten", ["file", "rows"])
def test_one_of_two_memories_is_enough(published, now, settings, forgotten):
    older = signed(9, tiles.Tree(proofs.directory().read, 9).root(), settings)
    assert watch(now).holds
    if forgotten == "file":
        (proofs.directory().root / monitor.MEMORY).unlink()
    else:
        Verification.objects.all().delete()
    change("checkpoint", older)
    assert codes(watch(now)) == ["rolled_back"]


def test_a_memory_that_was_lost_is_made_again_from_the_rows(published, now):
    assert watch(now).holds
    (proofs.directory().root / monitor.MEMORY).unlink()
    write(3, now)
    size = publish()
    again = watch(now)
    assert again.holds and again.size == size


def test_a_memory_that_cannot_be_read_is_told(published, now):
    watch(now)
    change(monitor.MEMORY, b"{")
    assert codes(watch(now)) == ["memory"]


@pytest.mark.parametrize("longer", [0, 40])
def test_a_fork_signed_with_the_real_key_is_seen(published, now, settings, longer):
    good = proofs.directory().read("checkpoint")
    assert watch(now).holds
    if longer:
        write(longer, now)
        good_size = publish()
    forged(published + longer, settings)
    found = watch(now)
    assert codes(found) == ["forked"] and str(published) in found.findings[0]["detail"]
    if not longer:
        change("checkpoint", good)
        assert "forked" in codes(watch(now)), "red for ever"
    else:
        assert good_size == published + longer


def test_a_signed_root_that_the_tiles_do_not_give_is_seen(published, now, settings):
    write(1, now)
    publish()
    change("checkpoint", signed(published + 1, bytes(32), settings))
    assert codes(watch(now)) == ["tile_damaged"]


@pytest.mark.parametrize(
    "spoil",
    [lambda b: b.replace(b"\n\n", b"\n"), lambda b: b[:-9] + b"AAAAAAA=\n", lambda b: b"", lambda b: b"\xff"],
)
def test_a_checkpoint_that_nobody_signed_is_seen(published, now, spoil):  # fmt: skip
    change("checkpoint", spoil(proofs.directory().read("checkpoint")))
    assert codes(watch(now)) == ["checkpoint_invalid"]


def test_a_checkpoint_without_its_quorum_is_seen(published, now, settings):
    key = notes.Key("witness.example/1", notes.COSIGNATURE, bytes(32))
    text = settings.LEDGER_POLICY.read_text()
    settings.LEDGER_POLICY.write_text(f"{text.splitlines()[0]}\nwitness one {key}\nquorum one\n")
    assert codes(watch(now)) == ["checkpoint_invalid"]
    settings.LEDGER_POLICY.unlink()
    assert codes(watch(now)) == ["policy"]


def test_a_checkpoint_that_is_gone_is_seen(published, now):
    watch(now)
    (proofs.directory().root / "checkpoint").unlink()
    assert codes(watch(now)) == ["checkpoint_missing"]


def test_promises_that_are_kept_are_cleared(published, now):
    entries = list(LedgerEntry.objects.all()[:3])
    due = [
        promise(entries[0], now - datetime.timedelta(hours=1)),
        promise(entries[1], now + datetime.timedelta(hours=1)),
    ]
    assert watch(now).holds
    assert not Promise.objects.filter(event_id__in=due).exists()


def test_a_broken_promise_is_seen_and_stays(published, now):
    (late, early, seq) = write(3, now)
    promise(late, now - datetime.timedelta(seconds=1))
    promise(early, now + datetime.timedelta(seconds=1))
    found = watch(now)
    assert codes(found) == ["broken_promise"] and len(found.findings) == 1
    assert str(late.event_id) in found.findings[0]["detail"]
    assert len(watch(now + datetime.timedelta(seconds=2)).findings) == 2
    assert Promise.objects.count() == 2 and seq
    publish()
    assert watch(now + datetime.timedelta(seconds=3)).holds, "late, and now in the log"


def test_the_table_of_places_is_not_believed(published, now):
    """A row of ledger.leaf that claims a place for a leaf which the published tree does not hold there."""
    (absent,) = write(1, now)
    promise(absent, now - datetime.timedelta(minutes=1))
    as_owner(
        "UPDATE ledger.leaf SET event_id = %s, leaf_hash = %s WHERE leaf_index = 5",
        [absent.event_id, absent.leaf_hash],
    )
    assert codes(watch(now)) == ["broken_promise"]


def test_a_promise_is_found_without_the_table_of_places(published, now):
    entry = LedgerEntry.objects.get(event_id=Leaf.objects.get(leaf_index=300).event_id)
    promise(entry, now - datetime.timedelta(minutes=1))
    as_owner("DELETE FROM ledger.leaf WHERE event_id = %s", [entry.event_id])
    assert watch(now).holds and not Promise.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_second_monitor_leaves_at_once(now):
    seen: list = []

    def other():
        try:
            seen.append(monitor.watch(at=now))
        finally:
            connections.close_all()

    with locks.alone(locks.MONITOR) as alone:
        assert alone
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [None]


def test_the_jobs_run(published):
    assert jobs.monitor() == published
    assert jobs.recount() == published
    assert {row.kind for row in Verification.objects.all()} >= {"monitor", "nightly"}


# --- the nightly count -----------------------------------------------------------------------------------------------------


def count() -> recount.Report:
    report = recount.run()
    row = Verification.objects.filter(kind="nightly").first()
    assert row.findings == report.findings and row.size == report.entries
    return report


def test_a_healthy_database_counts_green(published):
    steps: list[int] = []
    report = recount.run(progress=steps.append)
    assert report.findings == [] and report.ok and "all is well" in str(report)
    assert (report.entries, report.checkpoints, sum(steps)) == (published, 3, published)
    assert report.root == bytes(SignedCheckpoint.objects.latest("tree_size").root_hash).hex()


def test_an_empty_log_counts_green(db):
    assert count().ok


def test_what_waits_and_what_is_not_yet_published_is_no_finding(published, now):
    write(40, now)
    Sequencer().run()
    write(2, now)
    assert count().ok


def test_a_changed_entry_is_counted(published):
    """The database itself keeps its generated column right; the tree does not follow."""
    victim = Leaf.objects.get(leaf_index=7)
    as_owner("UPDATE ledger.event SET entry = entry || ' ' WHERE event_id = %s", [victim.event_id])
    as_owner(
        "UPDATE ledger.leaf SET leaf_hash = e.leaf_hash FROM ledger.event e WHERE e.event_id = leaf.event_id"
    )
    report = count()
    assert {"checkpoint_root", "signer_root", "published_root", "tile_differs"} <= set(codes(report))
    as_owner("UPDATE ledger.leaf SET leaf_hash = sha256('x') WHERE leaf_index = 9")
    assert "entry_changed" in codes(count())


def test_swapped_leaves_are_counted(published):
    one, two = Leaf.objects.filter(leaf_index__in=(3, 270)).order_by("leaf_index")
    swap = "UPDATE ledger.leaf SET event_id = CASE leaf_index WHEN 3 THEN %s ELSE %s END, leaf_hash = CASE leaf_index WHEN 3 THEN %s ELSE %s END WHERE leaf_index IN (3, 270)"
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger.leaf DROP CONSTRAINT leaf_event_id_key")
    as_owner(swap, [two.event_id, one.event_id, bytes(two.leaf_hash), bytes(one.leaf_hash)])
    assert "checkpoint_root" in codes(count())


def test_a_deleted_event_is_counted(published):
    victim = Leaf.objects.get(leaf_index=7)
    as_owner("DELETE FROM ledger.event WHERE event_id = %s", [victim.event_id])
    report = count()
    assert {"entry_gone", "tile_differs"} == set(codes(report))
    assert str(victim.event_id) in str(report)


def test_a_deleted_leaf_is_counted(published):
    as_owner("DELETE FROM ledger.leaf WHERE leaf_index = 300")
    assert {"leaf_gap", "lost"} <= set(codes(count()))


def test_a_log_cut_short_is_counted_and_what_is_missing_is_listed_by_its_id(published):
    """A restored database (F11): what the tiles hold and it has not got, named, and not written back."""
    gone = [str(row.event_id) for row in Leaf.objects.filter(leaf_index__gte=published - 2)]
    as_owner("DELETE FROM ledger.leaf WHERE leaf_index >= %s", [published - 2])
    as_owner("DELETE FROM ledger.event WHERE event_id::text = ANY(%s)", [gone])
    report = count()
    assert {"signer_ahead", "missing", "checkpoint_beyond"} == set(codes(report))
    assert all(event_id in str(report) for event_id in gone)
    assert Leaf.objects.count() == published - 2


def test_a_forged_checkpoint_row_is_counted(published):
    as_owner("UPDATE ledger.checkpoint SET root_hash = sha256('x') WHERE tree_size = 260")
    assert {"checkpoint_root", "checkpoint_false"} <= set(codes(count()))


@pytest.mark.parametrize(
    "address", ["tile/entries/001", "tile/0/000", "tile/1/000.p/2", "tile/entries/002.p/41"]
)
def test_damaged_tiles_are_counted(published, address):
    assert published % 256 == 41
    flip(address)
    report = count()
    assert codes(report) == ["tile_differs"] and report.findings[0]["detail"] == address
    (proofs.directory().root / address).unlink()
    assert codes(count()) == ["tile_missing"]


@pytest.mark.parametrize(("table", "name"), sorted(recount.TRIGGERS))
def test_a_dropped_or_silenced_trigger_is_counted(db, table, name):
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE ledger.{table} ENABLE TRIGGER {name}")
    assert codes(count()) == ["trigger_off"]
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER {name} ON ledger.{table}")
    assert codes(count()) == ["trigger_gone"]


def test_every_trigger_of_the_log_is_on_the_list(db):
    with connection.cursor() as cursor:
        cursor.execute(recount._TRIGGERS_SQL)
        assert {(table, name) for table, name, _how in cursor.fetchall()} == recount.TRIGGERS


def test_an_event_that_waits_nowhere_is_lost(published, now):
    (sealed,) = write(1, now)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM ledger.pending WHERE event_id = %s", [sealed.event_id])
    report = count()
    assert report.findings == [{"code": "lost", "detail": str(sealed.event_id)}]


def test_what_waits_too_long_is_counted(published, now):
    write(1, now)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE ledger.pending SET enqueued_at = enqueued_at - interval '301 seconds'")
    assert codes(count()) == ["waiting"]


def test_a_signer_that_is_away_or_speaks_of_another_tree_is_counted(published, settings):
    memory = settings.SIGNER_DIR / "last.json"
    text = memory.read_text()
    root = bytes(SignedCheckpoint.objects.latest("tree_size").root_hash).hex()
    memory.write_text(text.replace(root, "00" * 32))
    assert codes(count()) == ["signer_root"]
    memory.unlink()
    assert codes(count()) == ["signer"]


def test_long_lists_are_cut_and_say_so(published, monkeypatch):
    monkeypatch.setattr(recount, "MOST", 5)
    as_owner("UPDATE ledger.leaf SET leaf_hash = sha256(leaf_hash)")
    report = count()
    changed = [finding for finding in report.findings if finding["code"] == "entry_changed"]
    assert len(changed) == 6 and changed[-1]["detail"] == f"+{published - 5}"


def test_the_clock_is_the_databases(db):
    assert abs(monitor.clock() - timezone.now()) < datetime.timedelta(minutes=1)
