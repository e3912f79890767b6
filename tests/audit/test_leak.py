"""From identifiers to names: matched in the records database, behind a query on record, capped."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from broker.audit.attribution import Verdict
from broker.audit.complaints import Complaint, Complaints
from broker.audit.leak import LeakReport, attribute_leak
from broker.audit.matching import IdentifiersUsedUpError
from broker.audit.record import Auditor, put_on_record
from broker.catalog import Catalog, Field, Kind, Mask
from broker.cli import run
from broker.ledger import EventIds
from broker.records import apply, plan_install, plan_uninstall, rotate_guard_key
from tests.audit.conftest import Audited

NOW = datetime.now(UTC)
SHOWN = {"customer.name": "clear", "customer.email": "clear", "customer.phone": "clear"}
SCHEMA = """
CREATE SCHEMA crm;
CREATE TABLE crm.customer (customer_id text PRIMARY KEY, name text, email text, phone text);
INSERT INTO crm.customer
SELECT 'C-' || i, 'Name ' || i, 'Person' || i || '@Example.org ', '+44 20 7946 ' || lpad(i::text, 4, '0')
FROM generate_series(1, 400) AS i;
INSERT INTO crm.customer VALUES
    ('C-shared-1', 'a', 'both@example.org', NULL), ('C-shared-2', 'b', 'both@example.org', NULL),
    ('C-half-1', 'a', 'half@example.org', NULL), ('C-half-2', 'b', 'half@example.org', NULL);
INSERT INTO broker.feed (feed_id) VALUES ('f');
INSERT INTO broker.ticket (ticket_id, feed_id, version, content_hash, status, kind, opened_by)
SELECT t, 'f', 1, '', 'open', 'general', 'customer' FROM unnest(ARRAY['T-1', 'T-two', 'T-new']) AS t;
INSERT INTO broker.ticket_customer VALUES
    ('T-1', 'C-1'), ('T-two', 'C-2'), ('T-two', 'C-3'), ('T-new', 'C-399');
