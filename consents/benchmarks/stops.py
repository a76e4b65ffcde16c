"""WRITES scratch deliveries: how fast they are claimed and finished, and how fast they are sent and recorded, each beside a
bare loop over the same rows and bytes.

The limit of `claim` is the same lease and the same finish as plain SQL, without organizations, order, breakers or a log. That
of `propagation` is an aiohttp loop that posts the same messages to the same server, one a request, and keeps nothing; the
portal sends them together, as many as an organization takes in one request, and each answer names what was received.
"""

import asyncio
import contextlib
import copy
import datetime
import gc
import multiprocessing
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator

import aiohttp
from django.conf import settings
from django.db import connection, connections
from django.utils import timezone

from consents import lifecycle, propagation
from consents.actors import Actor
from consents.ledger import disclosures
from consents.models import Delivery, Person, Subscription
from consents.sending import Attempt
from providers import datafiles, registry
from providers.ids import uuid7
from providers.models import Organization, Service, Terms
from providers.wires import RETRY, Outcome

from . import Result, median, percentile, scratch

CLAIM_RATIO, SEND_RATIO, IDLE_WITHIN = 0.5, 0.5, 1.0  # of the limit; seconds from act to arrival when idle
ORGANIZATIONS = 250  # four under way at each: a thousand rows a claim
TAKERS, TOGETHER = (
    20,
    100,
)  # organizations that are sent to, and how many messages one request may carry there
SENDERS = 2  # processes, as the portal's worker has
BATCH = 1_000
PEOPLE = 20_000
IDLE_ACTS = 40
BY = Actor.system("bench")


def claim(*, count: int, rounds: int, leaves: int, say) -> Result:
    """P4: rows claimed and finished per second. `count` rows a round."""
    count = min(count, 20_000)
    with scratch.folders(), scratch.database():
        template = prepare(say)
        settle()
        pairs = []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: {count:,} rows")
            _only(template, count)
            pairs.append((_claimed(count), _claimed_bare(count)))
        _only(template, BATCH)
        logged = _claimed(BATCH, verdict="sent")
    ours, limit = (median([pair[i] for pair in pairs]) for i in (0, 1))
    ratio = median([one / other for one, other in pairs])
    return Result(
        "claim", round(ours), round(limit), round(ratio, 3), "rows/s", f"≥ {CLAIM_RATIO} of plain SQL",
        ratio >= CLAIM_RATIO, {"rows": count, "rounds": [[round(x) for x in pair] for pair in pairs],
                               "with_a_log_entry_each_per_s": round(logged)},
    )  # fmt: skip


def propagate(*, count: int, rounds: int, leaves: int, say) -> Result:
    """P5: messages signed, sent, answered and recorded with their log entry per second; and from act to arrival when idle."""
    count = min(count, 10_000)
    with scratch.folders(), scratch.database(), receiving() as address:
        template = prepare(say, address=address, organizations=TAKERS, together=TOGETHER)
        pairs = []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: {count:,} messages")
            _only(template, count, organizations=TAKERS)
            bodies = list(Delivery.objects.filter(state="queued").values_list("jti", "body"))
            bare = asyncio.run(_posted(address, bodies))
            pairs.append((_sent(count), bare))
        say("one act at a time")
        waits = _idle(address)
    ours, limit = (median([pair[i] for pair in pairs]) for i in (0, 1))
    ratio = median([one / other for one, other in pairs])
    p95 = percentile(waits, 0.95)
    return Result(
        "propagation", round(ours), round(limit), round(ratio, 3), "messages/s",
        f"≥ {SEND_RATIO} of a bare aiohttp loop; act to arrival p95 < {IDLE_WITHIN:.0f} s when idle",
        ratio >= SEND_RATIO and p95 < IDLE_WITHIN,
        {"messages": count, "rounds": [[round(x) for x in pair] for pair in pairs],
         "act_to_arrival_s": {"p50": round(median(waits), 3), "p95": round(p95, 3)}},
    )  # fmt: skip


# --- what is sent ----------------------------------------------------------------------------------------------------------


def prepare(
    say, *, address: str = "https://bench.example", organizations: int = ORGANIZATIONS, together: int = 1
) -> int:
    """Organizations with a channel each, which take so many messages `together`; and one delivery to copy, its primary key."""
    say("making organizations and a join")
    now = timezone.now()
    datafiles.load_scopes()
    datafiles.load_fictional(at=now)
    for number in range(organizations):
        organization = Organization.objects.create(
            code=f"BENCH{number:05d}", name_ko=f"재는 곳 {number}", name_en=f"Measured {number}", sector="bank",
            is_source=True, is_fictional=True,
        )  # fmt: skip
        registry.open_channel(
            organization=organization, protocol="native", address=f"{address}/{organization.code}",
            details={"together": str(together)}, at=now,
        )  # fmt: skip
    subscription = _join(now)
    Delivery.objects.filter(subscription=subscription).update(state="sent", sent_at=now, next_at=None)
    _copy(subscription)
    return subscription.deliveries.get(role="operator").pk


