"""Reads records through the guard, many passes in one statement.

Invariants:
- a pass is told to PostgreSQL inside the reading statement and is gone with it: no setting of a
  session ever holds one, so nothing can be carried over to the next user of a connection;
- rows find their way back by the grant id that the pass itself carries, under its MAC;
- one bad pass never fails its neighbours, a database that does not answer fails them all at once;
- this module never sees a key and cannot make a pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.catalog import Catalog, Kind
from broker.database import Batch, connection, queries
from broker.errors import (
    BrokerError,
    DatabaseUnavailableError,
    RecordsUnavailableError,
    RequestMalformedError,
    StartupError,
)
from broker.model import RecordSlice, Row
from broker.records.checks import check, installed_shape
from broker.records.relations import WORD
from broker.records.shape import Shape
from broker.records.steps import Template

READER_SETTINGS: Mapping[str, str] = {
    # Values leave as text: their spelling must not hang on how the server is set up.
    "datestyle": "ISO, YMD",
    "intervalstyle": "iso_8601",
    "bytea_output": "hex",
    # The plan does not depend on which passes come; planning each time would cost more than reading.
    "plan_cache_mode": "force_generic_plan",
}
"""Session settings of the pool that a `RecordReader` is given (`database.open_pool(settings=…)`)."""

BATCH = 64
"""Most passes in one statement: about 15 kB of text, well below what the guard accepts."""

BACKLOG = 2048
"""Most reads that wait; beyond, they are refused at once rather than after their deadline."""

PASS = re.compile(
    r"[a-z0-9]{8,32}\|([0-9a-f-]{36})\|[0-9a-f]{2,510}\|[a-z0-9_.,]{3,8192}\|[0-9]{1,12}\|[0-9a-f]{64}"
)
"""How a pass looks. What looks otherwise never reaches the statement: a blank would make it two."""


def is_pass_of(guard_pass: str, grant_id: UUID) -> bool:
    """Tells whether a text looks like the pass of a grant; whether it is one says the guard."""
    match = PASS.fullmatch(guard_pass)
    return match is not None and match[1] == str(grant_id)


@dataclass(frozen=True, slots=True)
class _Ask:
    """One read that waits for its batch."""

    grant_id: UUID
    guard_pass: str
    fields: tuple[str, ...]


Layout = tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
"""Kinds, each with (full field name, place in its rows)."""

MOST_LAYOUTS = 1024
"""Most field lists that are remembered; callers choose them, so there must be an end."""


class RecordReader:
    """Guarded batched reads over one pool of the reader's role."""

    def __init__(self, pool: asyncpg.Pool, catalog: Catalog) -> None:
        """Takes the reader's pool (opened with `READER_SETTINGS`) and the active catalog."""
        self._pool = pool
        self._reads: Batch[_Ask, RecordSlice] = Batch(
            self._flush_reads, limit=BATCH, backlog=BACKLOG, refused=_refused
        )
        self._names: Batch[tuple[str, str], tuple[str, str]] = Batch(
            self._flush_names, limit=BATCH, backlog=BACKLOG, refused=_refused
        )
        self.use(catalog)

    def use(self, catalog: Catalog) -> None:
        """Reads by this catalog from now on; a flush that is under way ends by the old one."""
        self._shelf = _Shelf(catalog)

    async def read(self, *, grant_id: UUID, guard_pass: str, fields: Sequence[str]) -> RecordSlice:
        """Reads fields of the customer that the pass opens; no row where the pass opens none.

        A field of the catalog that the pass does not name comes back as None.

        Args:
            grant_id: whose pass it is.
            guard_pass: as it was minted.
            fields: full names; a kind none of whose fields is named is not read.

        Raises:
            RecordsUnavailableError: the records database does not answer, is not set up for this
                catalog, or the pass is not one.
        """
        if not is_pass_of(guard_pass, grant_id):
            raise RecordsUnavailableError(cause="not a pass of this grant")
        return await self._reads.submit(_Ask(grant_id, guard_pass, tuple(fields)))

    async def pseudonyms(self, customer: str, ticket: str) -> tuple[str, str]:
        """Gives the pseudonyms of a customer and of their ticket; "" is the customer of nobody's ticket.

        Raises:
            RecordsUnavailableError: the records database does not answer.
        """
        return await self._names.submit((customer, ticket))

    def appending(self) -> Appending:
        """Gives the statements that append and read in one, under the catalog of now."""
        return self._shelf.appending

    async def drain(self) -> None:
        """Waits until no read is under way."""
        await self._reads.drain()
        await self._names.drain()

    async def verify_role(self, catalog: Catalog | None = None) -> None:
        """Checks that this role cannot pass the guard by, and that the guard knows the catalog.

        Raises:
            StartupError: the role is another one: its DSN must be mended, waiting does not help.
            RecordsUnavailableError: the guard does not stand, or cannot be looked at, which the records'
                owners can bring about and mend while we run; the cause names everything that is wrong.
            DatabaseUnavailableError: the records database does not answer.
        """
        async with connection(self._pool) as conn:
            if await conn.fetchval(
                "SELECT current_user <> 'broker_reader' OR session_user <> 'broker_reader'"
            ):
                raise StartupError(
                    "records database: log in as broker_reader, no other role reads through the guard"
                )
            try:
                found = await check(conn, catalog or self._shelf.catalog)
            except asyncpg.PostgresError as exc:  # a right is missing, or an installation is under way
                raise RecordsUnavailableError(cause=f"cannot be checked ({type(exc).__name__})") from exc
        wrong = [a for a in found if not a.ok and not a.warning]
        if wrong:
            lines = [f"{a.name}: {a.text}; {a.remedy}" for a in wrong]
            raise RecordsUnavailableError(cause="the guard does not stand:\n" + "\n".join(lines))

    async def installed_shape(self) -> Shape | None:
        """Gives what the installed guard holds, to be held against another catalog by `shape.uncovered`.

        None where no guard is installed, or it does not say.

        Raises:
            DatabaseUnavailableError: the records database does not answer.
        """
        async with connection(self._pool) as conn:
            return await installed_shape(conn)

    async def _flush_reads(self, asks: Sequence[_Ask]) -> Sequence[RecordSlice | BaseException]:
        shelf = self._shelf  # one catalog for the whole flush
        passes: dict[UUID, str] = {}
        wanted: dict[str, dict[UUID, str]] = {}
        for ask in asks:
            if passes.setdefault(ask.grant_id, ask.guard_pass) != ask.guard_pass:
                # Two passes of one grant cannot share a statement: the rows of one would be the other's.
                return await self._one_by_one(asks)
            for kind, _ in shelf.layout(ask.fields):
                wanted.setdefault(kind, {})[ask.grant_id] = ask.guard_pass
        rows: dict[str, dict[UUID, list[asyncpg.Record]]] = {}
        try:
            async with connection(self._pool) as conn:
                for kind, told in wanted.items():
                    by_grant = rows[kind] = {}
                    for record in await conn.fetch(shelf.statements[kind], " ".join(told.values())):
                        by_grant.setdefault(record[0], []).append(record)
        except DatabaseUnavailableError as exc:
            return [RecordsUnavailableError(cause=exc.cause) for _ in asks]
        except (asyncpg.PostgresError, RequestMalformedError) as exc:
            if len(asks) > 1:
                return await self._one_by_one(asks)
            return [RecordsUnavailableError(cause=type(exc).__name__)]
        return [_slice(ask, rows, shelf) for ask in asks]

    async def _one_by_one(self, asks: Sequence[_Ask]) -> list[RecordSlice | BaseException]:
        return [(await self._flush_reads([ask]))[0] for ask in asks]

    async def _flush_names(
        self, pairs: Sequence[tuple[str, str]]
    ) -> Sequence[tuple[str, str] | BaseException]:
        try:
            async with connection(self._pool) as conn:
                found = await conn.fetch(
                    queries("records").pseudonyms, [c for c, _ in pairs], [t for _, t in pairs]
                )
        except DatabaseUnavailableError as exc:
            return [RecordsUnavailableError(cause=exc.cause) for _ in pairs]
        except (asyncpg.PostgresError, RequestMalformedError) as exc:
            if len(pairs) > 1:
                return [(await self._flush_names([pair]))[0] for pair in pairs]
            return [RecordsUnavailableError(cause=type(exc).__name__)]
        if len(found) != len(pairs):  # an earlier release's guard leaves out whose salt is gone
            return [RecordsUnavailableError(cause="fewer pseudonyms than asked for") for _ in pairs]
        return [_pseudonyms(record) for record in found]


