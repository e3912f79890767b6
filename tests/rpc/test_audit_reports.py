"""The auditors' reports over the port: what their cores say, on record under the person's name."""

import uuid
from dataclasses import asdict
from datetime import UTC, date, datetime

import asyncpg
import pytest
import pytest_asyncio

from broker.audit.access_at import access_at
from broker.audit.complaints import read_complaints
from broker.audit.exposed import Totals
from broker.audit.exposure import Selection, classes_for, exposed
from broker.audit.leak import attribute_leak, known_fields
from broker.audit.record import Auditor
from broker.audit.unexplained import unexplained_reads
from broker.client import AgentName, DeniedError, EventQuery, ExposureQuery
from broker.dev.layout import ADMIN_ISSUER, AGENT_ISSUER, CONSOLE_IDENTITY
from broker.ledger import EventIds
from broker.v1 import access_service_pb2 as access

pytestmark = pytest.mark.asyncio(loop_scope="session")

ALICE = f"{AGENT_ISSUER}|alice"


@pytest_asyncio.fixture(loop_scope="session")
async def pool(company):
    """The broker's database as the auditors' DSN opens it."""
    async with asyncpg.create_pool(company.world.dsn("broker_auditor"), min_size=0, max_size=3) as pool:
        yield pool


async def _read(company, customer="5"):
    """Lets alice read a customer; gives the grant's id."""
    async with company.peer("alice") as peer:
        granted = await company.grant(peer, await company.ticket(customers=(customer,)))
        read = access.ReadRecordRequest(grant_token=granted.grant_token, fields=["customer.name"])
        assert (await peer.call("AccessService/ReadRecord", read)).code == "OK"
    return granted.grant.grant_id


async def _asked(auditor):
    """Gives the newest question at the console."""
    query = EventQuery(kind="auditor_query", tool=CONSOLE_IDENTITY)
    [event] = [event async for event in auditor.events(query, most=2)][1:]  # the first is this one
    return event


async def test_exposure(company, pool):
    """It is what the core reports, customer by customer; by a customer's key as by their pseudonym."""
    grant = await _read(company)
    async with company.world.audit() as auditor:
        *customers, totals = [part async for part in auditor.exposure(ExposureQuery(grant_id=grant))]
        asked = await _asked(auditor)
        query = ExposureQuery(agent=AgentName(AGENT_ISSUER, "alice"), customer_id="5")
        [five, of_five] = [part async for part in auditor.exposure(query)]
        by_key = await _asked(auditor)
        [nobody] = [part async for part in auditor.exposure(ExposureQuery(customer_id="nobody's"))]

    counted = Totals()
    selection = Selection(grant_id=uuid.UUID(grant))
    expected = [one async for batch in exposed(pool, selection, counted) for one in batch]
    told = counted.as_mapping(await classes_for(pool, counted))
    assert [one.customer for one in customers] == [one.customer for one in expected]
    for one, core in zip(customers, expected, strict=True):
        assert {name: getattr(one, name) for name in core._fields} == core._asdict()
    assert (totals.customers, totals.reads, totals.first) == (1, counted.reads, counted.first)
    assert (totals.fields, totals.classes) == (told["fields"], told["classes"])
    assert customers[0].clear == ("customer.name",)
    assert (five.customer, of_five.customers) == (customers[0].customer, 1)
    assert nobody.customers == 0
    assert (asked.agent, asked.detail) == (f"{ADMIN_ISSUER}|audrey", {"query": "exposure", "grant": grant})
    assert by_key.detail == {"query": "exposure", "agent": ALICE, "customer": five.customer}


async def test_leak(company, pool):
    """The ranking is the core's; a complainant is told by their line and is in no event."""
    await _read(company)
    owner = await asyncpg.connect(company.world.records_dsn())
    email = await owner.fetchval("SELECT email FROM crm.customer WHERE customer_id = 5")
    await owner.close()
    time = datetime.now(UTC).isoformat()
    data = f"identifier,contact_time,fields\n{email},{time},\nnobody@example.org,{time},\n".encode()
    async with company.world.audit() as auditor:
        found = await auditor.attribute_leak(data)
        learnt = await _asked(auditor)
        asked = await auditor.event(found.decision_id)
    known = await known_fields(pool)
    complaints = read_complaints(data, now=datetime.now(UTC), known=known)
    async with asyncpg.create_pool(
        company.world.records_dsn("broker_auditor"), min_size=0, max_size=1
    ) as records:
        core = await attribute_leak(pool, records, complaints, by=Auditor("test"), ids=EventIds())

    assert (found.matched, found.lines, found.used) == (core.matched, core.lines, core.attribution.used)
    assert (found.matched, found.verdict) == (1, core.attribution.verdict.name.lower())
    assert [(c.names, c.complaints, c.p_value, c.p_among_all) for c in found.candidates] == [
        (s.names, s.candidate.lines, s.candidate.p_value, s.candidate.p_unconditioned) for s in core.suspects
    ]
    assert [[(e.event_id, e.time) for e in c.evidence] for c in found.candidates] == [
        [(str(e.event_id), e.time) for e in s.evidence] for s in core.suspects
    ]
    assert found.candidates
    assert found.not_used == tuple((u.line, u.why) for u in core.unused)
    assert asked.agent == learnt.agent == f"{ADMIN_ISSUER}|audrey"
    assert (asked.detail["identifiers"], asked.detail["conditioned"]) == (2, True)
    assert learnt.detail["answers"] == found.decision_id
    assert await company.count(f"leaf LIKE '%{email}%' OR leaf LIKE '%nobody@example.org%'") == 0
    log = company.world.layout.serve_log.read_text()
    assert log
    assert email not in log
    assert "nobody@example.org" not in log


