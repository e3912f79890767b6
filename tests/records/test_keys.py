from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from broker.records import list_guard_keys, rotate_guard_key
from tests.conftest import LOGIN_ROLES, TEMPLATE, Database
from tests.records import crm

FIELDS = ["customer.name"]


async def opens(guarded: crm.Guarded, grant, text: str) -> bool:
    """Says whether a pass opens its customer."""
    found = await guarded.reader.read(grant_id=grant, guard_pass=text, fields=FIELDS)
    return bool(found.rows["customer"])


async def test_an_old_key_runs_out(guarded: crm.Guarded):
    """After a rotation old passes and new open; once the old key has run out, the new alone."""
    old = await guarded.grant("7", FIELDS)
    await guarded.rotate()
    new = await guarded.grant("7", FIELDS)
    assert old[1].split("|")[0] != new[1].split("|")[0]
    assert await opens(guarded, *old)
    assert await opens(guarded, *new)
    (running_out, _) = await list_guard_keys(guarded.admin)
    assert running_out.verify_until - running_out.create_time > timedelta(hours=1)

    await guarded.admin.execute(
        "UPDATE broker_guard.guard_key SET verify_until = clock_timestamp() WHERE verify_until > now()"
    )
    assert not await opens(guarded, *old)
    assert await opens(guarded, *new)


async def test_a_leaked_key_ends_at_once(guarded: crm.Guarded):
    """A rotation without overlap deletes the old key: its passes open nothing from that moment."""
    old = await guarded.grant("7", FIELDS)
    key = await guarded.rotate(overlap=timedelta(0))
    new = await guarded.grant("7", FIELDS)

    assert not await opens(guarded, *old)
    assert await opens(guarded, *new)
    assert [(k.key_id, k.verify_until) for k in await list_guard_keys(guarded.admin)] == [(key, None)]


async def test_a_crash_between_the_two_databases_refuses_nothing(guarded: crm.Guarded):
    """A rotation that dies once the records side knows the key stops nothing; the next one tidies up."""

    class Dies:
        """The broker's database, gone in the middle."""

        def transaction(self):
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await rotate_guard_key(Dies(), guarded.admin)
    still = await guarded.grant("7", FIELDS)
    assert await opens(guarded, *still)
    await guarded.rotate(overlap=timedelta(0))

    assert len(await list_guard_keys(guarded.admin)) == 1
    assert await opens(guarded, *await guarded.grant("7", FIELDS))


async def test_the_services_roles_read_no_key(guarded: crm.Guarded):
    """None of the service's login roles can read a key, mint a pass, or read a salt."""
    wanted = (
        "SELECT * FROM broker.guard_key",
        "SELECT broker.mint_pass(gen_random_uuid(), '7', ARRAY['customer.name'], now())",
        "SELECT * FROM broker_guard.guard_key",
        "SELECT * FROM broker_guard.salt",
    )
    for role in LOGIN_ROLES:
        conn = await asyncpg.connect(guarded.broker.dsn(role))
        for sql in wanted[2:] if role == "broker_owner" else wanted:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.fetch(sql)
        await conn.close()

    assert await guarded.mint.fetchval("SELECT count(*) FROM broker.guard_key") == 1
    assert await guarded.admin.fetchval("SELECT count(*) FROM broker_guard.guard_key") == 1


REFUSED = {
    "no customer": ("''", "ARRAY['a.b']", "now()"),
    "an unknown customer": ("NULL", "ARRAY['a.b']", "now()"),
    "no field": ("'7'", "ARRAY[]::text[]", "now()"),
    "a field with a bar": ("'7'", "ARRAY['a.b|c']", "now()"),
    "a field with a comma": ("'7'", "ARRAY['a.b,c']", "now()"),
    "a field with a blank": ("'7'", "ARRAY['a.b c.d']", "now()"),
    "a NULL among the fields": ("'7'", "ARRAY['a.b', NULL]", "now()"),
    "no end": ("'7'", "ARRAY['a.b']", "NULL"),
    "an end beyond the hour": ("'7'", "ARRAY['a.b']", "now() + interval '61 minutes'"),
    "no end ever": ("'7'", "ARRAY['a.b']", "'infinity'"),
}


async def test_the_mint_signs_one_meaning(guarded: crm.Guarded):
    """What could be read in two ways, or would outlive its key, is not signed."""
    mint = "SELECT broker.mint_pass(gen_random_uuid(), {}, {}, {})"
    for case, values in REFUSED.items():
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await guarded.mint.fetch(mint.format(*values))
        assert case

    assert await guarded.mint.fetchval(mint.format("'7'", "ARRAY['a.b']", "now()"))


async def test_without_a_key_nothing_is_signed(database: Database):
    """Before the first rotation the mint says that it has no key."""
    conn = await asyncpg.connect(database.dsn("broker_owner"))
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="keys rotate"):
        await conn.fetch("SELECT broker.mint_pass(gen_random_uuid(), '7', ARRAY['a.b'], now())")
    assert await conn.fetchval("SELECT broker.active_guard_key_id()") is None
    await conn.close()


async def test_any_customer_travels(guarded: crm.Guarded):
    """A customer with any character in it comes out of the pass as it went in."""
    for customer in ("7", "a|b c", "Grüße, 7'; --", "\\x41", "客户", "%s {x}"):
        _, text = await guarded.grant(customer)
        rows = await guarded.admin.fetch(
            "SELECT o.* FROM (SELECT set_config('broker.pass', $1, true) AS t OFFSET 0) s "
            "CROSS JOIN LATERAL (SELECT * FROM broker_guard.open_passes() WHERE s.t <> '' OFFSET 0) o",
            text,
        )
        assert [r["customer"] for r in rows] == [customer]


@pytest.fixture
async def apart(server, crm_database: Database) -> AsyncIterator[crm.Guarded]:
    """Gives broker and records in two databases."""
    name = f"t_{secrets.token_hex(6)}"
    conn = await asyncpg.connect(server.dsn())
    await conn.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    guarded = await crm.guard(crm_database, Database(server, name), crm.catalog())
    yield guarded
    await crm.close(guarded)
    await conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await conn.close()


async def test_two_databases(apart: crm.Guarded):
    """Passes minted in one database open in the other, through a rotation; each holds its own keys."""
    old = await apart.grant("7", FIELDS)
    await apart.rotate()
    assert await opens(apart, *old)
    assert await opens(apart, *await apart.grant("8", FIELDS))

    assert await apart.admin.fetchval("SELECT count(*) FROM broker.guard_key") == 0
    assert await apart.mint.fetchval("SELECT to_regnamespace('broker_guard') IS NULL")
