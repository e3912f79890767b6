"""A draft held against the ledger itself: counts, people, rights, and its own event."""

from __future__ import annotations

import itertools
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from broker import replaying
from broker.ledger import EventIds
from broker.policy import PolicyFiles, load
from broker.policy.replay import ReplayReport
from broker.replaying import open_replay_pool, replay_ledger
from broker.v1 import access_service_pb2 as pb
from tests.published import activate_in
from tests.replaying.test_recorded import activate_without
from tests.rpc.company import creation

pytestmark = pytest.mark.asyncio(loop_scope="session")

CREATE, READ = "AccessService/CreateGrant", "AccessService/ReadRecord"
MASKED = "p, tier1, resolve-ticket, assignee, any, routed, any, any, contact, masked, allow\n"
REVIEW = "p, tier1, quality-review, assignee, any, any, any, any, profile, masked, allow\n"


def draft(company, *, wider: bool):
    """Loads the policy of the repository, or one that shows tier 1 more."""
    texts = dict(PolicyFiles.from_directory(company.settings()["policies_dir"]).texts)
    if wider:
        assert MASKED in texts["policy.csv"]
        clear = MASKED.replace("masked", "clear") + REVIEW
        texts["policy.csv"] = texts["policy.csv"].replace(MASKED, clear)
    return load(PolicyFiles.from_mapping(texts), "draft")


@asynccontextmanager
async def span(company):
    """Gives what replays the events that are appended meanwhile."""
    since = datetime.now(UTC)
    pool = await open_replay_pool(company.world.dsn("broker_admin"))

    async def again(new, **more):
        until = datetime.now(UTC) + timedelta(milliseconds=1)
        return await replay_ledger(pool, EventIds(), new, asked_by="tests", since=since, until=until, **more)

    try:
        yield again
    finally:
        await pool.close()


async def live_through(company) -> list[str]:
    """Lets two agents be granted, read twice and be refused, for three customers; gives the event ids."""
    ids = []
    for subject, customer in (("alice", "11"), ("bob", "12"), ("alice", "13")):
        ticket = await company.ticket(subject, customers=(customer,))
        async with company.peer(subject) as peer:
            granted = await company.grant(peer, ticket, "customer.name", "customer.email")
            ids.append(granted.grant.decision_id)
            read = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.email"])
            for _ in range(2):
                answer = pb.ReadRecordResponse.FromString((await peer.call(READ, read)).data)
                ids.append(answer.decision_id)
            refused = await peer.call(CREATE, creation(ticket, purpose="quality-review"))
            assert refused.reason == "POLICY_DENIED"
            ids.append(refused.decision_id)
            foreign = await peer.call(CREATE, creation("R-999999"))
            assert foreign.reason == "TICKET_DENIED", "no decision of the policy, so nothing to replay"
    return ids


async def test_what_a_draft_would_have_changed(company):
    """Counts per flip, agents, distinct customers and the exposure, from events as the broker wrote them."""
    async with span(company) as again:
        ids = await live_through(company)
        same = await again(draft(company, wider=False))
        report = await again(draft(company, wider=True))

    assert (same.decisions, same.changed, same.undecidable) == (12, 0, {})
    assert (report.decisions, report.changed, report.opened) == (12, 12, 3)
    flips = {(f.field, f.before, f.after): f for f in report.flips}
    assert {key: flip.decisions for key, flip in flips.items()} == {
        ("customer.email", "masked", "clear"): 9,
        ("customer.name", "withheld", "masked"): 3,
    }
    email = flips["customer.email", "masked", "clear"]
    named = {agent.rpartition("|")[2]: count for agent, count in email.people.most_concerned.items()}
    assert named == {"alice": 6, "bob": 3}
    assert (email.people.agents, email.people.customers, email.people.nameless) == (2, 3, 0)
    assert email.ticket_kinds == {"general": 9}
    assert set(email.examples) <= set(ids)
    assert report.customers_newly_reachable == 3
    assert report.sensitive_newly_clear.keys() == {"customer.email"}
    assert report.sensitive_newly_clear["customer.email"].customers == 3


async def test_a_group_that_was_mapped_in_mid_span(company):
    """Decisions from before tell nothing of it: undecidable where it matters; they count nobody."""
    texts = dict(PolicyFiles.from_directory(company.settings()["policies_dir"]).texts)
    mapped = "g, idp:newcomers, held\np, held, resolve-ticket, any, any, any, any, any, contact, any, deny\n"
    texts["policy.csv"] = texts["policy.csv"].replace("\n# end\n", f"\n{mapped}# end\n")
    later = PolicyFiles.from_mapping(texts)
    texts["policy.csv"] = texts["policy.csv"].replace(MASKED, MASKED.replace("masked", "clear"))
    new = load(PolicyFiles.from_mapping(texts), "draft")
    async with span(company) as again:
        before = await company.auditor()
        version = await before.fetchval("SELECT version FROM broker.policy_active")
        await live_through(company)
        await activate_in(company.world, later)
        try:
            await live_through(company)
            report = await again(new)
        finally:
            await activate_without(company, "")

    assert (report.decisions, report.undecidable) == (24, {"membership of newcomers": 9})
    assert report.groups_not_recorded == {"newcomers": (version,)}
    [email] = report.flips
    assert email.decisions == 9
    named = {agent.rpartition("|")[2]: count for agent, count in email.people.most_concerned.items()}
    assert named == {"alice": 6, "bob": 3}
    over_the_port = ReplayReport.from_mapping(json.loads(json.dumps(report.as_mapping())))
    assert over_the_port.groups_not_recorded == report.groups_not_recorded


