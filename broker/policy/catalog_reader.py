"""The strict reader of `catalog.yaml`.

Invariants (beyond those of `catalog.py`):
- each column is one field: a second name with a milder class would undo the first one's rules;
- whatever is declared is also sound: classes exist, parents exist, no kind hangs on itself.
"""

from __future__ import annotations

import re
from functools import lru_cache
from types import MappingProxyType

from broker.catalog import Catalog, Field, Kind, Mask
from broker.policy.files import CATALOG
from broker.policy.findings import Findings, TooManyFindingsError, nearest, quoted
from broker.policy.lines import NAME, RESERVED
from broker.policy.strict_yaml import Value, read_yaml

VERSION = 1
"""The only version of the file's form."""

MAX_ROWS = 1000
"""Most rows of a kind per customer: a record is one person's, not a report."""

MAX_WORDS = 200
"""Most ticket kinds, purposes or field classes."""

MAX_FIELDS = 1000
"""Most fields of all kinds together."""

_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")  # quoted later; PostgreSQL cuts beyond 63


def read_catalog(text: str, findings: Findings) -> Catalog | None:
    """Reads the catalog; gives None where it is unusable, and findings where anything is wrong."""
    return _sound(text) or _read(text, findings)


@lru_cache(maxsize=4)
def _sound(text: str) -> Catalog | None:
    """Reads a catalog that has no findings; most versions have it from the one before, and YAML is slow."""
    findings = Findings()
    try:
        catalog = _read(text, findings)
    except TooManyFindingsError:
        return None
    return None if len(findings) else catalog


def _read(text: str, findings: Findings) -> Catalog | None:
    document = read_yaml(CATALOG, text, findings)
    if document is None:
        return None
    before = len(findings)
    top = document.keys(("version", "ticket_kinds", "purposes", "field_classes", "kinds"))
    if len(findings) > before:
        return None
    top["version"].number(VERSION, VERSION)
    ticket_kinds = tuple(top["ticket_kinds"].texts())
    for word in ticket_kinds:
        _check_word(top["ticket_kinds"], "ticket kind", word)
    purposes: dict[str, str] = {}
    for word, key, value in top["purposes"].items():
        _check_word(key, "purpose", word)
        purposes[word] = value.text()
    classes: dict[str, str] = {}
    sensitive: set[str] = set()
    for word, key, value in top["field_classes"].items():
        _check_word(key, "field class", word)
        about = value.keys(("about",), ("sensitive",))
        classes[word] = about["about"].text() if "about" in about else ""
        if "sensitive" in about and about["sensitive"].flag():
            sensitive.add(word)
    for name, words in (("ticket_kinds", ticket_kinds), ("purposes", purposes), ("field_classes", classes)):
        if not 1 <= len(words) <= MAX_WORDS:
            top[name].refuse("out-of-range", f"{name} must have 1 to {MAX_WORDS} entries")
    kinds = {name: _read_kind(name, key, value, classes) for name, key, value in top["kinds"].items()}
    _check_kinds(top["kinds"], kinds)
    catalog = Catalog(
        ticket_kinds=ticket_kinds,
        purposes=MappingProxyType(purposes),
        field_classes=MappingProxyType(classes),
        sensitive_classes=frozenset(sensitive),
        kinds=MappingProxyType(kinds),
    )
    return catalog if len(findings) == before else None


def _check_word(value: Value, what: str, word: str) -> None:
    if not NAME.fullmatch(word):
        value.refuse(
            "name",
            f"{quoted(word)} cannot name a {what}: lower-case letters, digits, - and _ only, at most 40",
        )
    elif word in RESERVED:
        value.refuse("reserved-word", f"{quoted(word)} has a meaning of its own; name the {what} otherwise")


def _identifier(value: Value, word: str) -> str:
    if word and not _IDENTIFIER.fullmatch(word):
        value.refuse("identifier", f"{quoted(word)} is not a plain name of a table or column")
    return word


