"""A shadow decides beside the active policy, is counted, and touches nothing."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import asyncpg
import pytest

from broker import shadowing
from broker.database import open_pool
from broker.ledger import EventIds
from broker.model import Facts, OpenedBy, Presence, Provenance, Relation
from broker.policy import PolicyFiles, Tally, load, tally
from broker.policy.bundle import Bundle
from broker.publishing.tasks import TASKS
from broker.shadowing import Difference, Shadowing, Shadows, Whose
from broker.v1 import access_service_pb2 as pb
from tests.policy.sample import POLICIES
from tests.rpc.company import creation, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

CREATE, READ = "AccessService/CreateGrant", "AccessService/ReadRecord"
STARTING = PolicyFiles.from_directory(POLICIES)
BROKEN = PolicyFiles.from_mapping({**STARTING.texts, "policy.csv": "nonsense\n"})
FACTS = Facts(
    "resolve-ticket", Relation.ASSIGNEE, "general", Provenance.ROUTED, OpenedBy.CUSTOMER, Presence.ABSENT
)
ANNA, BORIS = (Whose(f"https://admins.broker.dev|{name}", "spiffe://x/console") for name in ("anna", "boris"))
ASKED = ("customer.name", "customer.email")


def allowing_everything() -> PolicyFiles:
    """Writes a policy by which tier 1 and tier 2 see everything there is, in clear."""
    lines = [line for line in STARTING.texts["policy.csv"].splitlines() if line.startswith("g, ")]
    classes = ("profile", "contact", "billing", "device", "identity")
    roles = ("tier1", "tier2", "billing", "supervisor")
    lines += [f"p, {r}, any, any, any, any, any, any, {c}, clear, allow" for r in roles for c in classes]
    return PolicyFiles.from_mapping({**STARTING.texts, "policy.csv": "\n".join([*lines, "# end", ""])})


async def held(bundle: Bundle):
    """Reads a draft as the child process of the admin process does, in this one."""
    texts = {"files": dict(bundle.files.texts), "tests": {}}
    task = {"bundle": texts, "today": datetime.now(UTC).date().isoformat()}
    return await asyncio.to_thread(TASKS["hold"], task)


@asynccontextmanager
async def administering(dsn):
    """Gives what the admin process does with shadows, on connections as it has them."""
    pool = await open_pool(dsn, name="tests: shadow", max_size=2)
    try:
        yield Shadows(pool, EventIds(), held)
    finally:
        await pool.close()


@asynccontextmanager
async def worker(database, counted: Tally):
    """Makes a worker's shadow whose rounds the test calls, not the clock; it has looked once."""
    watch = Shadowing(database.dsn("broker_access"), counted)
    await watch.look()
    try:
        yield watch
    finally:
        await watch.__aexit__()


async def leaves(database) -> list[dict]:
    """Gives the ledger's events, oldest first."""
    conn = await asyncpg.connect(database.dsn("broker_auditor"))
    try:
        rows = await conn.fetch("SELECT leaf FROM broker.ledger_event ORDER BY id")
    finally:
        await conn.close()
    return [json.loads(row["leaf"]) for row in rows]


@cache
def active():
    """Loads the policy in force."""
    return load(STARTING, "1")


def decided(*groups: str):
    """Takes a live decision."""
    return active().decide_for(frozenset(groups or {"support-tier1"}), FACTS, ASKED)


