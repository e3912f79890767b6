"""HTTP/2 by hand: frames that no gRPC library would send, over real mutual TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from google.rpc import error_details_pb2, status_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

from broker.dev.layout import HOST, Tls

PART = 16_384
"""Bytes of one DATA frame."""

PATIENCE = 8.0
"""Seconds; longer than the server's own limit of a call."""


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Makes the client's side of mutual TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls.ca_file)
    context.load_cert_chain(tls.cert_file, tls.key_file)
    context.set_alpn_protocols(["h2"])
    return context


def framed(message: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Puts gRPC's five bytes before a message."""
    return struct.pack(">BI", flag, len(message) if length is None else length) + message


@dataclass
class Stream:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    reset: ErrorCodes | int | None = None
    ended: bool = False

    @property
    def status(self) -> str:
        """Gives gRPC's number, "" where there is none."""
        return self.headers.get("grpc-status", "")

    @property
    def reason(self) -> str:
        """Gives our reason; "" where grpc itself answered."""
        packed = self.headers.get("grpc-status-details-bin", "")
        status = status_pb2.Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
        info = error_details_pb2.ErrorInfo()
        return info.reason if status.details and status.details[0].Unpack(info) else ""


class Connection:
    """One connection with its streams."""

    def __init__(
        self, target: str, context: ssl.SSLContext | None, *, greet: bool = True, window: int = 65_535
    ) -> None:
        """Takes where to; `greet=False` leaves even the preface to the caller.

        Args:
            target: `host:port`.
            context: the client's side of TLS; None: none.
            greet: send the preface.
            window: bytes of an answer that may come before we take them.
        """
        self._port = int(target.rpartition(":")[2])
        self._context = context
        self._greet = greet
        config = H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = H2Connection(config)
        self.h2.local_settings = Settings(
            client=True,
            initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.ENABLE_PUSH: 0},
        )
        self.streams: dict[int, Stream] = {}
        self.goaway: ErrorCodes | int | None = None
        self.closed = False
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        """Connects and greets."""
        self._reader, self.writer = await asyncio.open_connection(
            HOST, self._port, ssl=self._context, server_hostname=HOST if self._context else None
        )
        if self._greet:
            self.h2.initiate_connection()
            await self.flush()
        self._pump = asyncio.create_task(self._receive())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hangs up."""
        self._pump.cancel()
        self.writer.transport.abort()  # a TLS goodbye would be waited for

    async def flush(self) -> None:
        """Sends what h2 has prepared, unless the other side has hung up."""
        data = self.h2.data_to_send()
        if not self.closed:
            with contextlib.suppress(OSError):
                self.writer.write(data)
                await self.writer.drain()

    async def open(
        self,
        path: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        body: bytes | None = b"",
        end: bool = True,
        without: Iterable[str] = (),
        **instead: str,
    ) -> int:
        """Opens a stream; gives its number.

        Args:
            path: the pseudo header.
            headers: further ones.
            body: what is sent after them; None: nothing at all.
            end: whether the stream ends then.
            without: usual headers that are left out.
            instead: usual headers by their names with `_`, as `method="GET"`, `content_type="x"`.
        """
        usual = {
            ":method": "POST", ":scheme": "https", ":path": path, ":authority": HOST,
            "content-type": "application/grpc", "te": "trailers",
        }  # fmt: skip
        for name, value in instead.items():
            usual[":method" if name == "method" else name.replace("_", "-")] = value
        number = self.h2.get_next_available_stream_id()
        self.streams[number] = Stream()
        kept = [(name, value) for name, value in usual.items() if name not in set(without)]
        self.h2.send_headers(number, [*kept, *headers], end_stream=body is None and end)
        if body is not None:
            parts = [body[at : at + PART] for at in range(0, len(body), PART)] or [b""]
            for part in parts[:-1]:
                self.h2.send_data(number, part)
            self.h2.send_data(number, parts[-1], end_stream=end)
        await self.flush()
        return number

    async def settle(self, number: int, seconds: float = PATIENCE) -> Stream:
        """Waits until a stream has a status or is reset; gives it."""
        stream = self.streams[number]
        await self.until(lambda: bool(stream.status or stream.reset is not None or stream.ended), seconds)
        return stream

    async def until(self, holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Waits for something to happen, or for the end of the connection."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: holds() or self.closed)

    async def _receive(self) -> None:
        try:
            while data := await self._reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._take(event)
                await self.flush()
                async with self._changed:
                    self._changed.notify_all()
        except (OSError, ssl.SSLError):
            pass
        finally:
            self.closed = True
            async with self._changed:
                self._changed.notify_all()

    def _take(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway = event.error_code
            return
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
        if stream is None:
            return
        match event:
            case ResponseReceived() | TrailersReceived():
                stream.headers |= {str(k): str(v) for k, v in event.headers or ()}
            case DataReceived():
                stream.data += event.data or b""
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            case StreamReset():
                stream.reset = event.error_code
            case StreamEnded():
                stream.ended = True


__all__ = ["Connection", "ErrorCodes", "Stream", "framed", "tls_context"]
