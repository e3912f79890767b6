"""Who administers from a terminal: a console's certificate, and the token of the person at it.

Invariants:
- a token comes from a file or a command, never from the command line;
- `--as` names a person of the sample company and nobody else.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

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
        help="Administrator of the sample company: anna, boris, audrey, rick, olga or petra.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Administrator:
    """Where the broker is, through which console it is called, and for whom."""

    broker: Broker
    token_source: Callable[[], str | Awaitable[str]]


def personal(verb: Callable[..., None], *, optional: bool = False, late: bool = False) -> Callable[..., None]:
    """Adds the options that say where the broker is and who is at the console.

    The verb takes an `Administrator` first, then what is its own. Where a person is optional and none is told
    of, it takes None. A `late` verb, which may need no broker, takes what finds the administrator.
    """
    hints = get_type_hints(verb, include_extras=True)
    first, *own = inspect.signature(verb).parameters.values()
    shared = get_type_hints(_administrator, include_extras=True)
    added = list(inspect.signature(_administrator).parameters.values())
    parameters = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in own]
    parameters += [p.replace(annotation=shared[p.name], kind=p.KEYWORD_ONLY) for p in added]

    @wraps(verb)
    def command(**given: Any) -> None:
        told = {p.name: given.pop(p.name) for p in added}
        if late:
            verb(**{first.name: partial(_administrator, **told)}, **given)
            return
        someone = not optional or told["token_file"] or told["token_command"] or told["person"]
        administrator = _administrator(**told) if someone else None
        verb(**{first.name: administrator}, **given)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _administrator(
    token_file: TokenFile = None,
    token_command: TokenCommand = "",
    person: As = "",
    target: Target = "",
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    folder: Folder = USUAL_FOLDER,
) -> Administrator:
    """Finds the broker and the person that are meant.

    Raises:
        StartupError: something is missing; names it.
    """
    broker = broker_at(
        target, ca_file, cert_file, key_file, folder=folder, port="admin", certificate="console"
    )
    return Administrator(broker, _source(broker, folder, token_file, token_command, person))


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
    """Connects a client of the admin port for the person, acts, and shows that it takes time.

    With an empty `doing` whoever calls shows it.
    """
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

    if not doing:
        return asyncio.run(work())
    with progress(doing):
        return asyncio.run(work())
