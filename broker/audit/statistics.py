"""Exact tails and their correction; pure, and small enough to be checked by hand.

Invariants:
- a tail is a sum of positive terms, never one minus something: a chance of 1e-30 is as exact as one of 0.3;
- a correction holds whatever hangs together with whatever, and spends what it spends before the data is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, fsum, lgamma, log


def log_choose(n: int, k: int) -> float:
    """Gives the logarithm of n over k."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def hypergeometric(population: int, marked: int, drawn: int) -> list[float]:
    """Gives the chances of 0, 1, … `drawn` marked ones among `drawn` of a population, without putting back.

    Raises:
        ValueError: more are marked or drawn than there are.
    """
    if not (0 <= marked <= population and 0 <= drawn <= population):
        raise ValueError("no such population")
    if drawn == 1:  # the usual case, and exact without a logarithm
        return [1 - marked / population, marked / population]
    whole = log_choose(population, drawn)
    return [
        exp(log_choose(marked, k) + log_choose(population - marked, drawn - k) - whole)
        if k <= marked and drawn - k <= population - marked
        else 0.0
        for k in range(drawn + 1)
    ]


def upper_tail(parts: Sequence[Sequence[float]], at_least: int) -> float:
    """Gives the chance that independent counts add up to `at_least` or more.

    Args:
        parts: for each count the chances of 0, 1, 2, …
        at_least: where the tail begins.
    """
    if at_least <= 0:
        return 1.0
    # state[k]: chance of k so far; the last one is "enough" and is never left
    state = [1.0] + [0.0] * at_least
    for part in parts:
        after = [0.0] * (at_least + 1)
        for have, chance in enumerate(state):
            if chance:
                for more, weight in enumerate(part):
                    after[min(have + more, at_least)] += chance * weight
        state = after
    return min(state[-1], 1.0)


def holm(p_values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Corrects p-values for their number, step by step downwards, by weights that were fixed beforehand.

    Rejecting what is at most alpha here names one or more that should not be named with a chance of alpha
    at most, however the tests hang together (Holm 1979, weighted). Weights that add up to less than one
    leave room for tests that were not made.

    Raises:
        ValueError: a weight is not positive, or they add up to more than one.
    """
    if len(p_values) != len(weights) or any(w <= 0 for w in weights) or fsum(weights) > 1 + 1e-9:
        raise ValueError("weights are positive, one a test, and add up to one at most")
    order = sorted(range(len(p_values)), key=lambda i: p_values[i] / weights[i])
    corrected = [1.0] * len(p_values)
    spent, highest = 0.0, 0.0
    for i in order:
        # what was rejected before frees its weight; weight of tests not made is never freed
        highest = max(highest, p_values[i] * (1.0 - spent) / weights[i])
        corrected[i] = min(1.0, highest)
        spent += weights[i]
    return corrected


def odds_weights(population: int, marked: int, drawn: int) -> tuple[int, list[float]]:
    """Gives the lowest possible count and the logarithms of the hypergeometric's terms from there on."""
    low, high = max(0, drawn + marked - population), min(marked, drawn)
    return low, [
        log_choose(marked, k) + log_choose(population - marked, drawn - k) for k in range(low, high + 1)
    ]


def log_evidence(population: int, marked: int, drawn: int, found: int, odds: Sequence[float]) -> list[float]:
    """Gives for each odds ratio the logarithm of the chance of what was found (Fisher's noncentral one).

    The chance that `found` of the `marked` are among the `drawn`, given all three totals, when being marked
    is `odds` times as likely, in odds, for those who are drawn.
    """
    low, terms = odds_weights(population, marked, drawn)
    result = []
    for ratio in odds:
        slope = log(ratio)
        tilted = [term + k * slope for k, term in enumerate(terms, low)]
        top = max(tilted)
        whole = top + log(fsum(exp(t - top) for t in tilted))
        result.append(tilted[found - low] - whole)
    return result
