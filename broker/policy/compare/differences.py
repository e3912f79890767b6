"""Every question that two policies answer differently: for roles alone, pairs of them, and groups.

Who asks is a set of roles, of which there are too many to ask each. Singles and pairs are enough, in
this sense: wherever a set of roles gains, one role of it or two of them gain at the same question at
least as much, and that is reported. Proof, for a set that had `o` and now has `n`, more than `o`:

- some role of it allows `n` today, and no role of it denies `n`;
- before, either no role of it allowed anything above `o`, and then the first role alone gains as much;
- or some role denied what was allowed. A denial of masked denies clear as well (the reader refuses
  one that does not), so one role is enough to deny everything above `o`. The first role and this one
  gain as much: before, the second denied; today the first allows and neither denies.

The same holds for losses with the sides changed over. It uses nothing of roles but that a set of them
has the union of their allows and denials; so it holds as well for groups of the identity provider,
whose roles may differ between the sides.

Invariants:
- a role that some group leads to on both sides is compared as itself; what other roles mean shows in
  the groups that lead to them;
- a pair is reported only where it gains, or loses, more than both of its members alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from broker.policy.compare.change import Area, Direction
from broker.policy.compare.domain import Domain
from broker.policy.compare.rights import CLEAR, WITHHELD, Bits, Rights, Shape, outcome, union
from broker.policy.decision import Policy

Say = Callable[[str], None]
Shapes = tuple[Shape, Shape]
"""How both sides' rules see a field."""

Step = tuple[int, int]
"""What came of a question before, and what comes of it now."""

STEPS: tuple[Step, ...] = tuple((o, n) for o, n in product(range(WITHHELD, CLEAR + 1), repeat=2) if o != n)

Regions = dict[tuple[Step, bool], int]
"""By step and by whether it can be decided: the combinations at which it happens."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A role, or groups of the identity provider that lead to the same roles, on each side."""

    names: tuple[str, ...]
    old: frozenset[str]
    new: frozenset[str]


Asker = tuple[Unit, ...]
"""One unit or two, whose roles are held together."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One step, for one asker and all fields of a shape, and the combinations at which it happens."""

    area: Area
    direction: Direction
    step: Step
    asker: Asker
    shapes: Shapes
    points: int


def direction_of(step: Step) -> Direction:
    """Says which way a step goes."""
    return Direction.WIDENING if step[1] > step[0] else Direction.NARROWING


