"""Words of requests against the words that policies and helpdesks may use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import RequestMalformedError
from broker.policy.lines import NAME
from broker.rpc.checks import word
from broker.tickets.words import KIND


@given(st.from_regex(NAME, fullmatch=True) | st.from_regex(KIND, fullmatch=True))
def test_whatever_a_policy_may_name_can_be_asked_for(name):
    """A purpose, role or kind that passes the policy's examination is no malformed request."""
    assert word(name, "purpose") == name


@pytest.mark.parametrize("text", ["", "_a", "-a", "1a", "A", "a.b", "a b", "a\n", "\u00e4", "a" * 65])
def test_what_is_no_word_is_malformed(text):
    """Case, length, dots, spaces and other letters."""
    with pytest.raises(RequestMalformedError):
        word(text, "purpose")
