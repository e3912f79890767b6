"""Sample people, customers and tickets; the same for the same seed.

Invariants:
- nobody real: names and addresses are drawn by faker, e-mail addresses end in `example.com` and the
  like, card numbers are test numbers;
- pure: drawing needs no database, loading is `load`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from faker import Faker

SEED = 2019
"""Year of the case that this broker exists for; any number would do."""

FIRST_TICKET = 1001
FIRST_CUSTOMER = 1
TODAY = datetime(2026, 1, 1, tzinfo=UTC)
"""Day that sample invoices are counted back from: fixed, so that the same seed gives the same data."""

TICKET_KINDS = ("general", "account", "device", "billing", "refund")
DEVICES = ("Pixel 9", "iPhone 16", "ThinkPad X1", "Galaxy S25", "MacBook Air", "Surface Laptop")
PLANS = ("free", "home", "family", "business")
PRODUCTS = ("Licence, one year", "Licence, two years", "Extra device", "Set-up by phone", "Password vault")


@dataclass(frozen=True, slots=True)
class SampleAgent:
    """One support employee."""

    subject: str
    groups: tuple[str, ...]


TIER1, TIER2 = ("support-tier1",), ("support-tier2",)
BILLING, SUPERVISORS = ("support-billing",), ("support-supervisors",)

AGENTS: tuple[SampleAgent, ...] = (
    SampleAgent("alice", TIER1),
    SampleAgent("mallory", TIER1),
    SampleAgent("bob", TIER2),
    SampleAgent("bella", BILLING),
    SampleAgent("sam", SUPERVISORS),
    *(
        SampleAgent(name, TIER1)
        for name in ("amir", "chen", "dana", "emeka", "fatou", "goran", "hanna", "ivan")
    ),
    *(SampleAgent(name, TIER1) for name in ("jonas", "kofi", "lucia", "marta", "nadia", "olga", "pablo")),
    *(SampleAgent(name, TIER2) for name in ("quinn", "rosa", "stefan", "tariq", "uma")),
    *(SampleAgent(name, BILLING) for name in ("vera", "wei")),
    SampleAgent("xenia", SUPERVISORS),
    SampleAgent("yusuf", (*TIER1, *BILLING)),
    SampleAgent("zoe", (*TIER2, *SUPERVISORS)),
)
"""The sample company's agents; the first five play the demo."""

ADMINISTRATORS: tuple[SampleAgent, ...] = (
    SampleAgent("anna", ("security-admins", "approvers")),
    SampleAgent("boris", ("security-admins", "approvers")),
    SampleAgent("audrey", ("auditors",)),
    SampleAgent("rick", ("incident-responders",)),
    SampleAgent("olga", ("operators",)),
    SampleAgent("petra", ("privacy-officers",)),
)
"""The persons who administer, at an identity provider of their own."""


@dataclass(frozen=True, slots=True)
class SampleAssignment:
    """One agent's relation to a ticket; `assigned_by` is `queue` or an agent's subject."""

    subject: str
    relation: str = "assignee"
    assigned_by: str = "queue"


@dataclass(frozen=True, slots=True)
class SampleTicket:
    """One ticket; `opened_by` is `customer`, `system` or an agent's subject."""

    ticket_id: str
    kind: str
    customers: tuple[str, ...]
    assignments: tuple[SampleAssignment, ...]
    opened_by: str = "customer"
    status: str = "open"


@dataclass(frozen=True, slots=True)
class SampleData:
    """Everything drawn: rows as the tables take them, and tickets."""

    customers: Sequence[tuple[object, ...]]
    invoices: Sequence[tuple[object, ...]]
    invoice_lines: Sequence[tuple[object, ...]]
    tickets: Sequence[SampleTicket]


CRM_SQL = """
CREATE SCHEMA crm;
CREATE TABLE crm.customer (
    customer_id bigint PRIMARY KEY, name text NOT NULL, company text, email text, phone text, birth_date date,
    street text, city text, postal_code text, country text, plan text, card_number text, iban text,
    device_model text, device_serial text, id_document text, notes text
);
CREATE TABLE crm.invoice (
    invoice_id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES crm.customer,
    invoice_date timestamptz NOT NULL, total numeric(10, 2) NOT NULL, status text NOT NULL
);
CREATE INDEX ON crm.invoice (customer_id);
CREATE TABLE crm.invoice_line (
    invoice_line_id bigint PRIMARY KEY, invoice_id bigint NOT NULL REFERENCES crm.invoice,
    description text NOT NULL, quantity integer NOT NULL, unit_price numeric(10, 2) NOT NULL
);
CREATE INDEX ON crm.invoice_line (invoice_id);
"""
"""The sample company's own schema, run as its owner; `policies/catalog.yaml` speaks of it."""

CRM_OWNER = "crm_owner"


