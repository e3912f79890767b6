"""What the guard holds of a catalog, and what of a catalog an installed guard lacks; pure.

A version whose catalog needs more than the guard holds must not become active: its reads would fail, or
show what somebody else was asked about. Putting more into the guard is the database administrator's
step, so what is lacking is said in sentences, with the command.

Invariants:
- classes, masks and labels are the broker's alone and not part of the shape;
- a guard that holds more is enough: fewer fields and fewer rows need nobody's step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from broker.catalog import Catalog

INSTALL_COMMAND = "broker records install --policies DIR --yes"
"""What the database administrator runs, with the folder that holds the new catalog."""

Shape = Mapping[str, Mapping[str, Any]]
"""By kind: table, key, parent and link, row cap, and the columns by field."""


def guard_shape(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Gives what of a catalog is built into the guard."""
    return {
        kind.name: {
            "table": [kind.schema, kind.table],
            "key": kind.key,
            "via": kind.via,
            "link": kind.link,
            "rows": kind.rows,
            "fields": {f.name: f.column for f in kind.fields.values()},
        }
        for kind in catalog.kinds.values()
    }


def shape_text(shape: Shape) -> str:
    """Spells a shape in one way, for storing and comparing."""
    return json.dumps(shape, sort_keys=True, ensure_ascii=True)


def shape_digest(shape: Shape) -> str:
    """Names a shape: hex SHA-256 of its spelling."""
    return hashlib.sha256(shape_text(shape).encode()).hexdigest()


def uncovered(installed: Shape, catalog: Catalog) -> tuple[str, ...]:
    """Says what a catalog needs and the installed guard lacks, or holds otherwise; empty: it is enough."""
    return tuple(
        sentence
        for name, wanted in guard_shape(catalog).items()
        for sentence in _lacking(name, wanted, installed.get(name))
    )


def _lacking(name: str, wanted: Mapping[str, Any], have: Mapping[str, Any] | None) -> Iterator[str]:
    if have is None:
        yield f"kind {name}: the guard does not have it"
        return
    for part, noun in (("table", "table"), ("key", "key"), ("via", "parent"), ("link", "link")):
        if have.get(part) != wanted[part]:
            yield f"kind {name}: the guard has {noun} {_named(have.get(part))}, not {_named(wanted[part])}"
    if int(have.get("rows", 0)) < wanted["rows"]:
        yield f"kind {name}: the guard shows {have.get('rows', 0)} rows at most, not {wanted['rows']}"
    columns = have.get("fields", {})
    for field, column in wanted["fields"].items():
        if field not in columns:
            yield f"{name}.{field}: the guard does not have it (column {column})"
        elif columns[field] != column:
            yield f"{name}.{field}: the guard has column {columns[field]}, not {column}"


def _named(part: object) -> str:
    return ".".join(map(str, part)) if isinstance(part, list) else str(part or "none")
