"""The examination and the other questions about policies, asked in child processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.errors import PolicyUnavailableError
from broker.policy.bundle import Bundle
from broker.publishing.child import Child, ChildFailedError
from broker.publishing.gate import Examination, Question, Seat, examine
from broker.publishing.values import Administrator

Examine = Callable[[Question], Awaitable[Examination]]
"""Examines a candidate off the event loop."""

REPLAY_SECONDS = 60.0
"""Longest replay beside a proposal; a longer one is asked for by itself."""

REPLAY_DAYS = timedelta(days=30)

NOT_EXAMINED = "the examination did not end well: {}; make the policy smaller"


class ChildExaminer:
    """Examines in a child process; what goes wrong with it is a refusal."""

    def __init__(self, child: Child | None = None) -> None:
        """Takes what runs tasks."""
        self._child = child or Child()

    async def __call__(self, question: Question) -> Examination:
        """Examines."""
        try:
            return Examination.from_mapping(await self._child(_examination(question)))
        except ChildFailedError as exc:
            return Examination(refusals=(NOT_EXAMINED.format(exc),))
        except (KeyError, TypeError):
            return Examination(refusals=(NOT_EXAMINED.format("it answered strangely"),))


async def in_this_process(question: Question) -> Examination:
    """Examines in a thread, without bounds: for commands and tests, which have a process of their own."""
    return await asyncio.to_thread(examine, question)


class Questions:
    """What administrators ask about policies; every answer is the object that the command prints as JSON."""

    def __init__(
        self,
        child: Child,
        *,
        dsn: str,
        methods: Collection[str],
        clock: Callable[[], float],
    ) -> None:
        """Takes what runs tasks, a DSN of broker_admin for replays, the RPCs' names, and POSIX seconds."""
        self._child = child
        self._dsn = dsn
        self._methods = sorted(methods)
        self._clock = clock

    async def validate(self, bundle: Bundle) -> dict[str, Any]:
        """Lints files."""
        return await self._ask("validate", bundle, methods=self._methods)

    async def test(self, bundle: Bundle) -> dict[str, Any]:
        """Runs the tests of a bundle and the incident tests."""
        return await self._ask("test", bundle)

    async def hold(self, bundle: Bundle) -> dict[str, Any]:
        """Says what a policy holds; a policy that does not load within bounds has no answer."""
        return await self._ask("hold", bundle)

    async def compare(self, base: Bundle, bundle: Bundle) -> dict[str, Any]:
        """Says what changes for people."""
        return await self._ask("compare", bundle, base=_texts(base))

    async def explain(
        self, bundle: Bundle, roles: Collection[str], facts: Mapping[str, str], fields: Sequence[str]
    ) -> dict[str, Any]:
        """Says why fields are decided as they are."""
        return await self._ask("explain", bundle, roles=sorted(roles), facts=dict(facts), fields=list(fields))

    async def who_can(
        self, bundle: Bundle, field: str, level: str, role_sets: Sequence[str], facts: Mapping[str, str]
    ) -> dict[str, Any]:
        """Says who can see a field, and under which conditions."""
        return await self._ask(
            "who_can", bundle, field=field, level=level, role_sets=list(role_sets), facts=dict(facts)
        )

    async def replay(
        self, by: Administrator, bundle: Bundle, since: datetime, until: datetime,
        *, seconds: float = REPLAY_SECONDS,
    ) -> dict[str, Any]:  # fmt: skip
        """Takes recorded decisions again under a bundle; the replay's event names who asked."""
        return await self._ask(
            "replay", bundle, seconds=seconds, dsn=self._dsn, since=since.isoformat(),
            until=until.isoformat(), person=by.key, asked_by=by.console, trace_id=by.trace_id,
        )  # fmt: skip

    async def replay_days(self, by: Administrator, bundle: Bundle) -> dict[str, Any]:
        """Replays the last days for a proposal's report; that it took too long is part of the report."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        try:
            return await self.replay(by, bundle, now - REPLAY_DAYS, now)
        except PolicyUnavailableError as exc:
            return {"findings": [f"no replay: {exc.cause}"]}

    async def _ask(
        self, task: str, bundle: Bundle, *, seconds: float | None = None, **more: object
    ) -> dict[str, Any]:
        """Asks a child.

        Raises:
            PolicyUnavailableError: it gave no answer.
        """
        today = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        bound = {} if seconds is None else {"seconds": seconds}
        try:
            return await self._child(
                {"task": task, "bundle": _texts(bundle), "today": today, **more}, **bound
            )
        except ChildFailedError as exc:
            raise PolicyUnavailableError(cause=str(exc), detail="The question took too much.") from None


def _examination(question: Question) -> dict[str, Any]:
    return {
        "task": "examine",
        "candidate": _texts(question.candidate),
        "active": _texts(question.active) if question.active else None,
        "today": question.today.isoformat(),
        "methods": sorted(question.methods),
        "replaces_tests": question.replaces_tests,
        "author": _seat(question.author),
        "approver": _seat(question.approver),
        "thorough": question.thorough,
    }


def _texts(bundle: Bundle) -> dict[str, dict[str, str]]:
    return {"files": dict(bundle.files.texts), "tests": dict(bundle.tests)}


def _seat(seat: Seat | None) -> dict[str, Any] | None:
    return None if seat is None else {**asdict(seat), "groups": sorted(seat.groups)}
