"""Where a test run's throw-away files lie: in memory, if this machine has room there.

The databases of a run are made to be dropped, some thousand of them, and each is a thousand files: one made
from the template took a third of a second on a disk, nearly all of it in the kernel, in memory 15
milliseconds. So for the length of a run `TMPDIR` is a folder in memory, for the tests and for every process
that they start. Nothing else changes: the same files, locks, sockets and processes, and what a killed process
had written stays written. What is about the disk itself asks for `on_disk`. Who has set TMPDIR keeps it:

    TMPDIR=/tmp sh deploy/test.sh
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from pathlib import Path

MEMORY = Path("/dev/shm")
PREFIX = "broker-run-of-tests-"
NEEDED = 4 * 2**30
"""Bytes that must be free; the folder with most in it, four companies at once, held a fifth of that."""

AFTER_MULTIPROCESSING = -1000
"""Its own last step, at -100, empties a temporary folder of its own and complains where that is gone."""

DISK = tempfile.gettempdir()


def use_memory() -> Path | None:
    """Points temporary files to a folder in memory that goes with this process.

    None where there is no room, or TMPDIR is set. A run that is killed leaves its folder, without its lock;
    the next run removes it.
    """
    if "TMPDIR" in os.environ or not _has_room():
        return None
    everybodys = os.open(MEMORY, os.O_RDONLY)
    fcntl.flock(everybodys, fcntl.LOCK_EX)  # nobody takes a folder for left behind that is not locked yet
    try:
        for left in MEMORY.glob(f"{PREFIX}*"):
            if (lock := _lock(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY))
        _lock(folder)  # held as long as we live; what we start does not inherit it
    finally:
        os.close(everybodys)
    folder.chmod(0o711)  # as root the database's server is another user's process
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=AFTER_MULTIPROCESSING)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


@contextmanager
def on_disk() -> Iterator[None]:
    """Points this process's temporary files to the disk: for what must be seen to survive there."""
    usual, tempfile.tempdir = tempfile.tempdir, DISK
    try:
        yield
    finally:
        tempfile.tempdir = usual


def _lock(folder: Path) -> int | None:
    """Locks a folder; None where somebody has it, or it is another user's."""
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


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
