"""The broker before somebody else's customers: all 59 of Chinook, all 8 employees, every field and value."""

from __future__ import annotations

import ast
import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from broker.client import BrokerCallError, BrokerClient, FieldState
from broker.dev.helpdesk import assignment
from broker.dev.sample import SampleAgent
from broker.dev.world import World, agent
from broker.policy import PolicyFiles, load
from broker.records import apply, plan_install, plan_uninstall
from tests import chinook
from tests.chinook.expectation import FIELDS, Expectation, Seen
from tests.conftest import Database
from tests.promises.company import connected

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICIES = Path(__file__).parent / "policies"
PURPOSES = ("resolve-ticket", "quality-review")

LOOKS = {
    "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default"
    " FROM information_schema.columns WHERE table_schema = 'chinook' ORDER BY 1, ordinal_position",
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'chinook'::regnamespace ORDER BY 1, 2",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'chinook'"
    " ORDER BY 1, 2",
    "owners, rights, row security": "SELECT relname, relkind::text, pg_get_userbyid(relowner), relacl::text,"
    " relrowsecurity, relforcerowsecurity FROM pg_class WHERE relnamespace = 'chinook'::regnamespace"
    " ORDER BY 1",
    "rights on columns": "SELECT attrelid::regclass::text, attname, attacl::text FROM pg_attribute"
    " WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'chinook'::regnamespace)"
    " AND attacl IS NOT NULL ORDER BY 1, 2",
    "schema": "SELECT nspacl::text, pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'chinook'",
    "policies": "SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'chinook' ORDER BY 1, 2",
    "triggers": "SELECT tgrelid::regclass::text, tgname FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid"
    " WHERE c.relnamespace = 'chinook'::regnamespace AND NOT tgisinternal ORDER BY 1, 2",
    **{
        f"rows of {table}": "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text))"
        f" FROM chinook.{table} AS t"
        for table in chinook.TABLES
    },
}
"""What the owner of the tables would look at, to see whether somebody touched them."""


