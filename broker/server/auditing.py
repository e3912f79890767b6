"""Composition of the auditors' side, on a pool of its own: no read waits for a question."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from broker.audit.events import EventReader
from broker.database import open_pool
from broker.ledger import EventIds
from broker.rpc.audit import AuditService
from broker.rpc.audit.asking import Asking
from broker.rpc.audit.events import EventMethods
from broker.server.parts import close, until_there
from broker.server.worker import Report
from broker.settings import Settings

QUESTIONS = 3
"""Connections for questions: more of them at once would take the database's cores from the reads."""

QUESTION_TIMEOUT = 4.0
"""Seconds of one statement of a question; a call has five."""


async def open_auditing(
    settings: Settings, ids: EventIds, stack: AsyncExitStack, report: Report, stop: asyncio.Event
) -> AuditService:
    """Opens the auditors' pool and makes their service."""
    pool = await until_there(
        "broker database",
        partial(open_pool, settings.auditor_dsn, name="broker-admin: auditors", max_size=QUESTIONS,
                statement_timeout=QUESTION_TIMEOUT),
        report, stop,
    )  # fmt: skip
    stack.push_async_callback(close, pool)
    asking = Asking(pool, ids)
    return AuditService(EventMethods(asking, EventReader(pool)))
