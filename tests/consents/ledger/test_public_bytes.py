"""Nothing personal, no exact time and no linkable id is in any byte that /log/ shows, with the demo's year in the log.

Twice over: everything that is served has one of a few shapes which leave no room for such a thing, and none of what the
database holds about people, organizations and moments is found in it.
"""

import base64
import datetime
import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from consents.ledger import cosigning, disclosures, entries, merkle, notes, proofs, tiles
from consents.ledger.sequencer import Sequencer
from consents.models import EntryIndex, LedgerEntry, Person
from providers.models import Organization, Service

pytestmark = pytest.mark.timeout(600)  # the first of them may wait for the seed

COSIGNED_AT = 1_800_000_123
HEADERS = {"Content-Type", "Cache-Control", "Access-Control-Allow-Origin", "Content-Length", "Vary"}
# Set for every answer, the same for everybody; none speaks of the log.
HARMLESS = {
    "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy",
    "Content-Security-Policy", "Strict-Transport-Security", "Permissions-Policy", "Content-Language",
}  # fmt: skip
NEVER = {"Last-Modified", "ETag", "Date", "Expires", "Age", "Set-Cookie", "Server-Timing"}


@dataclass
class Crawled:
    """What a stranger has after fetching everything; `seeded` is what must not be in it."""

    size: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    queries: int = 0
    seeded: dict[str, set[str]] = field(default_factory=dict)
    known_ids: set[uuid.UUID] = field(default_factory=set)
    moments: set[datetime.datetime] = field(default_factory=set)
    disclosed: dict[str, dict[str, str]] = field(default_factory=dict)
    request_ids: set[str] = field(default_factory=set)

    @property
    def entries(self) -> list[bytes]:
        return [
            entry
            for name, data in self.files.items()
            if "/entries/" in name
            for entry in tiles.unbundle(data)
        ]


@pytest.fixture
def crawled(city, published_log, settings) -> Iterator[Crawled]:
    """The city's log, ordered, signed, cosigned and fetched; the city is left as it was."""
    with transaction.atomic():
        found = Crawled()
        found.size = Sequencer().run().size
        private = Ed25519PrivateKey.generate()
        key = notes.Key.of(private, name="w1.witness.example/1", kind=notes.COSIGNATURE)
        log_key = proofs.policy().logs[0]
        settings.LEDGER_POLICY.write_text(f"log {log_key}\nwitness w {key}\nquorum w\n")
        with connection.cursor() as cursor:
            cursor.execute("SELECT note FROM ledger.checkpoint ORDER BY tree_size DESC LIMIT 1")
            note = notes.Note.parse(cursor.fetchone()[0])
            line = notes.cosignature(private, name=key.name, text=note.text, time=COSIGNED_AT)
            cursor.execute(
                "INSERT INTO ledger.cosignature (tree_size, key_name, key_id, cosigned_at, line) VALUES (%s, %s, %s, %s, %s)",
                [found.size, key.name, key.id, COSIGNED_AT, str(line)],
            )
        assert cosigning.run(now=COSIGNED_AT).published == found.size
        crawl(found)
        remember(found)
        yield found
        transaction.set_rollback(True)


def crawl(found: Crawled) -> None:
    """As a stranger does: the checkpoint says how large the tree is, the size says which tiles there are."""
    client = Client()
    with CaptureQueriesContext(connection) as queries:
        first = client.get("/log/checkpoint")
        size = int(first.content.decode().split("\n")[1])
        for address in ["checkpoint", *tiles.all_paths(size)]:
            answer = client.get(f"/log/{address}")
            assert answer.status_code == 200, address
            found.files[address] = answer.getvalue()
            found.headers[address] = dict(answer.headers)
    found.queries = len(queries)
    assert size == found.size > 1000


