"""AuditService through the library's client: what it tells, and that asking is on record."""

import asyncio

import asyncpg
import pytest

from broker.client import EventQuery, InvalidRequestError, NotFoundError, TimedOutError, UnavailableError
from broker.dev.layout import ADMIN_ISSUER, CONSOLE_IDENTITY, LOG_ORIGIN
from broker.keys import LogKeyFolder
from broker.tlog import read_proof
from broker.v1 import access_service_pb2 as access
from tests.rpc.company import creation, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_grant_is_found_by_whatever_it_holds(company):
    """Each of its columns finds it, alone; its leaf says the same; soon it has its place in the log."""
    async with company.peer("alice") as peer:
        granted = await company.grant(peer, await company.ticket())
    async with company.world.audit() as auditor:
        event = await auditor.event(granted.grant.decision_id)
        for name in ("tool", "customer", "ticket", "grant_id", "kind", "outcome", "policy_version"):
            query = EventQuery(**{name: getattr(event, name)})
            found = [each.event_id async for each in auditor.events(query, most=500)]
            assert event.event_id in found, name
        async with company.world.audit() as again:

            async def placed():
                return (await again.event(event.event_id)).leaf_index is not None

            await eventually(placed)

    assert (event.kind, event.outcome, event.grant_id) == ("grant", "granted", granted.grant.grant_id)
    assert event.detail["facts"]["purpose"] == "resolve-ticket"


async def test_a_question_is_an_event_before_it_is_answered(company):
    """It names the person, the console, the question; and it holds pseudonyms alone."""
    async with company.world.audit() as auditor:
        page = await auditor.event_page(EventQuery(kind="auditor_query", tool=CONSOLE_IDENTITY), page_size=1)
    [asked] = page.events

    assert asked.agent == f"{ADMIN_ISSUER}|audrey"
    assert asked.detail == {
        "query": "events",
        "filter": {"tool": CONSOLE_IDENTITY, "kind": "auditor_query"},
        "size": 1,
        "further": False,
    }


@pytest.mark.attack("E5")
async def test_page_tokens(company):
    """Pages never overlap, tokens have one length, and one is good for its own question alone."""
    async with company.world.audit() as auditor:
        seen, tokens, token = [], set(), ""
        for _ in range(4):
            page = await auditor.event_page(EventQuery(), page_size=2, page_token=token)
            seen += [event.event_id for event in page.events]
            token = page.next_token
            tokens.add(len(token))
        with pytest.raises(InvalidRequestError):
            await auditor.event_page(EventQuery(kind="read"), page_token=token)
        with pytest.raises(InvalidRequestError):
            await auditor.event_page(EventQuery(), oldest_first=True, page_token=token)

    assert len(seen) == len(set(seen)) == 8
    assert len(tokens) == 1


async def test_an_event_that_is_not_there(company):
    """An unknown id is NOT_FOUND."""
    async with company.world.audit() as auditor:
        with pytest.raises(NotFoundError, match="no event"):
            await auditor.event("019ab2f0-7c1e-7000-8000-3f2a9c5d1e77")


@pytest.mark.attack("X3")
async def test_questions_that_hang_starve_nobody(company):
    """While every connection of the auditors' hangs, reads and containment are served; the questions end."""
    blocker, watcher = [await asyncpg.connect(company.world.dsn()) for _ in range(2)]
    async with company.world.audit() as auditor, company.peer("alice") as peer:
        ticket = await company.ticket()
        try:
            async with blocker.transaction():
                await blocker.execute("LOCK TABLE broker.event_chunk IN ACCESS EXCLUSIVE MODE")
                asked = [asyncio.create_task(auditor.event_page(EventQuery())) for _ in range(8)]
                await eventually(lambda: _waiting(watcher, 3))
                granted = await company.grant(peer, ticket)
                read = access.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])
                answer = await peer.call("AccessService/ReadRecord", read)
                async with company.admin("admin") as responder:
                    listed = await responder.call("ContainmentService/ListSuspensions")
                assert not any(task.done() and not task.exception() for task in asked)
                ended = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await blocker.close()
            await watcher.close()

        assert (answer.code, listed.code) == ("OK", "OK")
        assert {type(each) for each in ended} <= {UnavailableError, TimedOutError}
        assert (await auditor.event_page(EventQuery(), page_size=1)).events  # the control arm


async def _waiting(conn, number):
    count = await conn.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'broker-admin: auditors' AND wait_event_type = 'Lock'"
    )
    return count >= number


@pytest.mark.attack("E8")
async def test_a_trace_id_that_a_caller_chose(company):
    """It is linked and never taken: asking for it finds nothing of that request, nor of anybody else's."""
    chosen = "c0ffee00" * 4
    async with company.peer("alice") as peer:
        headers = [("traceparent", f"00-{chosen}-{'1' * 16}-01")]
        granted = await peer.call(
            "AccessService/CreateGrant", creation(await company.ticket()), metadata=headers
        )
    assert granted.code == "OK"
    async with company.world.audit() as auditor:
        decision = access.CreateGrantResponse.FromString(granted.data).grant.decision_id
        event = await auditor.event(decision)

        async def traced():
            return bool((await auditor.trace(event.trace_id)).spans)

        await eventually(lambda: _found(traced))
        with pytest.raises(NotFoundError):
            await auditor.trace(chosen)

    assert event.trace_id != chosen


async def _found(look):
    try:
        return await look()
    except NotFoundError:
        return False


async def test_proofs_over_the_port(company):
    """What the port proves is checked with the log's public key alone."""
    async with company.world.audit() as auditor:
        page = await auditor.event_page(EventQuery(), oldest_first=True, page_size=1)
        checkpoint, _ = await auditor.checkpoint()
        proof = read_proof((await auditor.prove(page.events[0].event_id)).encode())
        grown = read_proof((await auditor.prove_consistency(1)).encode())
    anchors = [LogKeyFolder(company.world.layout.log_keys, LOG_ORIGIN).load().keys[0]]
    proof.verify(anchors)
    grown.verify(anchors)

    assert proof.leaf == page.events[0].leaf
    assert checkpoint.startswith(proof.checkpoint.split("\n", 1)[0])
