"""Claims of verified events are read strictly, without a database."""

from __future__ import annotations

import contextlib
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import RequestMalformedError
from broker.model import Agent, TicketStatus
from broker.tickets.events import (
    Actor,
    Assigner,
    CallState,
    Event,
    Heartbeat,
    Opener,
    SnapshotEnd,
    TicketEvent,
    Work,
    WorkKind,
    read_event,
)

NOW = 1_800_000_000
COMMON = {"iss": "helpdesk", "seq": 4, "iat": NOW}
ALICE = {"issuer": "https://idp.example", "subject": "alice"}
ASSIGNMENT = {"agent": ALICE, "relation": "assignee", "assigned_by": {"by": "queue"}}
TICKET = {
    **COMMON,
    "type": "ticket",
    "ticket_id": "T-1",
    "version": 1,
    "kind": "billing",
    "status": "open",
    "opened_by": {"by": "customer"},
    "customers": ["7", "8"],
    "assignments": [ASSIGNMENT],
}
ASSIGN = {**COMMON, "type": "assignment", "ticket_id": "T-1", "version": 2, "assignments": [ASSIGNMENT]}
CALL = {
    **COMMON,
    "type": "work",
    "ticket_id": "T-1",
    "version": 3,
    "kind": "call",
    "actor": {"by": "customer"},
    "time": NOW,
    "call": "started",
}


def read(claims: dict[str, object]) -> Event:
    return read_event(claims, now=NOW)


def read_ticket(claims: dict[str, object]) -> TicketEvent:
    event = read(claims)
    assert isinstance(event, TicketEvent)
    return event


def changed(claims: dict[str, object], path: str, value: object) -> dict[str, object]:
    """Gives the claims with one value replaced; a path as `assignments.0.relation`."""
    copied = copy.deepcopy(claims)
    at: object = copied
    *way, last = path.split(".")
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return copied


class TestRead:
    def test_ticket(self):
        """A ticket event says all of a ticket."""
        event = read_ticket(TICKET)

        assert event.details is not None
        assert event.details.customers == ("7", "8")
        assert Opener.CUSTOMER is event.details.opened_by
        assert TicketStatus.OPEN is event.status
        assert event.assignments is not None
        assert Agent("https://idp.example", "alice") == event.assignments[0].agent

    def test_assignment_by_an_agent(self):
        """Who assigned is read as an agent where it was one."""
        event = read_ticket(changed(ASSIGN, "assignments.0.assigned_by", {"by": "agent", **ALICE}))

        assert event.assignments is not None
        assert Assigner.AGENT is event.assignments[0].assigned_by
        assert event.assignments[0].agent == event.assignments[0].assigner

    def test_work(self):
        """A work event says that something happened."""
        assert Work(WorkKind.CALL, Actor.CUSTOMER, None, NOW, CallState.STARTED) == read_ticket(CALL).work

    def test_heartbeat_and_end(self):
        """A heartbeat and a snapshot's end speak of no ticket."""
        assert Heartbeat(4, NOW) == read({**COMMON, "type": "heartbeat"})
        assert SnapshotEnd(4, 2) == read({**COMMON, "type": "snapshot-end", "tickets": 2})

    def test_hash_ignores_sending_and_order(self):
        """The same content has the same hash when it is sent again, whatever the order of its sets."""
        again = {**TICKET, "seq": 9, "iat": NOW - 5, "customers": ["8", "7"]}

        assert read_ticket(TICKET).as_row()["hash"] == read_ticket(again).as_row()["hash"]

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("customers", ["7"]),
            ("kind", "refund"),
            ("status", "pending"),
            ("opened_by", {"by": "system"}),
            ("assignments", []),
            ("version", 2),
            ("ticket_id", "T-2"),
        ],
    )
    def test_hash_covers_content(self, path, value):
        """Other content has another hash."""
        other = read_ticket(changed(TICKET, path, value))

        assert read_ticket(TICKET).as_row()["hash"] != other.as_row()["hash"]


SELF_MADE = {"agent": ALICE, "relation": "assignee"}

REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "no type": ({k: v for k, v in TICKET.items() if k != "type"}, "event.type"),
    "unknown type": ({**TICKET, "type": "Ticket"}, "event.type"),
    "type is a list": ({**TICKET, "type": ["ticket"]}, "event.type"),
    "unknown claim": ({**TICKET, "note": "x"}, "event"),
    "missing customers": ({k: v for k, v in TICKET.items() if k != "customers"}, "event.customers"),
    "seq 0": ({**TICKET, "seq": 0}, "event.seq"),
    "seq negative": ({**TICKET, "seq": -1}, "event.seq"),
    "seq a bool": ({**TICKET, "seq": True}, "event.seq"),
    "seq a text": ({**TICKET, "seq": "4"}, "event.seq"),
    "seq a float": ({**TICKET, "seq": 4.0}, "event.seq"),
    "seq beyond what JSON reads exactly": ({**TICKET, "seq": 2**53 + 1}, "event.seq"),
    "version 0 is the import's": ({**TICKET, "version": 0}, "event.version"),
    "version null": ({**TICKET, "version": None}, "event.version"),
    "iat in the future": ({**TICKET, "iat": NOW + 61}, "event.iat"),
    "iat missing": ({k: v for k, v in TICKET.items() if k != "iat"}, "event.iat"),
    "work in the future stretches presence": ({**CALL, "time": NOW + 61}, "event.time"),
    "ticket id blank": ({**TICKET, "ticket_id": ""}, "event.ticket_id"),
    "ticket id with a line break at its end": ({**TICKET, "ticket_id": "T-1\n"}, "event.ticket_id"),
    "ticket id with a space": ({**TICKET, "ticket_id": "T 1"}, "event.ticket_id"),
    "ticket id is SQL": ({**TICKET, "ticket_id": "T-1';--"}, "event.ticket_id"),
    "ticket id with Cyrillic T": ({**TICKET, "ticket_id": "\u0422-1"}, "event.ticket_id"),
    "ticket id with Arabic digits": ({**TICKET, "ticket_id": "T-\u0661"}, "event.ticket_id"),
    "ticket id too long": ({**TICKET, "ticket_id": "T" * 65}, "event.ticket_id"),
    "ticket id a number": ({**TICKET, "ticket_id": 1}, "event.ticket_id"),
    "customer blank": ({**TICKET, "customers": [""]}, "event.customers[0]"),
    "customer with blank edge": ({**TICKET, "customers": ["7 "]}, "event.customers[0]"),
    "customer with NUL": ({**TICKET, "customers": ["7\0"]}, "event.customers[0]"),
    "customer with lone surrogate": ({**TICKET, "customers": ["7\ud800"]}, "event.customers[0]"),
    "customer with zero-width space": ({**TICKET, "customers": ["7\u200b"]}, "event.customers[0]"),
    "customer with right-to-left override": ({**TICKET, "customers": ["\u202e7"]}, "event.customers[0]"),
    "customer not in NFC": ({**TICKET, "customers": ["e\u0301"]}, "event.customers[0]"),
    "customer with no-break space": ({**TICKET, "customers": ["7\u00a08"]}, "event.customers[0]"),
    "customer a number": ({**TICKET, "customers": [7]}, "event.customers[0]"),
    "customer twice": ({**TICKET, "customers": ["7", "7"]}, "event.customers"),
    "customers a text": ({**TICKET, "customers": "7"}, "event.customers"),
    "51 customers": ({**TICKET, "customers": [str(n) for n in range(51)]}, "event.customers"),
    "a customer of 1 MB": ({**TICKET, "customers": ["7" * 2**20]}, "event.customers[0]"),
    "kind with capitals": ({**TICKET, "kind": "Billing"}, "event.kind"),
    "kind blank": ({**TICKET, "kind": ""}, "event.kind"),
    "kind is a rule's word for whatever": ({**TICKET, "kind": "any"}, "event.kind"),
    "status unknown": ({**TICKET, "status": "OPEN"}, "event.status"),
    "opened by nobody": ({**TICKET, "opened_by": None}, "event.opened_by"),
    "opened by an agent without a name": ({**TICKET, "opened_by": {"by": "agent"}}, "event.opened_by.issuer"),
    "opened by a queue": ({**TICKET, "opened_by": {"by": "queue"}}, "event.opened_by.by"),
    "opened by a named customer": ({**TICKET, "opened_by": {"by": "customer", **ALICE}}, "event.opened_by"),
    "assignments missing": ({k: v for k, v in ASSIGN.items() if k != "assignments"}, "event.assignments"),
    "assignments null": ({**ASSIGN, "assignments": None}, "event.assignments"),
    "one agent twice": ({**ASSIGN, "assignments": [ASSIGNMENT, ASSIGNMENT]}, "event.assignments"),
    "relation none": (changed(ASSIGN, "assignments.0.relation", "none"), "event.assignments[0].relation"),
    "issuer with a bar": (
        changed(ASSIGN, "assignments.0.agent.issuer", "https://a|b"),
        "event.assignments[0].agent.issuer",
    ),
    "subject a number": (
        changed(ASSIGN, "assignments.0.agent.subject", 7),
        "event.assignments[0].agent.subject",
    ),
    "subject blank": (
        changed(ASSIGN, "assignments.0.agent.subject", ""),
        "event.assignments[0].agent.subject",
    ),
    "K3: no assigner": ({**ASSIGN, "assignments": [SELF_MADE]}, "event.assignments[0].assigned_by"),
    "K3: assigner null": (
        changed(ASSIGN, "assignments.0.assigned_by", None),
        "event.assignments[0].assigned_by",
    ),
    "K3: assigner empty": (
        changed(ASSIGN, "assignments.0.assigned_by", {}),
        "event.assignments[0].assigned_by.by",
    ),
    "K3: assigner an agent without a name": (
        changed(ASSIGN, "assignments.0.assigned_by", {"by": "agent", "subject": "alice"}),
        "event.assignments[0].assigned_by.issuer",
    ),
    "call without state": ({k: v for k, v in CALL.items() if k != "call"}, "event.call"),
    "note with a status": ({**CALL, "kind": "note"}, "event"),
    "work of unknown kind": ({**CALL, "kind": "lunch"}, "event.kind"),
    "heartbeat with a ticket": ({**COMMON, "type": "heartbeat", "ticket_id": "T-1"}, "event"),
    "end with a negative number": ({**COMMON, "type": "snapshot-end", "tickets": -1}, "event.tickets"),
}


