"""What tests ask, one bound at a time, so that what two sets of tests ask can be compared.

An expectation is one bound or two: `clear` is at least clear, `withheld` and `not_clear` are at most that,
`masked` is both. At most is what protects a customer, at least what serves one.

Invariants:
- a bound is kept where one test asks as much or more: of the same field, of the same people or of every
  role, in the same situations or in more;
- what a test asks of a class, of `sensitive` or of `every` it asks of fields that are yet to come, too: a
  field of each class stands in for those, so a test that names them one by one instead asks less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from broker.catalog import Catalog, Field, Kind, Mask
from broker.model import SHOWN
from broker.policy.admin import AdminTable
from broker.policy.suite.administrators import EVERY, PACKAGE, AdminCase, allowed_to
from broker.policy.suite.cases import Case, Expected

WITHHELD, MASKED, CLEAR = range(3)
"""What may come out, as places in `model.SHOWN`."""

TO_COME = "a field to come of class"
"""The kind of the stand-ins; no name in a catalog has spaces."""

IN_PAIRS = 2
"""Roles that an agent of `every` has at most."""

MOST_NAMES = 12
"""Fields that a sentence names."""

_BOUNDS: Mapping[Expected, tuple[tuple[bool, int], ...]] = MappingProxyType(
    {
        Expected.CLEAR: ((False, CLEAR),),
        Expected.MASKED: ((True, MASKED), (False, MASKED)),
        Expected.WITHHELD: ((True, WITHHELD),),
        Expected.NOT_CLEAR: ((True, MASKED),),
    }
)


@dataclass(frozen=True, slots=True)
class Bound:
    """One thing that a test asks of a field."""

    field: str
    most: bool  # protects: no more than this comes out; else no less
    level: int

    @property
    def of_field_to_come(self) -> bool:
        """Says whether it is asked of a field that is not there yet."""
        return self.field.startswith(f"{TO_COME}.")

    def holds(self, came: Iterable[int]) -> bool:
        """Says whether it holds of everything that came out."""
        return all(level <= self.level if self.most else level >= self.level for level in came)

    def is_as_strict_as(self, other: Bound) -> bool:
        """Says whether whoever asks this asks the other, too."""
        same = (self.field, self.most) == (other.field, other.most)
        return same and (self.level <= other.level if self.most else self.level >= other.level)


def foreseeing(catalog: Catalog) -> Catalog:
    """Gives a catalog with a field to come of each class."""
    fields = {name: Field(TO_COME, name, name, name, Mask.TEXT) for name in catalog.field_classes}
    to_come = Kind(TO_COME, "", "", "", MappingProxyType(fields), via=catalog.root.name)
    return replace(catalog, kinds=MappingProxyType({**catalog.kinds, TO_COME: to_come}))


def bounds_of(case: Case) -> list[Bound]:
    """Gives all that a test asks."""
    return [
        Bound(field, most, level)
        for field, expected in case.expected.items()
        for most, level in _BOUNDS[expected]
    ]


class Kept:
    """What tests ask, to look up what others ask in it."""

    def __init__(
        self, cases: Iterable[Case], administrators: Iterable[AdminCase], roles: frozenset[str]
    ) -> None:
        """Takes the tests, read with fields to come, and the mapped roles, which `every` stands for."""
        self._cases = list(cases)
        self._administrators = list(administrators)
        self._roles = roles

    def missing(self, case: Case, bounds: Iterable[Bound]) -> list[Bound]:
        """Gives what none of these tests asks of the people and the situations of a test."""
        asked: dict[tuple[str, bool], Bound] = {}
        for other in self._cases:
            if self._asks_them(other, case) and _covers(other, case):
                for bound in bounds_of(other):
                    key = bound.field, bound.most
                    if key not in asked or bound.is_as_strict_as(asked[key]):
                        asked[key] = bound
        return [
            bound
            for bound in bounds
            if (found := asked.get((bound.field, bound.most))) is None or not found.is_as_strict_as(bound)
        ]

    def _asks_them(self, other: Case, case: Case) -> bool:
        if (other.groups, other.roles) == (case.groups, case.roles):
            return True
        if other.groups or other.roles or case.groups:
            return False
        return all(len(roles) <= IN_PAIRS and roles <= self._roles for roles in case.roles)

    def asks(self, case: AdminCase) -> bool:
        """Says whether any test is about the same administrators."""
        return any((c.groups, c.identity) == (case.groups, case.identity) for c in self._administrators)

    def admin_missing(self, table: AdminTable, case: AdminCase) -> list[str]:
        """Gives what holds of a test of administrators and none of these asks, in words."""
        may = allowed_to(table, case)
        same = [c for c in self._administrators if (c.groups, c.identity) == (case.groups, case.identity)]
        allowed = frozenset[str]().union(*(c.allowed for c in same))
        refused = frozenset[str]().union(*(c.refused for c in same))
        nothing_else = [c.allowed for c in same if c.nothing_else]
        missing = [f"allowed {_short(m)}" for m in sorted((case.allowed & may) - allowed)]
        missing += [
            f"refused {_short(m)}"
            for m in sorted(case.refused - may - refused)
            if all(m in named for named in nothing_else)
        ]
        if case.nothing_else and may <= case.allowed and not any(n <= case.allowed for n in nothing_else):
            missing.append(f"refused {EVERY} other")
        return missing


def in_words(bounds: Sequence[Bound]) -> str:
    """Names bounds in few words: `customer.email, customer.phone at most masked`."""
    there = [bound for bound in bounds if not bound.of_field_to_come]
    by_level: dict[tuple[bool, int], list[str]] = {}
    for bound in there or bounds:
        by_level.setdefault((bound.most, bound.level), []).append(_name(bound))
    return "; ".join(
        f"{_some(names)} {'at most' if most else 'at least'} {SHOWN[level]}"
        for (most, level), names in sorted(by_level.items(), reverse=True)  # what protects first
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _covers(other: Case, case: Case) -> bool:
    """Says whether a test looks at all situations of another one."""
    return all(
        not theirs or (words and {*words} <= {*theirs})
        for theirs, words in zip(other.conditions, case.conditions, strict=True)
    )


def _name(bound: Bound) -> str:
    return bound.field.replace(f"{TO_COME}.", f"{TO_COME} ") if bound.of_field_to_come else bound.field


def _short(method: str) -> str:
    return method.removeprefix(PACKAGE)
