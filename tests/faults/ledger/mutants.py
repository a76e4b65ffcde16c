"""Faults put into the portal on purpose, one at a time (MUTANT names it): an experiment that holds under one is no experiment.

Applied in the processes of the experiments only, before they fork.
"""

from types import SimpleNamespace

from django.conf import settings
from django.db import connections, transaction

from consents.ledger import cosigning, merkle, notes, sequencer, signer, tiles


def watermark() -> None:
    """F08: orders what is newer than what was ordered last, instead of what waits."""
    sql = """
    WITH taken AS (
      SELECT event_id, leaf_hash, created_at FROM ledger.event
      WHERE created_at > coalesce((SELECT max(e.created_at) FROM ledger.leaf JOIN ledger.event e USING (event_id)), '-infinity')
      ORDER BY created_at LIMIT %(limit)s
    ), gone AS (
      DELETE FROM ledger.pending USING taken WHERE pending.event_id = taken.event_id
    ), ordered AS (
      INSERT INTO ledger.leaf (leaf_index, event_id, leaf_hash)
      SELECT %(first)s - 1 + row_number() OVER (ORDER BY created_at), event_id, leaf_hash FROM taken RETURNING 1
    )
    SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM ordered)
    """
    sequencer._ORDER_SQL = sql


def sign_before_commit() -> None:
    """F08: one transaction for everything, so that a signature can leave before its leaves are committed."""
    right = sequencer.Sequencer._run

    def run(self, signing, rounds, batch):
        with transaction.atomic(using=settings.LEDGER_ALIAS):
            return right(self, signing, rounds, batch)

    sequencer.Sequencer._run = run


def forgetful_signer() -> None:
    """F08, F11: the signer does not remember across a restart what it signed."""
    right = signer.Signer.__init__

    def init(self, folder, origin):
        right(self, folder, origin)
        self._memory = {"origin": origin, "size": 0, "root": merkle.EMPTY_ROOT.hex(), "note": ""}

    signer.Signer.__init__ = init


def signer_asks_the_database() -> None:
    """F11: what a signer has signed is looked up in the database when it starts."""
    right = signer.Signer.__init__

    def init(self, folder, origin):
        right(self, folder, origin)
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT tree_size, root_hash, note FROM ledger.checkpoint ORDER BY tree_size DESC LIMIT 1"
            )
            size, root, note = cursor.fetchone() or (0, merkle.EMPTY_ROOT, "")
        connections.close_all()
        self._memory = {"origin": origin, "size": size, "root": bytes(root).hex(), "note": note}

    signer.Signer.__init__ = init


def writes_in_place() -> None:
    """F09: files are written where they are read, so that half a file can be read."""

    def write(self, files):
        for address, data in files.items():
            target = self.root / address
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    tiles.Directory.write = write


def publishes_unread() -> None:
    """F09: the tiles are not looked at before their checkpoint is published."""
    cosigning._check_tiles = lambda newest, before: None


def quorum_of_none() -> None:
    """F10: published whoever has cosigned."""
    cosigning.notes = SimpleNamespace(**{**vars(notes), "opened": lambda note, policy: None})


def silence_is_consent() -> None:
    """F10: a witness that lets us wait counts as one that has cosigned."""
    right = notes.Policy.satisfied

    def satisfied(self, present):
        return right(self, present) or bool(cosigning._resting)

    notes.Policy.satisfied = satisfied


def any_line_counts() -> None:
    """F10: whatever a witness answers is taken for its cosignature, and published as it came."""

    def checked(body, witness, newest, now):
        return [line for line in body.decode().splitlines() if line.startswith("—")]

    cosigning._checked = checked
    quorum_of_none()


def deaf_to_ahead() -> None:
    """F10: that a witness has seen more than we have is only one more witness that does not answer."""
    right = cosigning._ask

    async def ask(session, witness, newest, report, old, now):
        await right(session, witness, newest, report, old, now)
        report.ahead.clear()

    cosigning._ask = ask


def forgets_who_was_ahead() -> None:
    """F10: the silence of a witness that was ahead lets the log go on."""
    cosigning._hold_what_was_ahead = lambda *_: None


def starts_at_zero() -> None:
    """F10: every witness is told that it has seen nothing, and is not asked where it is."""
    right = cosigning._submit

    async def submit(session, witness, newest, old):
        return await right(session, witness, newest, 0)

    cosigning._submit = submit


def apply(name: str) -> None:
    globals()[name]()
