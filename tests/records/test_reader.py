from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest

from broker.errors import RecordsUnavailableError
from broker.records.reader import BATCH
from tests.records import crm


async def test_reads_the_customer_of_the_pass_with_children(guarded: crm.Guarded):
    """A pass opens its customer's mapped columns, children and grandchildren, newest first."""
    found = await guarded.read("7")

    assert [dict(r.values) for r in found.rows["customer"]] == [
        {"customer.name": "Name 7", "customer.email": "c7@example.org", "customer.birth_date": "1980-01-08"}
    ]
    assert [r.values["invoice.total"] for r in found.rows["invoice"]] == ["7.03", "7.02", "7.01"]
    assert found.truncated == {"invoice"}
    assert {r.values["invoice_line.description"] for r in found.rows["invoice_line"]} == {
        f"line {n} of 7" for n in range(3)
    }
    assert len(found.rows["invoice_line"]) == 12


async def test_reads_only_the_kinds_asked_for(guarded: crm.Guarded):
    """Fewer fields than the pass names are read alone; a kind that nobody asks for is not read."""
    grant, text = await guarded.grant("7")
    found = await guarded.reader.read(grant_id=grant, guard_pass=text, fields=["customer.email"])

    assert {k: [dict(r.values) for r in rows] for k, rows in found.rows.items()} == {
        "customer": [{"customer.email": "c7@example.org"}]
    }


async def test_a_customer_who_is_not_there(guarded: crm.Guarded):
    """A valid pass for a customer that does not exist reads as no row, not as an error."""
    found = await guarded.read("9999")

    assert {kind: list(rows) for kind, rows in found.rows.items()} == {
        "customer": [], "invoice": [], "invoice_line": []
    }  # fmt: skip


async def test_many_reads_share_a_statement(guarded: crm.Guarded):
    """Concurrent reads of different customers and fields each get their own rows, in few statements."""
    grants = [(i, *await guarded.grant(str(i))) for i in range(1, 151)]
    fields = {0: crm.ALL, 1: ("customer.email",), 2: ("invoice.total", "customer.name")}
    flushes: list[int] = []
    plain = guarded.reader._reads._flush

    async def counting(asks):
        flushes.append(len(asks))
        return await plain(asks)

    guarded.reader._reads._flush = counting
    found = await asyncio.gather(
        *(guarded.reader.read(grant_id=g, guard_pass=p, fields=fields[i % 3]) for i, g, p in grants)
    )

    assert flushes[0] <= BATCH
    assert len(flushes) <= 4
    for (i, _, _), slice_ in zip(grants, found, strict=True):
        values = {k: v for rows in slice_.rows.values() for row in rows for k, v in row.values.items()}
        assert values.keys() == set(fields[i % 3])
        assert values.get("customer.name", f"Name {i}") == f"Name {i}"
        assert values.get("customer.email", f"c{i}@example.org") == f"c{i}@example.org"
        assert all(r.values["invoice.total"].split(".")[0] == str(i) for r in slice_.rows.get("invoice", ()))


async def test_one_grant_many_times(guarded: crm.Guarded):
    """One hot grant, read many times at once, answers each alike."""
    grant, text = await guarded.grant("7")
    found = await asyncio.gather(
        *(guarded.reader.read(grant_id=grant, guard_pass=text, fields=["customer.name"]) for _ in range(100))
    )

    assert {r.values["customer.name"] for f in found for r in f.rows["customer"]} == {"Name 7"}
    assert all(len(f.rows["customer"]) == 1 for f in found)


async def test_a_forged_pass_gets_nothing_of_the_true_one(guarded: crm.Guarded):
    """Two passes of one grant in one batch, one forged: the forged one gets no row, the true one its own."""
    grant, good = await guarded.grant("7")
    bad = good[:-1] + ("0" if good[-1] != "0" else "1")
    found = await asyncio.gather(
        *(
            guarded.reader.read(grant_id=grant, guard_pass=p, fields=["customer.name"])
            for p in (bad, good, bad, good)
        )
    )

    assert [len(f.rows["customer"]) for f in found] == [0, 1, 0, 1]


async def test_a_bad_read_does_not_fail_its_neighbours(guarded: crm.Guarded):
    """Where one read makes the statement fail, the batch is read one by one and only that one fails."""
    await guarded.admin.execute(
        "CREATE FUNCTION crm.boom(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN "
        "IF $1 = 13 THEN RAISE EXCEPTION 'secret %', $1; END IF; RETURN $1; END $$;"
        "ALTER POLICY broker_guard_passes ON crm.customer USING (crm.boom(customer_id) > 0)"
    )
    grants = [await guarded.grant(str(i)) for i in (12, 13, 14)]
    found = await asyncio.gather(
        *(guarded.reader.read(grant_id=g, guard_pass=p, fields=["customer.name"]) for g, p in grants),
        return_exceptions=True,
    )

    assert [f.rows["customer"][0].values["customer.name"] for f in (found[0], found[2])] == [
        "Name 12",
        "Name 14",
    ]
    assert isinstance(found[1], RecordsUnavailableError)
    assert "secret" not in str(found[1])


