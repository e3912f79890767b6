from __future__ import annotations

import re
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from broker.errors import RecordsUnavailableError, StartupError
from broker.records import apply, plan_install
from tests.records import crm

MANY = (  # enough for the planner to think an index worth its while
    "INSERT INTO crm.customer (customer_id, name) SELECT i, 'x' FROM generate_series(201, 5000) AS i;"
    "ANALYZE crm.customer, crm.invoice"
)

KINDS = ("customer", "invoice", "invoice_line")


@pytest.fixture
async def reader(guarded: crm.Guarded) -> AsyncIterator[asyncpg.Connection]:
    """Logs in as the reader, past the broker: what somebody with its password can do."""
    conn = await asyncpg.connect(guarded.records.dsn("broker_reader"))
    yield conn
    await conn.close()


async def told(conn: asyncpg.Connection, passes: str, sql: str) -> list[asyncpg.Record]:
    """Runs a statement in a transaction in which passes have been told."""
    async with conn.transaction():
        await conn.execute("SELECT set_config('broker.pass', $1, true)", passes)
        return await conn.fetch(sql)


async def count(conn: asyncpg.Connection, passes: str, kind: str = "customer") -> int:
    """Counts the rows that passes open."""
    return len(await told(conn, passes, f"SELECT * FROM broker_guard.read_{kind}"))


@pytest.mark.attack("S2")
async def test_without_a_pass_there_is_no_row(guarded: crm.Guarded, reader: asyncpg.Connection):
    """The reader's role sees no row of any kind without a pass, with an empty one or with nonsense."""
    for kind in KINDS:
        assert await reader.fetch(f"SELECT * FROM broker_guard.read_{kind}") == []
        for passes in ("", " ", "|", "|||||", "x" * 300_000):
            assert await count(reader, passes, kind) == 0

    _, good = await guarded.grant("7")
    assert [await count(reader, good, kind) for kind in KINDS] == [1, 4, 12]


@pytest.mark.attack("S2")
async def test_nothing_is_carried_over(guarded: crm.Guarded):
    """The next statement on a read's own connection sees no pass and no row, with the pool's reset off."""
    first, _ = await guarded.grant("7")
    async with guarded.pool.acquire() as conn:
        backend = await conn.fetchval("SELECT pg_backend_pid()")
    assert len((await guarded.read("7")).rows["customer"]) == 1
    async with guarded.pool.acquire() as conn:
        assert await conn.fetchval("SELECT pg_backend_pid()") == backend
        assert await conn.fetchval("SELECT current_setting('broker.pass', true)") in {None, ""}
        assert await conn.fetch("SELECT * FROM broker_guard.read_customer") == []
        statement = guarded.reader._shelf.statements["customer"]
        assert await conn.fetch(statement, "") == []
        _, good = await guarded.grant("7", grant_id=first)
        assert len(await conn.fetch(statement, good)) == 1
        assert await conn.fetch(statement, "") == []


def tampered(good: str) -> dict[str, str]:
    """Gives the pass with each part changed, one at a time."""
    part = good.split("|")

    def having(place: int, value: str) -> str:
        return "|".join([*part[:place], value, *part[place + 1 :]])

    return {
        "key id": having(0, "0" * 16),
        "grant": having(1, str(uuid4())),
        "customer": having(2, b"8".hex()),
        "customer's spelling": having(2, part[2].upper() + "0"),
        "one more field": having(3, part[3] + ",customer.birth_date"),
        "longer life": having(4, str(int(part[4]) + 1)),
        "first digit of the MAC": having(5, ("0" if part[5][0] != "0" else "1") + part[5][1:]),
        "last digit of the MAC": having(5, part[5][:-1] + ("0" if part[5][-1] != "0" else "1")),
        "MAC in capitals": having(5, part[5].upper() if part[5].upper() != part[5] else part[5] + "A"),
        "no MAC": having(5, ""),
        "short MAC": having(5, part[5][:32]),
        "a bar for another sign": good[:-65] + "x" + good[-64:],
        "a part too many": good + "|",
        "another customer's MAC": having(5, "f" * 64),
        "SQL": having(2, "') OR true --"),
        "a quote in the grant": having(1, "' OR '1'='1"),
    }