async def test_access(company, pool):
    """Who could and who did are the core's; the event names the person, and the pseudonym alone."""
    await _read(company)
    now = datetime.now(UTC)
    async with company.world.audit() as auditor:
        found = await auditor.access("5", now)
        asked = await _asked(auditor)
    async with asyncpg.create_pool(
        company.world.records_dsn("broker_auditor"), min_size=0, max_size=1
    ) as records:
        core = await access_at(pool, records, EventIds(), Auditor("test"), "5", now)

    assert [asdict(one) for one in found.could] == [asdict(one) for one in core.could]
    assert [asdict(one) for one in found.did] == [asdict(one) for one in core.did]
    assert (found.pseudonym, found.policy_version) == (core.pseudonym, core.policy_version)
    assert found.not_knowable == core.not_knowable
    [question] = await pool.fetch(
        "SELECT kind, agent FROM broker.ledger_event WHERE id = $1", uuid.UUID(found.decision_id)
    )
    assert tuple(question) == ("auditor_query", f"{ADMIN_ISSUER}|audrey")
    assert ALICE in {one.agent for one in found.could} & {one.agent for one in found.did}
    assert asked.agent == f"{ADMIN_ISSUER}|audrey"
    assert asked.detail == {"query": "access of", "customer": found.pseudonym, "at": now.isoformat()}


async def test_unexplained_reads(company, pool):
    """Standings are the core's, agents who are called with their visits; the event names the person."""
    await _read(company)
    await known_fields(pool)  # brings alice's name into the index
    owner = await asyncpg.connect(company.world.dsn())
    since = date(2026, 1, 1)
    await owner.execute(
        "INSERT INTO broker.disclosure_name (kind, name)"
        " SELECT 'agent', 'i|busy-' || i FROM generate_series(1, 9) AS i ON CONFLICT DO NOTHING"
    )
    await owner.execute(
        "INSERT INTO broker.visit_tally"
        " SELECT $1::date + d, name_id, 'general', 20, CASE WHEN name = $2 THEN 18 ELSE 1 END, 0"
        " FROM broker.disclosure_name, generate_series(0, 9) AS d"
        " WHERE kind = 'agent' AND (name = $2 OR name LIKE 'i|busy-%')",
        since, ALICE,
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO broker.unexplained_visit"
        " SELECT $1, $2, name_id, 'general', 3, 'c', 't' FROM broker.disclosure_name"
        " WHERE kind = 'agent' AND name = $3",
        uuid.uuid4(), since, ALICE,
    )  # fmt: skip
    async with company.world.audit() as auditor:
        found = await auditor.unexplained(since, alpha=0.02)
        asked = await auditor.event(found.decision_id)
    core = await unexplained_reads(pool, since, by=Auditor("test"), ids=EventIds(), alpha=0.02)
    await owner.execute("DELETE FROM broker.visit_tally WHERE day < $1", date(2026, 2, 1))
    await owner.execute("DELETE FROM broker.unexplained_visit WHERE day = $1", since)
    await owner.close()

    assert found.days == core.days
    assert found.unjudged == core.unjudged
    assert [(one.agent, one.visits, one.log_evidence, one.called_on) for one in found.agents] == [
        (one.agent, one.visits, one.evidence, one.called_on) for one in core.standings
    ]
    [called] = [one for one in found.agents if one.called_on]
    assert called.agent == ALICE
    assert [(v.event_id, v.reads) for v in called.recent_visits] == [
        (str(v.event_id), v.reads) for v in core.visits[ALICE]
    ]
    assert len(called.recent_visits) == 1
    assert asked.agent == f"{ADMIN_ISSUER}|audrey"
    assert asked.detail == {"query": "unexplained", "since": "2026-01-01", "alpha": 0.02}


async def test_reports_are_for_auditors(company):
    """A person without the role is refused, whatever they ask."""
    async with company.world.audit("anna") as anna:
        with pytest.raises(DeniedError):
            [part async for part in anna.exposure(ExposureQuery(tool="x"))]
        with pytest.raises(DeniedError):
            await anna.attribute_leak(b"identifier,contact_time\n")
        with pytest.raises(DeniedError):
            await anna.access("5", datetime.now(UTC))
        with pytest.raises(DeniedError):
            await anna.unexplained(date(2026, 9, 1))