def remember(found: Crawled) -> None:
    """All that the database knows and the log must not tell."""
    people = Person.objects.all()
    organizations = Organization.objects.all()
    found.seeded = {
        "name": {person.name for person in people if person.name},
        "e-mail": {person.email for person in people} | {person.email.split("@")[0] for person in people},
        "pseudonym": {subject for subject in EntryIndex.objects.values_list("subject", flat=True) if subject},
        "organization": {o.code for o in organizations} | {o.name_ko for o in organizations} | {o.name_en for o in organizations},
        "service": {s.client_id for s in Service.objects.all()} | {s.name_ko for s in Service.objects.all()},
    }  # fmt: skip
    events = set(LedgerEntry.objects.values_list("event_id", flat=True))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns JOIN pg_tables "
            "ON (schemaname, tablename) = (table_schema, table_name) WHERE table_schema IN ('public', 'ledger') "
            "AND data_type IN ('uuid', 'timestamp with time zone')"
        )
        for schema, table, column, kind in cursor.fetchall():
            cursor.execute(
                f'SELECT DISTINCT "{column}" FROM "{schema}"."{table}" WHERE "{column}" IS NOT NULL'
            )
            values = {row[0] for row in cursor.fetchall()}
            if kind == "uuid":
                found.known_ids |= values - events
            elif table != "django_migrations":
                found.moments |= values
    found.disclosed = {str(event): known for event, known in disclosures.readable(list(events)).items()}


def text_of(found: Crawled) -> str:
    """Everything that is not a hash: checkpoint without its signatures, and entries without their digests."""
    checkpoint = found.files["checkpoint"].decode().partition("\n\n")[0]
    return checkpoint + "".join(
        re.sub(rb'"[A-Za-z0-9_-]{43}"', b"", entry).decode() for entry in found.entries
    )


# --- one test: the crawl is dear ---------------------------------------------------------------------------------------------------


def test_nothing_personal_no_exact_time_and_no_linkable_id_is_public(crawled, subtests, tmp_path):
    for look in (
        it_is_served_without_the_database,
        the_headers_tell_nothing,
        every_byte_has_a_known_shape,
        digests_are_salted_and_never_alike,
        nobody_and_nothing_is_named,
        no_id_of_ours_is_in_it,
        no_moment_is_in_it,
        nothing_else_is_served,
    ):
        with subtests.test(look.__name__):
            look(crawled)
    with subtests.test("the_export_is_the_same_bytes_and_its_files_tell_no_time"):
        the_export_is_the_same_bytes_and_its_files_tell_no_time(crawled, tmp_path)


def it_is_served_without_the_database(found: Crawled) -> None:
    assert found.queries == 0


def the_headers_tell_nothing(found: Crawled) -> None:
    """Neither when a tile was written, nor who asks. (A server adds Date: the moment of the question, not of an act.)"""
    for address, headers in found.headers.items():
        assert not NEVER & set(headers), address
        assert set(headers) <= HEADERS | HARMLESS | {"X-Request-ID"}, (address, set(headers))
        told = " ".join(f"{name}: {value}" for name, value in headers.items() if name != "X-Request-ID")
        for words in found.seeded.values():
            assert not {word for word in words if len(word) > 3 and word in told}, address


def every_byte_has_a_known_shape(found: Crawled) -> None:
    leaves = []
    for entry in found.entries:
        said = json.loads(entry)
        assert set(said) == {"_sd", "_sd_alg", "day", "id", "typ", "v"}, entry
        assert said["v"] == 1 and said["_sd_alg"] == "sha-256" and said["typ"] in entries.FIELDS
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", said["day"]), "a day in Seoul, and no time of day"
        assert uuid.UUID(said["id"]).version == 4 and str(uuid.UUID(said["id"])) == said["id"], (
            "random, not a time"
        )
        assert said["_sd"] == sorted(said["_sd"]) and all(
            re.fullmatch(r"[\w-]{43}", one, re.ASCII) for one in said["_sd"]
        )
        assert entry == json.dumps(said, separators=(",", ":"), sort_keys=True).encode(), (
            "nothing between the lines"
        )
        leaves.append(merkle.leaf_hash(entry))
    # The hash tiles are a function of the entries, so that nothing can hide in them.
    edge = tiles.Edge()
    made = edge.grow(leaves) | edge.partials()
    assert made == {name: data for name, data in found.files.items() if re.match(r"tile/\d", name)}
    _origin, size, root, rest = found.files["checkpoint"].decode().split("\n", 3)
    assert size == str(len(leaves)) == str(found.size) and root == base64.b64encode(edge.root()).decode()
    own, cosigned = [line for line in rest.split("\n") if line]
    assert len(base64.b64decode(own.split(" ")[2])) == 4 + 64
    # The one exact time: when a witness looked, which it owes to everybody and which is no act of anybody.
    payload = base64.b64decode(cosigned.split(" ")[2])
    assert len(payload) == 4 + 8 + 64 and int.from_bytes(payload[4:12], "big") == COSIGNED_AT