def _copy(subscription: Subscription) -> None:
    """As many people as messages are under way at most, each with this subscription; numbered in a table of their own."""
    people = [
        Person(email=f"{uuid.uuid4()}@bench.invalid", born_on=datetime.date(1990, 1, 1))
        for _ in range(PEOPLE)
    ]
    Person.objects.bulk_create(people)
    copies = []
    for person in people:
        one = copy.copy(subscription)
        one.pk, one.person, one._state = uuid7(), person, copy.copy(subscription._state)
        copies.append(one)
    Subscription.objects.bulk_create(copies)
    disclosures.person_keys([person.pk for person in people])  # as everybody has who once joined
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE copied (n int PRIMARY KEY, id uuid, person_id uuid)")
        cursor.executemany(
            "INSERT INTO copied VALUES (%s, %s, %s)",
            [(n, one.pk, one.person_id) for n, one in enumerate(copies)],
        )


def _join(now: datetime.datetime):
    person = Person.objects.create(email=f"{uuid.uuid4()}@bench.invalid", born_on=datetime.date(1990, 1, 1))
    service = next(
        service for service in Service.objects.filter(state="live").select_related("organization")
        if service.organization.status_on(now.date()) == "licensed" and service.terms.filter(state="published").exists()
    )  # fmt: skip
    terms = Terms.objects.get(service=service, state="published")
    choices = [lifecycle.Choice(item) for item in terms.items.order_by("position") if item.required]
    return lifecycle.join(
        person=person,
        service=service,
        terms=terms,
        choices=choices,
        language="ko",
        by=Actor.person(person),
        at=now,
    )


_FILL_SQL = """
INSERT INTO consents_delivery (jti, txn, person_id, subscription_id, organization_id, role, event, goal, state, version, body,
  set_compact, overtaken, attempts, next_at, http_status, last_error, created_at, refusal, handle, checks)
SELECT i.jti, gen_random_uuid(), s.person_id, s.id, o.id, 'source', 'consent-withdrawn', 'stopped',
  'queued', t.version, replace(t.body, t.jti::text, i.jti::text), t.set_compact, false, 0, now() - %s::interval, NULL, '', now(), '', '', 0
FROM consents_delivery t, generate_series(%s, %s) g(n)
JOIN copied s ON s.n = g.n %% %s
JOIN LATERAL (SELECT gen_random_uuid() AS jti, g.n OFFSET 0) i ON true
JOIN LATERAL (SELECT id FROM providers_organization WHERE code LIKE 'BENCH%%' ORDER BY code OFFSET g.n %% %s LIMIT 1) o ON true
WHERE t.id = %s
"""


def fill(template: int, count: int, *, organizations: int = ORGANIZATIONS, age: str = "1 minute") -> None:
    """So many more waiting rows, due since `age`, about one subscription after the other."""
    first = Delivery.objects.count()
    with connection.cursor() as cursor:
        cursor.execute(_FILL_SQL, [age, first, first + count - 1, PEOPLE, organizations, template])


