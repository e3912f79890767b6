"""What must look the same: tickets, grants and decisions of others and those that never were."""

import json
import uuid

import pytest

from broker.dev.layout import AGENT_ISSUER, AUDIENCE, TOOLS
from broker.dev.oidc import DevelopmentIssuer
from broker.dev.world import agent
from broker.telemetry import AUTHENTICATE
from broker.v1 import access_service_pb2 as pb
from broker.v1 import common_pb2 as common
from broker.v1 import containment_service_pb2 as containment
from broker.v1 import ticket_feed_service_pb2 as feed
from tests.rpc.company import creation, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

CREATE, READ = "AccessService/CreateGrant", "AccessService/ReadRecord"
REVOKE, STATUS = "AccessService/RevokeGrant", "AccessService/GetGrantStatus"
LIST, EXPLAIN = "AccessService/ListAssignedTickets", "AccessService/ExplainDenial"


@pytest.mark.attack("E2", "K1", "K5")
async def test_tickets_that_are_not_mine(company):
    """Unknown, another's open, closed and deleted ticket, and a customer it does not link: one answer."""
    mine, others = await company.ticket("alice"), await company.ticket("bob")
    closed, deleted = (
        await company.ticket("bob", closed="closed"),
        await company.ticket("bob", closed="deleted"),
    )
    nobodys = await company.ticket(None)
    several = await company.ticket("alice", customers=("5", "6"))
    tries = {
        "does not exist": creation("R-0"),
        "another's": creation(others),
        "another's, closed": creation(closed),
        "another's, deleted": creation(deleted),
        "nobody's": creation(nobodys),
        "long name that does not exist": creation("R" * 64),
        "mine, customer not linked": creation(mine, customer_id="6"),
        "mine, customer that does not exist": creation(mine, customer_id="no such"),
        "another's, customer right": creation(others, customer_id="5"),
    }
    async with company.peer("alice") as alice:
        shapes = {}
        for sentence, request in tries.items():
            answer = await alice.call(CREATE, request)
            leaf = await company.recorded(answer)
            assert leaf["reason"] == "TICKET_DENIED", sentence
            assert leaf["agent"] == agent("alice").key
            shapes[sentence] = answer.shape
        assert len(set(shapes.values())) == 1, shapes

        unnamed = await alice.call(CREATE, creation(several))
        assert (unnamed.reason, unnamed.fields) == ("REQUEST_MALFORMED", ["customer_id"])
        for request in (creation(mine), creation(several, customer_id="6")):
            assert (await alice.call(CREATE, request)).code == "OK"
    async with company.peer("bob") as bob:  # the last assignee may learn that it is closed
        for ticket in (closed, deleted):
            assert (await bob.call(CREATE, creation(ticket))).reason == "TICKET_CLOSED"


@pytest.mark.attack("E2", "K1")
async def test_tickets_of_a_suspended_agent(company):
    """To a suspended agent all tickets are one answer, their own with its facts and customers, too."""
    closed = await company.ticket("lucia", closed="closed")
    tries = {
        "does not exist": creation("R-0"),
        "another's": creation(await company.ticket("bob")),
        "mine": creation(await company.ticket("lucia")),
        "mine, which the policy refuses": creation(await company.ticket("lucia"), "customer.iban"),
        "mine, customer not linked": creation(await company.ticket("lucia"), customer_id="no such"),
        "mine, several customers": creation(await company.ticket("lucia", customers=("5", "6"))),
        "mine, closed": creation(closed),
    }
    ref = common.AgentRef(issuer=AGENT_ISSUER, subject="lucia")
    async with company.peer("lucia") as lucia, company.admin() as admin:
        control = {(await lucia.call(CREATE, request)).code for request in tries.values()}
        assert control == {"OK", "PERMISSION_DENIED", "INVALID_ARGUMENT"}
        grant = await company.grant(lucia, await company.ticket("lucia"))
        suspend = containment.SuspendAgentRequest(agent=ref, reason="x")
        assert (await admin.call("ContainmentService/SuspendAgent", suspend)).code == "OK"
        answers = []
        for request in tries.values():
            answer = await lucia.call(CREATE, request)
            assert (await company.recorded(answer))["agent"] == agent("lucia").key
            answers.append(answer)
        assert {answer.reason for answer in answers} == {"AGENT_SUSPENDED"}
        assert len({answer.shape for answer in answers}) == 1
        read = pb.ReadRecordRequest(grant_token=grant.grant_token, fields=["customer.name"])
        assert [(await lucia.call(READ, read)).reason for _ in range(2)] == ["AGENT_SUSPENDED"] * 2
        reinstate = containment.ReinstateAgentRequest(agent=ref, reason="x")
        assert (await admin.call("ContainmentService/ReinstateAgent", reinstate)).code == "OK"
        assert (await lucia.call(READ, read)).code == "OK"


