"""`broker policy load`: make a folder of policy files the policy in force."""

from __future__ import annotations

import asyncio
import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import CommandFailedError, print_json, progress, say
from broker.cli.policy.options import Directory, Json, read, refuse_lint, sentence, summary
from broker.errors import PolicyUnavailableError, StartupError
from broker.settings import read_settings

if TYPE_CHECKING:
    from broker.policy import PolicyFiles


def load_directory(
    directory: Directory,
    expect: Annotated[
        str, typer.Option("--expect", help="Load only where this version is in force now; against a race.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Make policy files the policy in force, on every replica and without a gap.

    Runs as broker_admin (BROKER_ADMIN_DSN). Files with any finding change nothing. The next read is
    decided by the new version; grants are cut down to it.

    \b
    Example:
      broker policy load policies
    """
    if expect and not expect.isdecimal():
        raise StartupError("--expect takes a version, as a number")
    settings = read_settings("admin_dsn")
    files, policy = read(directory)
    refuse_lint(files)
    try:
        with progress("Activating"):
            version = asyncio.run(_activate(settings.admin_dsn, files, expect))
    except PolicyUnavailableError:
        raise CommandFailedError(
            f"another version than {expect} is in force; nothing was changed",
            "look at what changed, then load with --expect of the version in force, or without it",
        ) from None
    if as_json:
        print_json({**summary(files, policy), "version": version})
    else:
        say(f"version {version} is in force: {sentence(policy)}")


async def _activate(dsn: str, files: PolicyFiles, expected: str) -> str:
    from broker.activation import activate
    from broker.database import open_pool
    from broker.ledger import EventIds

    pool = await open_pool(dsn, name="broker policy load", max_size=1, statement_timeout=10)
    try:
        loaded_by = f"broker policy load by {getpass.getuser()}"
        return await activate(pool, EventIds(), files, loaded_by=loaded_by, expected=expected or None)
    finally:
        await pool.close()
