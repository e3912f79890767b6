"""Proposals, versions and workers for people who look; changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import asyncpg

from broker.database import connection, queries
from broker.errors import PolicyInvalidError, VersionInvalidError
from broker.policy import PolicyFiles
from broker.policy.bundle import Bundle
from broker.publishing.values import Proposal, ProposalState, Version, Worker

Q = queries("publishing")


@contextmanager
def telling() -> Iterator[None]:
    """Tells callers of a version that is not what was published: they are the ones who mend it.

    Raises:
        VersionInvalidError: in place of a PolicyInvalidError, with its first finding.
    """
    try:
        yield
    except PolicyInvalidError as exc:
        raise VersionInvalidError(cause="finding", metadata={"finding": exc.findings[0][:500]}) from None


class Reading:
    """Reads as broker_admin or broker_auditor."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Takes the pool."""
        self._pool = pool

    async def proposal(self, proposal_id: UUID) -> Proposal | None:
        """Gives one proposal with its files and its report; None where there is none."""
        async with connection(self._pool) as conn:
            row = await conn.fetchrow(Q.proposal, proposal_id)
        if row is None:
            return None
        bundle = Bundle.of(PolicyFiles.from_mapping(json.loads(row["files"])), json.loads(row["tests"]))
        return _proposal(row, bundle=bundle, report=json.loads(row["report"]))

    async def proposals(self, *, ended: bool, before: UUID | None, size: int) -> tuple[list[Proposal], bool]:
        """Gives a page of proposals, newest first, and whether there are more."""
        async with connection(self._pool) as conn:
            rows = await conn.fetch(Q.list_proposals, ended, before, size + 1)
        return [_proposal(row) for row in rows[:size]], len(rows) > size

    async def versions(self, *, before: int | None, size: int) -> tuple[list[Version], bool]:
        """Gives a page of versions, newest first, and whether there are more."""
        async with connection(self._pool) as conn:
            rows = await conn.fetch(Q.list_versions, before, size + 1)
        return [_version(row) for row in rows[:size]], len(rows) > size

    async def catalogs(self) -> tuple[str, ...]:
        """Gives the catalogs that were in force since the glass was broken last, newest first."""
        async with connection(self._pool) as conn:
            rows = await conn.fetch(Q.catalogs)
        return tuple(row["catalog"] or "" for row in rows)

    async def workers(self) -> list[Worker]:
        """Gives what every worker said last."""
        async with connection(self._pool) as conn:
            rows = await conn.fetch(Q.workers)
        return [Worker(r["worker"], r["version"], r["confirm_time"], r["guard_time"]) for r in rows]

    async def guard(self, seconds: float) -> Any:
        """Gives the installed guard's shape as a worker saw it within so many seconds; None: nobody did."""
        async with connection(self._pool) as conn:
            row = await conn.fetchrow(Q.freshest_guard, seconds)
        return None if row is None else json.loads(row["guard"])


def _proposal(row: asyncpg.Record, *, bundle: Bundle | None = None, report: Any = None) -> Proposal:
    return Proposal(
        proposal_id=row["proposal_id"],
        base_version=row["base_version"],
        restores_version=row["restores_version"],
        digest=row["digest"],
        author=row["author"],
        console=row["console"],
        reason=row["reason"],
        widens=row["widens"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        state=ProposalState(row["state"]),
        end_person=row["end_person"] or "",
        end_reason=row["end_reason"] or "",
        version=row["version"],
        end_time=row["end_time"],
        bundle=bundle,
        report=report or {},
    )


def _version(row: asyncpg.Record) -> Version:
    return Version(
        version=row["version"],
        digest=row["digest"],
        tests_digest=row["tests_digest"] or "",
        how=row["how"] or "",
        base_version=row["base_version"],
        restores_version=row["restores_version"],
        proposal_id=row["proposal_id"],
        author=row["author"] or "",
        approver=row["approver"] or "",
        reason=row["reason"] or "",
        loaded_by=row["loaded_by"],
        create_time=row["create_time"],
    )
