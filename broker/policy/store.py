"""Policy versions in the database, and the policy in force in this process.

Invariants:
- nothing is served whose number and digests are not those of its signature, nor anything but the newest;
- the policy in force is one attribute that moves from a whole policy to a whole policy;
- a version that cannot be loaded changes nothing here: the last good one stays and the alert is set.
  Reads do not go on under it for long, because the ledger compares the version of each decision with
  the active one;
- a rule that has ended, by the database's clock, is out of force at the next refresh, whether the database
  answers or not; where the policy cannot be built without it, none is in force;
- where nobody can say for too long which version is active, none is in force (`longest`);
- a table that the seal does not name is held against Casbin here, before it is in force;
- policies are built in a thread: reads go on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import asyncpg

from broker.database import connection, queries
from broker.errors import BrokerError, PolicyInvalidError, PolicyUnavailableError
from broker.policy.bundle import Bundle
from broker.policy.decision import Compiled, Policy, compile_files
from broker.policy.files import PolicyFiles
from broker.policy.seal import Seals

Q = queries("policy")
LOG = logging.getLogger(__name__)

MOST_AHEAD = 3
"""Files kept compiled: of the proposal that is about to be approved, and two more."""


@dataclass(frozen=True, slots=True)
class Published:
    """A version as it was signed."""

    version: str
    bundle: Bundle
    table: str  # digest of the table that was held against Casbin before; empty where none is vouched for


class PolicyStore:
    """The versions in the broker's database, for reading; only `publishing` writes them."""

    def __init__(self, pool: asyncpg.Pool, seals: Seals) -> None:
        """Takes a pool of a role that may read policies, and what checks their signatures."""
        self._pool = pool
        self._seals = seals

    async def active_version(self) -> str:
        """Gives the version in force; empty on a new database."""
        async with connection(self._pool) as conn:
            version = await conn.fetchval(Q.active_version)
        return "" if version is None else str(version)

    async def look(self) -> tuple[str, datetime]:
        """Gives the version in force, empty on a new database, and the time that it is there."""
        async with connection(self._pool) as conn:
            [(version, now)] = await conn.fetch(Q.look)
        return "" if version is None else str(version), now

    async def active(self) -> tuple[str, Bundle]:
        """Gives the version in force with its files and tests; raises as `published`."""
        found = await self.published()
        return found.version, found.bundle

    async def published(self) -> Published:
        """Gives the version in force with all that its seal says.

        Raises:
            PolicyUnavailableError: no policy is active yet.
            PolicyInvalidError: it is not what was published under this number, or not the newest.
        """
        async with connection(self._pool) as conn:
            row = await conn.fetchrow(Q.active)
        if row is None:
            raise PolicyUnavailableError(cause="no policy is active")
        if row["newest"] != row["version"]:  # functions make the newest active, and nothing else
            raise PolicyInvalidError(
                [f"policy version {row['version']}: is active though {row['newest']} was published [old]"]
            )
        return self._checked(row)

    async def version(self, version: int) -> Bundle | None:
        """Gives the files and tests of any version; None where there is none.

        Raises:
            PolicyInvalidError: it is not what was published under this number.
        """
        async with connection(self._pool) as conn:
            row = await conn.fetchrow(Q.version, version)
        return None if row is None else self._checked(row).bundle

    async def proposed(self, proposal_id: UUID) -> PolicyFiles | None:
        """Gives the files of a proposal, to compile them ahead; None where there is none."""
        async with connection(self._pool) as conn:
            row = await conn.fetchrow(Q.proposed_files, proposal_id)
        return None if row is None else PolicyFiles.from_mapping(json.loads(row["files"]))

    async def report(self, worker: str, version: int, guard: str | None) -> None:
        """Says which version this worker has, and through which guard it reads where that was looked at."""
        async with connection(self._pool) as conn:
            await conn.execute(Q.report_worker, worker, version, guard)

    def _checked(self, row: asyncpg.Record) -> Published:
        table = self._seals.check(
            row["signature"], row["version"], row["digest"], row["tests_digest"],
            (row["author"], row["approver"]),
        )  # fmt: skip
        bundle = Bundle.of(PolicyFiles.from_mapping(json.loads(row["files"])), json.loads(row["tests"]))
        if (bundle.files.digest, bundle.tests_digest) != (row["digest"], row["tests_digest"]):
            raise PolicyInvalidError(
                [f"policy version {row['version']}: its files have another digest than its row [digest]"]
            )
        return Published(str(row["version"]), bundle, table)


