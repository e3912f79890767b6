"""What people type as times, and what they are told when it is none."""

from datetime import UTC, datetime, timedelta

import pytest

from broker.cli.policy.replay import moment, most
from tests.policy.sample import POLICIES

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", NOW - timedelta(days=30)),
        ("12h", NOW - timedelta(hours=12)),
        ("45m", NOW - timedelta(minutes=45)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T08:30+01:00", datetime(2026, 11, 1, 7, 30, tzinfo=UTC)),
    ],
)
def test_times(text, expected):
    """How long ago, or when; without a zone it is UTC."""
    assert moment(text, "--since", NOW) == expected


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--since", "yesterday"), "--since takes 30d"),
        (("--since", "1h", "--until", "2h"), "--since must lie before --until"),
    ],
)
def test_wrong_times_are_wrong_usage(broker, options, sentence):
    """What is not a time ends with exit code 2 and says what is."""
    said = broker("policy", "replay", POLICIES, *options)

    assert said.code == 2
    assert sentence in said.err


def test_a_replay_without_a_database_says_what_is_missing(broker, monkeypatch):
    """Without its setting the verb ends with exit code 2 and names it."""
    monkeypatch.delenv("BROKER_ADMIN_DSN", raising=False)
    monkeypatch.delenv("BROKER_CONFIG", raising=False)
    said = broker("policy", "replay", POLICIES)

    assert said.code == 2
    assert "BROKER_ADMIN_DSN" in said.err
    version = broker("policy", "replay", "1")
    assert (version.code, "version 1 is the broker's" in version.err) == (2, True)


def test_the_most_frequent_are_named_and_the_others_counted():
    """Agents go by their subject; who is not named is still counted."""
    counts = {"https://idp|ann": 1200, "https://idp|bob": 3, "https://idp|eve": 2, "https://idp|joe": 1}

    assert most(counts, 7) == "ann 1,200, bob 3, eve 2 and 4 more"
