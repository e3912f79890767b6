"""The two verifiers that the attacks on tokens are tried against."""

import pytest

from tests.jose.forge import AgentWorld, GrantWorld


@pytest.fixture(params=[AgentWorld, GrantWorld], ids=["agent", "grant"])
def world(request, tmp_path):
    """Gives the agents' world, then the grants'."""
    return request.param(tmp_path)
