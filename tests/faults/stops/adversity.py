"""F06, F07 and F13 to F15: the other side misbehaves, days pass, clocks are wrong, keys change, answers get lost on their way.
In the manner of `experiments`."""

import json
import random
import subprocess
import threading
import time
from typing import Any

from config import embedded
from config.supervision import python
from tests.faults.stops import load
from tests.faults.stops.checker import judge
from tests.faults.stops.experiments import Figures, at_rest
from tests.faults.stops.rig import World, check

# Standard Webhooks' table with the extra early tries of a stop, in seconds after each failed try.
TABLE = (5, 15, 60, 120, 300, 900, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER, STEP = 0.2, 2.0  # a part of each wait; seconds of our own clock's turning
BREAKER = 900.0  # seconds that an open breaker may hold a stop back
# What is told of a stop that never arrives, each once; its deletion is due only after seven days.
STEPS = ("not_sent", "duty_contact", "not_received", "not_stopped", "dead")


# --- F06 -----------------------------------------------------------------------------------------------------------------------

BAD = {"SOURCE0002": "flaky", "SOURCE0003": "hangs", "SOURCE0004": "drips"}


def operators_misbehave(
    world: World,
    rng: random.Random,
    *,
    rounds: int = 2,
    acts: int = 40,
    rate: float = 4.0,
    healthy: bool = True,
) -> Figures:
    """One loses a tenth before and a tenth after the effect and answers 5xx or 429 to a fifth, one hangs, one drips a byte a
    second. What the healthy ones wait is measured beside a time in which all are well, in turns."""
    spans: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for _ in range(rounds):
        for well in (True, False):
            world.moods(**dict.fromkeys(BAD, "good") if well else BAD)
            begun = time.time()
            load.Crowd(world, rng, load.acts(world, rng, acts), clients=3, rate=rate).join()
            spans[well].append((begun, time.time()))
            if well:
                world.comes_to_rest()
            else:
                time.sleep(4)  # what was accepted last is on its way
    world.moods(**dict.fromkeys(BAD, "good"))
    figures = at_rest(world)
    delays = judge(world).delays
    found = {
        well: sorted(
            delay for party, rows in delays.items() if party not in BAD for at, delay in rows
            if any(begin <= at <= end for begin, end in spans[well])
        )
        for well in spans
    }  # fmt: skip
    before, beside = (percentile(found[well], 0.99) for well in (True, False))
    figures |= {"healthy_p99_alone": before, "healthy_p99_beside": beside, "breakers": breakers(world)}
    if healthy:
        # One beat of the clock is what a row may have to wait anyhow.
        check(
            beside < before * 1.2 + 1.0,
            f"the healthy ones waited {beside} s beside those that misbehave, {before} s without them",
        )
    return figures


def percentile(ordered: list[float], part: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 2) if ordered else 0.0


def breakers(world: World) -> dict[str, int]:
    """How often the workers opened and closed one, by their own logs."""
    lines = [
        line for name in world.workers for log in (world.home / "log").glob(f"{name}*") for line in log.read_text().splitlines()
        if '"event": "breaker"' in line or "event='breaker'" in line
    ]  # fmt: skip
    return {state: sum(f'"{state}"' in line for line in lines) for state in ("open", "closed")}


# --- F07 -----------------------------------------------------------------------------------------------------------------------


def three_days_down(world: World, rng: random.Random) -> Figures:
    """One operator does not answer for three days, by a clock that is turned. Each message is tried by the table, then given
    to people; afterwards the operator fetches what it missed."""
    victim = "OPERATOR02"
    world.moods(**{victim: "down"})
    subscriptions = [k for k, told in world.plan["subscriptions"].items() if victim in told["parties"]]
    chosen = [
        load.Act("end", k, world.plan["people"][world.plan["subscriptions"][k]["person"]], k)
        for k in rng.sample(sorted(subscriptions), 5)
    ]
    load.Crowd(world, rng, chosen, clients=2, doubles=0).join()
    told = json.loads(
        world.manage("-m", "tests.faults.stops.clockwork", "three_days", "2000").splitlines()[-1]
    )
    mine = [jti for (jti,) in world.sql(
        "SELECT jti::text FROM consents_delivery d JOIN providers_organization o ON o.id = d.organization_id "
        "WHERE o.code = %s AND d.id > %s", [victim, world.first[0]],
    )]  # fmt: skip
    check(len(mine) == len(chosen), "not every end is owed to the operator that is down")
    worst = 0.0
    for jti in mine:
        tries = told["tries"][jti]
        check(len(tries) >= len(TABLE) + 1, f"{len(tries)} tries, the table has {len(TABLE) + 1}")
        for n, wanted in enumerate(TABLE):
            took = tries[n + 1] - tries[n]
            worst = max(worst, took - wanted)
            check(
                wanted * (1 - JITTER) - STEP <= took <= wanted * (1 + JITTER) + STEP + BREAKER,
                f"try {n + 2} came {took:.0f} s after the one before, the table says {wanted}",
            )
        check(
            told["states"][jti] == "dead",
            f"after the table it is {told['states'][jti]}, and nobody is called",
        )
    total = [told["tries"][jti][len(TABLE)] / 3600 for jti in mine]
    return {
        "messages": len(mine), "tries": len(TABLE) + 1, "hours": [round(min(total), 1), round(max(total), 1)],
        "held_by_breaker": round(worst), "caught_up": catch_up(world, victim, set(mine)),
    }  # fmt: skip


def catch_up(world: World, victim: str, missed: set[str]) -> Any:
    """How many the operator fetched by poll; None where there is no such door."""
    world.moods(**{victim: "good"})
    if not polling(world):
        return None
    world.ask(polls=[victim])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not missed <= acted(world, victim):
        time.sleep(0.3)
    world.ask(polls=[])
    check(
        missed <= acted(world, victim),
        f"{len(missed - acted(world, victim))} messages cannot be fetched afterwards",
    )
    return len(missed)


def polling(world: World) -> bool:
    """Whether the portal has a door to fetch messages at."""
    return bool((world.ask(door=True) or {}).get("door"))


def acted(world: World, party: str) -> set[str]:
    events = map(json.loads, world.journal.read_text().splitlines())
    return {event["k"] for event in events if event["p"] == party and event["f"] == "effect"}


# --- F13 -----------------------------------------------------------------------------------------------------------------------


def clocks_differ(world: World, rng: random.Random) -> Figures:
    """The clocks of two processes are wrong (the world says which and by how much): nothing ends too early, nothing is refused
    or waits, and the log raises no alarm."""
    load.Crowd(world, rng, load.acts(world, rng, 60), clients=4, rate=12).join()
    figures = at_rest(world, clocks=world.clocks)
    expired = world.sql(
        "SELECT count(*) FROM consents_entryindex WHERE typ LIKE '%%expired' AND seq > %s", [world.first[1]]
    )[0][0]
    check(not expired, f"{expired} consents expired before their day")
    alarms = world.sql(
        "SELECT findings FROM consents_verification WHERE kind = 'monitor' AND findings <> '[]'"
    )
    check(not alarms, f"the log's monitor raised {alarms[:1]}")
    return figures


# --- F14 -----------------------------------------------------------------------------------------------------------------------


def keys_rotate(world: World, rng: random.Random, *, seconds: float = 60.0, every: float = 2.0) -> Figures:
    """Every secret and the signing key change every two seconds in full flight; the operators learn their secrets a moment
    later, know the old ones as long as a request may be under way, and fetch unknown keys again. Meanwhile a web process, and with it the keys' address, is gone for a while."""
    program = subprocess.Popen(
        python("-m", "tests.faults.stops.clockwork", "rotate", str(seconds), str(every)), cwd=embedded.CHECKOUT,
        env={**world.environment, "CHILD": "program"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    rounds = 0

    def tell() -> None:
        nonlocal rounds
        assert program.stdout is not None
        for line in program.stdout:
            time.sleep(rng.uniform(every / 2, every))
            world.ask(secrets=json.loads(line))
            rounds += 1

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    crowd = load.Crowd(world, rng, load.acts(world, rng, int(seconds * 3)), clients=3, rate=3)
    time.sleep(seconds / 3)
    gone = rng.choice(list(world.webs))
    world.kill(gone)
    time.sleep(3)
    world.again(gone)
    crowd.join()
    check(program.wait(60) == 0, "the rotation failed")
    teller.join(10)
    assert program.stdout is not None
    program.stdout.close()
    figures = at_rest(world, rotations=rounds)
    kids = world.sql(
        "SELECT count(DISTINCT split_part(set_compact, '.', 1)) FROM consents_delivery WHERE id > %s",
        [world.first[0]],
    )[0][0]
    check(kids > 5, f"messages were signed with {kids} keys only")
    check(figures["refused"] == 0, f"messages were refused: {figures['refusals']}")
    return {**figures, "keys": kids}


# --- F15 -----------------------------------------------------------------------------------------------------------------------


def answers_are_lost(world: World, rng: random.Random, *, seconds: float = 20.0) -> Figures:
    """The way back from every operator is cut after the effect, then healed; where there is a door, half of them fetch the
    same messages while they are pushed."""
    if polling(world):
        world.ask(polls=sorted(world.plan["parties"])[1::2])
    crowd = load.Crowd(world, rng, load.acts(world, rng, 60), clients=3, rate=60 / seconds)
    time.sleep(seconds / 4)
    for wire in world.proxies.values():
        wire.deaf.set()
    time.sleep(seconds / 2)
    for wire in world.proxies.values():
        wire.deaf.clear()
    crowd.join()
    swallowed = sum(wire.swallowed for wire in world.proxies.values())
    figures = at_rest(world, polled=polling(world))
    check(figures["posts"] > figures["parties"] or polling(world), "no answer was lost")
    return {**figures, "answers_lost": swallowed}
