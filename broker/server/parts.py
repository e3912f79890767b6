"""What both kinds of children are made of."""

from __future__ import annotations

import asyncio
import logging
import os
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import asyncpg

from broker.access import Refusals
from broker.authn import SteadyClock
from broker.errors import BrokerError, StartupError
from broker.keys import SigningKeys
from broker.ledger import clock_agrees
from broker.server.worker import Report
from broker.telemetry import Metrics, Sink, Telemetry
from broker.traces import OtlpExport, exporter_from, open_store, resource_from
from broker.waiting import stopped

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY = 0.25
"""Seconds between looks at a database that does not answer yet."""

CLOSE = 2.0
"""Seconds for a pool to close; what was durable is, the rest was never said."""

RECEIPT_TYPE = "broker-receipt+jwt"
DISTRIBUTION = "support-access-broker"


def sign_root(keys: SigningKeys, clock: Callable[[], float], root: bytes, size: int) -> str:
    """Signs the root of a commit group for its receipts."""
    encoded = urlsafe_b64encode(root).rstrip(b"=").decode()
    return keys.sign({"typ": RECEIPT_TYPE}, {"root": encoded, "size": size, "iat": int(clock())})


async def until_there(
    what: str, attempt: Callable[[], Awaitable[T]], report: Report, stop: asyncio.Event
) -> T:
    """Tries until a database answers, saying so; a wrong setting ends the start at once.

    Raises:
        StartupError: the database answers and refuses, or we were told to stop first.
    """
    said = ""
    while True:
        try:
            return await attempt()
        except BrokerError as exc:
            why = f"{what}: {exc.cause or exc.reason}"
            report(why)
            if why != said:
                said = why
                log.warning("the start waits", extra={"reason": why})
        except asyncpg.PostgresError as exc:  # it does answer: a password, a right or a migration is missing
            hint = "check its DSN, and that `broker migrate` was run"
            raise StartupError(f"{what}: {type(exc).__name__}; {hint}") from None
        if await stopped(stop, RETRY):
            raise StartupError("stopped before the start was through")


async def steady_clock(pool: asyncpg.Pool, report: Report, stop: asyncio.Event) -> SteadyClock:
    """Anchors the clock that tokens are held against, once this machine's agrees with the database's.

    One that was ahead when it was anchored would stay ahead for as long as we live.
    """

    async def anchor() -> SteadyClock:
        clock = SteadyClock()
        await clock_agrees(pool, clock)
        return clock

    return await until_there("machine", anchor, report, stop)


async def open_telemetry(
    dsn: str, metrics: Metrics, stack: AsyncExitStack, report: Report, stop: asyncio.Event
) -> Telemetry:
    """Opens the span store and, where the standard variables ask for it, the OTLP export."""
    store = await until_there("span store", partial(open_store, dsn, metrics), report, stop)
    store.start()
    stack.push_async_callback(store.close)
    sinks: list[Sink] = [store]
    resource = resource_from(_version())
    if exporter := exporter_from(os.environ):
        export = OtlpExport(exporter, resource, metrics)
        stack.push_async_callback(asyncio.to_thread, export.close)  # it waits for the collector
        sinks.append(export)
    return Telemetry(sinks, resource=resource)


async def record_rest(refusals: Refusals) -> None:
    """Puts the refusals that were only counted on record, at shutdown; without a ledger they are lost."""
    try:
        await refusals.record_counts(everything=True)
    except BrokerError:
        log.exception("counted refusals lost at shutdown")


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+checkout"


async def close(pool: asyncpg.Pool) -> None:
    """Closes a pool without waiting for ever."""
    try:
        await asyncio.wait_for(pool.close(), CLOSE)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()
