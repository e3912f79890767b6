"""What every call passes, outermost first; listed once, in `Chain.__call__`.

    (1) last resort     whatever happens inside becomes a Status of the catalogue, counted and traced
    (2) deadline        none, too long or too short: ours; from the headers on, so that a call without
                        a message is over when its time is
    (3) metadata        number and size, before anybody reads it
    (4) peer limits     rate and calls under way per certificate, before a token costs us anything
    (5) identity        the port's own: tool and agent, or administrator
    (6) permission      the port's own: on the admin port the table by full RPC name
    (7) message         read and parsed in here, so that a bad one is INVALID_ARGUMENT
    (8) handler         protobuf to values and back
    (9) type check      of the answer: grpc would send a wrong one as OK

A failure at one step means that no later one runs; refusals of (2) to (8) are put on record in (1).

Every handler is a streaming one for grpc, which looks the same on the wire: grpc calls a unary handler
only once the message is there, and a client that never sends it would hold its place for ever (G4).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from broker.access import Refusals
from broker.errors import (
    BrokerError,
    DeadlineTooShortError,
    InternalError,
    LedgerUnavailableError,
    MetadataTooLargeError,
    RateLimitedError,
    RequestMalformedError,
    ShuttingDownError,
    ToolIdentityError,
)
from broker.ledger import EventIds
from broker.rpc import status
from broker.rpc.calls import AnyMethod, Call, Gate, Identity, Method, StreamedMethod
from broker.rpc.limits import PeerLimits
from broker.telemetry import AUTHENTICATE, CompactTrace, Metrics, Telemetry

log = logging.getLogger(__name__)

CERTIFICATE = "x509_pem_cert"
CHAIN = "x509_pem_cert_chain"
"""Keys of grpc's auth context."""

MOST_METADATA_ENTRIES = 64
"""Entries of a call's metadata; ours has two, proxies and tracers add a dozen."""

MOST_METADATA_BYTES = 8192
"""Bytes of keys and values; grpc refuses between 8 and 16 KiB by chance, we refuse from here on."""

DEADLINE_FLOOR = 0.02
"""Seconds; with less left a durable answer cannot be made, so none is begun."""

ANSWER_TIME = 0.1
"""Seconds of a caller's deadline that are kept for saying no: a refusal that comes late is not heard."""

ANSWER_SHARE = 0.25
"""Most that `ANSWER_TIME` may take of what is left."""

STREAM_SECONDS = 300.0
"""Longest time of a caller's stream, in which each message has a call's time: a helpdesk's whole snapshot."""

