#!/usr/bin/env python3
"""Check a proof, a certificate, a receipt or a whole log of the consent portal: offline, and without trusting it.

    python verify.py PROOF POLICY [--keys JWKS]       a .tlog-proof, or a certificate of ending (JSON) with proofs in it;
                                                      JWKS are the portal's public keys, which its own words are signed with
    python verify.py --log DIR POLICY [--since OLD]   a copy of the log: every entry, every tile, the root; OLD is the
                                                      checkpoint you kept from last time
    python verify.py --receipt FILE --keys JWKS --log DIR POLICY
                                                      the receipt of an act: is what it promised in that copy of the log?

POLICY names the log's key and the witnesses that must have seen it. Get it from the regulator, not from the portal.
Answers VALID (exit 0) or INVALID with the reason (exit 1); 2 where it could not be asked.

A certificate says more than the log does. Each line of its answer is one of these:
    a number, PROVED    the log proves it, at that index
    SIGNED              the portal signed it: its word, which no proof in the log shows (names, the day of joining, ...)
    NOT PROVED          nothing given here proves it; without --keys this is all that is only signed
    WITHOUT PROOF       the certificate names an entry of the log and brings no proof of it
Where one of the last two is there, the first line ends with "but only in part": rely on the other lines alone.

VALID means: this entry was written, is in the log, was not changed, and the witnesses saw the same log. It does not mean
that a company really deleted anything: only that it said so, signed, at that time. Needs Python >= 3.10 and `cryptography`.

Formats: C2SP tlog-proof, tlog-checkpoint, tlog-cosignature, tlog-policy, tlog-tiles; RFC 6962, RFC 7515, RFC 8785, RFC 9901.
"""

import argparse
import base64
import binascii
import collections
import datetime
import functools
import hashlib
import json
import os
import pathlib
import re
import sys
import time
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

LOG_KEY, WITNESS_KEY = 1, 4  # kinds of Ed25519 signature
EARLIEST, AHEAD = (
    1_577_836_800,
    900,
)  # a witness's time: since 2020, and at most 15 minutes ahead of this clock
LARGEST = 2_000_000  # characters of a proof or a certificate: hundreds of proofs have fewer
RECEIPT, CERTIFICATE = "consent-receipt+jwt", "ending-certificate+jwt"  # `typ` of what the portal signs
BESIDE = {
    "evidence",
    "digest",
    "jws",
    "keys",
    "verify",
}  # members of a certificate that its signature does not cover
STEPS = ("sent", "received", "stopped", "erased")  # of a message
DEEPEST, SAFE = 32, 2**53 - 1  # JSON: levels of nesting, largest integer
MEANING = {
    "at": "when", "by": "by whom", "sub": "person (name towards this company only)", "opr": "company", "con": "consent",
    "sbs": "subscription", "svc": "service", "trm": "digest of the words shown", "lng": "language", "scp": "data",
    "pur": "purpose", "prd": "until", "rsn": "reason", "jti": "message", "txn": "act", "sta": "state", "rol": "role",
    "evd": "digest of the evidence", "mth": "means", "bas": "legal basis", "evt": "event", "gol": "goal", "knd": "kind",
    "src": "source", "rcp": "recipient", "dlv": "who is told", "dig": "digest", "ver": "version", "cyc": "how often",
}  # fmt: skip

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[^\s+]+")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_DIGEST = r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"  # base64url of 32 bytes, in its one spelling
_JWS = re.compile(r"[ \t\r\n]*([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+[ \t\r\n]*")
# RFC 8785 leaves an entry one spelling, so its bytes can be read with a pattern and with nothing else.
_ENTRY = re.compile(
    rf'\{{"_sd":\[((?:"{_DIGEST}"(?:,"{_DIGEST}")*)?)\],"_sd_alg":"sha-256","day":"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})",'
    r'"id":"([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})","typ":"([a-z]+(?:\.[a-z_]+)+)","v":1\}'
)


class Invalid(Exception):
    """What was given does not prove what it claims; the message says why."""


# --- reading strictly: one value has one spelling ------------------------------------------------------------------------


def number(text):
    if not _NUMBER.fullmatch(text) or int(text) >= 2**63:
        raise Invalid(f"not a number: {text[:30]}")
    return int(text)


