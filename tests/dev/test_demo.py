"""The demo tells the story, and tells when it goes otherwise."""

from __future__ import annotations

import subprocess
import sys

import pytest

from broker.client import BrokerCallError, PolicyDeniedError, TicketDeniedError, TokenInvalidError
from broker.dev.demo import WrongStoryError, expect, refused
from broker.dev.layout import CHECKOUT


def test_plays_to_its_end() -> None:
    """`python -m broker.dev.demo` ends with 0, shows every step, and leaves no process behind."""
    played = subprocess.run(
        [sys.executable, "-m", "broker.dev.demo"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert played.returncode == 0, played.stdout + played.stderr
    for number in range(1, 13):
        assert f"\n{number}. " in played.stdout
    assert "Every step went as told" in played.stdout
    for word in ("clear", "masked", "needs role billing", "TICKET_DENIED", "TOKEN_INVALID", "BUDGET_EXCEEDED",
                 "AGENT_SUSPENDED", "0 rows", "permission denied", "AccessService/ReadRecord", "6 of 6",
                 "This is evidence, not a verdict", "verify fails and names event"):  # fmt: skip
        assert word in played.stdout, word


async def raises(error: BrokerCallError) -> None:
    raise error


async def answers() -> None:
    pass


class TestRefused:
    async def test_gives_the_refusal_that_was_due(self):
        """The refusal is shown as it came."""
        error = TicketDeniedError("no", code="PERMISSION_DENIED", reason="TICKET_DENIED")

        assert await refused(raises(error), TicketDeniedError) is error

    async def test_does_not_take_an_answer_for_a_refusal(self):
        """A read that succeeds where it must not ends the story."""
        with pytest.raises(WrongStoryError):
            await refused(answers(), TokenInvalidError)

    async def test_does_not_take_one_refusal_for_another(self):
        """Refused for another reason is another story."""
        error = PolicyDeniedError("no", code="PERMISSION_DENIED", reason="POLICY_DENIED")
        with pytest.raises(WrongStoryError, match="POLICY_DENIED"):
            await refused(raises(error), TicketDeniedError)

    def test_expect_ends_the_story(self):
        """A claim that does not hold is the end."""
        expect(True, "never")
        with pytest.raises(WrongStoryError, match="otherwise"):
            expect(False, "otherwise")
