"""What was given out of whom, added up; pure.

Invariants:
- a field that was in clear once is in clear; "masked" says that it never was;
- a read that cannot be read counts: whatever it gave out is unknown, so it may have been anything;
- one function adds up the index's rows, a pack's leaves, and the leaves again when somebody checks the pack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

UNKNOWN_CLASS = "unknown"
"""Class of a field that no version of the catalog declares."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What many reads share: what was given out, and on what facts."""

    clear: frozenset[str]  # full field names
    masked: frozenset[str]
    unreadable: bool  # the event does not tell its fields
    purpose: str
    provenance: str


Read: TypeAlias = tuple[str, str, datetime, str, str, Manner]
"""One released read: customer, ticket (pseudonyms both), time, agent, tool, manner."""


class CustomerExposure(NamedTuple):
    """Everything that was given out of one customer, by pseudonym; all words sorted.

    A tuple, because reports make a hundred thousand of them.
    """

    customer: str
    reads: int
    first: datetime
    last: datetime
    clear: tuple[str, ...]
    masked: tuple[str, ...]
    unreadable: bool
    tickets: tuple[str, ...]
    purposes: tuple[str, ...]
    provenances: tuple[str, ...]
    agents: tuple[str, ...]
    tools: tuple[str, ...]

    def as_mapping(self, classes: Mapping[str, str]) -> dict[str, Any]:
        """Gives what is printed and packed; `classes` tells each field's class."""
        clear, masked = classes_of(self.clear, self.masked, classes)
        return {
            "customer": self.customer,
            "reads": self.reads,
            "first": instant(self.first),
            "last": instant(self.last),
            "clear": list(self.clear),
            "masked": list(self.masked),
            "classes_clear": sorted(clear),
            "classes_masked": sorted(masked),
            "unreadable": self.unreadable,
            "tickets": list(self.tickets),
            "purposes": list(self.purposes),
            "provenances": list(self.provenances),
            "agents": list(self.agents),
            "tools": list(self.tools),
        }


@dataclass
class Totals:
    """Counts over customers."""

    customers: int = 0
    reads: int = 0
    unreadable: int = 0  # customers with a read that does not tell its fields
    first: datetime | None = None
    last: datetime | None = None
    _seen: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=Counter)

    def add(self, one: CustomerExposure) -> None:
        """Counts a customer."""
        self.customers += 1
        self.reads += one.reads
        self.unreadable += one.unreadable
        self.first = one.first if self.first is None or one.first < self.first else self.first
        self.last = one.last if self.last is None or one.last > self.last else self.last
        self._seen[one.clear, one.masked] += 1

    @property
    def fields(self) -> frozenset[str]:
        """Gives every field that anything was given out of."""
        return frozenset(name for pair in self._seen for names in pair for name in names)

    def as_mapping(self, classes: Mapping[str, str]) -> dict[str, Any]:
        """Gives the counts: customers per field and per class, in clear, or masked and never in clear."""
        by_field: dict[str, Counter[str]] = {"clear": Counter(), "masked": Counter()}
        by_class: dict[str, Counter[str]] = {"clear": Counter(), "masked": Counter()}
        for (clear, masked), count in self._seen.items():
            for level, names in (("clear", clear), ("masked", masked)):
                for name in names:
                    by_field[level][name] += count
            for level, words in zip(("clear", "masked"), classes_of(clear, masked, classes), strict=True):
                for word in words:
                    by_class[level][word] += count
        return {
            "customers": self.customers,
            "reads": self.reads,
            "unreadable": self.unreadable,
            "first": instant(self.first) if self.first else "",
            "last": instant(self.last) if self.last else "",
            "fields": _by_word(by_field),
            "classes": _by_word(by_class),
        }


def fold(reads: Iterable[Read]) -> Iterator[CustomerExposure]:
    """Adds up reads that come in the order of their customers."""
    shown: dict[frozenset[Manner], _Shown] = {}  # few combinations make up all customers
    for customer, group in groupby(reads, key=itemgetter(0)):
        mine = list(group)
        manners = frozenset([read[5] for read in mine])
        words = shown.get(manners)
        if words is None:
            words = shown[manners] = _shown(manners)
        yield _add_up(customer, mine, words)


def classes_of(
    clear: Iterable[str], masked: Iterable[str], classes: Mapping[str, str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Gives the classes seen in clear, and those that were only ever masked."""
    seen = frozenset(classes.get(name, UNKNOWN_CLASS) for name in clear)
    return seen, frozenset(classes.get(name, UNKNOWN_CLASS) for name in masked) - seen


def instant(time: datetime) -> str:
    """Writes a time as the ledger's leaves do."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_Shown: TypeAlias = tuple[tuple[str, ...], tuple[str, ...], bool, tuple[str, ...], tuple[str, ...]]


def _shown(manners: Collection[Manner]) -> _Shown:
    """Adds up manners: in clear, masked, whether one is unreadable, purposes, provenances."""
    clear = frozenset().union(*(manner.clear for manner in manners))
    masked = frozenset().union(*(manner.masked for manner in manners)) - clear
    return (
        tuple(sorted(clear)),
        tuple(sorted(masked)),
        any(manner.unreadable for manner in manners),
        tuple(sorted({manner.purpose for manner in manners})),
        tuple(sorted({manner.provenance for manner in manners})),
    )


def _add_up(customer: str, reads: Sequence[Read], words: _Shown) -> CustomerExposure:
    clear, masked, unreadable, purposes, provenances = words
    if len(reads) == 1:  # most customers of most reports
        _, ticket, time, agent, tool, _ = reads[0]
        return CustomerExposure(
            customer, 1, time, time, clear, masked, unreadable, (ticket,), purposes, provenances,
            (agent,), (tool,),
        )  # fmt: skip
    times = [read[2] for read in reads]
    return CustomerExposure(
        customer, len(reads), min(times), max(times), clear, masked, unreadable, _words(reads, 1), purposes,
        provenances, _words(reads, 3), _words(reads, 4),
    )  # fmt: skip


def _words(reads: Sequence[Read], place: int) -> tuple[str, ...]:
    return tuple(sorted({str(read[place]) for read in reads}))


def _by_word(levels: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    words = sorted({word for counts in levels.values() for word in counts})
    return {word: {level: counts[word] for level, counts in levels.items()} for word in words}
