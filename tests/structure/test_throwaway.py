"""Where a run's throw-away files go, and that it is decided by what there is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import throwaway

ROOT = Path(__file__).parents[2]


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Plays that a folder is memory with room, and that nobody has set TMPDIR."""
    monkeypatch.setattr(throwaway, "MEMORY", tmp_path)
    monkeypatch.setattr(throwaway, "NEEDED", 1)
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.delenv("TMPDIR")
    return tmp_path


def test_to_memory(memory):
    """Files of this process and of those that it starts go there, except where `on_disk` says."""
    folder = throwaway.use_memory()
    assert folder is not None
    assert folder.parent == memory
    asked = [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert told == tempfile.gettempdir() == str(folder)
    with throwaway.on_disk():
        assert tempfile.gettempdir() == throwaway.DISK
    assert tempfile.gettempdir() == str(folder)


RUN = """
import sys, tempfile
from multiprocessing.util import get_temp_dir
from pathlib import Path
from tests import throwaway
throwaway.MEMORY, throwaway.NEEDED = Path(sys.argv[1]), 1
assert throwaway.use_memory()
tempfile.mkdtemp()
get_temp_dir()
print(*throwaway.MEMORY.glob("*/*"), sep="\\n")
"""


def test_nothing_stays(memory):
    """What a run leaves lying goes with it, last of all and without a word."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, memory], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 2
    assert list(memory.iterdir()) == []
    assert done.stderr == ""


def test_a_killed_runs_folder_goes_with_the_next(memory):
    """Control: the folder of a run that still runs stays."""
    code = RUN + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    killed = subprocess.run([sys.executable, "-c", code, memory], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    [left] = memory.iterdir()
    first = throwaway.use_memory()
    assert list(memory.iterdir()) == [first]
    assert left != first
    del os.environ["TMPDIR"]
    second = throwaway.use_memory()
    assert sorted(memory.iterdir()) == sorted([first, second])


def test_who_has_set_tmpdir_keeps_it(memory, monkeypatch):
    """Where files go was decided by whoever runs us."""
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert throwaway.use_memory() is None
    assert os.environ["TMPDIR"] == "/tmp"


def test_the_disk_will_do(memory, monkeypatch):
    """Without memory, or without room in it, nothing is changed."""
    monkeypatch.setattr(throwaway, "NEEDED", 2**60)
    assert throwaway.use_memory() is None
    monkeypatch.setattr(throwaway, "MEMORY", memory / "none")
    monkeypatch.setattr(throwaway, "NEEDED", 1)
    assert throwaway.use_memory() is None
    assert "TMPDIR" not in os.environ


def test_a_server_must_be_able_to_start_there(memory, monkeypatch):
    """Memory that nothing may be started from, as in containers, is none; control: without that flag."""
    there = os.statvfs(memory)
    values = list(there)
    values[8] |= os.ST_NOEXEC  # f_flag
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(values))
    assert throwaway.use_memory() is None
    monkeypatch.setattr(os, "statvfs", lambda _: there)
    assert throwaway.use_memory() is not None
