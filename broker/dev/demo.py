"""A day at the help desk and what came of it, in twelve steps, with real clients over mutual TLS.

    python -m broker.dev.demo

Invariants:
- every step asserts what it shows; the exit code is 0 only if everything went as told;
- nothing is faked: an embedded PostgreSQL, `broker serve` as a process of its own, the client
  library that tools use, signed events of a helpdesk. All of it is gone afterwards.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

import asyncpg
from rich.console import Console
from rich.text import Text

from broker.client import (
    AgentName,
    AgentSuspendedError,
    BrokerCallError,
    BudgetExceededError,
    FieldState,
    Grant,
    PolicyDeniedError,
    TicketDeniedError,
    TokenInvalidError,
    verify_receipt,
)
from broker.database import open_pool
from broker.dev.layout import AGENT_ISSUER, AUDIENCE
from broker.dev.leak import a_leak_is_traced
from broker.dev.stage import Stage, WrongStoryError, expect, refused
from broker.dev.world import World, agent
from broker.traces import Trace, load
from broker.traces.render import render

TICKET = "T-1001"
PURPOSE = "resolve-ticket"
FIELDS = ("customer.name", "customer.city", "customer.email", "customer.phone")
BEYOND = ("customer.iban", "customer.birth_date")

CUSTOMERS = 1200
MALLORYS_TICKETS = 1000
MALLORYS_FIRST_CUSTOMER = 101

SPANS_TIMEOUT = 10.0
"""Seconds for spans to arrive; they follow their event within one."""


async def play(world: World, stage: Stage) -> None:
    """Plays the whole story."""
    grant = await alice_reads_her_ticket(world, stage)
    await alice_asks_for_more(world, stage)
    await mallory_cannot_tell_them_apart(world, stage)
    await a_stolen_grant_is_worthless(world, stage, grant)
    await reassignment_ends_access(world, stage, grant)
    read = await mallory_runs_into_her_budget(world, stage)
    await somebody_reads_the_database(world, stage)
    await the_trace_is_shown(world, stage, grant)
    await a_leak_is_traced(world, stage, read)


async def alice_reads_her_ticket(world: World, stage: Stage) -> Grant:
    """Profile clear, contact masked, on the record."""
    stage.step(f"Alice (tier 1) works on {TICKET}, which the queue assigned to her")
    async with world.client("alice") as desk:
        record = await desk.read(TICKET, FIELDS, purpose=PURPOSE)
        receipt = verify_receipt(record.receipt, await desk.jwks())
    stage.record("Alice", record)
    states = [field.state.value for field in record]
    expect(states == ["clear", "clear", "masked", "masked"], f"the fields are {states}")
    expect("•" in (record["customer.email"].value or ""), "the e-mail address is not masked")
    expect(receipt.event["id"] == record.decision_id, "the receipt proves another event")
    stage.tell(f"The receipt verifies offline: decision {record.decision_id} is in the ledger.")
    return record.grant


async def alice_asks_for_more(world: World, stage: Stage) -> None:
    """She is told what is missing."""
    stage.step(f"Alice asks for {' and '.join(BEYOND)}, beyond her role")
    async with world.client("alice") as desk:
        error = await refused(desk.create_grant(TICKET, BEYOND, purpose=PURPOSE), PolicyDeniedError)
        why = await desk.explain(error.decision_id)
    stage.refusal("Alice", error)
    for name, missing in why.fields:
        stage.tell(f"{name}: {'; '.join(missing)}")
    expect([name for name, _ in why.fields] == list(BEYOND), "not every field is explained")
    expect(all(missing for _, missing in why.fields), "a field is withheld without a reason")


async def mallory_cannot_tell_them_apart(world: World, stage: Stage) -> None:
    """Somebody else's ticket and none at all look the same."""
    stage.step(f"Mallory (tier 1) asks for Alice's {TICKET} and for T-9999, which does not exist")
    async with world.client("mallory") as desk:
        errors = [
            await refused(desk.create_grant(ticket, FIELDS, purpose=PURPOSE), TicketDeniedError)
            for ticket in (TICKET, "T-9999")
        ]
    for error in errors:
        stage.refusal("Mallory", error)
    alike = [(e.code, e.reason, str(e), e.field, sorted(e.metadata), len(str(e.metadata))) for e in errors]
    expect(alike[0] == alike[1], f"the refusals differ: {alike}")
    stage.tell("Same status, same words, same size: she learns nothing.")


async def a_stolen_grant_is_worthless(world: World, stage: Stage, grant: Grant) -> None:
    """It is bound to the tool's TLS key and to the agent."""
    stage.step("Somebody copies Alice's grant out of the help desk and uses it from the phone tool")
    async with world.client("alice", tool="phone") as phone:
        error = await refused(phone.read_with(grant, FIELDS), TokenInvalidError)
    stage.refusal("The thief", error)
    async with world.client("mallory") as desk:
        await refused(desk.read_with(grant, FIELDS), TokenInvalidError)
    async with world.client("alice") as desk:
        await desk.read_with(grant, FIELDS)
    stage.tell("From Alice's own tool the same grant still opens the record; in Mallory's hands it does not.")


async def reassignment_ends_access(world: World, stage: Stage, grant: Grant) -> None:
    """The ground goes, the grant with it, long before its end."""
    stage.step(
        f"The helpdesk reassigns {TICKET} to Bob; Alice's grant runs until {grant.expire_time:%H:%M:%S}"
    )
    await world.publish(world.helpdesk.reassign(TICKET, agent("bob")))
    async with world.client("alice") as desk:
        error = await refused(desk.read_with(grant, FIELDS), TicketDeniedError)
    stage.refusal("Alice", error)
    async with world.client("bob") as desk:
        record = await desk.read(TICKET, FIELDS[:1], purpose=PURPOSE)
    expect(record["customer.name"].state is FieldState.CLEAR, "Bob does not see the name")
    stage.tell("It stopped at the very next read. Bob, who has the ticket now, can go on.")


