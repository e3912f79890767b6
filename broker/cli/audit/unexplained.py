"""`broker audit unexplained`: who reads and then does nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.audit.options import who
from broker.cli.output import Progress, print_json, print_line, print_table, progress, say
from broker.cli.persons import Administrator, run
from broker.errors import StartupError
from broker.settings import read_settings

if TYPE_CHECKING:
    from broker.audit.unexplained import UnexplainedReport

USUAL_DAYS = 90
MOST_ROWS = 20


def unexplained(
    administrator: Administrator | None,
    since: Annotated[
        str, typer.Option("--since", help="First day, as 2026-09-01; by default 90 days ago.")
    ] = "",
    alpha: Annotated[
        float, typer.Option("--alpha", min=1e-6, max=0.5, help="Chance that any honest agent is ever called.")
    ] = 0.01,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Find agents whose reads are followed by no work on the ticket, against peers of the same queue.

    A visit (an agent, a ticket, a day) is unexplained where that agent did nothing on that ticket until a
    day after. An agent is called when chance would ever make anybody honest look so with --alpha at most,
    however often you ask. It is a reason to ask them, not a verdict. Asks the broker for whom a token or --as
    is given; else runs as broker_auditor (BROKER_AUDITOR_DSN). The question is an event of the ledger.

    \b
    Example:
      broker audit unexplained --since 2026-09-01 --as audrey
    """
    try:
        first = date.fromisoformat(since) if since else datetime.now(UTC).date() - timedelta(days=USUAL_DAYS)
    except ValueError:
        raise StartupError("--since takes a day, as 2026-09-01") from None
    if administrator is not None:
        report = _over_port(administrator, first, alpha)
    else:
        settings = read_settings("auditor_dsn")
        with progress("Judging visits") as told:
            report = asyncio.run(_ask(settings.auditor_dsn, first, alpha, told))
    if as_json:
        print_json({
            "event_id": report.event_id,
            "days": [d.isoformat() for d in report.days],
            "unjudged": report.unjudged,
            "agents": [
                {
                    "agent": s.agent, "visits": s.visits, "unexplained": s.unexplained,
                    "expected": s.expected, "log_evidence": s.evidence,
                    "called_on": s.called_on and s.called_on.isoformat(),
                    "recent_visits": [
                        {"event_id": v.event_id, "day": v.day.isoformat(), "queue": v.queue, "reads": v.reads,
                         "customer": v.customer, "ticket": v.ticket}
                        for v in report.visits.get(s.agent, ())
                    ],
                }
                for s in report.standings
            ],
        })  # fmt: skip
    else:
        _print(report)


def _over_port(administrator: Administrator, since: date, alpha: float) -> UnexplainedReport:
    """Asks the broker; gives the same as is made from the database."""
    from broker.audit.unexplained import Standing, UnexplainedReport, Visit
    from broker.client import AuditClient

    found = run(administrator, AuditClient, lambda client: client.unexplained(since, alpha=alpha))
    visits = {
        one.agent: tuple(
            Visit(UUID(v.event_id), v.day, v.queue, v.reads, v.customer, v.ticket) for v in one.recent_visits
        )
        for one in found.agents
        if one.called_on
    }
    standings = tuple(
        Standing(one.agent, one.visits, one.unexplained, one.expected, one.log_evidence, one.called_on)
        for one in found.agents
    )
    return UnexplainedReport(UUID(found.decision_id), standings, visits, found.days, found.unjudged)


async def _ask(dsn: str, since: date, alpha: float, told: Progress) -> UnexplainedReport:
    from broker.audit.record import Auditor
    from broker.audit.unexplained import unexplained_reads
    from broker.database import open_pool
    from broker.ledger import EventIds

    pool = await open_pool(dsn, name="broker audit unexplained", max_size=1, statement_timeout=60)
    try:
        by = Auditor(who())
        return await unexplained_reads(pool, since, by=by, ids=EventIds(), alpha=alpha, progress=told)
    finally:
        await pool.close()


def _print(report: UnexplainedReport) -> None:
    shown = [s for place, s in enumerate(report.standings) if s.called_on or place < MOST_ROWS]
    print_table(
        ("agent", "visits", "without work", "as peers", "log evidence", "called on"),
        (
            (s.agent, s.visits, s.unexplained, f"{s.expected:.1f}", f"{s.evidence:.1f}", s.called_on)
            for s in shown
        ),
    )
    for s in shown:
        if s.called_on:
            print_line(f"Newest visits of {s.agent} without work:")
            print_table(
                ("day", "first read", "reads", "queue, purpose, relation", "customer", "ticket"),
                ((v.day, v.event_id, v.reads, v.queue, v.customer, v.ticket) for v in report.visits[s.agent]),
            )
    if not report.days:
        print_line("No day was judged: a day is due two days later, when its work had time to come in.")
    else:
        print_line(f"{len(report.days)} days, {report.days[0]} to {report.days[-1]}.")
    if report.unjudged:
        print_line(f"{report.unjudged} visits could not be judged: their grants were forgotten before.")
    say(f"on record as event {report.event_id}")
