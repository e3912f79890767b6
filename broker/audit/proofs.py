"""Proofs out of the published log, for auditors who reach the broker and not its storage."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from broker.database import Connection, connection
from broker.errors import ProofUnavailableError
from broker.keys import LogKeyFolder
from broker.note import VerifierKey
from broker.tlog import LogInvalidError, Storage, newest_checkpoint, prove_consistency, prove_inclusion

T = TypeVar("T")


class Prover:
    """Makes proofs of what is published, as JSON that `broker audit verify-proof` checks offline."""

    def __init__(self, pool: asyncpg.Pool, storage: Storage, keys: LogKeyFolder) -> None:
        """Takes the auditors' pool, what is published, and the log's keys."""
        self._pool = pool
        self._storage = storage
        self._keys = keys

    async def checkpoint(self) -> tuple[str, list[str], str]:
        """Gives the newest checkpoint, the records of rotation that lead to its key, and the log's first key.

        Raises:
            ProofUnavailableError: nothing is published that the log's key verifies.
        """
        found, rotations = await self._proven(lambda _, anchors: newest_checkpoint(self._storage, anchors))
        return found.note, rotations, str(self._keys.load().keys[0])

    async def inclusion(self, event_id: UUID) -> str:
        """Proves that an event is in the log.

        Raises:
            ProofUnavailableError: it is not published, or the published log does not hold it so.
        """
        proof = await self._proven(
            lambda conn, anchors: prove_inclusion(conn, self._storage, anchors, event_id)
        )
        return json.dumps(proof.as_json())

    async def consistency(self, old: int, new: int | None) -> str:
        """Proves that the log begins with an earlier one.

        Raises:
            ProofUnavailableError: it was never of that size, or does not continue it.
        """
        proof = await self._proven(
            lambda conn, anchors: prove_consistency(conn, self._storage, anchors, old, new)
        )
        return json.dumps(proof.as_json())

    async def _proven(self, prove: Callable[[Connection, list[VerifierKey]], Coroutine[Any, Any, T]]) -> T:
        try:
            async with connection(self._pool) as conn:
                return await prove(conn, [self._keys.load().keys[0]])
        except (LogInvalidError, OSError) as exc:
            raise ProofUnavailableError(cause=type(exc).__name__) from exc
