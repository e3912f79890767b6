"""Commands as they are typed, and a sample company that they are typed at."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.cli import run
from broker.dev.world import World


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Gives standard output as JSON."""
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def broker(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command line, as wide as the README's."""
    monkeypatch.setenv("COLUMNS", "100")

    def command(*arguments: object) -> Said:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return command


@pytest.fixture(scope="package")
def company() -> Iterator[World]:
    """Gives the company of all tests that leave it as it was; modules that do not start one of their own."""
    with running_company() as world:
        yield world


@contextmanager
def running_company() -> Iterator[World]:
    """Runs a sample company in a thread of its own, because commands have their own event loops."""
    folder = Path(tempfile.mkdtemp(prefix="broker-cli-"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(120)

    starting = World.start(folder / "company", customers=60, fsync=False)
    try:
        world = wait(starting.__aenter__())
        try:
            yield world
        finally:
            wait(starting.__aexit__(None, None, None))
            shutil.rmtree(world.databases.server.folder.parent, ignore_errors=True)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        shutil.rmtree(folder, ignore_errors=True)
