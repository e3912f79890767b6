"""`broker audit reconcile`: what ledger or spans have and the other lacks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from broker.cli.audit import filters
from broker.cli.audit.events import Json
from broker.cli.output import print_json, print_line, progress
from broker.cli.persons import Administrator, run

if TYPE_CHECKING:
    from broker.client import AuditClient, Reconciled

GRACE = timedelta(seconds=10)
"""How long spans may lag behind their event before they count as missing."""

MOST_NAMED = 20


def reconcile(
    administrator: Administrator,
    since: filters.Since = "1d",
    until: filters.Until = "",
    as_json: Json = False,
) -> None:
    """Compare ledger and spans: grants and reads without spans, and spans without events, with counts.

    The ledger is the record: an event without spans is a span that got lost (the metric broker_spans_dropped
    counts those that a worker dropped). A span without its event is a refusal beyond those that are recorded
    one by one, or one that somebody made up.

    \b
    Example:
      broker audit reconcile --since 7d --as audrey
      broker audit reconcile --since 2026-11-01 --until 2026-11-02 --json --as audrey
    """
    from broker.client import AuditClient

    begin, end = filters.period(since, until)
    now = datetime.now(UTC)
    first, last = begin or now - timedelta(days=1), end or now - GRACE

    with progress("Comparing ledger and spans") as told:

        async def gather(client: AuditClient) -> list[Reconciled]:
            parts = []
            async for part in client.reconcile(first, last):
                parts.append(part)
                told(f"Comparing ledger and spans: back to {part.since:%Y-%m-%d %H:%M}")
            return parts

        parts = run(administrator, AuditClient, gather, doing="")
    found = _sum(parts, first, last)
    if as_json:
        print_json(found)
        return
    print_line(f"from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC")
    print_line(f"grants, reads and revocations on record  {found['events']:>12,}")
    print_line(f"  without spans                          {found['events_without_spans']:>12,}")
    print_line(f"requests traced that name their event    {found['traces']:>12,}")
    print_line(f"  without that event in the ledger       {found['traces_without_events']:>12,}")
    for event_id in found["missing_spans"]:
        print_line(f"  no span of event {event_id}")
    for trace_id in found["missing_events"]:
        print_line(f"  no event of trace {trace_id}")


def _sum(parts: list[Reconciled], since: datetime, until: datetime) -> dict[str, Any]:
    """Adds the parts up; names as many as fit a screen, the newest."""
    numbers = ("events", "events_without_spans", "traces", "traces_without_events")
    return {
        "since": since,
        "until": until,
        **{name: sum(getattr(part, name) for part in parts) for name in numbers},
        "missing_spans": [each for part in parts for each in part.missing_spans][:MOST_NAMED],
        "missing_events": [each for part in parts for each in part.missing_events][:MOST_NAMED],
    }