"""


PLANTED = {
    "other people's rows get the complainants' pseudonyms": """
        UPDATE broker.disclosure AS d SET customer = v.victim
        FROM (
            SELECT event_id, row_number() OVER () AS n FROM broker.disclosure WHERE agent_id = {eve}
        ) AS e
        INNER JOIN unnest($1::text[]) WITH ORDINALITY AS v (victim, n) ON v.n = e.n
        WHERE d.event_id = e.event_id
    """,
    "the same, and marked as what no leaf tells": """
        UPDATE broker.disclosure AS d SET customer = v.victim, fields_id = (
            SELECT fields_id FROM broker.disclosure_fields WHERE unreadable
        )
        FROM (
            SELECT event_id, row_number() OVER () AS n FROM broker.disclosure WHERE agent_id = {eve}
        ) AS e
        INNER JOIN unnest($1::text[]) WITH ORDINALITY AS v (victim, n) ON v.n = e.n
        WHERE d.event_id = e.event_id
    """,
    "rows without any event": """
        INSERT INTO broker.disclosure
        SELECT
            gen_random_uuid(), d.read_time, {eve}, d.tool_id, d.fields_id, d.ground_id, d.stratum_id,
            d.grant_id, d.customer, d.ticket
        FROM broker.disclosure AS d WHERE d.customer = ANY ($1) AND d.agent_id <> {eve}
    """,
    "the complainants' rows get another agent": """
        UPDATE broker.disclosure SET agent_id = {eve} WHERE customer = ANY ($1)
    """,
    "an agent gets another name": """
        UPDATE broker.disclosure_name SET name = 'i|framed'
        WHERE name = 'i|mal' AND cardinality($1::text[]) > 0
    """,
    "reads after the contact get an earlier time": """
        UPDATE broker.disclosure SET read_time = read_time - interval '1 day'
        WHERE agent_id = (SELECT name_id FROM broker.disclosure_name WHERE name = 'i|late')
            AND cardinality($1::text[]) > 0
    """,
    "reads are put into a week in which hardly anybody was seen": """
        UPDATE broker.disclosure AS d SET stratum_id = s.stratum_id
        FROM broker.disclosure_stratum AS s WHERE s.ticket_kind = 'quiet' AND d.customer = ANY ($1)
    """,
    "reads that came to nothing get back what they gave": """
        UPDATE broker.disclosure SET narrowed = NULL WHERE cardinality($1::text[]) > 0
    """,
}
"""What somebody who administers the database does to have another agent named."""


def catalog() -> Catalog:
    """Maps the table; its masks say which columns are contacts."""
    masks = {"name": Mask.TEXT, "email": Mask.EMAIL, "phone": Mask.PHONE}
    fields = {n: Field("customer", n, n, "contact", m) for n, m in masks.items()}
    kinds = {"customer": Kind("customer", "crm", "customer", "customer_id", fields)}
    return Catalog(("general",), {"resolve-ticket": "."}, {"contact": "."}, frozenset(), kinds)


@dataclass
class Leaking:
    """Customers, their pseudonyms, and an auditor's two pools (of one database here)."""

    audited: Audited
    admin: asyncpg.Connection
    pseudonyms: dict[str, str]

    async def match(self, *told: tuple[str, str]) -> list[tuple[str, str | None]]:
        """Matches identifiers as the tool does; gives what was found, pseudonyms as customers."""
        pool = self.audited.pool
        question = await put_on_record(
            pool, EventIds(), Auditor("t"), {"query": "attribute", "identifiers": len(told)}
        )
        return await self.match_for(question, *told)

    async def key(self, identifiers: int) -> str:
        """Gives the pass of a question on record."""
        detail = {"query": "attribute", "identifiers": identifiers}
        question = await put_on_record(self.audited.pool, EventIds(), Auditor("t"), detail)
        [row] = await self.audited.rows("SELECT pass FROM broker.match_pass($1, '{}')", question)
        return row["pass"]

    async def match_for(self, question: uuid.UUID, *told: tuple[str, str]) -> list[tuple[str, str | None]]:
        """The same for an event that may or may not be one."""
        tickets = [text for kind, text in told if kind == "ticket"]
        [made] = await self.audited.rows("SELECT * FROM broker.match_pass($1, $2)", question, tickets)
        sealed = iter(made["sealed"])
        return await self.call(made["pass"], [(k, next(sealed) if k == "ticket" else t) for k, t in told])

    async def call(self, key: str, told: list[tuple[str, str]]) -> list[tuple[str, str | None]]:
        """Calls the records database's function."""
        rows = await self.audited.rows(
            "SELECT * FROM broker_guard.match_customers($1, $2, $3)",
            key,
            [k for k, _ in told],
            [t for _, t in told],
        )
        customers = {p: c for c, p in self.pseudonyms.items()}
        return [(r["found"], customers.get(r["pseudonym"])) for r in rows]

    async def ask(self, *complaints: tuple[str, str], fields: frozenset[str] = frozenset()) -> LeakReport:
        """Asks who leaked."""
        used = tuple(
            Complaint(line, kind, text, NOW, fields) for line, (kind, text) in enumerate(complaints, 2)
        )
        return await attribute_leak(
            self.audited.pool,
            self.audited.pool,
            Complaints(used, (), len(used)),
            by=Auditor("t"),
            ids=EventIds(),
        )


@pytest.fixture
async def leaking(audited: Audited) -> Leaking:
    """Gives customers of whom the first 300, and the sharing ones, were ever granted to anybody."""
    await audited.conn.execute(SCHEMA)
    await apply(audited.conn, await plan_install(audited.conn, catalog()))
    owner = await asyncpg.connect(audited.database.dsn("broker_owner"))
    await rotate_guard_key(owner, audited.conn)
    await owner.close()
    reader = await asyncpg.connect(audited.database.dsn("broker_reader"))
    known = [*(f"C-{i}" for i in range(1, 301)), "C-shared-1", "C-shared-2", "C-half-1"]
    pseudonyms = {}
    for start in range(0, len(known), 64):
        part = known[start : start + 64]
        rows = await reader.fetch("SELECT * FROM broker_guard.pseudonyms($1, $1)", part)
        pseudonyms |= {c: r["customer_pseudonym"] for c, r in zip(part, rows, strict=True)}
    await reader.close()
    return Leaking(audited, audited.conn, pseudonyms)


