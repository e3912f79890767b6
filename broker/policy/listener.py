"""Hears at once that the policy changed: LISTEN on a connection of its own.

Invariants:
- what is heard only says "look": the version is read from its row, by whoever looks, as ever;
- a lost notification costs at most the second until the next look, a lost connection is made again;
- nothing here ever raises into the process that listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from uuid import UUID

import asyncpg

from broker.database import CONNECT_TIMEOUT, check_dsn
from broker.policy.store import PolicyHolder

CHANNEL = "broker_policy"
"""Payloads: a version's number where one came into force, a proposal's id where one was made."""

RETRY = 0.5
"""Seconds before a connection is tried again."""

ALIVE = 5.0
"""Seconds between questions to the server whether it is still there: a dead peer says nothing."""

log = logging.getLogger(__name__)


class PolicyListener:
    """Tells a holder to look when something was announced."""

    def __init__(self, dsn: str, holder: PolicyHolder, *, name: str) -> None:
        """Takes where to listen, as any role that may connect, and whom to tell."""
        check_dsn(dsn, name)
        self._dsn = dsn
        self._holder = holder
        self._name = name
        self._work: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Listens until cancelled."""
        try:
            while True:
                with contextlib.suppress(
                    OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError
                ):
                    await self._listen()
                await asyncio.sleep(RETRY)
        finally:
            for task in self._work:
                task.cancel()

    async def _listen(self) -> None:
        settings = {"application_name": self._name, "timezone": "UTC"}
        conn = await asyncpg.connect(self._dsn, timeout=CONNECT_TIMEOUT, server_settings=settings)
        try:
            await conn.add_listener(CHANNEL, self._heard)
            await self._holder.refresh()  # what was announced while nobody listened
            while True:
                await asyncio.sleep(ALIVE)
                await conn.execute("SELECT 1", timeout=ALIVE)
        finally:
            conn.terminate()

    def _heard(self, _conn: object, _pid: int, _channel: str, payload: object) -> None:
        text = str(payload)
        if text.isdecimal():
            self._start(self._holder.refresh())
        else:
            with contextlib.suppress(ValueError):
                self._start(self._holder.prepare(UUID(text)))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