def _only(template: int, count: int, *, organizations: int = ORGANIZATIONS) -> None:
    """So many waiting rows; those before them are out of the way."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE consents_delivery SET state = 'sent', sent_at = now(), next_at = NULL WHERE state IN ('queued', 'retrying')"
        )
        fill(template, count, organizations=organizations)
        cursor.execute("ANALYZE consents_delivery")


# --- claim beside its limit --------------------------------------------------------------------------------------------------


def _claimed(count: int, *, verdict: str = RETRY) -> float:
    done, start = 0, time.perf_counter()
    while batch := propagation.claim(at=timezone.now(), limit=BATCH):
        propagation.record_all([Attempt(row, Outcome(verdict)) for row in batch], at=timezone.now())
        done += len(batch)
    if done < count:
        raise RuntimeError(f"{done} of {count} rows were claimed")
    return done / (time.perf_counter() - start)


_BARE_CLAIM = """
WITH d AS (SELECT id FROM bare WHERE state = 'queued' AND next_at <= now() ORDER BY next_at LIMIT %s FOR UPDATE SKIP LOCKED)
UPDATE bare SET lease_token = gen_random_uuid(), lease_until = now() + interval '45 s', attempts = attempts + 1
FROM d WHERE bare.id = d.id RETURNING bare.id, bare.jti, bare.body, bare.lease_token
"""
_BARE_FINISH = """
UPDATE bare SET state = 'retrying', next_at = now() + interval '5 s', lease_until = NULL, lease_token = NULL
FROM unnest(%s::bigint[], %s::uuid[]) AS t (id, token) WHERE bare.id = t.id AND bare.lease_token = t.token
"""


def _claimed_bare(count: int) -> float:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS bare")
        cursor.execute(
            "CREATE TABLE bare (LIKE consents_delivery INCLUDING DEFAULTS INCLUDING STORAGE, lease_token uuid, lease_until timestamptz)"
        )
        cursor.execute("INSERT INTO bare SELECT * FROM consents_delivery WHERE state = 'retrying'")
        cursor.execute("UPDATE bare SET state = 'queued', next_at = now() - interval '1 minute'")
        cursor.execute("CREATE INDEX ON bare (next_at) WHERE state = 'queued'")
        cursor.execute("CREATE UNIQUE INDEX ON bare (id)")
        cursor.execute("VACUUM ANALYZE bare")
        done, start = 0, time.perf_counter()
        while True:
            cursor.execute(_BARE_CLAIM, [BATCH])
            rows = cursor.fetchall()
            if not rows:
                break
            cursor.execute(_BARE_FINISH, [[row[0] for row in rows], [row[3] for row in rows]])
            done += len(rows)
        seconds = time.perf_counter() - start
    if done < count:
        raise RuntimeError(f"the limit claimed {done} of {count} rows")
    return done / seconds


# --- sending beside its limit --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def receiving() -> Iterator[str]:
    """The receiver's address, which may be called while this lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "consents.benchmarks.receiver"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=settings.BASE_DIR,
    )
    before = settings.SANDBOX_URL
    try:
        assert process.stdout is not None
        settings.SANDBOX_URL = f"http://127.0.0.1:{int(process.stdout.readline())}"
        yield settings.SANDBOX_URL
    finally:
        settings.SANDBOX_URL = before
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def _sent(count: int) -> float:
    before = Delivery.objects.filter(state="received").count()
    connections.close_all()  # a copied process must not talk on its parent's line
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(SENDERS + 1)
    processes = [context.Process(target=_send, args=[gate], daemon=True) for _ in range(SENDERS)]
    for process in processes:
        process.start()
    gate.wait()
    start = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start
    done = Delivery.objects.filter(state="received").count() - before
    if done < count:
        raise RuntimeError(f"{done} of {count} messages were received")
    return done / seconds


def settle() -> None:
    """As each process of the portal's worker does."""
    gc.collect()
    gc.freeze()


def _send(gate) -> None:
    settle()
    connection.ensure_connection()
    gate.wait()
    while propagation.deliver_due(now=timezone.now, seconds=60):
        pass
    connection.close()


async def _posted(address: str, bodies: list[tuple[uuid.UUID, str]]) -> float:
    """The limit: the same bytes over a hundred connections that stay open."""
    todo = iter(bodies)
    start = time.perf_counter()

    async def work(client: aiohttp.ClientSession) -> None:
        for jti, body in todo:
            headers = {"webhook-id": str(jti), "Content-Type": "application/json"}
            async with client.post(f"{address}/bare", data=body.encode(), headers=headers) as answer:
                await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as client:
        await asyncio.gather(*(work(client) for _ in range(100)))
    return len(bodies) / (time.perf_counter() - start)


def _idle(address: str) -> list[float]:
    """Seconds from the act's commit to the arrival of each of its messages, one act at a time."""
    urllib.request.urlopen(f"{address}/arrived", timeout=10).read()  # noqa: S310 - our own receiver
    waits = []
    for _ in range(IDLE_ACTS):
        now = timezone.now()
        subscription = _join(now)
        for party in {row.organization for row in subscription.deliveries.select_related("organization")}:
            if not party.channels.filter(state="open").exists():
                registry.open_channel(
                    organization=party, protocol="native", address=f"{address}/{party.code}", at=now
                )
                propagation.reroute(party, by=BY, at=now)
        begun = time.time()
        propagation.deliver_due(now=timezone.now)
        ours = {str(jti) for jti in subscription.deliveries.values_list("jti", flat=True)}
        text = urllib.request.urlopen(f"{address}/arrived", timeout=10).read().decode()  # noqa: S310 - our own receiver
        waits += [float(at) - begun for jti, _, at in map(str.split, text.splitlines()) if jti in ours]
    return waits
