"""`broker audit exposure`: whose data was given out."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from broker.cli.audit import filters, packs
from broker.cli.audit.options import Json, who
from broker.cli.names import agent_name
from broker.cli.output import CommandFailedError, Progress, print_json, print_line, print_table, progress, say
from broker.cli.persons import Administrator, run
from broker.errors import StartupError
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from broker.audit.exposure import Selection
    from broker.client import AuditClient, ExposedCustomer, ExposureQuery, ExposureTotals

REPORT_SECONDS = 600.0
"""Longest time of one statement of a report."""

SHOWN = 50
"""Customers that a table shows; the counts are of all."""

CustomerId = Annotated[
    str,
    typer.Option(
        "--customer-id",
        help="Key of a customer, for whom the records database finds the pseudonym; it is put nowhere.",
        show_default=False,
    ),
]


def exposure(
    administrator: Administrator | None,
    agent: filters.Agent = "",
    tool: filters.Tool = "",
    customer: filters.Customer = "",
    customer_id: CustomerId = "",
    grant: filters.Grant = "",
    since: filters.Since = "",
    until: filters.Until = "",
    pack: Annotated[
        Path | None,
        typer.Option("--pack", help="Write the notification pack into this file, signed, with its proofs."),
    ] = None,
    as_json: Json = False,
    as_lines: Annotated[
        bool, typer.Option("--jsonl", help="Print one customer a line as they come, the counts last.")
    ] = False,
) -> None:
    """Tell whose data was given out: which fields, when, on which tickets.

    By agent, tool, customer or grant, and time. A read counts unless an event says that it came to nothing.
    Customers and tickets are pseudonyms. With --pack: one signed file that anybody checks offline, written
    whole or not at all. Asks the broker for whom a token or --as is given; else runs as broker_auditor
    (BROKER_AUDITOR_DSN; --pack: BROKER_TLOG_DIR, BROKER_TLOG_KEYS_DIR). The question is an event of the
    ledger.

    \b
    Example:
      broker audit exposure --agent mallory --since 2026-08-01 --pack incident.zip --as audrey
      broker audit exposure --customer-id 5 --json --as audrey
    """
    from broker.audit.exposure import Selection
    from broker.client import ExposureQuery

    _check(agent, tool, customer, customer_id, grant)
    if pack is not None:
        packs.check_free(pack)
    begin, end = filters.period(since, until)
    grant_id = UUID(grant) if grant else None
    asked = administrator.broker if administrator else None
    whom = agent_name(agent, asked) if agent else None

    def selected(pseudonym: str) -> Selection:
        return Selection(whom.key if whom else None, tool or None, pseudonym or None, grant_id, begin, end)

    if administrator is not None:
        query = ExposureQuery(
            tool=tool, customer=customer, customer_id=customer_id, grant_id=grant, since=begin, until=end,
            agent=whom,
        )  # fmt: skip
        if pack is not None:
            answer = packs.over_port(administrator, query, pack, lines=as_lines)
        else:
            told_of = selected(customer or customer_id).as_mapping()
            if customer_id:
                del told_of["customer"]  # a key; which pseudonym it has, the broker alone knows
            answer = _over_port(administrator, query, told_of, lines=as_lines)
    else:
        settings = read_settings("auditor_dsn", *(["tlog_dir", "tlog_keys_dir"] if pack else []))
        with progress("Reading disclosures") as told:
            answer = asyncio.run(_run(settings, selected, customer, customer_id, pack, told, lines=as_lines))
    if as_lines:
        sys.stdout.write(json.dumps(answer["totals"]) + "\n")
    elif as_json:
        print_json(answer)
    else:
        _print(answer)
    if pack is not None and not as_json:
        packs.tell(answer["pack"])


def _check(agent: str, tool: str, customer: str, customer_id: str, grant: str) -> None:
    if customer and customer_id:
        raise StartupError("give --customer or --customer-id, not both")
    if not (agent or tool or customer or customer_id or grant):
        raise StartupError("say whose: --agent, --tool, --customer, --customer-id or --grant")
    try:
        UUID(grant or "0" * 32)
    except ValueError:
        raise StartupError("--grant: not an id") from None


def _over_port(
    administrator: Administrator, query: ExposureQuery, selection: dict[str, str], *, lines: bool
) -> dict[str, Any]:
    """Asks the broker; gives, or writes as it comes, the same as is made from the database."""
    from broker.client import AuditClient, ExposureTotals

    async def ask(client: AuditClient) -> dict[str, Any]:
        customers, totals = [], {}
        async for part in client.exposure(query):
            told = _told(part)
            if isinstance(part, ExposureTotals):
                totals = told
                if not part.reads and (sentence := await filters.unknown(client, query.agent)):
                    raise CommandFailedError(sentence, filters.SPELLING)
            elif lines:
                sys.stdout.write(json.dumps(told) + "\n")
            else:
                customers.append(told)
        return {"selection": selection, "totals": totals, "customers": customers}

    return run(administrator, AuditClient, ask)


def _told(part: ExposedCustomer | ExposureTotals) -> dict[str, Any]:
    from broker.audit.exposed import instant

    times = {
        name: instant(time) if time else "" for name, time in (("first", part.first), ("last", part.last))
    }
    return asdict(part) | times


async def _run(
    settings: Settings,
    selected: Any,
    customer: str,
    customer_id: str,
    pack: Path | None,
    told: Progress,
    *,
    lines: bool,
) -> dict[str, Any]:
    from broker.audit.events import EventReader
    from broker.audit.exposed import Totals
    from broker.audit.exposure import classes_for, exposed, put_question
    from broker.audit.naming import pseudonym_of
    from broker.audit.record import Auditor
    from broker.database import open_pool
    from broker.ledger import EventIds

    ids, by = EventIds(), Auditor(who())
    pool = await open_pool(
        settings.auditor_dsn, name="broker audit exposure", max_size=2, statement_timeout=REPORT_SECONDS
    )
    try:
        if customer_id:
            records = await open_pool(
                settings.auditor_records_dsn or settings.auditor_dsn, name="broker audit exposure", max_size=1
            )
            try:
                found = await pseudonym_of(pool, records, ids, by, "exposure", customer_id)
            finally:
                await records.close()
            if found.pseudonym is None:
                raise CommandFailedError(packs.NOBODY)
            customer = found.pseudonym
        selection = selected(customer)
        await put_question(pool, ids, by, selection, "pack" if pack else "exposure")
        totals = Totals()
        customers = []
        async for batch in exposed(pool, selection, totals, progress=told):
            classes = await classes_for(pool, totals)
            mapped = [one.as_mapping(classes) for one in batch]
            if lines:
                sys.stdout.writelines(json.dumps(one) + "\n" for one in mapped)
            else:
                customers += mapped
        if not totals.reads and selection.agent and not await EventReader(pool).names(selection.agent):
            raise CommandFailedError(filters.UNKNOWN.format(selection.agent), filters.SPELLING)
        classes = await classes_for(pool, totals)
        answer = {"selection": selection.as_mapping(), "totals": totals.as_mapping(classes)}
        if not lines:
            answer["customers"] = customers
        if pack is not None:
            answer["pack"] = await packs.from_database(settings, pool, selection, pack, told)
        return answer
    finally:
        await pool.close()


def _print(answer: dict[str, Any]) -> None:
    totals = answer["totals"]
    print_table(
        ("customer", "reads", "first", "last", "in clear", "masked", "tickets", "purposes"),
        (
            (
                one["customer"][:12], one["reads"], one["first"][:16], one["last"][:16],
                "anything: unreadable" if one["unreadable"] else " ".join(one["clear"]),
                " ".join(one["masked"]), len(one["tickets"]), " ".join(one["purposes"]),
            )
            for one in answer["customers"][:SHOWN]
        ),
    )  # fmt: skip
    if len(answer["customers"]) > SHOWN:
        say(f"these are {SHOWN} of {totals['customers']:,}: all of them with --json, --jsonl or --pack")
    print_table(
        ("field class", "customers in clear", "masked alone"),
        ((name, count["clear"], count["masked"]) for name, count in totals["classes"].items()),
    )
    print_line(f"{totals['customers']:,} customers, {totals['reads']:,} disclosures")