@pytest.mark.attack("S4")
async def test_a_changed_pass_opens_nothing(guarded: crm.Guarded, reader: asyncpg.Connection):
    """A pass changed in any part opens nothing, raises nothing, and does not spoil the good one beside it."""
    _, good = await guarded.grant("7", ["customer.name"])
    for what, bad in tampered(good).items():
        assert await count(reader, bad) == 0, what
        rows = await told(reader, f"{bad} {good}", "SELECT name, birth_date FROM broker_guard.read_customer")
        assert [(r["name"], r["birth_date"]) for r in rows] == [("Name 7", None)], what


async def test_an_ended_pass_opens_nothing(guarded: crm.Guarded, reader: asyncpg.Connection):
    """A pass opens nothing once its end is more than the clocks' five seconds ago."""
    _, ended = await guarded.grant("7", lives=-6.0)
    _, just = await guarded.grant("7", lives=-2.0)

    assert await count(reader, ended) == 0
    assert await count(reader, just) == 1


async def test_a_pass_opens_one_customer(guarded: crm.Guarded, reader: asyncpg.Connection):
    """Rows of every kind, children and grandchildren, are the pass's customer's and nobody else's."""
    _, seven = await guarded.grant("7")
    _, eight = await guarded.grant("8")
    names = await told(reader, seven, "SELECT name FROM broker_guard.read_customer")
    totals = await told(reader, seven, "SELECT total FROM broker_guard.read_invoice")
    lines = await told(reader, seven, "SELECT description FROM broker_guard.read_invoice_line")

    assert {r[0] for r in names} == {"Name 7"}
    assert {r[0] for r in totals} == {"7.00", "7.01", "7.02", "7.03"}
    assert {r[0].rsplit(" ", 1)[1] for r in lines} == {"7"}
    assert {r[0] for r in await told(reader, eight, "SELECT name FROM broker_guard.read_customer")} == {
        "Name 8"
    }


async def test_a_pass_opens_its_fields(guarded: crm.Guarded, reader: asyncpg.Connection):
    """A field that the pass does not name is NULL, and a kind without a named field has no row to count."""
    _, narrow = await guarded.grant("7", ["customer.name"])
    (row,) = await told(reader, narrow, "SELECT * FROM broker_guard.read_customer")

    assert (row["name"], row["email"], row["birth_date"]) == ("Name 7", None, None)
    assert await count(reader, narrow, "invoice") == 0
    assert await count(reader, (await guarded.grant("7"))[1], "invoice") == 4


REFUSED = {
    "the table": "SELECT name FROM crm.customer",
    "its row count": "SELECT count(*) FROM crm.customer",
    "a column that nobody mapped": "SELECT secret FROM crm.customer",
    "a child's table": "SELECT * FROM crm.invoice",
    "writing": "INSERT INTO crm.customer (customer_id, name) VALUES (0, 'x')",
    "deleting": "DELETE FROM crm.customer",
    "writing through the view": "UPDATE broker_guard.read_customer SET name = 'x'",
    "copying the table": "COPY crm.customer TO STDOUT",
    "the keys": "SELECT * FROM broker_guard.guard_key",
    "the salts": "SELECT * FROM broker_guard.salt",
    "what was installed": "SELECT * FROM broker_guard.install_step",
    "the guard's role": "SET ROLE broker_guard",
    "the keeper's role": "SET ROLE broker_guard_keeper",
    "the owner's role": "SET ROLE crm_owner",
    "the superuser's session": "SET SESSION AUTHORIZATION postgres",
    "another policy": "CREATE POLICY mine ON crm.customer USING (true)",
    "switching row security off": "ALTER TABLE crm.customer DISABLE ROW LEVEL SECURITY",
    "another view in the guard's room": "CREATE VIEW broker_guard.mine AS SELECT 1",
    "the key function": "SELECT broker_guard.customer_key('7')",
    "a file": "SELECT pg_read_file('/etc/hostname')",
    "a program": "COPY (SELECT 1) TO PROGRAM 'true'",
}


@pytest.mark.attack("S3", "S6")
async def test_the_reader_may_not(guarded: crm.Guarded, reader: asyncpg.Connection):
    """With a valid pass told, the reader's role is refused everything but its views."""
    _, good = await guarded.grant("7")
    await reader.execute("SELECT set_config('broker.pass', $1, false)", good)
    let_through = []
    for what, sql in REFUSED.items():
        try:
            await reader.fetch(sql)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.ObjectNotInPrerequisiteStateError):
            continue
        let_through.append(what)

    assert let_through == []

    assert len(await reader.fetch("SELECT name FROM broker_guard.read_customer")) == 1


