"""Columns are made from whatever a leaf holds, or it is no leaf; nothing else happens."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.tlog.columns import COLUMNS, columns_of, differing

LEAF = {
    "v": 1,
    "id": "019ab0c2-0000-7000-8000-000000000000",
    "trace": "",
    "kind": "admin",
    "agent": "",
    "tool": "broker test",
    "grant": "",
    "customer": "",
    "ticket": "",
    "policy_version": "",
    "detail": {},
    "outcome": "done",
    "reason": "",
    "record_time": "2026-11-01T00:00:00.000000Z",
}

EDGES = st.sampled_from([LEAF["id"], LEAF["record_time"], float("inf"), 10**400, "1" * 5000, "\ud800"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
JSON = EDGES | st.recursive(
    SCALARS, lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=5
)


def taken(leaf: bytes) -> None:
    """Makes the columns of a leaf: all of them, or it is none."""
    try:
        found = columns_of(leaf)
    except ValueError:
        assert differing(leaf, dict.fromkeys(COLUMNS)) == "leaf"
    else:
        assert {*found} == {*COLUMNS}
        assert differing(leaf, found) == ""
        assert differing(leaf, dict.fromkeys(COLUMNS, object())) == COLUMNS[0]


@pytest.mark.attack("A14")
@pytest.mark.parametrize("name", LEAF)
@given(value=JSON)
def test_a14_any_value_in_any_place(name, value):
    """A leaf with any JSON value in any place has columns, or is none."""
    taken(json.dumps(LEAF | {name: value}).encode())


@pytest.mark.attack("A14")
@given(st.one_of(st.binary(), JSON.map(lambda value: json.dumps(value).encode())))
def test_a14_any_bytes(leaf):
    """So has whatever else lies there."""
    taken(leaf)


@pytest.mark.attack("A14")
@pytest.mark.parametrize(
    "value", ["1e999", "-1e999", "NaN", "[" * 100_000, "9" * 5000, '{"a":' * 50_000], ids=len
)
def test_a14_numbers_and_depths(value):
    """What a parser takes, or chokes on, is no column."""
    text = json.dumps(LEAF | {"policy_version": "@"}).replace('"@"', value)
    assert differing(text.encode(), dict.fromkeys(COLUMNS)) == "leaf"


def test_a_leaf():
    """The control: each column of a leaf as it is written."""
    found = columns_of(json.dumps(LEAF | {"policy_version": "7"}).encode())

    assert (found["id"], found["policy_version"], found["grant_id"]) == (UUID(LEAF["id"]), 7, None)
