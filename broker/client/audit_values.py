"""Values of the auditors' client."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from broker.client.values import AgentName


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events are meant: those for which everything holds that is set."""

    agent: AgentName | None = None
    tool: str = ""
    customer: str = ""  # pseudonyms, both
    ticket: str = ""
    grant_id: str = ""
    kind: str = ""
    outcome: str = ""
    reason: str = ""
    policy_version: str = ""
    since: datetime | None = None
    until: datetime | None = None  # exclusive


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """One event of the ledger."""

    event_id: str
    leaf_index: int | None  # its place in the transparency log; None: not there yet
    record_time: datetime
    kind: str
    outcome: str
    reason: str
    agent: str
    tool: str
    customer: str
    ticket: str
    grant_id: str
    trace_id: str
    policy_version: str
    leaf: bytes  # the stored bytes; b"" where they are more than a message holds
    leaf_size: int = 0  # how many are stored

    @property
    def detail(self) -> dict[str, Any]:
        """Gives what the leaf tells beside its columns, or how large it is; empty where it cannot be read."""
        if not self.leaf and self.leaf_size:
            return {"oversized_leaf": self.leaf_size}
        try:
            found = json.loads(self.leaf).get("detail")
        except (ValueError, AttributeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events in the order of the log, and the index to go on from once they are safe."""

    events: tuple[LedgerEvent, ...]
    next_index: int


@dataclass(frozen=True, slots=True)
class MeasuredSpan:
    """One step that was measured; ids in hex, times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_span_id: str  # "" for the request itself
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TracedThing:
    """What was measured and what is on record about one thing."""

    spans: tuple[MeasuredSpan, ...]
    events: tuple[tuple[LedgerEvent, str], ...]  # with its inclusion proof as JSON; "" where there is none
    truncated: bool


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What ledger and spans hold of one part of a time."""

    since: datetime
    until: datetime
    events: int
    events_without_spans: int
    traces: int
    traces_without_events: int
    missing_spans: tuple[str, ...]  # some event ids
    missing_events: tuple[str, ...]  # some trace ids


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, and the token of the next ones; "" where there are none."""

    events: tuple[LedgerEvent, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class ErasedCustomer:
    """What there was of a customer, and is not any more."""

    pseudonym: str  # nobody's now; "" where the ledger had none
    revoked: int  # grants that were live
    grants: int
    tickets: int
    salt_destroyed: bool
    decision_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureQuery:
    """Whose data was given out; everything that is set must hold, one of the first five is needed."""

    agent: AgentName | None = None
    tool: str = ""
    customer: str = ""  # pseudonym
    customer_id: str = ""  # the key, in its place
    grant_id: str = ""
    since: datetime | None = None
    until: datetime | None = None  # exclusive


@dataclass(frozen=True, slots=True)
class ExposedCustomer:
    """What was given out of one customer."""

    customer: str  # pseudonym, as the tickets'
    reads: int
    first: datetime
    last: datetime
    clear: tuple[str, ...]
    masked: tuple[str, ...]  # and never in clear
    classes_clear: tuple[str, ...]
    classes_masked: tuple[str, ...]
    unreadable: bool  # a read does not tell its fields
    tickets: tuple[str, ...]
    purposes: tuple[str, ...]
    provenances: tuple[str, ...]
    agents: tuple[str, ...]  # issuer|subject
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExposureTotals:
    """Counts over all customers of a report."""

    customers: int
    reads: int
    unreadable: int
    first: datetime | None
    last: datetime | None
    fields: dict[str, dict[str, int]]  # name -> clear, masked -> customers
    classes: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class PackSummary:
    """What a notification pack is that came whole."""

    decision_id: str
    length: int  # in bytes; 0: nothing was ever granted of the customer whose key was given, so there is none
    sha256: bytes
    customers: int
    reads: int
    leaves: int
    log_size: int


@dataclass(frozen=True, slots=True)
class LeakEvidence:
    """One read that showed a complainant's data before the contact."""

    line: int
    event_id: str
    time: datetime
    tool: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakCandidate:
    """Who could be the source; evidence, not a verdict."""

    kind: str  # agent, tool, pair
    names: tuple[str, ...]
    named: bool
    complaints: tuple[int, ...]  # lines
    expected: float  # how many chance gives
    p_value: float
    corrected: float
    p_among_all: float | None
    evidence: tuple[LeakEvidence, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakRanking:
    """Whose reads explain complaints, best first; complaints are told by their lines."""

    decision_id: str
    verdict: str  # named, none, nothing_to_test
    lines: int
    matched: int
    used: int
    tests: int
    candidates: tuple[LeakCandidate, ...]
    uncovered: tuple[int, ...]
    unexplained: tuple[int, ...]
    tampered: tuple[str, ...]
    not_used: tuple[tuple[int, str], ...]  # line, why


@dataclass(frozen=True, slots=True, kw_only=True)
class PossibleAccess:
    """One agent on one ticket: what they could have read."""

    agent: str
    ticket_id: str
    ticket_kind: str
    relation: str
    provenance: str
    opened_by: str
    since: datetime
    suspended: bool  # then nothing could be read, whatever stands here
    groups_time: datetime | None  # None: roles are not known
    roles: tuple[str, ...]
    absent: dict[str, dict[str, str]]  # purpose -> field -> level
    present: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class ActualAccess:
    """One agent's reads of the customer, at any time."""

    agent: str
    reads: int
    first: datetime
    last: datetime
    last_before: datetime | None  # of those up to the time that was asked about


@dataclass(frozen=True, slots=True)
class AccessReport:
    """Who could have read a customer at a time, beside who did."""

    time: datetime
    pseudonym: str  # "": no agent was ever granted anything of them
    policy_version: str  # "": none was in force
    could: tuple[PossibleAccess, ...]
    did: tuple[ActualAccess, ...]
    not_knowable: tuple[str, ...]
    decision_id: str  # the ledger event of the question


@dataclass(frozen=True, slots=True)
class UnexplainedVisit:
    """One visit without work, by pseudonyms."""

    event_id: str
    day: date
    queue: str
    reads: int
    customer: str
    ticket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderStanding:
    """What all days say of one agent."""

    agent: str
    visits: int
    unexplained: int
    expected: float
    log_evidence: float
    called_on: date | None
    recent_visits: tuple[UnexplainedVisit, ...]


@dataclass(frozen=True, slots=True)
class UnexplainedReads:
    """Every agent's standing, strongest evidence first."""

    decision_id: str
    days: tuple[date, ...]
    unjudged: int  # visits whose ticket nobody could tell any more
    agents: tuple[ReaderStanding, ...]
