"""`broker access`: a complete support tool in a terminal."""

from __future__ import annotations

import asyncio
import re
import shlex
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from broker.cli.connections import (
    USUAL_FOLDER,
    CaFile,
    CertFile,
    Folder,
    KeyFile,
    Target,
    broker_at,
)
from broker.cli.groups import VerbGroup
from broker.cli.output import print_json, print_line, print_table, progress
from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.client import BrokerClient, FieldValue, Record, TokenSource

T = TypeVar("T")

USUAL_TOOL = "desk"

app = typer.Typer(
    cls=VerbGroup,
    help="Read a ticket's customer as a support tool does, and ask why not.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AgentName = Annotated[
    str,
    typer.Option(
        "--agent", help="Agent of the sample company, whose token `broker dev` makes.", show_default=False
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", envvar="BROKER_CLIENT_TOKEN_FILE", help="File with the agent's access token."
    ),
]
TokenCommand = Annotated[
    str,
    typer.Option(
        "--token-command",
        envvar="BROKER_CLIENT_TOKEN_COMMAND",
        help="Command that prints the agent's access token; run without a shell.",
        show_default=False,
    ),
]
Tool = Annotated[str, typer.Option("--tool", help="Tool of the sample company: desk or phone.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command()
def read(
    ticket: Annotated[str, typer.Argument(metavar="TICKET")],
    fields: Annotated[
        str, typer.Option("--fields", help="Names as customer.email, joined by commas.", show_default=False)
    ],
    purpose: Annotated[str, typer.Option("--purpose", help="A purpose of the catalog.")] = "resolve-ticket",
    customer: Annotated[
        str, typer.Option("--customer", help="Which customer, where the ticket has several.")
    ] = "",
    agent: AgentName = "",
    tool: Tool = USUAL_TOOL,
    token_file: TokenFile = None,
    token_command: TokenCommand = "",
    as_json: Json = False,
    target: Target = "",
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    folder: Folder = USUAL_FOLDER,
) -> None:
    """Read fields of a ticket's customer; shows field by field what came back.

    The receipt is verified offline: the disclosure stands in the ledger under the broker's signature.

    \b
    Example:
      broker access read T-1001 --agent alice --fields customer.name,customer.email
      broker access read T-1 --target broker:7443 --ca-file ca.pem --cert-file tool.pem \\
          --key-file tool.key --token-command "oidc-token" --fields customer.name --json
    """
    names = [name.strip() for name in fields.split(",") if name.strip()]
    connect = _connector(target, ca_file, cert_file, key_file, folder, agent, tool, token_file, token_command)

    async def work(client: BrokerClient) -> tuple[Record, bool]:
        from broker.client import BrokerCallError, verify_receipt

        try:
            record = await client.read(ticket, names, purpose=purpose, customer_id=customer)
        except BrokerCallError as exc:
            if exc.reason == "POLICY_DENIED":
                again = _sample_options(agent, tool, folder) or " with the same options"
                exc.add_note(f"see what was missing: broker access explain {exc.decision_id}{again}")
            elif exc.reason == "PURPOSE_UNKNOWN":
                exc.add_note("catalog.yaml says which purposes there are")
            elif wrong := _named(exc.field, names):
                exc.add_note(f"{exc.field} is {wrong!r}; catalog.yaml says which fields there are")
            raise
        verified = verify_receipt(record.receipt, await client.jwks())
        return record, verified.event.get("id") == record.decision_id

    record, verified = _run(connect, work)
    if as_json:
        print_json(_as_json(record, verified=verified))
        return
    print_table(("field", "state", "value", ""), ((f.name, f.state, _values(f), _remark(f)) for f in record))
    print_line(f"decision  {record.decision_id}  (policy {record.policy_version})")
    print_line(f"grant     {record.grant.grant_id}  until {record.grant.expire_time:%H:%M:%S} UTC")
    print_line(f"receipt   {'verified: this read is on record' if verified else 'of ANOTHER event'}")


@app.command()
def tickets(
    agent: AgentName = "",
    tool: Tool = USUAL_TOOL,
    token_file: TokenFile = None,
    token_command: TokenCommand = "",
    as_json: Json = False,
    target: Target = "",
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    folder: Folder = USUAL_FOLDER,
) -> None:
    """List the agent's open tickets, newest first.

    \b
    Example:
      broker access tickets --agent bob
    """
    connect = _connector(target, ca_file, cert_file, key_file, folder, agent, tool, token_file, token_command)

    async def work(client: BrokerClient) -> list[dict[str, Any]]:
        return [asdict(found) async for found in client.assigned_tickets(page_size=100)]

    found = _run(connect, work)
    if as_json:
        print_json(found)
    else:
        print_table(("ticket", "kind", "relation", "since"), (row.values() for row in found))


@app.command()
def explain(
    decision_id: Annotated[
        str, typer.Argument(metavar="DECISION_ID", help="As a refusal or an answer names it.")
    ],
    agent: AgentName = "",
    tool: Tool = USUAL_TOOL,
    token_file: TokenFile = None,
    token_command: TokenCommand = "",
    as_json: Json = False,
    target: Target = "",
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    folder: Folder = USUAL_FOLDER,
) -> None:
    """Explain a decision of the agent's own: per field, what was missing.

    \b
    Example:
      broker access explain 019ab2f0-7c1e-7000-8000-3f2a9c5d1e77 --agent alice
    """
    connect = _connector(target, ca_file, cert_file, key_file, folder, agent, tool, token_file, token_command)
    why = _run(connect, lambda client: client.explain(decision_id))
    if as_json:
        print_json({**asdict(why), "fields": [{"name": name, "missing": list(m)} for name, m in why.fields]})
        return
    print_table(
        ("fact", "was"),
        why.facts.items(),
        title=f"{why.reason or 'granted in part'}, policy {why.policy_version}",
    )
    print_table(("field", "missing"), ((name, "; ".join(missing)) for name, missing in why.fields))


def _connector(
    target: str,
    ca_file: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
    folder: Path,
    agent: str,
    tool: str,
    token_file: Path | None,
    token_command: str,
) -> Callable[[], BrokerClient]:
    """Puts the client together from options; says what is missing before anything is asked."""
    broker = broker_at(
        target, ca_file, cert_file, key_file, folder=folder, port="access", certificate=f"tool-{tool}"
    )
    source = _token_source(broker.sample, agent, tool, token_file, token_command)

    def connect() -> BrokerClient:
        from broker.client import BrokerClient

        return BrokerClient(
            broker.target,
            ca_file=broker.ca_file,
            cert_file=broker.cert_file,
            key_file=broker.key_file,
            token_source=source,
        )

    return connect


def _token_source(
    folder: Path | None, agent: str, tool: str, token_file: Path | None, token_command: str
) -> TokenSource:
    from broker import client

    if bool(agent) + bool(token_file) + bool(token_command) != 1:
        raise StartupError("give exactly one of --token-file, --token-command and (sample company) --agent")
    if token_file is not None:
        return client.token_file(token_file)
    if token_command:
        return client.token_command(token_command)
    if folder is None:
        raise StartupError("--agent is for the sample company; give --token-file or --token-command")
    from broker.dev.layout import Layout

    layout = Layout.existing(folder)
    return lambda: layout.token(agent, tool)


def _run(connect: Callable[[], BrokerClient], act: Callable[[BrokerClient], Awaitable[T]]) -> T:
    async def work() -> T:
        async with connect() as client:
            return await act(client)

    with progress("Asking the broker"):
        return asyncio.run(work())


def _sample_options(agent: str, tool: str, folder: Path) -> str:
    """Gives the options that name the same agent of the sample company; "" where it is a real one."""
    if not agent:
        return ""
    words = ["--agent", agent]
    words += ["--tool", tool] if tool != USUAL_TOOL else []
    words += ["--dir", str(folder)] if folder != USUAL_FOLDER else []
    return f" {shlex.join(words)}"


def _named(place: str, names: list[str]) -> str:
    """Gives the field that a refusal names by its place, as `fields[2]`; "" where it names none."""
    found = re.fullmatch(r"fields\[(\d{1,4})\]", place)
    return names[int(found[1])] if found and int(found[1]) < len(names) else ""


def _values(field: FieldValue) -> str:
    return "\n".join("NULL" if value is None else value for value in field.values)


def _remark(field: FieldValue) -> str:
    if field.state != "withheld" and not field.values:
        return "no row"  # an empty cell would look like an empty value
    return field.reason or ("there are more rows" if field.truncated else "")


def _as_json(record: Record, *, verified: bool) -> dict[str, object]:
    return {
        "decision_id": record.decision_id,
        "policy_version": record.policy_version,
        "grant_id": record.grant.grant_id,
        "trace_id": record.grant.trace_id,
        "receipt_verified": verified,
        "receipt": {
            "leaf": b64encode(record.receipt.leaf).decode(),
            "leaf_index": record.receipt.leaf_index,
            "tree_size": record.receipt.tree_size,
            "path": [b64encode(digest).decode() for digest in record.receipt.path],
            "signed_root": record.receipt.signed_root,
        },
        "fields": [
            {
                "name": f.name,
                "state": f.state.value,
                "values": list(f.values),
                "reason": f.reason,
                "truncated": f.truncated,
            }
            for f in record
        ],
    }
