"""Key files, and what is done with secrets that never leave the portal: seals, pseudonyms, fast hashes.

Keys are files in `settings.PORTAL_KEYS_DIR`, one purpose per key, made on first use. A file once read is kept in
memory: a process sees a changed key after its restart.
"""

import base64
import contextlib
import functools
import hashlib
import hmac
import os
import secrets as randomness
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.contrib.auth.hashers import BasePasswordHasher, mask_hash
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext_noop as _


class BadSeal(Exception):
    """A sealed value that was changed, belongs elsewhere, or was sealed with another key."""


# Key files


def key_file(name: str, make: Callable[[], bytes]) -> bytes:
    """The bytes of the key `name`; made by `make` when there is none yet.

    Two processes that start at once agree: the file appears whole under its name or not at all, and the first wins."""
    return _key_file(str(settings.PORTAL_KEYS_DIR), name, make)


@functools.lru_cache(maxsize=64)
def _key_file(directory: str, name: str, make: Callable[[], bytes]) -> bytes:
    path = Path(directory) / name
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mkstemp gives 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
    return path.read_bytes()


def forget_keys() -> None:
    """Read key files afresh from now on, in this process."""
    _key_file.cache_clear()


def _new_secret() -> bytes:
    return randomness.token_bytes(32)


# Seals and pseudonyms

_SEAL_VERSION = b"\x01"


def seal(plain: bytes, *, aad: bytes, key: bytes | None = None) -> bytes:
    """AES-256-GCM: version byte, 12-byte nonce, ciphertext and tag. `aad` says where the value belongs; `key` is 32
    bytes, by default the vault key."""
    return seal_all([(plain, aad)], key=key)[0]


def seal_all(
    values: Iterable[tuple[bytes, bytes]],
    *,
    key: bytes | None = None,
    random: Callable[[int], bytes] = randomness.token_bytes,
) -> list[bytes]:
    """Several values, each with its place, under one key: the system is asked for randomness once, each has its own nonce."""
    values, cipher = list(values), AESGCM(key or _vault_key())
    nonces = random(12 * len(values))
    return [
        _SEAL_VERSION + (nonce := nonces[12 * n : 12 * n + 12]) + cipher.encrypt(nonce, plain, aad)
        for n, (plain, aad) in enumerate(values)
    ]


def drawn() -> Callable[[int], bytes]:
    """The system's randomness, fetched many bytes at a time, for the length of one batch. Not to be kept: a process that was
    copied would go on with the same bytes as its copy."""
    pool, at = b"", 0

    def take(n: int) -> bytes:
        nonlocal pool, at
        if at + n > len(pool):
            pool, at = randomness.token_bytes(max(n, 8192)), 0
        at += n
        return pool[at - n : at]

    return take


def unseal(sealed: bytes, *, aad: bytes, key: bytes | None = None) -> bytes:
    """What `seal` was given; BadSeal when value, place or key is not the same."""
    return unseal_all([(sealed, aad)], key=key)[0]


def unseal_all(values: Iterable[tuple[bytes, bytes]], *, key: bytes | None = None) -> list[bytes]:
    """Several sealed values, each with its place, under one key. BadSeal for the first that is not what it should be."""
    cipher = AESGCM(key or _vault_key())
    return [_opened(cipher, bytes(sealed), aad) for sealed, aad in values]


def _opened(cipher: AESGCM, sealed: bytes, aad: bytes) -> bytes:
    if sealed[:1] != _SEAL_VERSION or len(sealed) < 1 + 12 + 16:
        raise BadSeal("not a sealed value")
    try:
        return cipher.decrypt(sealed[1:13], sealed[13:], aad)
    except InvalidTag as error:
        raise BadSeal("changed, moved, or sealed with another key") from error


def _vault_key() -> bytes:
    return key_file("vault.key", _new_secret)


def derived_key(purpose: str) -> bytes:
    """32 bytes that follow from the vault key and the purpose; the same every time."""
    return hmac.digest(_vault_key(), b"derived key|" + purpose.encode(), hashlib.sha256)


def pseudonym(*parts: str) -> str:
    """A name that only we can link: `p_` and 26 characters of base32(HMAC-SHA256(key, parts joined by |)).

    Give the organization first, then the person, and the same person has another name at each organization."""
    if not parts or any("|" in part for part in parts):
        raise ValueError("a pseudonym needs parts without |")
    key = key_file("subject.key", _new_secret)
    digest = hmac.digest(key, "|".join(parts).encode(), hashlib.sha256)
    return "p_" + base64.b32encode(digest[:20]).decode("ascii")[:26]  # whose letters come from 17 bytes


class MachineSecretHasher(BasePasswordHasher):
    """One SHA-256 over salt and secret, for client secrets made by a machine.

    They carry 256 random bits, so that stretching adds nothing but 300 ms a token. Never for what a person types."""

    algorithm = "machine_sha256"

    def encode(self, password: str, salt: str) -> str:
        if not salt or "$" in salt:
            raise ValueError("the salt is empty or holds a $")
        digest = hashlib.sha256(f"{salt}${password}".encode()).hexdigest()
        return f"{self.algorithm}${salt}${digest}"

    def decode(self, encoded: str) -> dict:
        algorithm, salt, digest = encoded.split("$", 2)
        return {"algorithm": algorithm, "salt": salt, "hash": digest}

    def verify(self, password: str, encoded: str) -> bool:
        return constant_time_compare(encoded, self.encode(password, self.decode(encoded)["salt"]))

    def safe_summary(self, encoded: str) -> dict:
        parts = self.decode(encoded)
        return {
            _("algorithm"): parts["algorithm"],
            _("salt"): mask_hash(parts["salt"]),
            _("hash"): mask_hash(parts["hash"]),
        }

    def must_update(self, encoded: str) -> bool:
        return False

    def harden_runtime(self, password: str, encoded: str) -> None:
        pass
