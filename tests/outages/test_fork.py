"""grpc does not survive a fork: the parent of the workers never imports it."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.attack("O13")
def test_o13_a_parent_with_grpc_refuses_to_start():
    """Where grpc was imported before the workers were started, nothing is started."""
    result = python("import grpc; from broker.server import serve; serve(None)")

    assert result.returncode != 0
    assert "StartupError: grpc was imported before the workers" in result.stderr


@pytest.mark.attack("O13")
def test_o13_the_parent_never_imports_it():
    """Control: what `broker serve` imports up to its start has no grpc in it."""
    result = python("import broker.cli.server, broker.server.parent, sys; print('grpc' in sys.modules)")

    assert result.stdout.strip() == "False", result.stderr
