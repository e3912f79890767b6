"""What AccessService is asked and answers, as values; `rpc/` turns them from and into protobuf."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from broker.ledger import Receipt
from broker.model import FieldDecision, Level


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """A checked CreateGrantRequest: syntax is fine, whether it is justified is another matter."""

    request_id: UUID
    ticket_id: str
    customer_id: str  # "": the ticket's only one
    purpose: str
    fields: tuple[str, ...]
    audience: str  # "": the broker itself
    seconds: float  # 0: the default

    def digest(self, tool_identity: str) -> bytes:
        """Hashes what is asked, so that a request id cannot come back with another question."""
        asked = [self.ticket_id, self.customer_id, self.purpose, self.fields, self.audience, self.seconds]
        return hashlib.sha256(json.dumps([tool_identity, *asked]).encode()).digest()


@dataclass(frozen=True, slots=True)
class GrantAnswer:
    """A grant as its agent hears of it."""

    grant_id: UUID
    decision_id: UUID
    token: str
    ticket_id: str
    purpose: str
    fields: tuple[FieldDecision, ...]
    policy_version: str
    create_time: datetime
    expire_time: datetime
    trace_id: str


@dataclass(frozen=True, slots=True)
class FieldAnswer:
    """One field of a record: its values at a level, or why it is withheld."""

    name: str
    level: Level | None
    values: Sequence[str | None] = ()
    withheld: str = ""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """A record as its agent sees it, and the proof that this is on record."""

    decision_id: UUID
    grant_id: UUID
    policy_version: str
    fields: Sequence[FieldAnswer]
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a decision withheld what it withheld."""

    decision_id: UUID
    reason: str
    policy_version: str
    facts: Mapping[str, str]
    fields: Mapping[str, Sequence[str]]  # withheld field -> what was missing
