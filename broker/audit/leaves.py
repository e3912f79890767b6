"""What the leaves of released reads tell; pure, and all that a pack's reader needs to know of events.

Invariants:
- a leaf is read as what an adversary may have written: what it does not tell is unknown, never a crash;
- an outcome takes back a read of its own agent and grant alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from broker.audit.exposed import Manner, Read, Totals, fold

NOTHING = frozenset({"aborted", "empty"})
"""Outcomes that say that a read gave out nothing."""


@dataclass
class Told:
    """What leaves tell together: their reads, and which came to nothing."""

    reads: dict[str, tuple[str, str, Read]] = field(default_factory=dict)  # by event id: agent, grant, read
    narrowed: set[tuple[str, str, str]] = field(default_factory=set)  # event id, agent, grant
    unreadable: int = 0  # leaves that do not even tell whose data it was
    _manners: dict[Manner, Manner] = field(default_factory=dict)

    def add(self, leaf: bytes, selection: Mapping[str, str]) -> bool:
        """Takes a leaf in; says whether it belongs to the selection."""
        event = _event(leaf)
        if event is None:
            self.unreadable += 1
            return True
        agent, grant = _text(event, "agent"), _text(event, "grant")
        detail = event.get("detail")
        detail = detail if isinstance(detail, dict) else {}
        if event.get("kind") == "outcome":
            if detail.get("came_to") in NOTHING:
                self.narrowed.add((_text(detail, "read"), agent, grant))
            return True
        if event.get("kind") != "read" or event.get("outcome") != "released":
            return False
        time = _time(event)
        if time is None:
            self.unreadable += 1
            return True
        if not _selected(event, selection, time):
            return False
        read = (_text(event, "customer"), _text(event, "ticket"), time, agent, _text(event, "tool"))
        manner = _manner(detail)
        self.reads[_text(event, "id")] = (agent, grant, (*read, self._manners.setdefault(manner, manner)))
        return True

    @property
    def disclosed(self) -> list[Read]:
        """Gives the reads that gave something out, in the order of their customers."""
        found = [
            read for name, (agent, grant, read) in self.reads.items()
            if (name, agent, grant) not in self.narrowed
        ]  # fmt: skip
        return sorted(found, key=lambda read: (read[0], read[2]))

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


def _manner(detail: Mapping[str, Any]) -> Manner:
    levels, facts = detail.get("levels"), detail.get("facts")
    facts = facts if isinstance(facts, dict) else {}
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