@pytest.mark.attack("S10")
async def test_a_customer_with_very_many_rows(guarded: crm.Guarded):
    """A hundred thousand rows of one customer cost one capped read, flagged as cut, and no neighbour."""
    await guarded.admin.execute(
        "INSERT INTO crm.invoice SELECT 1000000 + n, 7, 1 FROM generate_series(1, 100000) AS n;"
        "ANALYZE crm.invoice"
    )
    grants = [await guarded.grant(c) for c in ("7", "8")]
    seven, eight = await asyncio.gather(
        *(guarded.reader.read(grant_id=g, guard_pass=p, fields=crm.ALL) for g, p in grants)
    )
    plan = await guarded.admin.fetch(
        "EXPLAIN (ANALYZE, TIMING OFF) SELECT v.* "
        "FROM (SELECT set_config('broker.pass', $1, true) AS t OFFSET 0) s "
        "CROSS JOIN LATERAL (SELECT * FROM broker_guard.read_invoice WHERE s.t <> '' OFFSET 0) v",
        grants[0][1],
    )

    assert len(seven.rows["invoice"]) == 3
    assert seven.truncated == {"invoice"}
    assert len(eight.rows["invoice_line"]) == 12
    assert eight.truncated == {"invoice"}
    assert "rows=1000" in "".join(r[0] for r in plan)  # what the scan stopped at
    assert "rows=100004" not in "".join(r[0] for r in plan)


@pytest.mark.attack("S11")
async def test_a_locked_table_is_an_outage_with_an_end(crm_database):
    """While an administrator holds the table, reads are refused in bounded time; then they work again."""
    guarded = await crm.guard(crm_database, crm_database, crm.catalog(), statement_timeout=0.3)
    grant, text = await guarded.grant("7")

    async def read():
        return await guarded.reader.read(grant_id=grant, guard_pass=text, fields=["customer.name"])

    async with guarded.admin.transaction():
        await guarded.admin.execute("LOCK TABLE crm.customer IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(5):
            found = await asyncio.gather(*(read() for _ in range(20)), return_exceptions=True)
    assert {type(f) for f in found} == {RecordsUnavailableError}

    assert (await read()).rows["customer"]
    assert guarded.pool.get_idle_size() == guarded.pool.get_size()
    await crm.close(guarded)


async def test_a_killed_connection_is_replaced(guarded: crm.Guarded):
    """A read whose backend is killed is refused, the next one works."""
    assert (await guarded.read("7")).rows["customer"]
    await guarded.admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'broker_reader'"
    )
    results = [await _try(guarded) for _ in range(4)]

    assert results[-1] is True


async def _try(guarded: crm.Guarded) -> bool:
    try:
        return bool((await guarded.read("7")).rows["customer"])
    except RecordsUnavailableError:
        return False


async def test_an_uninstalled_guard_reads_nothing(guarded: crm.Guarded):
    """Without the guard's views there is no other way to the records: the read is refused."""
    await guarded.admin.execute("DROP VIEW broker_guard.read_customer")
    with pytest.raises(RecordsUnavailableError):
        await guarded.read("7", ["customer.name"])

    assert (await guarded.read("7", ["invoice.total"])).rows["invoice"]


async def test_a_catalog_is_swapped_whole(guarded: crm.Guarded):
    """After `use`, what the new catalog lacks is not read, and what is not installed is refused."""
    guarded.reader.use(crm.catalog(crm.kind("customer", ["name"], key="customer_id")))
    found = await guarded.read("7", ["customer.name", "customer.email"])
    assert dict(found.rows["customer"][0].values) == {"customer.name": "Name 7"}
    guarded.reader.use(crm.catalog(crm.kind("customer", ["secret"], key="customer_id")))
    with pytest.raises(RecordsUnavailableError):
        await guarded.read("7", ["customer.secret"])


async def test_a_full_backlog_refuses_at_once(guarded: crm.Guarded):
    """Beyond the backlog a read is refused, not queued."""
    guarded.reader._reads._backlog = 0
    with pytest.raises(RecordsUnavailableError):
        await guarded.read("7")
    guarded.reader._reads._backlog = 1

    assert (await guarded.read("7")).rows["customer"]


async def test_pseudonyms_are_one_customers_own(guarded: crm.Guarded):
    """A customer's pseudonym is steady, tickets' differ by customer, and nobody's tickets have their salt."""
    pairs = [("7", "T-1"), ("7", "T-2"), ("8", "T-1"), ("", "T-1"), ("7", "T-1")]
    found = await asyncio.gather(*(guarded.reader.pseudonyms(c, t) for c, t in pairs))

    assert found[0] == found[4]
    assert found[0][0] == found[1][0]
    assert len({f[0] for f in found}) == 3
    assert len({f[1] for f in found}) == 4
    assert all(len(p) == 32 and int(p, 16) for f in found for p in f)
    assert await guarded.admin.fetchval("SELECT count(*) FROM broker_guard.salt") == 3


