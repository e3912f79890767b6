"""`broker feed`: the first load of tickets, and how the feeds stand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.groups import VerbGroup
from broker.cli.output import CommandFailedError, print_json, print_table, progress, say
from broker.errors import StartupError
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from broker.cli.output import Progress
    from broker.tickets.events import TicketEvent
    from broker.tickets.importer import Loaded

app = typer.Typer(
    cls=VerbGroup, help="Load tickets, look at feeds.", no_args_is_help=True, rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", exists=True, dir_okay=False)],
    feed: Annotated[
        str,
        typer.Option(
            "--feed", help="Id of the feed that goes on with these tickets; the only one by default."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Load tickets from a CSV file, before the helpdesk sends its first events.

    Columns: ticket_id, kind, status, customer_id (several joined by ;), agent_issuer, agent_subject,
    relation, opened_by. The whole file is checked before the first ticket is loaded. Nobody vouches
    for an imported assignment, so the starting policy shows nothing in clear on its ground.

    \b
    Example:
      broker feed import tickets.csv --feed https://helpdesk.example
    """
    settings = read_settings("feed_dsn", "feeds")
    feed_id = _feed_id(settings, feed)
    from broker.tickets.importer import ImportInvalidError, read_file

    try:
        with progress(f"Reading {file.name}"):
            tickets = read_file(file)
    except ImportInvalidError as exc:
        raise CommandFailedError(
            "nothing was loaded:\n  " + "\n  ".join(exc.findings), "mend the file and run it again"
        ) from None
    with progress("Loading") as step:
        loaded = asyncio.run(_load(settings, feed_id, tickets, step))
    if as_json:
        print_json({"feed_id": feed_id, "loaded": loaded.loaded, "kept": loaded.kept})
    else:
        say(f"{loaded.loaded} tickets loaded; {loaded.kept} were known from events and stay as they were")


@app.command()
def status(as_json: Json = False) -> None:
    """Show how the feeds stand; ends with 1 where one is stale.

    \b
    Example:
      broker feed status
    """
    settings = read_settings("dsn")
    with progress("Asking the database"):
        rows = asyncio.run(_states(settings))
    if as_json:
        print_json(rows)
    else:
        print_table(("feed", "last number", "fresh", "events missing"), (row.values() for row in rows))
    if not all(row["fresh"] for row in rows):
        raise CommandFailedError(
            "a feed is stale: nobody gets access on its tickets", "check that the helpdesk sends heartbeats"
        )


def _feed_id(settings: Settings, wanted: str) -> str:
    known = [feed.feed_id for feed in settings.feeds]
    if not wanted and len(known) == 1:
        return known[0]
    if wanted not in known:
        raise StartupError(f"--feed must be one of: {', '.join(known)}")
    return wanted


async def _load(settings: Settings, feed_id: str, tickets: list[TicketEvent], step: Progress) -> Loaded:
    from broker.database import open_pool
    from broker.tickets.importer import load

    pool = await open_pool(settings.feed_dsn, name="broker feed import", max_size=1)
    try:
        return await load(pool, feed_id, tickets, lambda done, total: step(f"Loaded {done} of {total}"))
    finally:
        await pool.close()


async def _states(settings: Settings) -> list[dict[str, Any]]:
    from broker.database import open_pool
    from broker.tickets import Tickets

    pool = await open_pool(settings.dsn, name="broker feed status", max_size=1)
    try:
        return [
            {
                "feed_id": state.feed_id,
                "contiguous_seq": state.contiguous_seq,
                "fresh": state.fresh,
                "events_missing": state.events_missing,
            }
            for state in await Tickets(pool).feeds()
        ]
    finally:
        await pool.close()
