from __future__ import annotations

import asyncio
import subprocess

import asyncpg
import pytest

from broker.errors import RecordsUnavailableError, StartupError
from broker.records import InstallRefusedError, apply, check, plan_install, plan_uninstall
from tests.conftest import Database
from tests.records import crm


def dump(database: Database) -> list[str]:
    """Gives the schema as pg_dump writes it, without its one-time marks."""
    command = [str(database.server._bin / "pg_dump"), "--schema-only", "--dbname", database.dsn()]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


async def connect(database: Database, role: str = "postgres") -> asyncpg.Connection:
    """Connects as a role of roles.sql, the superuser, or the other program."""
    dsn = database.server.dsn(database.name, role, "crm_app-pw") if role == "crm_app" else database.dsn(role)
    return await asyncpg.connect(dsn)


async def app_view(database: Database) -> dict[str, object]:
    """Gives all that the other program can tell of the tables: rows, rights, what it may write."""
    conn = await connect(database, "crm_app")
    seen: dict[str, object] = {}
    for table in ("customer", "invoice", "invoice_line"):
        seen[table] = [tuple(r) for r in await conn.fetch(f"SELECT * FROM crm.{table} ORDER BY 1")]
        seen[f"{table} rights"] = [
            await conn.fetchval(f"SELECT has_table_privilege('crm.{table}', '{right}')")
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
        ]
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute("INSERT INTO crm.customer (customer_id, name) VALUES (-1, 'new')")
    seen["written"] = await conn.fetchval("SELECT name FROM crm.customer WHERE customer_id = -1")
    seen["updated"] = await conn.execute("UPDATE crm.customer SET name = name || '!'")
    seen["deleted"] = await conn.execute("DELETE FROM crm.invoice_line WHERE invoice_id < 50")
    seen["secret"] = await conn.fetchval("SELECT count(secret) FROM crm.customer")
    seen["merged"] = await conn.execute(
        "INSERT INTO crm.customer (customer_id, name) VALUES (1, 'x') "
        "ON CONFLICT (customer_id) DO UPDATE SET name = excluded.name"
    )
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with conn.transaction():
            await conn.execute("DELETE FROM crm.customer WHERE customer_id = 1")
    await transaction.rollback()
    await conn.close()
    return seen


async def test_other_programs_see_the_same(crm_database: Database):
    """Before, with and after the guard, another role sees, may and writes the very same."""
    admin = await connect(crm_database)
    before = await app_view(crm_database)
    await apply(admin, await plan_install(admin, crm.catalog()))
    during = await app_view(crm_database)
    await apply(admin, await plan_uninstall(admin))
    after = await app_view(crm_database)

    assert during == before
    assert after == before
    await admin.close()


async def test_the_undo_is_exact(crm_database: Database):
    """After install and uninstall, pg_dump writes what it wrote before, rights and comments included."""
    admin = await connect(crm_database)
    before = await asyncio.to_thread(dump, crm_database)
    await apply(admin, await plan_install(admin, crm.catalog()))
    assert await asyncio.to_thread(dump, crm_database) != before  # the control
    await apply(admin, await plan_uninstall(admin))

    assert await asyncio.to_thread(dump, crm_database) == before
    await admin.close()


async def test_a_change_of_the_catalog_keeps_keys_and_salts(guarded: crm.Guarded):
    """A new catalog replaces the mapping in one transaction; passes, keys and pseudonyms stay good."""
    grant, text = await guarded.grant("7")
    names = await guarded.reader.pseudonyms("7", "T-1")
    smaller = crm.catalog(crm.kind("customer", ["name"], key="customer_id"))
    plan = await plan_install(guarded.admin, smaller)
    await apply(guarded.admin, plan)
    guarded.reader.use(smaller)
    found = await guarded.reader.read(grant_id=grant, guard_pass=text, fields=["customer.name"])

    assert found.rows["customer"][0].values == {"customer.name": "Name 7"}
    assert await guarded.reader.pseudonyms("7", "T-1") == names
    rights = "SELECT has_any_column_privilege('broker_guard', 'crm.invoice', 'SELECT')"
    assert await guarded.admin.fetchval(rights) is False
    assert (
        await guarded.admin.fetchval("SELECT relrowsecurity FROM pg_class WHERE relname = 'invoice'") is False
    )
    assert all(a.ok for a in await check(guarded.admin, smaller))
    assert (await plan_install(guarded.admin, smaller)).steps == ()


