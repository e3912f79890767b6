"""From an `authorization` entry to a person who administers: an OIDC access token of a human being.

Invariants:
- administrators' issuers are a list of their own, with audiences of their own: no agent's token counts;
- a machine is no person: a token whose `sub` is its client (RFC 9068, 2.2) is refused, and one that its
  issuer's own claim does not call a person's; only an issuer that gives machines no such token has no claim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from broker import jose
from broker.authn.agent import TokenVerifier
from broker.authn.jwks import KeySource
from broker.errors import TokenInvalidError
from broker.model import Principal
from broker.settings import AdminIssuerSettings


class PersonVerifier(TokenVerifier[AdminIssuerSettings]):
    """Turns administrators' access tokens into principals that are persons."""

    def __init__(
        self,
        issuers: Sequence[AdminIssuerSettings],
        sources: Mapping[str, KeySource],
        clock: Callable[[], float],
    ) -> None:
        """Takes what tokens are held against, as `TokenVerifier` does."""
        super().__init__(issuers, sources, clock, check_person)


def check_person(claims: jose.Claims, principal: Principal, block: AdminIssuerSettings) -> None:
    """Refuses a machine's token.

    Raises:
        TokenInvalidError: its subject is its client, or its issuer's claim does not say "person".
    """
    if principal.agent.subject == principal.client_id:
        raise TokenInvalidError(cause="sub is the client: a machine, not a person")
    if block.person_claim and claims.text(block.person_claim) not in block.person_values:
        raise TokenInvalidError(cause="the issuer does not call it a person's")
