"""First load of tickets from a CSV file, before a helpdesk's first events.

Columns: ticket_id, kind, status, customer_id (several joined by `;`), agent_issuer, agent_subject,
relation, opened_by (customer, system or import; blank means import). One line per ticket and agent;
a ticket without an agent leaves the three agent columns blank.

Invariants:
- the whole file is checked before the first ticket is loaded; findings name file and line;
- whoever is assigned is assigned by the import: nobody vouches for it, and the policy can say so;
- what an event ever said of a ticket is newer: the load is version 0 and never undoes it;
- loading twice ends as loading once, so a load that broke off is simply run again.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg

from broker.database import connection, queries
from broker.errors import EventConflictError, RequestMalformedError
from broker.model import TicketStatus
from broker.tickets import words
from broker.tickets.events import (
    MAX_ASSIGNMENTS,
    MAX_CUSTOMERS,
    AssignedRelation,
    Assigner,
    Assignment,
    Details,
    Opener,
    TicketEvent,
)
from broker.tickets.words import refuse

SQL = queries("tickets")

COLUMNS = (
    "ticket_id",
    "kind",
    "status",
    "customer_id",
    "agent_issuer",
    "agent_subject",
    "relation",
    "opened_by",
)

MAX_FINDINGS = 20
"""Findings reported at once; a file with the wrong separator has one per line."""

BATCH = 500
"""Tickets per transaction, well inside the statement timeout."""


class ImportInvalidError(Exception):
    """The file is wrong and nothing was loaded; carries findings as `tickets.csv:12: sentence`."""

    def __init__(self, findings: list[str]) -> None:
        """Holds the findings, the first MAX_FINDINGS of them."""
        super().__init__("\n".join(findings))
        self.findings = findings


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did."""

    loaded: int
    kept: int  # tickets that an event had described before


def read_file(path: Path) -> list[TicketEvent]:
    """Reads and checks a whole file.

    Raises:
        ImportInvalidError: anything is wrong with it.
    """
    tickets: dict[str, TicketEvent] = {}
    findings: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a mark first
            for line, row in _rows(csv.reader(file, strict=True)):
                try:
                    event = _read_row(row)
                    known = tickets.get(event.ticket_id)
                    tickets[event.ticket_id] = _joined(known, event) if known else event
                except RequestMalformedError as exc:
                    findings.append(f"{path.name}:{line}: {exc.cause}")
                if len(findings) >= MAX_FINDINGS:
                    break
    except _FileError as exc:
        findings.append(f"{path.name}:{exc}")
    except csv.Error as exc:
        findings.append(f"{path.name}: not CSV ({exc})")
    except UnicodeDecodeError:
        findings.append(f"{path.name}: not UTF-8")
    except OSError as exc:
        findings.append(f"{path.name}: cannot be read ({exc.strerror})")
    if findings:
        raise ImportInvalidError(findings)
    return list(tickets.values())


async def load(
    pool: asyncpg.Pool,
    feed_id: str,
    tickets: list[TicketEvent],
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Loaded:
    """Loads tickets on behalf of the feed that will go on with them.

    If we die between two batches, the next run loads the rest.

    Args:
        pool: of role broker_feed.
        feed_id: the helpdesk whose later events are about these tickets.
        tickets: as `read_file` gave them.
        progress: told how many of how many are done.

    Raises:
        EventConflictError: the feed has sent a snapshot, which knows more than a first load.
    """
    loaded = kept = 0
    for start in range(0, len(tickets), BATCH):
        batch = json.dumps([ticket.as_row() for ticket in tickets[start : start + BATCH]])
        try:
            async with connection(pool) as conn:
                [row] = await conn.fetch(SQL.import_tickets, feed_id, batch)
        except asyncpg.PostgresError as exc:
            if exc.sqlstate != "BK004":
                raise
            raise EventConflictError(
                cause="import after a snapshot",
                detail="The feed has sent a snapshot; a first load would undo what it closed.",
            ) from exc
        loaded += row["loaded"]
        kept += row["kept"]
        progress(min(start + BATCH, len(tickets)), len(tickets))
    return Loaded(loaded, kept)


class _FileError(Exception):
    """The file as a whole is wrong; the message begins with the line."""


def _rows(reader: Iterator[list[str]]) -> Iterator[tuple[int, dict[str, str]]]:
    header = next(reader, [])
    if sorted(header) != sorted(COLUMNS):
        raise _FileError(f"1: the columns must be {','.join(COLUMNS)}")
    empty = True
    # A quoted line break would make line numbers wrong; no column may hold one, so counting rows is right.
    for line, row in enumerate(reader, start=2):
        if not row:  # a blank line, as at the end of many files
            continue
        if len(row) != len(header):
            raise _FileError(f"{line}: {len(row)} columns where {len(header)} are expected")
        empty = False
        yield line, dict(zip(header, row, strict=True))
    if empty:
        raise _FileError("1: no tickets")


def _read_row(row: dict[str, str]) -> TicketEvent:
    customers = tuple(words.read_customer_id(item) for item in row["customer_id"].split(";") if item)
    if len(set(customers)) != len(customers) or len(customers) > MAX_CUSTOMERS:
        raise refuse("customer_id", f"repeats a customer, or names more than {MAX_CUSTOMERS}")
    opened_by = words.read_word(row["opened_by"] or Opener.IMPORT.value, Opener, "opened_by")
    if opened_by is Opener.AGENT:
        raise refuse("opened_by", "cannot be agent here, because no column says which agent")
    assignments: tuple[Assignment, ...] = ()
    if row["agent_issuer"] or row["agent_subject"] or row["relation"]:
        agent = words.read_agent(row["agent_issuer"], row["agent_subject"], "agent")
        relation = words.read_word(row["relation"], AssignedRelation, "relation")
        assignments = (Assignment(agent, relation, Assigner.IMPORT, None),)
    return TicketEvent(
        seq=0,
        ticket_id=words.read_ticket_id(row["ticket_id"]),
        version=0,
        details=Details(words.read_kind(row["kind"], "kind"), opened_by, None, customers),
        status=words.read_word(row["status"], TicketStatus, "status"),
        assignments=assignments,
    )


def _joined(known: TicketEvent, event: TicketEvent) -> TicketEvent:
    """Joins two lines of one ticket, which may differ in the agent alone."""
    here, there = event.assignments or (), known.assignments or ()
    if replace(event, assignments=known.assignments) != known:
        raise refuse("ticket_id", "has another kind, status, customer or opener than on a line before")
    if not here or not there or here[0].agent in {assignment.agent for assignment in there}:
        raise refuse("ticket_id", "is on a line before with this agent, or with none")
    if len(there) >= MAX_ASSIGNMENTS:
        raise refuse("ticket_id", f"has more than {MAX_ASSIGNMENTS} agents")
    return replace(known, assignments=there + here)
