"""Which rows of the index of disclosures their ledger events bear out; pure.

Whoever administers the database writes the index as they like, and could have somebody named by it. Their
events' bytes they cannot change without `broker audit verify` telling.

Invariants:
- a row is borne out where its event tells the same customer, time, agent, tool, grant, queue and fields;
- a leaf that does not even tell that bears nothing out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from broker.audit.attribution import monday
from broker.audit.leaves import ToldOutcome, ToldRead, tell


def borne_out(
    rows: Iterable[Mapping[str, Any]],
    leaves: Mapping[UUID, bytes],
    outcomes: Iterable[bytes],
    names: Mapping[int, Mapping[str, Any]],
) -> set[UUID]:
    """Gives the events of the rows that are what the ledger says.

    Args:
        rows: of the index, with their words.
        leaves: of the rows' events.
        outcomes: leaves of what the rows' grants' reads came to.
        names: agents and tools by number.
    """
    nothing = {
        told.narrows for told in (tell(leaf, {}) for leaf in outcomes) if isinstance(told, ToldOutcome)
    }
    return {row["event_id"] for row in rows if _is_told(row, leaves, nothing, names)}


def _is_told(
    row: Mapping[str, Any],
    leaves: Mapping[UUID, bytes],
    nothing: set[tuple[str, str, str] | None],
    names: Mapping[int, Mapping[str, Any]],
) -> bool:
    leaf = leaves.get(row["event_id"])
    told = None if leaf is None else tell(leaf, {})
    if not isinstance(told, ToldRead) or told.name in nothing:
        return False
    customer, _, time, agent, tool, manner = told.read
    return (
        told.event_id == str(row["event_id"])
        and told.grant == str(row["grant_id"] or "")
        and customer == row["customer"]
        and time == row["read_time"]
        and names.get(row["agent_id"]) == {"kind": "agent", "name": agent}
        and names.get(row["tool_id"]) == {"kind": "tool", "name": tool}
        and (told.queue, monday(time)) == (row["ticket_kind"], row["week"])
        and (manner.unreadable, manner.clear) == (row["unreadable"], frozenset(row["clear"]))
    )
