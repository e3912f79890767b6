"""What every call passes, outermost first; listed once, in `Chain.__call__`.

    (1) last resort     whatever happens inside becomes a Status of the catalogue, counted and traced
    (2) deadline        none, too long or too short: ours
    (3) metadata        number and size, before anybody reads it
    (4) identity        the port's own: tool and agent, or administrator
    (5) peer limits     rate and calls under way, per identity
    (6) permission      the port's own: on the admin port the table by full RPC name
    (7) parsing         in here, so that a bad message is INVALID_ARGUMENT
    (8) handler         protobuf to values and back
    (9) type check      of the answer: grpc would send a wrong one as OK

A failure at one step means that no later one runs; refusals of (2) to (8) are put on record in (1).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Protocol, TypeAlias, TypeVar
from uuid import UUID

import grpc
from google.protobuf.message import DecodeError, Message

from broker.access import Refusals
from broker.errors import (
    BrokerError,
    DeadlineTooShortError,
    InternalError,
    LedgerUnavailableError,
    MetadataTooLargeError,
    RequestMalformedError,
    ShuttingDownError,
)
from broker.ledger import EventIds
from broker.model import Caller
from broker.rpc import status
from broker.rpc.limits import PeerLimits
from broker.telemetry import Metrics, ReadTrace, Telemetry, Trace

log = logging.getLogger(__name__)

MOST_METADATA_ENTRIES = 64
"""Entries of a call's metadata; ours has two, proxies and tracers add a dozen."""

MOST_METADATA_BYTES = 8192
"""Bytes of keys and values; grpc refuses between 8 and 16 KiB by chance, we refuse from here on."""

DEADLINE_FLOOR = 0.02
"""Seconds; with less left a durable answer cannot be made, so none is begun."""

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: on the access port a caller, on the admin port the administrator's SPIFFE id."""

    peer: str  # what limits are counted by
    tool: str  # the certificate's identity
    caller: Caller | None = None


@dataclass(slots=True)
class Call:
    """One call under way, as handlers see it."""

    identity: Identity
    trace: Trace | ReadTrace
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
    def tree(self) -> Trace:
        """Gives the trace of anything but a read."""
        if not isinstance(self.trace, Trace):
            raise InternalError(cause="a read has no tree")
        return self.trace


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """One RPC: its full name, its messages, its handler."""

    name: str  # `/broker.v1.AccessService/CreateGrant`
    request: type[Q]
    answer: type[A]
    handle: Callable[[Call, Q], Awaitable[A]]
    is_read: bool = False


class Gate(Protocol):
    """What a port knows of its callers."""

    async def identify(self, context: Context, metadata: Sequence[tuple[str, Any]]) -> Identity:
        """Authenticates the peer, or raises an UNAUTHENTICATED error."""

    def permit(self, identity: Identity, method: str) -> None:
        """Lets the identity call the method, or raises a PERMISSION_DENIED error."""