def draw(customers: int, *, agents: Sequence[SampleAgent] = AGENTS, seed: int = SEED) -> SampleData:
    """Draws customers with invoices, and tickets for two of three of them.

    Args:
        customers: how many.
        agents: who works on the tickets; the first has the first ticket.
        seed: the same gives the same.
    """
    from faker import Faker  # noqa: PLC0415 - of the extra `dev`; naming an agent must not need it

    chance = random.Random(seed)  # noqa: S311 - sample data
    fake = Faker(["en_US", "en_GB", "de_DE", "fr_FR"], use_weighting=False)
    fake.seed_instance(seed)
    rows = [_customer(number, fake, chance) for number in range(FIRST_CUSTOMER, FIRST_CUSTOMER + customers)]
    invoices, lines = _invoices(customers, chance)
    return SampleData(rows, invoices, lines, _tickets(customers, agents, chance))


def _customer(number: int, fake: Faker, chance: random.Random) -> tuple[object, ...]:
    name = fake.name()
    digits = "".join(chance.choices("0123456789", k=16))
    return (
        number,
        name,
        fake.company() if chance.random() < 0.3 else None,  # noqa: PLR2004 - a share of business customers
        fake.safe_email(),
        f"+1 555 {digits[:3]} {digits[3:7]}",
        date(1945, 1, 1) + timedelta(days=chance.randrange(60 * 365)),
        fake.street_address(),
        fake.city(),
        fake.postcode(),
        fake.current_country_code(),
        chance.choice(PLANS),
        f"4000 {digits[:4]} {digits[4:8]} {digits[8:12]}",
        f"DE{digits[:2]}50010517{digits[2:12]}",
        chance.choice(DEVICES),
        f"SN-{digits[6:15]}",
        f"P{digits[7:15]}",
        fake.sentence(),
    )


def _invoices(
    customers: int, chance: random.Random
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    invoices: list[tuple[object, ...]] = []
    lines: list[tuple[object, ...]] = []
    for customer in range(FIRST_CUSTOMER, FIRST_CUSTOMER + customers):
        for _ in range(chance.randrange(4)):
            total = Decimal(0)
            for _ in range(chance.randint(1, 3)):
                quantity, price = chance.randint(1, 3), Decimal(chance.randrange(500, 9900)) / 100
                total += quantity * price
                lines.append((len(lines) + 1, len(invoices) + 1, chance.choice(PRODUCTS), quantity, price))
            day = TODAY - timedelta(days=chance.randrange(1500))
            status = chance.choice(("paid", "paid", "open", "refunded"))
            invoices.append((len(invoices) + 1, customer, day, total, status))
    return invoices, lines


def _tickets(customers: int, agents: Sequence[SampleAgent], chance: random.Random) -> list[SampleTicket]:
    """Draws tickets: the first is the first agent's, routed and general; the rest are mixed."""
    subjects = [agent.subject for agent in agents]
    by_group = {group: [a.subject for a in agents if group in a.groups] for a in agents for group in a.groups}
    tickets = [
        SampleTicket(
            f"T-{FIRST_TICKET}", TICKET_KINDS[0], (str(FIRST_CUSTOMER),), (SampleAssignment(subjects[0]),)
        )
    ]
    supervisors = by_group.get(SUPERVISORS[0], [])
    for number in range(1, max(customers * 2 // 3, 1)):
        kind = chance.choice(TICKET_KINDS)
        group = BILLING[0] if kind in {"billing", "refund"} else chance.choice((TIER1[0], TIER1[0], TIER2[0]))
        assignee = chance.choice(by_group.get(group) or subjects)
        assigned_by = chance.choices(("queue", assignee, chance.choice(subjects)), (85, 5, 10))[0]
        assignments = [SampleAssignment(assignee, assigned_by=assigned_by)]
        if supervisors and chance.randrange(5) == 0:
            supervisor = chance.choice(supervisors)
            if supervisor != assignee:
                assignments.append(SampleAssignment(supervisor, "supervisor"))
        customer = FIRST_CUSTOMER + chance.randrange(customers)
        opened_by = chance.choices(("customer", "system", assignee), (85, 10, 5))[0]
        tickets.append(
            SampleTicket(f"T-{FIRST_TICKET + number}", kind, (str(customer),), tuple(assignments), opened_by)
        )
    return tickets


async def load(conn: asyncpg.Connection, data: SampleData, *, owner: str = CRM_OWNER) -> None:
    """Makes the sample company's tables and fills them, all or nothing.

    Args:
        conn: a superuser's connection to the records database.
        data: as drawn.
        owner: the role that shall own them; it must exist.
    """
    async with conn.transaction():
        database = await conn.fetchval(
            "SELECT format('GRANT CREATE ON DATABASE %I TO %I', current_database(), $1::text)", owner
        )
        await conn.execute(database)
        await conn.execute(await conn.fetchval("SELECT format('SET LOCAL ROLE %I', $1::text)", owner))
        await conn.execute(CRM_SQL)
        tables = (
            ("customer", data.customers),
            ("invoice", data.invoices),
            ("invoice_line", data.invoice_lines),
        )
        for table, rows in tables:
            await conn.copy_records_to_table(table, schema_name="crm", records=rows)
    await conn.execute("ANALYZE crm.customer, crm.invoice, crm.invoice_line")
