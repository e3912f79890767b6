"""What an access worker looks at while it serves: readiness, its policy, refusals, sources of trust."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from broker.access import Refusals
from broker.errors import BrokerError, StartupError
from broker.ledger import Ledger
from broker.policy.store import PolicyHolder
from broker.records import RecordReader
from broker.server.policies import WorkerReport
from broker.server.ports import Port
from broker.server.trust import TrustWatch
from broker.server.worker import Report
from broker.settings import FeedSettings
from broker.telemetry import Metrics
from broker.tickets import Tickets
from broker.waiting import stopped

log = logging.getLogger(__name__)

VERIFY = 60.0
"""Seconds between full checks of the guard; one that stopped standing shows in a read at once anyway."""

WATCH = 1.0
"""Seconds between looks at readiness, at the active policy's version and at counted refusals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Everything that an access worker looks at."""

    port: Port
    holder: PolicyHolder
    reporting: WorkerReport
    records: RecordReader
    ledger: Ledger
    tickets: Tickets
    refusals: Refusals
    trust: TrustWatch
    metrics: Metrics
    feeds: Sequence[FeedSettings]

    async def run(self, report: Report, stop: asyncio.Event) -> None:
        """Keeps readiness, the policy and the counted refusals up to date until told to stop."""
        said: str | None = None
        guard_trouble, verify_at = "", time.monotonic() + VERIFY
        while not stop.is_set():
            await self.holder.refresh()
            self.metrics.policy_alert.set(1 if self.holder.alert else 0)
            self.trust.look()
            reached = await self.reporting.say()
            # The guard's own check asks the catalogs: too much for a second, unless calls wait for its end.
            if guard_trouble or not reached or time.monotonic() >= verify_at:
                guard_trouble = await self._guard_trouble()
                verify_at = time.monotonic() + VERIFY
            why = guard_trouble or await self._trouble()
            if why != said:
                said = why
                log.info("readiness changed", extra={"reason": why or "ready"})
                await self.port.set_ready(ready=not why)
                report(why)
            try:
                await self.refusals.record_counts()
            except BrokerError:
                log.warning("counted refusals not recorded")
            await stopped(stop, WATCH)

    async def _guard_trouble(self) -> str:
        """Tells whether the guard does not stand any more, or does not answer."""
        try:
            await self.records.verify_role()
        except StartupError as exc:
            return str(exc)
        except BrokerError as exc:
            return f"records database: {exc.cause or exc.reason}"
        return ""

    async def _trouble(self) -> str:
        """Names the first thing that keeps calls from being answered, or ""."""
        try:
            if why := await self.ledger.ready():
                return f"ledger: {why}"
            fresh = {state.feed_id for state in await self.tickets.feeds() if state.fresh}
        except BrokerError as exc:
            return f"database: {exc.reason}"
        except asyncpg.PostgresError as exc:  # a right or a function is missing: not ready, no reason to die
            return f"database: {type(exc).__name__}"
        silent = [feed.feed_id for feed in self.feeds if feed.feed_id not in fresh]
        self.metrics.feed_stale.set(bool(silent))
        return f"feed {silent[0]}: stale" if silent else ""
