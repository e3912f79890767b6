"""One mutual-TLS channel to a broker: deadlines always, retries where a call is safe to repeat.

Invariants:
- every call has a deadline, and its retries share it;
- only UNAVAILABLE is tried again: the broker says that it did nothing, or no broker was reached;
- one try is one call of the stub: grpc's own hidden retries are off.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar

import grpc

from broker.client.errors import ClientError, from_rpc

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
Request_contra = TypeVar("Request_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)

DEFAULT_TIMEOUT = 5.0
"""Seconds a call may take where the caller says nothing; the broker's own cap is the same."""

MOST_TRIES = 4
FIRST_BACKOFF = 0.1
"""Seconds of the first pause, doubled each time; each pause is drawn from 0 to its bound, so that
the clients of a broker that comes back do not call in step."""

MOST_MESSAGE = 4 * 1024 * 1024


class Method(Protocol[Request_contra, Answer_co]):
    """One method of a stub."""

    def __call__(
        self, request: Request_contra, *, timeout: float, metadata: Metadata
    ) -> Awaitable[Answer_co]:
        """Calls it."""


class Answers(AsyncIterable[Answer_co], Protocol[Answer_co]):
    """The parts of an answer, as they come."""

    def cancel(self) -> bool:
        """Ends the call where it has not ended."""


class StreamedMethod(Protocol[Request_contra, Answer_co]):
    """One method of a stub that answers in parts."""

    def __call__(self, request: Request_contra, *, timeout: float, metadata: Metadata) -> Answers[Answer_co]:
        """Calls it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The tool's side of mutual TLS, as PEM files."""

    ca_file: Path
    cert_file: Path
    key_file: Path


class BrokerChannel:
    """The channel, and the one place where a call is made."""

    def __init__(
        self,
        target: str,
        identity: Identity,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        server_name: str = "",
        uniform: Callable[[float, float], float] = random.uniform,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Takes where to and as whom.

        Args:
            target: `host:port`.
            identity: the tool's certificate, its key, and the authority of the broker's certificate.
            timeout: seconds a call may take, retries included.
            server_name: name in the broker's certificate where it differs from the target's host.
            uniform: draws the length of a pause.
            pause: waits between two tries.
        """
        self._target = target
        self._identity = identity
        self._timeout = timeout
        self._server_name = server_name
        self._uniform = uniform
        self._pause = pause
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        """Reads the PEM files and opens the channel; the first call connects."""
        try:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=self._identity.ca_file.read_bytes(),
                private_key=self._identity.key_file.read_bytes(),
                certificate_chain=self._identity.cert_file.read_bytes(),
            )
        except OSError as exc:
            raise ClientError(f"TLS file {exc.filename!r} cannot be read") from None
        options: list[tuple[str, str | int]] = [
            ("grpc.enable_retries", 0),
            ("grpc.max_receive_message_length", MOST_MESSAGE),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            # A pool of connections shared between clients would share nothing but trouble here:
            # two agents' tools in one process are two identities.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self._server_name:
            options.append(("grpc.ssl_target_name_override", self._server_name))
        self._channel = grpc.aio.secure_channel(self._target, credentials, options=options)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the channel; calls under way are cancelled."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    @property
    def grpc_channel(self) -> grpc.aio.Channel:
        """Gives the open channel, for stubs."""
        if self._channel is None:
            raise ClientError("the client is not open; use it as `async with BrokerClient(…) as client:`")
        return self._channel

    async def call(
        self,
        attempt: Callable[[float], Awaitable[T]],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it becomes the call's deadline on the wire
        safe: bool = True,
    ) -> T:
        """Makes a call within one deadline.

        Args:
            attempt: makes one try, given the seconds that are left.
            timeout: seconds for all tries; default: the channel's.
            safe: whether the call may be repeated.

        Raises:
            BrokerCallError: typed by reason or code.
        """
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        bound = FIRST_BACKOFF
        for tries_left in reversed(range(MOST_TRIES if safe else 1)):
            try:
                return await attempt(max(end - time.monotonic(), 0.001))
            except grpc.aio.AioRpcError as exc:
                error = from_rpc(exc)
                wait = self._uniform(0, bound)
                out_of_time = time.monotonic() + wait >= end
                if error.code != "UNAVAILABLE" or not tries_left or out_of_time:
                    raise error from None
                await self._pause(wait)
                bound *= 2
        raise AssertionError("the last try returns or raises")
