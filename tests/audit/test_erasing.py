"""Erasing a person: nothing leads from them to the ledger any more, and what was proved still is."""

from __future__ import annotations

import asyncio
import subprocess

import asyncpg
import pytest

from broker.audit import erasing
from broker.audit.erasing import erase
from broker.audit.exposed import Totals
from broker.audit.exposure import Selection, exposed
from broker.audit.naming import pseudonym_of, resolve
from broker.audit.pack import build_pack
from broker.audit.packed import verify_pack
from tests.audit.privacy import ANNA, BEN, BY, CUSTOMER, desk_of
from tests.audit.test_pack import AT
from tests.tlog.conftest import opened, verified


@pytest.fixture
async def desk(audited):
    """Gives a helpdesk with tickets about the customer, past and present, grants and reads."""
    async with desk_of(audited) as desk:
        await desk.open("T-1", ANNA)
        await desk.open("T-2", BEN, customers=(CUSTOMER, "K-2"))
        await desk.tell(
            "T-2", 2, kind="general", opened_by="customer", opened_by_agent=None, customers=["K-2"]
        )
        await desk.open("T-3", BEN, customers=("K-2",))
        yield desk


def dump(desk) -> str:
    """Dumps the database as a backup would be, but for the tables that are not the broker's."""
    database = desk.audited.database
    command = [str(database.server._bin / "pg_dump"), "--exclude-schema=crm", "--dbname", database.dsn()]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def traces_of(customer: str, text: str) -> list[str]:
    """Finds the key in a dump: as it is, in hex as passes have it."""
    words = (customer, customer.encode().hex())
    return [line[:200] for line in text.splitlines() if any(word in line for word in words)]


async def customers(desk, **selection):
    """Counts a report."""
    totals = Totals()
    async for _ in exposed(desk.audited.pool, Selection(**selection), totals):
        pass
    return totals.customers, totals.reads


async def erase_them(desk, customer=CUSTOMER):
    """Erases as an operator does."""
    return await erase(desk.pools, desk.ids, BY, customer, "asked for it on paper")


@pytest.mark.attack("A19")
async def test_leaves_nothing_that_leads_to_them(desk):
    """A dump of the broker's tables and of the guard's holds no trace of the key; control: it did before."""
    pseudonym = await desk.pseudonym()
    await desk.grant(ANNA, "T-1")
    await desk.grant(BEN, "T-2", customer="K-2")
    await desk.audited.put(agent=ANNA, customer=pseudonym)
    await desk.audited.catch_up()
    assert len(traces_of(CUSTOMER, dump(desk))) > 3

    erased = await erase_them(desk)

    assert traces_of(CUSTOMER, dump(desk)) == []
    assert (erased.pseudonym, erased.live_grants, erased.grants, erased.tickets, erased.salt) == (
        pseudonym, 1, 1, 2, True,
    )  # fmt: skip
    assert len(traces_of("K-2", dump(desk))) > 3


async def test_every_proof_and_count_goes_on_holding(desk, tmp_path):
    """The log verifies before and after, an old pack too, and a new one tells the same of the pseudonym."""
    async with opened(desk.audited.database, tmp_path) as log:
        pseudonym = await desk.pseudonym()
        for _ in range(3):
            await desk.audited.put(agent=ANNA, customer=pseudonym)
        await log.integrate()
        packs = []

        async def pack():
            packs.append(tmp_path / f"{len(packs)}.zip")
            await build_pack(
                desk.audited.pool, Selection(agent=ANNA), packs[-1], keys=log.keys, storage=log.storage,
                now=AT,
            )  # fmt: skip

        await pack()
        before = await customers(desk, agent=ANNA), await customers(desk, customer=pseudonym)
        assert (await verified(log)).holds

        await erase_them(desk)

        await log.integrate()
        assert (await verified(log)).holds
        await pack()
        reports = [verify_pack(each, log.keys.load().keys[:1]).report for each in packs]
        assert reports[0]["totals"] == reports[1]["totals"]
        assert (await customers(desk, agent=ANNA), await customers(desk, customer=pseudonym)) == before


async def test_is_on_record_by_pseudonym_with_who_and_why(desk):
    """Begun and done, never with the key."""
    pseudonym = await desk.pseudonym()
    await desk.grant(ANNA, "T-1")
    await erase_them(desk)
    begun, done = await desk.admin_events("EraseCustomer")
    assert [begun["detail"]["state"], done["detail"]["state"]] == ["begun", "done"]
    assert {begun["customer"], done["customer"]} == {pseudonym}
    assert (begun["tool"], begun["detail"]["why"]) == (BY.identity, "asked for it on paper")
    assert (begun["detail"]["revoked"], done["detail"]["salt"]) == (1, True)


