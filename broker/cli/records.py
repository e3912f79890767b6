"""`broker records`: the guard in the records database."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from broker.cli.groups import VerbGroup
from broker.cli.output import CommandFailedError, print_json, print_line, print_table, progress, say
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    import asyncpg

    from broker.catalog import Catalog
    from broker.records import Plan

T = TypeVar("T")

app = typer.Typer(
    cls=VerbGroup,
    help="Install, check and undo the guard on the customers' tables.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, the SQL is printed and nothing is done.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Policies = Annotated[
    Path | None, typer.Option("--policies", help="Folder with catalog.yaml; default: BROKER_POLICIES_DIR.")
]


@app.command()
def install(yes: Yes = False, policies: Policies = None, as_json: Json = False) -> None:
    """Put the guard on the tables of the catalog, or bring it up to a changed catalog.

    Prints the SQL; with --yes runs it in one transaction. Other programs see and write as before.

    \b
    Example:
      broker records install > guard.sql
      broker records install --yes
    """
    settings = read_settings("records_owner_dsn")
    catalog = _catalog(settings, policies)

    async def work() -> Plan:
        from broker.records import apply, plan_install

        async with _administrator(settings) as conn:
            plan = await plan_install(conn, catalog)
            if yes:
                await apply(conn, plan)
            return plan

    _report(_run(work(), "Planning the guard"), done=yes, verb="installed", as_json=as_json)


@app.command()
def uninstall(
    yes: Yes = False,
    destroy_salts: Annotated[
        bool, typer.Option("--destroy-salts", help="Go on although pseudonyms can never be resolved again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Undo everything that install did, to the last right.

    \b
    Example:
      broker records uninstall
      broker records uninstall --yes
    """
    settings = read_settings("records_owner_dsn")

    async def work() -> Plan:
        from broker.records import apply, plan_uninstall

        async with _administrator(settings) as conn:
            plan = await plan_uninstall(conn, destroy_salts=destroy_salts)
            if yes:
                await apply(conn, plan)
            return plan

    _report(_run(work(), "Planning the undo"), done=yes, verb="undone", as_json=as_json)


@app.command()
def check(policies: Policies = None, as_json: Json = False) -> None:
    """Check that the guard still stands; ends with 1 where it does not.

    \b
    Example:
      broker records check --json | jq '.[] | select(.ok | not)'
    """
    settings = read_settings("records_owner_dsn")
    catalog = _catalog(settings, policies)

    async def work() -> list[dict[str, object]]:
        from broker.records import check as check_guard

        async with _administrator(settings) as conn:
            return [
                {"name": a.name, "ok": a.ok, "text": a.text, "remedy": a.remedy, "warning": a.warning}
                for a in await check_guard(conn, catalog)
            ]

    found = _run(work(), "Checking the guard")
    if as_json:
        print_json(found)
    else:
        print_table(
            ("check", "", "what", "what to do"),
            ((a["name"], _mark(a), a["text"], "" if a["ok"] else a["remedy"]) for a in found),
        )
    if any(not a["ok"] and not a["warning"] for a in found):
        raise CommandFailedError("the guard does not stand", "broker serve refuses to read until it does")


def _mark(assertion: dict[str, object]) -> str:
    if assertion["ok"]:
        return "ok"
    return "warning" if assertion["warning"] else "FAILED"


def _catalog(settings: Settings, policies: Path | None) -> Catalog:
    from broker.policy import PolicyFiles, load

    return load(PolicyFiles.from_directory(policies or settings.policies_dir), "candidate").catalog


def _administrator(settings: Settings) -> AbstractAsyncContextManager[asyncpg.Connection]:
    from broker.cli.connections import connected

    return connected(settings.records_owner_dsn, "BROKER_RECORDS_OWNER_DSN")


def _run(work: Coroutine[object, object, T], text: str) -> T:
    from broker.records import InstallRefusedError

    try:
        with progress(text):
            return asyncio.run(work)
    except InstallRefusedError as exc:
        raise CommandFailedError("cannot do that as things are:\n  " + "\n  ".join(exc.findings)) from None


def _report(plan: Plan, *, done: bool, verb: str, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "done": done,
                "steps": [{"sql": s.sql, "undo": s.undo, "why": s.why} for s in plan.steps],
                "notes": list(plan.notes),
            }
        )
        return
    if plan.steps:
        print_line(plan.script)
    for note in plan.notes:
        say(f"note: {note}")
    if not plan.steps:
        say("nothing to do: the guard is as the catalog says")
    elif done:
        say(f"{len(plan.steps)} statements run; {verb}")
    else:
        say(f"{len(plan.steps)} statements, nothing was done; run it again with --yes")
