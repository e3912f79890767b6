"""A row of the index counts where its event tells the very same."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from broker.audit.evidence import borne_out

EVENT, OTHER, GRANT = (UUID(int=n) for n in (1, 2, 3))
AT = datetime(2026, 11, 25, 12, 0, 0, 5, tzinfo=UTC)
NAMES = {
    1: {"kind": "agent", "name": "i|anna"}, 2: {"kind": "tool", "name": "desk"},
    3: {"kind": "agent", "name": "i|ben"}, 4: {"kind": "tool", "name": "i|anna"},
}  # fmt: skip
LEAF = {
    "id": str(EVENT), "kind": "read", "outcome": "released", "agent": "i|anna", "tool": "desk",
    "grant": str(GRANT), "customer": "c1", "ticket": "t1", "record_time": AT.isoformat(),
    "detail": {
        "facts": {"ticket_kind": "general"}, "levels": {"customer.name": "clear", "customer.iban": "masked"},
    },
}  # fmt: skip
ROW = {
    "event_id": EVENT, "read_time": AT, "agent_id": 1, "tool_id": 2, "grant_id": GRANT, "customer": "c1",
    "clear": ["customer.name"], "unreadable": False, "ticket_kind": "general", "week": date(2026, 11, 23),
}  # fmt: skip
SAME = {
    "nothing changed": {},
    "what the ticket was, which the ranking does not ask": {"ticket": "t9"},
}
ROWS = {
    "another event": {"event_id": OTHER},
    "a microsecond later": {"read_time": AT + timedelta(microseconds=1)},
    "another agent": {"agent_id": 3},
    "a tool as the agent": {"agent_id": 4},
    "an agent of no name": {"agent_id": 9},
    "another tool": {"tool_id": 1},
    "another grant": {"grant_id": OTHER},
    "no grant": {"grant_id": None},
    "another customer": {"customer": "c2"},
    "a field more": {"clear": ["customer.iban", "customer.name"]},
    "a field less": {"clear": []},
    "as if the leaf did not tell": {"clear": [], "unreadable": True},
    "another queue": {"ticket_kind": "refund"},
    "another week": {"week": date(2026, 11, 16)},
}
LEAVES = {
    "of another event": {"id": str(OTHER)},
    "refused": {"outcome": "refused"},
    "no read": {"kind": "grant"},
    "no time": {"record_time": "noon"},
}


def counts(row=ROW, leaf=LEAF, outcomes=()):
    """Says whether the row counts."""
    data = leaf if isinstance(leaf, bytes) else json.dumps(leaf).encode()
    return borne_out([row], {EVENT: data}, [json.dumps(o).encode() for o in outcomes], NAMES) == {EVENT}


@pytest.mark.parametrize("what", SAME)
def test_the_same_counts(what):
    assert counts({**ROW, **SAME[what]})


@pytest.mark.parametrize("what", ROWS)
def test_a_row_that_differs_does_not(what):
    assert not counts({**ROW, **ROWS[what]})


@pytest.mark.parametrize("what", LEAVES)
def test_a_leaf_that_is_no_such_read_bears_nothing_out(what):
    assert not counts(leaf={**LEAF, **LEAVES[what]})


@pytest.mark.parametrize("leaf", [b"", b"[]", b"{", b"\xff", b'{"id": 1}', b"[" * 100_000])
def test_what_cannot_be_read_bears_nothing_out(leaf):
    assert not counts(leaf=leaf)


def test_a_read_whose_fields_the_leaf_does_not_tell_may_have_shown_any():
    leaf = {**LEAF, "detail": {"facts": {"ticket_kind": "general"}}}
    assert counts({**ROW, "clear": [], "unreadable": True}, leaf)
    assert not counts(leaf=leaf)


def test_a_read_that_came_to_nothing_does_not_count():
    """By the word of its own agent and grant alone."""
    said = {"kind": "outcome", "agent": "i|anna", "grant": str(GRANT)}
    nothing = {"read": str(EVENT), "came_to": "empty"}
    assert not counts(outcomes=[{**said, "detail": nothing}])
    for other in ({"agent": "i|ben"}, {"grant": str(OTHER)}, {"detail": {**nothing, "came_to": "rows"}}):
        assert counts(outcomes=[{**said, "detail": nothing, **other}])
