"""Products of sets: how a table with millions of points is told in few rows, and told exactly.

A box takes some words of each dimension and stands for every combination of them. Rules are boxes,
and so is every row of the access matrix, every sentence of a comparison and of `who-can`.

    space = Space({"role": ("tier1", "billing"), "presence": ("present", "absent")})
    here = space.box(presence={"present"})          # whatever is not named is any
    subtract([space.whole], [here])                 # what is left, in pieces that do not overlap
    fold(space, start, step, finish)                # a function over the space, as boxes by its value
    cover(space, boxes)                             # the same points in few, large boxes

Invariants:
- a box is never empty: what would be is not made;
- every operation keeps the points exactly: none is lost, none is added;
- the answer follows from the arguments and the order of words in the space, never from hashing, so
  that a file made from it is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import TypeVar

Side = frozenset[str]
State = TypeVar("State", bound=Hashable)
Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Box:
    """Some words of each dimension, in the order of the space's dimensions."""

    sides: tuple[Side, ...]

    def __contains__(self, point: Sequence[str]) -> bool:
        return all(word in side for word, side in zip(point, self.sides, strict=True))

    def holds(self, other: Box) -> bool:
        """Says whether every point of the other box is one of this."""
        return all(theirs <= mine for mine, theirs in zip(self.sides, other.sides, strict=True))

    def meets(self, other: Box) -> bool:
        """Says whether some point is in both."""
        return not any(map(frozenset.isdisjoint, self.sides, other.sides))

    def intersect(self, other: Box) -> Box | None:
        """Gives what both have; None where that is nothing."""
        sides = tuple(mine & theirs for mine, theirs in zip(self.sides, other.sides, strict=True))
        return Box(sides) if all(sides) else None

    def minus(self, other: Box) -> tuple[Box, ...]:
        """Gives what the other box leaves of this one, in pieces that do not overlap."""
        if not self.meets(other):
            return (self,)
        pieces = []
        sides = list(self.sides)
        for i, hole in enumerate(other.sides):
            if left := sides[i] - hole:
                pieces.append(Box((*sides[:i], left, *sides[i + 1 :])))
            sides[i] &= hole
        return tuple(pieces)

    def replace(self, at: int, side: Side) -> Box:
        """Gives the box with another side."""
        return Box((*self.sides[:at], side, *self.sides[at + 1 :]))

    @property
    def size(self) -> int:
        """Counts the points."""
        return prod(len(side) for side in self.sides)