async def test_row_security_off_is_refused(guarded: crm.Guarded, reader: asyncpg.Connection):
    """`row_security = off` makes the guarded read fail, not the guard."""
    _, good = await guarded.grant("7")
    await reader.execute("SET row_security = off")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await count(reader, good)
    await reader.execute("SET row_security = on")

    assert await count(reader, good) == 1


@pytest.mark.attack("S5")
async def test_a_leaky_function_sees_one_customer(guarded: crm.Guarded, reader: asyncpg.Connection):
    """A function that tells what it is given, and a division by zero, see the pass's rows only."""
    await reader.execute(
        "CREATE FUNCTION pg_temp.leak(text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 "
        "AS $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$"
    )
    seen: list[str] = []
    reader.add_log_listener(lambda _, message: seen.append(str(message)))
    _, good = await guarded.grant("7")
    rows = await told(reader, good, "SELECT name FROM broker_guard.read_customer WHERE pg_temp.leak(name)")
    assert len(rows) == 1
    zero = "SELECT name FROM broker_guard.read_customer WHERE 1 / (length(email) - length('{}')) <> 99"
    await told(reader, good, zero.format("c100@example.org"))

    assert [re.search(r"saw (.*)", s)[1] for s in seen] == ["Name 7"]
    with pytest.raises(asyncpg.DivisionByZeroError):  # the control: its own row is reached
        await told(reader, good, zero.format("c7@example.org"))


@pytest.mark.attack("S5")
async def test_explain_counts_nobody_else(guarded: crm.Guarded, reader: asyncpg.Connection):
    """EXPLAIN ANALYZE neither names nor counts rows of other customers."""
    await guarded.admin.execute(MANY)
    _, good = await guarded.grant("7")
    plan = await told(reader, good, "EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM broker_guard.read_customer")
    text = "\n".join(r[0] for r in plan)

    assert "Rows Removed by Filter" not in text
    assert "rows=1" in text


@pytest.mark.attack("S3")
async def test_the_guard_itself_sees_nothing_without_a_pass(guarded: crm.Guarded):
    """Even as the views' owner, the policy alone refuses: rows of open passes, mapped columns, no writing."""
    _, good = await guarded.grant("7")
    await guarded.admin.execute("SET ROLE broker_guard")
    await guarded.admin.execute("SET search_path = crm")
    sql = "SELECT customer_id FROM crm.customer"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await guarded.admin.fetch(sql)  # not even the schema can be named
    await guarded.admin.execute(
        "RESET ROLE; GRANT USAGE ON SCHEMA crm TO broker_guard; SET ROLE broker_guard"
    )
    assert await guarded.admin.fetch(sql) == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await guarded.admin.fetch("SELECT secret FROM crm.customer")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await guarded.admin.fetch("UPDATE crm.customer SET name = 'x'")

    assert [r[0] for r in await told(guarded.admin, good, sql)] == [7]
    assert len(await told(guarded.admin, good, "SELECT invoice_id FROM crm.invoice")) == 4
    assert len(await told(guarded.admin, good, "SELECT invoice_line_id FROM crm.invoice_line")) == 12
    await guarded.admin.execute("RESET ROLE")


@pytest.mark.attack("S3")
async def test_the_view_refuses_without_the_policy(guarded: crm.Guarded, reader: asyncpg.Connection):
    """With row security off on every table, the views alone still show one customer's fields only."""
    for table in KINDS:
        await guarded.admin.execute(f"ALTER TABLE crm.{table} DISABLE ROW LEVEL SECURITY")
    _, good = await guarded.grant("7", ["customer.name"])
    rows = await told(reader, good, "SELECT name, email FROM broker_guard.read_customer")

    assert [tuple(r) for r in rows] == [("Name 7", None)]
    assert [await count(reader, "", kind) for kind in KINDS] == [0, 0, 0]


async def test_the_keys_index_is_used_once_per_statement(guarded: crm.Guarded, reader: asyncpg.Connection):
    """The read finds its row by index, and verifies once for the policy and once for the view."""
    await guarded.admin.execute(MANY)
    _, good = await guarded.grant("7")
    for kind, index in (("customer", "customer_pkey"), ("invoice", "invoice_customer")):
        plan = await told(
            reader, good, f"EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM broker_guard.read_{kind}"
        )
        text = "\n".join(r[0] for r in plan)
        assert index in text
        assert "Seq Scan" not in text
        calls = re.findall(r"Function Scan on open_passes.*loops=(\d+)", text)
        assert calls == ["1", "1"]


