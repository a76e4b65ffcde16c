"""A small log that exists in memory only: its keys, entries, checkpoints, proofs, and a certificate of ending."""

import base64
import copy
import datetime
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from consents.ledger import entries, merkle, notes, tiles

ORIGIN = "log.example/2026"
SEEN = 1_795_320_000  # when the witness saw it: 2026-11-22 13:00 in Seoul
AT = datetime.datetime(2026, 11, 22, 3, 10, tzinfo=datetime.UTC)
SBS, JTI = "0192d3a0-0000-7000-8000-000000000001", "0192d3a0-0000-7000-8000-000000000002"
SUBJECT = "0192d3a0-0000-7000-8000-000000000003"
DOCUMENT = "eyJ.지웠어요.sig"
EVIDENCE = "sha256:" + hashlib.sha256(DOCUMENT.encode()).hexdigest()


def key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


class Log:
    def __init__(self, *, witnesses: Iterable[str] = ("w1",), rules: str = "quorum w1\n") -> None:
        self.key = key(1)
        self.witnesses = {name: key(2 + i) for i, name in enumerate(witnesses)}
        lines = [f"log {notes.Key.of(self.key, name=ORIGIN, kind=notes.ED25519)}"]
        lines += [
            f"witness {name} {notes.Key.of(private, name=f'{name}.example', kind=notes.COSIGNATURE)}"
            for name, private in self.witnesses.items()
        ]
        self.policy = "\n".join(lines) + "\n" + rules
        self.raw: list[bytes] = []
        self.shown: list[dict[str, str]] = []

    def add(self, typ: str, **fields: Any) -> entries.Sealed:
        sealed = entries.seal(typ, at=AT, fields={"at": AT, **fields})
        self.add_raw(sealed.entry, sealed.disclosures)
        return sealed

    def add_raw(self, entry: bytes, disclosures: dict[str, str] | None = None) -> None:
        self.raw.append(entry)
        self.shown.append(disclosures or {})

    def leaves(self, size: int | None = None) -> list[bytes]:
        return [merkle.leaf_hash(entry) for entry in self.raw[:size]]

    def checkpoint(
        self, size: int | None = None, *, times: dict[str, int] | None = None, root: bytes | None = None
    ) -> str:
        hashes = self.leaves(size)
        text = notes.Checkpoint(ORIGIN, len(hashes), root or merkle.root(hashes)).text
        times = dict.fromkeys(self.witnesses, SEEN) if times is None else times
        return str(
            notes.Note(
                text,
                (
                    notes.note_signature(self.key, name=ORIGIN, text=text),
                    *(
                        notes.cosignature(self.witnesses[name], name=f"{name}.example", text=text, time=time)
                        for name, time in times.items()
                    ),
                ),
            )
        )

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        leaves = self.leaves(size)

        def node(level: int, place: int) -> bytes:
            return merkle.root(leaves[place << level : (place + 1) << level])

        return tuple(merkle.inclusion_proof(node, index, len(leaves)))

    def proof(
        self,
        index: int,
        *,
        shown: list[str] | None = None,
        note: str | None = None,
        hashes: tuple[bytes, ...] | None = None,
        extra: bytes | None = None,
    ) -> str:
        if extra is None:
            disclosures = sorted(self.shown[index].values()) if shown is None else shown
            extra = rfc8785.dumps({"disclosures": disclosures, "entry": self.raw[index].decode()})
        return str(
            notes.Proof(
                index,
                self.inclusion(index) if hashes is None else hashes,
                self.checkpoint() if note is None else note,
                extra,
            )
        )

    def write(self, folder: Path) -> Path:
        """As the files of an export."""
        edge = tiles.Edge()
        files = edge.grow(self.leaves()) | edge.partials()
        for n in range(0, len(self.raw), tiles.WIDTH):
            some = self.raw[n : n + tiles.WIDTH]
            files[tiles.path(tiles.ENTRIES, n // tiles.WIDTH, len(some))] = tiles.bundle(some)
        files[tiles.CHECKPOINT] = self.checkpoint().encode()
        for address, data in files.items():
            (folder / address).parent.mkdir(parents=True, exist_ok=True)
            (folder / address).write_bytes(data)
        return folder


def ending(sign: Callable[[dict], str] | None = None) -> tuple[Log, dict[str, Any]]:
    """A log in which somebody left, and the certificate of it, as `sign` signs it (else a portal of this module)."""
    log = Log()
    act = {"sbs": SBS, "opr": "FTDURU9001"}
    told = {"opr": "FTDURU9001", "jti": JTI}
    sealed = [
        log.add("subscription.ended", rsn="person_left", **act),
        log.add("delivery.sent", sta="sent", **told),
        log.add("delivery.received", sta="received", **told),
        log.add("delivery.erased", sta="erased", evd=EVIDENCE, **told),
        log.add("erasure.requested", ids=[SBS], sbs=SBS),
        log.add("erasure.confirmed", evd=EVIDENCE, ids=[SBS], sbs=SBS, **told),
    ]
    moment = "2026-11-22T03:10:00Z"
    stated = {
        "type": "certificate-of-ending",
        "subject": SUBJECT,
        "subscription": SBS,
        "service": {"id": "duru-budget", "name_ko": "두루 가계부", "name_en": "Duru Budget"},
        "operator": {"id": "FTDURU9001", "name_ko": "두루", "name_en": "Duru"},
        "joined_at": "2026-01-05T00:30:00Z",
        "ended_at": moment,
        "reason": "person_left",
        "erasure": {"state": "confirmed", "requested_at": moment, "confirmed_at": moment, "refusal": ""},
        "parties": [
            {
                "id": "FTDURU9001", "name_ko": "두루", "name_en": "Duru", "role": "operator", "event": "subscription-ended",
                "goal": "erased", "state": "erased", "jti": JTI, "txn": JTI, "refusal": "",
                "sent_at": moment, "received_at": moment, "stopped_at": moment, "erased_at": moment,
                "due_at": "2026-11-27T03:10:00Z",
                "statements": [
                    {
                        "id": "e-1", "status": "erased", "means": "signed", "digest": EVIDENCE,
                        "stated_at": "2026-11-22T03:09:00Z", "received_at": moment,
                    }
                ],
            }
        ],
        "open": 0,
        "log": {
            "origin": ORIGIN,
            "entries": [
                {"id": str(one.event_id), "typ": one.typ, "leaf": base64.b64encode(one.leaf_hash).decode()}
                for one in sealed
            ],
        },
    }  # fmt: skip
    paper = copy.deepcopy(stated)
    for index, entry in enumerate(paper["log"]["entries"]):
        entry["proof"] = log.proof(index)
    evidence = {"id": "e-1", "organization": "FTDURU9001", "digest": EVIDENCE, "document": DOCUMENT}
    paper |= {
        "evidence": [evidence],
        "keys": "https://portal.example/keys",
        "verify": "https://portal.example/verify/",
    }
    return log, sealed_by(paper, sign or by(PORTAL))


def statement(paper: dict[str, Any]) -> dict[str, Any]:
    """What the signature of a certificate covers."""
    beside = {"evidence", "digest", "jws", "keys", "verify"}
    stated = {name: value for name, value in copy.deepcopy(paper).items() if name not in beside}
    stated["log"].pop("size", None)
    for entry in stated["log"]["entries"]:
        entry.pop("proof", None)
    return stated


def sealed_by(paper: dict[str, Any], sign: Callable[[dict], str], **claims: Any) -> dict[str, Any]:
    """The certificate with a digest and a signature that fit what it says."""
    stated = statement(paper)
    paper["digest"] = "sha256:" + hashlib.sha256(rfc8785.dumps(stated)).hexdigest()
    paper["jws"] = sign(
        {"iss": "x", "sub": stated.get("subject"), "iat": SEEN, "certificate": stated, **claims}
    )
    return paper


def by(private: ec.EllipticCurvePrivateKey, **header: Any) -> Callable[[dict], str]:
    """A signer of certificates with that key."""
    key = jwk(private)
    head = {"alg": "ES256", "kid": key["kid"], "typ": "ending-certificate+jwt", **header}

    def sign(claims: dict) -> str:
        content = ".".join(
            entries.b64(json.dumps(part, ensure_ascii=False).encode()) for part in (head, claims)
        )
        halves = decode_dss_signature(private.sign(content.encode(), ec.ECDSA(SHA256())))
        return f"{content}.{entries.b64(b''.join(half.to_bytes(32, 'big') for half in halves))}"

    return sign


def jwk(private: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    public = private.public_key().public_numbers()
    x, y = (entries.b64(half.to_bytes(32, "big")) for half in (public.x, public.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": x[:12]}


PORTAL, STRANGER = (ec.derive_private_key(seed, ec.SECP256R1()) for seed in (1001, 1002))
JWKS = {"keys": [jwk(PORTAL)]}


def text_of(paper: dict[str, Any]) -> str:
    return json.dumps(paper, ensure_ascii=False)