@pytest.mark.attack("E2")
async def test_grants_and_decisions_that_are_not_mine(company):
    """A grant or decision of another agent answers as one that never was, byte for byte."""
    async with company.peer("alice") as alice, company.peer("bob") as bob:
        live = (await company.grant(bob, await company.ticket("bob"))).grant.grant_id
        ended = (await company.grant(bob, await company.ticket("bob"))).grant.grant_id
        await bob.call(REVOKE, pb.RevokeGrantRequest(grant_id=ended))
        denial = (await bob.call(CREATE, creation("R-0"))).decision_id
        never = str(uuid.uuid4())

        revoked = [await alice.call(REVOKE, pb.RevokeGrantRequest(grant_id=g)) for g in (live, ended, never)]
        assert {answer.reason for answer in revoked} == {"GRANT_NOT_FOUND"}
        assert len({answer.shape for answer in revoked}) == 1
        for answer in revoked:
            await company.recorded(answer)

        status = [
            await alice.call(STATUS, pb.GetGrantStatusRequest(grant_id=g)) for g in (live, ended, never)
        ]
        assert {(answer.code, answer.data, answer.trailers) for answer in status} == {("OK", b"", ())}

        event = (await company.grant(bob, await company.ticket("bob"))).grant.decision_id
        ids = (denial, event, never, revoked[0].decision_id.replace("7", "8", 1))
        explained = [await alice.call(EXPLAIN, pb.ExplainDenialRequest(decision_id=d)) for d in ids]
        assert {answer.reason for answer in explained} == {"DECISION_NOT_FOUND"}
        assert len({answer.shape for answer in explained}) == 1

        # The owner sees all of it.
        assert pb.GetGrantStatusResponse.FromString(
            (await bob.call(STATUS, pb.GetGrantStatusRequest(grant_id=live))).data
        ).active
        assert (await bob.call(STATUS, pb.GetGrantStatusRequest(grant_id=ended))).data == b""
        why = await bob.call(EXPLAIN, pb.ExplainDenialRequest(decision_id=denial))
        assert pb.ExplainDenialResponse.FromString(why.data).reason == "TICKET_DENIED"
        assert (await bob.call(REVOKE, pb.RevokeGrantRequest(grant_id=live))).code == "OK"


@pytest.mark.attack("E6")
async def test_methods_that_are_not_mine(company):
    """To a non-administrator a method that it may not call and one that does not exist are the same."""
    request = containment.RevokeGrantsRequest(ticket_id="T-1", reason="x")
    async with company.admin("feed") as helpdesk:
        names = ["ContainmentService/RevokeGrants", "ContainmentService/Nothing", "NothingService/Nothing"]
        answers = [await helpdesk.call(name, request) for name in names]
        answers.append(await helpdesk.call("ContainmentService/SuspendAgent", b"\xff"))
        answers.append(await helpdesk.call("/other.v1.Service/Method", b""))
        assert {answer.reason for answer in answers} == {"ADMIN_DENIED"}
        assert len({answer.shape for answer in answers}) == 1
        for answer in answers:
            await company.recorded(answer)
    async with company.admin() as admin:
        assert (await admin.call(names[1], request)).shape == answers[0].shape
        assert (await admin.call(names[0], request)).code == "OK"