class _Shelf:
    """What one catalog means for reading: a statement per kind, and where each field is in its rows."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        template = queries("records").read_kind
        self.statements = {kind.name: _statement(kind, template) for kind in catalog.kinds.values()}
        self._places = {
            f.full_name: (kind.name, place)
            for kind in catalog.kinds.values()
            for place, f in enumerate(kind.fields.values(), 1)  # 0 is the grant id
        }
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self.appending = Appending(self)

    def layout(self, fields: tuple[str, ...]) -> Layout:
        """Gives the kinds that hold these fields and each field's place; remembers the usual ones."""
        layout = self._layouts.get(fields)
        if layout is None:
            by_kind: dict[str, list[tuple[str, int]]] = {}
            for name in fields:
                if name in self._places:
                    kind, place = self._places[name]
                    by_kind.setdefault(kind, []).append((name, place))
            layout = tuple((kind, tuple(columns)) for kind, columns in by_kind.items())
            if len(self._layouts) < MOST_LAYOUTS:
                self._layouts[fields] = layout
        return layout


class Appending:
    """The statements that append reads and read the accepted ones, where one database holds both.

    `one` takes the values of one read and its pass, `many` takes them as arrays.
    """

    def __init__(self, shelf: _Shelf) -> None:
        """Makes the statements for the shelf's catalog."""
        self._shelf = shelf
        self._root = shelf.catalog.root
        self.one = _statement(self._root, queries("records").append_one_and_read)
        self.many = _statement(self._root, queries("records").append_and_read)

    def covers(self, fields: tuple[str, ...]) -> bool:
        """Tells whether all fields are the root kind's own; rows of child kinds take a read of their own."""
        layout = self._shelf.layout(fields)
        return len(layout) == 1 and layout[0][0] == self._root.name

    def slice(self, fields: tuple[str, ...], records: Sequence[asyncpg.Record]) -> RecordSlice:
        """Gives what a statement read for one of its reads; no rows where it was refused."""
        [(kind, columns)] = self._shelf.layout(fields)
        found = [record for record in records if record[0] is not None]
        rows = [Row({name: record[place] for name, place in columns}) for record in found[: self._root.rows]]
        cut = frozenset({kind}) if len(found) > self._root.rows else frozenset[str]()
        return RecordSlice({kind: rows}, cut)


