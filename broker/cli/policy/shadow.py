"""`broker policy shadow`: a draft beside the active policy on live traffic, without effect."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import CommandFailedError, print_json, print_line, print_table, progress, say
from broker.cli.policy.options import Directory, Json, read, sentence, summary
from broker.settings import read_settings

if TYPE_CHECKING:
    import asyncpg

    from broker.policy import PolicyFiles
    from broker.shadowing import ShadowReport

app = typer.Typer(
    help="Let a draft decide beside the active policy, without effect, and list where it differs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("start")
def start(directory: Directory, as_json: Json = False) -> None:
    """Let a draft run as shadow on every worker, in place of the one that runs.

    Runs as broker_admin (BROKER_ADMIN_DSN). No answer changes; that you started it is put on the ledger.

    \b
    Example:
      broker policy shadow start drafts/wider
    """
    settings = read_settings("admin_dsn")
    files, policy = read(directory, thorough=False)
    with progress("Starting the shadow"):
        shadow_id = asyncio.run(_start(settings.admin_dsn, files))
    if as_json:
        print_json({**summary(files, policy), "shadow_id": shadow_id})
    else:
        say(f"shadow {shadow_id} runs within a second or two: {sentence(policy)}")
        say("look at its differences with: broker policy shadow show")


@app.command("stop")
def stop(as_json: Json = False) -> None:
    """End the shadow that runs; what it has counted stays until the next one starts.

    \b
    Example:
      broker policy shadow stop
    """
    settings = read_settings("admin_dsn")
    with progress("Stopping the shadow"):
        digest = asyncio.run(_stop(settings.admin_dsn))
    if as_json:
        print_json({"digest": digest})
    elif digest is None:
        say("no shadow was running")
    else:
        say("the shadow has ended; what it counted: broker policy shadow show")


@app.command("show")
def show(
    most: Annotated[int, typer.Option("--most", min=1, max=2000, help="Most rows shown.")] = 50,
    as_json: Json = False,
) -> None:
    """Show where the shadow decides otherwise: the one that runs, or the last one.

    \b
    Example:
      broker policy shadow show --most 20
    """
    settings = read_settings("admin_dsn")
    with progress("Reading what the shadow counted"):
        report = asyncio.run(_show(settings.admin_dsn, most))
    if report is None:
        raise CommandFailedError("there never was a shadow here", "start one: broker policy shadow start DIR")
    if as_json:
        differences = [{**d._asdict(), "uses": uses, "facts": facts} for d, uses, facts in report.differences]
        print_json({**asdict(report), "differences": differences})
    else:
        _print(report)


def _print(report: ShadowReport) -> None:
    state = f"ended {report.end_time:%Y-%m-%d %H:%M}" if report.end_time else "running"
    print_line(
        f"shadow {report.shadow_id}, {state}, started {report.start_time:%Y-%m-%d %H:%M} UTC "
        f"by {report.started_by}"
    )
    print_line(f"held against {report.compared:,} decisions; {report.differing:,} would have been otherwise")
    if report.trouble:
        print_line(f"trouble: {report.trouble}")
    if report.left_out:
        print_line(f"not looked at: {report.left_out:,} decisions, for lack of room in the workers")
    if report.unlisted:
        print_line(f"not listed: {report.unlisted:,} more differences, for lack of rows")
    rows = [
        (
            d.field, f"{d.active} -> {d.shadow}", f"{uses:,}", d.roles, d.ticket_kind, d.purpose,
            ", ".join(word for name, word in facts.items() if name not in {"purpose", "ticket_kind"}),
        )
        for d, uses, facts in report.differences
    ]  # fmt: skip
    if rows:
        columns = ("field", "level", "decisions", "roles", "ticket kind", "purpose", "first seen with")
        print_table(columns, rows, title="Active policy -> shadow")


async def _start(dsn: str, files: PolicyFiles) -> int:
    from broker.ledger import EventIds
    from broker.shadowing import start_shadow

    async with _pool(dsn) as pool:
        return await start_shadow(pool, EventIds(), files, started_by=_who("start"))


async def _stop(dsn: str) -> str | None:
    from broker.ledger import EventIds
    from broker.shadowing import stop_shadow

    async with _pool(dsn) as pool:
        return await stop_shadow(pool, EventIds(), stopped_by=_who("stop"))


async def _show(dsn: str, most: int) -> ShadowReport | None:
    from broker.shadowing import show_shadow

    async with _pool(dsn) as pool:
        return await show_shadow(pool, most)


@asynccontextmanager
async def _pool(dsn: str) -> AsyncIterator[asyncpg.Pool]:
    from broker.database import open_pool

    pool = await open_pool(dsn, name="broker policy shadow", max_size=1, statement_timeout=10)
    try:
        yield pool
    finally:
        await pool.close()


def _who(verb: str) -> str:
    return f"broker policy shadow {verb} by {getpass.getuser()}"