@pytest.mark.attack("E5")
async def test_page_tokens(company):
    """A page's token has one length, tells nothing of others' tickets, and opens only one's own list."""
    for assignee, kind in (("chen", "general"), ("dana", "billing")):
        for _ in range(4):
            await company.ticket(assignee, kind=kind)
    tokens = {}
    for name in ("chen", "dana"):
        async with company.peer(name) as peer:
            token, seen, pages = "", [], []
            while True:
                request = pb.ListAssignedTicketsRequest(page_size=1, page_token=token)
                page = pb.ListAssignedTicketsResponse.FromString((await peer.call(LIST, request)).data)
                seen += [ticket.ticket_id for ticket in page.tickets]
                token = page.next_page_token
                if not token:
                    break
                pages.append(token)
            assert len(seen) == len(set(seen)) >= 4
            tokens[name] = pages, seen
    assert len({len(token) for pages, _ in tokens.values() for token in pages}) == 1
    async with company.peer("dana") as dana:
        for token in tokens["chen"][0]:
            request = pb.ListAssignedTicketsRequest(page_size=100, page_token=token)
            page = pb.ListAssignedTicketsResponse.FromString((await dana.call(LIST, request)).data)
            assert {ticket.ticket_id for ticket in page.tickets} <= set(tokens["dana"][1])


@pytest.mark.attack("E5", "B6")
async def test_page_tokens_of_suspensions(company):
    """The administrators' pages are cut by tokens of one length."""
    async with company.admin() as admin:
        for name in ("kofi", "lucia", "marta"):
            ref = common.AgentRef(issuer=AGENT_ISSUER, subject=f"{name}-of-pages")
            await admin.call(
                "ContainmentService/SuspendAgent", containment.SuspendAgentRequest(agent=ref, reason="x")
            )
        token, names = "", []
        for _ in range(20):
            request = containment.ListSuspensionsRequest(page_size=1, page_token=token)
            answer = await admin.call("ContainmentService/ListSuspensions", request)
            page = containment.ListSuspensionsResponse.FromString(answer.data)
            names += [suspension.agent.subject for suspension in page.suspensions]
            token = page.next_page_token
            if not token:
                break
            assert len(token) == 19
    assert [name for name in names if name.endswith("-of-pages")] == [
        f"{name}-of-pages" for name in ("marta", "lucia", "kofi")
    ]


@pytest.mark.attack("E8", "G12")
async def test_metadata_decides_nothing(company):
    """A trace id that the caller chose is a link at most; claims of proxies change no decision."""
    ticket, others = await company.ticket("alice"), await company.ticket("bob")
    chosen, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    parent = ("traceparent", f"00-{chosen}-{span}-00")  # "do not sample"
    claims = [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-client-cert", "URI=spiffe://broker.dev/tool/phone"),
        ("x-ticket-id", ticket),
        ("x-agent", "bob"),
        ("x-user", agent("bob").key),
        ("grpc-accept-encoding", "identity"),
        ("baggage", "agent=bob,role=supervisor"),
        ("tracestate", "x=1"),
    ]
    async with company.peer("alice") as alice:
        for metadata in ([], claims, [parent], [parent, parent, *claims], [("traceparent", "x" * 500)]):
            refused = await alice.call(CREATE, creation(others), metadata=metadata)
            assert (refused.reason, (await company.recorded(refused))["agent"]) == (
                "TICKET_DENIED",
                agent("alice").key,
            )
            granted = await alice.call(CREATE, creation(ticket), metadata=metadata)
            grant = pb.CreateGrantResponse.FromString(granted.data).grant
            assert grant.trace_id != chosen
            assert grant.trace_id == (await company.event(grant.decision_id))["trace"]

    auditor = await company.auditor()
    query = "SELECT count(*) FROM broker.span WHERE links @> $1::jsonb"

    async def stored():
        return await auditor.fetchval(query, json.dumps([{"trace_id": chosen, "span_id": span}])) >= 2

    await eventually(stored)

    async def spanned():
        of_trace = "SELECT name FROM broker.span WHERE trace_id = $1"
        names = {row["name"] for row in await auditor.fetch(of_trace, bytes.fromhex(grant.trace_id))}
        return {"broker.v1.AccessService/CreateGrant", AUTHENTICATE.name} <= names

    await eventually(spanned)
    assert not await auditor.fetchval(
        "SELECT count(*) FROM broker.span WHERE trace_id = $1", bytes.fromhex(chosen)
    )


