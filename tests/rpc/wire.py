"""Calls as bytes: what a client sends and what comes back, with nothing of the client library between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from broker.dev.ca import Issued
from broker.rpc.status import DETAILS_KEY, DOMAIN
from broker.v1 import audit_service_pb2

STREAMED = frozenset(
    f"AuditService/{method.name}"
    for method in audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].methods
    if method.server_streaming
)
"""Methods that answer in parts."""


@dataclass(frozen=True)
class Answer:
    """What one call ended with."""

    code: str
    text: str = ""
    data: bytes = b""
    trailers: tuple[tuple[str, str | bytes], ...] = ()

    @property
    def status(self) -> status_pb2.Status:
        """Gives the google.rpc.Status; empty where none came."""
        packed = dict(self.trailers).get(DETAILS_KEY, b"")
        return status_pb2.Status.FromString(packed if isinstance(packed, bytes) else b"")

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        """Gives the one ErrorInfo; it says the same as the trailers do."""
        status = self.status
        assert (status.message, grpc.StatusCode[self.code].value[0]) == (self.text, status.code), self
        found = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(found), self
        assert found.domain == DOMAIN
        return found

    @property
    def reason(self) -> str:
        """Gives the reason; "" where grpc itself answered."""
        return self.info.reason if self.trailers else ""

    @property
    def decision_id(self) -> str:
        """Gives the id to quote."""
        return self.info.metadata["decision_id"]

    @property
    def fields(self) -> list[str]:
        """Gives the fields that BadRequest names."""
        found = error_details_pb2.BadRequest()
        return [
            violation.field
            for detail in self.status.details
            if detail.Unpack(found)
            for violation in found.field_violations
        ]

    @property
    def shape(self) -> tuple[object, ...]:
        """Gives all that must not tell two refusals apart: everything but the decision id itself."""
        status = self.status
        details = tuple(detail.type_url for detail in status.details)
        info = tuple(sorted((key, len(value)) for key, value in self.info.metadata.items()))
        names = tuple((key, len(value)) for key, value in self.trailers)
        return self.code, self.text, names, details, self.info.reason, info, len(status.SerializeToString())


class Peer:
    """A connection of one certificate to one port."""

    def __init__(self, target: str, authority: bytes, issued: Issued | None, token: str = "") -> None:
        """Takes where to, whom to trust, as whom, and the access token to carry."""
        pair = (issued.key_pem, issued.cert_pem) if issued else (None, None)
        self.token = token
        self.channel = grpc.aio.secure_channel(
            target,
            grpc.ssl_channel_credentials(authority, *pair),
            options=[("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)],
        )

    async def __aenter__(self) -> Self:
        """Connects at the first call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connection."""
        await self.channel.close()

    async def call(
        self,
        method: str,
        request: Message | bytes = b"",
        *,
        token: str | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        timeout: float | None = 5.0,  # noqa: ASYNC109 - it becomes the call's deadline on the wire
        stream: bool = False,
    ) -> Answer:
        """Calls, as `Service/Method` of broker.v1 or as a full path.

        Args:
            method: what.
            request: a message or its bytes.
            token: instead of the connection's; "" sends none.
            metadata: further metadata.
            timeout: seconds.
            stream: send it as a stream of one message.
        """
        token = self.token if token is None else token
        said = [("authorization", f"Bearer {token}")] if token else []
        data = request if isinstance(request, bytes) else request.SerializeToString()
        path = method if method.startswith("/") or not method[0].isupper() else f"/broker.v1.{method}"
        if path.removeprefix("/broker.v1.") in STREAMED:
            return await self._streamed(path, data, [*said, *metadata], timeout or 5.0)
        if stream:
            call = self.channel.stream_unary(path)(iter([data]), metadata=[*said, *metadata], timeout=timeout)
        else:
            call = self.channel.unary_unary(path)(data, metadata=[*said, *metadata], timeout=timeout)
        try:
            answer = await call
        except grpc.aio.AioRpcError as exc:
            trailers = tuple((str(key), value) for key, value in exc.trailing_metadata() or ())
            return Answer(exc.code().name, exc.details() or "", b"", trailers)
        return Answer("OK", "", answer)

    async def _streamed(
        self,
        path: str,
        data: bytes,
        metadata: Sequence[tuple[str, str]],
        timeout: float,  # noqa: ASYNC109 - it becomes the call's deadline on the wire
    ) -> Answer:
        """Calls what answers in parts; gives the last part."""
        last = b""
        try:
            async for part in self.channel.unary_stream(path)(data, metadata=metadata, timeout=timeout):
                last = part
        except grpc.aio.AioRpcError as exc:
            trailers = tuple((str(key), value) for key, value in exc.trailing_metadata() or ())
            return Answer(exc.code().name, exc.details() or "", last, trailers)
        return Answer("OK", "", last)