@dataclass(frozen=True)
class Space:
    """The dimensions, and the words of each in the order in which they are shown."""

    dimensions: Mapping[str, Sequence[str]]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Gives the names of the dimensions."""
        return tuple(self.dimensions)

    @cached_property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """Gives the words, dimension by dimension."""
        return tuple(tuple(words) for words in self.dimensions.values())

    @cached_property
    def whole(self) -> Box:
        """Gives the box of all points."""
        return Box(tuple(frozenset(words) for words in self.words))

    def box(self, **sides: Iterable[str]) -> Box:
        """Makes a box; a dimension that is not named has all its words.

        Raises:
            ValueError: a dimension or word is not of this space, or a side is empty.
        """
        if unknown := sides.keys() - self.dimensions.keys():
            raise ValueError(f"no such dimension: {', '.join(sorted(unknown))}")
        box = Box(
            tuple(
                frozenset(sides[name]) if name in sides else every
                for name, every in zip(self.names, self.whole.sides, strict=True)
            )
        )
        if not all(box.sides) or not self.whole.holds(box):
            raise ValueError("a side of the box is empty or has a word that its dimension lacks")
        return box

    def points(self, box: Box) -> Iterator[tuple[str, ...]]:
        """Gives every point of a box, in the order of the words."""
        return product(*(self.ordered(i, side) for i, side in enumerate(box.sides)))

    def ordered(self, at: int, side: Side) -> list[str]:
        """Gives the words of a side in the order in which they are shown."""
        return sorted(side, key=self._rank[at].__getitem__)

    def order(self, box: Box) -> tuple[tuple[int, ...], ...]:
        """Gives what boxes are sorted by."""
        return tuple(
            tuple(sorted(rank[word] for word in side))
            for rank, side in zip(self._rank, box.sides, strict=True)
        )

    @cached_property
    def _rank(self) -> tuple[dict[str, int], ...]:
        return tuple({word: i for i, word in enumerate(words)} for words in self.words)


def subtract(boxes: Iterable[Box], holes: Iterable[Box]) -> list[Box]:
    """Gives what the holes leave of the boxes; pieces of one box do not overlap."""
    left = list(boxes)
    for hole in holes:
        left = [piece for box in left for piece in box.minus(hole)]
        if not left:
            break
    return left


def covered(box: Box, by: Sequence[Box]) -> bool:
    """Says whether every point of the box is in some of the others."""
    for i, other in enumerate(by):
        if box.meets(other):
            rest = [each for each in by[i + 1 :] if box.meets(each)]
            return all(covered(piece, rest) for piece in box.minus(other))
    return False


def disjoint(boxes: Iterable[Box]) -> list[Box]:
    """Gives the same points in boxes of which no two overlap."""
    apart: list[Box] = []
    for box in boxes:
        apart += subtract([box], apart)
    return apart


def count(boxes: Iterable[Box]) -> int:
    """Counts the points, each once."""
    return sum(box.size for box in disjoint(boxes))


def join(space: Space, boxes: Iterable[Box]) -> list[Box]:
    """Joins boxes that differ in one side only, until none do; what did not overlap still does not."""
    joined = sorted(set(boxes), key=space.order)
    before = -1
    while len(joined) != before:
        before = len(joined)
        for i in reversed(range(len(space.names))):
            groups: dict[tuple[Side, ...], Side] = {}
            for box in joined:
                rest = box.sides[:i] + box.sides[i + 1 :]
                groups[rest] = groups.get(rest, frozenset()) | box.sides[i]
            joined = [Box((*rest[:i], side, *rest[i:])) for rest, side in groups.items()]
    return sorted(joined, key=space.order)


def fold(
    space: Space,
    start: State,
    step: Callable[[State, int, str], State],
    finish: Callable[[State], Value],
) -> dict[Value, list[Box]]:
    """Writes a function over a whole space as boxes, by value; boxes do not overlap.

    The function is read word by word, as a machine would: equal states must mean that the rest of the
    point alone decides. So points are not visited one by one, and a domain of millions costs as much as
    it has different states. For rules the state is the set of those that still match.

    Args:
        space: the domain.
        start: the state before the first word.
        step: the state after a word of the dimension with that number.
        finish: the value, after the last word.
    """
    # A decision diagram: nodes are equal exactly where the functions below them are.
    nodes: dict[Hashable, int] = {}
    values: dict[int, Value] = {}
    branches: dict[int, tuple[tuple[Side, int], ...]] = {}
    seen: list[dict[State, int]] = [{} for _ in range(len(space.names) + 1)]

    def node(at: int, state: State) -> int:
        if (found := seen[at].get(state)) is not None:
            return found
        if at == len(space.names):
            value = finish(state)
            made = nodes.setdefault(("value", value), len(nodes))
            values[made] = value
        else:
            below: dict[int, list[str]] = {}
            for word in space.words[at]:
                below.setdefault(node(at + 1, step(state, at, word)), []).append(word)
            branch = tuple((frozenset(words), child) for child, words in below.items())
            made = nodes.setdefault((at, branch), len(nodes))
            branches[made] = branch
        seen[at][state] = made
        return made

    found: dict[Value, list[Box]] = {}

    def walk(at: int, sides: tuple[Side, ...]) -> None:
        if at in values:
            found.setdefault(values[at], []).append(Box(sides))
            return
        for side, child in branches[at]:
            walk(child, (*sides, side))

    walk(node(0, start), ())
    return {value: join(space, boxes) for value, boxes in found.items()}


def cover(space: Space, boxes: Iterable[Box]) -> list[Box]:
    """Gives the same points in few boxes, each as large as it can be; they may overlap.

    Each box is grown as far as the points reach, in several orders of the dimensions; of what comes of
    it, the one that has most of the points still missing is taken, again and again.
    """
    apart = join(space, disjoint(boxes))
    if len(apart) <= 1:
        return apart
    atoms = [_alike(space.words[i], [box.sides[i] for box in apart]) for i in range(len(space.names))]
    ways = range(len(space.names))
    grown = {_grow(box, apart, atoms, (*ways[i:], *ways[:i])) for box in apart for i in ways}
    candidates = sorted(grown, key=space.order)
    taken: list[Box] = []
    missing = apart
    while missing:
        best = max(candidates, key=lambda box: sum(_common(box, piece) for piece in missing))
        taken.append(best)
        missing = subtract(missing, [best])
    for box in reversed(taken[:]):
        others = [other for other in taken if other is not box]
        if covered(box, others):
            taken = others
    return sorted(taken, key=space.order)


def _alike(words: Sequence[str], sides: Sequence[Side]) -> list[Side]:
    """Groups the words that no side tells apart."""
    groups: dict[tuple[bool, ...], set[str]] = {}
    for word in words:
        groups.setdefault(tuple(word in side for side in sides), set()).add(word)
    return [frozenset(group) for group in groups.values()]


def _grow(box: Box, points: Sequence[Box], atoms: Sequence[Sequence[Side]], ways: Iterable[int]) -> Box:
    """Makes a box as large as the points allow, one dimension after the other."""
    for i in ways:
        for atom in atoms[i]:
            if not atom <= box.sides[i] and covered(box.replace(i, atom), points):
                box = box.replace(i, box.sides[i] | atom)
    return box


def _common(one: Box, other: Box) -> int:
    return prod(len(mine & theirs) for mine, theirs in zip(one.sides, other.sides, strict=True))