class Differences:
    """Works out the differences of two policies' rules, and of whom they reach."""

    def __init__(self, old: Policy, new: Policy, domain: Domain) -> None:
        """Compiles both sides."""
        self._domain = domain
        self._rights = (Rights(old, domain), Rights(new, domain))
        self.fields: dict[Shapes, list[str]] = {}
        for name in dict.fromkeys((*new.catalog.fields, *old.catalog.fields)):
            shapes = (self._rights[0].shape(name), self._rights[1].shape(name))
            self.fields.setdefault(shapes, []).append(name)
        self.roles, self.groups = _roles(old, new), _groups(old, new)
        known = [set(policy.book.columns) for policy in (old, new)]
        self._unknown = [i for i, c in enumerate(domain.columns) if c.name in known[0] ^ known[1]]
        self._bits: dict[tuple[Unit, Shapes], tuple[Bits, Bits]] = {}
        self._denying: dict[Unit, bool] = {}
        self._alone: dict[tuple[Unit, Shapes], Regions] = {}

    def all(self, say: Say) -> Iterator[Difference]:
        """Gives every difference.

        Args:
            say: is told what is being worked on.
        """
        for role in self.roles:
            yield from self._singles(Area.RULES, role)
        for i, role in enumerate(self.roles):
            say(f"Comparing pairs of roles, {i + 1} of {len(self.roles)}")
            for other in self.roles[i + 1 :]:
                if self._denies(role) or self._denies(other):
                    yield from self._pair(Area.RULES, (role, other))
        changed = [group for group in self.groups if group.old != group.new]
        for group in changed:
            yield from self._singles(Area.GROUPS, group)
        for i, group in enumerate(changed):
            say(f"Comparing groups of the identity provider, {i + 1} of {len(changed)}")
            for other in self.groups:
                once = other.old == other.new or other.names > group.names
                if once and (self._denies(group) or self._denies(other)):
                    yield from self._pair(Area.GROUPS, (group, other))

    def _singles(self, area: Area, unit: Unit) -> Iterator[Difference]:
        # What the rules changed for a role that its members have on both sides is told of that role.
        also = [role for role in self.roles if role.names[0] in unit.old & unit.new and area is Area.GROUPS]
        for shapes in self.fields:
            regions = self._unit(unit, shapes)
            told = [self._unit(role, shapes) for role in also]
            yield from self._tell(area, (unit,), shapes, _beyond(regions, told))

    def _pair(self, area: Area, pair: tuple[Unit, Unit]) -> Iterator[Difference]:
        also = []
        if area is Area.GROUPS:
            both = (pair[0].old | pair[1].old) & (pair[0].new | pair[1].new)
            also = [role for role in self.roles if role.names[0] in both]
        for shapes in self.fields:
            sides = [self._of(unit, shapes) for unit in pair]
            if all(before == now for before, now in sides) and not self._common_changed(shapes):
                continue
            regions = self._regions([union(parts) for parts in zip(*sides, strict=True)], shapes)
            told = [self._unit(unit, shapes) for unit in (*pair, *also)]
            yield from self._tell(area, pair, shapes, _beyond(regions, told))

    def _denies(self, unit: Unit) -> bool:
        """Says whether a unit denies anything; two that do not have what each has alone, and no less."""
        if (found := self._denying.get(unit)) is None:
            bits = (side for shapes in self.fields for side in self._of(unit, shapes))
            found = self._denying[unit] = any(b[1] | b[3] for b in bits)
        return found

    def _tell(self, area: Area, asker: Asker, shapes: Shapes, regions: Regions) -> Iterator[Difference]:
        for (step, decidable), points in regions.items():
            direction = direction_of(step) if decidable else Direction.UNDECIDABLE
            yield Difference(area, direction, step, asker, shapes, points)

    def _of(self, unit: Unit, shapes: Shapes) -> tuple[Bits, Bits]:
        if (found := self._bits.get((unit, shapes))) is None:
            found = self._bits[unit, shapes] = (
                self._rights[0].held(unit.old, shapes[0]),
                self._rights[1].held(unit.new, shapes[1]),
            )
        return found

    def _common_changed(self, shapes: Shapes) -> bool:
        before, now = (r.everybody(s) for r, s in zip(self._rights, shapes, strict=True))
        return before != now

    def _unit(self, unit: Unit, shapes: Shapes) -> Regions:
        if (found := self._alone.get((unit, shapes))) is None:
            found = self._alone[unit, shapes] = self._regions(self._of(unit, shapes), shapes)
        return found

    def _regions(self, held: Sequence[Bits], shapes: Shapes) -> Regions:
        whole = self._domain.whole
        before, now = (
            outcome(union((bits, rights.everybody(shape))), whole)
            for bits, rights, shape in zip(held, self._rights, shapes, strict=True)
        )
        steps = {step: points for step in STEPS if (points := before[step[0]] & now[step[1]])}
        undecided = self._undecided(steps)
        found: Regions = {}
        for step, points in steps.items():
            if here := points & ~undecided:
                found[step, True] = here
            if here := points & undecided:
                found[step, False] = here
        return found

    def _undecided(self, steps: Mapping[Step, int]) -> int:
        """Gives the combinations at which the answer hangs on a fact that one side does not know.

        Whatever that fact may be, a combination is decided only where all its values go one way.
        """
        if not self._unknown or not steps:
            return 0
        more = less = 0
        for step, points in steps.items():
            if direction_of(step) is Direction.WIDENING:
                more |= points
            else:
                less |= points
        ways = [
            self._domain.spread(w, self._unknown) for w in (more, less, self._domain.whole & ~(more | less))
        ]
        return (ways[0] & ways[1]) | (ways[0] & ways[2]) | (ways[1] & ways[2])


def _beyond(regions: Regions, told: Sequence[Regions]) -> Regions:
    """Takes away what one of the others tells already: as large a step the same way, at the same place."""
    left: Regions = {}
    for (step, decidable), points in regions.items():
        for other in told:
            for (bigger, sure), theirs in other.items():
                if (sure or not decidable) and _as_large(bigger, step):
                    points &= ~theirs  # noqa: PLW2901 - what is left of it
        if points:
            left[step, decidable] = points
    return left


def _as_large(step: Step, other: Step) -> bool:
    """Says whether a step goes the same way from no later and to no sooner."""
    if other[1] > other[0]:
        return step[0] <= other[0] and step[1] >= other[1]
    return step[0] >= other[0] and step[1] <= other[1]


def _roles(old: Policy, new: Policy) -> list[Unit]:
    both = old.book.mapped_roles & new.book.mapped_roles
    return [Unit((role,), frozenset({role}), frozenset({role})) for role in sorted(both)]


def _groups(old: Policy, new: Policy) -> list[Unit]:
    """Puts groups together that lead to the same roles before, and to the same roles now."""
    alike: dict[tuple[frozenset[str], frozenset[str]], list[str]] = {}
    for group in sorted(old.book.groups.keys() | new.book.groups.keys()):
        key = (old.book.groups.get(group, frozenset()), new.book.groups.get(group, frozenset()))
        alike.setdefault(key, []).append(group)
    return [Unit(tuple(names), before, now) for (before, now), names in alike.items()]
