"""Where a test run's throw-away files lie: in memory, if this machine has room there.

The databases of a run are made to be dropped, some thousand of them, and each is a thousand files: on a disk
a database made from the template took a third of a second, nearly all of it in the kernel, in memory a
fiftieth. So for the length of a run `TMPDIR` is a folder in memory, for the tests and for every process that
they start. Nothing else changes: the same files, locks, sockets and processes, and what a killed process had
written stays written. What is about the disk itself asks for `on_disk`. Who has set TMPDIR keeps it:

    TMPDIR=/tmp sh deploy/test.sh
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
NEEDED = 4 * 2**30
"""Bytes that must be free; a run has held one at most at a time."""

DISK = tempfile.gettempdir()


def use_memory() -> Path | None:
    """Points temporary files to a new folder in memory; None where there is no room, or TMPDIR is set."""
    if "TMPDIR" in os.environ or not _has_room():
        return None
    folder = Path(tempfile.mkdtemp(prefix="broker-run-", dir=MEMORY))
    folder.chmod(0o711)  # as root the database's server is another user's process
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


def give_back(folder: Path) -> None:
    """Points temporary files to the disk again and frees the memory."""
    del os.environ["TMPDIR"]
    tempfile.tempdir = DISK
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def on_disk() -> Iterator[None]:
    """Points this process's temporary files to the disk: for what must be seen to survive there."""
    usual, tempfile.tempdir = tempfile.tempdir, DISK
    try:
        yield
    finally:
        tempfile.tempdir = usual


def _has_room() -> bool:
    """Says whether enough memory is free, and programs may be started from there: the server's are."""
    try:
        there = os.statvfs(MEMORY)
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return False
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    room = min(there.f_bavail * there.f_frsize, available)
    return not there.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK) and room >= NEEDED
