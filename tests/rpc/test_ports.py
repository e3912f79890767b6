"""What grpc is told of a port fits what the port's calls may take."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from unittest.mock import Mock

import pytest

from broker.rpc import audit
from broker.rpc.chain import STREAM_SECONDS
from broker.server.ports import options
from broker.settings import Settings

GRACE, AGE = "grpc.max_connection_age_grace_ms", "grpc.max_connection_age_ms"


def longest_audit_call() -> float:
    """Gives the seconds of the longest of the auditors' methods, made with parts that are never called."""
    modules = [import_module(f"{audit.__name__}.{m.name}") for m in pkgutil.iter_modules(audit.__path__)]
    classes = {
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and hasattr(kind, "streamed")
    }
    assert len(classes) >= 6
    parts = [kind(*[Mock() for _ in inspect.signature(kind).parameters]) for kind in classes]
    return max(m.seconds for part in parts for m in (*part.methods(), *part.streamed()))


@pytest.mark.parametrize(
    ("role", "longest"),
    [
        ("access", Settings.model_fields["call_timeout"].default),
        ("admin", max(STREAM_SECONDS, longest_audit_call())),
    ],
)
def test_a_connection_of_age_lets_its_calls_end(role, longest):
    """A snapshot or a pack that began on an old connection is not cut off before its own time is over."""
    found = dict(options(role, shared=False))

    assert found[GRACE] / 1000 > longest
    assert found[GRACE] < found[AGE]
