"""Where an issuer's keys come from: a file, or an https address; both from the settings alone.

Invariants:
- no token chooses an address, and no answer does: redirects are not followed, proxies not asked;
- a fetch runs in a thread, one at a time per issuer, at most one per `MIN_INTERVAL` whoever asks for
  whatever `kid`: tokens with invented ids cost the issuer nothing (J6);
- the last good keys serve while the issuer is down, for `KEEP`, and no longer: by then it may have
  wanted to take one away.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from broker import jose
from broker.errors import KeysUnavailableError, StartupError
from broker.jose.keyset import MAX_JWKS_BYTES
from broker.settings import IssuerSettings

TIMEOUT = 3.0
"""Seconds for a fetch; a call waits for it at most once, and its own deadline is longer."""

REFRESH_INTERVAL = 300.0
"""Seconds between fetches while nobody asks: a key taken away by the issuer is gone after this."""

MIN_INTERVAL = 30.0
"""Least seconds between two fetches, good or bad; for that long, an unknown `kid` is just unknown."""

KEEP = 12 * 3600.0
"""Seconds that the last good keys serve while the issuer does not answer."""


class KeySource(Protocol):
    """The keys of one issuer."""

    def current(self) -> jose.KeySet:
        """Gives the keys known now, at once.

        Raises:
            KeysUnavailableError: there are none, or they are too old.
        """

    async def for_kid(self, kid: str) -> jose.KeySet:
        """Gives the keys, after looking for news where `kid` is not among them.

        Raises:
            KeysUnavailableError: there are none, or they are too old.
        """

    async def start(self) -> None:
        """Gets the keys for the first time; never raises, `trouble` says whether it worked."""

    async def close(self) -> None:
        """Ends what runs in the background."""

    def trouble(self) -> str:
        """Says what is wrong with the source as it is now; "" where nothing is."""


class FileKeys:
    """Keys in a file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            StartupError: there is no good key set in it.
        """
        self._file = jose.KeyFile(path)

    def current(self) -> jose.KeySet:
        """Gives the keys of the file."""
        return self._file.current()

    async def for_kid(self, kid: str) -> jose.KeySet:  # noqa: ARG002 - the file is always looked at
        """Gives the keys of the file."""
        return self._file.current()

    async def start(self) -> None:
        """Does nothing: the constructor read the file."""

    async def close(self) -> None:
        """Does nothing."""

    def trouble(self) -> str:
        """Looks at the file; says what is wrong with it, or ""."""
        return self._file.trouble()


class HttpsKeys:
    """Keys behind an https address, fetched beside the event loop.

    State belongs to the event loop; the thread only returns text.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path | None = None,
        steady: Callable[[], float] = time.monotonic,
        timeout: float = TIMEOUT,
    ) -> None:
        """Takes the address; nothing is fetched before `start`.

        Args:
            url: https, with a host, without user.
            ca_file: the server's authority; the system's authorities by default.
            steady: seconds that only count up.
            timeout: seconds for a fetch.

        Raises:
            StartupError: the address or the authority is no good.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.fragment:
            raise StartupError("jwks_url: must be https://host/path, without user and fragment")
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as exc:
            raise StartupError(f"jwks_ca_file: {ca_file}: {type(exc).__name__}") from exc
        self._url = url
        self._host = parts.hostname
        self._timeout = timeout
        self._steady = steady
        self._opener = urllib.request.OpenerDirector()  # put together by hand: https, and nothing else
        for handler in (
            urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            self._opener.add_handler(handler)
        self._keys: jose.KeySet | None = None
        self._good_time = 0.0
        self._tried_time: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self.error = "keys were not fetched yet"

    def current(self) -> jose.KeySet:
        """Gives the keys fetched last."""
        if self._keys is None or self._steady() - self._good_time > KEEP:
            raise KeysUnavailableError(cause=self.error or "keys are too old")
        return self._keys

    async def for_kid(self, kid: str) -> jose.KeySet:
        """Gives the keys; fetches where `kid` is new and the last fetch is long enough ago."""
        if self._keys is None or self._keys.get(kid) is None:
            await self._fetch_unless_recent()
        return self.current()

    async def start(self) -> None:
        """Fetches the keys and goes on refreshing them in the background."""
        await self._fetch_unless_recent()
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh_for_ever(), name="jwks-refresh")

    def trouble(self) -> str:
        """Says how the last fetch failed, or ""."""
        return f"{self._host}: {self.error}" if self.error else ""

    async def close(self) -> None:
        """Stops refreshing; a fetch under way ends by its timeout."""
        tasks = [task for task in (self._refreshing, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._refreshing = self._fetching = None

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(MIN_INTERVAL if self.error else REFRESH_INTERVAL)
            await self._fetch_unless_recent()

    async def _fetch_unless_recent(self) -> None:
        """Fetches, or waits for the fetch under way; a waiter who goes away does not end it."""
        if self._fetching is None:
            if self._tried_time is not None and self._steady() - self._tried_time < MIN_INTERVAL:
                return
            self._tried_time = self._steady()
            self._fetching = asyncio.create_task(self._fetch(), name="jwks-fetch")
            self._fetching.add_done_callback(self._forget_fetch)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._fetching), self._timeout)

    def _forget_fetch(self, task: asyncio.Task[None]) -> None:
        if self._fetching is task:
            self._fetching = None

    async def _fetch(self) -> None:
        """Replaces the keys by what the issuer says now; on any fault they stay."""
        try:
            text = await asyncio.to_thread(self._download)
            self._keys = jose.KeySet.from_jwks(text)
        except (OSError, HTTPException, ValueError) as exc:
            self.error = f"issuer's keys could not be fetched: {type(exc).__name__}"
        except jose.KeySetInvalidError as exc:
            self.error = f"issuer's keys are not accepted: {exc}"
        else:
            self._good_time = self._steady()
            self.error = ""

    def _download(self) -> bytes:
        """Reads the address; in a thread, bounded in time and size."""
        deadline = time.monotonic() + self._timeout
        request = urllib.request.Request(self._url, headers={"Accept": "application/json"})  # noqa: S310 - https
        with self._opener.open(request, timeout=self._timeout) as response:
            parts: list[bytes] = []
            size = 0
            while part := response.read1(65536):
                size += len(part)
                if size > MAX_JWKS_BYTES or time.monotonic() > deadline:
                    raise OSError("the answer is too long or too slow")
                parts.append(part)
            return b"".join(parts)


def open_sources(issuers: Sequence[IssuerSettings]) -> dict[str, KeySource]:
    """Makes the key source of each issuer; `start` them before the broker says it is ready.

    Raises:
        StartupError: a file, address or authority is no good.
    """
    sources: dict[str, KeySource] = {}
    for settings in issuers:
        if settings.jwks_file is not None:
            sources[settings.issuer] = FileKeys(settings.jwks_file)
        else:
            sources[settings.issuer] = HttpsKeys(settings.jwks_url, ca_file=settings.jwks_ca_file)
    return sources
