"""Everybody who could have read a customer at a time, beside who did.

    (1) the question on record, and the customer's pseudonym
    (2) who stood how to the customer's tickets then: links, states and assignments as the broker knew them
    (3) the policy of then decides for each of them, once with the customer present, once absent
    (4) whose reads of the customer are on record

Invariants:
- "could" is never less than it was: what is not known is decided both ways, or said;
- nothing is guessed: an agent whose token was not seen before that time has unknown roles, not none.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from broker.audit.disclosures import catch_up
from broker.audit.matching import IdentifiersUsedUpError
from broker.audit.naming import pseudonym_of
from broker.audit.record import Auditor, put_on_record
from broker.database import connection, queries
from broker.ledger import EventIds
from broker.model import Facts, OpenedBy, Presence, Provenance, Relation
from broker.policy import Policy, PolicyFiles
from broker.policy.decision import load_known

Q = queries("access_at")

USED_UP = "BK140"
"""The database's word for: asked of too many customers today."""

LOOKED_BACK = 1000
"""Events of an agent, back from that time, among which their last token is looked for."""

UNKNOWABLE = (
    "whether the feed was fresh at that moment, which every read needs",
    "how much of the agent's budget was left",
    "whether a tool of theirs was allowed the audience, and who held their session",
    "groups that the policy of then did not know: the ledger keeps those that it maps",
    "what the helpdesk knew and had not told the broker yet",
)
"""What no record tells; each could only have made access less, but for the last two."""

BEFORE_HISTORY = (
    "the tickets' state and customers at that time: their history begins later. Tickets are taken for open "
    "and for what they are first known as; a customer who was taken off one before that is not found"
)


@dataclass(frozen=True, slots=True)
class Could:
    """One agent, one ticket: what they could have read, purpose by purpose."""

    agent: str
    ticket_id: str
    ticket_kind: str
    relation: str
    provenance: str
    opened_by: str
    since: datetime  # when the relation began
    suspended: bool  # then nothing could be read, whatever stands here
    groups_time: datetime | None  # None: no token of theirs was seen before, or not for long
    roles: tuple[str, ...]
    absent: Mapping[str, Mapping[str, str]]  # purpose -> field -> level
    present: Mapping[str, Mapping[str, str]]

    @property
    def could(self) -> bool | None:
        """Says whether anything could have been read; None: not known."""
        if self.suspended:
            return False
        if self.groups_time is None:
            return None
        return any(self.absent.values()) or any(self.present.values())


@dataclass(frozen=True, slots=True)
class Did:
    """One agent's disclosures of the customer, at any time."""

    agent: str
    reads: int
    first: datetime
    last: datetime
    last_before: datetime | None  # of those up to the time that was asked about


@dataclass(frozen=True, slots=True)
class AccessAt:
    """The answer."""

    event_id: UUID | None  # the question on record; None where it came over a port that did not tell
    time: datetime
    pseudonym: str  # "": no agent was ever granted anything of this customer
    policy_version: str  # "": none was in force
    could: tuple[Could, ...]
    did: tuple[Did, ...]
    not_knowable: tuple[str, ...]


async def access_at(
    pool: asyncpg.Pool,
    records: asyncpg.Pool,
    ids: EventIds,
    by: Auditor,
    customer: str,
    time: datetime,
) -> AccessAt:
    """Answers who could have read a customer at a time, and who did.

    Args:
        pool: the broker's database as broker_auditor.
        records: the records database as broker_auditor.
        ids: event ids.
        by: who asks.
        customer: the customer's key.
        time: when.

    Raises:
        IdentifiersUsedUpError: too many identifiers were matched, or customers asked for, on this day.
        LedgerUnavailableError: the question is not on record.
        PolicyInvalidError: the policy of then cannot be loaded by this release.
    """
    found = await pseudonym_of(pool, records, ids, by, "access", customer)
    pseudonym = found.pseudonym or ""
    await put_on_record(pool, ids, by, {"query": "access of", "customer": pseudonym, "at": time.isoformat()})
    # (2) before the index is brought up to now, which may take longer than a question stands.
    async with connection(pool) as conn:
        try:
            standing = await conn.fetch(Q.standing, found.event_id, customer, time)
        except asyncpg.PostgresError as exc:
            if exc.sqlstate == USED_UP:
                raise IdentifiersUsedUpError from exc
            raise
        version = await conn.fetchrow(Q.policy, time)
        began = await conn.fetchval(Q.history_start)
        agents = sorted({row["agent"] for row in standing})
        tokens = {row["agent"]: row for row in await conn.fetch(Q.seen_in_tokens, agents, time, LOOKED_BACK)}
    did = []
    if pseudonym:
        await catch_up(pool)
        async with connection(pool) as conn:
            did = await conn.fetch(Q.did, pseudonym, time)
    policy = None
    if version is not None and standing:
        files = PolicyFiles.from_mapping(json.loads(version["files"]))
        policy = await asyncio.to_thread(load_known, files, str(version["version"]), today=time.date())
    return AccessAt(
        event_id=found.event_id,
        time=time,
        pseudonym=pseudonym,
        policy_version=str(version["version"]) if version is not None else "",
        could=tuple(_could(row, tokens.get(row["agent"]), policy) for row in standing),
        did=tuple(Did(*row) for row in did),
        not_knowable=(*UNKNOWABLE, BEFORE_HISTORY) if time < began else UNKNOWABLE,
    )


def _could(row: Any, token: Any, policy: Policy | None) -> Could:
    groups = frozenset(json.loads(token["groups"])) if token is not None else frozenset()
    roles = policy.roles_of(groups) if policy is not None else frozenset()
    return Could(
        agent=row["agent"],
        ticket_id=row["ticket_id"],
        ticket_kind=row["kind"],
        relation=row["relation"],
        provenance=row["provenance"],
        opened_by=row["opened_by"],
        since=row["since"],
        suspended=row["suspended"],
        groups_time=token["record_time"] if token is not None else None,
        roles=tuple(sorted(roles)),
        absent=_fields(row, roles, policy, Presence.ABSENT),
        present=_fields(row, roles, policy, Presence.PRESENT),
    )


def _fields(
    row: Any, roles: frozenset[str], policy: Policy | None, presence: Presence
) -> dict[str, dict[str, str]]:
    """Decides every field for every purpose; purposes that open nothing are left out."""
    if policy is None:
        return {}
    fields: Sequence[str] = tuple(policy.catalog.fields)
    opened = {}
    for purpose in policy.catalog.purposes:
        facts = Facts(
            purpose, Relation(row["relation"]), row["kind"], Provenance(row["provenance"]),
            OpenedBy(row["opened_by"]), presence,
        )  # fmt: skip
        allowed = policy.decide(roles, facts, fields).allowed
        if allowed:
            opened[purpose] = {name: level.value for name, level in allowed.items()}
    return opened
