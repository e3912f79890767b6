"""Where a run's throw-away files go, and that it is decided by what there is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from tests import throwaway


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Plays that a folder is memory with room, and that nobody has set TMPDIR."""
    monkeypatch.setattr(throwaway, "MEMORY", tmp_path)
    monkeypatch.setattr(throwaway, "NEEDED", 1)
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.delenv("TMPDIR")
    return tmp_path


def test_to_memory_and_back(memory):
    """Files of this process and of those it starts go there, except where `on_disk` says; nothing stays."""
    folder = throwaway.use_memory()
    assert folder is not None
    assert folder.parent == memory
    asked = [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert told == tempfile.gettempdir() == str(folder)
    with throwaway.on_disk():
        assert tempfile.gettempdir() == throwaway.DISK
    assert tempfile.gettempdir() == str(folder)
    throwaway.give_back(folder)
    assert list(memory.iterdir()) == []
    assert tempfile.gettempdir() == throwaway.DISK
    assert "TMPDIR" not in os.environ


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
