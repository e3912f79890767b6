"""The embedded server, when somebody else ends it."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

from broker.dev.postgres import EmbeddedPostgres
from tests.replica import has_ended


def test_one_that_was_killed_is_stopped():
    """Stopping what died is no failure, and its data stays."""
    with tempfile.TemporaryDirectory(prefix="broker-tests-", ignore_cleanup_errors=True) as parent:
        Path(parent).chmod(0o711)
        server = EmbeddedPostgres(Path(parent) / "pg", fsync=False)
        server.start()
        dead = server.pid()
        os.kill(dead, signal.SIGKILL)
        while not has_ended(dead):
            pass
        server.stop()

        assert (server.data / "PG_VERSION").exists()
        server.remove()
