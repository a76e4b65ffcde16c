"""The published log as bytes: what /log/ serves, straight from its files."""

from consents.ledger import proofs, tiles


def file(address: str) -> bytes | None:
    """The checkpoint or a tile by its address under /log/; None where there is no such tile."""
    if address != tiles.CHECKPOINT:
        try:
            tiles.parse(address)
        except ValueError:
            return None
    try:
        return proofs.directory().read(address)
    except tiles.NoTile:
        return None
