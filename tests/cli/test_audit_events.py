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
    for _ in range(100):  # until all are leaves: their places are told from then on
        data = broker(*which, "--json").data
        if all(event["leaf_index"] is not None for event in data):
            break
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

    wrong = broker("audit", "events", "--kind", "raed", *audrey)
    assert wrong.code == 2
    assert "read, revoke" in wrong.err


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


@pytest.fixture
def logged(broker, audrey, read) -> dict:
    """The read's event once it is in the log."""
    for _ in range(200):
        event = broker("audit", "event", read["decision_id"], "--json", *audrey).data
        if event["leaf_index"] is not None:
            return event
    pytest.fail("the read is not in the log")


class TestTrace:
    @pytest.mark.parametrize("by", ["event_id", "trace_id", "grant_id", "ticket"])
    def test_one_thing_by_any_id(self, broker, audrey, logged, by):
        """Trace, grant, event and ticket lead to the read, with its decision and its proof."""
        for _ in range(100):
            said = broker("audit", "trace", logged[by], "--json", *audrey)
            if said.code == 0 and any(s["trace_id"] == logged["trace_id"] for s in said.data["spans"]):
                break
        [event] = [e for e in said.data["events"] if e["event_id"] == logged["event_id"]]

        assert event["detail"]["facts"]["purpose"] == "resolve-ticket"
        assert {"authenticate caller", "read record"} <= {span["name"] for span in said.data["spans"]}

    def test_the_picture(self, broker, audrey, logged, tmp_path):
        """The waterfall, the facts, the version, and that the event is proven; the proof stands alone."""
        said = broker("audit", "trace", "T-1001", *audrey)
        proven = broker("audit", "trace", logged["event_id"], "--json", *audrey).data["events"][0]["proof"]
        (tmp_path / "proof.json").write_text(json.dumps(proven))

        for word in (
            "AccessService/ReadRecord",
            "mask fields",
            "facts",
            "purpose=resolve-ticket",
            "version 1",
        ):
            assert word in said.out
        assert f"leaf {logged['leaf_index']}, proven" in said.out
        assert proven["index"] == logged["leaf_index"]

    def test_nothing_of_that_id(self, broker, audrey):
        """What is not there is said, with what to look at."""
        said = broker("audit", "trace", "T-nowhere", *audrey)

        assert (said.code, said.out) == (1, "")
        assert "EVENT_NOT_FOUND" in said.err


def test_spans(broker, audrey, logged):
    """Spans by attribute; values and names that no span has find nothing."""
    attribute = f"broker.decision.id={logged['event_id']}"
    for _ in range(100):
        found = broker("audit", "spans", "--attribute", attribute, "--json", *audrey).data
        if found:
            break
    none = broker("audit", "spans", "--attribute", attribute, "--name", "mask fields", "--json", *audrey).data

    assert [(span["trace_id"], span["name"]) for span in found] == [
        (logged["trace_id"], "broker.v1.AccessService/ReadRecord")
    ]
    assert none == []
    assert broker("audit", "spans", "--attribute", "nonsense", *audrey).code == 2


def test_reconcile(broker, audrey, logged):
    """Counts of both sides; nothing is missing where everything works."""
    data = broker("audit", "reconcile", "--since", "1h", "--until", "2099-01-01", "--json", *audrey).data
    said = broker("audit", "reconcile", "--since", "1h", *audrey)

    assert data["events"] > 0
    assert data["traces"] > 0
    assert data["traces_without_events"] == 0
    assert "without spans" in said.out


@pytest.mark.parametrize("form", ["jsonl", "ocsf", "cef"])
def test_a_stream_goes_on_where_its_file_ends(broker, audrey, logged, tmp_path, form):
    """Cut off anywhere, also within a line, the file ends up with every event once."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert broker("audit", "stream", "--format", form, "--append", whole, *audrey).code == 0
    lines = whole.read_bytes().splitlines(keepends=True)
    for at in (0, len(lines[0]), len(lines[0]) + 10, sum(map(len, lines[:5])) + 3):
        cut.write_bytes(whole.read_bytes()[:at])
        said = broker("audit", "stream", "--format", form, "--append", cut, *audrey)
        assert said.code == 0, said.err
        assert cut.read_bytes().splitlines(keepends=True)[: len(lines)] == lines
    assert len(lines) > logged["leaf_index"]
    other = "cef" if form == "jsonl" else "jsonl"
    assert broker("audit", "stream", "--format", other, "--append", whole, *audrey).code == 2