class Chain:
    """Makes grpc handlers of methods."""

    def __init__(
        self,
        *,
        gate: Gate,
        telemetry: Telemetry,
        metrics: Metrics,
        refusals: Refusals,
        ids: EventIds,
        limits: PeerLimits,
        call_timeout: float,
    ) -> None:
        """Takes what it uses; `call_timeout` in seconds bounds every call."""
        self._gate = gate
        self._telemetry = telemetry
        self._metrics = metrics
        self._refusals = refusals
        self._ids = ids
        self._limits = limits
        self._call_timeout = call_timeout
        self.draining = False

    def unary(self, method: Method[Any, Any]) -> Handler:
        """Makes the handler of a unary method; it gets bytes, so that parsing is ours."""

        async def handler(data: bytes, context: Context) -> bytes:
            return await self(method, context, data)

        return grpc.unary_unary_rpc_method_handler(handler)

    def client_stream(self, method: Method[Any, Any]) -> Handler:
        """Makes the handler of a client-streaming method; its handler gets an iterator of messages."""

        async def handler(stream: Any, context: Context) -> bytes:
            return await self(method, context, stream)

        return grpc.stream_unary_rpc_method_handler(handler)

    async def __call__(self, method: Method[Any, Any], context: Context, data: Any) -> bytes:
        """Takes one call through the chain."""
        began = time.perf_counter()
        metadata: Sequence[tuple[str, Any]] = tuple(context.invocation_metadata() or ())
        trace_headers = [v for k, v in metadata[:MOST_METADATA_ENTRIES] if k == "traceparent"]
        traceparent = trace_headers[0] if len(trace_headers) == 1 else None  # doubled: nobody's (G12)
        trace: Trace | ReadTrace = (
            self._telemetry.start_read(traceparent)
            if method.is_read
            else self._telemetry.start_trace(method.name, traceparent=traceparent)
        )
        call = Call(Identity("", ""), trace)
        code = "OK"
        reason = ""
        try:
            seconds = self._seconds(context)
            async with asyncio.timeout(seconds):
                return await self._inside(method, context, data, metadata, call)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except BaseException as exc:  # noqa: BLE001 - (1): the last resort
            error = await self._refused(exc, method, call)
            code, reason = error.code, error.reason
            call.decision_id = error.decision_id
            await _abort(context, error)
        finally:
            trace.finish(
                code=code,
                reason=reason,
                grant_id=call.grant_id or (trace.grant_id if isinstance(trace, ReadTrace) else None),
                event_id=call.decision_id,
                policy_version=call.policy_version,
            )
            self._metrics.request(method.name, code, time.perf_counter() - began)

    async def _inside(
        self,
        method: Method[Any, Any],
        context: Context,
        data: Any,
        metadata: Sequence[tuple[str, Any]],
        call: Call,
    ) -> bytes:
        if self.draining:
            raise ShuttingDownError
        _check_metadata(metadata)  # (3)
        call.identity = identity = await self._gate.identify(context, metadata)  # (4)
        self._limits.enter(identity.peer)  # (5)
        try:
            self._gate.permit(identity, method.name)  # (6)
            request = (
                _parse(method.request, data) if isinstance(data, bytes) else _parsed(method.request, data)
            )
            answer = await method.handle(call, request)  # (8)
        finally:
            self._limits.leave(identity.peer)
        if type(answer) is not method.answer:  # (9)
            raise InternalError(cause="handler gave the wrong type")
        return bytes(answer.SerializeToString())

    def _seconds(self, context: Context) -> float:
        """(2) Gives the seconds this call may take."""
        left = context.time_remaining()
        if left is None:
            return self._call_timeout
        if left < DEADLINE_FLOOR:
            raise DeadlineTooShortError
        return min(left, self._call_timeout)

    async def _refused(self, exc: BaseException, method: Method[Any, Any], call: Call) -> BrokerError:
        """(1) Makes a refusal of the catalogue out of whatever happened, on record where it is one."""
        error = _as_ours(exc)
        if error.code == "INTERNAL":
            log.error("call failed", extra={"method": method.name, "reason": error.cause})
        self._metrics.denial(error.reason)
        try:
            async with asyncio.timeout(self._call_timeout):
                error = await self._refusals.record(
                    error,
                    trace_id=call.trace.trace_id,
                    caller=call.identity.caller,
                    tool=call.identity.tool,
                    method=method.name,
                    policy_version=call.policy_version,
                )
        except Exception as failed:  # noqa: BLE001 - a refusal that cannot be recorded is not given
            extra = {"method": method.name, "reason": type(failed).__name__}
            log.warning("refusal not recorded", extra=extra)
            error = LedgerUnavailableError(cause="refusal not recorded")
        if error.decision_id is None:
            error.decision_id = self._ids.new()
        return error


def _as_ours(exc: BaseException) -> BrokerError:
    if isinstance(exc, BrokerError):
        return exc
    if isinstance(exc, TimeoutError):
        return DeadlineTooShortError(cause="timed out")
    return InternalError(cause=type(exc).__name__)


def _check_metadata(metadata: Sequence[tuple[str, Any]]) -> None:
    """(3) Bounds the metadata; grpc's own limits hold only after the peer has acknowledged SETTINGS."""
    if len(metadata) > MOST_METADATA_ENTRIES:
        raise MetadataTooLargeError(cause="entries")
    if sum(len(key) + len(value) for key, value in metadata) > MOST_METADATA_BYTES:
        raise MetadataTooLargeError(cause="bytes")


def _parse(kind: type[Q], data: bytes) -> Q:
    """(7) Parses a message; one with fields that the contract does not know is refused."""
    try:
        message = kind.FromString(data)
    except (DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise RequestMalformedError(cause="protobuf") from None
    return message


async def _parsed(kind: type[Q], stream: Any) -> Any:
    async for data in stream:
        yield _parse(kind, data)


async def _abort(context: Context, error: BrokerError) -> NoReturn:
    await context.abort(status.code_of(error), error.sentence, status.trailers(error))
    raise AssertionError("abort raises")
