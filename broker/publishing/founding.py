"""Version 1 on a new database, and the broken glass: the two ways into force without two persons.

Invariants:
- the first is open on a new database alone; the second needs the schema owner's password and the
  signing keys, which no running process has together;
- both are on the ledger, in the same transaction, and signed like every version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg

from broker.database import Connection, queries, transaction, translated
from broker.keys import SigningKeys
from broker.ledger import ADMIN_DOOR, NO_TRACE, Event, EventIds, EventKind, append_events
from broker.policy import load
from broker.policy.bundle import Bundle
from broker.policy.seal import TYPE, Seal
from broker.publishing.publisher import as_json

Q = queries("publishing")


class Founding:
    """Publishes without proposals."""

    def __init__(
        self, pool: asyncpg.Pool, ids: EventIds, keys: SigningKeys, issuer: str, clock: Callable[[], float]
    ) -> None:
        """Takes connections as broker_admin (`found`) or broker_owner (`break_glass`), and what signs."""
        self._pool = pool
        self._ids = ids
        self._keys = keys
        self._issuer = issuer
        self._clock = clock

    async def found(self, bundle: Bundle, *, by: str) -> bool:
        """Makes a policy version 1 of a new database; false where there is a version already.

        Raises:
            PolicyInvalidError: the files are no policy.
        """
        await asyncio.to_thread(load, bundle.files, "candidate")
        async with transaction(self._pool) as conn:
            signature = self._sign(Seal(1, bundle.files.digest, bundle.tests_digest, "first"))
            with translated():
                is_first = await conn.fetchval(
                    Q.publish_first, as_json(bundle.files.texts), bundle.files.digest, as_json(bundle.tests),
                    bundle.tests_digest, by, signature,
                )  # fmt: skip
            if is_first:
                await self._record(conn, "bootstrap", bundle, 1, by, "")
        return bool(is_first)

    async def break_glass(self, bundle: Bundle, *, by: str, reason: str) -> int:
        """Makes a policy the one in force, as the schema's owner; gives its version.

        Raises:
            PolicyInvalidError: the files are no policy.
        """
        await asyncio.to_thread(load, bundle.files, "candidate")
        async with transaction(self._pool) as conn:
            with translated():
                version = int(await conn.fetchval(Q.next_version))
                seal = Seal(version, bundle.files.digest, bundle.tests_digest, "break-glass")
                await conn.execute(
                    Q.break_glass, version, as_json(bundle.files.texts), bundle.files.digest,
                    as_json(bundle.tests), bundle.tests_digest, by, reason, self._sign(seal),
                )  # fmt: skip
            await self._record(conn, "break glass", bundle, version, by, reason)
        return version

    def _sign(self, seal: Seal) -> str:
        return self._keys.sign({"typ": TYPE}, seal.claims(self._issuer, self._clock()))

    async def _record(
        self, conn: Connection, act: str, bundle: Bundle, version: int, by: str, reason: str
    ) -> None:
        event = Event(
            id=self._ids.new(),
            kind=EventKind.POLICY,
            outcome="done",
            trace_id=NO_TRACE,
            tool=by,
            policy_version=str(version),
            detail={"act": act, "digest": bundle.digest, **({"why": reason} if reason else {})},
        )
        await append_events(conn, [event], door=ADMIN_DOOR)
