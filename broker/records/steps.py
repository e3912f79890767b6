"""One statement of an installation with its undo, filled from a template of `sql/records_guard.sql`; no I/O.

Invariants:
- every step knows its undo;
- what is filled into a template was quoted by PostgreSQL, by `literal`, or matches `relations.WORD`.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass

from broker.database import queries
from broker.records.relations import Relation


class Template(string.Template):
    """A template whose mark is `@`, because `$` is PostgreSQL's own."""

    delimiter = "@"


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, its undo, and why."""

    sql: str
    undo: str  # "" where undoing an earlier step undoes this one
    why: str
    part: str = "mapping"  # `store` outlives a change of the catalog: keys, salts, the record itself
    relation: str = ""  # the table of another owner that it changes, quoted; locked beforehand


def literal(text: str) -> str:
    """Spells a text as an SQL literal; a backslash makes it an E'' string, whatever the session says."""
    quoted = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{quoted}'" if "\\" in text else f"'{quoted}'"


def fill(name: str, **values: object) -> str:
    """Fills a template of `sql/records_guard.sql`."""
    text: str = getattr(queries("records_guard"), name)
    return Template(text).substitute({k: str(v) for k, v in values.items()}).rstrip().removesuffix(";")


def step(name: str, why: str, *, part: str = "mapping", relation: str = "", **values: str) -> Step:
    """Makes a step from the template of a name and the one of its undo."""
    undo = f"{name}_end" if name in {"schema_create", "match_create"} else f"{name}_undo"
    return Step(fill(name, **values), fill(undo, **values), why, part, relation)


def grant(relation: Relation, columns: Iterable[str], role: str, why: str) -> Step:
    """Makes the step that lets a role read columns, quoted, of a relation."""
    return step(
        "columns_grant",
        why,
        table=relation.quoted,
        columns=", ".join(columns),
        role=role,
        revokes="\n    ".join(
            fill("column_revoke", table=relation.quoted, column=c, role=role) + ";" for c in columns
        ),
    )
