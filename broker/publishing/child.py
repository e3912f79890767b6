"""Work on policies in a process of its own: what takes for ever, or all memory, harms nobody.

The admin process serves the ticket feed; it must not wait for what somebody proposed. A child gets a task
on stdin and gives a JSON object on stdout (`tasks`): no environment of ours, and no credentials but the
one that a replay needs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

MOST_SECONDS = 100.0
"""Longest task, from its turn on; an examination of ten thousand rules takes half of it."""

MOST_WAIT = 10.0
"""Longest wait for the tasks before it; whoever asks is told, and asks again."""


class ChildFailedError(Exception):
    """The child gave no answer; the text says why, for people."""


class ChildBusyError(ChildFailedError):
    """The child is at work for others."""


class Child:
    """Runs tasks, one at a time: each keeps a core busy."""

    def __init__(self) -> None:
        """Nothing runs before the first task."""
        self._turn = asyncio.Lock()

    async def __call__(
        self, task: Mapping[str, Any], *, seconds: float = MOST_SECONDS, wait: float = MOST_WAIT
    ) -> dict[str, Any]:
        """Runs a task, when its turn has come.

        Raises:
            ChildBusyError: its turn did not come in time.
            ChildFailedError: it took too long, died, or said something else than an object.
        """
        try:
            async with asyncio.timeout(wait):
                await self._turn.acquire()
        except TimeoutError:
            raise ChildBusyError("others are being answered") from None
        try:
            async with asyncio.timeout(seconds):
                returncode, answer = await _run(json.dumps(task).encode())
        except TimeoutError:
            raise ChildFailedError(f"it took longer than {seconds:.0f} s") from None
        finally:
            self._turn.release()
        try:
            found = json.loads(answer)
        except ValueError:
            found = None
        if returncode:
            log.error("work on a policy died", extra={"reason": f"{returncode} {_kind(found)}".strip()})
            raise ChildFailedError(f"it died ({returncode})")
        if not isinstance(found, dict):
            raise ChildFailedError("it gave no answer")
        return found


def _kind(found: object) -> str:
    """Gives the name of the exception that a child died of, where it could still say one."""
    name = found.get("died") if isinstance(found, dict) else None
    return name[:60] if isinstance(name, str) and name.isascii() and name.isidentifier() else ""


async def _run(task: bytes) -> tuple[int | None, bytes]:
    """Runs one child to its end; none is left behind where the caller goes away."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker.publishing.tasks",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path), "LANG": "C.UTF-8"},
    )  # fmt: skip
    try:
        answer, _ = await child.communicate(task)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode, answer