async def test_the_undo_needs_no_catalog_after_changes(crm_database: Database):
    """Installed, changed twice and undone, the database is as it was."""
    admin = await connect(crm_database)
    before = await asyncio.to_thread(dump, crm_database)
    for chosen in (
        crm.catalog(),
        crm.catalog(crm.kind("customer", ["name"], key="customer_id")),
        crm.catalog(),
    ):
        await apply(admin, await plan_install(admin, chosen))
        assert [a for a in await check(admin, chosen) if not a.ok and "key" not in a.name] == []
    await apply(admin, await plan_uninstall(admin))

    assert await asyncio.to_thread(dump, crm_database) == before
    await admin.close()


async def test_a_right_that_was_there_stays(crm_database: Database):
    """A column right of the guard's role that somebody else gave survives install, change and undo."""
    admin = await connect(crm_database)
    await admin.execute("GRANT SELECT (name) ON crm.customer TO broker_guard")
    await apply(admin, await plan_install(admin, crm.catalog()))
    await apply(admin, await plan_install(admin, crm.with_rows(crm.catalog(), "invoice", 9)))
    await apply(admin, await plan_uninstall(admin))
    held = "SELECT has_column_privilege('broker_guard', 'crm.customer', '{}', 'SELECT')"

    assert await admin.fetchval(held.format("name")) is True
    assert await admin.fetchval(held.format("email")) is False
    await admin.close()


async def test_salts_are_not_destroyed_unasked(guarded: crm.Guarded):
    """The undo stops where it would make pseudonyms nobody's, until it is told to go on."""
    await guarded.reader.pseudonyms("7", "T-1")
    with pytest.raises(InstallRefusedError, match="salts"):
        await plan_uninstall(guarded.admin)
    await apply(guarded.admin, await plan_uninstall(guarded.admin, destroy_salts=True))
    with pytest.raises(InstallRefusedError, match="nothing is installed"):
        await plan_uninstall(guarded.admin)


def one(*columns: str, table: str = "customer"):
    """Gives a catalog of one kind."""
    return crm.catalog(crm.kind("customer", columns or ["name"], key="customer_id", table=table))


REFUSED = {
    "row security is on": (
        "ALTER TABLE crm.customer ENABLE ROW LEVEL SECURITY",
        one(),
        "row security already",
    ),
    "a policy sleeps": ("CREATE POLICY p ON crm.customer USING (false)", one(), "row security already"),
    "the public reads": ("GRANT SELECT ON crm.customer TO PUBLIC", one(), "broker_reader has rights"),
    "the reader reads a column": (
        "GRANT SELECT (name) ON crm.customer TO broker_reader",
        one(),
        "has rights",
    ),
    "the guard reads all": ("GRANT SELECT ON crm.customer TO broker_guard", one(), "rights on all"),
    "the guard owns it": ("ALTER TABLE crm.customer OWNER TO broker_guard", one(), "no policy binds"),
    "the reader is in the owner": ("GRANT crm_owner TO broker_reader", one(), "no policy binds"),
    "no such table": ("SELECT 1", one(table="nowhere"), "there is no relation"),
    "no such column": ("SELECT 1", one("name", "shoe_size"), "no column 'shoe_size'"),
    "a materialised view": (
        "CREATE MATERIALIZED VIEW crm.copy AS SELECT * FROM crm.customer",
        one(table="copy"),
        "cannot be guarded",
    ),
    "a view with its owner's rights": (
        "CREATE VIEW crm.v AS SELECT * FROM crm.customer; ALTER VIEW crm.v OWNER TO crm_owner",
        one(table="v"),
        "with the rights of crm_owner",
    ),
    "a view with its caller's rights": (
        "CREATE VIEW crm.v WITH (security_invoker) AS SELECT * FROM crm.customer",
        one(table="v"),
        "security_invoker",
    ),
    "the guard's view over an unguarded table": (
        "CREATE VIEW crm.v AS SELECT * FROM crm.customer; ALTER VIEW crm.v OWNER TO broker_guard",
        one(table="v"),
        "no kind maps",
    ),
    "a link of another type": (
        "CREATE TABLE crm.note (note_id int PRIMARY KEY, customer_id text, v text)",
        crm.catalog(
            crm.kind("customer", ["name"], key="customer_id"),
            crm.kind("note", ["v"], key="note_id", via="customer", link="customer_id"),
        ),
        "make them alike",
    ),
}


@pytest.mark.attack("S3")
async def test_stops_and_explains(crm_database: Database):
    """What cannot be guarded is refused with its reason; without the obstacle, it installs."""
    admin = await connect(crm_database)
    for case, (obstacle, chosen, text) in REFUSED.items():
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(obstacle)
        with pytest.raises(InstallRefusedError, match=text):
            await plan_install(admin, chosen)
        await transaction.rollback()
        assert case
    await apply(admin, await plan_install(admin, one()))

    assert (await plan_install(admin, one())).steps == ()
    await admin.close()


