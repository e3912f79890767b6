"""AuditService: protobuf to values and back, nothing else; one file per group of RPCs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from broker.rpc.calls import Method, StreamedMethod

AUDIT = "broker.v1.AuditService"


class AuditMethods(Protocol):
    """One file's RPCs."""

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""


class AuditService:
    """The auditors' service: all its files' RPCs."""

    def __init__(self, *parts: AuditMethods) -> None:
        """Takes the parts."""
        self._parts = parts

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists the RPCs that answer at once, by full name."""
        return [method for part in self._parts for method in part.methods()]

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists the RPCs that answer in parts, by full name."""
        return [method for part in self._parts for method in part.streamed()]
