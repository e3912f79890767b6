"""Lines for other programs: nothing that a name holds breaks out of its place."""

import csv
import io
import json

import pytest

from broker.audit.export import COLUMNS, csv_line, json_line

NASTY = (
    "=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r\n=1", "a,b", 'say "hi"', "line\nbreak",
    "\x1b[31mred", "\uff1d1", "  =1", "\u202eevil", "|", "\\", "\u2028", "plain",
)  # fmt: skip


def event(agent: str) -> dict:
    return {**dict.fromkeys(COLUMNS, ""), "agent": agent, "leaf_index": 7}


@pytest.mark.attack("A11")
@pytest.mark.parametrize("name", NASTY)
def test_csv_is_one_line_and_no_formula(name):
    """A reader finds as many cells as columns, and no cell that a spreadsheet would run."""
    line = csv_line(event(name))
    [cells] = csv.reader(io.StringIO(line))

    assert line.count("\n") == 1
    assert line.removesuffix("\r\n").isprintable()
    assert len(cells) == len(COLUMNS)
    cell = cells[COLUMNS.index("agent")]
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d"))
    assert (cell == name) is (name in {"a,b", 'say "hi"', "|", "\\", "plain"})


@pytest.mark.attack("A11")
@pytest.mark.parametrize("name", NASTY)
def test_json_is_one_line_and_comes_back(name):
    """One line of ASCII that reads as what was written."""
    line = json_line(event(name))

    assert line.isascii()
    assert line.splitlines() == [line]
    assert json.loads(line)["agent"] == name
