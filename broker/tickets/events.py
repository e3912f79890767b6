"""What a helpdesk says, as values: strict reading of the claims of a verified event. Pure.

Every event is a compact JWS with `typ: helpdesk-event+jwt` and the claims

    iss   the feed's id
    seq   feed-wide number, grows by one with every event (a heartbeat repeats the last one)
    iat   when it was signed, whole POSIX seconds
    type  ticket | assignment | work | heartbeat | snapshot-end

Events about a ticket also carry `ticket_id` and `version`, which grows with every event about it:

    ticket      all of it: kind, status, opened_by, customers, assignments
    assignment  assignments: who is related to it from now on, in full
    work        kind (reply, note, call, status), actor, time; `call` (started, ended) of a call,
                `status` of a status

    opened_by   {"by": "customer" | "system" | "import"} or {"by": "agent", "issuer": …, "subject": …}
    actor       {"by": "customer" | "system"} or {"by": "agent", "issuer": …, "subject": …}
    assignments [{"agent": {"issuer": …, "subject": …},
                  "relation": "assignee" | "supervisor" | "collaborator",
                  "assigned_by": {"by": "queue" | "import"} or {"by": "agent", "issuer": …, "subject": …}}]

A snapshot is a `ticket` event for every open ticket and a `snapshot-end` with their number (`tickets`);
all of them carry the `seq` up to which the snapshot speaks, so no other signed event fits in.

Invariants:
- the claims are exactly those of the type: a missing, unknown or mistyped one refuses the event;
- an assignment names who assigned (K3);
- nothing is from the future: a clock that runs ahead could stretch a presence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from broker.model import Agent, Relation, TicketStatus
from broker.tickets import words
from broker.tickets.words import refuse

EVENT_TYPE = "helpdesk-event+jwt"
"""The `typ` of every event."""

MAX_AHEAD = 60
"""Seconds that a helpdesk's clock may be ahead of ours."""

MAX_CUSTOMERS = 50
MAX_ASSIGNMENTS = 50
MAX_NUMBER = 2**53
"""Highest `seq` and `version`: what every JSON reader reads exactly."""

COMMON = frozenset({"iss", "seq", "iat", "type"})


class Opener(StrEnum):
    """Who opened a ticket."""

    CUSTOMER = "customer"
    AGENT = "agent"
    SYSTEM = "system"
    IMPORT = "import"


class Assigner(StrEnum):
    """Who assigned a ticket."""

    QUEUE = "queue"
    AGENT = "agent"
    IMPORT = "import"


class Actor(StrEnum):
    """Who did a piece of work."""

    CUSTOMER = "customer"
    AGENT = "agent"
    SYSTEM = "system"


class WorkKind(StrEnum):
    """What was done."""

    REPLY = "reply"
    NOTE = "note"
    CALL = "call"
    STATUS = "status"


class CallState(StrEnum):
    """What became of a call."""

    STARTED = "started"
    ENDED = "ended"


class AssignedRelation(StrEnum):
    """The relations that can be assigned."""

    ASSIGNEE = Relation.ASSIGNEE
    SUPERVISOR = Relation.SUPERVISOR
    COLLABORATOR = Relation.COLLABORATOR


@dataclass(frozen=True, slots=True)
class Assignment:
    """One agent's relation to a ticket and who made it."""

    agent: Agent
    relation: AssignedRelation
    assigned_by: Assigner
    assigner: Agent | None  # where assigned_by is AGENT

    def as_row(self) -> dict[str, str | None]:
        """Gives it as the database takes it."""
        return {
            "agent": self.agent.key,
            "relation": self.relation.value,
            "assigned_by": self.assigned_by.value,
            "assigned_by_agent": self.assigner.key if self.assigner else None,
        }