async def test_a_view_of_the_guard_over_guarded_tables(crm_database: Database):
    """A mapped view is accepted where the guard owns it and every table below is mapped and guarded."""
    admin = await connect(crm_database)
    await admin.execute(
        "CREATE VIEW crm.card AS SELECT customer_id, upper(name) AS shouted FROM crm.customer;"
        "ALTER VIEW crm.card OWNER TO broker_guard"
    )
    chosen = crm.catalog(
        crm.kind("customer", ["email"], key="customer_id"),
        crm.kind("card", ["shouted"], key="customer_id", via="customer", link="customer_id"),
    )
    guarded = await crm.guard(crm_database, crm_database, chosen)
    found = await guarded.read("7", ["card.shouted", "customer.email"])

    assert found.rows["card"][0].values == {"card.shouted": "NAME 7"}
    assert [a for a in await check(admin, chosen) if not a.ok] == []
    await crm.close(guarded)
    await admin.close()


SPOILS = {
    "row security switched off": ("ALTER TABLE crm.invoice DISABLE ROW LEVEL SECURITY", "guarded"),
    "the restrictive policy dropped": ("DROP POLICY broker_guard_passes ON crm.invoice", "guarded"),
    "the restrictive policy loosened": (
        "ALTER POLICY broker_guard_passes ON crm.invoice USING (true)",
        "unchanged",
    ),
    "the policy for another role": ("ALTER POLICY broker_guard_passes ON crm.invoice TO crm_app", "guarded"),
    "the reader reads a table": ("GRANT SELECT ON crm.invoice TO broker_reader", "closed to the reader"),
    "the reader reads a column": (
        "GRANT SELECT (name) ON crm.customer TO broker_reader",
        "closed to the reader",
    ),
    "everybody reads a table": ("GRANT SELECT ON crm.invoice TO PUBLIC", "closed to the reader"),
    "the guard reads a column more": (
        "GRANT SELECT (secret) ON crm.customer TO broker_guard",
        "mapped columns only",
    ),
    "the reader bypasses row security": ("ALTER ROLE broker_reader BYPASSRLS", "broker_reader is plain"),
    "the reader is a superuser": ("ALTER ROLE broker_reader SUPERUSER", "broker_reader is plain"),
    "the guard bypasses row security": ("ALTER ROLE broker_guard BYPASSRLS", "broker_guard is plain"),
    "the guard logs in": ("ALTER ROLE broker_guard LOGIN", "broker_guard cannot log in"),
    "the reader is in the guard": ("GRANT broker_guard TO broker_reader", "broker_reader is in no other"),
    "the reader reads everything": (
        "GRANT pg_read_all_data TO broker_reader",
        "broker_reader is in no other",
    ),
    "the guard is in the owner": ("GRANT crm_owner TO broker_guard", "broker_guard is in no other"),
    "a view without its barrier": (
        "ALTER VIEW broker_guard.read_invoice SET (security_barrier = false)",
        "view read_invoice",
    ),
    "a view with its caller's rights": (
        "ALTER VIEW broker_guard.read_invoice SET (security_invoker = true)",
        "view read_invoice",
    ),
    "a view of the table's owner": (
        "ALTER VIEW broker_guard.read_invoice OWNER TO crm_owner",
        "view read_invoice",
    ),
    "a view for everybody": (
        "GRANT SELECT ON broker_guard.read_invoice TO PUBLIC",
        "view read_invoice for the reader alone",
    ),
    "a second view of the guard": (
        "CREATE VIEW crm.door AS SELECT name FROM crm.customer; ALTER VIEW crm.door OWNER TO broker_guard",
        "nothing else of broker_guard",
    ),
    "a verifier of the superuser": (
        "ALTER FUNCTION broker_guard.open_passes() OWNER TO postgres",
        "open_passes",
    ),
    "a verifier with any search path": (
        "ALTER FUNCTION broker_guard.open_passes() RESET search_path",
        "open_passes",
    ),
    "a verifier for everybody": (
        "GRANT EXECUTE ON FUNCTION broker_guard.open_passes() TO PUBLIC",
        "open_passes",
    ),
    "one more function": ("CREATE FUNCTION broker_guard.more() RETURNS int RETURN 1", "functions"),
    "keys for the reader": ("GRANT SELECT ON broker_guard.guard_key TO broker_reader", "keys and salts"),
    "no key": ("DELETE FROM broker_guard.guard_key", "a key verifies"),
    "a lost index": ("DROP INDEX crm.invoice_customer", "fast"),
    "a renamed column": ("ALTER TABLE crm.customer RENAME email TO mail", "columns"),
}


