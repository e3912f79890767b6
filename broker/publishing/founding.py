"""Version 1 on a new database, and the broken glass: the two ways into force without two persons.

Invariants:
- the first is open on a new database alone; the second needs the schema owner's password and the
  signing keys, which no running process has together;
- both are examined like every version, by the incident tests too; a broken glass may be published all the
  same, where whoever breaks it says so, and then its event says so;
- both are on the ledger, in the same transaction, and signed like every version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime

import asyncpg

from broker.database import Connection, queries, transaction, translated
from broker.errors import GuardBehindError, PolicyInvalidError
from broker.keys import SigningKeys
from broker.ledger import ADMIN_DOOR, NO_TRACE, Event, EventIds, EventKind, append_events
from broker.policy import load
from broker.policy.bundle import Bundle
from broker.policy.seal import TYPE, Seal
from broker.policy.table_digest import table_digest
from broker.publishing.examining import Examine, in_this_process
from broker.publishing.gate import Examination, Question
from broker.publishing.guard import GuardCheck
from broker.publishing.publisher import as_json
from broker.publishing.reading import Reading

Q = queries("publishing")


class Founding:
    """Publishes without proposals."""

    def __init__(
        self,
        *,
        pool: asyncpg.Pool,
        ids: EventIds,
        keys: SigningKeys,
        issuer: str,
        clock: Callable[[], float],
        methods: Collection[str],
        examine: Examine = in_this_process,
    ) -> None:
        """Takes what it works with.

        Args:
            pool: connections as broker_admin (`found`) or broker_owner (`break_glass`).
            ids: ids of events.
            keys: sign versions.
            issuer: this broker's, in every signature.
            clock: POSIX seconds.
            methods: full names of the admin port's RPCs.
            examine: examines candidates.
        """
        self._pool = pool
        self._ids = ids
        self._keys = keys
        self._issuer = issuer
        self._clock = clock
        self._methods = frozenset(methods)
        self._examine = examine
        self._reading = Reading(pool)
        self._check_guard = GuardCheck(self._reading, unknown_passes=True)

    async def found(self, bundle: Bundle, *, by: str) -> bool:
        """Makes a policy version 1 of a new database; false where there is a version already.

        The guard is not asked for: no worker has looked at it before there is a policy, and none serves
        behind one that lacks something.

        Raises:
            PolicyInvalidError: it fails its examination; the findings are the refusals.
        """
        # Without the seconds with Casbin: a broker starts.
        found = await self._examined(bundle, thorough=False)
        if found.refusals:
            raise PolicyInvalidError(list(found.refusals))
        async with transaction(self._pool) as conn:
            seal = Seal(1, bundle.files.digest, bundle.tests_digest, "first", table=found.table)
            signature = self._sign(seal)
            with translated():
                is_first = await conn.fetchval(
                    Q.publish_first, as_json(bundle.files.texts), bundle.files.digest, as_json(bundle.tests),
                    bundle.tests_digest, by, signature,
                )  # fmt: skip
            if is_first:
                await self._record(conn, {"act": "bootstrap", "digest": bundle.digest}, 1, by)
        return bool(is_first)

    async def break_glass(
        self, bundle: Bundle, *, by: str, reason: str, despite_refusals: bool = False
    ) -> tuple[int, list[str]]:
        """Makes a policy the one in force, as the schema's owner.

        Args:
            bundle: the policy and its tests.
            by: who, as the system knows them.
            reason: in their words.
            despite_refusals: publish what fails its examination, as long as brokers can load it.

        Returns:
            Its version, and what its examination refused.

        Raises:
            PolicyInvalidError: it fails its examination, or cannot be loaded at all.
        """
        refusals = list((await self._examined(bundle, thorough=True)).refusals)
        try:
            await self._check_guard(bundle, None)
        except GuardBehindError as exc:
            refusals.append(f"the installed guard does not cover it: {exc.metadata['finding']}")
        if refusals and not despite_refusals:
            raise PolicyInvalidError(refusals)
        policy = await asyncio.to_thread(load, bundle.files, "candidate", today=self._today())
        table = table_digest(policy.table)
        detail: dict[str, object] = {"act": "break glass", "digest": bundle.digest, "why": reason}
        if refusals:
            detail["despite_refusals"] = len(refusals)
        async with transaction(self._pool) as conn:
            with translated():
                version = int(await conn.fetchval(Q.next_version))
                seal = Seal(version, bundle.files.digest, bundle.tests_digest, "break-glass", table=table)
                await conn.execute(
                    Q.break_glass, version, as_json(bundle.files.texts), bundle.files.digest,
                    as_json(bundle.tests), bundle.tests_digest, by, reason, self._sign(seal),
                )  # fmt: skip
            await self._record(conn, detail, version, by)
        return version, refusals

    async def _examined(self, bundle: Bundle, *, thorough: bool) -> Examination:
        before = await self._reading.catalogs()
        question = Question(bundle, None, self._today(), before, self._methods, thorough=thorough)
        return await self._examine(question)

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()

    def _sign(self, seal: Seal) -> str:
        return self._keys.sign({"typ": TYPE}, seal.claims(self._issuer, self._clock()))

    async def _record(self, conn: Connection, detail: dict[str, object], version: int, by: str) -> None:
        event = Event(
            id=self._ids.new(),
            kind=EventKind.POLICY,
            outcome="done",
            trace_id=NO_TRACE,
            tool=by,
            policy_version=str(version),
            detail=detail,
        )
        await append_events(conn, [event], door=ADMIN_DOOR)
