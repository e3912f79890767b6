"""A call under way, and what the chain knows of methods and of a port's callers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar
from uuid import UUID

from google.protobuf.message import Message

from broker.errors import InternalError
from broker.model import Caller, Person, Tool
from broker.telemetry import CompactTrace, Trace

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: on the access port a caller, on the admin port a certificate and perhaps a person."""

    tool: str  # the certificate's identity
    caller: Caller | None = None
    person: Person | None = None  # where a service is personal

    @property
    def agent(self) -> str:
        """Names the human being for the ledger; "" where none is known."""
        if self.caller:
            return self.caller.principal.agent.key
        return self.person.agent.key if self.person else ""


@dataclass(slots=True)
class Call:
    """One call under way, as handlers see it."""

    identity: Identity
    trace: Trace | CompactTrace
    decision_id: UUID | None = None  # set by the handler, for the trace
    grant_id: UUID | None = None
    policy_version: str = ""

    @property
    def caller(self) -> Caller:
        """Gives the caller of an access call."""
        if self.identity.caller is None:
            raise InternalError(cause="no caller on this port")
        return self.identity.caller

    @property
    def person(self) -> Person:
        """Gives the person behind a call of a personal service."""
        if self.identity.person is None:
            raise InternalError(cause="no person at this service")
        return self.identity.person

    @property
    def tree(self) -> Trace:
        """Gives the trace of a method that has spans of the SDK."""
        if not isinstance(self.trace, Trace):
            raise InternalError(cause="a compact trace has no tree")
        return self.trace

    @property
    def compact(self) -> CompactTrace:
        """Gives the trace of a read or a grant."""
        if not isinstance(self.trace, CompactTrace):
            raise InternalError(cause="a tree is not compact")
        return self.trace


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """One RPC: its full name, its messages, its handler."""

    name: str  # `/broker.v1.AccessService/CreateGrant`
    request: type[Q]
    answer: type[A]
    handle: Callable[[Call, Q], Awaitable[A]]
    seconds: float = 0.0  # how long it may take, where that is longer than calls usually may


@dataclass(frozen=True, slots=True)
class StreamedMethod(Generic[Q, A]):
    """One RPC that answers in parts; it ends by itself before its time is over."""

    name: str
    request: type[Q]
    answer: type[A]
    handle: Callable[[Call, Q], AsyncGenerator[A, None]]
    seconds: float


class Gate(Protocol):
    """What a port knows of its callers."""

    def tool(self, certificate: bytes, chain: bytes) -> Tool:
        """Reads the certificate's one identity, or raises ToolIdentityError."""

    async def identify(self, tool: Tool, metadata: Sequence[tuple[str, Any]], method: str) -> Identity:
        """Authenticates who calls the method through the tool, or raises an UNAUTHENTICATED error."""

    def permit(self, identity: Identity, method: str) -> None:
        """Lets the identity call the method, or raises a PERMISSION_DENIED error."""


AnyMethod: TypeAlias = "Method[Any, Any] | StreamedMethod[Any, Any]"
