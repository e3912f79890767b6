"""Whatever ends the ground of a grant ends the next read, on every worker of every broker."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from broker.client import BrokerCallError
from broker.dev.world import agent
from tests.races.conftest import name_of, open_ticket
from tests.replica import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIELDS = ["customer.name"]
CLIENTS = 3  # connections to a broker: the kernel spreads them over its workers
AFTER = 4  # reads that each client begins after the act has returned


class Reader:
    """Reads on one grant as fast as it is answered; remembers when each read began."""

    def __init__(self, client, grant) -> None:
        self.client, self.grant = client, grant
        self.told: list[tuple[float, str]] = []

    async def read(self) -> None:
        began = time.monotonic()
        try:
            await self.client.read_with(self.grant, FIELDS)
        except BrokerCallError as error:
            self.told.append((began, error.reason))
        else:
            self.told.append((began, ""))

    async def read_until(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self.read()
        for _ in range(AFTER):
            await self.read()


async def race(world, second, subject, ticket, act) -> tuple[set[str], set[str]]:
    """Reads on both brokers while `act` happens; gives what reads before and after it were told."""
    over = asyncio.Event()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(each.client(subject, timeout=10))
            for each in (world, second)
            for _ in range(CLIENTS)
        ]
        grant = await clients[0].create_grant(ticket, FIELDS, purpose="resolve-ticket")
        readers = [Reader(client, grant) for client in clients]
        tasks = [asyncio.create_task(reader.read_until(over)) for reader in readers]
        await eventually(lambda: all(len(reader.told) > 1 for reader in readers))
        before = time.monotonic()
        await act(clients[0], grant)
        returned = time.monotonic()
        over.set()
        await asyncio.gather(*tasks)
    told = [each for reader in readers for each in reader.told]
    assert sum(began > returned for began, _ in told) >= len(readers) * AFTER
    # Those that began before the act but were answered during it may be told either way.
    ended = {why for began, why in told if began < before and why == ""}
    return ended, {why for began, why in told if began > returned}


ACTS = {
    "revoked": "TOKEN_INVALID",
    "revoked_by_admin": "TOKEN_INVALID",
    "reassigned": "TICKET_DENIED",
    "unlinked": "TICKET_DENIED",
    "closed": "TICKET_CLOSED",
    "suspended": "AGENT_SUSPENDED",
    # Controls: as much happens, but not to this ground.
    "noted": "",
    "another_reassigned": "",
    "another_suspended": "",
}


@pytest.mark.attack("R1", "R7", "K2", "J26")
@pytest.mark.parametrize(("act", "reason"), ACTS.items(), ids=ACTS)
async def test_r1_no_read_that_starts_after_it_succeeds(world, second, act, reason):
    """Reads run on two brokers; each that begins after the act has returned is refused for its reason."""
    subject = {"revoked": "amir", "closed": "chen", "suspended": "dana", "reassigned": "emeka"}.get(
        act, "fatou"
    )
    ticket, other = await open_ticket(world, subject), await open_ticket(world, "goran")

    async def happen(client, grant) -> None:
        match act:
            case "revoked":
                await client.revoke(grant)
            case "revoked_by_admin":
                async with world.admin() as admin:
                    assert (await admin.revoke_grants(ticket_id=ticket, reason="test")).revoked == 1
            case "reassigned":
                await world.publish(world.helpdesk.reassign(ticket, agent("goran")))
            case "another_reassigned":
                await world.publish(world.helpdesk.reassign(other, agent(subject)))
            case "unlinked":
                await world.publish(world.helpdesk.change(ticket, customers=["8"]))
            case "closed":
                await world.publish(world.helpdesk.close(ticket))
            case "noted":
                await world.publish(world.helpdesk.note(ticket))
            case "suspended" | "another_suspended":
                async with world.admin() as admin:
                    whom = subject if act == "suspended" else "goran"
                    await admin.suspend(name_of(whom), reason="test")

    before, after = await race(world, second, subject, ticket, happen)
    if act.endswith("suspended"):
        async with world.admin() as admin:
            await admin.reinstate(name_of("goran" if act.startswith("another") else subject), reason="test")

    assert before == {""}
    assert after == {reason}


@pytest.mark.attack("R7")
async def test_r7_no_grant_is_made_after_a_suspension(world, second):
    """Grants are asked for on two brokers while the agent is suspended: none after it, but to a colleague."""
    tickets = {who: await open_ticket(world, who) for who in ("hanna", "ivan")}
    told: list[tuple[float, str, str]] = []
    over = asyncio.Event()

    async def ask(broker, who: str) -> None:
        async with broker.client(who, timeout=10) as client:
            left = AFTER
            while left:
                left -= over.is_set()
                began = time.monotonic()
                try:
                    await client.create_grant(tickets[who], FIELDS, purpose="resolve-ticket")
                except BrokerCallError as error:
                    told.append((began, who, error.reason))
                else:
                    told.append((began, who, ""))

    tasks = [asyncio.create_task(ask(broker, who)) for broker in (world, second) for who in tickets]
    await eventually(lambda: len(told) >= 12)
    async with world.admin() as admin:
        await admin.suspend(name_of("hanna"), reason="test")
        returned = time.monotonic()
        over.set()
        await asyncio.gather(*tasks)
        await admin.reinstate(name_of("hanna"), reason="test")

    after = {(who, why) for began, who, why in told if began > returned}
    assert after == {("hanna", "AGENT_SUSPENDED"), ("ivan", "")}
    assert {why for began, who, why in told if who == "hanna"} == {"", "AGENT_SUSPENDED"}


@pytest.mark.attack("R2")
@pytest.mark.parametrize("reassigned", [True, False])
async def test_r2_a_ticket_reassigned_between_two_pages_is_on_neither(world, second, reassigned):
    """A ticket that was taken away after page 1 is not on page 2; one that was not is."""
    subject = "jonas" if reassigned else "kofi"
    first, second_ticket = await open_ticket(world, subject), await open_ticket(world, subject)
    async with second.client(subject) as client:
        pages = client.assigned_tickets(page_size=1)
        newest = await anext(pages)
        assert newest.ticket_id == second_ticket
        if reassigned:
            await world.publish(world.helpdesk.reassign(first, agent("goran")))
        rest = {ticket.ticket_id async for ticket in pages}

    assert (first in rest) is not reassigned
