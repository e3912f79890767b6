"""What an installed guard lacks of a catalog, and who may find out."""

from dataclasses import replace

import pytest

from broker.catalog import Mask
from broker.records.shape import guard_shape, shape_digest, uncovered
from tests.records import crm

CUSTOMER = crm.kind("customer", ["name", "email"], key="customer_id")
INVOICE = crm.kind("invoice", ["total"], key="invoice_id", via="customer", link="customer_id", rows=3)
INSTALLED = guard_shape(crm.catalog(CUSTOMER, INVOICE))


@pytest.mark.parametrize(
    ("kinds", "sentences"),
    [
        ([CUSTOMER, INVOICE], []),
        ([CUSTOMER], []),
        ([crm.kind("customer", ["name"], key="customer_id"), replace(INVOICE, rows=2)], []),
        ([CUSTOMER, replace(INVOICE, rows=4)], ["kind invoice: the guard shows 3 rows at most, not 4"]),
        ([CUSTOMER, replace(INVOICE, name="bill")], ["kind bill: the guard does not have it"]),
        ([CUSTOMER, replace(INVOICE, link="payer_id")],
         ["kind invoice: the guard has link customer_id, not payer_id"]),
        ([replace(CUSTOMER, table="person"), INVOICE],
         ["kind customer: the guard has table crm.customer, not crm.person"]),
        ([replace(CUSTOMER, key="id"), INVOICE], ["kind customer: the guard has key customer_id, not id"]),
        ([CUSTOMER, replace(INVOICE, via="")], ["kind invoice: the guard has parent customer, not none"]),
        ([crm.kind("customer", ["name", "phone"], key="customer_id")],
         ["customer.phone: the guard does not have it (column phone)"]),
        ([replace(CUSTOMER, fields={"name": replace(CUSTOMER.fields["name"], column="email")})],
         ["customer.name: the guard has column name, not email"]),
        ([replace(CUSTOMER, fields={"name": replace(CUSTOMER.fields["name"], mask=Mask.TAIL,
                                                    field_class="contact")})], []),
    ],
)  # fmt: skip
def test_lacking_is_said(kinds, sentences):
    """More columns, other places and more rows want the administrator; less, and masks, do not."""
    assert uncovered(INSTALLED, crm.catalog(*kinds)) == tuple(sentences)


def test_no_guard_lacks_everything():
    """Where nothing is installed, every kind is lacking."""
    assert uncovered({}, crm.catalog(CUSTOMER, INVOICE)) == (
        "kind customer: the guard does not have it",
        "kind invoice: the guard does not have it",
    )


def test_digest_is_of_what_the_guard_holds():
    """Another order is the same shape, another column is not."""
    assert shape_digest(INSTALLED) == shape_digest(guard_shape(crm.catalog(INVOICE, CUSTOMER)))
    assert shape_digest(INSTALLED) != shape_digest(guard_shape(crm.catalog(CUSTOMER)))


async def test_the_reader_may_ask(guarded: crm.Guarded):
    """An access worker learns the installed shape with its reading role, and gets no data by it."""
    assert await guarded.reader.installed_shape() == guard_shape(guarded.catalog)

    await guarded.admin.execute("DROP FUNCTION broker_guard.status()")
    assert await guarded.reader.installed_shape() is None


async def test_a_guard_ahead_of_the_active_catalog_stands(guarded: crm.Guarded):
    """Between the administrator's step and the publication brokers start and read, at the lower cap, too."""
    kinds = [replace(kind, rows=min(kind.rows, 2)) for kind in guarded.catalog.kinds.values()]
    fewer = {name: field for name, field in kinds[0].fields.items() if name != "email"}
    active = crm.catalog(replace(kinds[0], fields=fewer), *kinds[1:])

    await guarded.reader.verify_role(active)
    guarded.reader.use(active)
    fields = ("customer.name", "invoice.total")
    found = await guarded.read("7", fields)
    assert [len(found.rows[kind]) for kind in ("customer", "invoice")] == [1, 2]
    assert found.truncated == {"invoice"}


async def test_no_guard_at_all(crm_database):
    """Where nothing is installed the reader hears so, not an error."""
    pool = await crm.open_pool(crm_database.dsn("broker_reader"), name="test", max_size=1)
    assert await crm.RecordReader(pool, crm.catalog()).installed_shape() is None
    await pool.close()