async def test_pseudonyms_made_at_once_agree(guarded: crm.Guarded):
    """Many callers who meet on new customers in any order get one salt each, without a dead-lock."""
    conns = [await asyncpg.connect(guarded.records.dsn("broker_reader")) for _ in range(4)]
    customers = [str(i) for i in range(40)]
    sql = "SELECT customer_pseudonym FROM broker_guard.pseudonyms($1, $1)"
    orders = [customers, customers[::-1], customers[20:] + customers[:20], customers]
    found = await asyncio.gather(*(c.fetch(sql, order) for c, order in zip(conns, orders, strict=True)))
    by_customer = [
        dict(zip(order, (r[0] for r in rows), strict=True)) for order, rows in zip(orders, found, strict=True)
    ]

    assert by_customer[0] == by_customer[1] == by_customer[2] == by_customer[3]
    for conn in conns:
        await conn.close()


async def test_a_destroyed_salt_makes_a_stranger(guarded: crm.Guarded):
    """Once the salt is gone, the same customer gets a pseudonym that nothing links to the old one."""
    old = await guarded.reader.pseudonyms("7", "T-1")
    await guarded.admin.execute("DELETE FROM broker_guard.salt WHERE customer = '7'")

    assert set(await guarded.reader.pseudonyms("7", "T-1")).isdisjoint(old)


async def test_a_salt_destroyed_meanwhile_shifts_nobody(guarded: crm.Guarded):
    """Whose salt goes while their pseudonym is looked up is refused; everybody else gets their own."""
    own = {c: await guarded.reader.pseudonyms(c, "T-1") for c in ("7", "9")}
    other = await asyncpg.connect(guarded.records.dsn())
    try:
        async with other.transaction():
            await other.execute("INSERT INTO broker_guard.salt VALUES ('8', sha256('8'))")
            asked = [asyncio.ensure_future(guarded.reader.pseudonyms(c, "T-1")) for c in ("7", "8", "9")]
            while not await guarded.admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not asked[0].done()
            await guarded.admin.execute("DELETE FROM broker_guard.salt WHERE customer = '7'")
        async with asyncio.timeout(5):
            first, second, third = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        await other.close()

    assert isinstance(first, RecordsUnavailableError)
    assert (second, third) == (await guarded.reader.pseudonyms("8", "T-1"), own["9"])
    assert await guarded.admin.fetchval("SELECT count(*) FROM broker_guard.salt WHERE customer = '7'") == 0


async def test_fewer_pseudonyms_than_asked_for_are_nobodys(guarded: crm.Guarded):
    """A guard of an earlier release left out whom it lost: nobody can tell whose the others are."""
    body = await guarded.admin.fetchval(
        "SELECT pg_get_functiondef('broker_guard.pseudonyms(text[], text[])'::regprocedure)"
    )
    await guarded.admin.execute(body.replace("ORDER BY pair.number", "WHERE pair.customer <> '7'"))
    asked = (guarded.reader.pseudonyms(c, "T-1") for c in ("7", "8"))
    async with asyncio.timeout(5):
        found = await asyncio.gather(*asked, return_exceptions=True)

    assert [isinstance(f, RecordsUnavailableError) for f in found] == [True, True]


async def test_a_flush_that_answers_too_few_leaves_nobody_waiting(guarded: crm.Guarded):
    """Whatever a flush gives, everybody in it hears of it."""

    async def too_few(pairs):
        return [("c", "t") for _ in pairs[1:]]

    guarded.reader._names._flush = too_few
    async with asyncio.timeout(5):
        asked = (guarded.reader.pseudonyms(c, "T-1") for c in ("7", "8"))
        found = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(f) for f in found] == [ValueError, ValueError]


async def test_pseudonyms_of_what_cannot_be_stored(guarded: crm.Guarded):
    """A NUL or a lone surrogate is refused for its own call alone."""
    pairs = [("7", "T-1"), ("7\0", "T-1"), ("7", "\ud800"), ("8", "T-1")]
    found = await asyncio.gather(*(guarded.reader.pseudonyms(c, t) for c, t in pairs), return_exceptions=True)

    assert [isinstance(f, RecordsUnavailableError) for f in found] == [False, True, True, False]


async def test_a_strangers_grant_id(guarded: crm.Guarded):
    """A pass comes with its own grant's id or is refused, so rows cannot be handed to another grant."""
    _, text = await guarded.grant("7")
    other: UUID = uuid4()
    with pytest.raises(RecordsUnavailableError):
        await guarded.reader.read(grant_id=other, guard_pass=text, fields=["customer.name"])
