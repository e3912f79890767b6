"""What the client answers with; frozen, typed, without protobuf.

Invariants:
- `repr` shows neither a customer's data nor a token, so that a tool's log holds neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class FieldState(StrEnum):
    """What an answer holds for one field."""

    CLEAR = "clear"
    MASKED = "masked"
    WITHHELD = "withheld"


@dataclass(frozen=True, slots=True)
class AgentName:
    """A person, as an issuer vouches for them."""

    issuer: str
    subject: str

    @property
    def key(self) -> str:
        """Gives `issuer|subject`, as the ledger names them."""
        return f"{self.issuer}|{self.subject}"


@dataclass(frozen=True, slots=True)
class FieldValue:
    """One field of a record."""

    name: str
    state: FieldState
    values: tuple[str | None, ...] = field(default=(), repr=False)  # one per row; None is NULL
    reason: str = ""  # why it is withheld
    truncated: bool = False  # the child kind's row cap cut rows off

    @property
    def value(self) -> str | None:
        """Gives the value of a field of the customer itself; None where there is none."""
        return self.values[0] if self.values else None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a disclosure is on record; see `verify_receipt`."""

    leaf: bytes = field(repr=False)
    leaf_index: int
    tree_size: int
    path: tuple[bytes, ...] = field(repr=False)
    signed_root: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class GrantedField:
    """What a grant says about one field."""

    name: str
    state: FieldState
    rule: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission to read one customer's fields for a few minutes."""

    grant_id: str
    decision_id: str
    ticket_id: str
    purpose: str
    fields: tuple[GrantedField, ...]
    policy_version: str
    create_time: datetime
    expire_time: datetime
    trace_id: str
    token: str = field(repr=False)

    @property
    def readable(self) -> tuple[str, ...]:
        """Gives the names of the fields that a read may ask for."""
        return tuple(f.name for f in self.fields if f.state is not FieldState.WITHHELD)


@dataclass(frozen=True, slots=True)
class Record:
    """One customer's record as far as ticket and policy justify it."""

    decision_id: str
    policy_version: str
    fields: tuple[FieldValue, ...]
    receipt: Receipt
    grant: Grant

    def __getitem__(self, name: str) -> FieldValue:
        """Gives a field by its full name."""
        for each in self.fields:
            if each.name == name:
                return each
        raise KeyError(name)

    def __iter__(self) -> Iterator[FieldValue]:
        """Goes through the fields in the order they were asked for."""
        return iter(self.fields)


@dataclass(frozen=True, slots=True)
class GrantStatus:
    """Whether a grant is usable now."""

    active: bool
    expire_time: datetime | None = None
    ticket_id: str = ""


@dataclass(frozen=True, slots=True)
class AssignedTicket:
    """One open ticket of the calling agent."""

    ticket_id: str
    kind: str
    relation: str  # assignee, supervisor, collaborator
    assign_time: datetime


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a decision went as it did."""

    decision_id: str
    reason: str
    policy_version: str
    facts: dict[str, str]
    fields: tuple[tuple[str, tuple[str, ...]], ...]  # name, what was missing


@dataclass(frozen=True, slots=True)
class Suspension:
    """One period of suspension of one agent."""

    agent: AgentName
    reason: str
    suspended_by: str
    create_time: datetime
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class Reinstatement:
    """An agent who is not suspended any more."""

    end_time: datetime | None  # None: there was no suspension to end
    decision_id: str


@dataclass(frozen=True, slots=True)
class Revocation:
    """How many grants were live and are revoked now."""

    revoked: int
    decision_id: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What the broker answered to a heartbeat."""

    resync_needed: bool
    contiguous_seq: int
    stale_time: datetime | None


@dataclass(frozen=True, slots=True)
class Resync:
    """What a snapshot changed."""

    tickets: int  # that the snapshot named
    closed: int  # open ones that it did not name
    contiguous_seq: int
