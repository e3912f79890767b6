"""BuildPack."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any

from broker.audit.pack import Packed, pack_parts
from broker.errors import ProofUnavailableError
from broker.keys import LogKeyFolder
from broker.rpc.audit import AUDIT
from broker.rpc.audit.reporting import Reporting
from broker.rpc.audit.selecting import selected
from broker.rpc.calls import Call, Method, StreamedMethod
from broker.tlog import LogInvalidError, Storage
from broker.v1 import audit_service_pb2 as pb

SECONDS = 280.0
"""Longest time: some hundred thousand disclosures."""


class PackMethods:
    """The RPC that makes packs: the log's key stays here."""

    def __init__(
        self, reporting: Reporting, storage: Storage, keys: LogKeyFolder, now: Callable[[], datetime]
    ) -> None:
        """Takes where it reads, what is published, the log's keys, and the clock of a pack's time."""
        self._reporting = reporting
        self._storage = storage
        self._keys = keys
        self._now = now

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""
        return ()

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""
        asked, told = pb.BuildPackRequest, pb.BuildPackResponse
        return (StreamedMethod(f"/{AUDIT}/BuildPack", asked, told, self._build, SECONDS),)

    async def _build(
        self, call: Call, request: pb.BuildPackRequest
    ) -> AsyncGenerator[pb.BuildPackResponse, None]:
        at = self._reporting
        selection = await selected(call, request, at, "pack")
        summary = pb.PackSummary(decision_id=str(call.decision_id))
        if selection is None:
            yield pb.BuildPackResponse(summary=summary)
            return
        digest = hashlib.sha256()
        parts = pack_parts(at.reports, selection, keys=self._keys, storage=self._storage, now=self._now())
        try:
            async with aclosing(parts):
                async for part in parts:
                    if isinstance(part, Packed):
                        summary.customers, summary.reads = part.customers, part.reads
                        summary.leaves, summary.log_size = part.leaves, part.size
                    else:
                        digest.update(part)
                        summary.length += len(part)
                        yield pb.BuildPackResponse(chunk=part)
        except (LogInvalidError, OSError) as exc:
            raise ProofUnavailableError(cause=type(exc).__name__) from exc
        summary.sha256 = digest.digest()
        yield pb.BuildPackResponse(summary=summary)
