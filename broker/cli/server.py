"""`broker serve` and `broker migrate`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from broker.cli.output import print_json, print_line, progress, say
from broker.settings import SERVE_NEEDS, read_settings


def add_to(app: typer.Typer) -> None:
    """Adds the verbs that stand by themselves."""
    app.command("serve")(serve)
    app.command("migrate")(migrate)


def serve(
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Access processes on the one port; BROKER_WORKERS.")
    ] = None,
) -> None:
    """Serve tools, administrators and the feed until SIGTERM, then drain.

    Settings are BROKER_* variables over the TOML file that BROKER_CONFIG names; deploy/README.md
    lists them. Refuses to start without issuer, audience, certificates or guard.

    \b
    Example:
      BROKER_CONFIG=/etc/broker/broker.toml broker serve --workers 4
    """
    settings = read_settings(*SERVE_NEEDS)
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    from broker.server import serve as serve_until_signal

    raise typer.Exit(serve_until_signal(settings))


def migrate(
    as_json: Annotated[bool, typer.Option("--json", help="Print the names applied as JSON.")] = False,
) -> None:
    """Bring the broker's database up to this release; safe to run again.

    Runs as broker_owner (BROKER_OWNER_DSN), after deploy/roles.sql was run once by a superuser.

    \b
    Example:
      BROKER_OWNER_DSN=postgresql://broker_owner:…@db/broker?sslmode=verify-full broker migrate
    """
    settings = read_settings("owner_dsn")
    from broker.database import migrate as apply_migrations

    with progress("Migrating") as step:
        applied = asyncio.run(apply_migrations(settings.owner_dsn, lambda name: step(f"Applied {name}")))
    if as_json:
        print_json({"applied": applied})
        return
    for name in applied:
        print_line(name)
    say(f"{len(applied)} applied; the database is up to date")