class TestCounting:
    async def test_differences_are_counted_and_listed(self, database):
        """Each use counts, each class is one row, and both levels are told with the facts."""
        counted = Tally()
        async with administering(database.dsn("broker_admin")) as admin:
            await admin.start(Bundle.of(allowing_everything(), {}), ANNA)
            async with worker(database, counted) as watch:
                one, other = decided(), decided()
                for _ in range(3):
                    counted.saw(one)
                counted.saw(other)
                await watch.report()
                counted.saw(one)
                await watch.report()
            report = await admin.latest()

        assert (report.compared, report.differing, report.left_out, report.trouble) == (5, 5, 0, "")
        assert report.differences == (
            (
                Difference("customer.email", "masked", "clear", "tier1", "general", "resolve-ticket"),
                5,
                FACTS.as_mapping(),
            ),
        )

    async def test_the_same_policy_differs_nowhere(self, database):
        """The control arm: what is compared is compared truthfully."""
        counted = Tally()
        async with administering(database.dsn("broker_admin")) as admin:
            await admin.start(Bundle.of(STARTING, {}), ANNA)
            async with worker(database, counted) as watch:
                counted.saw(decided())
                await watch.report()
            report = await admin.latest()

        assert (report.compared, report.differing, report.differences) == (1, 0, ())

    async def test_without_a_shadow_nothing_is_counted(self, database):
        """Before the start and after the stop a worker counts nothing; what was listed can still be seen."""
        counted = Tally()
        async with administering(database.dsn("broker_admin")) as admin:
            async with worker(database, counted) as watch:
                assert not counted.on
                await admin.start(Bundle.of(allowing_everything(), {}), ANNA)
                await watch.look()
                assert counted.on
                counted.saw(decided())
                await watch.report()
                assert (await admin.stop(ANNA))[1] is not None
                await watch.look()
                assert not counted.on
                counted.saw(decided())
                assert counted.drain() == ({}, 0)
            report = await admin.latest()
            assert (await admin.stop(ANNA))[1] is None

        assert report.end_time is not None
        assert report.compared == 1

    async def test_starting_and_stopping_are_on_the_ledger(self, database):
        """Each act is an event that names who, through which console, and which files."""
        async with administering(database.dsn("broker_admin")) as admin:
            started = await admin.start(Bundle.of(STARTING, {}), ANNA)
            refused = await admin.start(Bundle.of(BROKEN, {}), ANNA)
            stopped, _ = await admin.stop(BORIS)
        events = await leaves(database)

        assert [event["id"] for event in events] == [str(e) for e in (started.event, refused.event, stopped)]
        assert [(e["kind"], e["agent"], e["tool"], e["outcome"], e["detail"]) for e in events] == [
            ("policy", ANNA.person, ANNA.console, "done", {"act": "start shadow", "digest": STARTING.digest}),
            (
                "policy",
                ANNA.person,
                ANNA.console,
                "refused",
                {"act": "start shadow", "digest": BROKEN.digest, "refusals": 1},
            ),
            (
                "policy",
                BORIS.person,
                BORIS.console,
                "done",
                {"act": "stop shadow", "digest": STARTING.digest},
            ),
        ]


class TestBounds:
    async def test_a_worker_remembers_so_much(self, monkeypatch):
        """Beyond its room a tally counts what it left out."""
        monkeypatch.setattr(tally, "MOST_DECISIONS", 2)
        counted = Tally()
        counted.on = True
        for one in [decided(), decided(), decided()]:
            counted.saw(one)
            counted.saw(one)

        counts, left_out = counted.drain()
        assert (sorted(counts.values()), left_out) == ([2, 2], 2)

    async def test_the_table_has_so_many_rows(self, database, monkeypatch):
        """Beyond the rows differences are counted as unlisted; classes that have a row go on counting."""
        monkeypatch.setattr(shadowing, "MOST_CLASSES", 1)
        counted = Tally()
        async with administering(database.dsn("broker_admin")) as admin:
            await admin.start(Bundle.of(allowing_everything(), {}), ANNA)
            async with worker(database, counted) as watch:
                for group in ("support-tier1", "support-tier2", "support-tier1"):
                    counted.saw(decided(group))
                    await watch.report()
            report = await admin.latest()

        assert [(d.roles, uses) for d, uses, _ in report.differences] == [("tier1", 2)]
        assert (report.compared, report.unlisted) == (3, 1)

    async def test_roles_that_are_long(self, database):
        """An agent of many roles with long names is counted like any other, and apart from others of them."""
        counted = Tally()
        long = [f"{'r' * 37}-{i:02}" for i in range(14)]
        async with administering(database.dsn("broker_admin")) as admin:
            await admin.start(Bundle.of(allowing_everything(), {}), ANNA)
            async with worker(database, counted) as watch:
                for roles in (long[:13], long[:14], [*long[:12], long[13]], long[:13]):
                    counted.saw(replace(decided(), roles=frozenset(roles)))
                    await watch.report()
            report = await admin.latest()

        assert (report.compared, report.trouble) == (4, "")
        assert [uses for _, uses, _ in report.differences] == [2, 1, 1]
        assert all(d.roles.startswith("+".join(long[:8])) for d, *_ in report.differences)