@pytest.mark.attack("K3")
async def test_self_assignment(company):
    """A tool cannot assign; an agent who took a ticket gets it masked at most; no assigner, no assignment."""
    desk = company.world.helpdesk
    async with company.peer("alice") as tool:
        for name in ("TicketFeedService/PublishEvents", "ContainmentService/SuspendAgent"):
            assert (await tool.call(name, b"")).code == "UNIMPLEMENTED"  # not on the tools' port
    async with company.admin("tool-desk") as tool:
        request = feed.PublishEventsRequest(events=["x"])
        answer = await tool.call("TicketFeedService/PublishEvents", request)
        assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "TOOL_IDENTITY_INVALID")
        await company.recorded(answer)

    taken = await company.ticket("alice", assigned_by="alice")
    routed = await company.ticket("alice")
    async with company.peer("alice") as alice:
        states = {}
        for ticket in (taken, routed):
            granted = await company.grant(alice, ticket, "customer.name", "customer.email", "customer.iban")
            states[ticket] = {field.name: field.state for field in granted.grant.fields}
        clear, masked, withheld = 1, 2, 3
        assert list(states[taken].values()) == [masked, masked, withheld]
        assert list(states[routed].values()) == [clear, masked, withheld]

    by_nobody = {"agent": {"issuer": AGENT_ISSUER, "subject": "alice"}, "relation": "assignee"}
    forged = desk.sign(
        {
            "seq": desk.seq + 1,
            "type": "assignment",
            "ticket_id": routed,
            "version": 9,
            "assignments": [by_nobody],
        }
    )
    async with company.admin("feed") as helpdesk:
        answer = await helpdesk.call(
            "TicketFeedService/PublishEvents", feed.PublishEventsRequest(events=[forged])
        )
        assert answer.code == "INVALID_ARGUMENT"
        assert answer.fields[0].startswith("events[0]")
        assert (await company.recorded(answer))["tool"].endswith("/feed/helpdesk")


@pytest.mark.attack("K4")
async def test_customers_merged_and_split(company):
    """A ticket that is now about somebody else opens nothing of whom it was about."""
    desk = company.world.helpdesk
    ticket = await company.ticket("emeka", customers=("7",))
    read = pb.ReadRecordRequest(fields=["customer.name"])
    async with company.peer("emeka") as emeka:
        read.grant_token = (await company.grant(emeka, ticket)).grant_token
        first = pb.ReadRecordResponse.FromString((await emeka.call(READ, read)).data)
        await company.world.publish(desk.change(ticket, customers=["8"]))
        refused = await emeka.call(READ, read)
        assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "TICKET_DENIED")
        await company.recorded(refused)
        assert (await emeka.call(CREATE, creation(ticket, customer_id="7"))).reason == "TICKET_DENIED"

        read.grant_token = (await company.grant(emeka, ticket)).grant_token
        second = pb.ReadRecordResponse.FromString((await emeka.call(READ, read)).data)
        assert first.fields[0].values[0].text != second.fields[0].values[0].text


@pytest.mark.attack("K8")
async def test_names_of_roles_are_nobodys_roles(company):
    """An agent named like a role, or in a group named like one, has no role by it."""
    issuer = DevelopmentIssuer.open(AGENT_ISSUER, company.world.layout.idp)
    odd = {
        "supervisor": ("supervisor", "tier1", "idp:support-supervisors", "any", "@supervisor", "*", ""),
        "tier1": ("support-tier1 ", "SUPPORT-TIER1", "support-tier1\u200b", "support", "support-tier"),
        "idp:support-tier1": (),
        "any": ("any",),
        "@tier1+supervisor": ("@tier1",),
    }

    def token(subject, groups):
        return issuer.mint(subject, audience=AUDIENCE, client_id=TOOLS["desk"], groups=groups)

    for subject, groups in odd.items():
        ticket = await company.ticket(subject)
        async with company.peer() as peer:
            for held in [(group,) for group in groups] + [()]:
                answer = await peer.call(CREATE, creation(ticket), token=token(subject, held))
                assert answer.code in {"PERMISSION_DENIED", "UNAUTHENTICATED"}, (subject, held)
                assert answer.reason in {"POLICY_DENIED", "TOKEN_INVALID"}, (subject, held)
                await company.recorded(answer)

            right = token(subject, ["support-tier1"])
            assert (await peer.call(CREATE, creation(ticket), token=right)).code == "OK"
