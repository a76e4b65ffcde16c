"""F08 to F11. Each is a function of a World and a random generator, answers its figures, and raises Wrong where the log lies."""

import inspect
import random
import threading
import time
import types
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from consents.ledger import signer as signer_module
from consents.ledger import tiles as tiles_module
from tests.faults.ledger.reader import Key as VKey
from tests.faults.ledger.reader import Reader, check
from tests.faults.ledger.rig import Key, Mock, World, copy_tree, wait

Figures = dict[str, Any]


def lines_of(*functions: Any) -> list[list]:
    """File and number of every line of these functions; those that only refuse are not on an honest path."""
    found = []
    for function in functions:
        code = inspect.unwrap(function).__code__
        text = Path(code.co_filename).read_text().splitlines()
        for part in [code, *(c for c in code.co_consts if isinstance(c, types.CodeType))]:
            numbers = {number for _, _, number in part.co_lines() if number and number != part.co_firstlineno}
            for number in sorted(numbers):
                if not text[number - 1].strip().startswith(("raise", "except", "return False")):
                    found.append([Path(code.co_filename).name, number])
    return [list(place) for place in dict.fromkeys(map(tuple, found))]


# --- F08 -----------------------------------------------------------------------------------------------------------------------


def two_sequencers_killed_at_every_line(
    world: World, rng: random.Random, *, only: str = "", some: int = 0
) -> Figures:
    """Four writers, two sequencers, one signer. Each sequencer is killed at every line of a batch, the signer at every line
    of an answer, while the others go on. `only` a function's lines, or `some` of all, for mutants."""
    world.no_witnesses()
    world.warm.do("write", acts=3, seed=rng.randrange(2**30))
    act = world.signer_runs()
    world.warm.do("sequence", batch=2, record=True)
    world.warm.do("write", acts=9, seed=rng.randrange(2**30))
    path = world.warm.do("sequence", batch=8, record=True)["lines"]
    act.kill()
    sequencer_lines = [
        place for place in path if place[0] in ("sequencer.py", "tiles.py", "proofs.py", "signer.py")
    ]
    signer_lines = lines_of(
        signer_module.Signer.sign, signer_module.Signer._check, signer_module._write, signer_module._answer
    )
    if only:
        from consents.ledger import sequencer as module

        sequencer_lines = lines_of(getattr(module.Sequencer, only)) * 3
    if some:
        sequencer_lines, signer_lines = rng.sample(sequencer_lines, some), rng.sample(signer_lines, some // 2)
    if only:
        signer_lines = []

    stop = world.home / "stop"
    writers = [
        world.warm.begin("write", acts=100_000, seed=rng.randrange(2**30), stop=str(stop), hold=0.12)
        for _ in range(4)
    ]
    commit = world.home / "commit"
    late = world.warm.begin("write", acts=1, seed=rng.randrange(2**30), until=str(commit))
    watched = Watched(world)
    figures: Figures = {"lines": len(sequencer_lines), "signer_lines": len(signer_lines)}
    with ThreadPoolExecutor(3) as pool:
        lanes_done = threading.Event()
        signing = pool.submit(signer_lane, world, signer_lines, rng.randrange(2**30), lanes_done)
        lanes = [pool.submit(sequencer_lane, world, sequencer_lines, rng.randrange(2**30)) for _ in range(2)]
        try:
            while not all(lane.done() for lane in lanes):
                watched.look()
                time.sleep(0.05)
            killed = [lane.result() for lane in lanes]
        finally:
            lanes_done.set()
        figures["killed"], figures["signer_killed"] = killed, signing.result()
    stop.touch()
    for writer in writers:
        writer.wait()
    act = world.signer_runs()
    watched.look()
    goes_on(world)
    commit.touch()  # written before all others, committed after them
    written = [acted for writer in [*writers, late] for acted in writer.wait().result["acts"]]
    goes_on(world)
    act.kill()
    figures["entries"] = world.all_are_ordered()
    leaves = {
        bytes(row[0]).hex(): row[1] for row in world.sql("SELECT leaf_hash, leaf_index FROM ledger.leaf")
    }
    check(len(written) > 1, "nothing was written")
    for acted in written:
        check(all(hash_ in leaves for hash_ in acted), "an act that was committed is not in the log")
        places = [leaves[hash_] for hash_ in acted]
        check(places == sorted(places), "the entries of an act have changed their order")
    figures["checkpoints"] = world.sql("SELECT count(*) FROM ledger.checkpoint")[0][0]

    act = world.signer_runs()
    before = world.memory()
    probed = world.warm.do("probe")
    act.kill()
    check(
        (probed["size"], probed["root"]) == before == world.memory(),
        "the signer has forgotten what it signed",
    )
    check(probed["answers"] == ["stale", "fork"], f"the signer goes back or forks: {probed['answers']}")
    if not only and not some:
        check(
            min(killed) >= 0.9 * len(sequencer_lines), f"killed at {killed} of {len(sequencer_lines)} lines"
        )
        check(
            figures["signer_killed"] >= 0.9 * len(signer_lines),
            f"the signer was killed {figures['signer_killed']} times",
        )
    return figures


def goes_on(world: World) -> None:
    """Order and sign until nothing waits that can be seen."""
    deadline = time.monotonic() + 40
    while (ran := world.warm.do("sequence", batch=64)).get("stopped") or ran["ordered"]:
        check(ran.get("stopped") in (None, "signer"), f"the log does not go on: {ran}")
        check(time.monotonic() < deadline, f"the log does not go on: {ran}")


class Watched:
    """What is seen of the signer's memory and of the checkpoints while everything happens."""

    def __init__(self, world: World) -> None:
        self.world, self.size, self.roots = world, 0, {}

    def look(self) -> None:
        size, root = self.world.memory()
        check(size >= self.size, f"the signer went back from {self.size} to {size}")
        check(self.roots.setdefault(size, root) == root, f"the signer has signed two roots for size {size}")
        self.size = size


def sequencer_lane(world: World, lines: list, seed: int) -> int:
    """One sequencer after the other, each killed at another line; how many were. A line that was not reached, because the
    other sequencer or no signer was there, gets a second chance."""
    rng, missed = random.Random(seed), []
    for target in rng.sample(lines, len(lines)):
        if not killed_at(world, target, rng, within=4.0):
            missed.append(target)
    return len(lines) - sum(not killed_at(world, target, rng, within=8.0) for target in missed)


def killed_at(world: World, target: list, rng: random.Random, *, within: float) -> bool:
    batch = rng.choice((1, 5, 64, 300))
    return world.warm.begin("sequence", target=target, within=within, batch=batch).wait().killed


def signer_lane(world: World, lines: list, seed: int, done: threading.Event) -> int:
    """One signer after the other, each killed at another line while it answers; then one that stays."""
    rng, killed = random.Random(seed), 0
    for target in rng.sample(lines, len(lines)):
        if done.is_set():
            break
        act = world.signer_runs(target)
        with_it = time.monotonic() + 3.0
        while act.running() and time.monotonic() < with_it and not done.is_set():
            time.sleep(0.01)
        killed += not act.running()
        act.kill()
        act.wait()
    act = world.signer_runs()
    done.wait(200)
    act.kill()
    act.wait()
    return killed


# --- F09 -----------------------------------------------------------------------------------------------------------------------


def full_disk_and_torn_tiles(
    world: World, rng: random.Random, *, rounds: int = 12, lines: bool = True
) -> Figures:
    """Files may grow to so many bytes and no further; a write is cut in the middle; bytes vanish from tiles between runs.
    After every step an independent reader reads all that is published."""
    world.no_witnesses()
    reader = Reader(world.ledger, world.key)
    figures: Figures = {"full": 0, "torn": 0, "cut": 0, "killed": 0, "reads": 0}

    def step(**options: Any) -> Any:
        outcome = world.warm.begin("upkeep", **options).wait()
        figures["reads"] += 1
        reader.look()
        return outcome

    def write(acts: int) -> None:
        world.warm.do("write", acts=acts, seed=rng.randrange(2**30))

    write(5)
    step()
    for _round in range(rounds):
        write(rng.choice((1, 2, 40)))
        limit = rng.choice((31, 100, 200, 1000, 5000))
        outcome = step(largest_file=limit)
        figures["full"] += bool(outcome.result and (outcome.result["sequencer"] or outcome.result["witness"]))
        write(1)
        outcome = step(largest_file=rng.choice((31, 100, 150, 200, 1000)), torn=True)
        figures["torn"] += outcome.exit < -1
        write(1)
        step(cosign=False)
        outcome = step(sequence=False, largest_file=rng.choice((31, 100)), torn=True)  # the checkpoint itself
        figures["torn"] += outcome.exit < -1
        figures["cut"] += cut_a_tile(world, reader, rng)
        step(sequence=rng.random() < 0.5)
        for _again in range(2):
            step()
        check(
            reader.size == world.sql("SELECT count(*) FROM ledger.event")[0][0],
            "space is back and nothing goes on",
        )
    if lines:
        places = lines_of(tiles_module.Directory.write, tiles_module._sync)
        for place in places:
            write(1)
            figures["killed"] += step(target=place).killed
        check(
            figures["killed"] >= len(places) * 0.7,
            f"killed at {figures['killed']} of {len(places)} lines of a write",
        )
        figures["lines"] = len(places)
    step()
    step()
    check(reader.look() == world.all_are_ordered(), "not all that is ordered is published")
    figures["entries"] = reader.size
    return figures


def cut_a_tile(world: World, reader: Reader, rng: random.Random) -> int:
    """Take bytes from a tile that is on the disk and not yet under the published checkpoint."""
    (size,) = world.sql("SELECT coalesce(max(tree_size), 0) FROM ledger.checkpoint")[0]
    fresh = sorted(set(tiles_module.all_paths(size)) - set(tiles_module.all_paths(reader.size)))
    if not fresh:
        return 0
    path = world.ledger / rng.choice(fresh)
    data = path.read_bytes()
    how = rng.choice(("short", "flipped", "empty", "gone"))
    if how == "gone":
        path.unlink()
    elif how == "flipped":
        place = rng.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    else:
        path.write_bytes(data[: rng.randrange(len(data)) if how == "short" else 0])
    return 1


# --- F10 -----------------------------------------------------------------------------------------------------------------------

MOODS = (
    "down", "slow", "error", "bad signature", "wrong key", "another witness", "garbage", "ahead",
)  # fmt: skip


def a_witness_fails(
    world: World, rng: random.Random, *, moods: tuple[str, ...] = MOODS, real: bool = True
) -> Figures:
    """Whatever the only witness does, entries are written and signed, and nothing is published that it has not cosigned."""
    figures: Figures = {"moods": []}
    with Mock() as mock:
        world.environment["SANDBOX_URL"] = mock.url
        world.restart_database()
        alone = mock.witness("one")
        world.policy_of([alone], 1)
        reader = Reader(world.ledger, world.key, [VKey(alone.vkey)], 1)
        act = world.signer_runs()
        step(world, rng, reader, published=True)
        for mood in moods:
            mock.moods["one"] = mood
            before = reader.size
            told = step(world, rng, reader)
            check(reader.size == before, f"published without a cosignature while the witness is {mood}")
            check(bool(told["witness"]) == (mood == "ahead"), f"{mood}: {told['witness']}")
            if mood == "ahead":
                check(told["witness"][0]["code"] == "witness_ahead", str(told["witness"]))
            page = world.warm.do("page", later=1000)  # seconds: the alarm comes after fifteen minutes
            check(page["late"] and page["holds"] == (mood != "ahead"), f"{mood}: the page says {page}")
            mock.moods["one"] = "good"
            check(not step(world, rng, reader, published=True)["witness"], f"after {mood}: still alarmed")
            page = world.warm.do("page")
            check(page["state"] == "seen" and not page["late"], f"after {mood}: the page says {page}")
            figures["moods"].append(mood)
        a_second_witness_is_ahead(world, rng, mock, reader, alone)
        act.kill()
    if real:
        figures |= the_real_witness(world, rng)
    return figures


def step(
    world: World, rng: random.Random, reader: Reader, *, published: bool | None = None, later: int = 0
) -> dict:
    """Write, then ring the jobs; all that is written must be signed, whatever the witness does."""
    world.warm.do("write", acts=rng.randint(1, 8), seed=rng.randrange(2**30))
    told = world.warm.do("upkeep", later=later)
    written = world.sql("SELECT count(*) FROM ledger.event")[0][0]
    check(told["signed"] == written, f"{written} entries were written, {told['signed']} signed: {told}")
    check(
        reader.look() == told["published"] or told["witness"],
        "the jobs say another published size than a reader finds",
    )
    if published is not None:
        check((reader.size == written) == published, f"published {reader.size} of {written}: {told}")
    return told


def a_second_witness_is_ahead(
    world: World, rng: random.Random, mock: Mock, reader: Reader, first: Key
) -> None:
    """One cosignature would be enough, and the first witness gives it; but the second has seen more than we have: stop."""
    second = mock.witness("two")
    world.policy_of([first, second], 1)
    reader.witnesses.append(VKey(second.vkey))
    step(world, rng, reader, published=True)
    before = reader.size
    for mood in ("ahead", "down", "slow"):  # its silence does not take back what it has said
        mock.moods["two"] = mood
        told = step(world, rng, reader)
        check(reader.size == before, f"published although a witness is ahead of us ({mood})")
        check(
            [finding["code"] for finding in told["witness"]] == ["witness_ahead"],
            f"{mood}: {told['witness']}",
        )
    mock.moods["two"] = "good"
    check(not step(world, rng, reader, published=True)["witness"], "still alarmed")


def the_real_witness(world: World, rng: random.Random) -> Figures:
    """`manage.py witness serve`, restored from an old copy: it is behind us, says so, and gets the proof from there."""
    with running_witness(world) as witness:
        reader = Reader(world.ledger, world.key, [VKey(witness.key.vkey)], 1)
        act = world.signer_runs()
        step(world, rng, reader, published=True)
        witness.stop()
        old = world.home / "witness.old"
        copy_tree(witness.folder, old)
        step(world, rng, reader, published=False)
        witness.start()
        for _ in range(3):
            step(world, rng, reader, published=True)
        witness.stop()
        witness.restore(old)
        witness.start()
        step(world, rng, reader, published=True)
        act.kill()
    return {"real_witness": reader.size}


class running_witness:
    """The regulator's witness as a process; its folder can be put back to an earlier copy."""

    def __init__(self, world: World) -> None:
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.world, self.folder, self.process = world, world.home / f"witness-{uuid.uuid4().hex[:6]}", None
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "running_witness":
        made = self.world.manage(
            "witness", "init", f"--dir={self.folder}", "--name=regulator.portal.example/witness/1",
            f"--log={self.world.vkey()}", f"--url={self.url}",
        )  # fmt: skip
        output = made.communicate(timeout=60)[0].decode()
        vkey = next((line for line in output.splitlines() if "+" in line and " " not in line), "")
        check(made.returncode == 0 and vkey, f"the witness was not made: {output}")
        self.key = Key("regulator", self.url, vkey)
        self.world.policy_of([self.key], 1)
        self.world.environment["WITNESS_URL"] = self.url
        self.world.restart_database()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        import urllib.request

        self.process = self.world.manage("witness", "serve", f"--dir={self.folder}", f"--port={self.port}")

        def up() -> bool:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=1) as answer:
                    return answer.status == 200
            except OSError:
                return False

        wait(up, 60, "the witness to answer")

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(20)
            self.process = None

    def restore(self, copy: Path) -> None:
        import shutil

        shutil.rmtree(self.folder)
        copy_tree(copy, self.folder)