async def mallory_runs_into_her_budget(world: World, stage: Stage) -> list[int]:
    """Volume ends by itself; then an administrator ends the rest. Gives the customers she has read."""
    stage.step(f"Mallory gets {MALLORYS_TICKETS} tickets assigned and reads one after the other")
    mallory = agent("mallory")
    numbers = range(MALLORYS_FIRST_CUSTOMER, MALLORYS_FIRST_CUSTOMER + MALLORYS_TICKETS)
    await world.publish(
        *(world.helpdesk.open(f"M-{number}", customers=[str(number)], assignee=mallory) for number in numbers)
    )
    async with world.client("mallory") as desk:
        seen: list[int] = []
        error: BrokerCallError | None = None
        for number in numbers:
            try:
                await desk.read(f"M-{number}", FIELDS[:1], purpose=PURPOSE)
            except BudgetExceededError as exc:
                error = exc
                break
            seen.append(number)
        expect(isinstance(error, BudgetExceededError), "she read all of them")
        if error is not None:
            stage.refusal("Mallory", error)
        expect(0 < len(seen) < MALLORYS_TICKETS // 10, f"she read {len(seen)} customers")
        free = error.free_time if isinstance(error, BudgetExceededError) else None
        if free is None:
            raise WrongStoryError("she is not told when her budget frees up")
        stage.tell(f"{len(seen)} customers of {MALLORYS_TICKETS}, then it is over until {free:%H:%M} UTC.")
        await desk.read(f"M-{seen[0]}", FIELDS[:1], purpose=PURPOSE)  # a customer she has read counts once

        stage.step(
            "An incident responder suspends her; she tries a customer that she could read a second ago"
        )
        async with world.admin() as admin:
            suspension = await admin.suspend(
                AgentName(AGENT_ISSUER, "mallory"), reason="INC-7: reads in bulk"
            )
        again = desk.read(f"M-{seen[0]}", FIELDS[:1], purpose=PURPOSE)
        stage.refusal("Mallory", await refused(again, AgentSuspendedError))
        expect(suspension.end_time is None, "the suspension has ended already")
    return seen


async def somebody_reads_the_database(world: World, stage: Stage) -> None:
    """The broker's own read role sees nothing without a pass."""
    stage.step("Somebody logs in to the records database with the broker's own read role")
    questions = tuple(f"TABLE broker_guard.read_{kind}" for kind in ("customer", "invoice", "invoice_line"))
    conn = await asyncpg.connect(world.records_dsn("broker_reader"))
    try:
        for question in questions:
            rows = await conn.fetch(question)
            stage.tell(f"{question:36}  {len(rows)} rows")
            expect(not rows, f"{question} shows {len(rows)} rows without a pass")
        try:
            await conn.fetch("TABLE crm.customer")
        except asyncpg.InsufficientPrivilegeError:
            stage.tell(f"{'TABLE crm.customer':36}  permission denied")
        else:
            raise WrongStoryError("the read role can read the customers' table")
    finally:
        await conn.close()
    conn = await asyncpg.connect(world.records_dsn("crm_owner"))
    try:
        rows = await conn.fetchval("SELECT count(*) FROM crm.customer")
    finally:
        await conn.close()
    expect(rows == CUSTOMERS, f"the table's owner sees {rows} customers")
    stage.tell(f"The table's owner, who works with it as before, sees all {rows}.")


async def the_trace_is_shown(world: World, stage: Stage, grant: Grant) -> None:
    """Who did what when, in spans that the caller could not switch off."""
    stage.step("An auditor looks at the trace of Alice's grant and of its reads")
    pool = await open_pool(world.dsn("broker_auditor"), name="demo auditor", max_size=1)
    try:
        trace = await _spans(lambda: load(pool, UUID(grant.grant_id)))
    finally:
        await pool.close()
    expect(grant.trace_id in {span.trace_id for span in trace.spans}, "the grant's own trace is not there")
    stage.console.print(render(trace))


async def _spans(read: Callable[[], Awaitable[Trace]]) -> Trace:
    """Waits for the spans of the grant and of a read to arrive."""
    end = time.monotonic() + SPANS_TIMEOUT
    while True:
        trace = await read()
        names = {span.name.rpartition("/")[2] for span in trace.spans}
        if {"CreateGrant", "ReadRecord"} <= names:
            return trace
        expect(time.monotonic() < end, f"spans are missing; there are {sorted(names)}")
        await asyncio.sleep(0.1)


async def main(arguments: Iterable[str] = ()) -> int:
    """Starts everything, plays, and stops everything; gives the exit code."""
    if list(arguments):
        sys.stderr.write("usage: python -m broker.dev.demo\n")
        return 2
    stage = Stage()
    begin = time.monotonic()
    status = Console(stderr=True)
    async with World.start(
        customers=CUSTOMERS, progress=lambda text: status.print(f"· {text}", style="dim")
    ) as world:
        ready = time.monotonic()
        stage.console.print(
            f"Everything runs after {ready - begin:.1f} s. Grants say they are for {AUDIENCE}."
        )
        try:
            await play(world, stage)
        except (WrongStoryError, BrokerCallError) as exc:
            stage.console.print(Text(f"\nThe story went otherwise: {exc}", style="bold red"))
            return 1
    stage.console.print(f"\nEvery step went as told, in {time.monotonic() - begin:.1f} s.")
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(sys.argv[1:])))