def unb64(text, what="base64"):
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise Invalid(f"{what} is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise Invalid(f"{what} is not canonical base64")
    return data


def unb64url(text, what):
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise Invalid(f"{what} is not base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64url(data) != text:
        raise Invalid(f"{what} is not canonical base64url")
    return data


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hash_of(text):
    if len(data := unb64(text, "a hash")) != 32:
        raise Invalid("a hash does not have 32 bytes")
    return data


def strict_json(text, what):
    """JSON with no member twice, no fraction, no unsafe integer, no lone surrogate, and not too deep."""

    def members(pairs):
        if len({name for name, _ in pairs}) != len(pairs):
            raise Invalid(f"{what} names a member twice")
        return dict(pairs)

    def refuse(number):
        raise Invalid(f"{what} holds the number {number[:30]}")

    def integer(number):
        return (
            int(number)
            if len(number) < 18 and number != "-0" and abs(int(number)) <= SAFE
            else refuse(number)
        )

    try:
        value = json.loads(
            text, object_pairs_hook=members, parse_float=refuse, parse_int=integer, parse_constant=refuse
        )
        check_depth(value, what, DEEPEST)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Invalid(f"{what} is not JSON") from None
    return value


def check_depth(value, what, left):
    if not left:
        raise Invalid(f"{what} is nested too deep")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_depth(inner, what, left - 1)


def canonical(value):
    """RFC 8785 of what strict_json has read: without fractions only the order of names is left, by UTF-16 code units."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(name)}:{canonical(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def sha256_of(text):
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def member(value, name, kind, what):
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise Invalid(f"{what} has no {name}")
    return found


# --- the tree (RFC 6962, RFC 9162) -------------------------------------------------------------------------------------------


def leaf_hash(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(hashes):
    """Over leaf hashes, or over those of equally large complete subtrees and a smaller last one."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    level = hashes
    while len(level) > 1:
        above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = above + level[-1:] if len(level) % 2 else above
    return level[0]


def check_inclusion(leaf, index, size, proof, root):
    if not 0 <= index < size:
        raise Invalid("the index is not in the tree")
    place, last, made = index, size - 1, leaf
    for other in proof:
        if last == 0:
            raise Invalid("not in the tree: the proof is too long")
        if place % 2 or place == last:
            made = node_hash(other, made)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            made = node_hash(made, other)
        place, last = place >> 1, last >> 1
    if last or made != root:
        raise Invalid("not in the tree")


# --- policy, checkpoint, witnesses ---------------------------------------------------------------------------------------------


class Key(NamedTuple):
    name: str
    kind: int
    public: bytes

    @property
    def id(self):
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def signed(self, signature, message):
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class Policy(NamedTuple):
    logs: list
    witnesses: dict  # name -> Key
    groups: dict  # name -> (how many, members), each after its members
    quorum: str

    def satisfied(self, present):
        holds = {"none": True, **{name: name in present for name in self.witnesses}}
        for name, (needed, members) in self.groups.items():
            holds[name] = sum(holds[one] for one in members) >= needed
        return holds[self.quorum]


def parse_key(text, kind):
    name, _, rest = text.partition("+")
    ident, _, encoded = rest.partition("+")
    material = unb64(encoded, "a key")
    if not _NAME.fullmatch(name) or len(material) != 33 or material[0] != kind:
        raise Invalid(f"the policy's key of {name[:60]} is not an Ed25519 key for this use")
    key = Key(name, kind, material[1:])
    if key.id.hex() != ident:
        raise Invalid(f"the policy's key of {name[:60]} has another id")
    return key


def parse_policy(text):
    logs: list = []
    witnesses: dict = {}
    groups: dict = {}
    quorum = None
    for line in text.split("\n"):
        words = line.replace("\r", " ").replace("\t", " ").split(" ")
        words = [word for word in words if word]
        if not words or words[0].startswith("#"):
            continue
        known = {"none", *witnesses, *groups}
        kind, count = words[0], len(words)
        if kind == "log" and count in (2, 3):
            logs.append(parse_key(words[1], LOG_KEY))
        elif kind == "witness" and count in (3, 4) and words[1] not in known:
            key = parse_key(words[2], WITNESS_KEY)
            if any(key.public == other.public for other in witnesses.values()):
                raise Invalid("the policy counts one witness key twice")
            witnesses[words[1]] = key
        elif kind == "group" and count > 3 and words[1] not in known:
            members = words[3:]
            if set(members) - (known - {"none"}) or len(set(members)) != len(members):
                raise Invalid(f"the policy's group {words[1][:60]} names an unknown member, or one twice")
            needed = {"any": 1, "all": len(members)}.get(words[2]) or number(words[2])
            if not 1 <= needed <= len(members):
                raise Invalid(f"the policy's group {words[1][:60]} can never be satisfied")
            groups[words[1]] = needed, members
        elif kind == "quorum" and count == 2 and quorum is None and words[1] in known:
            quorum = words[1]
        else:
            raise Invalid(f"the policy has a line that cannot be read: {line[:80]}")
    if not logs or quorum is None:
        raise Invalid("the policy needs a log and a quorum")
    return Policy(logs, witnesses, groups, quorum)


def parse_note(text):
    """The signed text, and (name, key id, signature) of each line below it."""
    if len(text.encode()) > 1_000_000 or any(letter < " " and letter != "\n" for letter in text):
        raise Invalid("the checkpoint is too large, or holds a control character")
    body, separator, lines = text.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise Invalid("the checkpoint is not a signed note")
    found = []
    for line in lines[:-1].split("\n"):
        parts = line[2:].split(" ")
        data = unb64(parts[-1], "a signature")
        if line[:2] != "\u2014 " or len(parts) != 2 or not _NAME.fullmatch(parts[0]) or len(data) < 5:
            raise Invalid("a signature line cannot be read")
        found.append((parts[0], data[:4], data[4:]))
    if len(found) > 64:
        raise Invalid("the checkpoint has too many signatures")
    return body + "\n", found


class Checkpoint(NamedTuple):
    origin: str
    size: int
    root: bytes
    seen: dict  # witness -> epoch seconds

    @property
    def witnesses(self):
        return "witnessed by " + (", ".join(self.seen) or "nobody")


def open_checkpoint(text, policy, now, quorum=True):
    """The checkpoint, if the policy's log signed it and enough witnesses have seen it."""
    body, signatures = parse_note(text)
    lines = body.split("\n")
    if len(lines) != 4 or lines[3] or not _NAME.fullmatch(lines[0]):
        raise Invalid("the checkpoint is not three lines: origin, size, root")
    origin, size, root = lines[0], number(lines[1]), hash_of(lines[2])
    if all(key.name != origin for key in policy.logs):
        raise Invalid(f"the log {origin[:80]} is not the policy's")

    def by(key):
        return [value for name, ident, value in signatures if (name, ident) == (key.name, key.id)]

    signed = False
    for key in policy.logs:
        for signature in by(key):
            if not key.signed(signature, body.encode()):
                raise Invalid("the log's signature is false")
            signed = signed or key.name == origin
    if not signed:
        raise Invalid("the log has not signed this checkpoint")
    seen: dict = {}
    for name, key in policy.witnesses.items():
        for signature in by(key):
            moment = int.from_bytes(signature[:8], "big")
            message = f"cosignature/v1\ntime {moment}\n{body}".encode()
            if len(signature) != 72 or not key.signed(signature[8:], message):
                raise Invalid(f"the signature of the witness {name} is false")
            if not EARLIEST <= moment <= now + AHEAD:
                raise Invalid(f"the witness {name} gives a time that cannot be (or this clock is wrong)")
            seen[name] = max(seen.get(name, 0), moment)
    if quorum and not policy.satisfied(seen):
        raise Invalid("too few witnesses of the policy have seen this checkpoint")
    return Checkpoint(origin, size, root, seen)


# --- entries and what is shown of them -------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    id: str
    typ: str
    day: str
    digests: list


def parse_entry(data):
    found = _ENTRY.fullmatch(data.decode("ascii", "replace"))
    if not found or len(data) > 65535:
        raise Invalid("the entry is not a canonical entry of this log")
    listed, day, ident, typ = found.groups()
    digests = listed[1:-1].split('","') if listed else []
    if digests != sorted(set(digests)):
        raise Invalid("the entry's digests are not in order, or one is there twice")
    if not possible(day):
        raise Invalid("the entry has no possible day")
    return Entry(ident, typ, day, digests)


@functools.lru_cache(maxsize=10_000)
def possible(day):
    try:
        return bool(datetime.date.fromisoformat(day))
    except ValueError:
        return False


def disclosed(entry, disclosures):
    """name -> value of what is shown; each must hash to a digest in the entry. Nothing shown is believed before."""
    fields, used = {}, set()
    for disclosure in disclosures:
        digest = b64url(hashlib.sha256(disclosure.encode("ascii", "replace")).digest())
        if digest not in entry.digests:
            raise Invalid("something is shown that the entry does not hold")
        if digest in used:
            raise Invalid("something is shown twice")
        used.add(digest)
        name, value = parse_disclosure(disclosure)
        if name in fields:
            raise Invalid(f"the field {name[:30]} is shown twice")
        fields[name] = value
    return fields


def parse_disclosure(text):
    try:
        decoded = unb64url(text, "a disclosure").decode()
    except UnicodeDecodeError:
        raise Invalid("a disclosure is not UTF-8") from None
    parts = strict_json(decoded, "a disclosure")
    if not isinstance(parts, list) or len(parts) != 3 or not all(isinstance(part, str) for part in parts[:2]):
        raise Invalid("a disclosure is not salt, name, value")
    if len(unb64url(parts[0], "a salt")) < 16:
        raise Invalid("a salt is too short")
    return parts[1], parts[2]


class Proved(NamedTuple):
    checkpoint: Checkpoint
    index: int  # type: ignore[assignment]
    entry: Entry
    leaf: bytes
    fields: dict


def check_proof(text, policy, now):
    """A .tlog-proof: what it proves. Raises Invalid."""
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    if not separator or lines.pop(0) != "c2sp.org/tlog-proof@v1":
        raise Invalid("not a tlog-proof")
    if len(lines) < 2 or not lines[0].startswith("extra ") or not lines[1].startswith("index "):
        raise Invalid("the proof carries no entry and index")
    extra, index = unb64(lines[0][6:], "extra"), number(lines[1][6:])
    if len(lines) > 65:
        raise Invalid("the proof has more than 63 hashes")
    hashes = [hash_of(line) for line in lines[2:]]
    checkpoint = open_checkpoint(note, policy, now)
    try:
        shown = strict_json(extra.decode(), "extra")
    except UnicodeDecodeError:
        raise Invalid("extra is not UTF-8") from None
    raw, disclosures = member(shown, "entry", str, "extra"), member(shown, "disclosures", list, "extra")
    if len(shown) != 2 or not all(isinstance(one, str) for one in disclosures):
        raise Invalid("extra is not an entry with its disclosures")
    leaf = leaf_hash(raw.encode())
    check_inclusion(leaf, index, checkpoint.size, hashes, checkpoint.root)
    entry = parse_entry(raw.encode())
    return Proved(checkpoint, index, entry, leaf, disclosed(entry, disclosures))


def say_proof(proved):
    cp, entry = proved.checkpoint, proved.entry
    yield (f"VALID {cp.origin} size {cp.size} index {proved.index} {entry.typ} {entry.day} {cp.witnesses}",)
    yield from say_fields(proved.fields)
    if hidden := len(entry.digests) - len(proved.fields):
        yield (f"  {hidden} more not shown",)


def say_fields(fields):
    for name, value in fields.items():
        yield f"  {name}", MEANING.get(name, ""), compact(value)


def compact(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# --- what the portal signs -------------------------------------------------------------------------------------------------------


def open_jws(compact, typ, jwks, what):
    """The claims of a compact JWS of ours. Without `jwks` its signature is not looked at."""
    parts = compact.split(".")
    if len(parts) != 3:
        raise Invalid(f"{what} is not a compact JWS")
    header, claims = (jws_part(part, what) for part in parts[:2])
    if inner(header, "alg") != "ES256" or inner(header, "typ") != typ:
        raise Invalid(f"{what} is not a {typ} signed with ES256")
    if "crit" in header or "b64" in header:
        raise Invalid(f"{what} asks for what this verifier does not know")
    if len(signature := unb64url(parts[2], "the signature")) != 64:
        raise Invalid(f"the signature of {what} has another length")
    if jwks is not None:
        check_es256(jwks, header.get("kid"), ".".join(parts[:2]).encode(), signature, what)
    return claims


def jws_part(part, what):
    try:
        return strict_json(unb64url(part, what).decode(), what)
    except UnicodeDecodeError:
        raise Invalid(f"{what} is not UTF-8") from None


def check_es256(jwks, kid, message, signature, what):
    for key in member(jwks, "keys", list, "the key file"):
        if not isinstance(kid, str) or inner(key, "kid") != kid:
            continue
        if (key.get("kty"), key.get("crv")) != ("EC", "P-256"):
            continue
        x, y = (unb64url(member(key, name, str, "a key"), "a key") for name in "xy")
        if len(x) != 32 or len(y) != 32:
            raise Invalid(f"the key of {what} has another length")
        half = [int.from_bytes(part, "big") for part in (x, y, signature[:32], signature[32:])]
        try:
            public = EllipticCurvePublicNumbers(half[0], half[1], SECP256R1()).public_key()
            return public.verify(encode_dss_signature(half[2], half[3]), message, ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            raise Invalid(f"the signature of {what} is false") from None
    raise Invalid(f"the key file does not hold the key of {what}")


# --- certificate of ending --------------------------------------------------------------------------------------------------------


def check_certificate(paper, policy, now, jwks):
    """Every proof in a certificate, that it says what they say, and that the portal said all of it.

    Answers (proofs, entries without proof, whether the end is proved, claims nobody proved)."""
    log = member(paper, "log", dict, "the certificate")
    proved, bare, known = [], [], set()
    for row in member(log, "entries", list, "the certificate's log"):
        ident, typ, leaf = (
            member(row, name, str, "an entry of the certificate") for name in ("id", "typ", "leaf")
        )
        if ident in known:
            raise Invalid(f"the certificate names the entry {ident[:40]} twice")
        known.add(ident)
        if row.get("proof") is None:
            bare.append((typ, ident))
            continue
        found = check_proof(member(row, "proof", str, f"entry {ident[:40]}"), policy, now)
        if (found.entry.id, found.entry.typ, found.leaf) != (ident, typ, hash_of(leaf)):
            raise Invalid(f"the proof of {typ[:40]} {ident[:40]} is about another entry")
        if found.checkpoint.origin != member(log, "origin", str, "the certificate's log"):
            raise Invalid("a proof is from another log than the certificate says")
        proved.append(found)
    if not proved:
        raise Invalid("the certificate holds no proof")
    ended, rest = compare(paper, proved)
    rest += check_documents(paper)
    check_statement(paper, jwks, now)
    return proved, bare, ended, rest


def check_statement(paper, jwks, now):
    """What the portal signed is this certificate, word for word: all of it but proofs, documents and the signature."""
    log = paper["log"]
    entries = [{name: row[name] for name in row if name != "proof"} for row in log["entries"]]
    stated = {name: paper[name] for name in paper if name not in BESIDE}
    stated["log"] = {**{name: log[name] for name in log if name != "size"}, "entries": entries}
    if member(paper, "digest", str, "the certificate") != sha256_of(canonical(stated)):
        raise Invalid("the certificate was changed: its digest is of other words")
    what = "the certificate's signature"
    claims = open_jws(member(paper, "jws", str, "the certificate"), CERTIFICATE, jwks, what)
    if canonical(inner(claims, "certificate")) != canonical(stated):
        raise Invalid("the certificate was changed: the portal signed other words")
    if member(claims, "sub", str, what) != member(stated, "subject", str, "the certificate"):
        raise Invalid("the certificate's signature is about another person")
    if not 0 <= member(claims, "iat", int, what) <= now + AHEAD:
        raise Invalid("the certificate's signature gives a time that cannot be")


def check_documents(paper):
    """Each document is the one that a party's statement names. Answers the statements whose document is not there."""
    open_ones = {
        (party.get("id"), one["id"], one["digest"]): None
        for party in paper["parties"]
        for one in statements(party)
    }
    known = set(open_ones)
    given = [] if paper.get("evidence") is None else member(paper, "evidence", list, "the certificate")
    for row in given:
        names = tuple(
            member(row, name, str, "evidence of the certificate") for name in ("organization", "id", "digest")
        )
        if names not in known:
            raise Invalid(f"the certificate brings evidence {names[1][:40]} that no party of it stated")
        if row.get("document") in (None, ""):
            continue
        if sha256_of(member(row, "document", str, "evidence of the certificate")) != names[2]:
            raise Invalid(
                f"the document of the evidence {names[1][:40]} has another digest than the certificate"
            )
        open_ones.pop(names, None)
    return [("document", party, ident) for party, ident, _ in open_ones]


def compare(paper, proved):
    """Whether the end is proved, and the claims that no proof shows; raises Invalid where a proof says otherwise."""
    parties: dict = {}
    for party in member(paper, "parties", list, "the certificate"):
        member(party, "id", str, "a party")
        parties.setdefault(member(party, "jti", str, "a party"), party)
    if len(parties) != len(paper["parties"]):
        raise Invalid("the certificate names one message twice")
    shown: set = set()  # what the proofs show: ("ended",) or (jti, step) or (jti, "evd", digest)
    subscription = member(paper, "subscription", str, "the certificate")

    def same(typ, name, said, found):
        if found is not None and not (isinstance(found, str) and said == found):
            raise Invalid(f"the certificate and the entry {typ} differ in {name}")

    for _, _, entry, _, fields in proved:
        typ, moment = entry.typ, second(fields.get("at"))
        same(typ, "subscription", subscription, fields.get("sbs"))
        if typ == "subscription.ended":
            same(typ, "when it ended", second(paper.get("ended_at")), moment)
            same(typ, "reason", paper.get("reason"), fields.get("rsn"))
            same(typ, "company", inner(paper, "operator", "id"), fields.get("opr"))
            if moment and all(isinstance(fields.get(name), str) for name in ("sbs", "rsn", "opr")):
                shown.add(("ended",))
        if typ == "erasure.requested" and subscription in listed(fields, "ids"):
            requested = second(inner(paper, "erasure", "requested_at"))
            same(typ, "when erasure was asked for", requested, moment)
            if moment:
                shown.add(("asked",))
        if typ.startswith("erasure.") and subscription in listed(fields, "ids"):
            shown.add(typ)
        jti = fields.get("jti")
        if typ.split(".")[0] not in ("delivery", "erasure") or jti is None:
            continue
        party = parties.get(jti) if isinstance(jti, str) else None
        if party is None:
            raise Invalid(f"the entry {typ} is about a message that the certificate does not name")
        same(typ, "company", party.get("id"), fields.get("opr"))
        step = typ.split(".")[1]
        if typ.startswith("delivery.") and step in STEPS and moment:
            same(typ, f"when it was {step}", second(party.get(f"{step}_at")), moment)
            # A step that was jumped over has the time of the later one, and no entry of its own.
            shown |= {
                (jti, early)
                for early in STEPS[: STEPS.index(step) + 1]
                if second(party.get(f"{early}_at")) == moment
            }
        if fields.get("evd") is not None:
            named = [one for one in statements(party) if one["digest"] == fields["evd"]]
            if not named:
                raise Invalid(f"the entry {typ} has evidence that the certificate does not name")
            if typ.startswith("delivery.") and step not in [one.get("status") for one in named]:
                raise Invalid(f"the certificate and the entry {typ} differ in what the evidence says")
            shown.add((jti, "evd", fields["evd"]))
    return ("ended",) in shown, list(unproved(paper, parties, shown))


def unproved(paper, parties, shown):
    """What a certificate says that the log should show, and no proof does: (claim, whose, what)."""
    state, asked = inner(paper, "erasure", "state"), inner(paper, "erasure", "requested_at")
    if "erasure.confirmed" in shown and state != "confirmed":
        raise Invalid("the certificate and the entry erasure.confirmed differ in the erasure")
    if state != "not_requested" and not (isinstance(state, str) and f"erasure.{state}" in shown):
        yield "erasure", state
    if asked is not None and ("asked",) not in shown:
        yield "erasure asked for", asked
    for jti, party in parties.items():
        for step in STEPS:
            if party.get(f"{step}_at") is not None and (jti, step) not in shown:
                yield step, party["id"], party[f"{step}_at"]
        for one in statements(party):
            if (jti, "evd", one["digest"]) not in shown:
                yield "evidence", party["id"], one["digest"]


def statements(party):
    what = "a statement of a party"
    found = member(party, "statements", list, "a party")
    for one in found:
        for name in ("id", "status", "digest"):
            member(one, name, str, what)
    return found


def listed(value, name):
    found = inner(value, name)
    return found if isinstance(found, list) else []


def inner(value, *names):
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def second(moment):
    """A time to its second: certificates leave out what is smaller."""
    return moment[:19] if isinstance(moment, str) else None


def say_certificate(paper, signed, proved, bare, ended, rest):
    newest = max((one.checkpoint for one in proved), key=lambda one: one.size)
    word = "  SIGNED" if signed else "  NOT PROVED"
    rows = [(word, *fact) for fact in facts_of(paper)]
    rows.append(
        ("  PROVED" if ended else "  NOT PROVED", "ended", paper.get("ended_at"), paper.get("reason"))
    )
    if not signed:
        rows.append(("  NOT PROVED", "the portal's signature", "give its keys with --keys"))
    rows += [("  WITHOUT PROOF", *row) for row in bare] + [("  NOT PROVED", *claim) for claim in rest]
    for one in proved:
        at = one.fields.get("at")
        when = at if isinstance(at, str) and at else one.entry.day
        rows.append((f"  {one.index}", one.entry.typ, when, one.fields.get("opr", ""), one.entry.id))
    rows += [(word, *claim) for claim in claims_of(paper)]
    open_ones = sum(row[0] in ("  NOT PROVED", "  WITHOUT PROOF") for row in rows)
    ends = f"but only in part: {open_ones} not proved" if open_ones else "signed by the portal"
    yield (
        f"VALID {newest.origin} size {newest.size} certificate-of-ending {len(proved)} entries proved {newest.witnesses} {ends}",
    )
    yield from rows


def facts_of(paper):
    """What is only the portal's word, however many proofs there are: whom and what the certificate is about."""
    for claim, name in (("service", "service"), ("company", "operator")):
        yield claim, *(inner(paper, name, part) for part in ("name_ko", "name_en", "id"))
    yield "person", inner(paper, "subject")
    yield "joined", inner(paper, "joined_at")


def claims_of(paper):
    """The rest of the portal's word that a reader may want to rely on; blank where it says nothing."""
    for claim, name in (("erasure confirmed", "confirmed_at"), ("erasure refused", "refusal")):
        if inner(paper, "erasure", name) not in (None, ""):
            yield claim, inner(paper, "erasure", name)
    for party in paper["parties"]:
        yield "party", *(inner(party, name) for name in ("name_ko", "name_en", "id", "role", "goal", "state"))
        for claim, name in (("due", "due_at"), ("refused", "refusal")):
            if inner(party, name) not in (None, ""):
                yield claim, party["id"], inner(party, name)
        for one in statements(party):
            yield (
                "statement",
                party["id"],
                *(inner(one, name) for name in ("status", "means", "stated_at", "received_at")),
            )
    yield "open", inner(paper, "open")


# --- a copy of the log --------------------------------------------------------------------------------------------------------------


def tile_path(level, n, width):
    digits = str(n).zfill(-(-len(str(n)) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    name = "/".join([*("x" + group for group in groups[:-1]), groups[-1]])
    return f"tile/{level}/{name}" + (f".p/{width}" if width < 256 else "")


def read_tile(folder, level, n, width):
    """A tile, or the beginning of a longer one where a mirror holds a later state."""
    for wider in range(width, 257):
        path = folder / tile_path(level, n, wider)
        if path.is_file():
            return path.read_bytes()
    raise Invalid(f"{tile_path(level, n, width)} is missing")


def entries_of(folder, n, width):
    data, place = read_tile(folder, "entries", n, width), 0
    found: list = []
    while place < len(data) and len(found) < width:
        length = int.from_bytes(data[place : place + 2], "big")
        found.append(data[place + 2 : place + 2 + length])
        place += 2 + length
    if len(found) != width or place > len(data):
        raise Invalid(f"{tile_path('entries', n, width)} is not whole")
    return found


def walk(folder, policy, now, since=None, leaf=None):
    """Recompute a copied log. Answers its checkpoint, how many entries of each type, and the entry with hash `leaf`."""
    checkpoint = open_checkpoint(read(folder / "checkpoint"), policy, now)
    size, found = checkpoint.size, None
    counts: collections.Counter = collections.Counter()
    old = open_checkpoint(since, policy, now, quorum=False) if since is not None else None
    if old and (old.origin != checkpoint.origin or old.size > size):
        raise Invalid(
            f"the older checkpoint is of {old.origin} size {old.size}: the log has gone back, or is another"
        )
    level: list = []  # roots of the tiles of 256
    old_root = None
    for n in range(-(-size // 256)):
        width = min(256, size - n * 256)
        entries = entries_of(folder, n, width)
        hashes = [hashlib.sha256(b"\0" + entry).digest() for entry in entries]
        if read_tile(folder, 0, n, width)[: width * 32] != b"".join(hashes):
            raise Invalid(f"{tile_path(0, n, width)} does not agree with its entries")
        for entry in entries:
            counts[parse_entry(entry).typ] += 1
        if leaf in hashes:
            found = n * 256 + hashes.index(leaf), entries[hashes.index(leaf)]
        if old and n * 256 < old.size <= n * 256 + width:
            old_root = root_of([*level, root_of(hashes[: old.size - n * 256])])
        level.append(root_of(hashes))
    root = root_of(level)
    if root != checkpoint.root:
        raise Invalid(
            "the entries give another root than the checkpoint: something was changed, added or left out"
        )
    if old and (old_root or root_of([])) != old.root:
        raise Invalid("this log does not continue the older checkpoint: two histories; keep both files")
    check_upper(folder, size, level)
    return checkpoint, counts, found


def check_upper(folder, size, hashes):
    """The hash tiles above the lowest: each holds the roots of the full tiles below it."""
    level, count = 1, size >> 8
    while count:
        above = []
        for n in range(-(-count // 256)):
            here = hashes[n * 256 : min(count, n * 256 + 256)]
            if read_tile(folder, level, n, len(here))[: len(here) * 32] != b"".join(here):
                raise Invalid(f"{tile_path(level, n, len(here))} does not agree with the tiles below it")
            above.append(root_of(here))
        level, count, hashes = level + 1, count >> 8, above


def say_log(checkpoint, counts, since):
    cp = checkpoint
    yield (
        f"VALID {cp.origin} size {cp.size} every entry and tile recomputed {cp.witnesses}"
        + (" and it continues the older checkpoint" if since is not None else ""),
    )
    for typ, count in sorted(counts.items()):
        yield f"  {count:>9,}", typ


# --- the receipt of an act --------------------------------------------------------------------------------------------------------------


def check_receipt(receipt, jwks, policy, folder, now):
    """A receipt, and whether its promise is kept in a copied log. Answers (checkpoint, index, entry, fields)."""
    claims = open_jws(receipt.strip(), RECEIPT, jwks, "the receipt")
    leaf, log = hash_of(member(claims, "leaf", str, "the receipt")), member(claims, "log", str, "the receipt")
    given, delay = member(claims, "iat", int, "the receipt"), member(claims, "mmd", int, "the receipt")
    ident, shown = member(claims, "jti", str, "the receipt"), member(claims, "sd", list, "the receipt")
    if not 0 <= given <= now + AHEAD or delay < 0 or not all(isinstance(one, str) for one in shown):
        raise Invalid("the receipt gives a time that cannot be, or shows what is no text")
    checkpoint, _, found = walk(folder, policy, now, leaf=leaf)
    if log != checkpoint.origin:
        raise Invalid(f"the receipt is about the log {log[:80]}, the copy is of {checkpoint.origin}")
    if found is None:
        raise Invalid(absent(given + delay, max(checkpoint.seen.values(), default=now), now))
    entry = parse_entry(found[1])
    if entry.id != ident:
        raise Invalid("the receipt's leaf is the entry of another act")
    return checkpoint, found[0], entry, disclosed(entry, shown)


def absent(due, witnessed, now):
    if witnessed > due:
        return (
            f"the promised entry is not in the log, which was witnessed at {utc(witnessed)}, after it fell due at {utc(due)}: "
            "this is PROOF OF MISBEHAVIOUR. Keep the receipt and this copy of the log, and show them to the regulator"
        )
    if now > due:
        return (
            f"the promised entry is not in this copy, which was last witnessed at {utc(witnessed)}, before it fell due at "
            f"{utc(due)}: fetch a newer copy; if it is absent there too, that is proof of misbehaviour"
        )
    return (
        f"not yet due: the promised entry is not in this copy of the log, and need not be before {utc(due)}"
    )


def utc(moment):
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


# --- the command ------------------------------------------------------------------------------------------------------------------------


def read(path):
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise Invalid(f"{path.name} is not text") from None


def judge(text, policy_text, now, jwks=None):
    """A proof or a certificate as the lines that are printed, each a tuple of parts. Raises Invalid.

    `jwks` are the portal's public keys: with them what a certificate says beyond the log is SIGNED, else NOT PROVED."""
    if len(text) > LARGEST:
        raise Invalid(f"the file is larger than {LARGEST} characters")
    policy = parse_policy(policy_text)
    if found := _JWS.fullmatch(text):
        raise Invalid(other_paper(inner(jws_part(found[1], "the file"), "typ")))
    if not text.lstrip(" \t\r\n").startswith("{"):
        return list(say_proof(check_proof(text, policy, now)))
    paper = strict_json(text, "the certificate")
    if paper.get("type") != "certificate-of-ending":
        raise Invalid("neither a tlog-proof nor a certificate-of-ending")
    found = check_certificate(paper, policy, now, jwks)
    return list(say_certificate(paper, jwks is not None, *found))


def other_paper(typ):
    if typ == RECEIPT:
        return "this is a receipt, not a proof: check it with --receipt FILE --keys JWKS --log DIR POLICY"
    if typ == CERTIFICATE:
        return "this is the signature of a certificate alone: give the certificate's JSON file"
    return "neither a tlog-proof nor a certificate-of-ending"


def printable(part):
    """Nothing that a file says may move the cursor or turn the text around."""
    letters = compact(part)
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in letters)


def say(parts, sep):
    sys.stdout.write(sep.join(printable(part) for part in parts if part != "") + "\n")


def answer(options, now):
    policy_text = read(options.files[-1])
    keys = strict_json(read(options.keys), "the key file") if options.keys else None
    if not options.log:
        return judge(read(options.files[0]), policy_text, now, keys)
    policy = parse_policy(policy_text)
    if options.receipt:
        cp, index, entry, fields = check_receipt(read(options.receipt), keys, policy, options.log, now)
        first = f"VALID {cp.origin} size {cp.size} index {index} {entry.typ} {entry.day} promise kept {cp.witnesses}"
        return [(first,), *say_fields(fields)]
    since = read(options.since) if options.since else None
    checkpoint, counts, _ = walk(options.log, policy, now, since)
    return list(say_log(checkpoint, counts, since))


def main(arguments=None, now=None):
    usage = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usage.add_argument(
        "files", nargs="+", type=pathlib.Path, metavar="FILE", help="PROOF POLICY, or POLICY with --log"
    )
    usage.add_argument(
        "--log", type=pathlib.Path, metavar="DIR", help="a copy of the log: checkpoint and tile/…"
    )
    usage.add_argument("--since", type=pathlib.Path, metavar="OLD", help="a checkpoint kept from earlier")
    usage.add_argument("--receipt", type=pathlib.Path, metavar="FILE", help="a receipt (compact JWS)")
    usage.add_argument(
        "--keys",
        type=pathlib.Path,
        metavar="JWKS",
        help="the portal's public keys, for a certificate or --receipt",
    )
    options = usage.parse_args(arguments)
    if len(options.files) != (1 if options.log else 2):
        usage.error("give PROOF and POLICY, or --log DIR and POLICY")
    if (options.receipt or options.since) and not options.log:
        usage.error("--since and --receipt need --log")
    if options.log and bool(options.receipt) != bool(options.keys):
        usage.error("with --log, --receipt and --keys need each other")
    code, sep = 0, "  "
    try:
        lines = answer(options, int(time.time()) if now is None else now)
    except Invalid as why:
        code, sep, lines = 1, " ", [("INVALID", str(why))]
    except OSError as problem:
        usage.error(f"{problem.filename}: {problem.strerror}")
    try:
        for line in lines:
            say(line, sep)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads (`| head`) has seen enough; the verdict stands
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
