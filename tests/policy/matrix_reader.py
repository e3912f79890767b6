"""Reads the access matrix back from its text, as a person would; shares no code with the writer."""

import re
from itertools import product

from broker.model import OpenedBy, Presence, Provenance, Relation

FACTS = ("purpose", "relation", "ticket_kind", "provenance", "opened_by", "presence")


def words_of(catalog):
    """Gives every word of every column of facts."""
    return (
        tuple(catalog.purposes),
        tuple(map(str, Relation)),
        (*catalog.ticket_kinds, "other"),
        tuple(map(str, Provenance)),
        tuple(map(str, OpenedBy)),
        tuple(map(str, Presence)),
    )


def side(text, every):
    """Reads `any`, `all but a, b` or `a, b`."""
    if text == "any":
        return set(every)
    if text.startswith("all but "):
        return set(every) - set(text.removeprefix("all but ").split(", "))
    assert set(text.split(", ")) <= set(every)
    return set(text.split(", "))


def fields(text, catalog):
    """Reads field classes, `class but a and b`, and names of fields."""
    found = set()
    for part in text.split(", "):
        name, _, left_out = part.partition(" but ")
        of_class = {full for full, field in catalog.fields.items() if name in {"any", field.field_class}}
        found |= (of_class or {name}) - set(left_out.split(" and "))
    assert found <= catalog.fields.keys()
    return found


def read(text, catalog):
    """Gives, by set of roles, the rows: level, sides of facts and fields, and the names of rules."""
    sections, rules = {}, {}
    for block in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        title, *lines = block.splitlines()
        if title == "rules ==":
            rules = dict(line.split("  p, ", 1) for line in lines)
            continue
        rows = []
        for line in lines[1:]:
            if line:
                level, told, *facts, by = re.split(r" {2,}", line)
                sides = [side(text, every) for text, every in zip(facts, words_of(catalog), strict=True)]
                rows.append((level, [*sides, fields(told, catalog)], by.split(", ")))
        for roles in re.sub(r" \(includes [^)]*\)", "", title.removesuffix(" ==")).split(", "):
            sections[frozenset(roles.split("+"))] = rows
    return sections, rules


def unfold(rows):
    """Gives every point of the rows with its level and rules; rows that overlap must agree."""
    answers = {}
    for level, sides, by in rows:
        for point in product(*sides):
            assert answers.setdefault(point, (level, by))[0] == level, point
    return answers


def level_at(rows, facts, field):
    """Gives the level at one point: what no row has is withheld."""
    levels = {
        level
        for level, sides, _ in rows
        if all(word in words for word, words in zip((*facts, field), sides, strict=True))
    }
    assert len(levels) <= 1
    return levels.pop() if levels else "withheld"