@pytest.mark.attack("S3")
async def test_check_finds_each_spoil(guarded: crm.Guarded):
    """Each thing that weakens the guard fails its own assertion, with what to do; unspoilt, all hold."""
    assert [a for a in await check(guarded.admin, guarded.catalog) if not a.ok] == []
    for case, (sql, name) in SPOILS.items():
        transaction = guarded.admin.transaction()
        await transaction.start()
        await guarded.admin.execute(sql)
        failed = [a for a in await check(guarded.admin, guarded.catalog) if not a.ok]
        await transaction.rollback()
        assert any(name in a.name for a in failed), (case, failed)
        assert all(a.remedy or a.warning for a in failed), case
    assert [a for a in await check(guarded.admin, guarded.catalog) if not a.ok] == []


async def test_check_says_when_the_catalog_moved_on(guarded: crm.Guarded):
    """A catalog that maps more than is installed, or otherwise, fails; one that maps less is untidy."""
    less = crm.catalog(crm.kind("customer", ["name"], key="customer_id"))
    field = crm.Field("customer", "name", "secret", "profile", crm.Mask.TEXT)
    other = crm.catalog(crm.Kind("customer", "crm", "customer", "customer_id", {"name": field}))
    failed = {a.name: a for a in await check(guarded.admin, other) if not a.ok}
    assert "customer.name" in failed["mapping covers the catalog"].text
    untidy = [a for a in await check(guarded.admin, less) if not a.ok]

    assert [(a.name, a.warning) for a in untidy if "mapped columns" not in a.name] == [
        ("mapping is the catalog's", True)
    ]


@pytest.mark.attack("S3")
async def test_the_broker_does_not_start(guarded: crm.Guarded):
    """The reader's own start-up check finds the same, and waits; a sound guard lets it start."""
    await guarded.reader.verify_role()
    await guarded.admin.execute("GRANT SELECT ON crm.invoice TO PUBLIC")
    with pytest.raises(RecordsUnavailableError, match="closed to the reader"):
        await guarded.reader.verify_role()
    await guarded.admin.execute("REVOKE SELECT ON crm.invoice FROM PUBLIC")
    await guarded.reader.verify_role()


@pytest.mark.attack("S3")
async def test_another_role_is_no_reader(guarded: crm.Guarded):
    """A reader's pool that logs in as anybody else refuses to start."""
    pool = await asyncpg.create_pool(guarded.records.dsn(), min_size=1, max_size=1)
    with pytest.raises(StartupError, match="log in as broker_reader"):
        await crm.RecordReader(pool, guarded.catalog).verify_role()
    await pool.close()


async def test_busy_tables_are_left_alone(crm_database: Database):
    """While another program holds its tables we give way, again and again, and then install."""
    admin, app = await connect(crm_database), await connect(crm_database, "crm_app")
    plan = await plan_install(admin, crm.catalog())
    transaction = app.transaction()
    await transaction.start()
    await app.execute("UPDATE crm.invoice SET total = 0 WHERE invoice_id = 70")
    waits = 0

    async def pause(_: float) -> None:
        nonlocal waits
        waits += 1
        await app.execute("SELECT count(*) FROM crm.customer")  # locked by us a moment ago, free again
        if waits == 3:
            await transaction.commit()

    await apply(admin, plan, pause=pause)

    assert waits == 3
    assert await admin.fetchval("SELECT count(*) FROM pg_policies WHERE schemaname = 'crm'") == 6
    await admin.close()
    await app.close()


async def test_notes_tell_what_row_security_costs_others(crm_database: Database):
    """The plan names the roles whose COPY FROM row security ends, and indexes that lack."""
    admin = await connect(crm_database)
    await admin.execute("DROP INDEX crm.invoice_customer")
    notes = "\n".join((await plan_install(admin, crm.catalog())).notes)

    assert "COPY FROM" in notes
    assert "crm_app" in notes
    assert "CREATE INDEX (customer_id)" in notes
    await admin.close()


def psql(database: Database, script: str) -> None:
    """Runs a script as an administrator does who trusts no program with the superuser's password."""
    command = [str(database.server._bin / "psql"), "--no-psqlrc", "--quiet", "--dbname", database.dsn()]
    subprocess.run(command, input=script, check=True, capture_output=True, text=True)