class TestFaults:
    async def test_a_broken_draft_is_told_and_counts_nothing(self, database):
        """Files that another release cannot read show as trouble; no worker counts or fails for it."""
        counted = Tally()
        async with administering(database.dsn("broker_admin")) as admin:
            refused = await admin.start(Bundle.of(BROKEN, {}), ANNA)
            assert refused.shadow is None
            assert "policy.csv:1" in refused.told["findings"][0]
            assert await admin.latest() is None
            conn = await asyncpg.connect(database.dsn("broker_admin"))
            await conn.fetchval(  # past the check, as an older release would have stored it
                "SELECT broker.start_shadow($1::text::jsonb, $2, 'tests')",
                json.dumps(dict(BROKEN.texts)),
                BROKEN.digest,
            )
            await conn.close()
            async with worker(database, counted) as watch:
                await watch.look()
                await watch.report()
            report = await admin.latest()

        assert not counted.on
        assert "policy.csv" in report.trouble

    async def test_a_database_that_does_not_answer(self, database):
        """Counts are kept for the next report; nothing is raised."""
        counted = Tally()
        async with administering(database.dsn("broker_admin")) as admin:
            await admin.start(Bundle.of(allowing_everything(), {}), ANNA)
            async with worker(database, counted) as watch:
                counted.saw(decided())
                owner = await asyncpg.connect(database.dsn())
                await owner.execute("ALTER TABLE broker.shadow_policy RENAME TO elsewhere")
                await watch.report()
                await watch.look()
                await owner.execute("ALTER TABLE broker.elsewhere RENAME TO shadow_policy")
                await owner.close()
                await watch.report()
            report = await admin.latest()

        assert report.compared == 1
        assert report.trouble

    async def test_a_report_that_the_database_refuses(self, database):
        """Told as trouble at once, by itself; it does not come back, so what is counted later arrives."""
        counted = Tally()
        odd = replace(decided(), facts=replace(FACTS, purpose="p" * 201))
        async with administering(database.dsn("broker_admin")) as admin:
            await admin.start(Bundle.of(allowing_everything(), {}), ANNA)
            async with worker(database, counted) as watch:
                counted.saw(odd)
                counted.saw(decided())
                await watch.report()
                told = await admin.latest()
                counted.saw(decided())
                await watch.report()
            report = await admin.latest()

        assert told.trouble == "the shadow cannot be held against decisions: CheckViolationError"
        assert (report.compared, report.left_out, report.differing) == (1, 2, 1)

    async def test_a_defect_in_the_shadow_is_nobody_elses(self, database, monkeypatch):
        """Whatever is thrown while deciding stays in the task and is told by its type alone."""

        def fail(*_):
            raise RuntimeError("Anna Example, +49 30 1234")

        counted = Tally()
        monkeypatch.setattr(shadowing.Deciding, "levels", fail)
        async with administering(database.dsn("broker_admin")) as admin:
            await admin.start(Bundle.of(allowing_everything(), {}), ANNA)
            async with worker(database, counted) as watch:
                counted.saw(decided())
                await watch.report()
                await watch.report()
            report = await admin.latest()

        assert report.trouble.endswith("RuntimeError")
        assert "Anna" not in report.trouble


