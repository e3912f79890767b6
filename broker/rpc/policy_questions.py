"""The RPCs of PolicyService that only ask: what is wrong, what would change, who can see what, and why.

Each answers with a JSON object. Those of Test, Replay, Explain, WhoCan and GetMatrix are what the commands of
the same names print with `--json`; `check` adds the counts of a good policy, and `compare` the names of both
sides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.errors import RequestMalformedError, VersionNotFoundError
from broker.model import Level, OpenedBy, Presence, Provenance, Relation
from broker.policy.bundle import Bundle
from broker.policy.store import PolicyStore
from broker.publishing import MOST_SECONDS, Publisher, Questions, telling
from broker.rpc import checks
from broker.rpc import policy_messages as messages
from broker.rpc.calls import Call, Method
from broker.v1 import policy_service_pb2 as pb

SECONDS = 115.0
"""Seconds of a call that asks; waiting for the child that answers, and its work, have a little less."""

MOST_ROLES = 32
LONGEST_REPLAY = timedelta(days=366)
FACTS: Mapping[str, frozenset[str]] = {
    "relation": frozenset(Relation),
    "provenance": frozenset(Provenance),
    "opened_by": frozenset(OpenedBy),
    "presence": frozenset(Presence),
}
"""Facts whose words belong to the release; those of the others belong to the catalog."""


class PolicyQuestions:
    """What administrators ask."""

    def __init__(self, store: PolicyStore, publisher: Publisher, questions: Questions) -> None:
        """Takes where versions are, what records that somebody asked, and what answers."""
        self._store = store
        self._publisher = publisher
        self._questions = questions

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists the RPCs by full name."""
        at, long = "/broker.v1.PolicyService/", {"seconds": SECONDS}
        return (
            Method(at + "Validate", pb.ValidateRequest, pb.ValidateResponse, self._validate, **long),
            Method(at + "Test", pb.TestRequest, pb.TestResponse, self._test, **long),
            Method(at + "Compare", pb.CompareRequest, pb.CompareResponse, self._compare, **long),
            Method(at + "Replay", pb.ReplayRequest, pb.ReplayResponse, self._replay, **long),
            Method(at + "Explain", pb.ExplainRequest, pb.ExplainResponse, self._explain, **long),
            Method(at + "WhoCan", pb.WhoCanRequest, pb.WhoCanResponse, self._who_can, **long),
            Method(at + "GetMatrix", pb.GetMatrixRequest, pb.GetMatrixResponse, self._matrix, **long),
        )

    async def _validate(self, call: Call, request: pb.ValidateRequest) -> pb.ValidateResponse:
        bundle = messages.bundle(request.bundle)
        await self._asked(call, "validate", digest=bundle.digest)
        return pb.ValidateResponse(report=_json(await self._questions.validate(bundle)))

    async def _test(self, call: Call, request: pb.TestRequest) -> pb.TestResponse:
        bundle = messages.bundle(request.bundle)
        await self._asked(call, "test", digest=bundle.digest)
        return pb.TestResponse(report=_json(await self._questions.test(bundle)))

    async def _compare(self, call: Call, request: pb.CompareRequest) -> pb.CompareResponse:
        bundle = messages.bundle(request.bundle)
        base = await self._version(_number(request.base_version, "base_version"))
        await self._asked(call, "compare", digest=bundle.digest)
        return pb.CompareResponse(report=_json(await self._questions.compare(base, bundle)))

    async def _replay(self, call: Call, request: pb.ReplayRequest) -> pb.ReplayResponse:
        bundle = messages.bundle(request.bundle)
        since = checks.moment(request, "since", "since")
        until = checks.moment(request, "until", "until") or datetime.now(UTC)
        if since is None:
            raise RequestMalformedError(field="since", cause="no time")
        if not since < until <= since + LONGEST_REPLAY:
            raise RequestMalformedError(field="since", cause="span")
        by = messages.by(call)
        await self._asked(call, "replay", digest=bundle.digest)
        report = await self._questions.replay(by, bundle, since, until, seconds=MOST_SECONDS)
        return pb.ReplayResponse(report=_json(report))

    async def _explain(self, call: Call, request: pb.ExplainRequest) -> pb.ExplainResponse:
        facts = _facts(request, whole=True)
        fields = checks.field_names(request.fields)
        roles = _words(request.roles, "roles")
        bundle = await self._asked_about(call, "explain", request.version)
        report = await self._questions.explain(bundle, roles, facts, fields)
        return pb.ExplainResponse(report=_json(report))

    async def _who_can(self, call: Call, request: pb.WhoCanRequest) -> pb.WhoCanResponse:
        facts = _facts(request, whole=False)
        (field,) = checks.field_names([request.field], "field")
        if request.level not in {"", *Level}:
            raise RequestMalformedError(field="level", cause="level")
        sets = _role_sets(request.role_sets)
        bundle = await self._asked_about(call, "who can", request.version)
        report = await self._questions.who_can(bundle, field, request.level, sets, facts)
        return pb.WhoCanResponse(report=_json(report))

    async def _matrix(self, call: Call, request: pb.GetMatrixRequest) -> pb.GetMatrixResponse:
        sets = _role_sets(request.role_sets)
        bundle = await self._asked_about(call, "get matrix", request.version)
        return pb.GetMatrixResponse(report=_json(await self._questions.matrix(bundle, sets)))

    async def _asked_about(self, call: Call, act: str, version: str) -> Bundle:
        """Records the question and gives the version that it is about; "" is the one in force."""
        number = _number(version, "version")
        await self._asked(call, act, **({} if number is None else {"version": version}))
        return await self._version(number)

    async def _asked(self, call: Call, act: str, **detail: object) -> None:
        call.decision_id = await self._publisher.looked(messages.by(call), act, **detail)

    async def _version(self, number: int | None) -> Bundle:
        with telling():
            if number is None:
                return (await self._store.active())[1]
            bundle = await self._store.version(number)
        if bundle is None:
            raise VersionNotFoundError
        return bundle


def _facts(request: pb.ExplainRequest | pb.WhoCanRequest, *, whole: bool) -> dict[str, str]:
    """Checks the facts of a question; with `whole` none may be missing."""
    facts = {name: getattr(request, name) for name in ("purpose", "ticket_kind", *FACTS)}
    for name, word in facts.items():
        if word or whole:
            checks.word(word, name)
            if word not in FACTS.get(name, {word}):
                raise RequestMalformedError(field=name, cause="fact")
    return facts


def _number(text: str, field: str) -> int | None:
    """Reads a version's number; none is the one in force."""
    return messages.number(text, field) if text else None


def _role_sets(sets: Sequence[str]) -> Sequence[str]:
    if len(sets) > MOST_ROLES:
        raise RequestMalformedError(field="role_sets", cause="number of sets")
    for index, names in enumerate(sets):
        _words(names.split("+"), f"role_sets[{index}]")
    return sets


def _words(words: Sequence[str], field: str) -> tuple[str, ...]:
    if not 1 <= len(words) <= MOST_ROLES:
        raise RequestMalformedError(field=field, cause="number of roles")
    return tuple(checks.word(word, field) for word in words)


def _json(report: Mapping[str, Any]) -> str:
    return json.dumps(report, ensure_ascii=False)