async def look(conn: asyncpg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Looks at the tables as they are now."""
    return {what: [tuple(row) for row in await conn.fetch(sql)] for what, sql in LOOKS.items()}


@dataclass
class Company:
    """Chinook with a broker before it, and what was noted on the way."""

    world: World
    expectation: Expectation
    database: Database
    program: chinook.OtherProgram
    before: dict[str, list[tuple[Any, ...]]]


def subject(employee: str) -> str:
    """Names an employee to the identity provider."""
    return f"employee-{employee}"


def ticket_of(customer: dict[str, str]) -> str:
    """Names the one open ticket of a customer."""
    return f"CH-{int(customer['customer_id']):03}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def company() -> AsyncIterator[Company]:
    """Loads Chinook, lets its program work, points the broker at the tables and assigns by signed events."""
    chinook.rows("customer")  # skips, or fails in CI, where the sample is not there
    expectation = Expectation(chinook.FOLDER)
    staff = [
        SampleAgent(subject(e["employee_id"]), (e["title"].lower().replace(" ", "-"),))
        for e in expectation.employees
    ]
    start = World.start(agents=staff, customers=1, separate_records=True, fsync=False, serving=False)
    async with start as world:
        database = Database(world.databases.server, world.databases.records_name)
        await chinook.load(database)
        async with connected(database.dsn()) as dba:
            before = await look(dba)
            program = await asyncio.to_thread(chinook.OtherProgram, database)
            try:
                shutil.rmtree(world.layout.policies / "tests")  # of the sample company's policy
                for file in POLICIES.iterdir():
                    shutil.copyfile(file, world.layout.policies / file.name)
                policy = load(PolicyFiles.from_directory(world.layout.policies), "chinook")
                await apply(dba, await plan_install(dba, policy.catalog))
                await world.start_serving()
                await world.publish(*assigned(world, expectation))
                yield Company(world, expectation, database, program, before)
            finally:
                await asyncio.to_thread(program.kill)


def assigned(world: World, expectation: Expectation) -> list[str]:
    """Signs the events: one open ticket per customer, for their support agent and, over it, the manager."""
    helpdesk = world.helpdesk
    events = [helpdesk.close(ticket) for ticket in helpdesk.ticket_ids()]  # of the sample company
    for customer in expectation.customers:
        rep = expectation.agent_of(customer)
        ticket = ticket_of(customer)
        events.append(helpdesk.open(ticket, customers=[customer["customer_id"]], kind="account"))
        events.append(
            helpdesk.assign(
                ticket,
                assignment(agent(subject(rep))),
                assignment(agent(subject(expectation.manager_of(rep))), relation="supervisor"),
            )
        )
        events.append(helpdesk.call_started(ticket))  # what is in clear with the customer on the line
    return events


async def shown(client: BrokerClient, ticket: str, purpose: str) -> Seen | str:
    """Asks for every field; gives what came, or the reason why nothing did."""
    try:
        record = await client.read(ticket, FIELDS, purpose=purpose)
    except BrokerCallError as exc:
        return exc.reason
    assert not any(f.truncated for f in record)
    return {f.name: (f.state.value, f.values if f.state is not FieldState.WITHHELD else ()) for f in record}


async def test_who_sees_what(company):
    """For all 59 customers and all 8 employees, field by field: what the files say they see, and no more."""
    disclosed = dict.fromkeys(PURPOSES, 0)
    refused = 0
    for employee in company.expectation.employees:
        number = employee["employee_id"]
        async with company.world.client(subject(number)) as client:
            for customer in company.expectation.customers:
                for purpose in PURPOSES:
                    found = await shown(client, ticket_of(customer), purpose)
                    expected = company.expectation.seen(customer, number, purpose)
                    if expected is None:
                        rep = company.expectation.agent_of(customer)
                        related = number in {rep, company.expectation.manager_of(rep)}
                        assert found == ("POLICY_DENIED" if related else "TICKET_DENIED")
                        refused += 1
                    else:
                        assert found == expected, (number, customer["customer_id"], purpose)
                        disclosed[purpose] += 1
    assert disclosed == {"resolve-ticket": 59, "quality-review": 59}  # control: not everything was refused
    assert refused == 8 * 59 * 2 - 2 * 59


async def test_unmapped_columns_stay_out(company):
    """Whom a customer belongs to and the billing address are columns that no field leads to."""
    async with company.world.client(subject("3")) as client:
        for name in (
            "customer.support_rep_id",
            "customer.address",
            "invoice.billing_address",
            "employee.email",
        ):
            with pytest.raises(BrokerCallError) as refused:
                await client.read("CH-001", [name], purpose="resolve-ticket")
            assert refused.value.reason == "FIELD_UNKNOWN"
        assert await client.read("CH-001", ["customer.city"], purpose="resolve-ticket")  # control


async def test_other_program_noticed_nothing(company):
    """It worked all the while; with the guard undone every table is as it was, to the last right and row."""
    async with connected(company.database.dsn()) as dba:
        during = await look(dba)
        noticed = await asyncio.to_thread(company.program.stop)
        await apply(dba, await plan_uninstall(dba, destroy_salts=True))
        after = await look(dba)

    assert noticed["errors"] == []
    assert noticed["rounds"] > 50
    [counts] = noticed["counts"]  # the same in each round, before the guard stood and since
    assert counts[:5] == [413, 8, 59, 412, 2240]
    assert noticed["longest"] < 5
    assert during["policies"] != company.before["policies"]  # control: looking at it so would show a change
    assert [what for what in LOOKS if what.startswith("rows") and during[what] != company.before[what]] == []
    assert after == company.before


async def test_expectation_stands_alone():
    """What is expected, and the other program, are worked out without the broker."""
    for name in ("expectation.py", "program.py"):
        tree = ast.parse((Path(__file__).parent / name).read_text("utf-8"))
        imported = {
            alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
        }
        assert "broker" not in imported
        assert "tests" not in imported
