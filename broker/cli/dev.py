"""`broker dev`: everything on one machine, for people trying the broker."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.connections import USUAL_FOLDER
from broker.cli.groups import VerbGroup
from broker.cli.output import CommandFailedError, print_json, print_line, progress, say

if TYPE_CHECKING:
    from broker.cli.output import Progress
    from broker.dev.world import World

app = typer.Typer(cls=VerbGroup, rich_markup_mode=None)

Dir = Annotated[
    Path, typer.Option("--dir", envvar="BROKER_DEV_DIR", help="Folder that everything is kept in.")
]


@app.callback(invoke_without_command=True)
def dev(
    context: typer.Context,
    folder: Dir = USUAL_FOLDER,
    customers: Annotated[
        int, typer.Option(min=1, max=200_000, help="Sample customers; counts on the first start.")
    ] = 3000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Access processes.")] = 1,
) -> None:
    """Run a whole sample company on this machine until Ctrl-C.

    Starts an embedded PostgreSQL, a certificate authority, an OIDC issuer, a helpdesk feed with sample
    tickets and `broker serve`, and prints commands to try. A second start goes on with the same data.
    Never for production.

    \b
    Example:
      broker dev
      broker dev --dir tryout --customers 500 --workers 2
    """
    if context.invoked_subcommand is not None:
        return
    raise typer.Exit(asyncio.run(_serve(folder, customers, workers)))


@app.command()
def token(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="As alice, bob, bella, sam, mallory.")],
    tool: Annotated[str, typer.Option("--tool", help="For which tool: desk or phone.")] = "desk",
    admin: Annotated[
        bool,
        typer.Option("--admin", help="An administrator's: anna, boris, audrey, rick, olga or petra."),
    ] = False,
    folder: Dir = USUAL_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print an access token, an hour long, from the sample company's identity providers.

    \b
    Example:
      broker dev token alice > alice.jwt
      broker access tickets --token-command "broker dev token alice"
      broker policy whoami --token-command "broker dev token anna --admin"
    """
    from broker.dev.layout import Layout

    layout = Layout.existing(folder)
    text = layout.admin_token(agent) if admin else layout.token(agent, tool)
    if as_json:
        print_json({"agent": agent, "tool": tool, "token": text})
    else:
        print_line(text)


async def _serve(folder: Path, customers: int, workers: int) -> int:
    """Holds the company until a signal, which also ends a start that is under way."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    company = asyncio.create_task(_hold(folder, customers, workers))
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait({company, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not stopped.is_set():
        stop.cancel()
        await company  # raises why it ended
    say("stopping")
    company.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await company
    return 0


async def _hold(folder: Path, customers: int, workers: int) -> None:
    from broker.dev.world import World

    async with contextlib.AsyncExitStack() as stack:
        with progress("Starting") as step:
            world = await stack.enter_async_context(
                World.start(
                    folder,
                    customers=customers,
                    workers=workers,
                    usual_ports=True,
                    progress=lambda text: _tell(step, text),
                )
            )
        _show(world, folder)
        code = await world.serve.wait()
        raise CommandFailedError(f"broker serve ended by itself with {code}", f"see {world.serve.log}")


def _tell(step: Progress, text: str) -> None:
    step(text)
    if not sys.stderr.isatty():
        say(text)


def _show(world: World, folder: Path) -> None:
    """Prints what to try, ready to be pasted."""
    broker = _ourselves()
    where = "" if folder == USUAL_FOLDER else f" --dir {folder}"
    ports = world.layout.ports()
    print_line(f"The sample company runs; it is kept in {folder}.")
    print_line(f"  tools' port      {world.access_target}")
    print_line(f"  admins' port     {world.admin_target}")
    print_line(f"  keys, metrics    http://127.0.0.1:{ports['http']}/jwks.json /metrics /readyz")
    print_line(f"  log              {world.serve.log}")
    database = world.layout.postgres_folder()
    if not database.is_relative_to(world.folder):  # its system user must be able to get there
        print_line(f"  database's data  {database}")
    print_line("\nIn another terminal:")
    for line in (
        f"{broker} access read T-1001 --agent alice --fields customer.name,customer.email{where}",
        f"{broker} access tickets --agent bob{where}",
        f"{broker} access read T-1001 --agent mallory --fields customer.name{where}",
        f'{broker} contain suspend mallory --reason "trying it out"{where}',
        f"{broker} access tickets --agent mallory{where}",
        f"{broker} contain list{where}",
        f'{broker} contain reinstate mallory --reason "was a try"{where}',
        f"export BROKER_CONFIG={world.layout.settings_file}",
        f"{broker} trace show GRANT_ID    # the grant that `access read` printed",
        f"{broker} policy whoami --as anna{where}",
        f'{broker} policy propose {world.layout.policies} --reason "trying it out" --as anna{where}',
        f"{broker} policy list --as boris{where}    # boris approves what anna proposed",
        f"{broker} records check",
    ):
        print_line(f"  {line}")
    print_line("\nCtrl-C stops it; the data stays.")
    sys.stdout.flush()


def _ourselves() -> str:
    """Names this program as it can be called from here."""
    found = shutil.which("broker")
    own = Path(sys.executable).parent / "broker"
    if found and Path(found).resolve() == own.resolve():
        return "broker"
    try:
        return str(own.relative_to(Path.cwd()))
    except ValueError:
        return str(own)
