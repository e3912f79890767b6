"""Connections of commands: the same bounds and promises as those of the broker's pools."""

from __future__ import annotations

import json

import asyncpg
import pytest

from broker.cli.audit.options import auditor
from broker.database import check_dsn, open_pool
from broker.errors import DatabaseUnavailableError, StartupError
from broker.settings import Settings

SET = (
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "synchronous_commit",
    "default_transaction_isolation", "timezone", "jit",
)  # fmt: skip


@pytest.fixture
async def settings(database) -> Settings:
    """Points commands at a database whose roles are set to commit without waiting for the disk."""
    conn = await asyncpg.connect(database.dsn())
    await conn.execute("ALTER ROLE broker_auditor SET synchronous_commit = off")
    await conn.close()
    yield Settings(auditor_dsn=database.dsn("broker_auditor"))
    conn = await asyncpg.connect(database.dsn())
    await conn.execute("ALTER ROLE broker_auditor RESET synchronous_commit")
    await conn.close()


async def test_have_the_settings_of_the_pools(settings):
    """No statement, lock or idle transaction without an end, and a commit that was answered is durable."""
    pool = await open_pool(settings.auditor_dsn, name="tests", max_size=1, statement_timeout=60)
    wanted = {name: await pool.fetchval(f"SHOW {name}") for name in SET}
    await pool.close()
    async with auditor(settings, "audit prove", {"event": "1"}) as conn:
        assert {name: await conn.fetchval(f"SHOW {name}") for name in SET} == wanted
    assert wanted["synchronous_commit"] == "on"
    assert "0" not in wanted.values()


async def test_a_question_behind_a_lock_ends(settings, database):
    """Whoever holds the ledger's table keeps no command waiting for ever; the answer is a sentence."""
    holder = await asyncpg.connect(database.dsn())
    async with holder.transaction():
        await holder.execute("LOCK TABLE broker.ledger_event")
        with pytest.raises(DatabaseUnavailableError):
            async with auditor(settings, "audit prove", {}, seconds=0.05):
                pass
    await holder.close()


async def test_the_question_is_on_record(settings, database):
    """Before anything is looked at."""
    async with auditor(settings, "audit prove", {"event": "1"}):
        conn = await asyncpg.connect(database.dsn())
        leaf = await conn.fetchval("SELECT leaf FROM broker.ledger_event WHERE kind = 'auditor_query'")
        await conn.close()
    assert json.loads(leaf)["detail"] == {"query": "audit prove", "event": "1"}


LOCAL = "postgresql://user:secret@"
FAR = "db.example"
VERIFIED = "sslmode=verify-full"


@pytest.mark.parametrize(
    ("dsn", "pghost"),
    [
        (f"{LOCAL}{FAR}/broker", ""),
        (f"{LOCAL}{FAR}:5432/broker?sslmode=require", ""),
        (f"{LOCAL}localhost,{FAR}/broker", ""),
        (f"{LOCAL}/broker?host={FAR}", ""),
        (f"{LOCAL}/broker?host=/run/postgresql,{FAR}", ""),
        (f"{LOCAL}{FAR}/broker?host=/run/postgresql", ""),  # the driver goes to the address
        (f"{LOCAL}/broker?host=/run/postgresql&host={FAR}", ""),  # and by the last of two
        (f"{LOCAL}{FAR}/broker?{VERIFIED}&sslmode=disable", ""),
        (f"postgresql://user:sec@ret@{FAR}/broker", ""),
        (f"{LOCAL}/broker", FAR),
        (f"{LOCAL}/broker?{VERIFIED}", FAR),
        (f"{LOCAL}/broker", f"/run/postgresql,{FAR}"),
        (f"{LOCAL}/broker?service=far", ""),
        ("mysql://user:secret@localhost/broker", ""),
    ],
)
def test_no_dsn_leaves_the_machine_unverified(monkeypatch, dsn, pghost):
    """Wherever the driver would find a host that is not local, the DSN must verify it, and name it itself."""
    monkeypatch.setenv("PGHOST", pghost)
    with pytest.raises(StartupError) as refused:
        check_dsn(dsn, "BROKER_DSN")

    assert "secret" not in str(refused.value)
    assert "sec@" not in str(refused.value)


@pytest.mark.parametrize(
    ("dsn", "pghost"),
    [
        (f"{LOCAL}localhost/broker", FAR),
        (f"{LOCAL}127.0.0.1:5432/broker", ""),
        (f"{LOCAL}[::1]:5432/broker", ""),
        (f"{LOCAL}%2Frun%2Fpostgresql/broker", FAR),
        (f"{LOCAL}/broker?host=/run/postgresql&port=5433", FAR),
        (f"{LOCAL}/broker", ""),
        (f"{LOCAL}/broker", "/run/postgresql"),
        (f"{LOCAL}{FAR}/broker?{VERIFIED}", ""),
        (f"{LOCAL}one.example,two.example:5433/broker?{VERIFIED}", FAR),
    ],
)
def test_local_and_verified_hosts_are_taken(monkeypatch, dsn, pghost):
    """Control: sockets, this machine, and whatever is verified."""
    monkeypatch.setenv("PGHOST", pghost)

    check_dsn(dsn, "BROKER_DSN")
