"""Who administers from a terminal: a console's certificate, and the token of the person at it.

Invariants:
- a token comes from a file or a command, never from the command line;
- `--as` names a person of the sample company and nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from broker.cli.connections import Broker, broker_at
from broker.cli.output import progress
from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.client import TokenSource
    from broker.client.administration import AdminPort

T = TypeVar("T")
Client = TypeVar("Client", bound="AdminPort")

TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", envvar="BROKER_ADMIN_TOKEN_FILE", help="File with the administrator's access token."
    ),
]
TokenCommand = Annotated[
    str,
    typer.Option(
        "--token-command",
        envvar="BROKER_ADMIN_TOKEN_COMMAND",
        help="Command that prints the administrator's access token; run without a shell.",
        show_default=False,
    ),
]
As = Annotated[
    str,
    typer.Option(
        "--as",
        envvar="BROKER_DEV_AS",
        help="Administrator of the sample company: anna, boris, audrey, rick or olga.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Administrator:
    """Where the broker is, through which console it is called, and for whom."""

    broker: Broker
    token_source: TokenSource


def administrator_at(
    target: str,
    ca_file: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
    *,
    folder: Path,
    token_file: Path | None,
    token_command: str,
    name: str,
) -> Administrator:
    """Finds the broker and the person that are meant.

    Args:
        target: from the command line; empty: the sample company's.
        ca_file: from the command line.
        cert_file: from the command line.
        key_file: from the command line.
        folder: of the sample company.
        token_file: from the command line.
        token_command: from the command line.
        name: of the sample company's administrator.

    Raises:
        StartupError: something is missing; names it.
    """
    broker = broker_at(
        target, ca_file, cert_file, key_file, folder=folder, port="admin", certificate="console"
    )
    return Administrator(broker, _source(broker, folder, token_file, token_command, name))


def _source(
    broker: Broker, folder: Path, token_file: Path | None, token_command: str, name: str
) -> TokenSource:
    from broker import client

    if bool(token_file) + bool(token_command) + bool(name) != 1:
        raise StartupError("give exactly one of --token-file, --token-command and (sample company) --as")
    if token_file is not None:
        return client.token_file(token_file)
    if token_command:
        return client.token_command(token_command)
    if not broker.sample:
        raise StartupError("--as is for the sample company; give --token-file or --token-command")
    from broker.dev.layout import Layout

    layout = Layout.existing(folder)
    return lambda: layout.admin_token(name)


def run(
    administrator: Administrator,
    kind: type[Client],
    act: Callable[[Client], Awaitable[T]],
    *,
    doing: str = "Asking the broker",
) -> T:
    """Connects a client of the admin port for the person, acts, and shows that it takes time."""
    broker = administrator.broker

    async def work() -> T:
        async with kind(
            broker.target,
            ca_file=broker.ca_file,
            cert_file=broker.cert_file,
            key_file=broker.key_file,
            token_source=administrator.token_source,
        ) as client:
            return await act(client)

    with progress(doing):
        return asyncio.run(work())
