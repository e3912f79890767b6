"""One gRPC port: TLS with client certificates, limits, health, reflection, draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from broker.authn import Authorities
from broker.errors import StartupError
from broker.rpc.calls import AnyMethod, Method, StreamedMethod
from broker.rpc.chain import STREAM_SECONDS, Chain, Handler
from broker.settings import ListenerSettings

log = logging.getLogger(__name__)

MOST_STREAMS = 1000
"""Streams of one connection; a tool that needs more opens a second connection."""

CONNECTION_AGE_MS = 10 * 60 * 1000
CONNECTION_GRACE = {"access": 15.0, "admin": STREAM_SECONDS + 15.0}
"""Seconds that calls under way have once their connection is of age; longer than the port's longest call.
An answer that the client never takes stays until then; the peer's limit counts it."""

MAX_MESSAGE = {"access": 64 * 1024, "admin": 4 * 1024 * 1024}
"""Bytes of a request: a read's tokens and field names, or a batch of 500 feed events."""


def options(role: str, *, shared: bool) -> list[tuple[str, Any]]:
    """Gives grpc's channel arguments of a port.

    Args:
        role: access or admin.
        shared: whether several workers listen on it; a lock file keeps strangers away then.
    """
    return [
        ("grpc.so_reuseport", int(shared)),
        ("grpc.max_receive_message_length", MAX_MESSAGE[role]),
        ("grpc.max_concurrent_streams", MOST_STREAMS),
        ("grpc.max_connection_age_ms", CONNECTION_AGE_MS),
        ("grpc.max_connection_age_grace_ms", int(CONNECTION_GRACE[role] * 1000)),
        ("grpc.max_metadata_size", 8 * 1024),
        ("grpc.absolute_max_metadata_size", 16 * 1024),
        ("grpc.http2.max_pings_without_data", 2),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.server_handshake_timeout_ms", 10_000),
    ]


def credentials(listener: ListenerSettings) -> grpc.ServerCredentials:
    """Makes TLS credentials that follow their files: new connections get the new certificate.

    Raises:
        StartupError: a file is missing or no PEM.
    """
    files = [listener.key_file, listener.cert_file, listener.client_ca_file]
    paths = [path for path in files if path is not None]

    def stamp() -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns for path in paths)

    def load() -> grpc.ServerCertificateConfiguration:
        key, cert, authority = (path.read_bytes() for path in paths)
        if any(b"-----BEGIN" not in text for text in (key, cert, authority)):
            raise StartupError("TLS files: one of them is not PEM")
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=authority)

    try:
        seen = [stamp()]
        first = load()
    except OSError as exc:
        raise StartupError(f"TLS files: {Path(str(exc.filename)).name}: {exc.strerror}") from None

    def follow() -> grpc.ServerCertificateConfiguration | None:
        """Called by grpc at each handshake; None means "as before"."""
        try:
            now = stamp()
            if now == seen[0]:
                return None
            fresh = load()
        except (OSError, StartupError):  # half-written: keep the old one, look again at the next handshake
            log.warning("TLS files cannot be read; the old ones stay")
            return None
        seen[0] = now
        return fresh

    # The stubs do not know that None means "as before"; grpc's documentation does.
    fetcher = cast("Callable[[], grpc.ServerCertificateConfiguration]", follow)
    return grpc.dynamic_ssl_server_credentials(first, fetcher, require_client_authentication=True)


def authorities_of(listener: ListenerSettings) -> Authorities | None:
    """Gives the port's authorities as their file says at each call; TLS asks only at the handshake (T7)."""
    return Authorities(listener.client_ca_file) if listener.client_ca_file else None


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # ships no types
    """The standard service; a client that watches does not hold up the end."""

    def __init__(self) -> None:
        super().__init__()
        self._ending = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the contract's name
        """Tells each change until the client goes or the server ends."""
        tasks = {
            asyncio.create_task(super().Watch(request, context)),
            asyncio.create_task(self._ending.wait()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(Exception):
                await asyncio.gather(*tasks, return_exceptions=True)

    def end(self) -> None:
        """Ends all watches."""
        self._ending.set()


class _Others(grpc.GenericRpcHandler):
    """Answers unknown methods as forbidden ones: an administrator's port names nothing (E6)."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def service(self, details: grpc.HandlerCallDetails) -> Handler | None:
        method = details.method or ""
        return None if method.startswith("/grpc.") else self._handler


class Port:
    """A listener with its services."""

    def __init__(self, role: str, listener: ListenerSettings, chain: Chain, *, shared: bool = False) -> None:
        """Takes its role, address and files, and the chain that every call passes."""
        self._role = role
        self._listener = listener
        self._chain = chain
        self._server = grpc.aio.server(options=options(role, shared=shared))
        self._health = _Health()
        self._services: set[str] = set()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def add(
        self,
        unary: Iterable[Method[Any, Any]],
        streams: Iterable[Method[Any, Any]] = (),
        streamed: Iterable[StreamedMethod[Any, Any]] = (),
    ) -> None:
        """Registers methods by their exact names.

        Args:
            unary: one message in, one out.
            streams: a stream in.
            streamed: a stream out.
        """
        by_service: dict[str, dict[str, Handler]] = {}
        handlers = [(m.name, self._chain.unary(m)) for m in unary]
        handlers += [(m.name, self._chain.client_stream(m)) for m in streams]
        handlers += [(m.name, self._chain.server_stream(m)) for m in streamed]
        for full_name, handler in handlers:
            _, service, name = full_name.split("/")
            by_service.setdefault(service, {})[name] = handler
        for service, table in by_service.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, table),))
            self._services.add(service)

    def add_reflection(self) -> None:
        """Lets callers list the services; off in production."""
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    def deny_others(self, method: Method[Any, Any]) -> None:
        """Answers every unknown method as `method` would; register it last."""
        self._server.add_generic_rpc_handlers((_Others(self._chain.unary(method)),))

    async def start(self) -> int:
        """Binds and listens; not serving until `set_ready` says so.

        Raises:
            StartupError: the port is taken or the TLS files are wrong.
        """
        await self.set_ready(ready=False)
        address = f"{self._listener.host}:{self._listener.port}"
        try:
            port = self._server.add_secure_port(address, credentials(self._listener))
        except RuntimeError:
            raise StartupError(
                f"{self._role} port: {address} cannot be bound; is another process on it?"
            ) from None
        await self._server.start()
        return port

    async def set_ready(self, *, ready: bool) -> None:
        """Says over the standard health service whether calls make sense."""
        status = (
            health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._services):
            await self._health.set(name, status)

    async def drain(self, seconds: float) -> None:
        """Takes no new calls, lets those under way finish for some seconds, then ends them."""
        self._chain.draining = True
        await self.set_ready(ready=False)
        self._health.end()
        began = time.monotonic()
        await self._server.stop(seconds)
        log.info("port drained", extra={"seconds": round(time.monotonic() - began, 3)})


def registered(*methods: Sequence[AnyMethod]) -> tuple[str, ...]:
    """Gives the full names of methods."""
    return tuple(method.name for some in methods for method in some)
