"""What creating and reading have in common: pure steps from what the database said to a verdict."""

from __future__ import annotations

from uuid import UUID

from broker.errors import (
    CATALOGUE,
    AgentSuspendedError,
    BrokerError,
    FeedStaleError,
    TicketClosedError,
    TicketDeniedError,
)
from broker.ledger import Verdict
from broker.model import Facts, Presence, Relation, TicketStatus
from broker.tickets import Standing

ATTEMPTS = 4
"""How often a decision is taken again because facts or policy changed under it; then UNAVAILABLE."""

STALE = frozenset({"POLICY_STALE", "FACTS_STALE"})
"""What an append says that stored nothing: decide again."""

LAST_YEAR = 9999
"""Year of PostgreSQL's infinity as the driver gives it."""


def standing_refusal(standing: Standing) -> BrokerError | None:
    """Says why the ticket justifies nothing for this agent, in the order that gives nothing away."""
    if standing.suspended:
        return AgentSuspendedError()
    if standing.was_last_assignee:
        return TicketClosedError()
    if standing.ground.relation is Relation.NONE:
        return TicketDeniedError()
    if standing.ground.status not in {TicketStatus.OPEN, TicketStatus.PENDING}:
        return TicketClosedError()
    if not standing.feed_fresh:
        return FeedStaleError()
    return None


def facts_of(standing: Standing, purpose: str) -> Facts:
    """Gives what a rule may see."""
    ground = standing.ground
    return Facts(
        purpose=purpose,
        relation=ground.relation,
        kind=ground.kind,
        provenance=ground.provenance,
        opened_by=ground.opened_by,
        presence=Presence.PRESENT if standing.present else Presence.ABSENT,
    )


def refused_by_append(event_id: UUID, verdict: Verdict) -> BrokerError:
    """Makes the refusal that the append said.

    Where it wrote it down, that event is its record; what it did not store is still to be recorded.
    """
    metadata = {}
    if verdict.free_time is not None:
        free = verdict.free_time
        metadata["free_time"] = "never" if free.year == LAST_YEAR else free.strftime("%Y-%m-%dT%H:%M:%SZ")
    error = CATALOGUE[verdict.reason or "INTERNAL"](metadata=metadata)
    if verdict.receipt is not None:
        error.decision_id = event_id
    return error
