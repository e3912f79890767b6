"""What the client of PolicyService answers with; frozen, typed, without protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from broker.client.values import AgentName


@dataclass(frozen=True, slots=True)
class WhoIAm:
    """A person at a console, as the broker knows them."""

    person: AgentName
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    certificate: str
    methods: tuple[str, ...]
    policy_version: str


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A policy as text: the five files and the tests, by name."""

    files: Mapping[str, str] = field(repr=False)
    tests: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Examination:
    """What an examination found, in sentences."""

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    widening: tuple[str, ...]
    narrowing: tuple[str, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal and what became of it."""

    proposal_id: str
    base_version: str
    restores_version: str
    digest: str
    author: AgentName
    certificate: str
    reason: str
    widens: bool
    create_time: datetime
    expire_time: datetime
    state: str  # open, approved, alone, rejected, withdrawn, expired, overtaken
    end_person: AgentName | None
    end_reason: str
    end_time: datetime | None
    version: str


@dataclass(frozen=True, slots=True)
class Proposed:
    """What came of a draft: a proposal, or the refusals of the examination."""

    proposal: Proposal | None
    examination: Examination
    decision_id: str


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A version that is or was in force."""

    version: str
    digest: str
    tests_digest: str
    how: str
    base_version: str
    restores_version: str
    proposal_id: str
    author: AgentName | None
    approver: AgentName | None
    reason: str
    published_by: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class PolicyWorker:
    """What an access worker said last."""

    worker: str
    version: str
    confirm_time: datetime
    guard_time: datetime | None


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """The version in force, and the workers."""

    version: str
    digest: str
    tests_digest: str
    alert: str
    workers: tuple[PolicyWorker, ...]
    open_proposals: int
    file_digests: Mapping[str, str]  # SHA-256 of each file and test, by name


@dataclass(frozen=True, slots=True)
class Shadow:
    """A policy that decides beside the version in force, without effect."""

    shadow_id: str
    digest: str
    start_person: AgentName | None
    start_time: datetime
    end_time: datetime | None  # None: it runs
    compared: int
    differing: int
    left_out: int
    unlisted: int
    trouble: str
    count_time: datetime | None


@dataclass(frozen=True, slots=True)
class ShadowDifference:
    """A field of some agents on some tickets that a shadow decides otherwise."""

    field: str
    active_level: str
    shadow_level: str
    roles: tuple[str, ...]
    ticket_kind: str
    purpose: str
    uses: int
    relation: str  # this and what follows: the facts of the first such decision
    provenance: str
    opened_by: str
    presence: str


@dataclass(frozen=True, slots=True)
class StartedShadow:
    """What came of a draft: a shadow that runs, or why it is no policy."""

    shadow: Shadow | None
    findings: tuple[str, ...]
    facts: Mapping[str, Any]
    decision_id: str
