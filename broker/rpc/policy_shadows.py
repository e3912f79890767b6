"""The RPCs of PolicyService that let a draft decide beside the version in force."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from broker.errors import RequestMalformedError
from broker.publishing import Publisher
from broker.rpc import policy_messages as messages
from broker.rpc.access import timestamp
from broker.rpc.calls import Call, Method
from broker.rpc.policy_questions import SECONDS
from broker.shadowing import MOST_CLASSES, NO_ROLES, Difference, ShadowReport, Shadows, Whose
from broker.v1 import policy_service_pb2 as pb

USUAL = 50
"""Differences of an answer where the question does not say how many."""


class PolicyShadows:
    """What administrators do with shadows."""

    def __init__(self, shadows: Shadows, publisher: Publisher) -> None:
        """Takes what it translates for, and what records that somebody looked."""
        self._shadows = shadows
        self._publisher = publisher

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists the RPCs by full name."""
        at = "/broker.v1.PolicyService/"
        return (
            Method(
                at + "StartShadow", pb.StartShadowRequest, pb.StartShadowResponse, self._start,
                seconds=SECONDS,
            ),
            Method(at + "StopShadow", pb.StopShadowRequest, pb.StopShadowResponse, self._stop),
            Method(at + "GetShadow", pb.GetShadowRequest, pb.GetShadowResponse, self._get),
        )  # fmt: skip

    async def _start(self, call: Call, request: pb.StartShadowRequest) -> pb.StartShadowResponse:
        started = await self._shadows.start(messages.bundle(request.bundle), _whose(call))
        call.decision_id = started.event
        return pb.StartShadowResponse(
            shadow=_shadow(started.shadow) if started.shadow else None,
            findings=started.told.get("findings", ()),
            facts=json.dumps(dict(started.told) if started.shadow else {}, ensure_ascii=False),
            decision_id=str(started.event),
        )

    async def _stop(self, call: Call, _: pb.StopShadowRequest) -> pb.StopShadowResponse:
        call.decision_id, shadow = await self._shadows.stop(_whose(call))
        return pb.StopShadowResponse(
            shadow=_shadow(shadow) if shadow else None, decision_id=str(call.decision_id)
        )

    async def _get(self, call: Call, request: pb.GetShadowRequest) -> pb.GetShadowResponse:
        most = request.max_differences
        if not 0 <= most <= MOST_CLASSES:
            raise RequestMalformedError(field="max_differences", cause="number of differences")
        call.decision_id = await self._publisher.looked(messages.by(call), "get shadow")
        shadow = await self._shadows.latest(most or USUAL)
        if shadow is None:
            return pb.GetShadowResponse()
        return pb.GetShadowResponse(
            shadow=_shadow(shadow), differences=[_difference(*each) for each in shadow.differences]
        )


def _whose(call: Call) -> Whose:
    by = messages.by(call)
    return Whose(by.key, by.console, by.trace_id)


def _shadow(s: ShadowReport) -> pb.Shadow:
    return pb.Shadow(
        shadow_id=str(s.shadow_id),
        digest=s.digest,
        # Before persons could start one it was a command, which is no `issuer|subject`.
        start_person=messages.ref(s.started_by) if "|" in s.started_by else None,
        start_time=timestamp(s.start_time),
        end_time=timestamp(s.end_time) if s.end_time else None,
        compared=s.compared,
        differing=s.differing,
        left_out=s.left_out,
        unlisted=s.unlisted,
        trouble=s.trouble,
        count_time=timestamp(s.count_time) if s.count_time else None,
    )


def _difference(d: Difference, uses: int, facts: Mapping[str, str]) -> pb.ShadowDifference:
    return pb.ShadowDifference(
        field=d.field,
        active_level=d.active,
        shadow_level=d.shadow,
        roles=[] if d.roles == NO_ROLES else d.roles.split("+"),
        ticket_kind=d.ticket_kind,
        purpose=d.purpose,
        uses=uses,
        **{name: facts.get(name, "") for name in ("relation", "provenance", "opened_by", "presence")},
    )