class PolicyHolder:
    """The policy in force in this process."""

    def __init__(
        self,
        store: PolicyStore,
        *,
        longest: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes where versions come from; holds nothing until `refresh`.

        Args:
            store: of the versions.
            longest: seconds that a policy stays in force without a look that found it to be the active
                one; None: for ever, for those who must be able to mend what is wrong.
            monotonic: seconds that only count up; between looks they carry the database's time on.
        """
        self._store = store
        self._longest = longest
        self._monotonic = monotonic
        self._files: PolicyFiles | None = None  # of the policy in force
        self._vouched = ""  # the table that its seal names
        self._followers: list[Callable[[Policy], None]] = []
        self._policy: Policy | None = None
        self._task: asyncio.Task[None] | None = None
        self._ahead: dict[str, asyncio.Task[Compiled]] = {}  # by digest: files, compiled or on the way
        self._start: datetime | None = None  # the database's time when our seconds began, by the last look
        self._confirmed = float("-inf")  # when the last look began that found our version in force
        self._asked = 0  # grows with every refresh; a round that began before is not enough
        self.alert = ""
        """Why the active version is not the one in force here; empty when all is well."""

    @property
    def current(self) -> Policy:
        """Gives the policy in force; take it once per decision.

        Raises:
            PolicyUnavailableError: none has been loaded yet, or for too long nobody could say whether it is
                still the one.
        """
        if self._policy is None:
            raise PolicyUnavailableError(cause=self.alert or "no policy is loaded")
        if self._longest is not None and self._monotonic() - self._confirmed > self._longest:
            raise PolicyUnavailableError(cause="the version in force cannot be confirmed")
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

    async def prepare(self, proposal_id: UUID) -> None:
        """Compiles a proposal, so that its approval has nothing to wait for; never raises.

        What is kept decides nothing: it is taken only where an active version has the very same files.
        """
        try:
            files = await self._store.proposed(proposal_id)
            if self._start is not None and files is not None:
                await self._compiled(files, self._today(self._start))
        except Exception as exc:  # noqa: BLE001 - it is only a wish
            LOG.info("a proposal is not compiled ahead", extra={"reason": type(exc).__name__})

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
        began = self._monotonic()
        await self._end_rules()
        newest, then = await self._store.look()
        self._start = start = then - timedelta(seconds=began)  # not before: rules rather end a moment early
        await self._end_rules()
        if self._policy is not None and newest == self._policy.version:
            self._confirmed = began
            return
        found = await self._store.published()
        if self._policy is not None and int(found.version) < int(self._policy.version):
            # Version numbers only grow; an older one is an old replica or a restored database.
            raise PolicyUnavailableError(cause=f"the active version went back to {found.version}")
        policy = await self._built(found.bundle.files, found.version, found.table, self._today(start))
        self._put(found.bundle.files, found.table, policy)
        self._confirmed = began

    async def _built(self, files: PolicyFiles, version: str, vouched: str, today: date) -> Policy:
        compiled = await self._compiled(files, today)
        return await asyncio.to_thread(compiled.judged, version, vouched=vouched)

    async def _compiled(self, files: PolicyFiles, today: date) -> Compiled:
        """Compiles files, or takes what was compiled while they were a proposal, or is just being.

        An emergency's proposal and its version are announced in one moment: both find the same work here.
        """
        if (work := self._ahead.get(files.digest)) is not None:
            with contextlib.suppress(Exception):  # then as if nobody had tried
                compiled = await asyncio.shield(work)
                if compiled.today == today:
                    return compiled
        self._ahead.pop(files.digest, None)
        while len(self._ahead) >= MOST_AHEAD:
            self._ahead.pop(next(iter(self._ahead)))
        work = asyncio.create_task(asyncio.to_thread(compile_files, files, today=today))
        self._ahead[files.digest] = work
        # Shielded: a listener that ends must not end what a refresh waits for.
        return await asyncio.shield(work)

    async def _end_rules(self) -> None:
        """Takes rules that have ended out of force; first of all, because it needs no database."""
        held, files, start = self._policy, self._files, self._start
        if held is None or files is None or start is None or not held.is_over(today := self._today(start)):
            return
        try:
            policy = await self._built(files, held.version, self._vouched, today)
        except BaseException:
            self._policy = None  # what may be too wide is not kept
            raise
        self._put(files, self._vouched, policy)

    def _today(self, start: datetime) -> date:
        """Gives the day in UTC, by the database's clock."""
        return (start + timedelta(seconds=self._monotonic())).astimezone(UTC).date()

    def _put(self, files: PolicyFiles, vouched: str, policy: Policy) -> None:
        self._files, self._vouched = files, vouched
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
