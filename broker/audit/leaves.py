"""What the leaves of released reads tell; pure, and all that a pack's reader needs to know of events.

Invariants:
- a leaf is read as what an adversary may have written: what it does not tell is unknown, never a crash;
- an outcome takes back a read of its own agent and grant alone;
- a leaf takes no other one's place, whatever id it claims.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import itemgetter
from typing import Any

from broker.audit.exposed import Manner, Read, Totals, fold

NOTHING = frozenset({"aborted", "empty"})
"""Outcomes that say that a read gave out nothing."""

LONGEST_QUEUE = 100
"""Characters of a queue's name in the index of disclosures."""


@dataclass(frozen=True, slots=True)
class ToldRead:
    """A read that was released."""

    event_id: str
    agent: str
    grant: str
    read: Read
    queue: str  # kind of the ticket, as the index of disclosures has it

    @property
    def name(self) -> tuple[str, str, str]:
        """Names the read as an outcome does that takes it back."""
        return self.event_id, self.agent, self.grant


@dataclass(frozen=True, slots=True)
class ToldOutcome:
    """What a read came to."""

    narrows: tuple[str, str, str] | None  # the name of a read that came to nothing


@dataclass(frozen=True, slots=True)
class ToldNothing:
    """A leaf that does not even tell whose data it was."""


def tell(leaf: bytes, selection: Mapping[str, str]) -> ToldRead | ToldOutcome | ToldNothing | None:
    """Reads a leaf; None where it does not belong to the selection."""
    event = _event(leaf)
    if event is None:
        return ToldNothing()
    agent, grant = _text(event, "agent"), _text(event, "grant")
    detail = event.get("detail")
    detail = detail if isinstance(detail, dict) else {}
    if event.get("kind") == "outcome":
        is_nothing = _text(detail, "came_to") in NOTHING
        return ToldOutcome((_text(detail, "read"), agent, grant) if is_nothing else None)
    if event.get("kind") != "read" or event.get("outcome") != "released":
        return None
    time = _time(event)
    if time is None:
        return ToldNothing()
    if not _selected(event, selection, time):
        return None
    facts = detail.get("facts")
    facts = facts if isinstance(facts, dict) else {}
    manner = _manner(detail.get("levels"), facts)
    read = (_text(event, "customer"), _text(event, "ticket"), time, agent, _text(event, "tool"), manner)
    queue = _text(facts, "ticket_kind")[:LONGEST_QUEUE] or "unknown"
    return ToldRead(_text(event, "id"), agent, grant, read, queue)


@dataclass
class Told:
    """What leaves tell together: their reads, and which came to nothing."""

    reads: list[ToldRead] = field(default_factory=list)  # by leaf: an id is what a worker wrote into it
    narrowed: set[tuple[str, str, str]] = field(default_factory=set)
    unreadable: int = 0  # leaves that do not even tell whose data it was
    _manners: dict[Manner, Manner] = field(default_factory=dict)

    def add(self, leaf: bytes, selection: Mapping[str, str]) -> bool:
        """Takes a leaf in; says whether it belongs to the selection."""
        match tell(leaf, selection):
            case None:
                return False
            case ToldRead() as told:
                manner = told.read[5]
                shared = self._manners.setdefault(manner, manner)
                self.reads.append(replace(told, read=(*told.read[:5], shared)))
            case ToldOutcome(narrows):
                self.narrowed |= {narrows} if narrows else set()
            case ToldNothing():
                self.unreadable += 1
        return True

    @property
    def disclosed(self) -> list[Read]:
        """Gives the reads that gave something out, in the order of their customers."""
        found = [told.read for told in self.reads if told.name not in self.narrowed]
        return sorted(found, key=itemgetter(0))

    def customers(self, totals: Totals, classes: Mapping[str, str]) -> Iterable[dict[str, Any]]:
        """Gives every customer as a report shows them, and counts them."""
        for one in fold(self.disclosed):
            totals.add(one)
            yield one.as_mapping(classes)


def _event(leaf: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(leaf)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _time(event: Mapping[str, Any]) -> datetime | None:
    try:
        found = datetime.fromisoformat(_text(event, "record_time"))
    except ValueError:
        return None
    return found if found.tzinfo else None


def _selected(event: Mapping[str, Any], selection: Mapping[str, str], time: datetime) -> bool:
    since, until = selection.get("since"), selection.get("until")
    return (
        all(
            event.get(name) == selection[name]
            for name in ("agent", "tool", "customer", "grant") if name in selection
        )
        and (since is None or time >= datetime.fromisoformat(since))
        and (until is None or time < datetime.fromisoformat(until))
    )  # fmt: skip


def _manner(levels: object, facts: Mapping[str, Any]) -> Manner:
    told = levels if isinstance(levels, dict) else {}
    return Manner(
        frozenset(name for name, level in told.items() if level == "clear"),
        frozenset(name for name, level in told.items() if level == "masked"),
        not isinstance(levels, dict),
        _text(facts, "purpose"),
        _text(facts, "provenance"),
    )


def _text(mapping: Mapping[str, Any], name: str) -> str:
    value = mapping.get(name)
    return value if isinstance(value, str) else ""
