"""How `broker serve` starts, shares, drains and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from urllib.parse import urlsplit

import asyncpg
import pytest

from broker.client import BrokerCallError, FieldNotGrantedError
from broker.dev.layout import HOST
from broker.dev.serving import ServeProcess
from tests.outages.conftest import FIELDS, open_ticket, unledgered
from tests.outages.test_crash import eventually_status
from tests.replica import Replica, eventually, has_ended, replica, workers, written

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def read_once(broker, world, subject: str) -> str:
    """Reads; gives the decision id."""
    ticket = await open_ticket(world, subject)
    async with broker.client(subject) as client:
        return (await client.read(ticket, FIELDS, purpose="resolve-ticket")).decision_id


@pytest.mark.attack("O2")
async def test_o2_without_a_database_it_does_not_listen_and_recovers(world):
    """Started while the database is down: alive, not ready, the ports closed; once it is up, it serves."""
    server = world.databases.server
    await asyncio.to_thread(server.stop)
    try:
        async with replica(world, "early", ready=False) as early:
            await early.serve.wait_until("/healthz")
            await eventually_status(early.serve, 503)
            await eventually(lambda: len(workers(early.serve.pid)) == 1)
            assert not early.listens("access")
            assert not early.listens("admin")
            _, why = await early.serve.get("/readyz")
            assert "database" in why or "starting" in why
            await asyncio.to_thread(server.start)
            await early.serve.wait_until("/readyz")
            assert early.listens("access")
            assert await read_once(early, world, "emeka")
    finally:
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await world.serve.wait_until("/readyz")


@pytest.mark.attack("O11", "G20", "X8")
async def test_o11_sigterm_lets_calls_under_way_finish_and_x8_no_collector_holds_it_up(world):
    """After SIGTERM a read under way is answered and on record, a new one is refused, and the exit is 0.

    What refusals were only counted is put on record, too.

    All that with a collector that accepts and never answers: reads take what they take without one, and
    the exit is in time.
    """
    ticket = await open_ticket(world, "fatou")
    lock = await asyncpg.connect(world.dsn())
    hole = socket.create_server((HOST, 0))
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{hole.getsockname()[1]}"}
    async with (
        replica(world, "leaving", environment=endpoint, denial_events_per_minute=2) as leaving,
        leaving.client("fatou") as client,
    ):
        grant = await client.create_grant(ticket, FIELDS, purpose="resolve-ticket")
        for _ in range(9):
            with pytest.raises(FieldNotGrantedError):
                await client.read_with(grant, ["customer.email"])
        async with world.client("fatou") as other:
            took, control = await timed(client, grant), await timed(other, grant)
        transaction = lock.transaction()
        await transaction.start()
        await lock.execute("LOCK TABLE broker.ledger_event IN SHARE MODE")
        under_way = asyncio.create_task(client.read_with(grant, FIELDS))
        await waiting_for_a_lock(lock)
        os.kill(leaving.serve.pid, signal.SIGTERM)
        await eventually(lambda: not leaving.listens("access"))
        async with leaving.client("fatou", timeout=0.5) as late:
            with pytest.raises(BrokerCallError) as refused:
                await late.read_with(grant, FIELDS)
        assert not under_way.done()
        await transaction.rollback()
        released = time.monotonic()
        record = await under_way
        code = await asyncio.wait_for(leaving.serve.wait(), 12)
    denials = await lock.fetch(
        "SELECT kind, leaf FROM broker.ledger_event"
        " WHERE agent LIKE '%|fatou' AND reason = 'FIELD_NOT_GRANTED' ORDER BY id"
    )
    await lock.close()
    hole.close()

    assert refused.value.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert code == 0
    assert time.monotonic() - released < 6.5
    assert await unledgered(world, [record.decision_id]) == set()
    assert took < control * 3 + 0.01
    assert [row["kind"] for row in denials] == ["denial", "denial", "denials"]  # the rest was counted
    assert json.loads(denials[-1]["leaf"])["detail"] == {"count": 7}


async def timed(client, grant) -> float:
    """Gives the median of some reads, in seconds."""
    took = []
    for _ in range(25):
        began = time.monotonic()
        await client.read_with(grant, FIELDS)
        took.append(time.monotonic() - began)
    return sorted(took)[12]


async def waiting_for_a_lock(conn: asyncpg.Connection) -> None:
    """Waits until somebody waits for a lock on the ledger."""
    sql = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IN"
        " (SELECT oid FROM pg_class WHERE relname LIKE 'ledger_event%')"
    )
    async with asyncio.timeout(5):
        while not await conn.fetchval(sql):  # noqa: ASYNC110 - another process is asked
            await asyncio.sleep(0.01)


@pytest.mark.attack("T13")
@pytest.mark.parametrize("taken", ["lock", "access", "admin", "http"])
async def test_t13_a_second_process_on_a_port_does_not_start(world, taken):
    """A second `broker serve` on one port in use ends at once and names it; the first one serves on.

    Also where it has another lock folder, and though the first one's workers share their port.
    """
    settings, ports = written(world, "strange", {})
    old = world.layout.ports()
    text = settings.read_text()
    if taken == "lock":
        text = text.replace(str(world.folder / "locks-strange"), str(world.folder / "locks"))
    for role in ("access", "admin", "http"):
        if taken in {"lock", role}:
            text = text.replace(f"port = {ports[role]}", f"port = {old[role]}")
    settings.write_text(text)
    second = ServeProcess(settings, world.folder / f"strange-{taken}.log", http=(HOST, ports["http"]))
    await second.start()
    try:
        code = await asyncio.wait_for(second.wait(), 10)
    finally:
        await second.stop()

    assert code != 0
    assert str(old["access" if taken == "lock" else taken]) in second.last_words()
    assert "Traceback" not in second.last_words()
    assert await read_once(world, world, "goran")  # control: nothing was taken from the first


@pytest.mark.attack("O1")
async def test_workers_end_with_their_parent(world):
    """A killed parent takes its workers along, so that its successor has the port to itself."""
    async with replica(world, "orphaned") as orphaned:
        pids = [*workers(orphaned.serve.pid).values(), *workers(orphaned.serve.pid, "admin").values()]
        assert len(pids) == 2
        await read_once(orphaned, world, "hanna")  # control
        await orphaned.serve.kill()
        await eventually(lambda: all(has_ended(pid) for pid in pids))
        assert not orphaned.listens("access")
        heir = ServeProcess(orphaned.settings, world.folder / "heir.log", http=(HOST, orphaned.ports["http"]))
        await heir.start()
        try:
            await heir.wait_until("/readyz")
            assert await read_once(Replica(world, heir, orphaned.settings, orphaned.ports), world, "hanna")
        finally:
            await heir.stop()


@pytest.mark.parametrize("wrong", ["password", "database"])
async def test_o2_a_database_that_refuses_ends_the_start(world, wrong):
    """With a wrong password or database it does not wait for better times: it ends and says which DSN."""
    dsn = world.dsn("broker_access")
    secret = urlsplit(dsn).password
    changed = dsn.replace(secret, "guess") if wrong == "password" else dsn.replace("/broker?", "/nowhere?")
    settings, ports = written(world, f"wrong-{wrong}", {"dsn": changed})
    serve = ServeProcess(settings, world.folder / f"wrong-{wrong}.log", http=(HOST, ports["http"]))
    await serve.start()
    try:
        code = await asyncio.wait_for(serve.wait(), 15)
    finally:
        await serve.stop()

    assert code != 0
    assert "broker database:" in serve.last_words()
    assert "Traceback" not in serve.last_words()
    assert "guess" not in serve.last_words()
    assert secret not in serve.last_words()


async def eventually_told(broker, words: str, seconds: float = 15.0) -> None:
    """Waits until `/readyz` says something."""
    end = time.monotonic() + seconds
    while words not in (await broker.serve.get("/readyz"))[1]:
        assert time.monotonic() < end, words
        await asyncio.sleep(0.05)


@pytest.mark.attack("O1", "S3")
async def test_a_guard_that_does_not_stand_ends_nobody(world):
    """A worker that dies while the guard is open is started again and waits; all others go on.

    Else whoever owns the records could end containment and the feed with one ALTER TABLE.
    """
    records = await asyncpg.connect(world.records_dsn())
    async with replica(world, "open-guard", workers=2) as broker:
        before = workers(broker.serve.pid)
        admin = workers(broker.serve.pid, "admin")
        await records.execute("GRANT SELECT ON crm.customer TO broker_reader")
        try:
            os.kill(before[0], signal.SIGKILL)
            await eventually_told(broker, "closed to the reader")
            assert workers(broker.serve.pid)[1] == before[1]
            assert workers(broker.serve.pid, "admin") == admin
            assert broker.listens("access")
            assert broker.listens("admin")
        finally:
            await records.execute("REVOKE SELECT ON crm.customer FROM broker_reader")
            await records.close()
        await broker.serve.wait_until("/readyz")

        assert broker.serve.returncode is None
        assert workers(broker.serve.pid)[1] == before[1]
        assert await read_once(broker, world, "goran")
