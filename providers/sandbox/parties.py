"""Who the pretend organizations are: a file that the seed writes, read again whenever it changes."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from providers import signing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Party:
    """One pretend organization with what it got when it was signed up."""

    code: str
    name_ko: str
    name_en: str
    is_operator: bool
    client_id: str
    client_secret: str
    secret: bytes
    key: ECKey
    kid: str
    services: frozenset[str]


class Parties:
    """All of them, and the address of the portal they deal with."""

    def __init__(self, path: Path | None):
        self.path = path
        self._portal = ""
        self._known: dict[str, Party] = {}
        self._seen: tuple[int, int] | None = None

    @property
    def portal(self) -> str:
        """The portal's address without a final slash; empty while it is not known."""
        self.refresh()
        return self._portal

    def get(self, code: str) -> Party | None:
        self.refresh()
        return self._known.get(code)

    def all(self) -> list[Party]:
        self.refresh()
        return sorted(self._known.values(), key=lambda party: party.code)

    def refresh(self) -> None:
        """Read the file if it is another one than last time. A broken file leaves what was known."""
        if self.path is None:
            return
        try:
            status = os.stat(self.path)
        except OSError:
            return
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            known = {code: _party(code, row) for code, row in content["organizations"].items()}
            portal = str(content["portal"]).rstrip("/")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, JoseError) as error:
            log.warning("the list of pretend organizations cannot be read: %s", type(error).__name__)
            return
        self._portal, self._known = portal, known


def _party(code: str, row: dict) -> Party:
    return Party(
        code=code,
        name_ko=row.get("name_ko") or code,
        name_en=row.get("name_en") or code,
        is_operator=bool(row.get("is_operator")),
        client_id=row["client_id"],
        client_secret=row["client_secret"],
        secret=signing.webhook_secret(row["secret"]),
        key=ECKey.import_key(row["jwk"]),
        kid=row["jwk"]["kid"],
        services=frozenset(row.get("services") or ()),
    )
