"""How the sides of a box are told: `any`, a list, or what is left out; fields by their class."""

from __future__ import annotations

from collections.abc import Sequence

from broker.catalog import Catalog
from broker.model import WITHHELD, Level
from broker.policy.aloud import Choice
from broker.policy.boxes import Side, Space
from broker.policy.lines import ANY

LEAST_EXCEPT = 3
"""Fewest fields of a class that are told by what is left out; two are read faster than "all but"."""


def level_word(level: Level | None) -> str:
    """Gives the word for a level."""
    return level.value if level else WITHHELD


def side_words(space: Space, at: int, side: Side) -> str:
    """Tells a side: `any`, `routed, peer` or `all but self`."""
    choice = Choice.of(space, at, side)
    if choice is None:
        return ANY
    return ("all but " if choice.but else "") + ", ".join(choice.words)


def field_words(catalog: Catalog, side: Side) -> str:
    """Tells fields: by class where the class is whole or nearly so, else one by one."""
    if len(side) == len(catalog.fields):
        return ANY
    whole: list[str] = []
    single: list[str] = []
    for name in catalog.field_classes:
        of_class = [field.full_name for field in catalog.fields.values() if field.field_class == name]
        present = [field for field in of_class if field in side]
        absent = [field for field in of_class if field not in side]
        if present and not absent:
            whole.append(name)
        elif len(present) >= LEAST_EXCEPT and len(absent) < len(present):
            single.append(f"{name} but {_listed(absent)}")
        else:
            single += present
    return ", ".join(whole + single)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(words)
