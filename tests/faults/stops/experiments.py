"""F01 to F05. Each is a function of a World and a random generator, answers its figures, and raises Wrong where an accepted
withdrawal was lost, doubled or made up."""

import random
import time
from typing import Any

from config.management.commands import demo
from tests.faults.stops import load
from tests.faults.stops.checker import judge
from tests.faults.stops.nemesis import Nemesis, in_background
from tests.faults.stops.rig import World, check, wait

Figures = dict[str, Any]
SLACK = 15.0  # seconds that a loaded machine may add to a bound


def at_rest(world: World, **more: Any) -> Figures:
    """Everybody is there again and nothing is left to do: what the checker says."""
    Nemesis(world, world.rng).mend()
    rested = world.comes_to_rest()
    return {**judge(world).must_hold().figures(), "rested": rested, **more}


# --- F01 -----------------------------------------------------------------------------------------------------------------------


def workers_are_killed(world: World, rng: random.Random, *, moments: tuple[str, ...] = ()) -> Figures:
    """One of two workers is killed between claim and send, between send and record, after recording; and one is frozen
    before it records, until the other has taken over and been acknowledged, and then wakes up."""
    usual, recovered = _usual(world, rng), {}
    bound = 2 + max(SLACK, 3 * usual)
    for moment in moments or ("claimed", "sent", "recorded", "frozen"):
        world.arm("any", moment)
        crowd = load.Crowd(world, rng, load.acts(world, rng, 24), clients=4)
        victim = _struck(world, moment)
        since = time.monotonic()
        crowd.join()
        world.comes_to_rest()
        recovered[moment] = round(time.monotonic() - since - world.lease, 1)
        check(
            recovered[moment] < bound,
            f"another took over {recovered[moment]} s after the lease of {victim}; without a fault it takes {usual} s",
        )
        if moment == "frozen":
            world.thaw(victim)
            time.sleep(2)  # it writes what it still has to say
        else:
            world.again(victim)
        wait(lambda: all(map(world.ready, world.workers)), 60, world.last_words)
    return at_rest(world, recovered=recovered, usual=usual)


def _usual(world: World, rng: random.Random) -> float:
    """Seconds that as many acts take here and now when nothing breaks."""
    started = time.monotonic()
    load.Crowd(world, rng, load.acts(world, rng, 24), clients=4).join()
    world.comes_to_rest()
    return round(time.monotonic() - started, 1)


def _struck(world: World, moment: str) -> str:
    """The worker that came there first."""
    gone = world.frozen if moment.startswith("frozen") else world.dead
    wait(lambda: any(map(gone, world.workers)), 60, f"a worker to be struck at {moment}")
    return next(filter(gone, world.workers))


def worker_freezes_while_claiming(world: World, rng: random.Random) -> Figures:
    """One worker stands still for good in the middle of a claim (its machine is paused, its network gone): the others go on
    without it, with the rows that it had in its hands too."""
    world.arm("any", "frozen_claiming")
    crowd = load.Crowd(world, rng, load.acts(world, rng, 24), clients=4)
    victim = _struck(world, "frozen_claiming")
    crowd.join()
    rested = world.comes_to_rest(45)
    check(
        world.at_rest(),
        f"{sum(n for _, n in world.waiting())} messages wait {rested} s for {victim}, which stands still",
    )
    world.kill(victim)
    return at_rest(world)


# --- F02 -----------------------------------------------------------------------------------------------------------------------


def web_is_killed(world: World, rng: random.Random, *, rounds: int = 3) -> Figures:
    """Before the commit, and after it but before the answer; and one act commits long after others that began later."""
    for _ in range(rounds):
        victim, other = rng.sample(list(world.webs), 2)
        held = world.arm(other, "held")
        late = load.Crowd(world, rng, load.acts(world, rng, 1), clients=1, webs=[other], doubles=0)
        wait(lambda armed=held: not armed.exists(), 10, "an act to be held before its commit")
        for moment in ("uncommitted", "committed"):
            _kill_web_at(world, rng, victim, moment)
        (world.faults / "release").touch()
        late.join()
        (world.faults / "release").unlink()
    return at_rest(world)


def _kill_web_at(world: World, rng: random.Random, victim: str, moment: str) -> None:
    world.arm(victim, moment)
    crowd = load.Crowd(world, rng, load.acts(world, rng, 12), clients=4)
    wait(lambda: world.dead(victim) or not crowd.running(), 20, f"{victim} to be struck")
    world.again(victim)
    crowd.join()
    wait(lambda: demo.answers(world.webs[victim]), 60, f"{victim} to answer again")


# --- F03 -----------------------------------------------------------------------------------------------------------------------


def broker_is_gone(world: World, rng: random.Random, *, absent: float = 30.0) -> Figures:
    """Emptied, then killed, then absent for half a minute: everybody is answered at once meanwhile, and the sweep finds it all."""
    load.Crowd(
        world, rng, load.acts(world, rng, 4), clients=2
    ).join()  # the first answers of a process are slow
    first = load.Crowd(world, rng, load.acts(world, rng, 30), clients=2, rate=4)
    time.sleep(0.3)
    world.flush_broker()
    first.join()
    world.kill_broker()
    gone = time.monotonic()
    crowd = load.Crowd(world, rng, load.acts(world, rng, 60), clients=2, rate=60 / absent)
    time.sleep(absent)
    crowd.join()
    world.revive_broker()
    absent, usual = round(time.monotonic() - gone, 1), round(first.slowest, 2)
    figures = at_rest(world, absent=absent, slowest=round(crowd.slowest, 2), usual=usual)
    check(crowd.answered >= 60, f"only {crowd.answered} were answered while the broker was gone")
    check(
        crowd.slowest < max(1.0, 3 * usual),
        f"an answer took {crowd.slowest:.1f} s while the broker was gone, before that {usual} s at most",
    )
    return figures


# --- F04 -----------------------------------------------------------------------------------------------------------------------


def database_crashes(world: World, rng: random.Random, *, rounds: int = 2) -> Figures:
    """`pg_ctl stop -m immediate` under load, back after two seconds: whatever was answered is there."""
    for _ in range(rounds):
        crowd = load.Crowd(world, rng, load.acts(world, rng, 60), clients=4, rate=20)
        time.sleep(rng.uniform(1.0, 2.0))
        world.kill_database()
        time.sleep(2)
        world.revive_database()
        crowd.join()
    return at_rest(world)


# --- F05 -----------------------------------------------------------------------------------------------------------------------


def everything_breaks(
    world: World, rng: random.Random, *, seconds: float = 60.0, rate: float = 5.0
) -> Figures:
    """All of the above at random under load."""
    clients = 4
    crowd = load.Crowd(world, rng, load.acts(world, rng, int(seconds * rate)), clients=clients, rate=rate)
    nemesis = Nemesis(world, rng)
    raging = in_background(lambda: nemesis.rage(seconds, crowd.running))
    raging.join(seconds + 90)
    check(not raging.is_alive(), "the nemesis does not come to an end")
    crowd.join()
    figures = at_rest(world, faults=sum(nemesis.done.values()))
    check(figures["faults"] > 3, "hardly anything was broken")
    most = figures["faults"] * clients
    check(
        figures["ambiguous"] <= most, f"{figures['ambiguous']} unanswered acts, at most {most} were under way"
    )
    return figures
