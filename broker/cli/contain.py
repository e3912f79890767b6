"""`broker contain`: stop an agent at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from broker.cli.connections import (
    USUAL_FOLDER,
    Broker,
    CaFile,
    CertFile,
    Folder,
    KeyFile,
    Target,
    broker_at,
)
from broker.cli.groups import VerbGroup
from broker.cli.names import AGENT, agent_name
from broker.cli.output import print_json, print_table, progress, say
from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.client import AdminClient

T = TypeVar("T")

app = typer.Typer(
    cls=VerbGroup,
    help="Suspend agents and revoke grants, as an incident responder on the admin port.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help=AGENT)]
Reason = Annotated[
    str, typer.Option("--reason", help="Why, for the ledger; no customers' data.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command()
def suspend(
    agent: AgentArgument,
    reason: Reason,
    as_json: Json = False,
    target: Target = "",
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    folder: Folder = USUAL_FOLDER,
) -> None:
    """Suspend an agent; their next grant or read is refused on every replica.

    \b
    Example:
      broker contain suspend mallory --reason "INC-7: reads without calls"
    """
    broker = _broker(target, ca_file, cert_file, key_file, folder)
    name = agent_name(agent, broker)
    suspension = _run(broker, lambda admin: admin.suspend(name, reason=reason))
    if as_json:
        print_json(asdict(suspension))
    else:
        say(f"{name.key} is suspended since {suspension.create_time:%Y-%m-%d %H:%M:%S} UTC")


@app.command()
def reinstate(
    agent: AgentArgument,
    reason: Reason,
    as_json: Json = False,
    target: Target = "",
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    folder: Folder = USUAL_FOLDER,
) -> None:
    """End a suspension; grants that were revoked meanwhile stay revoked.

    \b
    Example:
      broker contain reinstate mallory --reason "INC-7: was a drill"
    """
    broker = _broker(target, ca_file, cert_file, key_file, folder)
    name = agent_name(agent, broker)
    ended = _run(broker, lambda admin: admin.reinstate(name, reason=reason))
    if as_json:
        print_json({"agent": asdict(name), **asdict(ended)})
    elif ended.end_time is None:
        say(f"{name.key} was not suspended (decision id {ended.decision_id})")
        say("  see who is, spelt as the ledger does: broker contain list")
    else:
        say(f"{name.key} may work again (decision id {ended.decision_id})")


@app.command()
def revoke(
    reason: Reason,
    agent: Annotated[str, typer.Option("--agent", help=f"All live grants of this agent: {AGENT}")] = "",
    ticket: Annotated[str, typer.Option("--ticket", help="All live grants on this ticket.")] = "",
    grant: Annotated[str, typer.Option("--grant", help="This grant.")] = "",
    as_json: Json = False,
    target: Target = "",
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    folder: Folder = USUAL_FOLDER,
) -> None:
    """Revoke live grants of an agent, on a ticket, or one; name exactly one of them.

    \b
    Example:
      broker contain revoke --ticket T-1001 --reason "INC-7"
    """
    if bool(agent) + bool(ticket) + bool(grant) != 1:
        raise StartupError("name exactly one of --agent, --ticket and --grant")
    broker = _broker(target, ca_file, cert_file, key_file, folder)
    name = agent_name(agent, broker) if agent else None
    revocation = _run(
        broker,
        lambda admin: admin.revoke_grants(agent=name, ticket_id=ticket, grant_id=grant, reason=reason),
    )
    if as_json:
        print_json(asdict(revocation))
    else:
        grants = "1 live grant" if revocation.revoked == 1 else f"{revocation.revoked} live grants"
        say(f"{grants} revoked (decision id {revocation.decision_id})")


@app.command("list")
def list_suspensions(
    ended: Annotated[bool, typer.Option("--all", help="Also suspensions that have ended.")] = False,
    as_json: Json = False,
    target: Target = "",
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    folder: Folder = USUAL_FOLDER,
) -> None:
    """List suspensions in force, newest first.

    \b
    Example:
      broker contain list --all --json
    """
    broker = _broker(target, ca_file, cert_file, key_file, folder)

    async def gather(admin: AdminClient) -> list[dict[str, object]]:
        return [asdict(suspension) async for suspension in admin.suspensions(ended=ended)]

    found = _run(broker, gather)
    if as_json:
        print_json(found)
    else:
        print_table(
            ("agent", "since", "until", "by", "why"),
            (
                (_written(s["agent"]), s["create_time"], s["end_time"], s["suspended_by"], s["reason"])
                for s in found
            ),
        )


def _broker(
    target: str, ca_file: Path | None, cert_file: Path | None, key_file: Path | None, folder: Path
) -> Broker:
    return broker_at(target, ca_file, cert_file, key_file, folder=folder, port="admin", certificate="admin")


def _written(agent: object) -> str:
    return f"{agent['issuer']}|{agent['subject']}" if isinstance(agent, dict) else str(agent)


def _run(broker: Broker, act: Callable[[AdminClient], Awaitable[T]]) -> T:
    from broker.client import AdminClient

    async def work() -> T:
        async with AdminClient(
            broker.target, ca_file=broker.ca_file, cert_file=broker.cert_file, key_file=broker.key_file
        ) as admin:
            return await act(admin)

    with progress("Asking the broker"):
        return asyncio.run(work())
