from __future__ import annotations

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
        "line 0 of 7",
        "line 1 of 7",
        "line 2 of 7",
    }
    assert len(found.rows["invoice_line"]) == 12
