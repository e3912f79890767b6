"""Makes a notification pack (packed.py says what is in it): one question, its leaves, their proofs, signed.

    (1) put the question on record, bring the index up with the ledger
    (2) write the leaves in the log's order, and look whether they are what was asked for
    (3) write the list and the counts: the same leaves again, in the order of their customers
    (4) write the hashes that lead from the leaves to the newest published checkpoint
    (5) sign the digests of all that

Invariants:
- whatever is signed was read from leaves; one that does not bear out the index refuses the pack;
- it leaves in parts as it is made; what is kept in memory is one number a leaf;
- whoever shares the loop waits for some leaves' work, never for a pack's;
- the same question at the same checkpoint and time gives the same bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import zipfile
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO

import asyncpg

from broker.audit.disclosures import catch_up
from broker.audit.exposed import Read, Totals, fold, instant
from broker.audit.exposure import Selection, Words, find_words
from broker.audit.field_classes import chosen, field_classes
from broker.audit.leaves import ToldNothing, ToldOutcome, ToldRead, tell
from broker.audit.new_file import new_file
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
from broker.database import Connection, queries, transaction
from broker.errors import InternalError
from broker.keys import LogKeyFolder
from broker.merkle import Subtree, TileId, inclusion_proofs, subtree_hash, tiles_of
from broker.note import sign
from broker.tlog import LogInvalidError, Storage, newest_checkpoint
from broker.tlog.published import read_tile

Q = queries("exposure")

PART = 1 << 16
"""Bytes of a part."""

FETCHED = 2000
"""Leaves that are fetched at once."""

STEP = 100
"""Leaves or hashes between two looks at the loop: some milliseconds."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every member, so that the archive says nothing but its content."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A pack that was made."""

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
    """Writes a pack into a file that is not there yet; see `pack_parts`.

    Raises:
        OSError: the file cannot be written, or is there.
    """
    packed: Packed | None = None
    parts = pack_parts(pool, selection, keys=keys, storage=storage, now=now, progress=progress)
    with new_file(path) as file:
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, Packed):
                    packed = part
                else:
                    file.write(part)
    if packed is None:
        raise InternalError(cause="a pack without its last part")
    return packed


async def pack_parts(
    pool: asyncpg.Pool,
    selection: Selection,
    *,
    keys: LogKeyFolder,
    storage: Storage,
    now: datetime,
    progress: Callable[[str], None] = lambda _: None,
) -> AsyncGenerator[bytes | Packed, None]:
    """Makes a pack, part by part, and tells at last what is in it; the question is on record.

    See `exposure.put_question` for that.

    Args:
        pool: connections as broker_auditor, whose statements may take as long as the pack.
        selection: which disclosures.
        keys: of the log; its active key signs.
        storage: what the log has published.
        now: when, as it is written into the pack.
        progress: hears how far it is.

    Raises:
        LogInvalidError: nothing is published yet, some of the events are not, or a leaf does not bear out
            the index.
    """
    await catch_up(pool, progress)
    written = _Written()
    with zipfile.ZipFile(written, "w") as file:
        packing = _Packing(_Archive(file), selection, keys, storage, progress)
        async with aclosing(packing.steps(pool, now)) as steps:
            async for _ in steps:
                for part in written.parts():
                    yield part
                await asyncio.sleep(0)
    for part in written.parts(rest=True):
        yield part
    yield packing.packed


class _Packing:
    """One pack under way."""

    def __init__(
        self,
        archive: _Archive,
        selection: Selection,
        keys: LogKeyFolder,
        storage: Storage,
        progress: Callable[[str], None],
    ) -> None:
        self._archive = archive
        self._selection = selection
        self._asked = selection.as_mapping()
        self._keys = keys
        self._storage = storage
        self._progress = progress
        self._indexes = array("q")
        self._narrowed: set[tuple[str, str, str]] = set()
        self._reads = self._unreadable = 0
        self._fields: set[str] = set()
        self._open: list[Read] = []  # of the customer who may go on in the next row
        self._totals = Totals()
        self._tiles: dict[TileId, bytes] = {}

    async def steps(self, pool: asyncpg.Pool, now: datetime) -> AsyncGenerator[None, None]:
        """Writes all members; stops between steps, for whoever takes what is written."""
        archive = self._archive
        known = await field_classes(pool)
        async with transaction(pool) as conn:
            await conn.execute(Q.one_snapshot)
            words = await find_words(conn, self._selection)
            # Read after the snapshot was taken: what the tree has in there is published by now, or soon.
            published, rotations = await newest_checkpoint(self._storage, self._keys.load().keys[:1])
            checkpoint = published.checkpoint
            archive.add(README, [ABOUT.encode()])
            archive.add(CHECKPOINT, [published.note.encode()])
            archive.add(ROTATIONS, [json.dumps(rotations).encode()])
            with archive.member(LEAVES) as member:  # (2)
                async for row in _rows(conn, Q.leaves, words):
                    member.write(self._leaf(row, checkpoint.size))
                    if len(self._indexes) % STEP == 0:
                        self._progress(f"{len(self._indexes):,} events")
                        yield
            classes = chosen(known, self._fields)
            with archive.member(CUSTOMERS) as member:  # (3)
                count = 0
                async for row in _rows(conn, Q.leaves_by_customer, words):
                    member.write(self._customers(row, classes))
                    count += 1
                    if count % STEP == 0:
                        self._progress(f"{count:,} of {len(self._indexes):,} events listed")
                        yield
                member.write(self._last_customer(classes))
        report = report_of(self._reads, self._unreadable, self._totals, self._asked, classes, checkpoint)
        archive.add(REPORT, [report])
        yield
        with archive.member(NODES) as member:  # (4)
            wanted = inclusion_proofs(self._indexes, checkpoint.size)
            while some := list(islice(wanted, STEP)):
                for line_ in await self._nodes(some, checkpoint.size):
                    member.write(line_)
                yield
        digests = {name: archive.digests[name] for name in SIGNED}
        text = manifest_text(checkpoint.origin, instant(now), digests)
        archive.add(MANIFEST, [str(sign(text, self._keys.active_signer())).encode()])  # (5)
        self._size = checkpoint.size

    @property
    def packed(self) -> Packed:
        """Tells what was packed."""
        totals = self._totals
        return Packed(totals.customers, totals.reads, len(self._indexes), self._size)

    def _leaf(self, row: asyncpg.Record, size: int) -> bytes:
        """Looks at a leaf, and gives its line."""
        index, leaf = row["seq"], row["leaf"]
        if leaf is None:
            raise LogInvalidError(
                f"Event {row['event_id']} was dropped with its partition, so nothing can be proved of it."
            )
        if index is None or index >= size:
            raise LogInvalidError("Some of the events are not published yet; try again in a second.")
        match tell(leaf, self._asked):
            case None:
                raise _not_borne_out(index)
            case ToldRead() as told:
                if told.event_id != str(row["event_id"]):
                    raise _not_borne_out(index)
                self._reads += 1
                self._fields |= told.read[5].clear | told.read[5].masked
            case ToldOutcome(narrows):
                self._narrowed |= {narrows} if narrows else set()
            case ToldNothing():
                self._unreadable += 1
        self._indexes.append(index)
        return leaf_line(index, leaf)

    def _customers(self, row: asyncpg.Record, classes: Mapping[str, str]) -> bytes:
        """Takes a leaf of the next customer's, or of the same; gives the line of one who is complete."""
        told = tell(row["leaf"], self._asked)
        if not isinstance(told, ToldRead) or told.name in self._narrowed:
            return b""
        if told.read[0] != row["customer"]:
            raise LogInvalidError(
                f"The index has event {told.event_id} under another customer than the leaf."
            )
        complete = b""
        if self._open and self._open[0][0] != told.read[0]:
            complete = self._last_customer(classes)
        self._open.append(told.read)
        return complete

    def _last_customer(self, classes: Mapping[str, str]) -> bytes:
        """Counts the customer whose reads came last, and gives their line."""
        reads, self._open = self._open, []
        lines = []
        for one in fold(reads):
            self._totals.add(one)
            lines.append(line(one.as_mapping(classes)))
        return b"".join(lines)

    async def _nodes(self, parts: Sequence[Subtree], size: int) -> list[bytes]:
        """Computes hashes from the tiles; of these only the last ones are kept, which the next need again."""
        needed = sorted(tiles_of(parts, size))
        self._tiles = {tile: self._tiles.get(tile) or await read_tile(self._storage, tile) for tile in needed}
        return [node_line(part.lo, part.hi, subtree_hash(part, size, self._tiles)) for part in parts]


async def _rows(conn: Connection, statement: str, words: Words | None) -> AsyncIterator[asyncpg.Record]:
    """Reads a selection's rows; none where a word of it never came up."""
    if words is not None:
        async for row in conn.cursor(statement, *words.arguments, prefetch=FETCHED):
            yield row


def _not_borne_out(index: int) -> LogInvalidError:
    return LogInvalidError(f"Leaf {index} is not what the index says of it; run `broker audit verify`.")


class _Written:
    """What an archive is written into: it cannot go back, and is taken away in parts."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def flush(self) -> None:
        """Is what the archive asks for."""

    def close(self) -> None:
        """Is what its type asks for; what is left is taken away behind the archive's end."""

    def parts(self, *, rest: bool = False) -> Iterator[bytes]:
        """Takes away whole parts, and at the end the rest."""
        while len(self._data) >= PART or (rest and self._data):
            yield bytes(self._data[:PART])
            del self._data[:PART]


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