@dataclass(frozen=True, slots=True)
class Details:
    """What a ticket is about and how it came to be."""

    kind: str
    opened_by: Opener
    opener: Agent | None  # where opened_by is AGENT
    customers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work; no content, only that it happened."""

    kind: WorkKind
    actor: Actor
    actor_agent: Agent | None  # where actor is AGENT
    time: int  # POSIX seconds
    call: CallState | None = None  # of a CALL

    def seconds_of_presence(self, *, call: float, reply: float) -> float | None:
        """Says for how long after `time` the customer counts as present because of it.

        A call that an agent merely says took place vouches for nobody: an agent could say so
        to be shown more. Telephony (system) and the customer can.
        """
        if self.kind is WorkKind.CALL and self.call is CallState.STARTED and self.actor is not Actor.AGENT:
            return call
        if self.kind is WorkKind.REPLY and self.actor is Actor.CUSTOMER:
            return reply
        return None


@dataclass(frozen=True, slots=True)
class TicketEvent:
    """What one event says of one ticket; None: it does not speak of that."""

    seq: int
    ticket_id: str
    version: int
    details: Details | None = None
    status: TicketStatus | None = None
    assignments: tuple[Assignment, ...] | None = None
    work: Work | None = None

    @property
    def complete(self) -> bool:
        """Says whether it describes all of the ticket, as a snapshot needs."""
        return self.details is not None

    def as_row(self) -> dict[str, object]:
        """Gives it as the database takes it, with a hash of its content.

        The hash leaves out what differs when the same event is sent again: number, time, signature.
        """
        content: dict[str, object] = {"ticket_id": self.ticket_id, "version": self.version}
        if self.details is not None:
            content["kind"] = self.details.kind
            content["opened_by"] = self.details.opened_by.value
            content["opened_by_agent"] = self.details.opener.key if self.details.opener else None
            content["customers"] = sorted(self.details.customers)
        if self.status is not None:
            content["status"] = self.status.value
        if self.assignments is not None:
            content["assignments"] = sorted(
                (assignment.as_row() for assignment in self.assignments), key=lambda row: str(row["agent"])
            )
        if self.work is not None:
            content["work"] = {
                "kind": self.work.kind.value,
                "actor": self.work.actor.value,
                "actor_agent": self.work.actor_agent.key if self.work.actor_agent else None,
                "state": self.work.call or (self.status or ""),
                "time": self.work.time,
            }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return {**content, "seq": self.seq, "hash": hashlib.sha256(text.encode()).hexdigest()}


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The feed is alive and has sent events up to `seq`."""

    seq: int
    time: int  # POSIX seconds


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """The snapshot is complete: that many tickets were open at `seq`."""

    seq: int
    tickets: int


Event: TypeAlias = TicketEvent | Heartbeat | SnapshotEnd
Claims: TypeAlias = Mapping[str, object]


def read_event(claims: Claims, *, now: float, field: str = "event") -> Event:
    """Reads the claims of an event whose signature and issuer are good.

    Args:
        claims: as signed.
        now: POSIX seconds.
        field: how the request names the event, for BadRequest.

    Raises:
        RequestMalformedError: whatever is wrong, by field.
    """
    kind = claims.get("type")
    time = _time(claims.get("iat"), now, f"{field}.iat")
    if kind == "heartbeat":
        _exactly(claims, COMMON, field)
        return Heartbeat(_number(claims["seq"], f"{field}.seq", least=0), time)
    if kind == "snapshot-end":
        _exactly(claims, COMMON | {"tickets"}, field)
        seq = _number(claims["seq"], f"{field}.seq", least=0)
        return SnapshotEnd(seq, _number(claims["tickets"], f"{field}.tickets", least=0))
    if kind == "ticket":
        return _ticket(claims, field)
    if kind == "assignment":
        _exactly(claims, COMMON | {"ticket_id", "version", "assignments"}, field)
        return TicketEvent(
            *_ticket_version(claims, field),
            assignments=_assignments(claims["assignments"], f"{field}.assignments"),
        )
    if kind == "work":
        return _work(claims, now, field)
    raise refuse(f"{field}.type", "is no type of event")


def _ticket(claims: Claims, field: str) -> TicketEvent:
    names = {"ticket_id", "version", "kind", "status", "opened_by", "customers", "assignments"}
    _exactly(claims, COMMON | names, field)
    opened_by, opener = _by(claims["opened_by"], Opener, f"{field}.opened_by")
    return TicketEvent(
        *_ticket_version(claims, field),
        details=Details(
            words.read_kind(claims["kind"], f"{field}.kind"),
            opened_by,
            opener,
            _customers(claims["customers"], f"{field}.customers"),
        ),
        status=words.read_word(claims["status"], TicketStatus, f"{field}.status"),
        assignments=_assignments(claims["assignments"], f"{field}.assignments"),
    )