class TestMatching:
    async def test_by_exact_comparison_of_what_is_normalised(self, leaking):
        """Blanks, letters' size and a number's punctuation do not count; everything else does."""
        table = {
            ("email", "person7@example.org"): "C-7",
            ("email", "  PERSON7@EXAMPLE.ORG"): "C-7",
            ("email", "person7@example.or"): None,
            ("email", "person%@example.org"): None,
            ("phone", "+442079460007"): "C-7",
            ("phone", "0044 (0)20 7946-0007 ext. 12"): "C-7",
            ("phone", "020 7946 0007"): None,  # of which country?
            ("phone", "0007"): None,
            ("customer", "C-7"): "C-7",
            ("customer", "c-7"): None,
            ("ticket", "T-1"): "C-1",
            ("ticket", "T-none"): None,
            ("ticket", "T-two"): None,
            ("word", "C-7"): None,
        }
        found = {told: await leaking.match(told) for told in table}
        assert found == {told: [("one", c) if c else ("none", None)] for told, c in table.items()}

    async def test_one_question_many_lines(self, leaking):
        """Answers come in the order of the lines, tickets between others included."""
        told = [
            ("ticket", "T-none"),
            ("email", "person3@example.org"),
            ("ticket", "T-1"),
            ("customer", "C-9"),
        ]
        assert [c for _, c in await leaking.match(*told)] == [None, "C-3", "C-1", "C-9"]

    async def test_who_was_never_granted_looks_like_a_stranger(self, leaking):
        """Without a salt, or sharing a contact with such a one, or nobody at all: one answer."""
        told = [
            ("email", "person399@example.org"), ("customer", "C-399"), ("ticket", "T-new"),
            ("email", "half@example.org"), ("email", "stranger@example.org"),
        ]  # fmt: skip
        assert set(await leaking.match(*told)) == {("none", None)}
        assert await leaking.match(("email", "both@example.org")) == [("several", None)]

    async def test_a_ticket_goes_sealed(self, leaking):
        """What the auditor carries shows no customer, nor whether there is one; it is new every time."""
        pool = leaking.audited.pool
        question = await put_on_record(
            pool, EventIds(), Auditor("t"), {"query": "attribute", "identifiers": 3}
        )
        sql = "SELECT sealed FROM broker.match_pass($1, $2)"
        seen = [
            (await leaking.audited.rows(sql, question, ["T-1", "T-1", "T-none"]))[0]["sealed"]
            for _ in range(2)
        ]
        texts = [text for sealed in seen for text in sealed]
        assert len(set(texts)) == len(texts) == 6
        assert {len(text) for text in texts} == {576}
        assert not any(b"C-1".hex() in text for text in texts)

    async def test_what_is_sealed_cannot_be_exchanged(self, leaking):
        """Another ticket of the same list, one sealed for another pass, a changed bit, one as a plain key."""
        questions = [
            await put_on_record(
                leaking.audited.pool, EventIds(), Auditor("t"), {"query": "attribute", "identifiers": 2}
            )
            for _ in range(2)
        ]
        sql = "SELECT * FROM broker.match_pass($1, $2)"
        [[mine], [other]] = [await leaking.audited.rows(sql, q, ["T-1", "T-new"]) for q in questions]
        one, two = mine["sealed"]
        flipped = f"{int(one[:2], 16) ^ 1:02x}{one[2:]}"
        for first, second in ((two, one), (one, one), (other["sealed"][0], two), (flipped, two)):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await leaking.call(mine["pass"], [("ticket", first), ("ticket", second)])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await leaking.call(mine["pass"], [("ticket", one), ("customer", "C-1")])
        told = [("ticket", one), ("ticket", two)]
        assert await leaking.call(mine["pass"], told) == [("one", "C-1"), ("none", None)]


