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
"""Longest task and wait for the one before it; an examination of ten thousand rules takes half of it."""


class ChildFailedError(Exception):
    """The child gave no answer; the text says why, for people."""


class Child:
    """Runs tasks, one at a time: each keeps a core busy."""

    def __init__(self) -> None:
        """Nothing runs before the first task."""
        self._turn = asyncio.Lock()

    async def __call__(self, task: Mapping[str, Any], *, seconds: float = MOST_SECONDS) -> dict[str, Any]:
        """Runs a task.

        Raises:
            ChildFailedError: it took too long, died, or said something else than an object.
        """
        try:
            async with asyncio.timeout(seconds), self._turn:
                returncode, answer = await _run(json.dumps(task).encode())
        except TimeoutError:
            raise ChildFailedError(f"it took longer than {seconds:.0f} s") from None
        if returncode:
            log.error("work on a policy died", extra={"reason": str(returncode)})
            raise ChildFailedError(f"it died ({returncode})")
        try:
            found = json.loads(answer)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ChildFailedError("it gave no answer")
        return found


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
