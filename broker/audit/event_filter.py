"""Which events are meant, and one event as it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import accumulate
from typing import Any
from uuid import UUID

INDEXED = 9
"""So many of a filter's values, the first ones, are in the index, numbered from 1 (100_event_index.sql)."""

MOST_BYTES = 3 * 1024 * 1024
"""Bytes of the events of one answer: clients take messages of 4 MiB, and would ask again for ever."""

LONGEST_WORD = 2400
"""Characters of an agent, a tool or a pseudonym that are told; older releases stored them of any length."""

ROOM = 400
"""Bytes of everything else of an event, generously."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are meant: those for which everything holds that is not None."""

    agent: str | None = None  # `issuer|subject`
    tool: str | None = None
    customer: str | None = None  # pseudonyms, both
    ticket: str | None = None
    grant_id: UUID | None = None
    kind: str | None = None
    outcome: str | None = None
    reason: str | None = None
    policy_version: int | None = None
    since: datetime | None = None  # record time
    until: datetime | None = None  # exclusive

    @property
    def values(self) -> tuple[Any, ...]:
        """Gives all values in the order of the statements' parameters."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @property
    def words(self) -> list[tuple[int, str]]:
        """Gives the values that are indexed, as `broker.event_value` takes them."""
        numbered = enumerate(self.values[:INDEXED], 1)
        return [(number, str(value)) for number, value in numbered if value is not None]

    @property
    def is_open(self) -> bool:
        """Tells whether every event is meant."""
        return all(value is None for value in self.values)

    def described(self) -> dict[str, str]:
        """Gives what is set, for the record of the question."""
        pairs = zip((field.name for field in fields(self)), self.values, strict=True)
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in pairs
            if value is not None
        }


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event with its place in the log; None: it has none yet."""

    event_id: UUID
    leaf_index: int | None
    record_time: datetime
    kind: str
    outcome: str
    reason: str
    agent: str
    tool: str
    customer: str
    ticket: str
    grant_id: UUID | None
    trace_id: str
    policy_version: int | None
    leaf: bytes  # b"" where it is larger than any that is stored today
    leaf_size: int

    @property
    def size(self) -> int:
        """Gives at most how many bytes of an answer it takes, its words cut to `LONGEST_WORD`."""
        words = (self.agent, self.tool, self.customer, self.ticket, self.trace_id)
        return ROOM + len(self.leaf) + sum(len(word[:LONGEST_WORD].encode()) for word in words)


def fitting(events: Sequence[StoredEvent]) -> int:
    """Tells how many of some events, from the first on, fit into one message; at least one does."""
    sizes = accumulate(event.size for event in events)
    return max(sum(size <= MOST_BYTES for size in sizes), min(len(events), 1))
