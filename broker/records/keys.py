"""Guard keys: made here, held by two databases, read by none of the service's roles.

Invariants:
- the records side knows a key before the mint signs with it, so no pass is ever refused for it;
- an old key verifies for as long as its last pass can live, then it is deleted;
- run by the owners of both databases (`broker keys rotate --guard`), never by the service.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.database import Connection, queries

LONGEST_PASS = timedelta(hours=1)
"""Longest life of a pass; `broker.mint_pass` refuses longer ones, the settings cap grants there."""

SLACK = timedelta(minutes=1)
"""Covers clocks that differ (5 s) and transactions that were signing while the key changed."""

BLOCK = 64
"""Block size of SHA-256, to which HMAC pads its key (RFC 2104)."""


@dataclass(frozen=True, slots=True)
class GuardKey:
    """A key as it may be shown: never its secret."""

    key_id: str
    create_time: datetime
    verify_until: datetime | None  # None: in use


async def rotate_guard_key(
    broker_owner: Connection,
    records_owner: Connection,
    *,
    overlap: timedelta = LONGEST_PASS + SLACK,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> str:
    """Makes a new key, brings it to both databases and lets the old ones run out; gives its id.

    Safe to run again after a crash: (1) alone leaves a key that nothing signs with, (1) and (2)
    leave an old key that verifies too long; the next rotation ends both.

    Args:
        broker_owner: the broker's database, as broker_owner.
        records_owner: the records database, as its administrator; may be the same database.
        overlap: how long old keys still verify; zero where a key has leaked: live grants then end.
        random_bytes: the source of the key.
    """
    q = queries("records")
    key_id = random_bytes(8).hex()
    key = random_bytes(32).ljust(BLOCK, b"\0")
    inner, outer = bytes(b ^ 0x36 for b in key), bytes(b ^ 0x5C for b in key)
    # (1) verify before sign
    await records_owner.execute(q.verify_key_add, key_id, inner, outer)
    # (2) sign; from this commit on no pass is made with an older key
    async with broker_owner.transaction():
        await broker_owner.execute(q.mint_key_add, key_id, inner, outer)
        await broker_owner.execute(q.mint_keys_forget, key_id)
    # (3) what was signed before runs out, what has run out goes
    await records_owner.execute(q.verify_keys_expire, key_id, overlap)
    await records_owner.execute(q.verify_keys_retire)
    return key_id


async def list_guard_keys(records_owner: Connection) -> list[GuardKey]:
    """Lists the keys that still verify, oldest first."""
    rows = await records_owner.fetch(queries("records").verify_keys)
    return [GuardKey(r["key_id"], r["create_time"], r["verify_until"]) for r in rows]
