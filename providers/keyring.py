"""The portal's signing keys as files that change: a next one published a day ahead, retired ones published until nothing
needs them, and a compromised one gone at once.

`set.pem` signs, `set.next.pem` will, `set.<kid>.pem` did. A process keeps what it has read: after `take_up` and `replace`
web and workers are restarted; whatever they signed meanwhile is signed with a key that is still published, or is found by
the next re-issue.
"""

import contextlib
import os
import tempfile
import time
from pathlib import Path

from django.conf import settings

from providers import signing, vault

PURPOSES = ("set", "receipt")
PUBLISHED_BEFORE = (
    24 * 3600
)  # seconds that a key is published before it signs: receivers may keep our keys that long

PUBLISHED_AFTER = 30 * 24 * 3600  # seconds that a key is published after it signed last, at least


class NotReady(Exception):
    """There is no next key, or it was not published for long enough."""


class TooSoon(Exception):
    """The key signed not long ago: others may check for PUBLISHED_AFTER what they have."""


class KeyInUse(Exception):
    """The key signs now: take up another, or say that it is compromised."""


class UnknownKey(LookupError):
    """No key of this purpose has that kid."""


def keys(purpose: str) -> list[tuple[str, str]]:
    """(kid, state) of every key of a purpose that is published: current, next or retired."""
    found = [(signing.kid_of(vault.key_file(f"{purpose}.pem", signing.new_key)), "current")]
    for path in sorted(_folder().glob(f"{purpose}.*.pem")):
        state = "next" if path.name == f"{purpose}.next.pem" else "retired"
        found.append((signing.kid_of(path.read_bytes()), state))
    return found


def prepare(purpose: str) -> str:
    """Publish a next key; the one that is there where there is one already. Returns its kid."""
    path = _folder() / f"{purpose}.next.pem"
    if not path.exists():
        _write(path, signing.new_key())
    return signing.kid_of(path.read_bytes())


def take_up(purpose: str, *, now: float | None = None) -> tuple[str, str]:
    """Sign with the next key from now on (after a restart); the old one stays published. Returns (old kid, new kid).

    Raises NotReady where the next key was not published for a day."""
    following = _folder() / f"{purpose}.next.pem"
    age = (time.time() if now is None else now) - (following.stat().st_mtime if following.exists() else 0)
    if not following.exists() or age < PUBLISHED_BEFORE:
        raise NotReady(purpose)
    current = _folder() / f"{purpose}.pem"
    old = signing.kid_of(vault.key_file(current.name, signing.new_key))
    # First the copy, then the change: at no moment is the old key unpublished, whatever crashes in between.
    _write(_folder() / f"{purpose}.{old[:16]}.pem", current.read_bytes())
    os.replace(following, current)
    vault.forget_keys()
    return old, signing.kid_of(current.read_bytes())


def drop(purpose: str, kid: str, *, now: float | None = None) -> None:
    """Stop publishing a retired or next key. Raises KeyInUse, TooSoon, UnknownKey."""
    state = dict(keys(purpose)).get(kid)
    if state is None:
        raise UnknownKey(kid)
    if state == "current":
        raise KeyInUse(kid)
    found = [path for path in _folder().glob(f"{purpose}.*.pem") if signing.kid_of(path.read_bytes()) == kid]
    if state == "retired":
        # The file was written when the key was retired.
        age = (time.time() if now is None else now) - max(path.stat().st_mtime for path in found)
        if age < PUBLISHED_AFTER:
            raise TooSoon(kid)
    for path in found:
        path.unlink()


def replace(purpose: str) -> tuple[str, str]:
    """The key is compromised: another signs from now on, and the old one is published no more. Returns (old kid, new kid)."""
    current = _folder() / f"{purpose}.pem"
    old = signing.kid_of(vault.key_file(current.name, signing.new_key))
    following = _folder() / f"{purpose}.next.pem"
    if not following.exists():
        _write(following, signing.new_key())
    os.replace(following, current)
    with contextlib.suppress(FileNotFoundError):
        (_folder() / f"{purpose}.{old[:16]}.pem").unlink()
    vault.forget_keys()
    return old, signing.kid_of(current.read_bytes())


def _folder() -> Path:
    return Path(settings.PORTAL_KEYS_DIR)


def _write(path: Path, content: bytes) -> None:
    """The file is there whole, for our eyes only, or not at all."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