async def test_cannot_be_reached_or_resolved_afterwards(desk):
    """No grant stands, the pseudonym has no customer, and another one comes with the next ticket."""
    old = await desk.pseudonym()
    other = await desk.pseudonym("K-2")
    grant = await desk.grant(ANNA, "T-1")
    status = "SELECT count(*) FROM broker.grant_status($1, $2)"
    assert (await resolve(desk.admin, desk.audited.pool, desk.ids, BY, [old, other], "drill"))[1] == {
        old: CUSTOMER,
        other: "K-2",
    }
    await erase_them(desk)
    assert await desk.audited.conn.fetchval(status, grant, ANNA) == 0
    _, found = await resolve(desk.admin, desk.audited.pool, desk.ids, BY, [old, other], "drill")
    assert found == {other: "K-2"}
    found = await pseudonym_of(desk.audited.pool, desk.audited.pool, desk.ids, BY, "t", CUSTOMER)
    assert found.pseudonym is None
    assert await desk.pseudonym() not in {old, other}


async def test_decisions_that_were_taken_before_are_stale(desk):
    """Whatever was decided on the ticket is decided again, on facts without the customer."""
    facts = "SELECT facts_version FROM broker.ticket WHERE ticket_id = 'T-1'"
    before = await desk.audited.conn.fetchval(facts)
    await erase_them(desk)
    assert await desk.audited.conn.fetchval(facts) > before


async def test_an_event_that_is_sent_again_brings_nobody_back(desk):
    """The helpdesk repeats what it said before: superseded, where it would have been a duplicate."""
    event = await desk.open("T-9", ANNA)
    assert await desk.send(event) == "duplicate"
    await desk.tell("T-9", 2, status="pending")
    await erase_them(desk)
    assert await desk.send(event) == "superseded"
    assert traces_of(CUSTOMER, dump(desk)) == []


async def test_again_finds_it_done(desk):
    """A second time destroys nothing and says so on record."""
    await desk.pseudonym()
    await erase_them(desk)
    again = await erase_them(desk)
    assert (again.pseudonym, again.grants, again.tickets, again.salt) == ("", 0, 0, False)
    assert len(await desk.admin_events("EraseCustomer")) == 4


async def test_whoever_died_between_goes_on(desk, monkeypatch):
    """Dead before the salt was destroyed: nobody reaches the customer, and running it again ends it."""
    pseudonym = await desk.pseudonym()
    grant = await desk.grant(ANNA, "T-1")

    class DeadError(Exception):
        pass

    def die(*_args):
        raise DeadError

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "connection", die)
        with pytest.raises(DeadError):
            await erase_them(desk)
    status = "SELECT count(*) FROM broker.grant_status($1, $2)"
    assert await desk.audited.conn.fetchval(status, grant, ANNA) == 0
    assert [e["detail"]["state"] for e in await desk.admin_events("EraseCustomer")] == ["begun"]

    erased = await erase_them(desk)
    assert (erased.pseudonym, erased.salt) == (pseudonym, True)
    assert traces_of(CUSTOMER, dump(desk)) == []


async def test_no_table_of_grants_is_read_whole(desk):
    """The feed waits meanwhile: grants are found by their customer."""
    scans = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'access_grant'"
    await desk.grant(ANNA, "T-1")
    async with desk.audited.conn.transaction():
        before = await desk.audited.conn.fetchval(scans)
        gone = await desk.audited.conn.fetchrow("SELECT * FROM broker.erase_customer($1)", CUSTOMER)
        assert tuple(gone) == (1, 1, 2)
        assert await desk.audited.conn.fetchval(scans) == before


async def test_grants_go_before_the_feed_waits(desk):
    """While the feed writes, the grants are deleted already; only the links wait for their turn."""
    await desk.grant(ANNA, "T-1")
    async with desk.audited.conn.transaction():
        await desk.audited.conn.execute("SELECT broker.take_turn('helpdesk')")
        task = asyncio.create_task(erase_them(desk))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
        while not await desk.audited.conn.fetchval(waits):
            pass
        gone = "SELECT count(*) FROM broker.access_grant AS g WHERE g.customer_id = $1 AND g.xmax <> 0"
        assert await desk.audited.conn.fetchval(gone, CUSTOMER) == 1
    assert (await task).live_grants == 1


