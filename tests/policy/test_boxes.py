"""Boxes keep every point: none is lost and none is added, whatever is done with them."""

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.boxes import Box, Space, count, cover, covered, disjoint, fold, join, subtract

SPACE = Space({"a": ("w", "x", "y", "z"), "b": ("p", "q", "r"), "c": ("1", "2"), "d": ("k", "l", "m")})
ALL = list(product(*SPACE.words))

boxes = st.tuples(*(st.frozensets(st.sampled_from(words), min_size=1) for words in SPACE.words)).map(Box)
lists = st.lists(boxes, max_size=6)


def points(*listed):
    """Gives the points of boxes, by brute force."""
    return {point for point in ALL if any(point in box for box in listed)}


class TestBox:
    @given(one=boxes, other=boxes)
    def test_operations_are_those_of_sets_of_points(self, one, other):
        """Intersection, difference, containment and size agree with sets of points."""
        both = one.intersect(other)
        left = one.minus(other)

        assert (points(both) if both else set()) == points(one) & points(other)
        assert points(*left) == points(one) - points(other)
        assert sum(box.size for box in left) == len(points(*left))
        assert one.holds(other) == (points(one) >= points(other))
        assert one.meets(other) == bool(both)
        assert one.size == len(points(one)) == len(list(SPACE.points(one)))
        assert set(SPACE.points(one)) == points(one)


class TestSpace:
    def test_unnamed_dimensions_are_whole(self):
        """A box takes every word of what is not named; foreign words and empty sides are refused."""
        assert SPACE.box() == SPACE.whole
        assert SPACE.box(c={"1"}).sides[2] == {"1"}
        assert SPACE.box(c={"1"}).size == len(ALL) // 2
        for wrong in ({"e": {"1"}}, {"c": {"3"}}, {"c": set()}):
            with pytest.raises(ValueError, match=r"no such dimension|empty or has a word"):
                SPACE.box(**wrong)

    def test_words_are_shown_in_their_order(self):
        """Sides are listed as the space has them, not as letters have it."""
        space = Space({"presence": ("present", "absent")})

        assert space.ordered(0, frozenset({"absent", "present"})) == ["present", "absent"]


class TestMany:
    @given(some=lists, holes=lists)
    def test_subtract(self, some, holes):
        """What is left is what is in a box and in no hole."""
        assert points(*subtract(some, holes)) == points(*some) - points(*holes)

    @given(box=boxes, by=lists)
    def test_covered(self, box, by):
        """A box is covered exactly where nothing is left of it."""
        assert covered(box, by) == (points(box) <= points(*by))

    @given(some=lists)
    def test_disjoint_counts_each_point_once(self, some):
        """No two pieces overlap, and the points are the same."""
        apart = disjoint(some)

        assert points(*apart) == points(*some)
        assert sum(box.size for box in apart) == count(some) == len(points(*some))

    @given(some=lists)
    def test_join_keeps_points_and_apartness(self, some):
        """Joining neither adds nor loses a point, and leaves no two boxes that differ in one side only."""
        joined = join(SPACE, disjoint(some))

        assert points(*joined) == points(*some)
        assert sum(box.size for box in joined) == count(some)
        assert not [
            (one, other)
            for one in joined
            for other in joined
            if sum(mine != theirs for mine, theirs in zip(one.sides, other.sides, strict=True)) == 1
        ]

    @settings(deadline=None)
    @given(some=lists)
    def test_cover_is_exact_and_of_largest_boxes(self, some):
        """A cover has the same points; none of its boxes could be larger or left out."""
        covering = cover(SPACE, some)

        assert points(*covering) == points(*some)
        for box in covering:
            assert not covered(box, [other for other in covering if other is not box])
            for i, words in enumerate(SPACE.words):
                for word in words:
                    grown = box.replace(i, box.sides[i] | {word})
                    assert grown == box or not points(grown) <= points(*some)

    def test_cover_finds_the_two_that_were_meant(self):
        """Two overlapping boxes, cut into scraps and shuffled, come back as two."""
        meant = [SPACE.box(a={"w", "x"}), SPACE.box(c={"1"}, d={"k", "m"})]
        scraps = [Box(tuple(frozenset({word}) for word in point)) for point in points(*meant)]
        random.Random(3).shuffle(scraps)

        assert cover(SPACE, scraps) == meant

    @given(some=lists, seed=st.integers(0, 2**16))
    @settings(deadline=None)
    def test_order_of_arguments_never_matters_to_join_and_fold(self, some, seed):
        """The same set of points in another order folds into the same boxes."""
        shuffled = random.Random(seed).sample(some, len(some))

        assert _folded(some) == _folded(shuffled)
        assert cover(SPACE, _folded(some)[True]) == cover(SPACE, _folded(shuffled)[True])


class TestFold:
    @settings(deadline=None)
    @given(table=st.lists(st.sampled_from(["clear", "masked", None]), min_size=len(ALL), max_size=len(ALL)))
    def test_any_function(self, table):
        """Any function at all is written exactly: each point is in one box, under its value."""
        value_of = dict(zip(ALL, table, strict=True))

        folded = fold(SPACE, (), lambda state, _at, word: (*state, word), value_of.__getitem__)

        for value, listed in folded.items():
            assert points(*listed) == {point for point in ALL if value_of[point] == value}
            assert sum(box.size for box in listed) == len(points(*listed))

    def test_equal_states_are_read_once(self):
        """A domain of a thousand million points costs what its states cost."""
        space = Space({f"d{i}": tuple("abcdefgh") for i in range(10)})
        steps = 0

        def step(state, _at, word):
            nonlocal steps
            steps += 1
            return state or word == "a"

        folded = fold(space, False, step, bool)

        assert sum(box.size for box in folded[True]) == 8**10 - 7**10
        assert cover(space, folded[True]) == sorted(
            (space.box(**{name: {"a"}}) for name in space.names), key=space.order
        )
        assert steps <= 2 * 8 * 10


def _folded(some):
    """Folds the question whether a point is in any of the boxes."""

    def step(state, at, word):
        return frozenset(i for i in state if word in some[i].sides[at])

    folded = fold(SPACE, frozenset(range(len(some))), step, bool)
    return {True: [], False: []} | folded
