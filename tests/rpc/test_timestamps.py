"""Times in answers are the database's, to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker.rpc.access import timestamp


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 25, 22, 30, 0, 123457, tzinfo=UTC),
        datetime(2026, 11, 25, 22, 30, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
        datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    ],
    ids=["microseconds", "whole", "before 1970", "elsewhere"],
)
def test_exact(moment):
    """As protobuf's own conversion, and back."""
    theirs = Timestamp()
    theirs.FromDatetime(moment)

    assert timestamp(moment) == theirs
    assert timestamp(moment).ToDatetime(tzinfo=UTC) == moment
