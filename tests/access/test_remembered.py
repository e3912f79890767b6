"""A grant that stands on what the last one stood on is checked like the first."""

from __future__ import annotations

import pytest

from broker.client import AgentSuspendedError, PolicyDeniedError, TicketClosedError, TicketDeniedError
from broker.client.administration import AgentName
from broker.dev.world import World, agent

FIELDS = ["customer.name", "customer.email"]
PURPOSE = "resolve-ticket"


async def tickets_of(client, most):
    found = []
    async for ticket in client.assigned_tickets():
        try:
            await client.create_grant(ticket.ticket_id, FIELDS, purpose=PURPOSE)
        except PolicyDeniedError:
            continue
        found.append(ticket.ticket_id)
        if len(found) == most:
            return found
    raise AssertionError("too few tickets")


async def test_ground_that_goes_is_noticed_at_the_next_grant():
    """Reassigned, closed, suspended: the next grant on a remembered ticket is refused, the control is not."""
    async with World.start(customers=300, fsync=False) as world, world.client("alice") as alice:
        control, moved, closed = await tickets_of(alice, 3)
        for ticket in (control, moved, closed):  # each is remembered by now, and stands on it
            assert await alice.create_grant(ticket, FIELDS, purpose=PURPOSE)
        helpdesk = world.helpdesk
        await world.publish(helpdesk.reassign(moved, agent("bob")), helpdesk.close(closed))

        assert await alice.create_grant(control, FIELDS, purpose=PURPOSE)
        with pytest.raises(TicketDeniedError):
            await alice.create_grant(moved, FIELDS, purpose=PURPOSE)
        with pytest.raises(TicketClosedError):
            await alice.create_grant(closed, FIELDS, purpose=PURPOSE)

        # A denial is never told by what was remembered: the ticket is asked for again, and denied by it.
        with pytest.raises(PolicyDeniedError):
            await alice.create_grant(control, ["customer.card_number"], purpose=PURPOSE)
        await alice.create_grant(control, FIELDS, purpose=PURPOSE)
        await world.publish(helpdesk.reassign(control, agent("bob")))
        with pytest.raises(TicketDeniedError):
            await alice.create_grant(control, ["customer.card_number"], purpose=PURPOSE)

        async with world.admin() as admin:
            await admin.suspend(AgentName("https://idp.broker.dev", "alice"), reason="test")
        with pytest.raises(AgentSuspendedError):
            await alice.create_grant(control, FIELDS, purpose=PURPOSE)