async def test_what_is_no_key_is_nobody(guarded: crm.Guarded, reader: asyncpg.Connection):
    """A customer that is no key of the table's type, or another spelling of one, opens nothing."""
    for customer in ("abc", "7.0", "07", " 7", "+7", "9" * 40, "7; DROP TABLE crm.customer", "\u0667", "-7"):
        _, odd = await guarded.grant(customer)
        _, good = await guarded.grant("8")
        rows = await told(reader, f"{odd} {good}", "SELECT name FROM broker_guard.read_customer")
        assert [r[0] for r in rows] == ["Name 8"], customer


KEY_TYPES = {
    "integer": ("7", "8"),
    "text": ("C-7", "C-8"),
    "uuid": ("00000000-0000-0000-0000-000000000007", "00000000-0000-0000-0000-000000000008"),
    "varchar(3)": ("abc", "abd"),
    "char(5)": ("abc", "abd"),
}


@pytest.mark.parametrize("key_type", KEY_TYPES)
async def test_keys_of_other_types(database, key_type: str):
    """The pass is cast to the key's own type, whatever it is, and never cut down to another's key."""
    one, two = KEY_TYPES[key_type]
    admin = await asyncpg.connect(database.dsn())
    await admin.execute(
        f'CREATE TABLE public."Odd ""Name" ("the key" {key_type} PRIMARY KEY, "user" text);'
        f"INSERT INTO public.\"Odd \"\"Name\" VALUES ('{one}', 'first'), ('{two}', 'second')"
    )
    person = crm.Field("person", "user", "user", "profile", crm.Mask.TEXT)
    odd = crm.Kind("person", "public", 'Odd "Name', "the key", {"user": person})
    guarded = await crm.guard(database, database, crm.catalog(odd))
    found = await guarded.read(one, ["person.user"])
    longer = await guarded.read(one + "x", ["person.user"])

    assert [dict(r.values) for r in found.rows["person"]] == [{"person.user": "first"}]
    assert longer.rows["person"] == []
    await crm.close(guarded)
    await admin.close()


@pytest.mark.attack("S1")
async def test_names_are_quoted_by_postgresql(crm_database):
    """A table or column name that holds SQL is an identifier, and a field name that is no word is refused."""
    admin = await asyncpg.connect(crm_database.dsn())
    evil = 'x" FROM crm.customer; DROP TABLE crm.customer; --'
    await admin.execute(
        'CREATE TABLE crm."{0}" ("{0}" bigint PRIMARY KEY, v text)'.format(evil.replace('"', '""'))
    )
    field = crm.Field("customer", "v", "v", "profile", crm.Mask.TEXT)
    chosen = crm.catalog(crm.Kind("customer", "crm", evil, evil, {"v": field}))
    await apply(admin, await plan_install(admin, chosen))
    worse = crm.Field("customer", 'v" FROM x; --', "v", "profile", crm.Mask.TEXT)
    with pytest.raises(StartupError):
        crm.RecordReader(None, crm.catalog(crm.Kind("customer", "crm", evil, evil, {worse.name: worse})))

    assert await admin.fetchval("SELECT count(*) FROM crm.customer") == 200
    assert await admin.fetchval("SELECT count(*) FROM pg_views WHERE viewname = 'read_customer'") == 1
    await admin.close()


@pytest.mark.attack("S4", "S9")
async def test_what_looks_like_no_pass_never_reaches_the_database(guarded: crm.Guarded):
    """Blanks, NUL, surrogates, SQL and other grants' passes are refused before the statement."""
    grant, good = await guarded.grant("7")
    _, other = await guarded.grant("8")
    for bad in ("", f"{good} {other}", good + "\0", good + "\ud800", "'; SELECT 1; --", other, good + "\n"):
        with pytest.raises(RecordsUnavailableError):
            await guarded.reader.read(grant_id=grant, guard_pass=bad, fields=["customer.name"])

    assert (await guarded.reader.read(grant_id=grant, guard_pass=good, fields=["customer.name"])).rows[
        "customer"
    ]
