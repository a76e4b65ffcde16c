"""The published log as files for any static host: the same bytes that /log/ serves."""

import os
from collections.abc import Callable
from pathlib import Path

from . import notes, proofs, tiles

BATCH = 256  # files written at a time
TIMELESS = (
    946_684_800  # what a host would tell of a tile as Last-Modified: 2000-01-01, and not when somebody acted
)


class NotPossible(Exception):
    """The folder cannot take this log; the message says why."""


def export(folder: Path, *, progress: Callable[[int], object] = lambda done: None) -> tuple[int, int]:
    """Write checkpoint and tiles of the published tree, the checkpoint last; answers its size and how many files were
    written. Over an earlier export only what is new is written. Raises NotPossible, tiles.NoTile."""
    shown = proofs.published()
    if shown is None:
        raise NotPossible("nothing is published yet: start the portal, or run manage.py ledger sequence")
    target, source = tiles.Directory(folder), proofs.directory()
    before = _exported(target, shown)
    written = 0
    for batch in tiles.batches(tiles.all_paths(shown.checkpoint.size), BATCH):
        missing = [address for address in batch if not (folder / address).exists()]
        target.write({address: source.read(address) for address in missing})
        for address in missing:
            os.utime(folder / address, (TIMELESS, TIMELESS))
        written += len(missing)
        progress(len(batch))
    target.write({tiles.CHECKPOINT: shown.note.encode()})
    target.forget_partials(before, shown.checkpoint.size)
    return shown.checkpoint.size, written + 1


def _exported(target: tiles.Directory, shown: proofs.Published) -> int:
    """The size of the export that lies there, 0 for none. Another log's, or a larger one, is not written over."""
    path = target.root / tiles.CHECKPOINT
    if not path.exists():
        if target.root.exists() and any(target.root.iterdir()):
            raise NotPossible(f"{target.root} holds something else: give an empty folder")
        return 0
    try:
        there = notes.Checkpoint.parse(notes.Note.parse(path.read_text(encoding="utf-8")).text)
    except (notes.BadNote, UnicodeDecodeError) as problem:
        raise NotPossible(
            f"the checkpoint in {target.root} cannot be read: give an empty folder"
        ) from problem
    if there.origin != shown.checkpoint.origin or there.size > shown.checkpoint.size:
        raise NotPossible(f"{target.root} holds {there.size} entries of {there.origin}: give another folder")
    return there.size
