"""Readiness follows what it is made of, and says what is missing."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

from prometheus_client import CollectorRegistry

from broker.errors import DatabaseUnavailableError
from broker.server import watch
from broker.server.policies import WorkerReport
from broker.telemetry import Metrics

LOOKS = 4


async def test_the_guard_is_looked_at_again_at_once(monkeypatch, caplog):
    """A guard that did not answer once keeps nobody away for a minute after it answers again."""
    looks = 0
    stop = asyncio.Event()

    def a_minute_and_then_seconds() -> float:
        nonlocal looks
        looks += 1
        return 0.0 if looks == 1 else watch.VERIFY + looks

    async def counted() -> None:
        if said[-1:] == [""] or looks > LOOKS:
            stop.set()

    said: list[str] = []
    records = AsyncMock()
    records.verify_role.side_effect = [DatabaseUnavailableError(), None]
    ledger, tickets = AsyncMock(), AsyncMock()
    ledger.ready.return_value = ""
    tickets.feeds.return_value = ()
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=a_minute_and_then_seconds))
    monkeypatch.setattr(watch, "WATCH", 0)
    port = AsyncMock()
    with caplog.at_level(logging.INFO, "broker.server.watch"):
        await watch.Watch(
            port=port,
            holder=AsyncMock(alert=""),
            reporting=AsyncMock(),
            records=records,
            ledger=ledger,
            tickets=tickets,
            refusals=SimpleNamespace(record_counts=counted),
            trust=Mock(),
            metrics=Metrics(registry=CollectorRegistry()),
            feeds=(),
        ).run(said.append, stop)

    assert said == ["records database: DATABASE_UNAVAILABLE", ""]
    assert [call.kwargs["ready"] for call in port.set_ready.await_args_list] == [False, True]
    assert [record.reason for record in caplog.records] == [*said[:1], "ready"]


async def test_a_guard_that_does_not_answer_shows_with_the_next_report(monkeypatch):
    """The worker's report asks the guard every ten seconds; where it fails, no check waits a minute."""
    reports = iter([True, False, True])
    stop = asyncio.Event()
    said: list[str] = []

    async def say() -> bool:
        return next(reports)

    async def counted() -> None:
        if len(said) == 3:
            stop.set()

    records = AsyncMock()
    records.verify_role.side_effect = [DatabaseUnavailableError(), None]
    ledger, tickets = AsyncMock(), AsyncMock()
    ledger.ready.return_value = ""
    tickets.feeds.return_value = ()
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: 0.0))
    monkeypatch.setattr(watch, "WATCH", 0)
    await watch.Watch(
        port=AsyncMock(),
        holder=AsyncMock(alert=""),
        reporting=SimpleNamespace(say=say),
        records=records,
        ledger=ledger,
        tickets=tickets,
        refusals=SimpleNamespace(record_counts=counted),
        trust=Mock(),
        metrics=Metrics(registry=CollectorRegistry()),
        feeds=(),
    ).run(said.append, stop)

    assert said == ["", "records database: DATABASE_UNAVAILABLE", ""]


async def test_a_report_tells_whether_the_guard_answered():
    """None of the guard's shape, or an error instead of it, is no answer; what is not asked is not missed."""
    now = [0.0]
    records, store = AsyncMock(), AsyncMock()
    reporting = WorkerReport(store, Mock(current=Mock(version="1")), records, lambda: now[0])
    records.installed_shape.side_effect = [{}, DatabaseUnavailableError(), None]
    said = []
    for seconds in (0, 1, 11, 22):
        now[0] = seconds
        said.append(await reporting.say())

    assert said == [True, True, False, False]
    assert store.report.await_count == 3
