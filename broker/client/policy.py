"""The client of PolicyService, for a person at a console."""

from __future__ import annotations

from typing import Self

from broker.client import wire
from broker.client.administration import AdminPort
from broker.client.values import WhoIAm
from broker.v1 import policy_service_pb2 as pb
from broker.v1 import policy_service_pb2_grpc


class PolicyClient(AdminPort):
    """Administers the policy; every call carries the person's token."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._stub = policy_service_pb2_grpc.PolicyServiceStub(self._channel.grpc_channel)
        return self

    async def who_am_i(self) -> WhoIAm:
        """Tells who calls and what they may do."""
        return wire.who_i_am(await self._personal(self._stub.WhoAmI, pb.WhoAmIRequest()))
