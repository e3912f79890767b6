"""The facts of two policies together, and sets of their combinations as the bits of one number.

Every combination of words has a place; a set of combinations is an integer with a bit at each place.
So "everything this rule speaks of" is one AND over its columns, and a comparison of two policies at
millions of combinations is a few operations on long integers.

Invariants:
- words that neither side mentions behave alike and are one word, "other"; a purpose that one
  catalog alone has is never among them;
- two words behave differently only if they are different words here;
- days before the later of the two policies' days are past and are not compared.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from math import prod

from broker.model import OpenedBy, Presence, Provenance, Relation
from broker.policy.decision import Policy
from broker.policy.lines import ANY
from broker.policy.rules import CONDITIONS, Rule
from broker.policy.verify import UNDECLARED_KIND

OTHER = "other"
"""Stands for all words of a column that neither side mentions; no name may be that word."""

DAY = "day"
"""The column of time: rules may end, so what holds this week may not hold the next."""

_ENUMS = {
    "relation": tuple(Relation),
    "provenance": tuple(Provenance),
    "opened_by": tuple(OpenedBy),
    "presence": tuple(Presence),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One fact: the words that make a difference, and what "other" stands for."""

    name: str
    words: tuple[str, ...]
    others: tuple[str, ...] = ()

    def spelt_out(self, side: Iterable[str]) -> tuple[str, ...]:
        """Gives words with "other" replaced by what it stands for."""
        return tuple(real for word in side for real in (self.others if word == OTHER else (word,)))


class Domain:
    """All combinations of facts that can make a difference between two policies."""

    def __init__(self, old: Policy, new: Policy) -> None:
        """Works out which words make a difference."""
        self._today = max(old.today, new.today)
        ends = {rule.until for policy in (old, new) for rule in policy.book.rules}
        self._ends = sorted(end for end in ends if end is not None and end >= self._today)
        facts = (_column(i, name, old, new) for i, name in enumerate(CONDITIONS))
        self.columns = (*facts, Column(DAY, _spans(self._ends)))
        counts = [len(column.words) for column in self.columns]
        self.strides = tuple(prod(counts[i + 1 :]) for i in range(len(counts)))
        self.size = prod(counts)
        self.whole = (1 << self.size) - 1

    def having(self, column: int, words: Iterable[str]) -> int:
        """Gives all combinations that have one of these words in a column."""
        bits = 0
        for word in words:
            bits |= self._masks[column].get(word, 0)
        return bits

    def spoken_of(self, rule: Rule) -> int:
        """Gives all combinations that a rule speaks of, while it is in force."""
        bits = self.whole
        for i, word in enumerate(rule.conditions):
            if word != ANY:
                bits &= self._masks[i].get(word, 0)
        if rule.until is not None:
            spans = self.columns[-1].words[: bisect_right(self._ends, rule.until)]
            bits &= self.having(len(CONDITIONS), spans)
        return bits

    def spread(self, bits: int, columns: Iterable[int]) -> int:
        """Gives the combinations that differ from one of these in the columns named, if at all."""
        for i in columns:
            stride, first = self.strides[i], self._masks[i][self.columns[i].words[0]]
            count = len(self.columns[i].words)
            shadow = 0
            for place in range(count):
                shadow |= (bits >> (place * stride)) & first
            bits = 0
            for place in range(count):
                bits |= shadow << (place * stride)
        return bits

    @cached_property
    def _masks(self) -> tuple[dict[str, int], ...]:
        masks = []
        for column, stride in zip(self.columns, self.strides, strict=True):
            period = stride * len(column.words)
            # One bit at the beginning of each period, times a run of ones as long as the stride.
            run = (self.whole // ((1 << period) - 1)) * ((1 << stride) - 1)
            masks.append({word: run << (i * stride) for i, word in enumerate(column.words)})
        return tuple(masks)


def _column(at: int, name: str, old: Policy, new: Policy) -> Column:
    mentioned = {rule.conditions[at] for policy in (old, new) for rule in policy.book.rules} - {ANY}
    if name == "ticket_kind":
        kinds = dict.fromkeys((*new.catalog.ticket_kinds, *old.catalog.ticket_kinds))
        return Column(
            name,
            (*(kind for kind in kinds if kind in mentioned), OTHER),
            (*(kind for kind in kinds if kind not in mentioned), UNDECLARED_KIND),
        )
    if name == "purpose":
        known = tuple(dict.fromkeys((*new.catalog.purposes, *old.catalog.purposes)))
        mentioned |= new.catalog.purposes.keys() ^ old.catalog.purposes.keys()
    else:
        known = tuple(str(word) for word in _ENUMS[name])
    others = tuple(word for word in known if word not in mentioned)
    if len(others) <= 1:
        return Column(name, known)
    return Column(name, (*(word for word in known if word in mentioned), OTHER), others)


def _spans(ends: Sequence[date]) -> tuple[str, ...]:
    """Names the spans of days between which nothing ends: `to D`, `from D to D`, `from D`."""
    if not ends:
        return ("always",)
    firsts = [f"from {end + timedelta(days=1)}" for end in ends]
    between = [f"{first} to {end}" for first, end in zip(firsts, ends[1:], strict=False)]
    return (f"to {ends[0]}", *between, firsts[-1])
