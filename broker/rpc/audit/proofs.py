"""GetCheckpoint, ProveInclusion and ProveConsistency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.audit.proofs import Prover
from broker.errors import RequestMalformedError
from broker.rpc import checks
from broker.rpc.audit import AUDIT
from broker.rpc.audit.asking import Asking
from broker.rpc.calls import Call, Method, StreamedMethod
from broker.v1 import audit_service_pb2 as pb


class ProofMethods:
    """The RPCs over the transparency log."""

    def __init__(self, asking: Asking, prover: Prover) -> None:
        """Takes what records questions, and what makes proofs."""
        self._asking = asking
        self._prover = prover

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""
        at = f"/{AUDIT}/"
        return (
            Method(at + "GetCheckpoint", pb.GetCheckpointRequest, pb.GetCheckpointResponse, self._checkpoint),
            Method(at + "ProveInclusion", pb.ProveInclusionRequest, pb.ProveInclusionResponse, self._include),
            Method(
                at + "ProveConsistency",
                pb.ProveConsistencyRequest,
                pb.ProveConsistencyResponse,
                self._continue,
            ),
        )

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""
        return ()

    async def _checkpoint(self, call: Call, _: pb.GetCheckpointRequest) -> pb.GetCheckpointResponse:
        await self._asking.asked(call, "checkpoint")
        checkpoint, rotations, key = await self._prover.checkpoint()
        return pb.GetCheckpointResponse(checkpoint=checkpoint, rotations=rotations, key=key)

    async def _include(self, call: Call, request: pb.ProveInclusionRequest) -> pb.ProveInclusionResponse:
        event_id = checks.uuid(request.event_id, "event_id")
        await self._asking.asked(call, "prove", event=str(event_id))
        return pb.ProveInclusionResponse(proof=await self._prover.inclusion(event_id))

    async def _continue(self, call: Call, request: pb.ProveConsistencyRequest) -> pb.ProveConsistencyResponse:
        old, new = request.old_size, request.new_size
        if old < 1:
            raise RequestMalformedError(field="old_size", cause="size")
        if new < 0 or 0 < new < old:
            raise RequestMalformedError(field="new_size", cause="size")
        await self._asking.asked(call, "prove consistency", old=old, new=new)
        return pb.ProveConsistencyResponse(proof=await self._prover.consistency(old, new or None))
