"""The examination and the other questions about policies, asked in child processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.errors import PolicyUnavailableError
from broker.model import Agent, same_person
from broker.policy.bundle import Bundle
from broker.publishing.child import MOST_SECONDS, MOST_WAIT, Child, ChildBusyError, ChildFailedError
from broker.publishing.gate import Examination, Question, Seat, examine
from broker.publishing.values import Administrator

Examine = Callable[[Question], Awaitable[Examination]]
"""Examines a candidate off the event loop."""

REPLAY_SECONDS, REPLAY_WAIT = 50.0, 5.0
"""Longest replay beside a proposal, and wait for its turn; a longer one is asked for by itself."""

URGENT_WAIT = 60.0
"""Longest wait for the turn of an approval or an emergency: for the longest one before it, nearly."""

REPLAY_DAYS = timedelta(days=30)

BUSY = "Other policies are being examined; try again in a minute."
BUSY_ASKED = "Other questions are being answered; try again in a minute."
BUSY_SELF = "A policy of yours is being examined; try again when it has been."
NOT_EXAMINED = "the examination did not end well: {}; make the policy smaller"


class ChildExaminer:
    """Examines in child processes; what goes wrong with one is a refusal.

    Two of them: proposals, and many may propose, keep no approval and no emergency waiting. Each examines
    one policy of a person at a time.
    """

    def __init__(self) -> None:
        """Nothing runs before the first question."""
        self._proposals, self._urgent = _Lane(MOST_WAIT), _Lane(URGENT_WAIT)

    async def __call__(self, question: Question) -> Examination:
        """Examines.

        Raises:
            PolicyUnavailableError: others are examined, or another policy of the same person's is.
        """
        lane = self._urgent if question.urgent else self._proposals
        try:
            with lane.only(question.person):
                found = await lane.child(_examination(question), wait=lane.wait)
            return Examination.from_mapping(found)
        except ChildBusyError:
            raise PolicyUnavailableError(cause="busy", detail=BUSY) from None
        except ChildFailedError as exc:
            return Examination(refusals=(NOT_EXAMINED.format(exc),))
        except (KeyError, TypeError):
            return Examination(refusals=(NOT_EXAMINED.format("it answered strangely"),))


class _Lane:
    """A child, and whose policies wait for it."""

    def __init__(self, wait: float) -> None:
        self.child = Child()
        self.wait = wait
        self._persons: list[Agent] = []

    @contextmanager
    def only(self, person: Agent | None) -> Iterator[None]:
        """Lets a person in once at a time."""
        if person is None:
            yield
            return
        if any(same_person(person, other) for other in self._persons):
            raise PolicyUnavailableError(cause="busy with the same person's", detail=BUSY_SELF)
        self._persons.append(person)
        try:
            yield
        finally:
            self._persons.remove(person)


async def in_this_process(question: Question) -> Examination:
    """Examines in a thread, without bounds: for commands and tests, which have a process of their own."""
    return await asyncio.to_thread(examine, question)


class Questions:
    """What administrators ask about policies; every answer is an object for JSON."""

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

    async def matrix(self, bundle: Bundle, role_sets: Sequence[str]) -> dict[str, Any]:
        """Says who sees what, everywhere."""
        return await self._ask("matrix", bundle, role_sets=list(role_sets))

    async def replay(
        self, by: Administrator, bundle: Bundle, since: datetime, until: datetime,
        *, seconds: float, wait: float = MOST_WAIT,
    ) -> dict[str, Any]:  # fmt: skip
        """Takes recorded decisions again under a bundle; the replay's event names who asked."""
        return await self._ask(
            "replay", bundle, seconds=seconds, wait=wait, dsn=self._dsn, since=since.isoformat(),
            until=until.isoformat(), person=by.key, asked_by=by.console, trace_id=by.trace_id,
        )  # fmt: skip

    async def replay_days(self, by: Administrator, bundle: Bundle) -> dict[str, Any]:
        """Replays the last days for a proposal's report; that it took too long is part of the report."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        try:
            return await self.replay(
                by, bundle, now - REPLAY_DAYS, now, seconds=REPLAY_SECONDS, wait=REPLAY_WAIT
            )
        except PolicyUnavailableError as exc:
            return {"findings": [f"no replay: {exc.cause}"]}

    async def _ask(
        self,
        task: str,
        bundle: Bundle,
        *,
        seconds: float = MOST_SECONDS,
        wait: float = MOST_WAIT,
        **more: object,
    ) -> dict[str, Any]:
        """Asks a child.

        Raises:
            PolicyUnavailableError: it gave no answer.
        """
        today = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        asked = {"task": task, "bundle": _texts(bundle), "today": today, **more}
        try:
            return await self._child(asked, seconds=seconds, wait=wait)
        except ChildBusyError:
            raise PolicyUnavailableError(cause="busy", detail=BUSY_ASKED) from None
        except ChildFailedError as exc:
            raise PolicyUnavailableError(cause=str(exc), detail="The question took too much.") from None


def _examination(question: Question) -> dict[str, Any]:
    return {
        "task": "examine",
        "candidate": _texts(question.candidate),
        "active": _texts(question.active) if question.active else None,
        "before": list(question.before),
        "today": question.today.isoformat(),
        "methods": sorted(question.methods),
        "replaces_tests": question.replaces_tests,
        "restores": question.restores,
        "author": _seat(question.author),
        "approver": _seat(question.approver),
        "thorough": question.thorough,
    }


def _texts(bundle: Bundle) -> dict[str, dict[str, str]]:
    return {"files": dict(bundle.files.texts), "tests": dict(bundle.tests)}


def _seat(seat: Seat | None) -> dict[str, Any] | None:
    return None if seat is None else {**asdict(seat), "groups": sorted(seat.groups)}
