"""What a comparison says: changes, each with a direction, an area and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property


class Direction(StrEnum):
    """Which way a change goes, in the order in which changes are told."""

    WIDENING = "widening"  # somebody may see or do more
    UNDECIDABLE = "undecidable"  # it hangs on a fact that one side's release does not know
    NARROWING = "narrowing"  # somebody may see or do less
    NEUTRAL = "neutral"  # nobody's access changes


class Area(StrEnum):
    """Where a change is."""

    RULES = "rules"
    GROUPS = "groups"
    CATALOG = "catalog"
    LIMITS = "limits"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Change:
    """One change, as a sentence for people and as details for programs."""

    direction: Direction
    area: Area
    sentence: str
    details: Mapping[str, object] = field(default_factory=dict)

    def as_mapping(self) -> dict[str, object]:
        """Gives the change for JSON."""
        return {
            "direction": self.direction.value,
            "area": self.area.value,
            "sentence": self.sentence,
            **self.details,
        }


_DIRECTIONS = {direction: i for i, direction in enumerate(Direction)}
_AREAS = {area: i for i, area in enumerate(Area)}


@dataclass(frozen=True)
class Comparison:
    """Every change between two policies; widening first."""

    changes: tuple[Change, ...]

    @cached_property
    def widens(self) -> bool:
        """Says whether anybody gains anything; what cannot be decided counts as a gain."""
        return any(c.direction in {Direction.WIDENING, Direction.UNDECIDABLE} for c in self.changes)

    @cached_property
    def narrows(self) -> bool:
        """Says whether anybody loses anything; what cannot be decided counts as a loss, too."""
        return any(c.direction in {Direction.NARROWING, Direction.UNDECIDABLE} for c in self.changes)

    def going(self, direction: Direction) -> tuple[Change, ...]:
        """Gives the changes of one direction."""
        return tuple(change for change in self.changes if change.direction is direction)

    def as_mapping(self) -> dict[str, object]:
        """Gives the comparison for JSON."""
        return {
            "widens": self.widens,
            "narrows": self.narrows,
            "changes": [change.as_mapping() for change in self.changes],
        }


def told(changes: list[Change]) -> Comparison:
    """Puts changes in the order in which they are told."""
    return Comparison(tuple(sorted(changes, key=lambda c: (_DIRECTIONS[c.direction], _AREAS[c.area]))))
