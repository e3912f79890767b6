"""Values that every room speaks of; no I/O, no library types.

Invariants:
- every value is frozen; a fact that changes is a new value;
- agents are issuer + subject, joined once, here (`Agent.key`);
- "whatever is not known" is a member of its enum, never None and never "".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self
from uuid import UUID


class Level(StrEnum):
    """How much of a value may be seen; the level is part of what Casbin is asked."""

    CLEAR = "clear"
    MASKED = "masked"


WITHHELD = "withheld"
"""The word for no level."""

SHOWN = (WITHHELD, Level.MASKED.value, Level.CLEAR.value)
"""What may become of a field, in words, by how much it shows."""


class Relation(StrEnum):
    """Relation of an agent to a ticket."""

    ASSIGNEE = "assignee"
    SUPERVISOR = "supervisor"
    COLLABORATOR = "collaborator"
    NONE = "none"


class Provenance(StrEnum):
    """How the relation came to be, seen from this agent."""

    ROUTED = "routed"  # by a queue or another part of the helpdesk
    PEER = "peer"  # by another agent
    SELF = "self"  # by the agent himself
    IMPORTED = "imported"  # by a first load; nobody vouches for it
    UNKNOWN = "unknown"


class OpenedBy(StrEnum):
    """Who opened the ticket, seen from this agent."""

    CUSTOMER = "customer"
    PEER = "peer"  # another agent
    SELF = "self"  # the agent himself
    SYSTEM = "system"  # monitoring, billing run, …
    IMPORTED = "imported"
    UNKNOWN = "unknown"


class Presence(StrEnum):
    """Whether the customer is there now: a call in progress, or word from them minutes ago."""

    PRESENT = "present"
    ABSENT = "absent"


class TicketStatus(StrEnum):
    """State of a ticket; only `open` and `pending` justify anything."""

    OPEN = "open"
    PENDING = "pending"
    CLOSED = "closed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Agent:
    """A person, as an issuer vouches for them."""

    issuer: str
    subject: str

    @property
    def key(self) -> str:
        """Names the agent in the database: `issuer|subject`; an issuer URL holds no `|`."""
        return f"{self.issuer}|{self.subject}"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated agent: who, with which identity-provider groups, through which client."""

    agent: Agent
    groups: frozenset[str]  # as the token names them; the policy maps them to roles
    client_id: str
    expire_time: float  # POSIX seconds


@dataclass(frozen=True, slots=True)
class Person:
    """An administrator: a human being, with what the administrators' identity provider says of them."""

    agent: Agent
    groups: frozenset[str]  # as the token names them
    roles: frozenset[str]  # what the admin table in force makes of the groups

    def is_same(self, other: Agent) -> bool:
        """Says whether another name may be this person's, spelt otherwise; in doubt it is."""
        return same_person(self.agent, other)


def same_person(one: Agent, other: Agent) -> bool:
    """Says whether two names may be one person's: equal but for case, spaces and Unicode's spellings."""
    return _folded(one) == _folded(other)


def _folded(agent: Agent) -> tuple[str, str]:
    issuer, subject = (
        unicodedata.normalize("NFKC", text).casefold().strip() for text in (agent.issuer, agent.subject)
    )
    return issuer.rstrip("/"), subject


@dataclass(frozen=True, slots=True)
class Tool:
    """An authenticated support tool: one SPIFFE id (or DNS name) and the key it proved to hold."""

    identity: str
    thumbprint: str  # base64url SHA-256 of the certificate's DER (RFC 8705 x5t#S256)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the only thing handlers know of the connection and of metadata."""

    tool: Tool
    principal: Principal


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule may see of one ticket and one agent; every attribute is a non-blank word."""

    purpose: str
    relation: Relation
    kind: str  # ticket kind, as the catalog declares it
    provenance: Provenance
    opened_by: OpenedBy
    presence: Presence

    @classmethod
    def of(
        cls, purpose: str, relation: str, kind: str, provenance: str, opened_by: str, presence: str
    ) -> Self:
        """Reads facts that are told in words.

        Raises:
            ValueError: this release does not know the word.
        """
        return cls(
            purpose,
            Relation(relation),
            kind,
            Provenance(provenance),
            OpenedBy(opened_by),
            Presence(presence),
        )

    def as_mapping(self) -> dict[str, str]:
        """Gives the facts by name, for ledger and explanation."""
        return {
            "purpose": self.purpose,
            "relation": self.relation.value,
            "ticket_kind": self.kind,
            "provenance": self.provenance.value,
            "opened_by": self.opened_by.value,
            "presence": self.presence.value,
        }


@dataclass(frozen=True, slots=True)
class Ground:
    """The ticket as the database knows it for one agent: what the facts are made of.

    `facts_version` grows with every change of ticket or assignment; the ledger append
    compares it, so a decision on older facts is taken again, never released.
    """

    ticket_id: str
    kind: str
    status: TicketStatus
    relation: Relation
    provenance: Provenance
    opened_by: OpenedBy
    present_until: datetime | None
    facts_version: int
    customers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FieldDecision:
    """What the policy says about one field: a level and the rule, or what was missing."""

    name: str
    level: Level | None  # None: withheld
    rule: str = ""  # the matched rule as `policy.csv:12`
    missing: tuple[str, ...] = ()  # sentences; only where withheld


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says about all fields asked for, in their order."""

    policy_version: str
    fields: tuple[FieldDecision, ...]

    @property
    def allowed(self) -> dict[str, Level]:
        """Gives the fields that are not withheld, with their level."""
        return {f.name: f.level for f in self.fields if f.level is not None}


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """A decision with everything that it saw; compared by identity, so that it is cheap to count."""

    decision: Decision
    facts: Facts
    roles: frozenset[str]
    groups: frozenset[str]  # as the token names them
    mapped_groups: frozenset[str]  # those of them that the policy knows


@dataclass(frozen=True, slots=True)
class Budget:
    """Most distinct customers an agent may read."""

    per_hour: int
    per_day: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as the broker's database holds it; never holds the customer's key in clear text
    outside the pass.
    """

    grant_id: UUID
    agent: Agent
    tool_identity: str
    tool_thumbprint: str
    ticket_id: str
    purpose: str
    audience: str
    levels: Mapping[str, Level]
    policy_version: str
    create_time: datetime
    expire_time: datetime
    roles: frozenset[str]
    trace_id: str


@dataclass(frozen=True, slots=True)
class Row:
    """One guarded row of one record kind: column values as text, in the catalog's order."""

    values: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class RecordSlice:
    """What the guard let through for one read: rows by kind, and which kinds were cut off."""

    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    truncated: frozenset[str] = frozenset()


LAST_ID = UUID(int=(1 << 128) - 1)
"""No event's id is greater."""


def id_time(event_id: UUID) -> float:
    """Gives the time in a UUIDv7, POSIX seconds."""
    return (event_id.int >> 80) / 1000


def id_floor(time: float) -> UUID:
    """Gives the smallest UUIDv7 of a time, POSIX seconds, as `broker.uuid7_floor` does."""
    return UUID(int=max(0, int(time * 1000)) << 80)
