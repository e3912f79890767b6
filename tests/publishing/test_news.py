"""News travel at once, a lost notification costs a second at most, and who hears nothing stops."""

import asyncio
import time

import asyncpg
import pytest

from broker.errors import PolicyUnavailableError
from broker.policy import PolicyHolder
from broker.policy.listener import PolicyListener
from tests.published import ANNA, BORIS, store
from tests.publishing.conftest import OPEN, draft


@pytest.fixture
async def listening(desk):
    """Gives a holder that nobody asks to look, with a listener."""
    holder = PolicyHolder(store(desk.access))
    await holder.refresh()
    task = asyncio.create_task(PolicyListener(desk.database.dsn("broker_access"), holder, name="test").run())
    yield holder
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(holds, seconds=10.0):
    """Waits for what a notification is about to do."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def listeners(desk):
    """Waits until somebody listens; gives the backends."""
    conn = await asyncpg.connect(desk.database.dsn())
    query = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'test' AND query LIKE 'LISTEN%'"
        " AND datname = current_database()"
    )
    end = time.monotonic() + 10
    try:
        while not (rows := await conn.fetch(query)):
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
    finally:
        await conn.close()
    return [row["pid"] for row in rows]


async def test_a_version_is_heard(desk, listening):
    """Without any look of its own the holder has the new version, compiled before it was approved."""
    await listeners(desk)
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    await until(lambda: OPEN.digest in listening._ahead)
    ahead = await listening._ahead[OPEN.digest]
    assert listening.current.version == "1"  # compiled, and not in force
    await desk.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")
    await until(lambda: listening.current.version == "2")

    assert listening.current.table is ahead._policy.table


async def test_a_listener_that_was_dropped_comes_back(desk, listening):
    """The connection is ended under it, a version is published meanwhile: it looks when it is back."""
    found = await listeners(desk)
    superuser = await asyncpg.connect(desk.database.dsn())
    await superuser.execute("SELECT pg_terminate_backend($1, 5000)", found[0])
    await superuser.close()
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    await desk.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")

    await until(lambda: listening.current.version == "2")


async def test_who_cannot_confirm_stops(desk):
    """Within the bound the last good policy decides; after it nothing does, until a look succeeds."""
    now = [1000.0]
    holder = PolicyHolder(store(desk.access), longest=10, monotonic=lambda: now[0])
    await holder.refresh()
    real = store(desk.access)

    class Gone(type(real)):
        async def look(self):
            raise asyncpg.InterfaceError("no connection")

    holder._store.__class__ = Gone
    now[0] += 9
    await holder.refresh()
    assert holder.current.version == "1"
    now[0] += 2
    await holder.refresh()
    with pytest.raises(PolicyUnavailableError):
        _ = holder.current

    holder._store.__class__ = type(real)
    await holder.refresh()
    assert holder.current.version == "1"


async def test_strange_notifications_do_nothing(desk, listening):
    """Whoever may NOTIFY can at most make a worker look."""
    await listeners(desk)
    conn = await asyncpg.connect(desk.database.dsn("broker_feed"))
    for payload in ("", "x", "-1", "99999999999999999999", "00000000-0000-0000-0000-000000000000", "'"):
        await conn.execute("SELECT pg_notify('broker_policy', $1)", payload)
    await conn.close()
    _, proposal, _ = await desk.publisher.propose(ANNA, draft())
    await desk.publisher.approve(BORIS, proposal.proposal_id, proposal.digest, "")

    await until(lambda: listening.current.version == "2")
