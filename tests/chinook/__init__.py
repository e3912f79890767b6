"""The public Chinook sample as somebody else's database: tables, another program at work, a catalog.

The CSV files lie beside the checkout (`../shared/data/chinook`); the README there says what is what.
`load` makes the tables as the original shapes them, owned by `chinook_owner`; `OtherProgram` is a
process of its own that goes on using them. Nothing here imports more of the broker than the
catalog's values.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg
import pytest

from broker.catalog import Catalog, Field, Kind, Mask
from tests.conftest import Database

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "chinook"

SCHEMA = """
DO $$ BEGIN
    CREATE ROLE chinook_owner NOLOGIN;
    CREATE ROLE chinook_app LOGIN PASSWORD 'chinook_app-pw';
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
CREATE SCHEMA chinook AUTHORIZATION chinook_owner;
GRANT USAGE ON SCHEMA chinook TO chinook_app;
SET ROLE chinook_owner;
CREATE TABLE chinook.employee (
    employee_id integer PRIMARY KEY, last_name varchar(20) NOT NULL, first_name varchar(20) NOT NULL,
    title varchar(30), reports_to integer REFERENCES chinook.employee,
    birth_date timestamp, hire_date timestamp,
    address varchar(70), city varchar(40), state varchar(40), country varchar(40), postal_code varchar(10),
    phone varchar(24), fax varchar(24), email varchar(60)
);
CREATE TABLE chinook.customer (
    customer_id integer PRIMARY KEY, first_name varchar(40) NOT NULL, last_name varchar(20) NOT NULL,
    company varchar(80), address varchar(70), city varchar(40), state varchar(40), country varchar(40),
    postal_code varchar(10), phone varchar(24), fax varchar(24), email varchar(60) NOT NULL,
    support_rep_id integer REFERENCES chinook.employee
);
CREATE TABLE chinook.invoice (
    invoice_id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES chinook.customer,
    invoice_date timestamp NOT NULL, billing_address varchar(70), billing_city varchar(40),
    billing_state varchar(40), billing_country varchar(40), billing_postal_code varchar(10),
    total numeric(10, 2) NOT NULL
);
CREATE TABLE chinook.invoice_line (
    invoice_line_id integer PRIMARY KEY, invoice_id integer NOT NULL REFERENCES chinook.invoice,
    track_id integer NOT NULL, unit_price numeric(10, 2) NOT NULL, quantity integer NOT NULL
);
CREATE INDEX customer_support_rep_id_idx ON chinook.customer (support_rep_id);
CREATE INDEX employee_reports_to_idx ON chinook.employee (reports_to);
CREATE INDEX invoice_customer_id_idx ON chinook.invoice (customer_id);
CREATE INDEX invoice_line_invoice_id_idx ON chinook.invoice_line (invoice_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA chinook TO chinook_app;
RESET ROLE;
"""

TABLES = ("employee", "customer", "invoice", "invoice_line")
"""In the order in which they refer to each other."""


def rows(table: str) -> list[dict[str, str | None]]:
    """Reads a file; an empty field is NULL.

    Without the whole folder the test is skipped and says so, in CI it fails; a single missing file
    is an error everywhere.
    """
    if not FOLDER.is_dir():
        reason = f"the Chinook sample is not beside the checkout: no folder {FOLDER}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with (FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]


async def load(database: Database) -> None:
    """Makes and fills the tables, as their owner."""
    conn = await asyncpg.connect(database.dsn())
    try:
        await conn.execute(SCHEMA)
        for table in TABLES:
            # The server itself reads the text of each field as the column's type.
            await conn.execute(
                f"INSERT INTO chinook.{table} "
                f"SELECT * FROM json_populate_recordset(NULL::chinook.{table}, $1::text::json)",
                json.dumps(rows(table)),
            )
        await conn.execute("ANALYZE")
    finally:
        await conn.close()


CLASSES: Mapping[str, Sequence[tuple[str, str, Mask]]] = {
    "customer": (
        ("first_name", "profile", Mask.TEXT),
        ("last_name", "profile", Mask.TEXT),
        ("company", "profile", Mask.TEXT),
        ("city", "profile", Mask.TEXT),
        ("state", "profile", Mask.TEXT),
        ("country", "profile", Mask.TEXT),
        ("address", "contact", Mask.TEXT),
        ("postal_code", "contact", Mask.TEXT),
        ("phone", "contact", Mask.PHONE),
        ("fax", "contact", Mask.PHONE),
        ("email", "contact", Mask.EMAIL),
    ),
    "invoice": (
        ("invoice_date", "billing", Mask.DATE),
        ("billing_country", "billing", Mask.TEXT),
        ("total", "billing", Mask.TEXT),
    ),
    "invoice_line": (
        ("track_id", "billing", Mask.TEXT),
        ("unit_price", "billing", Mask.TEXT),
        ("quantity", "billing", Mask.TEXT),
    ),
}
"""Mapped columns with class and mask; `support_rep_id` and the rest stay unmapped."""


def catalog() -> Catalog:
    """Points at the tables without changing them."""

    def fields(kind: str) -> dict[str, Field]:
        return {name: Field(kind, name, name, of, how) for name, of, how in CLASSES[kind]}

    kinds = (
        Kind("customer", "chinook", "customer", "customer_id", fields("customer")),
        Kind("invoice", "chinook", "invoice", "invoice_id", fields("invoice"), "customer", "customer_id", 50),
        Kind(
            "invoice_line", "chinook", "invoice_line", "invoice_line_id", fields("invoice_line"), "invoice",
            "invoice_id", 200,
        ),
    )  # fmt: skip
    return Catalog(
        ("account", "billing"),
        {"resolve-ticket": "Solve what the ticket asks."},
        {"profile": "Who it is.", "contact": "How to reach them.", "billing": "What they bought."},
        frozenset({"contact"}),
        {k.name: k for k in kinds},
    )


PROGRAM = Path(__file__).with_name("program.py")


class OtherProgram:
    """A process that reads and writes the tables as `chinook_app` until it is told to stop."""

    def __init__(self, database: Database) -> None:
        """Starts it and waits until it is connected."""
        dsn = database.server.dsn(database.name, "chinook_app", "chinook_app-pw")
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), dsn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """Ends it, whatever it is doing; nothing where it has ended."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def stop(self) -> dict[str, object]:
        """Stops it and gives what it noticed: rounds, errors, each set of counts, the longest round."""
        told, _ = self._process.communicate("stop\n", timeout=30)
        report: dict[str, object] = json.loads(told)
        return report
