"""PolicyService: protobuf to values and back, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broker.policy import Policy
from broker.rpc.chain import Call, Method
from broker.rpc.gates import is_personal
from broker.v1 import common_pb2
from broker.v1 import policy_service_pb2 as pb

POLICY = "broker.v1.PolicyService"


class PolicyService:
    """The security admins' service."""

    def __init__(self, policy: Callable[[], Policy]) -> None:
        """Takes the policy in force."""
        self._policy = policy

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists the RPCs by full name."""
        at = f"/{POLICY}/"
        return (Method(at + "WhoAmI", pb.WhoAmIRequest, pb.WhoAmIResponse, self._who_am_i),)

    async def _who_am_i(self, call: Call, _: pb.WhoAmIRequest) -> pb.WhoAmIResponse:
        policy, person, certificate = self._policy(), call.person, call.identity.tool
        call.policy_version = policy.version
        theirs = policy.admin.allowed_methods(policy.admin.roles(certificate))
        own = policy.admin.allowed_methods(person.roles)
        return pb.WhoAmIResponse(
            person=common_pb2.AgentRef(issuer=person.agent.issuer, subject=person.agent.subject),
            groups=sorted(person.groups),
            roles=sorted(person.roles),
            certificate=certificate,
            methods=sorted(m for m in theirs if not is_personal(m) or m in own),
            policy_version=policy.version,
        )