class TestNoEffect:
    async def answers(self, company, peer, ticket: str, requests: list) -> list[object]:
        """Asks everything and gives the answers without what differs between any two calls."""
        found: list[object] = []
        for method, request in requests:
            answer = await peer.call(method, request)
            if method == READ and answer.code == "OK":
                response = pb.ReadRecordResponse.FromString(answer.data)
                assert response.fields
                found.append([field.SerializeToString(deterministic=True) for field in response.fields])
            elif answer.code == "OK":
                response = pb.CreateGrantResponse.FromString(answer.data)
                found.append([field.SerializeToString(deterministic=True) for field in response.grant.fields])
            else:
                found.append((answer.code, answer.reason, answer.text))
        return found

    async def test_answers_are_the_same_byte_for_byte(self, company):
        """With a shadow that allows everything each grant, read and refusal is what it was without it."""
        ticket = await company.ticket("alice", customers=("21",))
        asked = ("customer.name", "customer.email", "customer.id_document", "customer.card_number")
        async with administering(company.world.dsn("broker_admin")) as admin, company.peer("alice") as alice:
            token = (await company.grant(alice, ticket, *asked)).grant_token

            def requests():
                return [
                    (CREATE, creation(ticket, *asked)),
                    (CREATE, creation(ticket, "customer.id_document")),
                    (CREATE, creation("R-999999", "customer.name")),
                    (READ, pb.ReadRecordRequest(grant_token=token, fields=asked[:2])),
                    (READ, pb.ReadRecordRequest(grant_token=token, fields=["customer.id_document"])),
                ]

            without = await self.answers(company, alice, ticket, requests())
            await admin.start(Bundle.of(allowing_everything(), {}), ANNA)

            async def runs() -> bool:
                await self.answers(company, alice, ticket, requests())
                report = await admin.latest()
                return report.differing > 0

            await eventually(runs, 15.0)
            with_it = await self.answers(company, alice, ticket, requests())
            report = await admin.latest()
            await admin.stop(ANNA)

        assert with_it == without
        assert {d.field for d, _, _ in report.differences} >= {"customer.email", "customer.id_document"}
        assert {d.shadow for d, _, _ in report.differences} == {"clear"}, (
            "the control arm: it would allow all"
        )

    async def test_a_planted_fault_touches_no_request(self, company):
        """A worker whose shadow fails in every way there is answers as ever, and does not die."""
        patch = (
            "import broker.shadowing as s\n"
            "def fail(*_, **__): raise RuntimeError('planted')\n"
            "s.Deciding.levels = fail\n"
            "s.Shadowing._send = fail\n"
        )
        async with administering(company.world.dsn("broker_admin")) as admin:
            await admin.start(Bundle.of(allowing_everything(), {}), ANNA)
            async with company.worker(patch) as faulty, company.peer("alice", target=faulty.target) as alice:
                ticket = await company.ticket("alice", customers=("22",))

                async def tried() -> bool:
                    granted = await company.grant(alice, ticket, *ASKED)
                    read = pb.ReadRecordRequest(grant_token=granted.grant_token, fields=ASKED)
                    assert (await alice.call(READ, read)).code == "OK"
                    return b"shadow trouble" in faulty.log.read_bytes()

                await eventually(tried, 15.0)
            await admin.stop(ANNA)

    @pytest.mark.parametrize("role", ["broker_access", "broker_feed", "broker_reader", "broker_auditor"])
    async def test_only_administrators_start_one(self, company, role):
        """No process that faces tools can set a shadow, or end one."""
        conn = await asyncpg.connect(company.world.dsn(role))
        try:
            for call in ("broker.stop_shadow()", "broker.start_shadow('{}', repeat('0', 64), 'x')"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.execute(f"SELECT {call}")
        finally:
            await conn.close()


async def test_the_task_ends_when_it_is_told(database):
    """Leaving it waits for nothing, also before the database ever answered."""
    async with asyncio.timeout(5), Shadowing(database.dsn("broker_access"), Tally()):
        pass