def digests_are_salted_and_never_alike(found: Crawled) -> None:
    """Each is the digest of a disclosure with 16 random bytes of its own: nobody can guess a value or join two entries."""
    seen: set[str] = set()
    salts: set[str] = set()
    told = 0
    for entry in found.entries:
        said = json.loads(entry)
        assert not seen & set(said["_sd"]), "a digest that comes twice links two entries"
        seen |= set(said["_sd"])
        for disclosure in found.disclosed[said["id"]].values():
            digest = (
                base64.urlsafe_b64encode(hashlib.sha256(disclosure.encode()).digest()).rstrip(b"=").decode()
            )
            assert digest in said["_sd"]
            salt = json.loads(base64.urlsafe_b64decode(disclosure + "=" * (-len(disclosure) % 4)))[0]
            assert len(base64.urlsafe_b64decode(salt + "==")) == 16 and salt not in salts
            salts.add(salt)
            told += 1
    assert told > 3 * found.size


def nobody_and_nothing_is_named(found: Crawled) -> None:
    """Short words could stand in a hash by chance: those are looked for in what is not a hash."""
    everything, text = b"".join(found.files.values()), text_of(found)
    origin = found.files["checkpoint"].decode().split("\n")[0]
    without_origin = text.replace(origin, "")
    for kind, words in found.seeded.items():
        assert len(words) >= 10, kind
        for word in words:
            assert word not in without_origin, (kind, word)
            if len(word.encode()) > 7:
                assert word.encode() not in everything, (kind, word)
                for coded in (base64.b64encode(word.encode()), base64.urlsafe_b64encode(word.encode())):
                    assert coded.rstrip(b"=")[:-1] not in everything, (kind, word)


def no_id_of_ours_is_in_it(found: Crawled) -> None:
    """Of every row of every table but the log's own random ones; as text, bare, as bytes or in base64."""
    text = "\n".join(entry.decode() for entry in found.entries) + found.files["checkpoint"].decode()
    shown = {uuid.UUID(one) for one in re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)}
    assert len(shown) == found.size and len(found.known_ids) > 1000
    assert not shown & found.known_ids
    assert not {str(person.subject_id) for person in Person.objects.all()} & {str(one) for one in shown}
    bare = set(re.findall(r"(?=([0-9a-f]{32}))", text))
    assert not bare & {one.hex for one in found.known_ids}
    # Any place in any digest: 22 characters are 16 bytes in base64, of which the last says only two bits.
    runs = re.findall(r"[A-Za-z0-9_-]{43}", text)
    pieces = {run[start : start + 21] for run in runs for start in range(23)}
    assert not pieces & {base64.urlsafe_b64encode(one.bytes)[:21].decode() for one in found.known_ids}


def no_moment_is_in_it(found: Crawled) -> None:
    text = text_of(found)
    assert (
        not re.search(r"\d\d:\d\d", text)
        and not re.search(r"\d[Tt ]\d\d", text)
        and not re.search(r"\d[Zz]\b", text)
    )
    bare = re.sub(r'"id":"[^"]*"', "", text)
    numbers = set(re.findall(r"\d{5,}", bare))
    assert not {number for number in numbers if len(number) >= 10}, "no epoch"
    assert len(found.moments) > 1000
    for moment in found.moments:
        seconds = moment.timestamp()
        assert not {str(int(seconds)), str(int(seconds * 1000)), str(int(seconds * 1_000_000))} & numbers
    days = {json.loads(entry)["day"] for entry in found.entries}
    assert len(days) > 100, "there are days, and nothing finer"
    now = int(time.time())
    assert not re.search(str(now)[:6] + r"\d{4}", bare)


def nothing_else_is_served(found: Crawled) -> None:
    client = Client()
    for other in (
        "",
        "policy.txt",
        ".monitor.json",
        "tile/",
        "tile/entries/",
        "tile/0/",
        "index.html",
        "../signer/last.json",
    ):
        assert client.get(f"/log/{other}").status_code == 404, other


def the_export_is_the_same_bytes_and_its_files_tell_no_time(found: Crawled, folder) -> None:
    """A static host tells a file's time as Last-Modified: a tile's would be that of the act behind its last entry."""
    target = folder / "public"
    call_command("ledger", "export", str(target), verbosity=0)
    files = {str(path.relative_to(target)): path for path in target.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == found.files
    assert len({path.stat().st_mtime for name, path in files.items() if name != tiles.CHECKPOINT}) == 1
