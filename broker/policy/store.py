"""Policy versions in the database, and the policy in force in this process.

Invariants:
- nothing is stored that `load` refuses, and nothing is served whose files are not those of its digest;
- the policy in force is one attribute that moves from a whole policy to a whole policy;
- a version that cannot be loaded changes nothing here: the last good one stays and the alert is set.
  Reads do not go on under it for long, because the ledger compares the version of each decision with
  the active one;
- a rule that has ended is out of force at the next refresh, whether the database answers or not; where
  the policy cannot be built without it, none is in force;
- policies are built in a thread: reads go on meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import asyncpg

from broker.database import Connection, connection, queries, transaction, translated
from broker.errors import BrokerError, PolicyInvalidError, PolicyUnavailableError
from broker.policy.decision import Policy, load
from broker.policy.files import PolicyFiles

Q = queries("policy")
LOG = logging.getLogger(__name__)


class PolicyStore:
    """The versions in the broker's database; writing needs a connection of role broker_admin."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Takes a pool of a role that may read policies."""
        self._pool = pool

    async def active_version(self) -> str:
        """Gives the version in force; empty on a new database."""
        async with connection(self._pool) as conn:
            version = await conn.fetchval(Q.active_version)
        return "" if version is None else str(version)

    async def active(self) -> tuple[str, PolicyFiles]:
        """Gives the version in force and its files.

        Raises:
            PolicyUnavailableError: no policy is active yet.
            PolicyInvalidError: the files are not those that were stored under this version.
        """
        async with connection(self._pool) as conn:
            row = await conn.fetchrow(Q.active)
        if row is None:
            raise PolicyUnavailableError(cause="no policy is active")
        files = PolicyFiles.from_mapping(json.loads(row["files"]))
        if files.digest != row["digest"]:
            raise PolicyInvalidError(
                [f"policy version {row['version']}: its files have another digest than its row [digest]"]
            )
        return str(row["version"]), files

    async def activate(
        self, files: PolicyFiles, loaded_by: str, conn: Connection, *, expected: str | None = None
    ) -> str:
        """Stores a policy and makes it the active one, within the caller's transaction.

        Args:
            files: checked here again, in a thread; a caller that has not loaded them gets no further.
            loaded_by: who does this, for the record.
            conn: of role broker_admin, in a transaction that also appends the ledger event.
            expected: the version that the caller thinks is active; None: whichever is.

        Returns:
            The new version.

        Raises:
            PolicyInvalidError: the files are no policy.
            PolicyUnavailableError: another version than expected is active.
        """
        await asyncio.to_thread(load, files, "candidate")
        with translated():
            version = await conn.fetchval(
                Q.activate, _as_json(files), files.digest, loaded_by, int(expected) if expected else None
            )
        if version is None:
            raise PolicyUnavailableError(cause="another version than expected is active")
        return str(version)

    async def bootstrap(
        self, files: PolicyFiles, loaded_by: str, conn: Connection | None = None
    ) -> tuple[str, bool]:
        """Activates a policy on a new database, and only there.

        Returns:
            The version in force, and whether it is these files that were just activated.

        Raises:
            PolicyInvalidError: the files are no policy.
        """
        await asyncio.to_thread(load, files, "candidate")
        arguments = (_as_json(files), files.digest, loaded_by)
        if conn is not None:
            with translated():
                row = await conn.fetchrow(Q.bootstrap, *arguments)
        else:
            async with transaction(self._pool) as own:
                row = await own.fetchrow(Q.bootstrap, *arguments)
        if row is None:  # the function gives one row, always
            raise PolicyUnavailableError(cause="bootstrap gave no version")
        return str(row["version"]), bool(row["created"])


class PolicyHolder:
    """The policy in force in this process."""

    def __init__(self, store: PolicyStore, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Takes where versions come from and the clock that ends rules; holds nothing until `refresh`."""
        self._store = store
        self._now = now
        self._files: PolicyFiles | None = None  # of the policy in force
        self._followers: list[Callable[[Policy], None]] = []
        self._policy: Policy | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked = 0  # grows with every refresh; a round that began before is not enough
        self.alert = ""
        """Why the active version is not the one in force here; empty when all is well."""

    @property
    def current(self) -> Policy:
        """Gives the policy in force; take it once per decision.

        Raises:
            PolicyUnavailableError: none has been loaded yet.
        """
        if self._policy is None:
            raise PolicyUnavailableError(cause=self.alert or "no policy is loaded")
        return self._policy

    def follow(self, follower: Callable[[Policy], None]) -> None:
        """Tells of the policy in force, and of every later one in the moment that it is swapped in."""
        follower(self.current)
        self._followers.append(follower)

    @property
    def loaded(self) -> bool:
        """Says whether any policy is in force."""
        return self._policy is not None

    async def refresh(self) -> None:
        """Brings the version in force up to the active one; never raises, sets `alert` instead.

        Calls that come while one is under way share it, and one more round after it, so that each
        caller sees at least what was active when it called.
        """
        self._asked += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._rounds())
        # Shielded: one caller that goes away must not end the refresh of the others.
        await asyncio.shield(self._task)

    async def _rounds(self) -> None:
        answered = -1
        while answered != self._asked:
            answered = self._asked
            try:
                await self._round()
            except PolicyInvalidError as exc:
                self._raise_alert(f"the active policy cannot be loaded: {exc.findings[0]}")
            except BrokerError as exc:
                self._raise_alert(f"the active policy cannot be read: {exc.cause or exc.reason}")
            except Exception as exc:  # noqa: BLE001 - whatever it is, the last good policy stays
                self._raise_alert(f"the active policy cannot be loaded: {type(exc).__name__}")
            else:
                self.alert = ""

    async def _round(self) -> None:
        await self._end_rules()
        if self._policy is not None and await self._store.active_version() == self._policy.version:
            return
        version, files = await self._store.active()
        if self._policy is not None and int(version) < int(self._policy.version):
            # Version numbers only grow; an older one is an old replica or a restored database.
            raise PolicyUnavailableError(cause=f"the active version went back to {version}")
        self._put(files, await asyncio.to_thread(load, files, version, today=self._now().date()))

    async def _end_rules(self) -> None:
        """Takes rules that have ended out of force; first of all, because it needs no database."""
        held, files, today = self._policy, self._files, self._now().date()
        if held is None or files is None or not held.is_over(today):
            return
        try:
            policy = await asyncio.to_thread(load, files, held.version, today=today)
        except BaseException:
            self._policy = None  # what may be too wide is not kept
            raise
        self._put(files, policy)

    def _put(self, files: PolicyFiles, policy: Policy) -> None:
        self._files = files
        self._policy = policy
        LOG.info(
            "a policy is in force", extra={"policy_version": policy.version, "finding": policy.verification}
        )
        for follower in self._followers:
            follower(policy)

    def _raise_alert(self, text: str) -> None:
        if text != self.alert:
            # Before the first policy there is nothing to be alarmed about: a new database has none yet.
            LOG.log(logging.ERROR if self.loaded else logging.INFO, "policy alert", extra={"finding": text})
        self.alert = text


def _as_json(files: PolicyFiles) -> str:
    return json.dumps(dict(files.texts), ensure_ascii=False)
