"""Makes a notification pack (packed.py says what is in it): one question, its leaves, their proofs, signed.

    (1) put the question on record, bring the index up with the ledger
    (2) write the leaves in the log's order, and read what they tell
    (3) write the hashes that lead from them to the newest published checkpoint
    (4) write list and counts, from the leaves alone
    (5) sign the digests of all that

Invariants:
- whatever is signed was read from leaves; one that does not bear out the index refuses the pack;
- the file is there whole or not at all, and its owner's alone: it names agents and pseudonyms;
- the same question at the same checkpoint and time gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO

import asyncpg

from broker.audit.disclosures import catch_up
from broker.audit.exposed import Totals, instant
from broker.audit.exposure import AT_ONCE, Selection, find_words
from broker.audit.exposure import classes_of_fields as classes_of
from broker.audit.leaves import Told
from broker.audit.packed import (
    ABOUT,
    CHECKPOINT,
    CUSTOMERS,
    LEAVES,
    MANIFEST,
    NODES,
    README,
    REPORT,
    ROTATIONS,
    SIGNED,
    leaf_line,
    line,
    manifest_text,
    node_line,
    report_of,
)
from broker.database import queries, transaction
from broker.keys import LogKeyFolder
from broker.merkle import Subtree, TileId, inclusion_proof, subtree_hash, tiles_of
from broker.note import sign
from broker.tlog import LogInvalidError, Storage, newest_checkpoint
from broker.tlog.published import read_tile

Q = queries("exposure")

NODES_AT_ONCE = 2000

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every member, so that the archive says nothing but its content."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A pack that was written."""

    path: Path
    customers: int
    reads: int
    leaves: int
    size: int  # of the log


async def build_pack(
    pool: asyncpg.Pool,
    selection: Selection,
    path: Path,
    *,
    keys: LogKeyFolder,
    storage: Storage,
    now: datetime,
    progress: Callable[[str], None] = lambda _: None,
) -> Packed:
    """Writes a pack; the question is on record (`exposure.put_question`).

    Args:
        pool: connections as broker_auditor, whose statements may take as long as the pack.
        selection: which disclosures.
        path: the file; it must not be there.
        keys: of the log; its active key signs.
        storage: what the log has published.
        now: when, as it is written into the pack.
        progress: hears how far it is.

    Raises:
        LogInvalidError: nothing is published yet, some of the events are not, or a leaf does not bear out
            the index.
        OSError: the file cannot be written.
    """
    await catch_up(pool, progress)
    published, rotations = await newest_checkpoint(storage, keys.load().keys[:1])
    size = published.checkpoint.size
    asked = selection.as_mapping()
    told, totals = Told(), Totals()
    indexes: list[int] = []
    with _archive(path) as archive:
        archive.add(README, [ABOUT.encode()])
        archive.add(CHECKPOINT, [published.note.encode()])
        archive.add(ROTATIONS, [json.dumps(rotations).encode()])
        with archive.member(LEAVES) as member:
            async for index, leaf in _leaves(pool, selection, size):
                if not told.add(leaf, asked):
                    raise LogInvalidError(
                        f"Leaf {index} is not what the index says of it; run `broker audit verify`."
                    )
                member.write(leaf_line(index, leaf))
                indexes.append(index)
                if len(indexes) % AT_ONCE == 0:
                    progress(f"{len(indexes):,} events")
        with archive.member(NODES) as member:
            async for part, digest in _nodes(storage, indexes, size, progress):
                member.write(node_line(part.lo, part.hi, digest))
        progress("Writing the list")
        fields = frozenset(f for read in told.disclosed for f in (*read[5].clear, *read[5].masked))
        async with transaction(pool) as conn:
            classes = await classes_of(conn, fields)
        archive.add(CUSTOMERS, (line(one) for one in told.customers(totals, classes)))
        archive.add(REPORT, [report_of(told, totals, asked, classes, published.checkpoint)])
        digests = {name: archive.digests[name] for name in SIGNED}
        text = manifest_text(published.checkpoint.origin, instant(now), digests)
        archive.add(MANIFEST, [str(sign(text, keys.active_signer())).encode()])
    return Packed(path, totals.customers, totals.reads, len(indexes), size)


async def _leaves(pool: asyncpg.Pool, selection: Selection, size: int) -> AsyncIterator[tuple[int, bytes]]:
    async with transaction(pool) as conn:
        await conn.execute(Q.one_snapshot)
        words = await find_words(conn, selection)
        if words is None:
            return
        async for row in conn.cursor(Q.leaves, *words.arguments, prefetch=AT_ONCE):
            if row["leaf"] is None:
                raise LogInvalidError(
                    f"Event {row['event_id']} was dropped with its partition, so nothing can be proved of it."
                )
            if row["seq"] is None or row["seq"] >= size:
                raise LogInvalidError("Some of the events are not published yet; try again in a second.")
            yield row["seq"], row["leaf"]


async def _nodes(
    storage: Storage, indexes: Sequence[int], size: int, progress: Callable[[str], None]
) -> AsyncIterator[tuple[Subtree, bytes]]:
    """Gives each hash that the leaves' proofs need once, in their order, computed from the tiles."""
    wanted = sorted(
        {(part.lo, part.hi) for index in indexes for part in inclusion_proof(index, size)},
    )
    tiles: dict[TileId, bytes] = {}
    for start in range(0, len(wanted), NODES_AT_ONCE):
        parts = [Subtree(lo, hi) for lo, hi in wanted[start : start + NODES_AT_ONCE]]
        needed = tiles_of(parts, size)
        tiles = {
            tile: tiles[tile] if tile in tiles else await read_tile(storage, tile) for tile in sorted(needed)
        }
        for part in parts:
            yield part, subtree_hash(part, size, tiles)
        progress(f"{start + len(parts):,} of {len(wanted):,} hashes")


@dataclass
class _Archive:
    """Members with their digests, written as they come."""

    file: zipfile.ZipFile
    digests: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, name: str, parts: Iterable[bytes]) -> None:
        with self.member(name) as member:
            for part in parts:
                member.write(part)

    @contextmanager
    def member(self, name: str) -> Iterator[_Digested]:
        info = zipfile.ZipInfo(name, EPOCH)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        with self.file.open(info, "w", force_zip64=True) as member:
            digested = _Digested(member)
            yield digested
        self.digests[name] = (digested.digest.hexdigest(), digested.size)


class _Digested:
    """A member that is hashed while it is written."""

    def __init__(self, member: IO[bytes]) -> None:
        self._member = member
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._member.write(data)
        self.digest.update(data)
        self.size += len(data)


@contextmanager
def _archive(path: Path) -> Iterator[_Archive]:
    """Opens the archive under another name, and gives it its own when it is whole."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                yield _Archive(archive)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # unlike a rename, never over a file that is there
    finally:
        part.unlink(missing_ok=True)
