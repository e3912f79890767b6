"""A commit whose answer is lost: read back, no double, no loss; a network that falls silent."""

from __future__ import annotations

import asyncio
import time

import pytest

from broker.errors import LedgerUnavailableError
from broker.ledger import Ledger
from tests.ledger.conftest import denial, eventually, sign
from tests.proxy import Proxy, socket_file


@pytest.fixture
async def proxy(ground):
    """Stands between a ledger and its database."""
    async with Proxy(socket_file(ground.database.dsn())).running() as proxy:
        yield proxy


async def behind(ground, proxy: Proxy, size: int = 2, **options) -> Ledger:
    pool = await ground.pool(dsn=proxy.dsn(ground.database.dsn("broker_access")), size=size)
    return Ledger(pool, sign, **options)


async def counted(ground, items) -> int:
    return await ground.conn.fetchval(
        "SELECT count(*) FROM broker.ledger_event WHERE id = ANY ($1)", [item.id for item in items]
    )


@pytest.mark.attack("R12")
class TestLostAnswer:
    async def test_r12_a_single_statement_is_read_back(self, ground, proxy):
        """Reads whose commit's answer never came are answered with what was stored, once."""
        case = await ground.case()
        failures = []
        ledger = await behind(ground, proxy, on_failure=failures.append)
        grant = case.grant()
        await ledger.append(grant)
        await asyncio.gather(*(ledger.append(case.read(grant)) for _ in range(2)))  # a group is prepared
        reads = [case.read(grant) for _ in range(3)]
        proxy.hold_answers()
        waiting = asyncio.gather(*(ledger.append(read) for read in reads))
        await eventually(lambda: counted(ground, reads))
        assert not waiting.done()
        proxy.cut()
        verdicts = await waiting

        assert [v.reason for v in verdicts] == ["", "", ""]
        assert failures == []  # all are on record
        for read, verdict in zip(reads, verdicts, strict=True):
            assert verdict.receipt.leaf == (await ground.event(read.id))["leaf"]
        assert await counted(ground, reads) == len(reads)

    async def test_r12_a_transaction_is_read_back(self, ground, proxy):
        """A group with events and a grant, cut at its COMMIT: events stand, the grant can be repeated."""
        case = await ground.case()
        ledger = await behind(ground, proxy)
        await ledger.append(denial())
        grant, events = case.grant(), [denial(), denial()]
        proxy.hold_answers(b"COMMIT")
        waiting = asyncio.gather(*(ledger.append(item) for item in (grant, *events)), return_exceptions=True)
        await asyncio.wait_for(proxy.held.wait(), 5)
        proxy.cut()
        refused, *verdicts = await waiting

        assert isinstance(refused, LedgerUnavailableError)
        assert [v.reason for v in verdicts] == ["", ""]
        assert await counted(ground, [grant, *events]) == 3
        again = await ledger.append(case.grant(request_id=grant.request_id))
        assert again.row["grant_id"] == grant.grant_id

    async def test_r12_what_never_arrived_is_refused(self, ground, proxy):
        """Control: cut before the statement went out, nothing is stored and nobody is told otherwise."""
        ledger = await behind(ground, proxy)
        await ledger.append(denial())
        events = [denial(), denial()]
        proxy.hold_questions()
        waiting = asyncio.gather(*(ledger.append(e) for e in events), return_exceptions=True)
        await asyncio.sleep(0)
        proxy.cut()
        results = await waiting

        assert all(isinstance(result, LedgerUnavailableError) for result in results)
        assert await counted(ground, events) == 0
        await ledger.append(denial())  # and it goes on

    async def test_r12_a_refused_read_stays_refused(self, ground, proxy):
        """What is read back is the verdict, not the mere presence: a refused read is no release."""
        case = await ground.case()
        ledger = await behind(ground, proxy)
        grant = case.grant()
        await ledger.append(grant)
        assert (await ledger.append(case.read(grant))).reason == ""
        await case.revoke(grant)
        read = case.read(grant)
        proxy.hold_answers()
        waiting = asyncio.create_task(ledger.append(read))
        await eventually(lambda: counted(ground, [read]))
        proxy.cut()

        assert (await waiting).reason == "TOKEN_INVALID"


@pytest.mark.attack("O8")
async def test_o8_half_open_connections_end_within_the_timeout(ground, proxy):
    """Connections that fall silent are given up after the command timeout; what comes then is served."""
    failures = []
    pool = await ground.pool(
        dsn=proxy.dsn(ground.database.dsn("broker_access")), size=2, statement_timeout=0.5
    )
    ledger = Ledger(pool, sign, on_failure=failures.append)
    await asyncio.gather(*(pool.fetch("SELECT 1") for _ in range(2)))
    proxy.freeze()
    began = time.monotonic()
    with pytest.raises(LedgerUnavailableError):
        await ledger.append(denial())
    first = time.monotonic() - began
    await ledger.append(denial())  # control: over a new connection

    assert failures
    assert first < 6  # one command timeout and one cancellation, not one of each for every connection