Q = TypeVar("Q", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Read: TypeAlias = "Callable[[type[Any], Context], Awaitable[Any]]"


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

        async def handler(_: Any, context: Context) -> bytes:
            return await self(method, context, self._one, max(self._call_timeout, method.seconds))

        return grpc.stream_unary_rpc_method_handler(handler)

    def client_stream(self, method: Method[Any, Any]) -> Handler:
        """Makes the handler of a client-streaming method; its handler gets an iterator of messages."""

        async def handler(_: Any, context: Context) -> bytes:
            return await self(method, context, self._many, STREAM_SECONDS)

        return grpc.stream_unary_rpc_method_handler(handler)

    def server_stream(self, method: StreamedMethod[Any, Any]) -> Handler:
        """Makes the handler of a method that answers in parts; each leaves as soon as the peer takes it."""

        async def handler(_: Any, context: Context) -> None:
            await self(method, context, self._one, method.seconds)

        return grpc.stream_stream_rpc_method_handler(handler)

    async def __call__(self, method: AnyMethod, context: Context, read: Read, longest: float) -> bytes:
        """Takes one call through the chain.

        Args:
            method: what is called.
            context: grpc's.
            read: reads the request.
            longest: seconds the call may take, whatever its deadline says.

        Returns:
            The answer; b"" where it has left in parts.
        """
        began = time.perf_counter()
        metadata: Sequence[tuple[str, Any]] = tuple(context.invocation_metadata() or ())
        trace_headers = [v for k, v in metadata[:MOST_METADATA_ENTRIES] if k == "traceparent"]
        traceparent = trace_headers[0] if len(trace_headers) == 1 else None  # doubled: nobody's (G12)
        trace = self._telemetry.start(method.name, traceparent)
        call = Call(Identity(""), trace)
        code = "OK"
        reason = ""
        try:
            async with asyncio.timeout(_seconds(context, longest)):  # (2)
                return await self._inside(method, context, read, metadata, call)
        except BaseException as exc:  # (1): the last resort
            if isinstance(exc, asyncio.CancelledError) and _is_cancelled():
                code = "CANCELLED"
                raise
            error = _as_ours(exc)
            code, reason = error.code, error.reason  # whoever goes while it is put on record was refused, too
            error = await self._refused(error, method, call, context)
            code, reason = error.code, error.reason
            call.decision_id = error.decision_id
            await _abort(context, error)
        finally:
            trace.finish(
                code=code,
                reason=reason,
                grant_id=call.grant_id or (trace.grant_id if isinstance(trace, CompactTrace) else None),
                event_id=call.decision_id,
                policy_version=call.policy_version,
            )
            self._metrics.request(method.name, code, time.perf_counter() - began)

    async def _inside(
        self,
        method: AnyMethod,
        context: Context,
        read: Read,
        metadata: Sequence[tuple[str, Any]],
        call: Call,
    ) -> bytes:
        if self.draining:
            raise ShuttingDownError
        _check_metadata(metadata)  # (3)
        certificate, chain = _certificates(context)
        self._enter(certificate, chain, call)  # (4)
        with call.trace.step(AUTHENTICATE):
            tool = self._gate.tool(certificate, chain)  # (5)
            call.identity = Identity(tool.identity)
            call.identity = await self._gate.identify(tool, metadata, method.name)
        self._gate.permit(call.identity, method.name)  # (6)
        request = await read(method.request, context)  # (7)
        if isinstance(method, StreamedMethod):
            # Closed at once where the peer goes: nothing is made, and no connection held, for nobody.
            async with contextlib.aclosing(method.handle(call, request)) as parts:
                async for part in parts:  # (8)
                    await context.write(_serialized(part, method.answer))  # (9)
            return b""
        return _serialized(await method.handle(call, request), method.answer)  # (8), (9)

    def _enter(self, certificate: bytes, chain: bytes, call: Call) -> None:
        """(4) Counts the call until its answer has left: one that the peer does not take is under way."""
        task = asyncio.current_task()
        if task is None:
            raise InternalError(cause="a call outside of a task")
        try:
            self._limits.enter(certificate)
        except RateLimitedError:
            with contextlib.suppress(ToolIdentityError):  # for the record; a known certificate costs nothing
                call.identity = Identity(self._gate.tool(certificate, chain).identity)
            raise
        task.add_done_callback(lambda _: self._limits.leave(certificate))

    async def _one(self, kind: type[Q], context: Context) -> Q:
        """(7) Reads a unary call's message."""
        data = await context.read()
        if data is grpc.aio.EOF:  # none came, or one that grpc found too large
            raise RequestMalformedError(cause="no message")
        return _parse(kind, data)

    async def _many(self, kind: type[Q], context: Context) -> AsyncIterator[Q]:
        """(7) Reads a stream's messages as the handler asks for them."""

        async def messages() -> AsyncIterator[Q]:
            while True:
                async with asyncio.timeout(self._call_timeout):
                    data = await context.read()
                if data is grpc.aio.EOF:
                    return
                yield _parse(kind, data)

        return messages()

    async def _refused(
        self, error: BrokerError, method: AnyMethod, call: Call, context: Context
    ) -> BrokerError:
        """(1) Puts a refusal on record where it is one, counts and logs it."""
        self._metrics.denial(error.reason)
        try:
            # At least a moment: what is enqueued by then is recorded, whether or not anybody hears of it.
            async with asyncio.timeout(min(self._call_timeout, max(_left(context), DEADLINE_FLOOR))):
                error = await self._refusals.record(
                    error,
                    trace_id=call.trace.trace_id,
                    agent=call.identity.agent,
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
        if error.code == "INTERNAL":  # the caller quotes the id; this line is what it leads to
            extra = {"method": method.name, "reason": error.cause, "decision_id": str(error.decision_id)}
            log.error("call failed", extra={**extra, "trace_id": call.trace.trace_id})
        return error


def _serialized(answer: Message, kind: type[Message]) -> bytes:
    """(9) Writes an answer, or a part of one, of the type that the contract names."""
    if type(answer) is not kind:
        raise InternalError(cause="handler gave the wrong type")
    return bytes(answer.SerializeToString())


def _left(context: Context) -> float:
    """Gives the seconds until the caller stops waiting."""
    left = cast("float | None", context.time_remaining())  # None where it set no deadline
    return float("inf") if left is None else left


def _seconds(context: Context, longest: float) -> float:
    """(2) Gives the seconds this call may take.

    Raises:
        DeadlineTooShortError: so few are left that none is begun.
    """
    left = _left(context)
    if left < DEADLINE_FLOOR:
        raise DeadlineTooShortError
    return min(left - min(ANSWER_TIME, left * ANSWER_SHARE), longest) if left < longest else longest


def _is_cancelled() -> bool:
    """Tells whether it is this call that was cancelled, and not something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _certificates(context: Context) -> tuple[bytes, bytes]:
    """Gives the peer's certificate and what it sent beside it, as PEM; b"" where there is none.

    `x509_common_name` and `peer_identities`, which falls back to it, are never looked at.
    """
    said = context.auth_context()
    leaf, chain = list(said.get(CERTIFICATE, ())), list(said.get(CHAIN, ()))
    return leaf[0] if len(leaf) == 1 else b"", chain[0] if len(chain) == 1 else b""


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
    """(7) Parses a message.

    Fields that the contract does not know are a newer client's and pass unread; a field that it
    knows in another wire type would pass unread, too, and is refused.
    """
    try:
        message = kind.FromString(data)
    except (DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise RequestMalformedError(cause="protobuf") from None
    for unread in UnknownFieldSet(message):  # type: ignore[attr-defined]  # a sequence, say its docs
        known = kind.DESCRIPTOR.fields_by_number.get(unread.field_number)
        if known is not None:
            raise RequestMalformedError(field=known.name, cause="wire type")
    return message


async def _abort(context: Context, error: BrokerError) -> NoReturn:
    await context.abort(status.code_of(error), error.sentence, status.trailers(error))
    raise AssertionError("abort raises")
