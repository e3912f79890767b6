"""Events as lines for other programs: JSON lines and CSV; OCSF and CEF are in siem.py.

Invariants:
- pure: a mapping of an event's columns and its leaf in, one line out;
- what an agent, a tool or a reason is called cannot break out of its cell, key or line (A11).
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Mapping
from typing import Any

COLUMNS = (
    "record_time", "event_id", "leaf_index", "kind", "outcome", "reason", "agent", "tool", "customer",
    "ticket", "grant_id", "trace_id", "policy_version",
)  # fmt: skip
"""Columns of a table, in this order; JSON has `detail` beside them."""

FORMULA = frozenset("=+-@")
"""What makes a spreadsheet take a cell for a formula (OWASP, CSV injection)."""


def json_line(event: Mapping[str, Any]) -> str:
    """Gives one event as one line of JSON; ASCII, so that no reader takes a character for a line's end."""
    return json.dumps(event, ensure_ascii=True, separators=(",", ":"))


def csv_line(cells: Mapping[str, Any] | None = None) -> str:
    """Gives one event as a line of CSV (RFC 4180), or the heading."""
    out = io.StringIO()
    row = COLUMNS if cells is None else [_cell(cells[name]) for name in COLUMNS]
    csv.writer(out, lineterminator="\r\n").writerow(row)
    return out.getvalue()


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return f"'{text}" if unicodedata.normalize("NFKC", text.lstrip())[:1] in FORMULA else text
