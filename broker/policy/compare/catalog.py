"""What a changed catalog means: columns that become readable, masks, caps and labels.

Invariants:
- whatever changes behind a name that people know is a widening, whether anybody sees it today or not:
  the rule that shows it some day will be read by that name;
- another column, table, key or link: other data show under it, and under the names of the kinds that are
  reached by way of it; another name for the same column, as well;
- every change of a mask, and it narrows where it is seen: of two masks, each shows of some value a part
  that the other hides (tests hold every pair against `masking.py`), so none is simply the stricter;
- every change of a class: rules and tests follow classes, so what was asked of the old one is not any more;
- what is new, and no rule allows to anybody, is neutral, until a rule does: then that is the widening.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from broker.catalog import Catalog, Field, Kind, Mask
from broker.model import Level
from broker.policy.compare.change import Area, Change, Direction
from broker.policy.lint.catalog import contact_classes

if TYPE_CHECKING:
    from broker.policy.decision import Policy

SHOWS = {
    Mask.DATE: "the year",
    Mask.EMAIL: "the first letters of name and domain, and the top-level domain",
    Mask.PHONE: "the last two digits",
    Mask.TAIL: "the last four characters",
    Mask.TEXT: "the first letter",
}
"""What each mask shows at most; see `masking.py`."""

WIDENING, NARROWING, NEUTRAL = Direction.WIDENING, Direction.NARROWING, Direction.NEUTRAL


def compare_catalogs(old: Policy, new: Policy) -> Iterator[Change]:
    """Gives the changes of the catalog."""
    for name in dict.fromkeys((*new.catalog.kinds, *old.catalog.kinds)):
        yield from _kind(name, old, new)
    yield from _classes(old.catalog, new.catalog)
    yield from _contact(old.catalog, new.catalog)
    for what, before, now in (
        ("purpose", tuple(old.catalog.purposes), tuple(new.catalog.purposes)),
        ("ticket kind", old.catalog.ticket_kinds, new.catalog.ticket_kinds),
    ):
        for word in (w for w in now if w not in before):
            yield _change(NEUTRAL, f"new {what} {word}", what=what, word=word)
        for word in (w for w in before if w not in now):
            yield _change(NEUTRAL, f"{what} {word} is gone", what=what, word=word)
    for purpose, sentence in new.catalog.purposes.items():
        if old.catalog.purposes.get(purpose, sentence) != sentence:
            yield _change(NEUTRAL, f"purpose {purpose}: its description changed", purpose=purpose)


def _kind(name: str, old: Policy, new: Policy) -> Iterator[Change]:
    before, now = old.catalog.kinds.get(name), new.catalog.kinds.get(name)
    if before is not None and now is not None:
        for what, was, is_now in (
            ("table", f"{before.schema}.{before.table}", f"{now.schema}.{now.table}"),
            ("key", before.key, now.key),
            ("link", before.link, now.link),
            ("parent", before.via, now.via),
        ):
            if was != is_now:
                text = f"{name}: other records show, its {what} was {was or 'none'} and is {is_now or 'none'}"
                yield _change(WIDENING, text, kind=name, what=what, old=was, new=is_now)
        if before.rows != now.rows:  # of this kind alone: what hangs on it has a cap of its own
            less = NARROWING if _seen(new, now) else NEUTRAL
            direction = WIDENING if now.rows > before.rows else less
            text = f"{name}: at most {before.rows} rows of a customer -> {now.rows}"
            yield _change(direction, text, kind=name, what="rows", old=before.rows, new=now.rows)
    for field in dict.fromkeys((*_fields(now), *_fields(before))):
        yield from _field(f"{name}.{field}", _fields(before).get(field), _fields(now).get(field), old, new)


def _fields(kind: Kind | None) -> dict[str, Field]:
    return dict(kind.fields) if kind else {}


def _field(name: str, before: Field | None, now: Field | None, old: Policy, new: Policy) -> Iterator[Change]:
    if now is None or before is None:
        side, field = (old, before) if now is None else (new, now)
        if field is not None:
            direction = (NARROWING if now is None else WIDENING) if _reached(side, field) else NEUTRAL
            place = f"column {side.catalog.place_of(field)}, class {field.field_class}"
            text = f"field {name} is gone ({place})" if now is None else f"new field {name} ({place})"
            yield _change(direction, text, field=name)
            if now is not None and (known := _named(old.catalog, new.catalog.place_of(now))):
                text = f"{name} is another name for {', '.join(known)}; no test of that asks for it"
                yield _change(WIDENING, text, field=name, known_as=known)
        return
    if before.column != now.column:
        text = f"{name}: other data show under this name, column {before.column} -> {now.column}"
        yield _change(WIDENING, text, field=name, old=before.column, new=now.column)
    if before.field_class != now.field_class:
        text = (
            f"{name}: class {before.field_class} -> {now.field_class}; rights and tests follow the new class"
        )
        yield _change(WIDENING, text, field=name, old=before.field_class, new=now.field_class)
        was, is_now = (f.field_class in p.catalog.sensitive_classes for f, p in ((before, old), (now, new)))
        if was != is_now:
            yield _sensitive(f"{name}", sensitive=is_now)
    if before.mask != now.mask:
        seen = _reached(new, now, Level.MASKED)
        masks = {"field": name, "old": before.mask.value, "new": now.mask.value}
        text = f"{name}, mask {before.mask} -> {now.mask}: masked values show"
        yield _change(WIDENING, f"{text} {SHOWS[now.mask]} now", **masks)
        if seen:
            yield _change(NARROWING, f"{text} {SHOWS[before.mask]} no longer", **masks)


def _classes(old: Catalog, new: Catalog) -> Iterator[Change]:
    for name in dict.fromkeys((*new.field_classes, *old.field_classes)):
        if name not in old.field_classes:
            yield _change(NEUTRAL, f"new field class {name}", field_class=name)
        elif name not in new.field_classes:
            yield _change(NEUTRAL, f"field class {name} is gone", field_class=name)
        elif (name in old.sensitive_classes) != (name in new.sensitive_classes):
            yield _sensitive(f"field class {name}", sensitive=name in new.sensitive_classes)
        elif old.field_classes[name] != new.field_classes[name]:
            yield _change(NEUTRAL, f"field class {name}: its description changed", field_class=name)


def _contact(old: Catalog, new: Catalog) -> Iterator[Change]:
    """Tells of fields that hold contact data no more, as far as the masks of their classes tell."""
    were, are = ({n for n, f in c.fields.items() if f.field_class in contact_classes(c)} for c in (old, new))
    if gone := sorted((were - are) & new.fields.keys()):
        text = f"{', '.join(gone)}: no contact data any more, by the masks of their class"
        yield _change(WIDENING, text, fields=gone)


def _named(catalog: Catalog, place: str) -> list[str]:
    """Gives the fields that show the same data."""
    return [name for name, field in catalog.fields.items() if catalog.place_of(field) == place]


def _sensitive(what: str, *, sensitive: bool) -> Change:
    """Tells of the label by which rules are checked before they are published."""
    if sensitive:
        return _change(NARROWING, f"{what} is sensitive now; rules over it are checked more", what=what)
    return _change(WIDENING, f"{what} is no longer sensitive; rules over it are checked less", what=what)


def _reached(policy: Policy, field: Field, level: Level | None = None) -> bool:
    """Says whether any rule allows the field, at a level or at all."""
    return any(
        rule.effect == "allow"
        and rule.field in {"any", field.full_name, field.field_class}
        and (level is None or rule.level in {"any", level})
        for rule in policy.book.rules
    )


def _seen(policy: Policy, kind: Kind) -> bool:
    """Says whether any rule allows any field of the kind."""
    return any(_reached(policy, field) for field in kind.fields.values())


def _change(direction: Direction, sentence: str, **details: object) -> Change:
    return Change(direction, Area.CATALOG, sentence, details)
