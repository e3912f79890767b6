"""How `broker serve` starts, shares, drains and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import asyncpg
import pytest

from broker.client import BrokerCallError
from broker.dev.layout import HOST, process_environment
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


@pytest.mark.attack("O11", "G20")
async def test_o11_sigterm_lets_calls_under_way_finish(world):
    """After SIGTERM a read under way is answered and on record, a new one is refused, and the exit is 0."""
    ticket = await open_ticket(world, "fatou")
    lock = await asyncpg.connect(world.dsn())
    async with replica(world, "leaving") as leaving, leaving.client("fatou") as client:
        grant = await client.create_grant(ticket, FIELDS, purpose="resolve-ticket")
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
        record = await under_way
        code = await asyncio.wait_for(leaving.serve.wait(), 12)
    await lock.close()

    assert refused.value.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert code == 0
    assert await unledgered(world, [record.decision_id]) == set()


async def waiting_for_a_lock(conn: asyncpg.Connection) -> None:
    """Waits until somebody waits for a lock on the ledger."""
    sql = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IN"
        " (SELECT oid FROM pg_class WHERE relname LIKE 'ledger_event%')"
    )
    async with asyncio.timeout(5):
        while not await conn.fetchval(sql):
            await asyncio.sleep(0.01)


@pytest.mark.attack("T13")
@pytest.mark.parametrize("stranger", ["the same lock", "another lock", "another http port"])
async def test_t13_a_second_process_on_the_port_does_not_start(world, stranger):
    """A second `broker serve` on a port in use ends at once and says why; the first one serves on."""
    async with replica(world, "first") as first:
        text = first.settings.read_text()
        if stranger != "the same lock":
            text = text.replace("locks-first", "locks-strange")
        ports = dict(first.ports)
        if stranger != "another lock":
            _, fresh = written(world, "unused", {})
            text = text.replace(f"http_port = {ports['http']}", f"http_port = {fresh['http']}")
        settings = world.folder / "strange.toml"
        settings.write_text(text)
        began = time.monotonic()
        second = ServeProcess(settings, world.folder / "strange.log", http=(HOST, 1))
        await second.start()
        try:
            code = await asyncio.wait_for(second.wait(), 15)
        finally:
            await second.stop()

        assert code != 0
        assert "port" in second.last_words()
        assert "Traceback" not in second.last_words()
        assert time.monotonic() - began < 15
        assert await read_once(first, world, "goran")  # control


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


@pytest.mark.attack("X8")
async def test_x8_a_dead_collector_costs_no_read_and_no_exit_anything(world):
    """With a collector that accepts and never answers, reads take what they take, and the exit is in time."""
    hole = socket.create_server((HOST, 0))
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{hole.getsockname()[1]}"}
    ticket = await open_ticket(world, "ivan")
    took: dict[str, list[float]] = {}
    try:
        async with replica(world, "traced", environment=endpoint) as traced:
            for name, broker in (("dead", traced), ("none", world)):
                async with broker.client("ivan") as client:
                    grant = await client.create_grant(ticket, FIELDS, purpose="resolve-ticket")
                    times = took.setdefault(name, [])
                    for _ in range(40):
                        began = time.monotonic()
                        await client.read_with(grant, FIELDS)
                        times.append(time.monotonic() - began)
            began = time.monotonic()
            code = await traced.serve.stop()
            ended = time.monotonic() - began
    finally:
        hole.close()

    assert code == 0
    assert ended < 6.5
    assert sorted(took["dead"])[20] < sorted(took["none"])[20] * 3 + 0.01


@pytest.mark.attack("O13")
class TestForkGuard:
    def test_o13_a_parent_with_grpc_refuses_to_start(self, world):
        """Where grpc was imported before the workers were started, nothing is started."""
        result = _python(
            "import grpc, broker.server as s; s.serve(__import__('broker.settings').settings.read_settings())",
            world,
        )

        assert result.returncode != 0
        assert "grpc was imported before" in result.stderr

    def test_o13_the_parent_never_imports_it(self, world):
        """Control: what `broker serve` imports up to its start has no grpc in it."""
        result = _python(
            "import broker.cli.server, broker.server.parent, sys; print('grpc' in sys.modules)", world
        )

        assert result.stdout.strip() == "False", result.stderr


def _python(code: str, world) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=process_environment(world.layout.settings_file),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
