"""`broker audit events` and its neighbours against a running sample company."""

from __future__ import annotations

import csv
import io
import json

import pytest


@pytest.fixture
def audrey(company) -> tuple[str, ...]:
    """The auditor of the sample company."""
    return "--as", "audrey", "--dir", str(company.folder)


@pytest.fixture
def read(broker, company) -> dict:
    """Reads a record; gives what the command printed."""
    return broker(
        "access", "read", "T-1001", "--agent", "alice", "--fields", "customer.name", "--json",
        "--dir", company.folder,
    ).data  # fmt: skip


def test_the_formats_say_the_same(broker, audrey, read):
    """JSON, JSON lines, CSV and the table list the same events of a grant."""
    which = ("audit", "events", "--grant", read["grant_id"], "--oldest-first", *audrey)
    data = broker(*which, "--json").data
    lines = [json.loads(line) for line in broker(*which, "--jsonl").out.splitlines()]
    [heading, *rows] = csv.reader(io.StringIO(broker(*which, "--csv").out))
    table = broker(*which)

    assert [event["kind"] for event in data[:2]] == ["grant", "read"]
    assert read["decision_id"] in [event["event_id"] for event in data]
    assert lines == data
    assert [row[heading.index("event_id")] for row in rows] == [event["event_id"] for event in data]
    assert all(event["event_id"] in table.out for event in data)


def test_filters_narrow(broker, audrey, read):
    """An event must fit all of them; what fits none is nothing, and that is no failure."""
    fits = ("audit", "events", "--agent", "alice", "--kind", "read", "--outcome", "released", "--since", "1h")
    found = broker(*fits, "--json", *audrey).data
    nothing = broker(*fits, "--reason", "FEED_STALE", *audrey)

    assert read["decision_id"] in [event["event_id"] for event in found]
    assert {event["kind"] for event in found} == {"read"}
    assert (nothing.code, nothing.out) == (0, "")
    assert "nothing to show" in nothing.err


def test_one_event(broker, audrey, read):
    """All that it tells, for people and for programs."""
    said = broker("audit", "event", read["decision_id"], *audrey)
    data = broker("audit", "event", read["decision_id"], "--json", *audrey).data

    assert "levels" in said.out
    assert data["detail"]["levels"] == {"customer.name": "clear"}


def test_who_may_not(broker, company):
    """An administrator who is no auditor is refused, and told whom to ask for nothing."""
    said = broker("audit", "events", "--as", "anna", "--dir", company.folder)

    assert (said.code, said.out) == (1, "")
    assert "ADMIN_DENIED" in said.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--json", "--csv"), "one of --json"),
        (("--since", "yesterday"), "--since takes"),
        (("--since", "1h", "--until", "2h"), "--since must lie before"),
    ],
)
def test_wrong_usage(broker, audrey, options, says):
    """Wrong usage is said before anybody is asked."""
    said = broker("audit", "events", *options, *audrey)

    assert said.code == 2
    assert says in said.err
