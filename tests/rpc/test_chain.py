"""What a call's span and metric say of it, however it ends."""

from __future__ import annotations

import asyncio
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from broker.errors import LedgerUnavailableError, ToolIdentityError
from broker.ledger import EventIds
from broker.rpc.calls import Method
from broker.rpc.chain import Chain
from broker.v1 import access_service_pb2 as pb

NAME = "/broker.v1.AccessService/ReadRecord"


class Call:
    """A chain whose gate refuses, between a telemetry and a ledger that we look at."""

    def __init__(self, record):
        self.trace = MagicMock(trace_id="0" * 32)
        self.metrics = Mock()
        self.context = Mock(abort=AsyncMock(side_effect=asyncio.CancelledError))
        self.context.invocation_metadata.return_value = ()
        self.context.time_remaining.return_value = 5.0
        self.context.auth_context.return_value = {}
        chain = Chain(
            gate=Mock(tool=Mock(side_effect=ToolIdentityError)),
            telemetry=Mock(start=Mock(return_value=self.trace)),
            metrics=self.metrics,
            refusals=Mock(record=record),
            ids=EventIds(),
            limits=Mock(),
            call_timeout=5.0,
        )
        method = Method(NAME, pb.ReadRecordRequest, pb.ReadRecordResponse, AsyncMock())
        self.task = asyncio.create_task(chain(method, self.context, AsyncMock(), 5.0))

    def said(self):
        """Gives code and reason of the span, and the code that was counted."""
        span = self.trace.finish.call_args.kwargs
        return span["code"], span["reason"], self.metrics.request.call_args.args[1]


async def test_whoever_goes_while_a_refusal_is_recorded_was_refused():
    """A peer that cancels just then leaves a span that says what it was refused with, and no OK (P7)."""
    begun = asyncio.Event()

    async def record(error, **_):
        begun.set()
        await asyncio.Event().wait()

    call = Call(record)
    await begun.wait()
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task

    assert call.said() == ("UNAUTHENTICATED", "TOOL_IDENTITY_INVALID", "UNAUTHENTICATED")


async def test_a_refusal_that_cannot_be_recorded_is_another():
    """Control: what the caller hears stands in the span, also where that is not what it was first."""
    call = Call(AsyncMock(side_effect=LedgerUnavailableError))
    with pytest.raises(asyncio.CancelledError):
        await call.task

    assert call.said() == ("UNAVAILABLE", "LEDGER_UNAVAILABLE", "UNAVAILABLE")
    assert call.context.abort.await_count == 1
