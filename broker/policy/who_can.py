"""Who can see a field, and under which conditions: the policy asked backwards.

Invariants:
- exact: the ways in clear together are every point where the field is seen in clear, the masked ones
  every point where it is seen at all, and no other;
- each way is true by itself, and none could be left out or say more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.model import Level
from broker.policy.aloud import Choice, way_aloud
from broker.policy.boxes import Box, Space, cover
from broker.policy.everywhere import RANK, deciding, default_role_sets, everywhere, space_of
from broker.policy.rules import CONDITIONS, Rule
from broker.policy.table import LEVELS

if TYPE_CHECKING:
    from broker.policy.decision import Policy


@dataclass(frozen=True, slots=True)
class Way:
    """One way to see a field: any of the role sets, under any combination of the words."""

    level: Level  # at least: where it is masked, some of the points may be clear
    field: str
    space: Space  # dimensions `roles`, the conditions, `field`
    box: Box
    rules: tuple[Rule, ...]  # that decide in it, in file order

    @property
    def role_sets(self) -> tuple[str, ...]:
        """Gives the names of the role sets, `billing+tier1`."""
        return tuple(self.space.ordered(0, self.box.sides[0]))

    @property
    def sentence(self) -> str:
        """Says who, and under which conditions; those that are not mentioned do not matter."""
        choices = {
            name: choice
            for i, name in enumerate(self.space.names)
            if name in CONDITIONS and (choice := Choice.of(self.space, i, self.box.sides[i])) is not None
        }
        return way_aloud(self.role_sets, choices)

    def as_mapping(self) -> dict[str, object]:
        """Gives what a program reads: every word of every condition."""
        return {
            "level": self.level.value,
            "role_sets": list(self.role_sets),
            **{
                name: self.space.ordered(i, self.box.sides[i])
                for i, name in enumerate(self.space.names)
                if name in CONDITIONS
            },
            "rules": [rule.place for rule in self.rules],
            "sentence": self.sentence,
        }


def who_can(
    policy: Policy,
    field: str,
    *,
    level: Level | None = None,
    role_sets: Iterable[frozenset[str]] | None = None,
    **fixed: str,
) -> tuple[Way, ...]:
    """Gives the ways to see a field: those in clear, then those to see it masked at least.

    Args:
        policy: any that loads.
        field: a field's full name.
        level: only the ways to see it at this level, or more.
        role_sets: who is asked about; as for the matrix where nothing is said.
        fixed: facts that are given: `ticket_kind="billing"`. Their names are those of the conditions.

    Raises:
        ValueError: there is no such field, fact or word.
    """
    every = space_of(policy.catalog, default_role_sets(policy) if role_sets is None else role_sets)
    asked = every.box(field={field}, **{name: {word} for name, word in fixed.items()})
    space = Space({name: every.ordered(i, asked.sides[i]) for i, name in enumerate(every.names)})
    decided = everywhere(policy.table, space, deciding(policy.table))
    ways: list[Way] = []
    for least in LEVELS if level is None else (level,):
        pieces = [
            (box, rule)
            for (seen, rule), boxes in decided.items()
            if rule is not None and RANK[seen] >= RANK[least]
            for box in boxes
        ]
        covering = cover(space, [piece for piece, _ in pieces])
        ways += [Way(least, field, space, box, _in(box, pieces)) for box in covering]
    return tuple(ways)


def _in(box: Box, pieces: Iterable[tuple[Box, Rule]]) -> tuple[Rule, ...]:
    rules = {rule for piece, rule in pieces if box.meets(piece)}
    return tuple(sorted(rules, key=lambda rule: rule.line))
