"""A small customer database of somebody else's, a catalog over it, and passes to open it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg

from broker.catalog import Catalog, Field, Kind, Mask
from broker.database import open_pool
from broker.records import READER_SETTINGS, RecordReader, apply, plan_install, rotate_guard_key
from tests.conftest import Database

SCHEMA = """
DO $$ BEGIN
    CREATE ROLE crm_owner NOLOGIN;
    CREATE ROLE crm_app LOGIN PASSWORD 'crm_app-pw';
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
CREATE SCHEMA crm AUTHORIZATION crm_owner;
GRANT USAGE ON SCHEMA crm TO crm_app;
SET ROLE crm_owner;
CREATE TABLE crm.customer (
    customer_id bigint PRIMARY KEY,
    name text NOT NULL,
    email text,
    birth_date date,
    secret text DEFAULT 'not in any catalog'
);
CREATE TABLE crm.invoice (
    invoice_id bigint PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES crm.customer,
    total numeric(10, 2) NOT NULL
);
CREATE INDEX invoice_customer ON crm.invoice (customer_id);
CREATE TABLE crm.invoice_line (
    invoice_line_id bigint PRIMARY KEY,
    invoice_id bigint NOT NULL REFERENCES crm.invoice,
    description text NOT NULL
);
CREATE INDEX invoice_line_invoice ON crm.invoice_line (invoice_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON crm.customer, crm.invoice, crm.invoice_line TO crm_app;
INSERT INTO crm.customer (customer_id, name, email, birth_date)
SELECT i, 'Name ' || i, 'c' || i || '@example.org', date '1980-01-01' + i FROM generate_series(1, 200) AS i;
INSERT INTO crm.invoice SELECT c * 10 + n, c, c + n / 100.0
FROM generate_series(1, 200) AS c, generate_series(0, 3) AS n;
INSERT INTO crm.invoice_line SELECT i.invoice_id * 10 + n, i.invoice_id,
    'line ' || n || ' of ' || i.customer_id
FROM crm.invoice AS i, generate_series(0, 2) AS n;
RESET ROLE;
ANALYZE crm.customer, crm.invoice, crm.invoice_line;
"""


def kind(
    name: str, columns: Sequence[str], *, key: str, via: str = "", link: str = "", rows: int = 1,
    schema: str = "crm", table: str = "",
) -> Kind:  # fmt: skip
    """Makes a kind whose fields are named as their columns."""
    fields = {c: Field(name, c, c, "profile", Mask.TEXT) for c in columns}
    return Kind(name, schema, table or name, key, fields, via, link, rows)


def catalog(*kinds: Kind) -> Catalog:
    """Makes a catalog; the usual three kinds by default."""
    chosen = kinds or (
        kind("customer", ["name", "email", "birth_date"], key="customer_id"),
        kind("invoice", ["total"], key="invoice_id", via="customer", link="customer_id", rows=3),
        kind(
            "invoice_line", ["description"], key="invoice_line_id", via="invoice", link="invoice_id", rows=50
        ),
    )
    return Catalog(
        ("general",), {"resolve-ticket": "."}, {"profile": "."}, frozenset(), {k.name: k for k in chosen}
    )


ALL = ("customer.name", "customer.email", "customer.birth_date", "invoice.total", "invoice_line.description")


@dataclass
class Guarded:
    """A records database with the guard in it, and the broker's database that mints."""

    records: Database
    broker: Database
    admin: asyncpg.Connection  # superuser in the records database
    mint: asyncpg.Connection  # broker_owner in the broker's database
    pool: asyncpg.Pool  # broker_reader
    reader: RecordReader
    catalog: Catalog

    async def grant(
        self,
        customer: str,
        fields: Sequence[str] = ALL,
        *,
        lives: float = 300.0,
        grant_id: UUID | None = None,
    ) -> tuple[UUID, str]:
        """Mints a pass; gives grant id and pass."""
        grant = grant_id or uuid4()
        end = datetime.now(UTC) + timedelta(seconds=lives)
        text = await self.mint.fetchval(
            "SELECT broker.mint_pass($1, $2, $3, $4)", grant, customer, list(fields), end
        )
        return grant, text

    async def read(self, customer: str, fields: Sequence[str] = ALL, **options: float):
        """Mints a pass and reads with it."""
        grant, text = await self.grant(customer, fields, **options)
        return await self.reader.read(grant_id=grant, guard_pass=text, fields=fields)

    async def rotate(self, **options: timedelta) -> str:
        """Rotates the guard key."""
        return await rotate_guard_key(self.mint, self.admin, **options)


async def guard(records: Database, broker: Database, chosen: Catalog, **reader: float) -> Guarded:
    """Installs the guard and opens what reads and mints."""
    admin = await asyncpg.connect(records.dsn())
    await apply(admin, await plan_install(admin, chosen))
    mint = await asyncpg.connect(broker.dsn("broker_owner"))
    await rotate_guard_key(mint, admin)
    pool = await open_pool(
        records.dsn("broker_reader"), name="reader", max_size=2, settings=dict(READER_SETTINGS), **reader
    )
    return Guarded(records, broker, admin, mint, pool, RecordReader(pool, chosen), chosen)


async def close(guarded: Guarded) -> None:
    """Closes all connections."""
    await guarded.reader.drain()
    await guarded.pool.close()
    await guarded.mint.close()
    await guarded.admin.close()


def with_rows(chosen: Catalog, name: str, rows: int) -> Catalog:
    """Gives the catalog with another row cap for a kind."""
    return replace(chosen, kinds={**chosen.kinds, name: replace(chosen.kinds[name], rows=rows)})
