"""What leaves tell, whoever wrote them."""

from __future__ import annotations

import json

from broker.audit.exposed import Totals
from broker.audit.leaves import Told

ANNA = "https://idp.test|anna"


def leaf(event_id: str, **more: object) -> bytes:
    """Writes a released read as a worker does."""
    event = {
        "id": event_id, "kind": "read", "outcome": "released", "agent": ANNA, "grant": "g", "customer": "c1",
        "ticket": "t", "tool": "desk", "record_time": "2026-11-25T12:00:00.000000Z",
        "detail": {"levels": {"customer.name": "clear"}, "facts": {}},
    }  # fmt: skip
    return json.dumps({**event, **more}).encode()


def told_of(*leaves: bytes) -> Told:
    """Takes leaves in."""
    told = Told()
    for each in leaves:
        assert told.add(each, {"agent": ANNA})
    return told


def customers(told: Told) -> list[tuple[str, int]]:
    """Gives whose data was given out, and how often."""
    return [(one["customer"], one["reads"]) for one in told.customers(Totals(), {})]


def test_a_leaf_cannot_take_another_ones_place():
    """The id is what a worker wrote: a read that repeats somebody's hides neither."""
    for grants in (("g", "g"), ("g", "h")):
        told = told_of(
            leaf("victim", customer="c1", grant=grants[0]), leaf("victim", customer="c2", grant=grants[1])
        )
        assert customers(told) == [("c1", 1), ("c2", 1)]
        assert len(told.reads) == 2


def test_an_outcome_takes_back_its_own_read_alone():
    """By the read's id, agent and grant; another agent's or grant's outcome does nothing."""
    came = {"kind": "outcome", "detail": {"read": "one", "came_to": "empty"}}
    reads = leaf("one"), leaf("two", customer="c2")
    assert customers(told_of(*reads, leaf("x", **came))) == [("c2", 1)]
    assert customers(told_of(*reads, leaf("x", **came, grant="h"))) == [("c1", 1), ("c2", 1)]
