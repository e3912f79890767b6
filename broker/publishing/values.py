"""What publishing speaks of: who acts, drafts, proposals, versions, workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from broker.model import Person
from broker.policy.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Administrator:
    """A person at a console, in one call."""

    person: Person
    console: str  # identity of the certificate
    trace_id: str

    @property
    def key(self) -> str:
        """Names the person: `issuer|subject`."""
        return self.person.agent.key


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody wants to be the policy."""

    bundle: Bundle
    reason: str
    base: int  # the version that it is meant to follow; 0: whichever is active
    restores: int | None = None  # the version whose content it is
    replaces_tests: bool = False  # tests in force may fail; what holds of them stays, or it widens
    alone: bool = False  # publish at once, where it only narrows


class ProposalState(StrEnum):
    """Where a proposal stands."""

    OPEN = "open"
    APPROVED = "approved"
    ALONE = "alone"  # published by its author alone
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    OVERTAKEN = "overtaken"  # another version became active first


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal and what became of it; files and report only where one was asked for."""

    proposal_id: UUID
    base_version: int
    restores_version: int | None
    digest: str
    author: str
    console: str
    reason: str
    widens: bool
    create_time: datetime
    expire_time: datetime
    state: ProposalState
    end_person: str = ""
    end_reason: str = ""
    version: int | None = None
    end_time: datetime | None = None
    bundle: Bundle | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Version:
    """A version that is or was in force."""

    version: int
    digest: str
    tests_digest: str
    how: str  # first | approved | alone | break-glass; "" for an older release's
    base_version: int | None
    restores_version: int | None
    proposal_id: UUID | None
    author: str
    approver: str
    reason: str
    loaded_by: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Worker:
    """What an access worker said last."""

    worker: str
    version: int
    confirm_time: datetime
    guard_time: datetime | None
