"""Composition of the admin process: containment, the ticket feed, first policy, housekeeping."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial

import asyncpg
from google.protobuf.empty_pb2 import Empty

from broker.access import Refusals
from broker.audit.disclosures import keep_up
from broker.audit.unexplained import keep_judging
from broker.authn import KeySource, PersonVerifier, RevokedSerials, ToolVerifier, open_sources
from broker.containment import Containment
from broker.database import connection, open_pool, queries
from broker.errors import (
    AdminDeniedError,
    BrokerError,
    StartupError,
)
from broker.keys import LogKeyFolder, SigningKeys
from broker.ledger import ADMIN_DOOR, DenialRate, EventIds, Ledger
from broker.policy.store import PolicyHolder
from broker.rpc.admin import METHOD_NAMES, ContainmentService, TicketFeedService
from broker.rpc.calls import Call, Method
from broker.rpc.chain import Chain
from broker.rpc.gates import AdminGate
from broker.rpc.limits import PeerLimits
from broker.server.auditing import open_auditing
from broker.server.parts import close, open_telemetry, record_rest, sign_root, steady_clock, until_there
from broker.server.policies import listen, open_admin_policies, tell_of_missing
from broker.server.ports import Port, authorities_of, registered
from broker.server.trust import TrustWatch
from broker.server.worker import Report
from broker.settings import Settings
from broker.telemetry import Metrics
from broker.tickets import TicketFeed
from broker.tlog import Directory, LogState, Sequencer
from broker.waiting import stopped

log = logging.getLogger(__name__)

WATCH = 1.0
"""Seconds between looks at readiness and at the active policy's version."""

HOUSEKEEPING = 3600.0
"""Seconds between runs of `ensure_partitions` and `purge`."""

INDEX_TIMEOUT = 30.0
"""Seconds for one step of the index of disclosures; nobody waits for it but questions of auditors."""

HOUSEKEEPING_RETRY = 60.0
"""Seconds after one that failed: it may have waited for a lock, and must not hold everything up for good."""


async def run(settings: Settings, report: Report, stop: asyncio.Event) -> None:
    """Serves the admin port until told to stop."""
    if settings.admin is None or settings.keys_dir is None:
        raise StartupError("settings are missing: admin, keys_dir")
    if settings.tlog_dir is None or settings.tlog_keys_dir is None:
        raise StartupError("settings are missing: tlog_dir, tlog_keys_dir")
    log_keys = LogKeyFolder(settings.tlog_keys_dir, settings.log_origin)
    log_keys.load()  # without a key nobody could show that the ledger was changed: refuse to start
    async with AsyncExitStack() as stack:
        pool = await until_there(
            "broker database", partial(open_pool, settings.admin_dsn, name="broker-admin"), report, stop
        )
        stack.push_async_callback(close, pool)
        clock = await steady_clock(pool, report, stop)
        feed_pool = await until_there(
            "broker database", partial(open_pool, settings.feed_dsn, name="broker-feed"), report, stop
        )
        stack.push_async_callback(close, feed_pool)
        metrics = Metrics(METHOD_NAMES)
        index_pool = await until_there(
            "broker database",
            partial(open_pool, settings.admin_dsn, name="broker-admin: disclosures", max_size=2,
                    statement_timeout=INDEX_TIMEOUT),
            report, stop,
        )  # fmt: skip
        stack.push_async_callback(close, index_pool)
        telemetry = await open_telemetry(settings.admin_dsn, metrics, stack, report, stop)

        ids = EventIds()
        keys = SigningKeys(settings.keys_dir, clock)
        policies = await open_admin_policies(pool, settings, ids, keys, clock, report, stop)
        holder = policies.holder
        listen(settings.admin_dsn, holder, "broker-admin", stack)

        ledger = Ledger(pool, partial(sign_root, keys, clock), door=ADMIN_DOOR)
        refusals = Refusals(ledger, ids, DenialRate(settings.denial_events_per_minute, time.monotonic))
        revoked, authorities = RevokedSerials(settings.revoked_serials_file), authorities_of(settings.admin)
        verifier = ToolVerifier(
            settings.trust_domain,
            lambda identity: bool(holder.current.admin.roles(identity)),
            clock,
            dns_identities=settings.dns_identities,
            revoked=revoked,
            authorities=authorities,
        )
        sources = await _open_sources(settings, stack)
        chain = Chain(
            gate=AdminGate(
                verifier,
                PersonVerifier(settings.admin_issuers, sources, clock),
                lambda: holder.current.admin,
            ),
            telemetry=telemetry,
            metrics=metrics,
            refusals=refusals,
            ids=ids,
            limits=PeerLimits(
                rate=settings.peer_rate, concurrency=settings.peer_concurrency, clock=time.monotonic
            ),
            call_timeout=settings.call_timeout,
        )
        auditing = await open_auditing(
            settings, pool, settings.tlog_dir, log_keys, ids, metrics, stack, report, stop
        )
        containment = Containment(pool, ids)
        tickets = TicketFeed(feed_pool, settings.feeds, clock)
        feed = TicketFeedService(tickets, [feed.feed_id for feed in settings.feeds])
        methods = (
            *ContainmentService(containment, lambda: datetime.now(UTC)).methods(),
            *policies.methods,
            *auditing.methods(),
            *feed.methods(),
        )
        names = registered([*methods, *feed.streams()], auditing.streamed())
        tell_of_missing(holder.current.admin, names)
        port = Port("admin", settings.admin, chain)
        port.add(methods, feed.streams(), auditing.streamed())
        port.deny_others(Method("/broker.v1.Unknown/Unknown", Empty, Empty, _denied))
        sequencer = Sequencer(
            settings.admin_dsn,
            Directory(settings.tlog_dir),
            log_keys,
            interval=settings.tlog_interval,
            on_state=partial(_show, metrics),
            on_failure=metrics.log_failures.inc,
        )
        sequencing = asyncio.create_task(sequencer.run(stop))
        await port.start()

        derived = [
            asyncio.create_task(keep_up(index_pool, stop, on_lag=metrics.disclosure_index_lag.set)),
            asyncio.create_task(keep_judging(index_pool, stop)),
        ]
        await _watch(
            port,
            holder,
            containment,
            pool,
            refusals,
            TrustWatch(
                metrics,
                {
                    "client_authorities": [authorities.trouble] if authorities else [],
                    "feed_keys": [tickets.trouble],
                    "issuer_keys": [source.trouble for source in sources.values()],
                    "revoked_serials": [revoked.trouble],
                    "signing_keys": [keys.trouble],
                },
            ),
            metrics,
            report,
            stop,
        )

        report("draining")
        await port.drain(settings.drain_seconds)
        await sequencing
        await record_rest(refusals)
        await ledger.drain()
        for task in derived:
            task.cancel()  # a step that is cut off has not happened
        await asyncio.gather(*derived, return_exceptions=True)


