"""`broker audit events` and `event`: what is on record."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.audit import filters
from broker.cli.output import print_json, print_line, print_table, say
from broker.cli.persons import Administrator, run
from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.client import AuditClient, EventQuery, LedgerEvent

USUAL = 100
"""Events shown where nobody says how many."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="Print one JSON object a line, as they come.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV that is safe to open in a spreadsheet.")]


def events(
    administrator: Administrator,
    agent: filters.Agent = "",
    tool: filters.Tool = "",
    customer: filters.Customer = "",
    ticket: filters.Ticket = "",
    grant: filters.Grant = "",
    kind: filters.Kind = "",
    outcome: filters.Outcome = "",
    reason: filters.Reason = "",
    version: filters.Version = "",
    since: filters.Since = "",
    until: filters.Until = "",
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many.")] = USUAL,
    every: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    oldest: Annotated[
        bool, typer.Option("--oldest-first", help="Oldest first; newest first otherwise.")
    ] = False,
    as_json: Json = False,
    as_lines: JsonLines = False,
    as_csv: Csv = False,
) -> None:
    """List events of the ledger: grants, reads, refusals, and who asked the ledger itself.

    Every option narrows the list; an event must fit all of them. Customers and tickets are pseudonyms. The
    question is on record before it is answered.

    \b
    Example:
      broker audit events --agent alice --kind read --since 7d --as audrey
      broker audit events --reason TICKET_DENIED --since 2026-11-01 --csv --all --as audrey
    """
    from broker.audit.export import csv_line, json_line
    from broker.client import AuditClient

    if as_json + as_lines + as_csv > 1:
        raise StartupError("give one of --json, --jsonl and --csv")
    query = filters.query(
        administrator.broker, agent=agent, tool=tool, customer=customer, ticket=ticket, grant=grant,
        kind=kind, outcome=outcome, reason=reason, version=version, since=since, until=until,
    )  # fmt: skip
    limit = None if every else most

    async def write(client: AuditClient) -> list[dict[str, Any]]:
        kept = []
        count = 0
        if as_csv:
            sys.stdout.write(csv_line())
        async for event in client.events(query, oldest_first=oldest, most=limit):
            count += 1
            told = as_mapping(event)
            if as_csv:
                sys.stdout.write(csv_line(told))
            elif as_lines:
                sys.stdout.write(json_line(told) + "\n")
            else:
                kept.append(told)
        await _remark(client, query, count, limit)
        return kept

    found = run(administrator, AuditClient, write)
    if as_json:
        print_json(found)
    elif not (as_lines or as_csv):
        _print(found)


def event(
    administrator: Administrator,
    event_id: Annotated[
        str, typer.Argument(metavar="EVENT", help="Its id, as lists, receipts and errors name it.")
    ],
    as_json: Json = False,
) -> None:
    """Show one event with all that it tells.

    \b
    Example:
      broker audit event 019ab2f0-7c1e-7000-8000-3f2a9c5d1e77 --as audrey
    """
    from broker.client import AuditClient

    found = as_mapping(run(administrator, AuditClient, lambda client: client.event(event_id)))
    if as_json:
        print_json(found)
        return
    detail = found.pop("detail")
    for name, value in found.items():
        print_line(f"{name.replace('_', ' '):15} {'not in the log yet' if value is None else value}")
    for name, value in detail.items():
        print_line(f"  {name:13} {value}")


async def _remark(client: AuditClient, query: EventQuery, count: int, limit: int | None) -> None:
    """Says what a number of events may mean."""
    if limit is not None and count == limit:
        say(f"these are {limit}; there may be more: --most N, or --all")
    if not count and (sentence := await filters.unknown(client, query.agent)):
        say(f"{sentence}: {filters.SPELLING}")


def _print(found: Sequence[Mapping[str, Any]]) -> None:
    print_table(
        ("time", "kind", "outcome", "agent", "customer", "ticket", "event"),
        (
            (
                event["record_time"][:19].replace("T", " "), event["kind"],
                " ".join(word for word in (event["outcome"], event["reason"]) if word),
                event["agent"].partition("|")[2] or event["agent"], event["customer"][:8],
                event["ticket"][:8], event["event_id"],
            )
            for event in found
        ),
    )  # fmt: skip


def as_mapping(event: LedgerEvent) -> dict[str, Any]:
    """Gives an event's columns as programs get them, and what its leaf tells beside."""
    found = asdict(event)
    del found["leaf"], found["leaf_size"]
    found["record_time"] = event.record_time.isoformat()
    return {**found, "detail": event.detail}
