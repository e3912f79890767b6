"""The log as it is published: the newest checkpoint, and hashes from its tiles.

Invariants:
- nothing from a tile is used before the tiles give the root that the checkpoint's signature covers, or
  before a proof from them leads there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from broker.merkle import (
    HASH_SIZE,
    TILE_WIDTH,
    Edge,
    Subtree,
    TileId,
    hashes_in,
    subtree_hash,
    tiles_of,
    width_at,
)
from broker.note import Note, NoteInvalidError, VerifierKey
from broker.tlog.checkpoint import Checkpoint, LogInvalidError, TrustedKeys
from broker.tlog.storage import CHECKPOINT, Storage

MOST_ROTATIONS = 1000
"""Records of rotation that are followed: one a day for three years, and nobody rotates that often."""


@dataclass(frozen=True, slots=True)
class Published:
    """The newest published checkpoint, verified."""

    checkpoint: Checkpoint
    note: str


def rotation_name(number: int) -> str:
    """Names the object with a record of rotation."""
    return f"rotations/{number}"


async def read_rotations(storage: Storage) -> list[Note]:
    """Reads the published records of rotation, in their order.

    Raises:
        LogInvalidError: one cannot be read.
    """
    found: list[Note] = []
    while len(found) < MOST_ROTATIONS:
        data = await storage.read(rotation_name(len(found)))
        if data is None:
            break
        try:
            found.append(Note.parse(data.decode()))
        except (NoteInvalidError, UnicodeDecodeError) as exc:
            raise LogInvalidError(f"{rotation_name(len(found))} is no record of rotation.") from exc
    return found


async def trusted_keys(storage: Storage, anchors: Sequence[VerifierKey]) -> TrustedKeys:
    """Follows the published records of rotation from the reader's keys."""
    return TrustedKeys(anchors, await read_rotations(storage))


async def read_checkpoint(storage: Storage, keys: TrustedKeys) -> Published | None:
    """Reads the newest published checkpoint; None where nothing was published yet.

    Raises:
        LogInvalidError: it is none, or not signed by the log.
    """
    data = await storage.read(CHECKPOINT)
    return None if data is None else _opened(data, keys)


def _opened(data: bytes, keys: TrustedKeys) -> Published:
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise LogInvalidError("The published checkpoint is no text.") from exc
    return Published(keys.open(text), text)


async def newest_checkpoint(storage: Storage, anchors: Sequence[VerifierKey]) -> tuple[Published, list[str]]:
    """Gives the newest published checkpoint, and the records of rotation that lead to its key.

    Raises:
        LogInvalidError: nothing is published, or nothing that the keys verify.
    """
    data = await storage.read(CHECKPOINT)  # before the records, so that none that it needs is missing
    rotations = await read_rotations(storage)
    if data is None:
        raise LogInvalidError("No checkpoint is published yet.")
    return _opened(data, TrustedKeys(anchors, rotations)), [str(note) for note in rotations]


async def read_tile(storage: Storage, tile: TileId) -> bytes:
    """Reads a tile; an unfinished one from the full one where it was finished since.

    Raises:
        LogInvalidError: it is not there, or cut short.
    """
    data = await storage.read(tile.path)
    if data is None and tile.width < TILE_WIDTH:
        data = await storage.read(tile.whole.path)
    wanted = tile.width * HASH_SIZE
    if data is None or len(data) < wanted:
        raise LogInvalidError(f"{tile.path} is not published, or cut short.")
    return data[:wanted]


async def read_edge(storage: Storage, checkpoint: Checkpoint) -> Edge:
    """Makes the edge of the published tree.

    Raises:
        LogInvalidError: the tiles do not give the checkpoint's root.
    """
    tiles = {tile: await read_tile(storage, tile) for tile in Edge.tiles_at(checkpoint.size)}
    edge = Edge.load(checkpoint.size, tiles)
    if edge.root() != checkpoint.root:
        raise LogInvalidError("The published tiles do not give the root of the published checkpoint.")
    return edge


async def read_hashes(
    storage: Storage, subtrees: Iterable[Subtree], size: int, published: int
) -> list[bytes]:
    """Computes the hashes of a proof in the tree of a size, from the tiles of the published one."""
    wanted = list(subtrees)
    tiles = {tile: await _read_at(storage, tile, published) for tile in sorted(tiles_of(wanted, size))}
    return [subtree_hash(subtree, size, tiles) for subtree in wanted]


async def read_root(storage: Storage, size: int, published: int) -> bytes:
    """Computes the root of an earlier size from the tiles of the published one."""
    tiles = {tile: await _read_at(storage, tile, published) for tile in Edge.tiles_at(size)}
    return Edge.load(size, tiles).root()


async def _read_at(storage: Storage, tile: TileId, published: int) -> bytes:
    """Reads a tile of an earlier size from what it has grown into: only the latest is sure to be there."""
    grown = TileId(tile.level, tile.index, width_at(tile.level, tile.index, published))
    return (await read_tile(storage, grown))[: tile.width * HASH_SIZE]


async def read_leaf_hashes(storage: Storage, lo: int, size: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Reads the published leaf hashes from lo on, tile by tile: the first's index, and the hashes."""
    for index in range(lo // TILE_WIDTH, -(-size // TILE_WIDTH)):
        data = await read_tile(storage, TileId(0, index, width_at(0, index, size)))
        start = max(lo, index * TILE_WIDTH)
        yield start, hashes_in(data)[start - index * TILE_WIDTH :]
