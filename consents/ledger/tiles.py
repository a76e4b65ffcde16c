"""The tree as files: C2SP tlog-tiles, their addresses, what writes them whole or not at all, and proofs read from them.

tile/<level>/<N>[.p/<W>]   256 hashes of 32 bytes, of complete subtrees of 256**level leaves; partial with W of them
tile/entries/<N>[.p/<W>]   256 entries, each behind its length as 16 bits, big-endian
"""

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import merkle

WIDTH = 256
ENTRIES = "entries"
CHECKPOINT = "checkpoint"
Level = int | str
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<n>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


class NoTile(LookupError):
    """A tile that should be there is not, or is not whole."""


# --- addresses ---------------------------------------------------------------------------------------------------------


def path(level: Level, n: int, width: int = WIDTH) -> str:
    """Where a tile lies: 1234067 is written x001/x234/067; a partial tile adds its width."""
    digits = f"{n:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return f"tile/{level}/{name}" + (f".p/{width}" if width < WIDTH else "")


def parse(text: str) -> tuple[Level, int, int]:
    """Level, number and width of an address; ValueError unless it is the one spelling of a possible tile."""
    found = _PATH.fullmatch(text)
    if not found:
        raise ValueError("not a tile")
    level: Level = ENTRIES if found["level"] == ENTRIES else int(found["level"])
    n, width = int(found["n"].replace("/", "").replace("x", "")), int(found["width"] or WIDTH)
    if (
        (isinstance(level, int) and level > 63)
        or (found["width"] and width >= WIDTH)
        or path(level, n, width) != text
    ):
        raise ValueError("not a tile")
    return level, n, width