async def _open_sources(settings: Settings, stack: AsyncExitStack) -> dict[str, KeySource]:
    sources = open_sources(settings.admin_issuers)
    for source in sources.values():
        await source.start()  # containment and the feed need no person: nothing waits for these keys
        stack.push_async_callback(source.close)
    return sources


async def _watch(
    port: Port,
    holder: PolicyHolder,
    containment: Containment,
    pool: asyncpg.Pool,
    refusals: Refusals,
    trust: TrustWatch,
    metrics: Metrics,
    report: Report,
    stop: asyncio.Event,
) -> None:
    said: str | None = None
    housekeeping_at = 0.0
    while not stop.is_set():
        await holder.refresh()
        metrics.policy_alert.set(1 if holder.alert else 0)
        trust.look()
        why = ""
        try:
            if not await containment.is_reachable():
                why = "the database is a standby"
            await refusals.record_counts()
        except BrokerError as exc:
            why = f"database: {exc.reason}"
        if not why and time.monotonic() >= housekeeping_at:
            housekeeping_at = time.monotonic() + await _keep_house(pool)
        if why != said:
            said = why
            log.info("readiness changed", extra={"reason": why or "ready"})
            await port.set_ready(ready=not why)
            report(why)
        await stopped(stop, WATCH)


def _show(metrics: Metrics, state: LogState) -> None:
    """Shows how far the log is; it lags behind for an alert, never for an outage."""
    metrics.log_size.set(state.size)
    metrics.log_unpublished.set(state.unpublished)
    metrics.log_lag.set(state.lag)
    metrics.log_stopped.set(1 if state.stopped else 0)


async def _keep_house(pool: asyncpg.Pool) -> float:
    """Makes the coming months' partitions, forgets some of what no decision needs any more.

    It can wait: a failure is logged and tried again, and whether partitions are there is for the access
    workers' readiness to say.

    Returns:
        Seconds until it should be called again.
    """
    ledger = queries("ledger")
    try:
        async with connection(pool) as conn:
            await conn.execute(ledger.ensure_partitions)
            forgotten = await conn.fetchval(ledger.purge)
    except (BrokerError, asyncpg.PostgresError):
        log.exception("housekeeping failed")
        return HOUSEKEEPING_RETRY
    return 0.0 if forgotten else HOUSEKEEPING


async def _denied(_call: Call, _request: Empty) -> Empty:
    raise AdminDeniedError