class TestRefused:
    @pytest.mark.attack("K3", "B7", "S9")
    @pytest.mark.parametrize(("claims", "field"), REFUSED.values(), ids=REFUSED.keys())
    def test_malformed(self, claims, field):
        """A malformed event is refused by the field that is wrong; the value is not repeated."""
        with pytest.raises(RequestMalformedError) as caught:
            read(claims)

        assert field == caught.value.field
        assert "alice" not in caught.value.cause

    @pytest.mark.parametrize("claims", [TICKET, ASSIGN, CALL], ids=["ticket", "assignment", "work"])
    def test_control(self, claims):
        """What the refused ones were made of is accepted."""
        assert isinstance(read(claims), TicketEvent)

    @given(
        st.sampled_from([TICKET, ASSIGN, CALL]),
        st.data(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=6,
        ),
    )
    def test_whatever_a_claim_holds(self, claims, data, value):
        """Any value in any claim gives an event or the one refusal, never another error."""
        name = data.draw(st.sampled_from(sorted(claims)))
        with contextlib.suppress(RequestMalformedError):
            assert isinstance(read({**claims, name: value}), TicketEvent)


class TestPresence:
    @pytest.mark.parametrize(
        ("kind", "actor", "call", "expected"),
        [
            (WorkKind.CALL, Actor.CUSTOMER, CallState.STARTED, 30),
            (WorkKind.CALL, Actor.SYSTEM, CallState.STARTED, 30),
            (WorkKind.CALL, Actor.AGENT, CallState.STARTED, None),
            (WorkKind.CALL, Actor.CUSTOMER, CallState.ENDED, None),
            (WorkKind.REPLY, Actor.CUSTOMER, None, 15),
            (WorkKind.REPLY, Actor.AGENT, None, None),
            (WorkKind.NOTE, Actor.CUSTOMER, None, None),
        ],
    )
    def test_who_vouches(self, kind, actor, call, expected):
        """The customer and telephony vouch for presence; an agent's own word does not."""
        assert expected == Work(kind, actor, None, NOW, call).seconds_of_presence(call=30, reply=15)
