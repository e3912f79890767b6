"""`broker audit prune`: drop old events, keep their leaves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.audit.options import Json, log_keys, storage, who
from broker.cli.output import print_json, progress, say
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from broker.audit.log import Prunable


def prune(
    before: Annotated[
        datetime, typer.Option("--before", formats=["%Y-%m-%d"], help="Months that ended before this day go.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, show what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Drop events of old months, keep their leaves.

    The log stays whole and goes on to verify. Only what is published can go. The act is an event and a
    statement signed by the log's key, by which `broker audit verify` tells dropped events from deleted
    ones. Runs as broker_owner (BROKER_OWNER_DSN, BROKER_TLOG_DIR, BROKER_TLOG_KEYS_DIR).

    \b
    Example:
      broker audit prune --before 2026-01-01
      broker audit prune --before 2026-01-01 --yes
    """
    settings = read_settings("owner_dsn", "tlog_dir", "tlog_keys_dir")
    with progress("Looking whether every event is published"):
        found = asyncio.run(_run(settings, before.replace(tzinfo=UTC), yes=yes))
    names = list(found.names) if found else []
    if as_json:
        print_json({"partitions": names, "dropped": yes and bool(names)})
    elif not names:
        say("no partition ends before that day")
    else:
        say(f"{', '.join(names)}: {'dropped' if yes else 'would be dropped; repeat with --yes'}")


async def _run(settings: Settings, before: datetime, *, yes: bool) -> Prunable | None:
    from broker.audit.log import find_prunable
    from broker.audit.log import prune as drop
    from broker.database import open_pool
    from broker.ledger import EventIds

    keys = log_keys(settings)
    pool = await open_pool(settings.owner_dsn, name="broker audit prune", max_size=1, statement_timeout=600)
    try:
        found = await find_prunable(pool, storage(settings), keys, before)
        if found is not None and yes:
            await drop(pool, found, keys, EventIds(), who=who())
        return found
    finally:
        await pool.close()
