"""AuditService through the library's client: what it tells, and that asking is on record."""

import pytest

from broker.client import EventQuery, InvalidRequestError, NotFoundError
from broker.dev.layout import ADMIN_ISSUER, CONSOLE_IDENTITY
from tests.rpc.company import eventually

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