class TestBounds:
    async def _pass_for_uncommitted(self, audited, query, depth):
        async with AsyncExitStack() as stack:
            for _ in range(depth):
                await stack.enter_async_context(audited.conn.transaction())
            event = await audited.put(**query)
            await audited.conn.fetch("SELECT broker.match_pass($1, '{}')", event)

    async def test_only_behind_a_committed_query(self, leaking):
        """No event, an event of another kind, an old one, and one that is not committed give no pass."""
        audited = leaking.audited
        query = {"kind": "auditor_query", "outcome": "done", "detail": {"identifiers": 1}}
        old = await audited.put(**query, at=datetime.now(UTC) - timedelta(minutes=11))
        other = await audited.put(**{**query, "kind": "admin"})
        for event in (uuid.uuid4(), old, other):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await leaking.match_for(event, ("customer", "C-1"))
        for depth in (1, 2):  # in the transaction itself, and in a savepoint of it
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await self._pass_for_uncommitted(audited, query, depth)
        event = await audited.put(**query)
        assert await leaking.match_for(event, ("customer", "C-1")) == [("one", "C-1")]

    async def test_a_pass_is_for_its_number_and_cannot_be_made(self, leaking):
        """More identifiers than the event says, a changed number or MAC, and no pass at all are refused."""
        pool = leaking.audited.pool
        question = await put_on_record(
            pool, EventIds(), Auditor("t"), {"query": "attribute", "identifiers": 1}
        )
        [row] = await leaking.audited.rows("SELECT pass FROM broker.match_pass($1, '{}')", question)
        key, one, two = row["pass"], [("customer", "C-1")], [("customer", "C-1"), ("customer", "C-2")]
        parts = key.split("|")
        forged = "|".join([*parts[:4], "2", *parts[5:]])
        late = "|".join([*parts[:6], "99999999999", parts[7]])
        for text, told in (
            (key, two),
            (forged, two),
            (late, one),
            (key[:-1] + "0" * 2, one),
            ("", one),
            ("|" * 7, one),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await leaking.call(text, told)
        assert await leaking.call(key, one) == [("one", "C-1")]

    async def test_the_day_is_capped_also_for_who_rolls_back(self, leaking):
        """2000 identifiers a day: who rolls back gets nothing of it back."""
        pool = leaking.audited.pool
        told = [("customer", f"C-{i}") for i in range(500)]
        for _ in range(4):
            key = await leaking.key(500)
            async with pool.acquire() as conn:
                transaction = conn.transaction()
                await transaction.start()
                await conn.fetch(
                    "SELECT * FROM broker_guard.match_customers($1, $2, $3)",
                    key, [k for k, _ in told], [t for _, t in told],
                )  # fmt: skip
                await transaction.rollback()
        with pytest.raises(IdentifiersUsedUpError):
            await leaking.ask(("customer", "C-1"))

    @pytest.mark.attack("A21")
    async def test_a21_the_auditor_matches_and_reads_nobody(self, leaking):
        """The function is all: no table, no view, no salt, no key, and no ticket's customer."""
        for name in (
            "crm.customer", "broker_guard.match_contact", "broker_guard.salt", "broker_guard.guard_key",
            "broker_guard.read_customer", "broker_guard.match_quota", "broker.ticket_customer",
            "broker.guard_key",
        ):  # fmt: skip
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await leaking.audited.rows(f"SELECT * FROM {name}")
        for call in ("unseal(NULL, '', '')", "pseudonyms('{C-1}', '{T-1}')", "open_passes()", "status()"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await leaking.audited.rows(f"SELECT broker_guard.{call}")
        assert await leaking.match(("customer", "C-1")) == [("one", "C-1")]

    async def test_nobody_else_may_call(self, leaking):
        """Access, admin, feed and reader have no way to match anybody."""
        for role in ("broker_access", "broker_admin", "broker_feed", "broker_reader"):
            conn = await asyncpg.connect(leaking.audited.database.dsn(role))
            for call in ("broker.match_pass(NULL, '{}')", "broker_guard.match_customers('', '{}', '{}')"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.execute(f"SELECT {call}")
            await conn.close()

    async def test_the_undo_leaves_nothing(self, leaking):
        """Without the guard the auditor's function, its view and its rights are gone."""
        await apply(leaking.admin, await plan_uninstall(leaking.admin, destroy_salts=True))
        rights = (
            "SELECT count(*) FROM information_schema.column_privileges WHERE grantee = 'broker_guard_keeper'"
        )
        assert await leaking.admin.fetchval(rights) == 0
        assert await leaking.admin.fetchval("SELECT to_regnamespace('broker_guard')") is None

    async def test_an_older_installation_gets_what_it_lacks(self, leaking):
        """Where the store is older than the count of identifiers, installing again adds what lacks."""
        await leaking.admin.execute("DELETE FROM broker_guard.install_step WHERE sql ~ 'match'")
        for sql in (
            "FUNCTION broker_guard.match_customers", "FUNCTION broker_guard.unseal",
            "VIEW broker_guard.match_contact", "SEQUENCE broker_guard.match_quota",
        ):  # fmt: skip
            await leaking.admin.execute(f"DROP {sql}")
        await apply(leaking.admin, await plan_install(leaking.admin, catalog()))
        assert await leaking.match(("email", "person1@example.org")) == [("one", "C-1")]


class TestAttributing:
    async def _work(self, leaking, leaker: str | None, victims: range) -> None:
        """Has ten agents serve thirty customers each, and the leaker see the victims, too."""
        audited, p = leaking.audited, leaking.pseudonyms
        at = datetime.now(UTC) - timedelta(days=1)
        await audited.partition(at)
        for i in range(1, 301):
            await audited.put(at=at, agent=f"i|agent-{i % 10}", customer=p[f"C-{i}"], levels=SHOWN)
        for i in victims if leaker else ():
            await audited.put(at=at, agent=leaker, customer=p[f"C-{i}"], levels=SHOWN)

    async def test_the_right_name_with_its_evidence(self, leaking):
        """Complaints of people whom one agent saw name them, with their reads; no event has an identifier."""
        await self._work(leaking, "i|eve", range(1, 21))
        told = [("email", f"person{i}@example.org") for i in range(1, 9)] + [
            ("email", "stranger@example.org")
        ]
        report = await leaking.ask(*told, fields=frozenset({"customer.phone"}))

        first = report.suspects[0]
        assert (report.attribution.verdict, first.names, first.candidate.named) == (
            Verdict.NAMED,
            ("i|eve",),
            True,
        )
        assert [s.names for s in report.suspects if s.candidate.named] == [("i|eve",)]
        assert [e.line for e in first.evidence] == list(range(2, 10))
        assert {e.fields for e in first.evidence} == {("customer.phone",)}
        rows = await leaking.admin.fetch("SELECT agent FROM broker.ledger_event WHERE id = ANY($1)", [
            e.event_id for e in first.evidence
        ])  # fmt: skip
        assert {r["agent"] for r in rows} == {"i|eve"}
        assert [(u.line, u.why) for u in report.unused] == [(10, "matches nobody in the ledger")]
        asked, answered = await leaking.audited.queries()
        assert (asked["identifiers"], asked["kinds"]) == (9, {"email": 9})
        assert answered["matched"] == sorted(leaking.pseudonyms[f"C-{i}"] for i in range(1, 9))
        assert answered["named"] == [["i|eve"]]
        assert "person" not in json.dumps([asked, answered])

    async def test_none_of_us(self, leaking):
        """Complaints spread as customers are name nobody."""
        await self._work(leaking, None, range(0))
        report = await leaking.ask(*(("customer", f"C-{i}") for i in range(1, 260, 23)))
        assert report.attribution.verdict is Verdict.NONE
        assert not any(s.candidate.named for s in report.suspects)

    async def test_later_and_narrowed_and_masked_reads_are_none(self, leaking):
        """A read after the contact, one that came to nothing and a masked one explain nothing."""
        audited, p = leaking.audited, leaking.pseudonyms
        await audited.put(at=NOW + timedelta(seconds=30), agent="i|late", customer=p["C-1"], levels=SHOWN)
        masked = dict.fromkeys(SHOWN, "masked")
        await audited.put(at=NOW - timedelta(seconds=30), agent="i|masked", customer=p["C-1"], levels=masked)
        grant = uuid.uuid4()
        at = NOW - timedelta(seconds=20)
        read = await audited.put(at=at, agent="i|empty", customer=p["C-1"], levels=SHOWN, grant=grant)
        await audited.put(
            kind="outcome",
            outcome="done",
            agent="i|empty",
            grant=grant,
            detail={"read": str(read), "came_to": "empty"},
        )
        report = await leaking.ask(("customer", "C-1"), fields=frozenset({"customer.email"}))
        assert report.suspects == ()
        assert report.attribution.uncovered == (2,)

    async def test_a_row_that_its_event_does_not_bear_out_is_no_evidence(self, leaking):
        """Who changes the index to blame somebody is told apart by the ledger's bytes."""
        await self._work(leaking, None, range(0))
        await leaking.audited.catch_up()
        await leaking.admin.execute(
            "UPDATE broker.disclosure SET agent_id = (SELECT name_id FROM broker.disclosure_name"
            " WHERE name = 'i|agent-3') WHERE customer = $1", leaking.pseudonyms["C-1"],
        )  # fmt: skip
        report = await leaking.ask(("customer", "C-1"))
        assert len(report.tampered) == 1
        assert all(e.event_id not in report.tampered for s in report.suspects for e in s.evidence)

    @pytest.mark.parametrize("planted", sorted(PLANTED))
    async def test_nobody_is_named_on_planted_rows(self, leaking, planted):
        """Whoever writes the index blames nobody: rows are held against their events before the ranking."""
        audited, p = leaking.audited, leaking.pseudonyms
        await self._work(leaking, "i|eve", range(101, 121))
        await audited.put(agent="i|quiet", customer=p["C-1"], facts={"ticket_kind": "quiet"})
        await audited.put(agent="i|broken", customer=p["C-200"], detail={})
        hour = timedelta(hours=1)  # beyond what the walk looks at again, which would heal some of it
        nothing = {"kind": "outcome", "outcome": "done", "at": NOW - hour}
        for i in range(1, 9):
            await audited.put(
                agent="i|late", at=NOW + timedelta(seconds=30), customer=p[f"C-{i}"], levels=SHOWN
            )
            told = {"agent": "i|none", "grant": uuid.uuid4()}
            read = await audited.put(**told, at=NOW - 2 * hour, customer=p[f"C-{i}"], levels=SHOWN)
            await audited.put(**told, **nothing, detail={"read": str(read), "came_to": "empty"})
        if planted == "an agent gets another name":
            for i in range(1, 9):
                await audited.put(agent="i|mal", at=NOW - hour, customer=p[f"C-{i}"], levels=SHOWN)
        await audited.catch_up()
        eve = await leaking.admin.fetchval("SELECT name_id FROM broker.disclosure_name WHERE name = 'i|eve'")
        complainants = [p[f"C-{i}"] for i in range(1, 9)]
        await leaking.admin.execute(PLANTED[planted].format(eve=eve), complainants)

        report = await leaking.ask(*(("customer", f"C-{i}") for i in range(1, 9)))

        assert report.attribution.verdict is not Verdict.NAMED
        assert not any(
            s.candidate.named or {"i|eve", "i|framed", "i|none"} & {*s.names} for s in report.suspects
        )
        assert len(report.tampered) >= 8
        assert not {e.event_id for s in report.suspects for e in s.evidence} & set(report.tampered)


class TestCommand:
    """`broker audit attribute`, as it is typed."""

    @pytest.fixture
    def settings(self, leaking, monkeypatch):
        """Points the command at the database."""
        monkeypatch.setenv("BROKER_AUDITOR_DSN", leaking.audited.database.dsn("broker_auditor"))

    async def test_prints_names_evidence_and_what_was_not_used(self, leaking, settings, tmp_path, capsys):
        """The table and the JSON say the same; no identifier is in either, nor on standard error."""
        await TestAttributing()._work(leaking, "i|eve", range(1, 21))
        file = tmp_path / "complaints.csv"
        day = (NOW + timedelta(hours=-1)).isoformat()
        lines = [f"email,person{i}@example.org,{day},customer.phone" for i in range(1, 9)]
        file.write_text("\n".join(["kind,identifier,contact_time,fields", *lines, f"fax,1,{day},"]) + "\n")

        assert await asyncio.to_thread(run, ["audit", "attribute", str(file), "--json"]) == 0
        as_json = capsys.readouterr()
        found = json.loads(as_json.out)
        assert found["verdict"] == "named"
        assert found["candidates"][0]["names"] == ["i|eve"]
        assert found["candidates"][0]["complaints"] == list(range(2, 10))
        assert found["not_used"] == [{"line": 10, "why": "kind is none of email, phone, customer, ticket"}]

        assert await asyncio.to_thread(run, ["audit", "attribute", str(file)]) == 0
        as_table = capsys.readouterr()
        assert "8 of 8" in as_table.out
        assert "Reads of i|eve:" in as_table.out
        assert "evidence, not a verdict" in as_table.out
        assert "broker audit verify" in as_table.out
        assert found["candidates"][0]["evidence"][0]["event_id"] in as_table.out
        assert "person" not in as_json.out + as_json.err + as_table.out + as_table.err

    @pytest.mark.parametrize("content", ["", "who,when\n"])
    async def test_a_file_that_is_none_is_wrong_usage(self, leaking, settings, tmp_path, capsys, content):
        """Exit code 2 with what the first line should be; nothing was matched, and nothing is on record."""
        file = tmp_path / "complaints.csv"
        file.write_text(content)
        assert await asyncio.to_thread(run, ["audit", "attribute", str(file)]) == 2
        assert "kind,identifier,contact_time,fields" in capsys.readouterr().err
        assert await leaking.audited.queries() == []

    async def test_unexplained_with_nothing_to_tell(self, leaking, settings, capsys):
        """Without a judged day the command says so and is on record all the same."""
        assert await asyncio.to_thread(run, ["audit", "unexplained"]) == 0
        assert "nothing to show" in capsys.readouterr().err
        assert await asyncio.to_thread(run, ["audit", "unexplained", "--since", "yesterday"]) == 2
        assert [q["query"] for q in await leaking.audited.queries()] == ["unexplained"]
