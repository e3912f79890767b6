"""Values of the auditors' client."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.client.values import AgentName


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events are meant: those for which everything holds that is set."""

    agent: AgentName | None = None
    tool: str = ""
    customer: str = ""  # pseudonyms, both
    ticket: str = ""
    grant_id: str = ""
    kind: str = ""
    outcome: str = ""
    reason: str = ""
    policy_version: str = ""
    since: datetime | None = None
    until: datetime | None = None  # exclusive


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """One event of the ledger."""

    event_id: str
    leaf_index: int | None  # its place in the transparency log; None: not there yet
    record_time: datetime
    kind: str
    outcome: str
    reason: str
    agent: str
    tool: str
    customer: str
    ticket: str
    grant_id: str
    trace_id: str
    policy_version: str
    leaf: bytes  # the stored bytes

    @property
    def detail(self) -> dict[str, Any]:
        """Gives what the leaf tells beside its columns; empty where it cannot be read."""
        try:
            found = json.loads(self.leaf).get("detail")
        except (ValueError, AttributeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, and the token of the next ones; "" where there are none."""

    events: tuple[LedgerEvent, ...]
    next_token: str
