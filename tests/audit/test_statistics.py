"""Tails and corrections against what can be counted out."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from math import comb, exp, fsum, isclose

import pytest

from broker.audit.statistics import holm, hypergeometric, log_evidence, upper_tail


@pytest.mark.parametrize(
    ("population", "marked", "drawn"), [(10, 3, 4), (10, 0, 3), (10, 10, 3), (7, 5, 6), (1, 1, 1)]
)
def test_hypergeometric_is_what_counting_gives(population, marked, drawn):
    """The chance of k is the share of all draws that hold k marked ones."""
    draws = list(itertools.combinations(range(population), drawn))
    for k, chance in enumerate(hypergeometric(population, marked, drawn)):
        share = Fraction(sum(sum(i < marked for i in draw) == k for draw in draws), len(draws))
        assert isclose(chance, share, abs_tol=1e-12)


def test_a_tail_is_what_all_outcomes_add_up_to():
    """A tail of several counts is the sum over every combination that reaches it."""
    parts = [hypergeometric(9, 4, 3), [0.9, 0.1], [0.5, 0.25, 0.25]]
    for at_least in range(8):
        whole = fsum(
            a * b * c
            for (i, a), (j, b), (k, c) in itertools.product(*(enumerate(p) for p in parts))
            if i + j + k >= at_least
        )
        assert isclose(upper_tail(parts, at_least), whole, abs_tol=1e-12)


def test_a_tiny_tail_is_exact():
    """Forty of forty at one in ten is 1e-40, not nought and not the dust of a subtraction."""
    assert isclose(upper_tail([[0.9, 0.1]] * 40, 40), 1e-40, rel_tol=1e-9)
    assert isclose(
        upper_tail([hypergeometric(10**6, 70_000, 5)], 5), comb(70_000, 5) / comb(10**6, 5), rel_tol=1e-6
    )


def test_holm_is_the_textbook_at_even_weights():
    """Sorted p-values times what is left, never falling."""
    found = holm([0.01, 0.04, 0.03, 0.005], [0.25] * 4)
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_never_frees_what_was_not_tested():
    """Where half of the weight is of tests that were not made, the others pay for it to the end."""
    assert holm([1e-4, 1e-3], [0.25, 0.25]) == pytest.approx([4e-4, 3e-3])


@pytest.mark.parametrize("weights", [[0.5], [0.0, 0.5], [0.9, 0.2]])
def test_holm_refuses_weights_that_spend_too_much(weights):
    """Weights are positive, one a test, at most one in all."""
    with pytest.raises(ValueError, match="weights"):
        holm([0.1, 0.2], weights)


def test_holm_names_nobody_too_often():
    """Of 4,000 families without an effect, with uneven weights, at most alpha and its noise are named."""
    rng = random.Random(1)
    weights = [0.4, 0.3, 0.1, 0.1, 0.05]
    wrong = sum(min(holm([rng.random() for _ in weights], weights)) <= 0.05 for _ in range(4000))
    assert wrong / 4000 <= 0.05 + 3 * (0.05 * 0.95 / 4000) ** 0.5


@pytest.mark.parametrize("odds", [1.0, 2.0, 8.0])
def test_evidence_is_a_distribution_and_odds_tilt_it(odds):
    """For each odds the chances add up to one; at odds of one they are the hypergeometric's."""
    chances = [exp(log_evidence(20, 6, 5, k, [odds])[0]) for k in range(6)]
    assert isclose(fsum(chances), 1.0)
    plain = hypergeometric(20, 6, 5)
    tilted = [p * odds**k for k, p in enumerate(plain)]
    assert chances == pytest.approx([t / fsum(tilted) for t in tilted])
