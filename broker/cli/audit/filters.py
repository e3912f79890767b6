"""Which events are meant, as the verbs of `broker audit` take it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.names import AGENT, agent_name
from broker.cli.times import moment
from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.cli.connections import Broker
    from broker.client import AgentName, AuditClient, EventQuery

UNKNOWN = "no event names the agent {}"
SPELLING = "names are compared exactly, as `broker audit events --json` shows them"

Agent = Annotated[str, typer.Option("--agent", help=AGENT, show_default=False)]
Tool = Annotated[str, typer.Option("--tool", help="Identity of the tool, as in its certificate.")]
Customer = Annotated[str, typer.Option("--customer", help="Pseudonym of a customer, as events show it.")]
Ticket = Annotated[str, typer.Option("--ticket", help="Pseudonym of a ticket, as events show it.")]
Grant = Annotated[str, typer.Option("--grant", help="Id of a grant.")]
Kind = Annotated[str, typer.Option("--kind", help="grant, read, denial, revoke, auditor_query, policy, …")]
Outcome = Annotated[str, typer.Option("--outcome", help="granted, released, refused or done.")]
Reason = Annotated[str, typer.Option("--reason", help="Why refused, as TICKET_DENIED.")]
Version = Annotated[str, typer.Option("--policy-version", help="Version of the policy that decided.")]
Since = Annotated[
    str, typer.Option("--since", help="From when: 30d, 12h, 45m, 2w, or 2026-11-01T08:00 in UTC.")
]
Until = Annotated[str, typer.Option("--until", help="Until when, likewise; that moment is not in it.")]


def query(
    broker: Broker,
    *,
    agent: str = "",
    tool: str = "",
    customer: str = "",
    ticket: str = "",
    grant: str = "",
    kind: str = "",
    outcome: str = "",
    reason: str = "",
    version: str = "",
    since: str = "",
    until: str = "",
) -> EventQuery:
    """Puts a query together.

    Raises:
        StartupError: a time, a kind or an agent cannot be read.
    """
    from broker.client import EventQuery
    from broker.ledger import EventKind

    if kind and kind not in {k.value for k in EventKind}:
        raise StartupError(f"--kind: there is no {kind!r}; there are {', '.join(EventKind)}")
    begin, end = period(since, until)
    return EventQuery(
        agent=agent_name(agent, broker) if agent else None,
        tool=tool,
        customer=customer,
        ticket=ticket,
        grant_id=grant,
        kind=kind,
        outcome=outcome,
        reason=reason,
        policy_version=version,
        since=begin,
        until=end,
    )


def period(since: str, until: str) -> tuple[datetime | None, datetime | None]:
    """Reads a range of time; None where it is open.

    Raises:
        StartupError: one of them is no time, or nothing lies between.
    """
    now = datetime.now(UTC)
    begin = moment(since, "--since", now) if since else None
    end = moment(until, "--until", now) if until else None
    if begin and end and begin >= end:
        raise StartupError("--since must lie before --until")
    return begin, end


async def unknown(client: AuditClient, agent: AgentName | None) -> str:
    """Says that no event names an agent, of whom nothing was found; "" where one does, or who may not ask."""
    from broker.client import DeniedError, EventQuery

    if agent is None:
        return ""
    try:
        async for _ in client.events(EventQuery(agent=agent), most=1):
            return ""
    except DeniedError:
        return ""
    return UNKNOWN.format(agent.key)