def _read_kind(name: str, key: Value, value: Value, classes: dict[str, str]) -> Kind:
    if not _FIELD_NAME.fullmatch(name):
        key.refuse(
            "name", f"{quoted(name)} cannot name a kind: lower-case letters, digits and _ only, at most 40"
        )
    entry = value.keys(("table", "key", "fields"), ("via", "link", "rows"))
    child = "via" in entry
    for other in ("link", "rows"):
        if (other in entry) != child:
            value.refuse("parent", "a child kind has 'via', 'link' and 'rows'; the root has none of them")
            break
    schema, table = _table(entry["table"]) if "table" in entry else ("", "")
    fields: dict[str, Field] = {}
    for field_name, field_key, field_value in entry["fields"].items() if "fields" in entry else ():
        if not _FIELD_NAME.fullmatch(field_name):
            field_key.refuse(
                "name",
                f"{quoted(field_name)} cannot name a field: lower-case letters, digits and _, at most 40",
            )
        fields[field_name] = _read_field(name, field_name, field_value, classes)
    if "fields" in entry and not fields:
        entry["fields"].refuse("empty", "the kind has no field")
    return Kind(
        name=name,
        schema=schema,
        table=table,
        key=_identifier(entry["key"], entry["key"].text()) if "key" in entry else "",
        fields=MappingProxyType(fields),
        via=entry["via"].text() if child else "",
        link=_identifier(entry["link"], entry["link"].text()) if child and "link" in entry else "",
        rows=entry["rows"].number(1, MAX_ROWS) if child and "rows" in entry else 1,
    )


def _table(value: Value) -> tuple[str, str]:
    text = value.text()
    schema, dot, table = text.partition(".")
    if text and not dot:
        value.refuse("identifier", f"write the table {quoted(text)} with its schema: <schema>.{text}")
    return _identifier(value, schema), _identifier(value, table)


def _read_field(kind: str, name: str, value: Value, classes: dict[str, str]) -> Field:
    entry = value.keys(("column", "class", "mask"))
    column = _identifier(entry["column"], entry["column"].text()) if "column" in entry else ""
    field_class = entry["class"].text() if "class" in entry else ""
    if field_class and field_class not in classes:
        entry["class"].refuse(
            "unknown-class", f"there is no field class {quoted(field_class)}; {nearest(field_class, classes)}"
        )
    mask = entry["mask"].text() if "mask" in entry else ""
    if mask and mask not in set(Mask):
        entry["mask"].refuse(
            "unknown-mask", f"there is no mask {quoted(mask)}; {nearest(mask, (m.value for m in Mask))}"
        )
        mask = ""
    return Field(kind, name, column, field_class, Mask(mask) if mask else Mask.TEXT)


def _check_kinds(value: Value, kinds: dict[str, Kind]) -> None:
    """Checks what can only be seen with all kinds at hand."""
    roots = [kind.name for kind in kinds.values() if not kind.via]
    if len(roots) != 1:
        value.refuse(
            "root", f"exactly one kind has no 'via'; here {', '.join(roots) or 'every kind has one'}"
        )
    columns: dict[tuple[str, str, str], str] = {}
    for kind in kinds.values():
        if kind.via and kind.via not in kinds:
            value.refuse(
                "unknown-parent",
                f"kind {kind.name!r} hangs on {quoted(kind.via)}; {nearest(kind.via, kinds)}",
            )
        elif _circular(kind, kinds):
            value.refuse("parent-cycle", f"kind {kind.name!r} hangs on itself by way of its parents")
        for field in kind.fields.values():
            column = (kind.schema, kind.table, field.column)
            if (other := columns.setdefault(column, field.full_name)) != field.full_name:
                value.refuse(
                    "column-twice", f"{field.full_name} and {other} are the same column {field.column!r}"
                )
    if sum(len(kind.fields) for kind in kinds.values()) > MAX_FIELDS:
        value.refuse("out-of-range", f"more than {MAX_FIELDS} fields")


def _circular(kind: Kind, kinds: dict[str, Kind]) -> bool:
    seen = {kind.name}
    parent = kind.via
    while parent in kinds:
        if parent in seen:
            return True
        seen.add(parent)
        parent = kinds[parent].via
    return False
