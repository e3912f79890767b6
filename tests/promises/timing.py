"""Tells two sets of timings apart, as somebody would who asks whether a ticket exists."""

from __future__ import annotations

import random
from collections.abc import Sequence


def auc(one: Sequence[float], other: Sequence[float]) -> float:
    """Gives how well "takes longer" tells the two apart, either way round: 0.5 is by chance, 1 is always."""
    ranked = sorted([(t, 0) for t in one] + [(t, 1) for t in other])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which)
    n, m = len(one), len(other)
    found = (ranks - m * (m + 1) / 2) / (n * m)
    return max(found, 1 - found)


def shuffled_rounds(kinds: Sequence[str], rounds: int, seed: int) -> Sequence[str]:
    """Orders the kinds anew in each round, so that whatever the machine does meanwhile befalls all alike."""
    chance = random.Random(seed)
    return [kind for _ in range(rounds) for kind in chance.sample(kinds, len(kinds))]
