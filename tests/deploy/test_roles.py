"""deploy/roles.sql gives exactly the rights that it says, and can be run again."""

import asyncpg
import pytest

from tests.conftest import ROLES_SQL

# role -> logs in
ROLES = {
    "broker_access": True,
    "broker_admin": True,
    "broker_auditor": True,
    "broker_feed": True,
    "broker_guard": False,
    "broker_guard_keeper": False,
    "broker_owner": True,
    "broker_reader": True,
}


@pytest.fixture
async def bare(server):
    """A database with roles.sql applied and nothing else."""
    admin = await asyncpg.connect(server.dsn())
    await admin.execute("CREATE DATABASE roles_alone")
    conn = await asyncpg.connect(server.dsn("roles_alone"))
    try:
        await conn.execute(ROLES_SQL.read_text("utf-8"))
        yield conn
    finally:
        await conn.close()
        await admin.execute("DROP DATABASE roles_alone WITH (FORCE)")
        await admin.close()


async def test_roles_and_attributes(bare):
    """The roles are these, those log in, and none is more than a plain role."""
    rows = await bare.fetch("SELECT * FROM pg_roles WHERE rolname LIKE 'broker\\_%' ORDER BY rolname")

    assert {r["rolname"]: r["rolcanlogin"] for r in rows} == ROLES
    for row in rows:
        powers = ("rolsuper", "rolcreatedb", "rolcreaterole", "rolbypassrls", "rolreplication", "rolinherit")
        assert not [p for p in powers if row[p]], row["rolname"]


async def test_no_role_is_another(bare):
    """No role is a member of another, so none can become one."""
    members = await bare.fetch(
        "SELECT m.rolname AS member, r.rolname AS of FROM pg_auth_members a"
        " JOIN pg_roles m ON m.oid = a.member JOIN pg_roles r ON r.oid = a.roleid"
        " WHERE m.rolname LIKE 'broker\\_%'"
    )

    assert [tuple(r) for r in members] == []


async def test_schema_is_the_owners_alone(bare):
    """Before any migration only the owner may use or fill the schema."""
    rights = await bare.fetch(
        "SELECT rolname, has_schema_privilege(rolname, 'broker', 'USAGE') AS usage,"
        " has_schema_privilege(rolname, 'broker', 'CREATE') AS create"
        " FROM pg_roles WHERE rolname LIKE 'broker\\_%'"
    )

    assert {r["rolname"] for r in rights if r["usage"] or r["create"]} == {"broker_owner"}


async def test_can_run_again(bare):
    """A second run changes nothing."""
    before = await bare.fetch("SELECT oid, * FROM pg_roles ORDER BY oid")
    await bare.execute(ROLES_SQL.read_text("utf-8"))

    assert await bare.fetch("SELECT oid, * FROM pg_roles ORDER BY oid") == before


async def test_nobody_but_the_owner_creates(database):
    """After the migrations no other role owns anything in the schema or may add to it."""
    conn = await asyncpg.connect(database.dsn())
    try:
        owners = await conn.fetch(
            "SELECT DISTINCT pg_get_userbyid(relowner) AS name FROM pg_class"
            " WHERE relnamespace = 'broker'::regnamespace"
            " UNION SELECT DISTINCT pg_get_userbyid(proowner) FROM pg_proc"
            " WHERE pronamespace = 'broker'::regnamespace"
        )
        creators = await conn.fetch(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'broker\\_%'"
            " AND has_schema_privilege(rolname, 'broker', 'CREATE')"
        )
    finally:
        await conn.close()

    assert {r["name"] for r in owners} <= {"broker_owner", "broker_guard_keeper"}
    assert [r["rolname"] for r in creators] == ["broker_owner"]


async def test_public_has_nothing(database):
    """PUBLIC may neither read a table nor run a function of the schema."""
    conn = await asyncpg.connect(database.dsn())
    try:
        open_to_all = await conn.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class c, aclexplode(c.relacl) a"
            " WHERE c.relnamespace = 'broker'::regnamespace AND a.grantee = 0"
            " UNION ALL SELECT p.oid::regprocedure::text FROM pg_proc p,"
            " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
            " WHERE p.pronamespace = 'broker'::regnamespace AND a.grantee = 0"
        )
    finally:
        await conn.close()

    assert [r["name"] for r in open_to_all] == []


async def test_definer_functions_pin_their_path(database):
    """Every SECURITY DEFINER function fixes its search_path, so that a caller cannot choose it."""
    conn = await asyncpg.connect(database.dsn())
    try:
        rows = await conn.fetch(
            "SELECT oid::regprocedure::text AS name, proconfig FROM pg_proc"
            " WHERE pronamespace = 'broker'::regnamespace AND prosecdef"
        )
    finally:
        await conn.close()

    assert rows
    assert [
        r["name"] for r in rows if not any(c.startswith("search_path=") for c in r["proconfig"] or ())
    ] == []
