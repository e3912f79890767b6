"""`broker audit accept-loss`: go on after a restore that lacks events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.audit.options import Json, log_keys, storage, who
from broker.cli.output import CommandFailedError, print_json, progress, say
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from broker.audit.log import FoundLoss


def accept_loss(
    reason: Annotated[str, typer.Option("--reason", help="Why; it is on record for ever. No personal data.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, show what would be accepted.")] = False,
    as_json: Json = False,
) -> None:
    """Accept what a restored database lacks; go on.

    The database lacks published events, so appends are stopped. The published leaves stay in the log, so no
    checkpoint and no proof is broken; what they said is gone. The acceptance is an event, and a
    statement signed by the log's key. A database with another past than the published log is refused.
    Runs as broker_admin (BROKER_ADMIN_DSN, BROKER_TLOG_DIR, BROKER_TLOG_KEYS_DIR).

    \b
    Example:
      broker audit verify
      broker audit accept-loss --reason "disk failure, restored the backup of 02:00"
      broker audit accept-loss --reason "disk failure, restored the backup of 02:00" --yes
    """
    settings = read_settings("admin_dsn", "tlog_dir", "tlog_keys_dir")
    with progress("Comparing the database with the published log"):
        found = asyncio.run(_run(settings, reason, yes=yes))
    end = found.head.size + len(found.leaves)
    answer = {"from": found.head.size, "to": end, "lost": found.lost, "accepted": yes}
    if as_json:
        print_json(answer)
    elif yes:
        say(f"accepted: {found.lost} events are lost, {len(found.leaves)} leaves taken in; appends go on")
    else:
        say(f"{found.lost} events would be lost for ever; repeat with --yes to accept that")


async def _run(settings: Settings, reason: str, *, yes: bool) -> FoundLoss:
    from broker.audit.log import accept_loss as accept
    from broker.audit.log import find_loss
    from broker.database import open_pool
    from broker.ledger import EventIds

    keys = log_keys(settings)
    pool = await open_pool(
        settings.admin_dsn, name="broker audit accept-loss", max_size=1, statement_timeout=600
    )
    try:
        found = await find_loss(pool, storage(settings), keys)
        if not found.leaves and not found.head.stopped:
            raise CommandFailedError("nothing is lost, and appends go on already")
        if yes:
            await accept(pool, found, keys, EventIds(), who=who(), reason=reason)
        return found
    finally:
        await pool.close()