# --- F11 -----------------------------------------------------------------------------------------------------------------------


def database_from_earlier(world: World, rng: random.Random, *, witnessed: bool = True) -> Figures:
    """The cluster's files are those of an hour ago, while signer, published log and witness know the hour: the log stops,
    says which entries are lost, and signs nothing until somebody decides."""
    for watched in with_witness(world, witnessed):
        act = world.signer_runs()
        world.warm.do("write", acts=20, seed=rng.randrange(2**30))
        ring(world, watched)
        act.kill()
        old, new = world.home / "copy.old", world.home / "copy.new"
        world.copy_database(old)
        act = world.signer_runs()
        known = {row[0] for row in world.sql("SELECT event_id FROM ledger.event")}
        world.warm.do("write", acts=15, seed=rng.randrange(2**30))
        ring(world, watched)
        lost = {row[0] for row in world.sql("SELECT event_id FROM ledger.event")} - known
        before, note = world.memory(), (world.ledger / "checkpoint").read_bytes()
        act.kill()
        world.copy_database(new)

        world.restart_database(swap=old)
        act = world.signer_runs()
        figures: Figures = {"signed": before[0], "restored": len(known), "lost": len(lost)}
        told = world.warm.do("upkeep", later=700)
        stopped(world, told, before, note)
        if watched:
            check(
                [f["code"] for f in told["witness"]] == ["witness_ahead"],
                f"the witness's word: {told['witness']}",
            )
        published = {uuid.UUID(id_) for id_ in Reader(world.ledger, world.key).ids(before[0])}
        here = {row[0] for row in world.sql("SELECT event_id FROM ledger.event")}
        check(published - here == lost, "the entries that are missing are not those of the lost hour")
        counted = world.warm.do("recount")["report"]
        figures["listed"] = sum(f": {id_}" in counted for id_ in map(str, lost))
        check(
            figures["listed"] == len(lost) and "signer_ahead" in counted,
            f"the nightly check: {counted[:800]}",
        )
        # As large as before, and otherwise.
        while world.sql("SELECT count(*) FROM ledger.event")[0][0] <= before[0] + 5:
            world.warm.do("write", acts=10, seed=rng.randrange(2**30))
            stopped(world, world.warm.do("upkeep", later=700), before, note)
        stopped(world, world.warm.do("upkeep", later=700), before, note)
        act.kill()

        world.restart_database(swap=new)  # somebody has decided: the newest copy is found
        act = world.signer_runs()
        world.warm.do("write", acts=3, seed=rng.randrange(2**30))
        told = world.warm.do("upkeep", later=1400)
        check(not told["sequencer"] and not told["witness"], f"the right database is back, and still: {told}")
        figures["after"] = world.all_are_ordered()
        check(Reader(world.ledger, world.key).look() == figures["after"], "not all is published again")
        act.kill()
    return figures


def with_witness(world: World, wanted: bool) -> Iterator[bool]:
    if not wanted:
        world.no_witnesses()
        yield False
        return
    with running_witness(world):
        yield True


def ring(world: World, watched: bool) -> None:
    told = world.warm.do("upkeep")
    check(
        told["signed"] == told["published"] == world.sql("SELECT count(*) FROM ledger.event")[0][0], f"{told}"
    )


def stopped(world: World, told: dict, before: tuple[int, str], note: bytes) -> None:
    codes = [finding["code"] for finding in told["sequencer"]]
    check(codes == ["signer_ahead"], f"an older database does not stop the log: {told}")
    check(world.memory() == before, "something was signed over an older database")
    check(
        (world.ledger / "checkpoint").read_bytes() == note, "something was published over an older database"
    )