def shape(size: int) -> list[tuple[int, int, int]]:
    """Level, full tiles, width of the partial one (0 where there is none), for each level of a tree of `size`."""
    rows, level = [], 0
    while size:
        rows.append((level, size // WIDTH, size % WIDTH))
        size //= WIDTH
        level += 1
    return rows


def all_paths(size: int) -> Iterator[str]:
    """Every tile of a tree of `size`, entries too."""
    for level, full, width in shape(size):
        kinds: list[Level] = [level, ENTRIES] if level == 0 else [level]
        for kind in kinds:
            for n in range(full):
                yield path(kind, n)
            if width:
                yield path(kind, full, width)


# --- entries in tiles --------------------------------------------------------------------------------------------------


def bundle(entries: Iterable[bytes]) -> bytes:
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def unbundle(data: bytes) -> list[bytes]:
    """The entries of a tile. Raises NoTile where the last one is cut short."""
    found, place, end = [], 0, len(data)
    while place < end:
        stop = place + 2 + int.from_bytes(data[place : place + 2], "big")
        if stop > end or place + 2 > end:
            raise NoTile("an entry is cut short")
        found.append(data[place + 2 : stop])
        place = stop
    return found


# --- files ---------------------------------------------------------------------------------------------------------------


class Directory:
    """A folder of tiles and the checkpoint: what /log/ serves, and what any static host could."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def read(self, address: str) -> bytes:
        """The bytes of a file. A partial tile that has grown since is cut from its longer successor. Raises NoTile."""
        try:
            return (self.root / address).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return self._beginning(address)

    def _beginning(self, address: str) -> bytes:
        try:
            level, n, width = parse(address)
        except ValueError:
            raise NoTile(address) from None
        for longer in self._longer(level, n, width):
            try:
                data = (self.root / longer).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            return bundle(unbundle(data)[:width]) if level == ENTRIES else data[: width * merkle.HASH_BYTES]
        raise NoTile(address)

    def _longer(self, level: Level, n: int, width: int) -> list[str]:
        if width == WIDTH:
            return []
        folder = self.root / (path(level, n) + ".p")
        widths = sorted(int(file.name) for file in folder.glob("[0-9]*") if file.name.isdigit())
        return [path(level, n, wider) for wider in widths if wider > width] + [path(level, n)]

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files so that each appears whole or not at all, and lies on the disk when this returns."""
        targets = [os.path.join(self.root, address) for address in files]  # plain text: these are many
        folders = {os.path.dirname(target) for target in targets}
        drafts = [f"{folder}/.{name}.{os.getpid()}" for folder, name in map(os.path.split, targets)]
        try:
            for folder in folders:
                os.makedirs(folder, exist_ok=True)
            with ThreadPoolExecutor(8) as pool:  # the disk takes many at once
                list(pool.map(_write, drafts, files.values()))
                for draft, target in zip(drafts, targets, strict=True):
                    os.rename(draft, target)
                list(pool.map(_sync, folders))
        except OSError:
            for draft in drafts:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(draft)  # a full disk must not stay full because of us
            raise

    def forget_partials(self, before: int, size: int) -> None:
        """Remove partial tiles that the published tree has outgrown on its way from `before` to `size`."""
        for level, full, width in shape(size):
            kinds: list[Level] = [level, ENTRIES] if level == 0 else [level]
            for kind in kinds:
                for n in range((before >> 8 * level) // WIDTH, full + 1):
                    folder = self.root / (path(kind, n) + ".p")
                    if not folder.is_dir():
                        continue
                    for file in folder.glob("[0-9]*"):
                        if n < full or int(file.name) < width:
                            file.unlink(missing_ok=True)


def _write(draft: str, data: bytes) -> None:
    with open(draft, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading the tree ------------------------------------------------------------------------------------------------------


class Tree:
    """A tree of `size` leaves read from its tiles: node hashes, and with them roots and proofs.

    `read` answers the bytes of a tile by address; at most about `2 + log256(size)` tiles are asked for per proof, and
    the last few hundred are kept in memory."""

    def __init__(self, read: Callable[[str], bytes], size: int, *, kept: int = 512) -> None:
        self.size = size
        self._read = read
        self._tile = functools.lru_cache(maxsize=kept)(self._fetch)

    def _fetch(self, level: int, n: int) -> bytes:
        width = min(WIDTH, (self.size >> 8 * level) - n * WIDTH)
        data = self._read(path(level, n, width))
        if len(data) != width * merkle.HASH_BYTES:
            raise NoTile(f"{path(level, n, width)} has {len(data)} bytes")
        return data

    def node(self, level: int, index: int) -> bytes:
        """The hash of the complete subtree `index` of 2**level leaves."""
        tile_level, height = divmod(level, 8)
        n, first = divmod(index << height, WIDTH)
        data = self._tile(tile_level, n)
        start, count = first * merkle.HASH_BYTES, 1 << height
        if start + count * merkle.HASH_BYTES > len(data):
            raise NoTile(f"level {level} has no subtree {index} in a tree of {self.size}")
        hashes = [
            data[start + i * merkle.HASH_BYTES : start + (i + 1) * merkle.HASH_BYTES] for i in range(count)
        ]
        return merkle.root(hashes)

    def root(self) -> bytes:
        return merkle.tree_root(self.node, self.size)

    def inclusion_proof(self, index: int) -> list[bytes]:
        return merkle.inclusion_proof(self.node, index, self.size)

    def consistency_proof(self, old: int) -> list[bytes]:
        return merkle.consistency_proof(self.node, old, self.size)

    def check(self, since: int = 0) -> None:
        """Read every tile that a tree of `since` leaves did not have full, and compare each with what it stands on: entries
        with leaves, tiles with the tiles below. With the root it says that this tree can be read whole. Raises NoTile."""
        below: dict[int, bytes] = {}
        for level, full, width in shape(self.size):
            above: dict[int, bytes] = {}
            for n in range((since >> 8 * level) // WIDTH, full + bool(width)):
                data = self._fetch(level, n)
                hashes = [data[i : i + merkle.HASH_BYTES] for i in range(0, len(data), merkle.HASH_BYTES)]
                if level == 0:
                    entries = unbundle(self._read(path(ENTRIES, n, len(hashes))))
                    right = [merkle.leaf_hash(entry) for entry in entries] == hashes
                else:
                    places = enumerate(hashes, n * WIDTH)
                    right = all(below.get(place, hash_) == hash_ for place, hash_ in places)
                if not right:
                    raise NoTile(f"{path(level, n, len(hashes))} does not agree with what it stands on")
                if len(hashes) == WIDTH:
                    above[n] = merkle.root(hashes)
            below = above

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Index and bytes of every entry from the tile of `start` on, tile by tile."""
        for n in range(start // WIDTH, -(-self.size // WIDTH)):
            width = min(WIDTH, self.size - n * WIDTH)
            found = unbundle(self._read(path(ENTRIES, n, width)))
            if len(found) != width:
                raise NoTile(f"{path(ENTRIES, n, width)} holds {len(found)} entries")
            yield from enumerate(found, n * WIDTH)


# --- growing the tree --------------------------------------------------------------------------------------------------------


class Edge:
    """The right edge of a growing tree: per level, the hashes of the tile that is not full. At most 255 each."""

    def __init__(self, size: int = 0, levels: list[list[bytes]] | None = None) -> None:
        self.size = size
        self.levels: list[list[bytes]] = levels or []

    @classmethod
    def load(cls, read: Callable[[str], bytes], size: int) -> "Edge":
        """The edge of a tree of `size` that lies in tiles. Raises NoTile."""
        levels = []
        for level, full, width in shape(size):
            data = read(path(level, full, width)) if width else b""
            if len(data) != width * merkle.HASH_BYTES:
                raise NoTile(f"{path(level, full, width)} has {len(data)} bytes")
            levels.append([data[i : i + merkle.HASH_BYTES] for i in range(0, len(data), merkle.HASH_BYTES)])
        return cls(size, levels)

    def copy(self) -> "Edge":
        return Edge(self.size, [list(level) for level in self.levels])

    def root(self) -> bytes:
        rest: bytes | None = None
        for level in self.levels:
            hashes = level if rest is None else [*level, rest]
            if hashes:
                rest = merkle.root(hashes)
        return rest or merkle.EMPTY_ROOT

    def grow(self, leaves: Iterable[bytes]) -> dict[str, bytes]:
        """Add leaf hashes; answers the hash tiles that became full, by address. Those that are not: `partials`."""
        full: dict[str, bytes] = {}
        arriving, level, before = list(leaves), 0, self.size
        self.size += len(arriving)
        while arriving:
            if level == len(self.levels):
                self.levels.append([])
            n = (before >> 8 * level) // WIDTH
            hashes = self.levels[level] + arriving
            arriving = []
            whole = len(hashes) - len(hashes) % WIDTH
            for start in range(0, whole, WIDTH):
                tile = hashes[start : start + WIDTH]
                full[path(level, n)] = b"".join(tile)
                arriving.append(merkle.root(tile))
                n += 1
            self.levels[level] = hashes[whole:]
            level += 1
        return full

    def partials(self) -> dict[str, bytes]:
        """The hash tiles at the edge that are not full, by address."""
        return {
            path(level, (self.size >> 8 * level) // WIDTH, len(hashes)): b"".join(hashes)
            for level, hashes in enumerate(self.levels)
            if hashes
        }


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