async def test_slices_change_nothing(company):
    """However the span is cut, the report is the same; progress reaches the end."""
    ticks = itertools.count(0, 1000)  # every slice seems to take ever so long, so they shrink
    shown = []
    async with span(company) as again:
        await live_through(company)
        whole = await again(draft(company, wider=True))
        cut = await again(
            draft(company, wider=True),
            steady=lambda: float(min(next(ticks), 60_000)),
            progress=lambda what, done, decisions: shown.append((what, done, decisions)),
        )

    assert cut.as_mapping() == whole.as_mapping()
    assert len(shown) > 20
    assert shown[-1] == ("Done", 1.0, 12)


async def test_too_many_different_decisions_are_counted_without_people(company, monkeypatch):
    """Beyond what memory holds, flips stay exact, and the report says that nobody was counted."""
    monkeypatch.setattr(replaying, "MOST_DETAILS", 1)
    async with span(company) as again:
        await live_through(company)
        report = await again(draft(company, wider=True))

    assert (report.decisions, report.changed, report.people_counted) == (12, 12, False)


async def test_a_replay_is_on_the_ledger_itself(company):
    """Who asked, for which files and what it came to, durable before the report is given."""
    new = draft(company, wider=True)
    async with span(company) as again:
        await live_through(company)
        report = await again(new, person="https://admins.example|anna")
    auditor = await company.auditor()
    leaf = json.loads(
        await auditor.fetchval(
            "SELECT leaf FROM broker.ledger_event WHERE kind = 'policy' AND tool = 'tests'"
            " ORDER BY id DESC LIMIT 1"
        )
    )

    assert leaf["agent"] == "https://admins.example|anna"
    assert leaf["detail"]["act"] == "replayed", "what came of it; that somebody asked is another event"
    assert leaf["detail"]["digest"] == new.digest
    assert (leaf["detail"]["decisions"], leaf["detail"]["changed"]) == (report.decisions, report.changed)
    assert leaf["detail"]["customers_newly_reachable"] == 3


async def test_the_decision_part_is_the_detail_of_every_leaf(company):
    """What is grouped by is the leaf's `detail`, to the byte, for every event that there is."""
    await live_through(company)
    conn = await asyncpg.connect(company.world.dsn())
    try:
        rows = await conn.fetch(
            "SELECT leaf, broker.decision_part(leaf, outcome, reason) AS part FROM broker.ledger_event"
        )
    finally:
        await conn.close()

    assert len(rows) > 12
    for row in rows:
        assert json.loads(row["part"]) == json.loads(row["leaf"])["detail"]


async def test_a_security_admin_reads_no_event_and_no_pseudonym(company):
    """The admin process has the functions and not the ledger; what they give names no customer or ticket."""
    await live_through(company)
    auditor = await company.auditor()
    pseudonyms = {
        word
        for row in await auditor.fetch("SELECT customer_pseudonym, ticket_pseudonym FROM broker.ledger_event")
        for word in row
        if word
    }
    admin = await asyncpg.connect(company.world.dsn("broker_admin"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await admin.fetch("SELECT * FROM broker.ledger_event")
        everything = "broker.uuid7_floor('2020-01-01'), broker.uuid7_floor('2100-01-01')"
        inputs = await admin.fetch(f"SELECT * FROM broker.replay_inputs({everything})")
        people = await admin.fetch(
            f"SELECT * FROM broker.replay_people({everything}, $1, $2, $3, $4, $4, '{{0}}', '{{0}}', 10)",
            list(versions := {row["policy_version"] for row in inputs}),
            [0] * len(versions),
            [row["detail"] for row in inputs],
            [0] * len(inputs),
        )
    finally:
        await admin.close()
    told = repr([tuple(row) for row in (*inputs, *people)])

    assert people[0]["customers"] >= 3, "the control arm: customers were there to be counted"
    assert pseudonyms
    assert [word for word in pseudonyms if word in told] == []


@pytest.mark.parametrize("role", ["broker_access", "broker_feed", "broker_reader", "broker_auditor"])
async def test_nobody_else_replays(company, role):
    """The functions are the administrators' alone; auditors have the events themselves."""
    conn = await asyncpg.connect(company.world.dsn(role))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.fetch("SELECT * FROM broker.replay_inputs(gen_random_uuid(), gen_random_uuid())")
    finally:
        await conn.close()
