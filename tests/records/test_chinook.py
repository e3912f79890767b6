from __future__ import annotations

import asyncio
from datetime import datetime

import asyncpg

from broker.records import apply, check, plan_install, plan_uninstall
from tests import chinook
from tests.conftest import Database
from tests.records import crm


def text_of(column: str, value: str | None) -> str | None:
    """Gives a CSV value as PostgreSQL spells the column's type."""
    return str(datetime.fromisoformat(value)) if value and column == "invoice_date" else value


async def test_another_program_notices_nothing(database: Database):
    """While guard is installed, changed, read through and undone, a second process works on undisturbed."""
    await chinook.load(database)
    admin = await asyncpg.connect(database.dsn())
    program = await asyncio.to_thread(chinook.OtherProgram, database)
    guarded = await crm.guard(database, database, chinook.catalog())
    for _ in range(3):
        for chosen in (crm.with_rows(chinook.catalog(), "invoice", 9), chinook.catalog()):
            await apply(admin, await plan_install(admin, chosen))
            assert [a for a in await check(admin, chosen) if not a.ok] == []
            found = await guarded.read("5", ["customer.email", "invoice.total"])
            assert found.rows["customer"][0].values["customer.email"]
    await crm.close(guarded)
    await apply(admin, await plan_uninstall(admin))
    noticed = await asyncio.to_thread(program.stop)

    assert noticed["errors"] == []
    assert noticed["rounds"] > 5
    (counts,) = noticed["counts"]  # the same in every round
    assert counts[:5] == [413, 8, 59, 412, 2240]
    assert noticed["longest"] < 5.0
    await admin.close()


async def test_every_customer_through_the_guard(database: Database):
    """For all 59 customers the guard shows the mapped columns as the files hold them, and theirs alone."""
    await chinook.load(database)
    guarded = await crm.guard(database, database, chinook.catalog())
    customers = chinook.rows("customer")
    fields = list(guarded.catalog.fields)
    grants = [await guarded.grant(c["customer_id"], fields) for c in customers]
    found = await asyncio.gather(
        *(guarded.reader.read(grant_id=grant, guard_pass=text, fields=fields) for grant, text in grants)
    )
    invoices, lines = chinook.rows("invoice"), chinook.rows("invoice_line")
    for customer, seen in zip(customers, found, strict=True):
        theirs = [i for i in invoices if i["customer_id"] == customer["customer_id"]]
        ids = {i["invoice_id"] for i in theirs}
        expected = {
            "customer": [customer],
            "invoice": sorted(theirs, key=lambda i: -int(i["invoice_id"])),
            "invoice_line": sorted(
                (li for li in lines if li["invoice_id"] in ids), key=lambda li: -int(li["invoice_line_id"])
            ),
        }
        for kind, wanted in expected.items():
            columns = guarded.catalog.kinds[kind].fields
            assert [dict(r.values) for r in seen.rows[kind]] == [
                {f"{kind}.{c}": text_of(c, row[c]) for c in columns} for row in wanted
            ]
        assert seen.truncated == frozenset()
    await crm.close(guarded)