async def test_the_printed_script_does_the_same(crm_database: Database):
    """The plan's script, run by psql, installs and undoes what `apply` does, record and all."""
    admin = await connect(crm_database)
    before = await asyncio.to_thread(dump, crm_database)
    await asyncio.to_thread(psql, crm_database, (await plan_install(admin, crm.catalog())).script)
    assert [a.name for a in await check(admin, crm.catalog()) if not a.ok] == [
        "a key verifies",
        "one key in use",
    ]
    assert (await plan_install(admin, crm.catalog())).steps == ()
    assert (await plan_install(admin, crm.catalog())).script.count(";") == 2  # BEGIN, COMMIT
    await asyncio.to_thread(psql, crm_database, (await plan_uninstall(admin)).script)

    assert await asyncio.to_thread(dump, crm_database) == before
    await admin.close()


async def test_the_tables_owner_can_install(crm_database: Database):
    """No superuser is needed: the tables' owner may, being in both roles that nobody logs in as."""
    admin = await connect(crm_database)
    owner = await connect(crm_database)
    await admin.execute(
        "GRANT broker_guard, broker_guard_keeper TO crm_owner;"
        f"GRANT CREATE ON DATABASE {crm_database.name} TO crm_owner"
    )
    await owner.execute("SET SESSION AUTHORIZATION crm_owner")
    try:
        await apply(owner, await plan_install(owner, crm.catalog()))
        assert [a.name for a in await check(owner, crm.catalog()) if not a.ok and "key" not in a.name] == []
        await apply(owner, await plan_uninstall(owner))
    finally:
        await admin.execute("REVOKE broker_guard, broker_guard_keeper FROM crm_owner")
    with pytest.raises(InstallRefusedError, match="PostgreSQL refused"):  # the control: without the roles
        await apply(owner, await plan_install(owner, crm.catalog()))
    await owner.close()
    await admin.close()


REPAIRS = {
    "row security switched off": "ALTER TABLE crm.invoice DISABLE ROW LEVEL SECURITY",
    "a policy dropped": "DROP POLICY broker_guard_passes ON crm.invoice",
    "a policy loosened": "ALTER POLICY broker_guard_passes ON crm.invoice USING (true)",
    "a view dropped": "DROP VIEW broker_guard.read_invoice",
    "a view for everybody": "GRANT SELECT ON broker_guard.read_invoice TO PUBLIC",
    "a verifier that lets all through": (
        "CREATE OR REPLACE FUNCTION broker_guard.status() RETURNS TABLE "
        "(mapping jsonb, fingerprint text, keys_in_use bigint, keys_running_out bigint) "
        "LANGUAGE sql AS 'SELECT NULL::jsonb, NULL, 1::bigint, 0::bigint'"
    ),
}


async def test_install_repairs(guarded: crm.Guarded):
    """Whatever was spoilt, installing the same catalog again puts it right; keys and salts stay."""
    grant = await guarded.grant("7")
    for case, spoil in REPAIRS.items():
        await guarded.admin.execute(spoil)
        assert [a for a in await check(guarded.admin, guarded.catalog) if not a.ok], case
        await apply(guarded.admin, await plan_install(guarded.admin, guarded.catalog))
        assert [a for a in await check(guarded.admin, guarded.catalog) if not a.ok] == [], case
    found = await guarded.reader.read(grant_id=grant[0], guard_pass=grant[1], fields=["invoice.total"])

    assert len(found.rows["invoice"]) == 3


async def test_tables_may_change_under_the_guard(crm_database: Database):
    """A mapped column renamed and a mapped table dropped stop neither a new catalog nor the undo."""
    admin = await connect(crm_database)
    await apply(admin, await plan_install(admin, crm.catalog()))
    await admin.execute("ALTER TABLE crm.customer RENAME email TO mail; DROP TABLE crm.invoice_line CASCADE")
    chosen = crm.catalog(
        crm.kind("customer", ["name", "mail"], key="customer_id"),
        crm.kind("invoice", ["total"], key="invoice_id", via="customer", link="customer_id", rows=3),
    )
    await apply(admin, await plan_install(admin, chosen))
    assert [a for a in await check(admin, chosen) if not a.ok and "key" not in a.name] == []
    await apply(admin, await plan_uninstall(admin))

    assert await admin.fetchval("SELECT count(*) FROM pg_policies") == 0
    assert await admin.fetchval("SELECT to_regnamespace('broker_guard') IS NULL")
    await admin.close()


async def test_a_room_of_somebody_elses_is_left_alone(crm_database: Database):
    """A schema of the guard's name that no installation made is not touched."""
    admin = await connect(crm_database)
    await admin.execute("CREATE SCHEMA broker_guard")
    for plan in (plan_install(admin, crm.catalog()), plan_uninstall(admin)):
        with pytest.raises(InstallRefusedError, match="by no installation"):
            await plan
    await admin.close()
