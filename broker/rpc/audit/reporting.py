"""What the auditors' reports share: connections of their own, beside those of the questions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg

from broker.audit.matching import IdentifiersUsedUpError
from broker.errors import RateLimitedError
from broker.ledger import EventIds


@dataclass(frozen=True, slots=True)
class Reporting:
    """Where reports read, as broker_auditor."""

    questions: asyncpg.Pool  # of the broker's database, for what is quick
    reports: asyncpg.Pool  # of the broker's database, for what takes its time
    records: asyncpg.Pool  # of the records database
    ids: EventIds


@contextmanager
def identifiers_of_the_day() -> Iterator[None]:
    """Answers RESOURCE_EXHAUSTED where the day's number of identifiers is used up."""
    try:
        yield
    except IdentifiersUsedUpError as exc:
        raise RateLimitedError(cause="identifiers of the day") from exc
