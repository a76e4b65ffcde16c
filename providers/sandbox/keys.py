"""Webhook secrets that somebody has put into a pretend organization's server, beside the one it was signed up with."""

import sqlite3

from providers import signing


def keep(db: sqlite3.Connection, organization: str, secret: str) -> None:
    """ValueError for what is no `whsec_…`."""
    signing.webhook_secret(secret)
    db.execute("INSERT OR IGNORE INTO secret VALUES (?, ?)", [organization, secret])


def known(db: sqlite3.Connection, organization: str) -> list[bytes]:
    rows = db.execute("SELECT secret FROM secret WHERE organization = ?", [organization])
    return [signing.webhook_secret(row["secret"]) for row in rows]
