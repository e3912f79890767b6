"""Composition of the auditors' side, on a pool of its own: no read waits for a question."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import asyncpg

from broker.audit.event_index import keep_up
from broker.audit.events import EventReader
from broker.audit.proofs import Prover
from broker.database import open_pool
from broker.keys import LogKeyFolder
from broker.ledger import EventIds
from broker.rpc.audit import AuditService
from broker.rpc.audit.agents import AgentMethods
from broker.rpc.audit.asking import Asking
from broker.rpc.audit.customers import CustomerMethods
from broker.rpc.audit.events import EventMethods
from broker.rpc.audit.exposure import ExposureMethods
from broker.rpc.audit.leak import LeakMethods
from broker.rpc.audit.packs import PackMethods
from broker.rpc.audit.proofs import ProofMethods
from broker.rpc.audit.reporting import Reporting
from broker.rpc.audit.traces import TraceMethods
from broker.server.parts import close, until_there
from broker.server.worker import Report
from broker.settings import Settings
from broker.telemetry import Metrics
from broker.tlog import Directory

QUESTIONS = 3
"""Connections for questions: more of them at once would take the database's cores from the reads."""

QUESTION_TIMEOUT = 4.0
"""Seconds of one statement of a question; a call has five."""


REPORTS = 2
"""Connections for reports, apart from the questions: a report may take minutes."""

REPORT_TIMEOUT = 50.0
"""Seconds of one statement of a report."""

RECORDS_TIMEOUT = 50.0
"""Seconds of one scan over the salts."""

INDEX_TIMEOUT = 30.0
"""Seconds of one step of the index; nobody waits for it."""


async def open_auditing(
    settings: Settings,
    admin: asyncpg.Pool,
    tlog_dir: Path,
    log_keys: LogKeyFolder,
    ids: EventIds,
    metrics: Metrics,
    stack: AsyncExitStack,
    report: Report,
    stop: asyncio.Event,
) -> AuditService:
    """Opens the auditors' pool and makes their service; keeps the index until the stack closes."""
    pool = await until_there(
        "broker database",
        partial(open_pool, settings.auditor_dsn, name="broker-admin: auditors", max_size=QUESTIONS,
                statement_timeout=QUESTION_TIMEOUT),
        report, stop,
    )  # fmt: skip
    stack.push_async_callback(close, pool)
    index_pool = await until_there(
        "broker database",
        partial(open_pool, settings.admin_dsn, name="broker-admin: event index", max_size=1,
                statement_timeout=INDEX_TIMEOUT),
        report, stop,
    )  # fmt: skip
    stack.push_async_callback(close, index_pool)
    indexing = asyncio.create_task(keep_up(index_pool, stop, on_lag=metrics.event_index_lag.set))

    async def end() -> None:
        indexing.cancel()  # a step that is cut off has not happened
        await asyncio.gather(indexing, return_exceptions=True)

    stack.push_async_callback(end)
    # Nobody waits for the records database to start: only what asks about a customer's key needs it.
    records = await open_pool(
        settings.auditor_records_dsn or settings.auditor_dsn, name="broker-admin: auditors", min_size=0,
        max_size=1, statement_timeout=RECORDS_TIMEOUT,
    )  # fmt: skip
    stack.push_async_callback(close, records)
    reports = await open_pool(
        settings.auditor_dsn, name="broker-admin: reports", min_size=0, max_size=REPORTS,
        statement_timeout=REPORT_TIMEOUT,
    )  # fmt: skip
    stack.push_async_callback(close, reports)
    reporting = Reporting(pool, reports, records, ids)
    asking = Asking(pool, ids)
    events = EventReader(pool)
    storage = Directory(tlog_dir)
    prover = Prover(pool, storage, log_keys)
    return AuditService(
        EventMethods(asking, pool, events, stop),
        TraceMethods(asking, pool, events, prover),
        ProofMethods(asking, prover),
        ExposureMethods(reporting),
        PackMethods(reporting, storage, log_keys, partial(datetime.now, UTC)),
        LeakMethods(reporting),
        AgentMethods(reporting),
        CustomerMethods(admin, pool, records, ids),
    )
