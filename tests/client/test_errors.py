"""Every way a call can end is told apart."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
import pytest

from broker import client as public
from broker.client import BrokerCallError, BudgetExceededError, InvalidRequestError
from broker.client.errors import BY_CODE, BY_REASON
from broker.v1.error_reason_pb2 import ErrorReason
from tests.client.conftest import Fault

REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()[1:]]


class TestFromRpc:
    @pytest.mark.parametrize("reason", REASONS)
    async def test_every_reason_is_an_error_with_reason_and_decision(self, connect, broker, reason):
        """Whatever the broker may refuse with arrives with its reason, sentence and decision id."""
        broker.faults = [Fault(grpc.StatusCode.PERMISSION_DENIED, reason, sentence="Not you.")]
        async with connect() as client:
            with pytest.raises(BrokerCallError) as caught:
                await client.status("g")

        error = caught.value
        assert (error.reason, error.decision_id, str(error)) == (reason, "d-1", "Not you.")
        assert isinstance(error, BY_REASON.get(reason, public.DeniedError))

    async def test_names_the_field_that_is_wrong(self, connect, broker):
        """A BadRequest's field is the error's field."""
        broker.faults = [Fault(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_UNKNOWN", field_name="fields[2]")]
        async with connect() as client:
            with pytest.raises(InvalidRequestError) as caught:
                await client.status("g")

        assert caught.value.field == "fields[2]"

    async def test_tells_when_a_budget_frees_up(self, connect, broker):
        """The time is read from the metadata; a broken one is no time."""
        times = [{"free_time": "2026-11-23T15:04:05Z"}, {"free_time": "soon"}, {}]
        broker.faults = [Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED", t) for t in times]
        found = []
        async with connect() as client:
            for _ in times:
                with pytest.raises(BudgetExceededError) as caught:
                    await client.status("g")
                found.append(caught.value.free_time)

        assert found == [datetime(2026, 11, 23, 15, 4, 5, tzinfo=UTC), None, None]

    async def test_does_not_take_a_proxys_word_for_the_brokers(self, connect, broker):
        """An ErrorInfo of another domain gives no reason and no decision id."""
        broker.faults = [Fault(grpc.StatusCode.PERMISSION_DENIED, "TICKET_DENIED", domain="proxy.test")]
        async with connect() as client:
            with pytest.raises(public.DeniedError) as caught:
                await client.status("g")

        assert type(caught.value) is public.DeniedError
        assert (caught.value.reason, caught.value.decision_id) == ("", "")


class TestCatalogue:
    def test_knows_no_reason_that_the_protocol_lacks(self):
        """A class for a reason that can never come is a mistake."""
        assert set(BY_REASON) <= set(REASONS)

    def test_knows_no_code_that_grpc_lacks(self):
        """Codes are grpc's names."""
        assert set(BY_CODE) <= {code.name for code in grpc.StatusCode}

    def test_everything_is_exported(self):
        """A tool catches errors by importing from one place."""
        for cls in {*BY_CODE.values(), *BY_REASON.values()}:
            assert getattr(public, cls.__name__) is cls