def _slice(
    ask: _Ask, rows: Mapping[str, Mapping[UUID, Sequence[asyncpg.Record]]], shelf: _Shelf
) -> RecordSlice:
    found: dict[str, Sequence[Row]] = {}
    truncated = []
    for kind, columns in shelf.layout(ask.fields):
        records = rows[kind].get(ask.grant_id, ())
        cap = shelf.catalog.kinds[kind].rows
        if len(records) > cap:
            truncated.append(kind)
        found[kind] = [Row({name: record[place] for name, place in columns}) for record in records[:cap]]
    return RecordSlice(found, frozenset(truncated))


def _statement(kind: Kind, template: str) -> str:
    """Makes the reading statement: tells the passes, then reads, both in one.

    The setting is local, so it ends with the statement's own transaction; OFFSET 0 keeps the two
    apart, so the view runs after the setting. Were they ever swapped, no pass would be seen: no rows.
    """
    words = [kind.name, *kind.fields]
    if not all(WORD.fullmatch(word) for word in words):
        raise StartupError(f"catalog: kind {kind.name!r} holds a name that is no word")
    columns = ", ".join(f'v."{name}"' for name in kind.fields)
    return Template(template).substitute(columns=columns, view=f"read_{kind.name}")


def _pseudonyms(record: asyncpg.Record) -> tuple[str, str] | BaseException:
    customer, ticket = record["customer_pseudonym"], record["ticket_pseudonym"]
    if customer is None:  # they are being erased: the ground, asked for again, will say so
        return RecordsUnavailableError(cause="salt destroyed meanwhile")
    return customer, ticket


def _refused() -> BrokerError:
    return RecordsUnavailableError(cause="backlog full")
