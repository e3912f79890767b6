"""Per-peer limits of our own: grpc's global limit alone is an outage tool (one peer holds all slots)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from broker.errors import RateLimitedError

MOST_PEERS = 10_000
"""Peers remembered; a peer is a certificate of our authority, so there are a few dozen in practice."""


@dataclass(slots=True)
class _Peer:
    tokens: float
    last: float
    under_way: int = 0


class PeerLimits:
    """A token bucket and a concurrency limit per peer."""

    def __init__(self, *, rate: float, concurrency: int, clock: Callable[[], float]) -> None:
        """Takes calls a second (one second's worth may burst), calls under way, a monotonic clock."""
        self._rate = rate
        self._concurrency = concurrency
        self._clock = clock
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()

    def enter(self, peer: bytes) -> None:
        """Lets a call begin.

        Raises:
            RateLimitedError: the peer has used up its rate or its places.
        """
        now = self._clock()
        state = self._peers.get(peer)
        if state is None:
            state = self._peers[peer] = _Peer(self._rate, now)
            if len(self._peers) > MOST_PEERS:
                self._peers.popitem(last=False)
        state.tokens = min(self._rate, state.tokens + (now - state.last) * self._rate)
        state.last = now
        if state.tokens < 1 or state.under_way >= self._concurrency:
            raise RateLimitedError(cause="rate" if state.tokens < 1 else "concurrency")
        state.tokens -= 1
        state.under_way += 1

    def leave(self, peer: bytes) -> None:
        """Lets a call end."""
        state = self._peers.get(peer)
        if state is not None:
            state.under_way = max(state.under_way - 1, 0)  # it may have been forgotten meanwhile
