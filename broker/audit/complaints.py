"""A strict reader of complaint files; what is not used is told with its line and why, nothing is guessed.

A file is UTF-8 CSV with a header, its columns in any order, separated by commas or semicolons:

    kind,identifier,contact_time,fields
    email,ada@example.org,2026-11-03T10:15:00+01:00,customer.name customer.phone
    phone,+44 20 7946 0018,2026-11-04,customer.name
    customer,C-1042,2026-11-05T08:00:00Z,customer.email
    ticket,T-77,2026-11-05T08:00:00Z,

`kind` may be left empty where the identifier has an @ (email) or begins with + or 00 (phone). A date alone is
the beginning of that day, UTC: of a read on the same day nobody knows whether it came first. `fields` is what
the caller knew, full names of the catalog between blanks or bars; empty: anything in clear counts.

Invariants:
- the text of a line never leaves this module but in `Complaint.identifier`, which no repr shows;
- a file is read up to a size, and used up to a number of complaints.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

MOST_BYTES = 1_048_576
"""Beyond it a file is not read: hundreds of complaints are some tens of kilobytes."""

MOST = 500
"""Most complaints of one question: as many as the records database matches at once."""

LONGEST = 320
"""Characters of the longest identifier, an e-mail address."""

MOST_FIELDS = 64
KINDS = ("email", "phone", "customer", "ticket")
COLUMNS = ("kind", "identifier", "contact_time", "fields")
NEEDED = frozenset({"identifier", "contact_time"})
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)

_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
_PHONE = re.compile(r"(\+|00)[0-9][0-9() ./-]{5,}")
_ANY_PHONE = re.compile(r"[+0-9][0-9() ./-]{5,}(\s*(x|ext|;|#).*)?", re.IGNORECASE)
_FIELD = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


class ComplaintFileError(Exception):
    """The file as a whole is no complaint file; says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One usable line."""

    line: int
    kind: str
    identifier: str = field(repr=False)
    contact: datetime
    fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class Unused:
    """A line that was not used, wholly or in part, and why; never its content."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Complaints:
    """What a file holds."""

    used: tuple[Complaint, ...]
    unused: tuple[Unused, ...]
    lines: int  # that are not blank, without the header


def read_complaints(data: bytes, *, now: datetime, known: Iterable[str]) -> Complaints:
    """Reads a file.

    Args:
        data: its bytes.
        now: the time; nothing is from later.
        known: fields that any read gave out; others cannot be compared.

    Raises:
        ComplaintFileError: too big, empty, or without a header that says what its columns are.
    """
    if len(data) > MOST_BYTES:
        raise ComplaintFileError(f"the file is over {MOST_BYTES} bytes; split it, {MOST} complaints each")
    rows = _rows(data)
    columns, separator = _header(next(rows, (0, "")))
    fields = frozenset(known)
    used: list[Complaint] = []
    unused: list[Unused] = []
    first: dict[tuple[str, str], int] = {}
    lines = 0
    for line, text in rows:
        lines += 1
        read = _line(line, text, columns, separator, now, fields)
        if isinstance(read, Unused):
            unused.append(read)
            continue
        complaint, remarks = read
        key = (complaint.kind, "".join(complaint.identifier.casefold().split()))
        if key in first:
            unused.append(Unused(line, f"the same identifier as line {first[key]}"))
        elif len(used) >= MOST:
            unused.append(Unused(line, f"beyond the {MOST} complaints of one question"))
        else:
            first[key] = line
            used.append(complaint)
            unused += remarks
    return Complaints(tuple(used), tuple(unused), lines)


def _rows(data: bytes) -> Iterator[tuple[int, str | None]]:
    """Gives the lines that are not blank with their numbers; None where one is not UTF-8 text."""
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            yield number, None
            continue
        if text.strip():
            yield number, text if text.replace("\t", " ").isprintable() else None


def _header(row: tuple[int, str | None]) -> tuple[list[str], str]:
    _, text = row
    if text == "":
        raise ComplaintFileError("the file is empty; its first line names the columns: " + ",".join(COLUMNS))
    for separator in ",;":
        columns = [c.strip().lower() for c in (text or "").split(separator)]
        if set(columns) >= NEEDED and set(columns) <= set(COLUMNS) and len(columns) == len(set(columns)):
            return columns, separator
    raise ComplaintFileError(
        f"the first line does not name the columns; write {','.join(COLUMNS)} and save the file as CSV, UTF-8"
    )


def _line(
    line: int, text: str | None, columns: list[str], separator: str, now: datetime, known: frozenset[str]
) -> tuple[Complaint, list[Unused]] | Unused:
    if text is None:
        return Unused(line, "not UTF-8 text")
    try:
        cells = next(csv.reader([text], delimiter=separator, strict=True))
    except csv.Error:
        return Unused(line, "not CSV: a quote is not closed, or a value goes over lines")
    if len(cells) != len(columns):
        return Unused(line, f"{len(cells)} values for {len(columns)} columns")
    row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
    kind = _kind(row.get("kind", "").lower(), row["identifier"])
    contact = _contact(row["contact_time"])
    why = _refusal(kind, row["identifier"], contact, now)
    names = frozenset(n for n in re.split(r"[\s|]+", row.get("fields", "")) if n)
    if not why and (len(names) > MOST_FIELDS or not all(_FIELD.fullmatch(n) for n in names)):
        why = "fields are full names of the catalog between blanks, as customer.email"
    if not why and names and not names & known:
        why = "nobody was ever given any of its fields in clear"
    if why or contact is None:
        return Unused(line, why)
    strange = len(names - known)  # whatever stands there is the file's, and may be anything
    why = f"used without {strange} of its fields: nobody was ever given them in clear"
    remarks = [Unused(line, why)] if strange else []
    return Complaint(line, kind, row["identifier"], contact, names & known), remarks


def _kind(told: str, identifier: str) -> str:
    if told:
        return told
    if _EMAIL.fullmatch(identifier):
        return "email"
    return "phone" if _PHONE.fullmatch(identifier) else ""


def _contact(text: str) -> datetime | None:
    """Gives the moment; None for what is none, or has no time zone."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _refusal(kind: str, identifier: str, contact: datetime | None, now: datetime) -> str:
    """Says why a line cannot be used; empty if it can."""
    reasons = (
        (not identifier, "no identifier"),
        (len(identifier) > LONGEST, "the identifier is too long to be one"),
        (kind == "", f"cannot tell what the identifier is; say in column kind: {', '.join(KINDS)}"),
        (kind not in KINDS, f"kind is none of {', '.join(KINDS)}"),
        (kind == "email" and not _EMAIL.fullmatch(identifier), "not an e-mail address"),
        (kind == "phone" and not _ANY_PHONE.fullmatch(identifier), "not a telephone number"),
        (contact is None, "contact_time is no ISO 8601 date, or a time without its zone"),
        (contact is not None and contact > now, "contact_time is in the future"),
        (contact is not None and contact < EARLIEST, "contact_time is before the year 2000"),
    )
    return next((why for wrong, why in reasons if wrong), "")
