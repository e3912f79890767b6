"""Makes the matrix: for each set of roles, the boxes of points that have one answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.catalog import Catalog
from broker.model import Level
from broker.policy.boxes import Box, Space, cover
from broker.policy.everywhere import deciding, default_role_sets, everywhere, note_on, space_of
from broker.policy.lines import ANY
from broker.policy.rules import Rule

if TYPE_CHECKING:
    from broker.policy.decision import Policy

ASKED_FOR = "Only the sets of roles that were asked for."


@dataclass(frozen=True, slots=True)
class Row:
    """Points with one level, or where a denial took away what is allowed there."""

    box: Box  # over the matrix's space
    level: Level | None
    rules: tuple[Rule, ...]  # at each point the first of them that speaks of it decides; in file order

    def rule_at(self, catalog: Catalog, point: Sequence[str]) -> Rule:
        """Gives the rule that decides at a point of the row."""
        *facts, field = point
        fields = {ANY, field, catalog.fields[field].field_class}
        return next(
            rule
            for rule in self.rules
            if rule.field in fields
            and all(word in {ANY, fact} for word, fact in zip(rule.conditions, facts, strict=True))
        )


@dataclass(frozen=True, slots=True)
class Section:
    """What sets of roles see; several where they see the same by the same rules."""

    role_sets: tuple[frozenset[str], ...]
    includes: frozenset[str]  # further roles that these include
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Matrix:
    """A policy's whole truth."""

    catalog: Catalog
    space: Space
    sections: tuple[Section, ...]
    note: str  # which sets of roles there are, and what holds for the others


def matrix(policy: Policy, role_sets: Iterable[frozenset[str]] | None = None) -> Matrix:
    """Works out a policy's matrix.

    Args:
        policy: any that loads.
        role_sets: who is asked about; each role that a group leads to, and each pair of them that
            sees otherwise than its two roles do, where nothing is said.
    """
    if role_sets is None:
        asked = default_role_sets(policy)
        note = note_on(asked)
    else:
        asked, note = tuple(dict.fromkeys(role_sets)), ASKED_FOR
    space = space_of(policy.catalog)
    alike: dict[tuple[Row, ...], list[frozenset[str]]] = {}
    for roles in asked:
        alike.setdefault(_rows(policy, space, roles), []).append(roles)
    sections = tuple(Section(tuple(sets), _includes(policy, sets), rows) for rows, sets in alike.items())
    return Matrix(policy.catalog, space, sections, note)


def _rows(policy: Policy, space: Space, roles: frozenset[str]) -> tuple[Row, ...]:
    """Covers each purpose by itself, so that nobody looks in two places; purposes alike share rows."""
    alike: dict[tuple[tuple[Box, Level | None], ...], list[list[Row]]] = {}
    for purpose in space.dimensions["purpose"]:
        rows = _rows_of(policy, Space({**space.dimensions, "purpose": (purpose,)}), roles)
        anywhere = tuple((row.box.replace(0, space.whole.sides[0]), row.level) for row in rows)
        alike.setdefault(anywhere, []).append(rows)
    return tuple(_joined(same) for blocks in alike.values() for same in zip(*blocks, strict=True))


def _joined(rows: Sequence[Row]) -> Row:
    """Joins rows that differ in their purpose and rules."""
    first = rows[0]
    purposes = frozenset().union(*(row.box.sides[0] for row in rows))
    rules = {rule for row in rows for rule in row.rules}
    return Row(first.box.replace(0, purposes), first.level, _in_file_order(rules))


def _rows_of(policy: Policy, space: Space, roles: frozenset[str]) -> list[Row]:
    decided = everywhere(policy.table, space, deciding(policy.table), roles)
    answers: dict[tuple[Level | None, Rule | None], list[tuple[Box, Rule]]] = {}
    for (level, rule), boxes in decided.items():
        if rule is not None:
            # Rules that allow the same level share rows; denials differ in the level that they refuse.
            key = (level, rule if level is None else None)
            answers.setdefault(key, []).extend((box, rule) for box in boxes)
    rows = [
        Row(box, level, _in_file_order(rule for piece, rule in pieces if box.meets(piece)))
        for (level, _), pieces in answers.items()
        for box in cover(space, [piece for piece, _ in pieces])
    ]
    first = {Level.CLEAR: 0, Level.MASKED: 1, None: 2}
    return sorted(rows, key=lambda row: (first[row.level], space.order(row.box), row.rules[0].line))


def _in_file_order(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(sorted(set(rules), key=lambda rule: rule.line))


def _includes(policy: Policy, sets: Sequence[frozenset[str]]) -> frozenset[str]:
    if len(sets) > 1:
        return frozenset()
    return frozenset().union(*(policy.book.closure(role) for role in sets[0])) - sets[0]