def _work(claims: Claims, now: float, field: str) -> TicketEvent:
    kind = words.read_word(claims.get("kind"), WorkKind, f"{field}.kind")
    extra = {WorkKind.CALL: {"call"}, WorkKind.STATUS: {"status"}}.get(kind, set())
    _exactly(claims, COMMON | {"ticket_id", "version", "kind", "actor", "time"} | extra, field)
    actor, agent = _by(claims["actor"], Actor, f"{field}.actor")
    time = _time(claims["time"], now, f"{field}.time")
    call = words.read_word(claims["call"], CallState, f"{field}.call") if "call" in extra else None
    status = words.read_word(claims["status"], TicketStatus, f"{field}.status") if "status" in extra else None
    work = Work(kind, actor, agent, time, call)
    return TicketEvent(*_ticket_version(claims, field), status=status, work=work)


def _ticket_version(claims: Claims, field: str) -> tuple[int, str, int]:
    return (
        _number(claims["seq"], f"{field}.seq", least=1),
        words.read_ticket_id(claims["ticket_id"], f"{field}.ticket_id"),
        _number(claims["version"], f"{field}.version", least=1),
    )


def _customers(value: object, field: str) -> tuple[str, ...]:
    items = _list(value, field, MAX_CUSTOMERS)
    customers = tuple(words.read_customer_id(item, f"{field}[{n}]") for n, item in enumerate(items))
    if len(set(customers)) != len(customers):
        raise refuse(field, "repeats a customer")
    return customers


def _assignments(value: object, field: str) -> tuple[Assignment, ...]:
    items = _list(value, field, MAX_ASSIGNMENTS)
    assignments = tuple(_assignment(item, f"{field}[{n}]") for n, item in enumerate(items))
    if len({assignment.agent for assignment in assignments}) != len(assignments):
        raise refuse(field, "repeats an agent")
    return assignments


def _assignment(value: object, field: str) -> Assignment:
    members = _object(value, {"agent", "relation", "assigned_by"}, field)
    agent = _object(members["agent"], {"issuer", "subject"}, f"{field}.agent")
    assigned_by, assigner = _by(members["assigned_by"], Assigner, f"{field}.assigned_by")
    return Assignment(
        words.read_agent(agent["issuer"], agent["subject"], f"{field}.agent"),
        words.read_word(members["relation"], AssignedRelation, f"{field}.relation"),
        assigned_by,
        assigner,
    )


def _by(value: object, by: type[words.E], field: str) -> tuple[words.E, Agent | None]:
    """Reads who did something; only an agent has a name."""
    named = isinstance(value, dict) and value.get("by") == "agent"
    members = _object(value, {"by", "issuer", "subject"} if named else {"by"}, field)
    agent = words.read_agent(members["issuer"], members["subject"], field) if named else None
    return words.read_word(members["by"], by, f"{field}.by"), agent


def _exactly(claims: Claims, names: Collection[str], field: str) -> None:
    wanted = set(names)
    if missing := sorted(wanted - claims.keys()):
        raise refuse(f"{field}.{missing[0]}", "is missing")
    if claims.keys() - wanted:  # the name is the sender's text: not repeated
        raise refuse(field, "has a claim that its type does not know")


def _object(value: object, names: Collection[str], field: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise refuse(field, "is no object")
    _exactly(value, names, field)
    return value


def _list(value: object, field: str, most: int) -> Sequence[object]:
    if not isinstance(value, list) or len(value) > most:
        raise refuse(field, f"is no list of at most {most}")
    return value


def _number(value: object, field: str, *, least: int) -> int:
    if type(value) is not int or not least <= value <= MAX_NUMBER:  # a bool is an int to isinstance()
        raise refuse(field, f"is no whole number from {least} to {MAX_NUMBER}")
    return value


def _time(value: object, now: float, field: str) -> int:
    time = _number(value, field, least=0)
    if time > now + MAX_AHEAD:
        raise refuse(field, "lies in the future")
    return time