async def test_whoever_died_behind_the_salt_runs_it_again(desk, monkeypatch):
    """The person is erased; the second run ends it, and cannot name the pseudonym that is nobody's by now."""
    pseudonym = await desk.pseudonym()
    real = erasing._unlink

    async def unlink(*args, **more):
        if "done" in args:
            raise ConnectionError
        return await real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "_unlink", unlink)
        with pytest.raises(ConnectionError):
            await erase_them(desk)
    erased = await erase_them(desk)

    assert (erased.pseudonym, erased.salt) == ("", False)
    assert [(e["customer"], e["detail"]["state"]) for e in await desk.admin_events("EraseCustomer")] == [
        (pseudonym, "begun"), ("", "begun"), ("", "done"),
    ]  # fmt: skip
    assert traces_of(CUSTOMER, dump(desk)) == []


@pytest.mark.attack("A21")
async def test_an_auditor_can_neither_resolve_nor_erase(desk):
    """Passes are for broker_admin alone, for a committed event of that call, that number, that person."""
    pseudonym = await desk.pseudonym()
    other = await desk.pseudonym("K-2")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await desk.audited.rows("SELECT broker.admin_pass(gen_random_uuid(), 'ResolvePseudonyms')")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await desk.audited.rows("SELECT broker.erase_customer($1)", CUSTOMER)
    for told in ("", "a|b|c|1|2|d", "ResolvePseudonyms|||1||", "ResolvePseudonyms|||1|2|3|4"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await desk.audited.rows(
                "SELECT * FROM broker_guard.resolve_pseudonyms($1, $2)", told, [pseudonym]
            )
    # A pass for one thing opens no other.
    await resolve(desk.admin, desk.audited.pool, desk.ids, BY, [other], "drill")
    [event] = await desk.audited.conn.fetch(
        "SELECT id FROM broker.ledger_event WHERE kind = 'admin' ORDER BY id DESC LIMIT 1"
    )
    async with desk.admin.acquire() as conn:
        told = await conn.fetchval("SELECT broker.admin_pass($1, 'ResolvePseudonyms')", event["id"])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.fetchval("SELECT broker.admin_pass($1, 'EraseCustomer')", event["id"])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.fetchval("SELECT broker.admin_pass(gen_random_uuid(), 'ResolvePseudonyms')")
    for others in ([pseudonym, other], [pseudonym], [], [None]):  # another number, or others
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await desk.audited.rows("SELECT * FROM broker_guard.resolve_pseudonyms($1, $2)", told, others)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await desk.audited.rows("SELECT broker_guard.erase_salt($1, $2)", told, CUSTOMER)
    assert await desk.audited.rows("SELECT * FROM broker_guard.resolve_pseudonyms($1, $2)", told, [other])


async def test_an_event_that_does_not_say_for_whom_gives_no_pass(desk):
    """A number alone would serve any list of that length."""
    detail = {"call": "ResolvePseudonyms", "why": "drill", "pseudonyms": 1}
    for more, given in (({}, False), ({"digest": "0" * 64}, True)):
        event = await desk.audited.put(kind="admin", outcome="done", detail={**detail, **more})
        async with desk.admin.acquire() as conn:
            ask = conn.fetchval("SELECT broker.admin_pass($1, 'ResolvePseudonyms')", event)
            if given:
                assert await ask
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await ask


async def test_a_pass_erases_the_person_of_its_event_alone(desk, monkeypatch):
    """Whoever holds the pass for one customer cannot destroy another's salt."""
    await desk.pseudonym()
    await desk.pseudonym("K-2")
    seen = {}
    real = erasing._unlink

    async def unlink(admin, ids, by, customer, pseudonym, reason, state, **more):
        event, gone = await real(admin, ids, by, customer, pseudonym, reason, state, **more)
        if state == "begun":
            async with admin.acquire() as conn:
                told = await conn.fetchval("SELECT broker.admin_pass($1, 'EraseCustomer')", event)
            [row] = await desk.audited.rows("SELECT broker_guard.erase_salt($1, 'K-2') AS gone", told)
            seen["other"] = row["gone"]
        return event, gone

    monkeypatch.setattr(erasing, "_unlink", unlink)
    erased = await erase_them(desk)
    assert (seen["other"], erased.salt) == (False, True)
