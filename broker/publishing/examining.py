"""The examination in a process of its own: a candidate that takes for ever, or all memory, harms nobody.

The admin process serves the ticket feed; it must not wait for what somebody proposed. The child gets
texts on stdin and gives a report on stdout: no credentials, no settings, no environment of ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import date
from typing import Any

from broker.errors import InternalError
from broker.policy import PolicyFiles
from broker.policy.bundle import Bundle
from broker.publishing.gate import Examination, Question, Seat, examine

log = logging.getLogger(__name__)

Examine = Callable[[Question], Awaitable[Examination]]
"""Examines a candidate off the event loop."""

MOST_SECONDS = 100.0
"""Longest examination; ten thousand rules take half of it."""

MOST_MEMORY = 2 << 30
"""Bytes of address space of the child."""

TOO_LONG = f"the examination took longer than {MOST_SECONDS:.0f} s; make the policy smaller"


class ChildExaminer:
    """Examines in child processes, one at a time: each keeps a core busy."""

    def __init__(self) -> None:
        """Nothing runs before the first call."""
        self._turn = asyncio.Lock()

    async def __call__(self, question: Question) -> Examination:
        """Examines; what goes wrong with the child is a refusal."""
        async with self._turn:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "broker.publishing.examining",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={"PYTHONPATH": ":".join(path for path in sys.path if path), "LANG": "C.UTF-8"},
            )  # fmt: skip
            try:
                async with asyncio.timeout(MOST_SECONDS):
                    answer, _ = await child.communicate(json.dumps(_written(question)).encode())
            except TimeoutError:
                return Examination(refusals=(TOO_LONG,))
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
        if child.returncode:
            log.error("an examination died", extra={"reason": str(child.returncode)})
            return Examination(
                refusals=(f"the examination died ({child.returncode}); make the policy smaller",)
            )
        try:
            return Examination.from_mapping(json.loads(answer))
        except (ValueError, KeyError, TypeError):
            raise InternalError(cause="the examination's answer") from None


async def in_this_process(question: Question) -> Examination:
    """Examines in a thread, without bounds: for commands and tests, which have a process of their own."""
    return await asyncio.to_thread(examine, question)


def _written(question: Question) -> dict[str, Any]:
    return {
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


def _read(found: dict[str, Any]) -> Question:
    def bundle(texts: dict[str, dict[str, str]]) -> Bundle:
        return Bundle.of(PolicyFiles.from_mapping(texts["files"]), texts["tests"])

    return Question(
        candidate=bundle(found["candidate"]),
        active=bundle(found["active"]) if found["active"] else None,
        today=date.fromisoformat(found["today"]),
        methods=found["methods"],
        replaces_tests=found["replaces_tests"],
        author=Seat(**found["author"]) if found["author"] else None,
        approver=Seat(**found["approver"]) if found["approver"] else None,
        thorough=found["thorough"],
    )


def main() -> int:
    """Examines what comes on stdin."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    question = _read(json.load(sys.stdin))
    json.dump(examine(question).as_mapping(), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
