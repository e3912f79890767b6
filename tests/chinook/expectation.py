"""Who sees what of Chinook, worked out from the CSV files by hand: nothing of the broker is used here.

The rules, in words, as a reader of `policies/` would say them:
- the employee who looks after a customer (`support_rep_id`) sees on their ticket who it is, what they bought
  and, as the customer is on the line, the e-mail address clear; street, postal code and phone masked; a
  line's unit price masked; no fax;
- that employee's manager (`reports_to`) sees all of it masked, for a review; no fax;
- nobody else sees anything.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

PROFILE = ("first_name", "last_name", "company", "city", "state", "country")
CONTACT = {"street": "address", "postal_code": "postal_code", "phone": "phone", "email": "email"}
FIELDS = (
    *(f"customer.{name}" for name in (*PROFILE, *CONTACT, "fax")),
    *(f"invoice.{name}" for name in ("invoice_date", "billing_country", "total")),
    *(f"invoice_line.{name}" for name in ("track_id", "unit_price", "quantity")),
)

State = str  # clear, masked, withheld
Seen = dict[str, tuple[State, tuple[str | None, ...]]]
"""Field -> how it is shown, and a value per row, newest first."""


class Expectation:
    """Everything that any employee may see of any customer."""

    def __init__(self, folder: Path) -> None:
        """Reads the files."""
        self.employees = _rows(folder, "employee")
        self.customers = _rows(folder, "customer")
        self._invoices = _rows(folder, "invoice")
        self._lines = _rows(folder, "invoice_line")
        self._manager = {e["employee_id"]: e["reports_to"] for e in self.employees}

    def agent_of(self, customer: dict[str, str]) -> str:
        """Gives the employee who looks after a customer."""
        return customer["support_rep_id"]

    def manager_of(self, employee: str) -> str:
        """Gives whom an employee reports to."""
        return self._manager[employee]

    def seen(self, customer: dict[str, str], employee: str, purpose: str) -> Seen | None:
        """Gives what an employee sees of a customer for a purpose; None: nothing at all."""
        agent = self.agent_of(customer)
        if employee == agent and purpose == "resolve-ticket":
            return self._as_agent(customer)
        if employee == self.manager_of(agent) and purpose == "quality-review":
            return self._as_manager(customer)
        return None

    def _as_agent(self, customer: dict[str, str]) -> Seen:
        seen: Seen = {}
        for field, values in self._values(customer).items():
            name = field.partition(".")[2]
            if name in {"street", "postal_code", "phone", "unit_price"}:
                seen[field] = ("masked", tuple(hidden(name, value) for value in values))
            else:
                seen[field] = ("clear", tuple(value or None for value in values))
        return {**seen, "customer.fax": ("withheld", ())}

    def _as_manager(self, customer: dict[str, str]) -> Seen:
        seen: Seen = {
            field: ("masked", tuple(hidden(field.partition(".")[2], value) for value in values))
            for field, values in self._values(customer).items()
        }
        return {**seen, "customer.fax": ("withheld", ())}

    def _values(self, customer: dict[str, str]) -> dict[str, list[str]]:
        """Gives the CSV's own values by field name; invoices newest first, and so their lines."""
        theirs = [i for i in self._invoices if i["customer_id"] == customer["customer_id"]]
        theirs.sort(key=lambda row: int(row["invoice_id"]), reverse=True)
        numbers = {i["invoice_id"] for i in theirs}
        lines = [line for line in self._lines if line["invoice_id"] in numbers]
        lines.sort(key=lambda row: int(row["invoice_line_id"]), reverse=True)
        return {
            **{f"customer.{name}": [customer[name]] for name in PROFILE},
            **{f"customer.{name}": [customer[column]] for name, column in CONTACT.items()},
            **{f"invoice.{n}": [i[n] for i in theirs] for n in ("invoice_date", "billing_country", "total")},
            **{
                f"invoice_line.{n}": [line[n] for line in lines]
                for n in ("track_id", "unit_price", "quantity")
            },
        }


def hidden(name: str, value: str) -> str | None:
    """Masks a value as the manual's table says, field by field; NULL, an empty field here, stays NULL."""
    if value == "":
        return None
    if name == "email":
        person, _, host = value.partition("@")
        return f"{_initial(person)}•••@{_initial(host.split('.')[0])}•••.{host.split('.')[-1]}"
    if name == "phone":
        digits = re.sub(r"\D", "", value)
        return "•••" + digits[-2:] if len(digits) > 6 and not re.search(r"[^0-9() ./+-]", value) else "•••"
    if name == "invoice_date":
        return value[:4] + "-••-••"
    if name == "total":
        return "•••"  # its last four characters would be most of it
    return _initial(value) + "•••"


def _initial(text: str) -> str:
    return text[0] if len(text) > 2 and text[0].isalpha() else ""


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
