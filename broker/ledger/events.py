"""Events and their leaf bytes.

Invariants:
- an event's id is a UUIDv7 (RFC 9562) made by the writer: its order, its partition, its idempotency key;
- a leaf is ASCII JSON, keys in the order written here; the writer makes it all but the end, which
  only the append knows (outcome, reason, record time; `broker.leaf` in 050_ledger.sql);
- no personal data: agents are named, customers and tickets are pseudonyms.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

NO_TRACE = "0" * 32
"""Trace id of an event that no request caused."""


class EventKind(StrEnum):
    """What an event tells; the database checks the same list."""

    ADMIN = "admin"
    AUDITOR_QUERY = "auditor_query"
    DENIAL = "denial"
    DENIALS = "denials"
    GRANT = "grant"
    LOGIN_FAILURE = "login_failure"
    OUTCOME = "outcome"
    POLICY = "policy"
    READ = "read"
    REVOKE = "revoke"
    SUSPENSION = "suspension"


MOST_AHEAD = 10.0
"""Seconds that ids may run ahead of a clock that stepped back. The database refuses an id that is a
minute off; a worker whose clock was an hour fast and was put right must not be refused for an hour."""


class EventIds:
    """Makes UUIDv7 ids that grow within this process, also when its clock steps back a little."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        randbits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        """Takes the clock (POSIX seconds) and the source of random bits."""
        self._clock = clock
        self._randbits = randbits
        self._last = 0

    def new(self) -> UUID:
        """Makes the next id: 48 bits of milliseconds, 12 bits that count within one, 62 random bits."""
        tick = int(self._clock() * 1000) << 12
        too_far = self._last - tick > int(MOST_AHEAD * 1000) << 12
        self._last = tick if too_far else max(tick, self._last + 1)
        millis, count = self._last >> 12, self._last & 0xFFF
        return UUID(int=millis << 80 | 0x7 << 76 | count << 64 | 0b10 << 62 | self._randbits(62))


def head(event_id: UUID, trace_id: str, rest: bytes) -> bytes:
    """Puts a leaf's head together: the id and trace of one call, then what `rest_of` made."""
    return b'{"v":1,"id":"%s","trace":"%s",%s' % (str(event_id).encode(), trace_id.encode(), rest)


def rest_of(
    kind: EventKind,
    *,
    agent: str,
    tool: str,
    grant_id: UUID | None = None,
    customer: str = "",
    ticket: str = "",
    policy_version: str = "",
    detail: Mapping[str, Any] | bytes | None = None,
) -> bytes:
    """Encodes what stays the same for every read of one decision, so that it is encoded once.

    Args:
        kind: of the event.
        agent: who asked.
        tool: through what.
        grant_id: on which grant.
        customer: pseudonym.
        ticket: pseudonym.
        policy_version: under which the decision was taken.
        detail: what else is told; bytes are what `encode` made of it.
    """
    body = {
        "kind": kind.value,
        "agent": agent,
        "tool": tool,
        "grant": str(grant_id) if grant_id else "",
        "customer": customer,
        "ticket": ticket,
        "policy_version": policy_version,
    }
    told = detail if isinstance(detail, bytes) else encode(detail or {})
    return b'%s,"detail":%s' % (encode(body)[1:-1], told)


def encode(members: Mapping[str, Any]) -> bytes:
    """Encodes a part of a leaf: ASCII JSON without spaces, members in their order."""
    return json.dumps(members, separators=(",", ":"), ensure_ascii=True).encode("ascii")


@dataclass(frozen=True, slots=True)
class Event:
    """An event that needs no ground: a denial, a failed log-in, an outcome, an administrative call."""

    id: UUID
    kind: EventKind
    outcome: str  # refused | done
    trace_id: str
    agent: str = ""
    tool: str = ""
    grant_id: UUID | None = None
    customer: str = ""
    ticket: str = ""
    reason: str = ""
    policy_version: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> bytes:
        """Gives the leaf without what only the append knows."""
        rest = rest_of(
            self.kind,
            agent=self.agent,
            tool=self.tool,
            grant_id=self.grant_id,
            customer=self.customer,
            ticket=self.ticket,
            policy_version=self.policy_version,
            detail=self.detail,
        )
        return head(self.id, self.trace_id, rest)


@dataclass(frozen=True, slots=True)
class ReadAppend:
    """A read that is released only if its ground holds in the append's transaction."""

    id: UUID
    grant_id: UUID
    agent: str
    tool: str
    trace_id: str
    facts_version: int
    present: bool
    policy_version: int
    per_hour: int
    per_day: int
    head: bytes


@dataclass(frozen=True, slots=True)
class GrantAppend:
    """A grant that is made only if its ground holds in the append's transaction."""

    id: UUID
    grant_id: UUID
    request_id: UUID
    request_hash: bytes
    agent: str
    tool: str
    thumbprint: str
    ticket_id: str
    customer_id: str
    customer_pseudonym: str
    ticket_pseudonym: str
    purpose: str
    audience: str
    fields: tuple[str, ...]
    levels: tuple[str, ...]
    answer: str  # JSON
    policy_version: int
    facts_version: int
    present: bool
    seconds: float
    per_hour: int
    per_day: int
    trace_id: str
    head: bytes
