"""`broker audit access`: who could have read a customer at a time, beside who did."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.audit.exposure import CustomerId
from broker.cli.audit.options import Json, who
from broker.cli.output import print_json, print_line, print_table, progress
from broker.cli.persons import Administrator, run
from broker.cli.times import moment
from broker.errors import StartupError
from broker.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.audit.access_at import AccessAt, Could

ACCESS_SECONDS = 60.0


def access(
    administrator: Administrator | None,
    customer_id: CustomerId,
    at: Annotated[
        str,
        typer.Option("--at", help="When: 2026-11-01T08:00 in UTC, or 30d, 12h ago.", show_default=False),
    ],
    as_json: Json = False,
) -> None:
    """Tell who could have read a customer at a time, beside who did.

    By the tickets, assignments and policy of then; roles are those of the agent's last token before. Whether
    the customer was present is not known, so both are told. The key is put nowhere: the ledger names the
    pseudonym. Asks the broker for whom a token or --as is given; else runs as broker_auditor
    (BROKER_AUDITOR_DSN, BROKER_AUDITOR_RECORDS_DSN).

    \b
    Example:
      broker audit access --customer-id 5 --at 2026-11-01T08:00 --as audrey
    """
    if not customer_id:
        raise StartupError("say whom it is about: --customer-id")
    time = moment(at, "--at", datetime.now(UTC))
    if administrator is not None:
        answer = _over_port(administrator, customer_id, time)
    else:
        settings = read_settings("auditor_dsn")
        with progress("Looking who stood where"):
            answer = asyncio.run(_run(settings, customer_id, time))
    if as_json:
        print_json(asdict(answer) | {"could": [asdict(one) | {"could": one.could} for one in answer.could]})
    else:
        _print(answer)


def _over_port(administrator: Administrator, customer: str, time: datetime) -> AccessAt:
    """Asks the broker; gives the same as is made from the databases."""
    from broker.audit.access_at import AccessAt, Could, Did
    from broker.client import AuditClient

    found = run(administrator, AuditClient, lambda client: client.access(customer, time))
    return AccessAt(
        event_id=UUID(found.decision_id) if found.decision_id else None,
        time=time,
        pseudonym=found.pseudonym,
        policy_version=found.policy_version,
        could=tuple(Could(**asdict(one)) for one in found.could),
        did=tuple(Did(**asdict(one)) for one in found.did),
        not_knowable=found.not_knowable,
    )


async def _run(settings: Settings, customer: str, time: datetime) -> AccessAt:
    from broker.audit.access_at import access_at
    from broker.audit.record import Auditor
    from broker.database import open_pool
    from broker.ledger import EventIds

    pool = await open_pool(
        settings.auditor_dsn, name="broker audit access", max_size=1, statement_timeout=ACCESS_SECONDS
    )
    try:
        records = await open_pool(
            settings.auditor_records_dsn or settings.auditor_dsn, name="broker audit access", max_size=1
        )
        try:
            return await access_at(pool, records, EventIds(), Auditor(who()), customer, time)
        finally:
            await records.close()
    finally:
        await pool.close()


def _print(answer: AccessAt) -> None:
    words = {True: "yes", False: "no", None: "roles unknown"}
    print_table(
        ("agent", "ticket", "relation", "since", "roles as of", "could", "absent", "present"),
        (
            (
                one.agent, one.ticket_id, f"{one.relation}, {one.provenance}", f"{one.since:%Y-%m-%d %H:%M}",
                _roles(one),
                "suspended" if one.suspended else words[one.could],
                *(_fields(each) for each in (one.absent, one.present)),
            )
            for one in answer.could
        ),
        title=f"Who could, under policy {answer.policy_version or 'none'}",
    )  # fmt: skip
    print_table(
        ("agent", "reads", "first", "last", "last up to then"),
        (
            (one.agent, one.reads, *(f"{t:%Y-%m-%d %H:%M}" if t else "" for t in times))
            for one in answer.did
            for times in [(one.first, one.last, one.last_before)]
        ),
        title="Who did, at any time",
    )
    print_line("Whatever is not known is decided both ways, or taken for more access rather than less.")
    print_line("Not known: " + "; ".join(answer.not_knowable) + ".")


def _roles(one: Could) -> str:
    return f"{' '.join(one.roles)} {one.groups_time:%Y-%m-%d %H:%M}" if one.groups_time else "never seen"


def _fields(opened: Mapping[str, Mapping[str, str]]) -> str:
    """Counts the fields in clear and masked, whatever the purpose."""
    clear = {name for fields in opened.values() for name, level in fields.items() if level == "clear"}
    masked = {name for fields in opened.values() for name in fields} - clear
    return f"{len(clear)} clear, {len(masked)} masked" if clear or masked else "nothing"
