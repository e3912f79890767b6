"""What a tool builder may rely on."""

from __future__ import annotations

import asyncio
import uuid

import grpc
import pytest

from broker.client import (
    BrokerClient,
    ClientError,
    FieldState,
    TicketDeniedError,
    TokenInvalidError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.client.conftest import LIFETIME, WITHHELD, Fault, agent_token

FIELDS = ("customer.name", WITHHELD, "invoice.total")


async def read(client, ticket="T-1", fields=FIELDS, purpose="resolve-ticket", **options):
    return await client.read(ticket, fields, purpose=purpose, **options)


class TestRead:
    async def test_answers_every_field_in_the_order_asked_for(self, connect):
        """A withheld field stands in its place, with the reason and without a value."""
        async with connect() as client:
            record = await read(client)

        assert [f.name for f in record] == list(FIELDS)
        assert record["customer.name"].state is FieldState.CLEAR
        assert record["customer.name"].value == agent_token("alice")
        assert record[WITHHELD].state is FieldState.WITHHELD
        assert record[WITHHELD].reason == "needs the role billing"
        assert record[WITHHELD].values == ()
        assert record["invoice.total"].values == (agent_token("alice"), None)
        with pytest.raises(KeyError):
            record["customer.phone"]

    async def test_asks_for_the_fields_in_the_order_given(self, connect, broker):
        """A refusal names a field by its place, so the places are the caller's."""
        async with connect() as client:
            await read(client, fields=("customer.phone", "customer.name"))

        assert broker.fields == [["customer.phone", "customer.name"]]

    async def test_shows_no_data_and_no_token_in_its_repr(self, connect):
        """A tool that logs a record logs neither its values nor its grant's token."""
        async with connect() as client:
            record = await read(client)

        assert agent_token("alice") not in repr(record)
        assert "customer.name" in repr(record)

    async def test_keeps_a_grant(self, connect, broker):
        """Reads of the same thing share one grant."""
        async with connect() as client:
            for _ in range(3):
                await read(client)

        assert broker.count("CreateGrant") == 1
        assert broker.count("ReadRecord") == 3

    @pytest.mark.parametrize(
        "other",
        [
            {"ticket": "T-2"},
            {"fields": ("customer.name",)},
            {"purpose": "call-back"},
            {"customer_id": "7"},
        ],
        ids=lambda other: next(iter(other)),
    )
    async def test_never_uses_a_grant_for_something_else(self, connect, broker, other):
        """Ticket, fields, purpose and customer each need a grant of their own."""
        async with connect() as client:
            await read(client)
            await read(client, **other)

        assert broker.count("CreateGrant") == 2

    async def test_never_uses_a_grant_for_another_agent(self, connect, broker):
        """When the agent at the keyboard changes, so does the grant."""
        agents = ["alice", "bob"]
        async with connect(lambda: agent_token(agents[0])) as client:
            await read(client)
            agents.pop(0)
            record = await read(client)

        assert broker.count("CreateGrant") == 2
        assert record["customer.name"].value == agent_token("bob")

    async def test_renews_a_grant_shortly_before_its_end(self, connect, broker, clock):
        """The end is counted on the client's clock from when it asked, however far off the broker's is."""
        async with connect() as client:
            await read(client)
            clock.now += LIFETIME - 6
            await read(client)
            assert broker.count("CreateGrant") == 1
            clock.now += 2
            await read(client)

        assert broker.count("CreateGrant") == 2

    async def test_creates_one_grant_for_many_readers(self, connect, broker):
        """Concurrent reads of the same thing wait for one creation."""
        async with connect() as client:
            await asyncio.gather(*(read(client) for _ in range(20)))

        assert broker.count("CreateGrant") == 1
        assert broker.count("ReadRecord") == 20

    async def test_survives_the_reader_that_asked_first(self, connect, broker):
        """A reader that is cancelled while the grant is under way does not fail the next one."""
        async with connect() as client:
            first = asyncio.create_task(read(client))
            second = asyncio.create_task(read(client))
            await asyncio.sleep(0)
            first.cancel()
            record = await second

        assert record["customer.name"].value == agent_token("alice")
        assert broker.count("CreateGrant") == 1

    async def test_does_not_keep_a_refusal(self, connect, broker):
        """After a refused creation the next read asks anew."""
        broker.faults = [Fault(grpc.StatusCode.PERMISSION_DENIED, "TICKET_DENIED")]
        async with connect() as client:
            with pytest.raises(TicketDeniedError):
                await read(client)
            await read(client)

        assert broker.count("CreateGrant") == 2

    async def test_asks_once_more_when_a_kept_grant_was_revoked(self, connect, broker):
        """A kept grant that is refused as invalid is replaced once, and only a kept one."""
        async with connect() as client:
            await read(client)
            broker.live.clear()
            await read(client)

        assert broker.count("CreateGrant") == 2

    async def test_does_not_go_round_in_circles(self, connect, broker):
        """Where a new grant is refused as invalid too, the refusal is the answer."""
        async with connect() as client:
            broker.faults = [Fault(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")]
            with pytest.raises(TokenInvalidError):
                await read(client)

        assert broker.count("CreateGrant") == 1

    async def test_forgets_a_grant_whose_ground_is_gone(self, connect, broker):
        """A read that is denied drops the kept grant and is not tried again by itself."""
        async with connect() as client:
            await read(client)
            broker.faults = [Fault(grpc.StatusCode.PERMISSION_DENIED, "TICKET_DENIED")]
            with pytest.raises(TicketDeniedError):
                await read(client)
            assert broker.count("CreateGrant") == 1
            await read(client)

        assert broker.count("CreateGrant") == 2


class TestSingleCalls:
    async def test_uses_a_grant_that_the_caller_keeps(self, connect, broker):
        """A caller may create, use, ask about and revoke a grant step by step."""
        async with connect() as client:
            grant = await client.create_grant("T-1", FIELDS, purpose="resolve-ticket", seconds=60)
            record = await client.read_with(grant, ["customer.name"])
            before = await client.status(grant.grant_id)
            decision = await client.revoke(grant)
            after = await client.status(grant.grant_id)
            with pytest.raises(TokenInvalidError):
                await client.read_with(grant, ["customer.name"])

        assert grant.readable == ("customer.name", "invoice.total")
        assert (grant.expire_time - grant.create_time).total_seconds() == LIFETIME
        assert grant.create_time.tzinfo is not None
        assert [f.name for f in record] == ["customer.name"]
        assert (before.active, after.active) == (True, False)
        assert decision == "d-v"

    async def test_forgets_a_grant_it_revokes(self, connect, broker):
        """A read after the revocation of the kept grant asks for a new one."""
        async with connect() as client:
            record = await read(client)
            await client.revoke(record.grant)
            await read(client)

        assert broker.count("CreateGrant") == 2
        assert broker.count("ReadRecord") == 2

    async def test_goes_through_all_pages(self, connect, broker):
        """Assigned tickets come one by one, however the pages are cut."""
        async with connect() as client:
            tickets = [t async for t in client.assigned_tickets(page_size=2)]

        assert [t.ticket_id for t in tickets] == ["T-0", "T-1", "T-2", "T-3", "T-4"]
        assert {t.relation for t in tickets} == {"assignee"}
        assert broker.count("ListAssignedTickets") == 3

    async def test_explains(self, connect):
        """A denial's id gives what was missing."""
        async with connect() as client:
            why = await client.explain("d-1")

        assert why.fields == ((WITHHELD, ("needs the role billing",)),)
        assert why.facts == {"relation": "assignee"}

    async def test_gets_the_keys(self, connect):
        """The public keys come as the text that `verify_receipt` takes."""
        async with connect() as client:
            assert await client.jwks() == '{"keys": []}'


class TestCalls:
    async def test_repeats_what_is_unavailable_as_the_same_request(self, connect, broker):
        """A retried creation carries the request id of the first try, so that it is one grant."""
        ids = iter(uuid.UUID(int=n, version=4) for n in range(9))
        async with connect(new_id=lambda: next(ids)) as client:
            broker.faults = [Fault(grpc.StatusCode.UNAVAILABLE, "LEDGER_UNAVAILABLE")]
            await client.create_grant("T-1", ["customer.name"], purpose="resolve-ticket")
            broker.faults = [Fault(grpc.StatusCode.UNAVAILABLE)]
            await client.create_grant("T-1", ["customer.name"], purpose="resolve-ticket")

        assert broker.count("CreateGrant") == 4
        assert len(set(broker.request_ids)) == 2

    async def test_gives_up_after_some_tries(self, connect, broker):
        """A broker that stays away is an error, typed."""
        broker.faults = [Fault(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")] * 9
        async with connect() as client:
            with pytest.raises(UnavailableError) as caught:
                await read(client)

        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        assert broker.count("CreateGrant") == 4

    @pytest.mark.parametrize(
        "code", ["PERMISSION_DENIED", "INTERNAL", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"]
    )
    async def test_repeats_nothing_else(self, connect, broker, code):
        """Only UNAVAILABLE is tried again."""
        broker.faults = [Fault(grpc.StatusCode[code])]
        async with connect() as client:
            with pytest.raises(ClientError):
                await read(client)

        assert len(broker.calls) == 1

    async def test_always_sets_a_deadline(self, connect, broker):
        """No call of the client can wait for ever."""
        async with connect() as client:
            await read(client)
        async with connect(timeout=2.0) as client:
            await client.status("g")

        assert all(4 < left < 5.1 for left in broker.deadlines[:2])
        assert 1 < broker.deadlines[2] < 2.1

    async def test_says_that_a_file_is_missing(self, broker, tls, tmp_path):
        """A wrong path is an error that names the path."""
        files = {**tls, "key_file": tmp_path / "none.key"}
        with pytest.raises(ClientError, match=r"none\.key"):
            async with BrokerClient(broker.target, token_source=lambda: "t", **files):
                pass

    async def test_fails_clearly_without_a_broker(self, tls):
        """Nobody there is UNAVAILABLE, without a reason of the broker's."""
        options = {"token_source": lambda: "t", "timeout": 0.3, **tls}
        async with BrokerClient("localhost:1", **options) as client:
            with pytest.raises(UnavailableError) as caught:
                await client.status("g")

        assert caught.value.reason == ""
        assert caught.value.decision_id == ""

    async def test_must_be_open(self, tls):
        """A client that was never entered says how to use it."""
        client = BrokerClient("localhost:1", token_source=lambda: "t", **tls)
        with pytest.raises(AttributeError):
            await client.status("g")

    async def test_is_refused_by_type(self, connect, broker):
        """A reason that this client does not know is still the class of its code."""
        broker.faults = [Fault(grpc.StatusCode.UNAUTHENTICATED, "SOMETHING_NEW")]
        async with connect() as client:
            with pytest.raises(UnauthenticatedError) as caught:
                await read(client)

        assert caught.value.reason == "SOMETHING_NEW"
