"""Customers whose every field is a marker."""

from __future__ import annotations

from datetime import date

import asyncpg

from tests.leaks.search import Marker

FIRST = 9_000_000_001
"""First marked customer; the number itself is a marker where customers go by pseudonyms."""

COUNT = 4

# Where a value ends in digits the sixth from the end is 0: a number of nanoseconds never begins so.
COLUMNS = {
    "name": "Ximena{n} Quastelbrodt{n}",
    "company": "Vorpal{n}werke Zwillinghausen{n}",
    "email": "ximena.quastel{n}@zwillinghausen{n}.example",
    "phone": "+1 555 {n}80 0{n}2945",
    "street": "Krummhornweg {n}17 Hinterhaus{n}",
    "city": "Obermuffingen{n}",
    "postal_code": "QX{n}7 9ZL-{n}",
    "country": "Zamonien{n}",
    "plan": "sonderplan{n}grau",
    "card_number": "4917 {n}204 8809 {n}371",
    "iban": "DE{n}7500105170{n}38064915",
    "device_model": "Handtaschofon{n} Ultra",
    "device_serial": "SN-QQ{n}7701904{n}",
    "id_document": "PX{n}40Z8819{n}",
    "notes": "rang an wegen Kanarienvogel{n}, Rueckruf 0{n}3377 unter 0171 0{n}60 4193{n}",
}


def customer_ids() -> list[int]:
    """Gives the marked customers."""
    return [FIRST + i for i in range(COUNT)]


def markers() -> list[Marker]:
    """Gives every field's value of every marked customer."""
    found = []
    for i, customer in enumerate(customer_ids()):
        found += [Marker(f"{column} of {customer}", text.format(n=i + 3)) for column, text in COLUMNS.items()]
        found.append(Marker(f"birth_date of {customer}", _birth_date(i).isoformat()))
    return found


def number_markers(tickets: list[str]) -> list[Marker]:
    """Gives customers' numbers and tickets: not in log, spans, metrics or ledger, where pseudonyms stand."""
    return [
        *(Marker(f"number of customer {customer}", str(customer)) for customer in customer_ids()),
        *(Marker(f"ticket {ticket}", ticket) for ticket in tickets),
    ]


async def insert(conn: asyncpg.Connection) -> None:
    """Puts the marked customers into the customers' table, with an invoice each."""
    names = ", ".join(COLUMNS)
    places = ", ".join(f"${i + 3}" for i in range(len(COLUMNS)))
    for i, customer in enumerate(customer_ids()):
        await conn.execute(
            f"INSERT INTO crm.customer (customer_id, birth_date, {names}) VALUES ($1, $2, {places})",
            customer,
            _birth_date(i),
            *(text.format(n=i + 3) for text in COLUMNS.values()),
        )
        await conn.execute(
            "INSERT INTO crm.invoice VALUES ($1, $2, '2025-03-04', 812.34, $3)",
            customer,
            customer,
            f"offen wegen Kanarienvogel{i + 3}",
        )


def _birth_date(i: int) -> date:
    return date(1907, 10, 11 + i)
