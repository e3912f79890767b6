"""The catalog's values: which record kinds exist, on whose tables, with which fields.

Invariants:
- exactly one kind is the root (`customer` in the starting policy): its key is the customer's key;
- every other kind hangs on a parent by `via` and has a row cap;
- names are `[a-z][a-z0-9_]*`; a field's full name is `<kind>.<field>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class Mask(StrEnum):
    """How a value looks when it is masked; see `masking.py`."""

    DATE = "date"
    EMAIL = "email"
    PHONE = "phone"
    TAIL = "tail"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a kind: the column behind it, its class (a word of the rules) and its mask."""

    kind: str
    name: str
    column: str
    field_class: str
    mask: Mask

    @property
    def full_name(self) -> str:
        """Gives `<kind>.<field>`."""
        return f"{self.kind}.{self.name}"


@dataclass(frozen=True, slots=True)
class Kind:
    """One record kind over one table or view of another owner."""

    name: str
    schema: str
    table: str
    key: str  # key column; its type is read from the database, never declared
    fields: Mapping[str, Field]  # by field name, in the order of the file
    via: str = ""  # the parent kind; empty for the root
    link: str = ""  # the column here that holds the parent's key; empty for the root
    rows: int = 1  # most rows per customer


@dataclass(frozen=True)
class Catalog:
    """Everything `catalog.yaml` declares."""

    ticket_kinds: tuple[str, ...]
    purposes: Mapping[str, str]  # name -> sentence
    field_classes: Mapping[str, str]  # name -> sentence
    sensitive_classes: frozenset[str]
    kinds: Mapping[str, Kind]

    @cached_property
    def fields(self) -> dict[str, Field]:
        """Gives all fields by full name."""
        return {f.full_name: f for k in self.kinds.values() for f in k.fields.values()}

    def place_of(self, field: Field) -> str:
        """Gives where a field's data lie, `<schema>.<table>.<column>`: the same data under whatever name."""
        kind = self.kinds[field.kind]
        return f"{kind.schema}.{kind.table}.{field.column}"

    @cached_property
    def root(self) -> Kind:
        """Gives the kind whose key is the customer's."""
        return next(k for k in self.kinds.values() if not k.via)
