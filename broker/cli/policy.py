"""`broker policy`: check a folder of policy files and make it the policy in force."""

from __future__ import annotations

import asyncio
import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import CommandFailedError, print_json, progress, say
from broker.errors import PolicyInvalidError, PolicyUnavailableError, StartupError
from broker.settings import read_settings

if TYPE_CHECKING:
    from broker.policy import Policy, PolicyFiles

app = typer.Typer(help="Check and load policies.", no_args_is_help=True, rich_markup_mode=None)

Directory = Annotated[
    Path,
    typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Folder with the five policy files."),
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command()
def check(directory: Directory, as_json: Json = False) -> None:
    """Check policy files without loading them; prints every finding with file and line.

    \b
    Example:
      broker policy check policies
    """
    try:
        files, policy = _read(directory)
    except PolicyInvalidError as exc:
        if as_json:
            print_json({"findings": exc.findings})
        raise
    if as_json:
        print_json({**_summary(files, policy), "findings": []})
    else:
        say(_sentence(policy))


@app.command("load")
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
    files, policy = _read(directory)
    try:
        with progress("Activating"):
            version = asyncio.run(_activate(settings.admin_dsn, files, expect))
    except PolicyUnavailableError:
        raise CommandFailedError(
            f"another version than {expect} is in force; nothing was changed",
            "look at what changed, then load with --expect of the version in force, or without it",
        ) from None
    if as_json:
        print_json({**_summary(files, policy), "version": version})
    else:
        say(f"version {version} is in force: {_sentence(policy)}")


def _read(directory: Path) -> tuple[PolicyFiles, Policy]:
    from broker.errors import PolicyInvalidError
    from broker.policy import PolicyFiles, load
    from broker.rpc.admin import METHOD_NAMES

    with progress("Reading and checking the policy against Casbin"):
        files = PolicyFiles.from_directory(directory)
        policy = load(files, "candidate", thorough=True)
        # Checked here and not by `load`: only this layer knows which RPCs the release has. Without their
        # rows the next `serve` would refuse to start.
        names = [f"/{name}" for name in METHOD_NAMES]
        if missing := policy.admin.missing(names):
            text = "admin.csv: no row for {}; add who may call it"
            raise PolicyInvalidError([text.format(name) for name in missing])
        return files, policy


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


def _summary(files: PolicyFiles, policy: Policy) -> dict[str, object]:
    return {
        "digest": files.digest,
        "rules": len(policy.book.rules),
        "roles": sorted(policy.roles),
        "fields": sorted(policy.catalog.fields),
        "verification": policy.verification,
    }


def _sentence(policy: Policy) -> str:
    counts = f"{len(policy.book.rules)} rules for {len(policy.roles)} roles"
    return f"{counts} over {len(policy.catalog.fields)} fields ({policy.verification})"
