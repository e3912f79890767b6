"""Any order, repetition and division of a history ends as the history in its order."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.dev.helpdesk import Helpdesk, assignment
from broker.tickets import TicketFeed
from tests.tickets.conftest import ALICE, BOB, CAROL, World, settings_of

KEY = Ed25519PrivateKey.generate()
AGENTS = st.sampled_from([ALICE, BOB, CAROL])
ASSIGNERS = AGENTS | st.just("queue")
ACTORS = st.sampled_from(["customer", "system", ALICE])
TICKET = st.sampled_from(["A", "B"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("assign"), TICKET, st.dictionaries(AGENTS, ASSIGNERS, max_size=2)),
        st.tuples(st.just("status"), TICKET, st.sampled_from(["open", "pending", "closed", "deleted"])),
        st.tuples(st.just("customers"), TICKET, st.sets(st.sampled_from("789"), max_size=2)),
        st.tuples(st.sampled_from(["call_started", "call_ended", "reply", "note"]), TICKET, ACTORS),
    ),
    max_size=8,
)
NUMBERS = itertools.count()


def history(helpdesk: Helpdesk, prefix: str, steps: list[tuple]) -> list[str]:
    """Lets a helpdesk live through the steps, on two tickets."""
    events = [helpdesk.open(f"{prefix}{name}", customers=["7"], assignee=ALICE) for name in "AB"]
    for verb, name, what in steps:
        ticket = f"{prefix}{name}"
        if verb == "assign":
            events.append(
                helpdesk.assign(ticket, *(assignment(agent, by, "assignee") for agent, by in what.items()))
            )
        elif verb == "status":
            events.append(helpdesk.set_status(ticket, what))
        elif verb == "customers":
            events.append(helpdesk.change(ticket, customers=sorted(what)))
        else:
            events.append(getattr(helpdesk, verb)(ticket, what))
    return events


async def state(conn: asyncpg.Connection, world: World, feed_id: str, prefix: str) -> list[object]:
    """Gives all that a decision could rest on, without what only says when the broker learnt of it."""
    feed = await conn.fetchrow("SELECT contiguous_seq FROM broker.feed WHERE feed_id = $1", feed_id)
    found: list[object] = [tuple(feed)]
    for name in "AB":
        ticket = f"{prefix}{name}"
        row = await conn.fetchrow("SELECT * FROM broker.ticket WHERE ticket_id = $1", ticket)
        kept = ("version", "content_hash", "status_seq", "status", "kind", "opened_by", "present_until")
        found.append([row[column] for column in kept])
        live = await conn.fetch(
            "SELECT agent, relation, assigned_by, assigned_by_agent, version, ticket_live"
            " FROM broker.assignment WHERE ticket_id = $1 AND end_time IS NULL ORDER BY agent",
            ticket,
        )
        work = await conn.fetch(
            "SELECT version, kind, state FROM broker.work_event WHERE ticket_id = $1 ORDER BY version", ticket
        )
        found += [[tuple(entry) for entry in live], [tuple(entry) for entry in work]]
        for agent in (ALICE, BOB, CAROL):
            standing = await world.ground(ticket, agent)
            ground = standing.ground
            found.append((standing.present, standing.was_last_assignee, ground.relation, ground.provenance))
            found.append(ground.customers)
    return found


def new_feed(world: World, folder: Path) -> tuple[str, Helpdesk, TicketFeed]:
    feed_id = f"feed-{next(NUMBERS)}"
    helpdesk = Helpdesk(feed_id, lambda: NOW, key=KEY)
    return feed_id, helpdesk, TicketFeed(world.feed_pool, [settings_of(helpdesk, folder)], lambda: NOW)


NOW = time.time()


@pytest.mark.parametrize("cuts", [1, 3])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, data=st.data())
async def test_any_order(world, cuts, steps, data):
    """Shuffled, doubled and cut into batches, the events of a history end in the state of its order."""
    feed_id, helpdesk, feed = new_feed(world, world.folder)
    await feed.publish({feed_id}, history(helpdesk, f"{feed_id}-", steps))
    expected = await state(world.admin, world, feed_id, f"{feed_id}-")

    other_id, other, other_feed = new_feed(world, world.folder)
    events = history(other, f"{other_id}-", steps)
    doubled = events + data.draw(st.lists(st.sampled_from(events), max_size=4))
    shuffled = data.draw(st.permutations(doubled))
    size = -(-len(shuffled) // cuts)
    for start in range(0, len(shuffled), size):
        await other_feed.publish({other_id}, shuffled[start : start + size])

    actual = await state(world.admin, world, other_id, f"{other_id}-")
    # The content's hash covers the ticket's id, which differs between the two runs.
    for found in (expected, actual):
        for entry in found:
            if isinstance(entry, list) and len(entry) == 7:
                entry[1] = len(entry[1])
    assert expected == actual
