"""What PostgreSQL's own catalogs say of the relations that a catalog maps.

Invariants:
- identifiers of other people's tables come back quoted by PostgreSQL, and only those reach SQL;
- reads catalogs that every role may read, so the reader's own connection sees the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from broker.catalog import Catalog, Kind
from broker.database import Connection, queries

WORD = re.compile(r"[a-z][a-z0-9_]{0,56}")
"""A kind's or field's name; `read_` before it still fits an identifier of 63 bytes."""

RESERVED = frozenset({"grant_id"})
"""Names that the reading views use themselves."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the database knows it."""

    number: int
    name: str
    quoted: str
    type: str  # without its length, so that a cast never cuts a value down to another's
    indexed: bool
    unique: bool
    leakproof: bool  # else the guard's policy keeps `=` from the index
    guard_reads: bool
    guard_granted: bool  # by a grant on this very column


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view of another owner."""

    oid: int
    quoted: str
    relkind: str
    owner: str
    row_security: bool
    forced: bool
    inherits: bool
    policies: tuple[str, ...]
    restricted: bool  # our policy for the guard is there, restrictive, and for the guard alone
    others_free: bool  # our policy for everybody else is there
    guard_owns: bool
    reader_owns: bool
    reader_rights: bool
    guard_table_rights: bool
    copiers: tuple[str, ...]  # roles that may INSERT and come under row security
    columns: Mapping[str, Column] = field(default_factory=dict)

    @property
    def is_view(self) -> bool:
        """Says whether it is a view, whose base tables carry the guard instead."""
        return self.relkind == "v"


@dataclass(frozen=True, slots=True)
class ViewBase:
    """One relation below a mapped view, and as whom the view above it reads it."""

    mapped: int
    via: str
    acting: str
    invoker: bool
    base: int
    relkind: str
    quoted: str
    columns: frozenset[int]
    under_guard: bool
    definers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a plan or a check needs to know of the records database."""

    relations: Mapping[str, Relation]  # by kind; a missing one is absent
    bases: Sequence[ViewBase]
    version: int  # server_version_num


async def look(conn: Connection, catalog: Catalog) -> World:
    """Reads the catalogs of the records database."""
    kinds = list(catalog.kinds.values())
    q = queries("records")
    rows = await conn.fetch(q.relations, [k.schema for k in kinds], [k.table for k in kinds])
    found = {kind.name: row for kind, row in zip(kinds, rows, strict=True) if row["oid"] is not None}
    oids = sorted({row["oid"] for row in found.values()})
    columns: dict[int, dict[str, Column]] = {oid: {} for oid in oids}
    for c in await conn.fetch(q.columns, oids):
        columns[c["relation"]][c["name"]] = Column(
            c["number"],
            c["name"],
            c["quoted"],
            c["type"],
            c["indexed"],
            c["is_unique"],
            c["leakproof"],
            c["guard_reads"],
            c["guard_granted"],
        )
    bases = [
        ViewBase(
            b["mapped"],
            b["via"],
            b["acting"],
            b["invoker"],
            b["base"],
            b["relkind"],
            b["quoted"],
            frozenset(b["columns"] or ()),
            b["under_guard"],
            tuple(b["definers"]),
        )
        for b in await conn.fetch(q.view_bases, oids)
    ]
    version = (await conn.fetch(q.is_installed))[0]["version"]
    relations = {
        name: Relation(
            row["oid"],
            row["quoted"],
            row["relkind"],
            row["owner"],
            row["row_security"],
            row["forced"],
            row["inherits"],
            tuple(row["policies"]),
            bool(row["restricted"]),
            bool(row["others_free"]),
            row["guard_owns"],
            row["reader_owns"],
            row["reader_rights"],
            row["guard_table_rights"],
            tuple(row["copiers"]),
            columns[row["oid"]],
        )
        for name, row in found.items()
    }
    return World(relations, bases, version)


def chain(catalog: Catalog, kind: Kind) -> list[Kind]:
    """Gives the kinds from the customer's own child down to this one; the root alone for itself."""
    if not kind.via:
        return [kind]
    links = [kind]
    while catalog.kinds[links[0].via].via:
        links.insert(0, catalog.kinds[links[0].via])
        if len(links) > len(catalog.kinds):
            raise ValueError(f"kind {kind.name}: its parents run in a circle")
    return links
