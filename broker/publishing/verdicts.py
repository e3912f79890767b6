"""What the database says of a proposal, as refusals."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from broker.errors import (
    BrokerError,
    NotAuthorError,
    ProposalDigestError,
    ProposalEndedError,
    ProposalNotFoundError,
    ProposalOvertakenError,
    ProposalsFullError,
    SecondPersonError,
)

REFUSALS: Mapping[str, type[BrokerError]] = MappingProxyType(
    {
        "unknown": ProposalNotFoundError,
        "overtaken": ProposalOvertakenError,
        "digest": ProposalDigestError,
        "full": ProposalsFullError,
        "self": SecondPersonError,
        "widens": SecondPersonError,
        "not-author": NotAuthorError,
    }
)
"""What the database says, but for the states of a proposal that has ended."""


def refusal(verdict: str) -> BrokerError:
    """Makes a refusal of what the database said."""
    if kind := REFUSALS.get(verdict):
        return kind(cause=verdict)
    return ProposalEndedError(cause=verdict, metadata={"state": verdict})
