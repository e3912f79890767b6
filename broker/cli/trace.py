"""`broker trace`: what happened in a grant, as it was measured."""

from __future__ import annotations

import asyncio
import getpass
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.groups import VerbGroup
from broker.cli.output import CommandFailedError, console, print_json, progress
from broker.settings import read_settings

if TYPE_CHECKING:
    from broker.ledger import Event
    from broker.traces import Trace

app = typer.Typer(cls=VerbGroup, help="Show traces of grants.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Show traces of grants."""


@app.command()
def show(
    grant_id: Annotated[
        UUID, typer.Argument(metavar="GRANT_ID", help="As grants, receipts and the ledger name it.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the spans as JSON.")] = False,
) -> None:
    """Draw the waterfall of a grant: its creation and every read, span by span.

    Runs as broker_auditor (BROKER_AUDITOR_DSN). Spans follow their event within a second.

    \b
    Example:
      broker trace show 7f0c2f7e-0d5c-4b0e-9c3e-0d2a1f6b9a11
    """
    settings = read_settings("auditor_dsn")
    with progress("Reading spans"):
        trace = asyncio.run(_load(settings.auditor_dsn, grant_id))
    if not trace.spans:
        raise CommandFailedError(
            "no spans are stored for this grant",
            "check the id; spans follow within a second, the ledger is the record",
        )
    if as_json:
        from broker.traces import as_json as trace_as_json

        print_json(trace_as_json(trace))
        return
    from broker.traces.render import render

    console().print(render(trace))


async def _load(dsn: str, grant_id: UUID) -> Trace:
    from broker.database import open_pool, transaction
    from broker.ledger import AUDITOR_DOOR, append_events
    from broker.traces import load

    pool = await open_pool(dsn, name="broker trace show", max_size=1)
    try:
        async with transaction(pool) as conn:  # the auditors are audited too: first the event, then the look
            await append_events(conn, [_query_event(grant_id)], door=AUDITOR_DOOR)
        return await load(pool, grant_id)
    finally:
        await pool.close()


def _query_event(grant_id: UUID) -> Event:
    from broker.ledger import NO_TRACE, Event, EventIds, EventKind

    return Event(
        id=EventIds().new(),
        kind=EventKind.AUDITOR_QUERY,
        outcome="done",
        trace_id=NO_TRACE,
        tool=f"os:{getpass.getuser()}",
        grant_id=grant_id,
        detail={"query": "trace show"},
    )
