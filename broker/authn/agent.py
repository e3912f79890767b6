"""From an `authorization` entry to an agent: an OIDC access token of a configured issuer (RFC 9068).

Invariants:
- exactly one entry, one scheme, one space, one token;
- the issuer is chosen among those in the settings by equality; what it may send stands in its block;
- a token's signature is checked once, everything that time or the issuer can change on every call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from broker import jose
from broker.authn.jwks import KeySource
from broker.errors import StartupError, TokenInvalidError
from broker.model import Agent, Principal
from broker.settings import IssuerSettings

MAX_SUBJECT = 255
"""Longest `sub` in characters (OpenID Connect Core, 2)."""

_BEARER = re.compile(r"(?i:bearer) ([A-Za-z0-9._-]+)")
_LONGEST_ENTRY = jose.MAX_TOKEN_BYTES + len("bearer ")


Block = TypeVar("Block", bound=IssuerSettings)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A token whose signature and form were good; its times are checked again on every use."""

    principal: Principal
    issuer: str
    begins: float  # POSIX seconds


class TokenVerifier(Generic[Block]):
    """Turns access tokens into principals."""

    def __init__(
        self,
        issuers: Sequence[Block],
        sources: Mapping[str, KeySource],
        clock: Callable[[], float],
        check: Callable[[jose.Claims, Principal, Block], None] = lambda _claims, _principal, _block: None,
    ) -> None:
        """Takes what tokens are held against.

        Args:
            issuers: the blocks of the settings.
            sources: where the keys of each issuer come from, by its `iss`.
            clock: POSIX seconds.
            check: what else this kind of caller's tokens must say; raises TokenInvalidError.

        Raises:
            StartupError: two blocks for one issuer, a block that accepts what none may, or no keys.
        """
        for settings in issuers:
            _check_block(settings)
            if settings.issuer not in sources:
                raise StartupError(f"issuers: {settings.issuer!r} has no key source")
        self._issuers = {settings.issuer: settings for settings in issuers}
        if len(self._issuers) != len(issuers) or not issuers:
            raise StartupError("issuers: give each issuer exactly one block, and at least one issuer")
        self._sources = sources
        self._clock = clock
        self._check_more = check
        self._verified: jose.VerifiedCache[_Checked] = jose.VerifiedCache(
            lambda key, checked: self._sources[checked.issuer].current().holds(key)
        )

    async def verify(self, authorization: Sequence[str]) -> Principal:
        """Gives the agent that the call's access token names.

        Args:
            authorization: every value of the `authorization` metadata key, in order.

        Raises:
            TokenInvalidError: there is not exactly one good token.
            KeysUnavailableError: the issuer's keys are not to be had.
        """
        if len(authorization) != 1:
            raise TokenInvalidError(cause="not exactly one authorization entry")
        (entry,) = authorization
        checked = self._verified.get(entry)
        if checked is None:
            checked = await self._check(entry)
        principal = checked.principal
        jose.check_window(self._clock(), begins=checked.begins, expires=principal.expire_time)
        return principal

    async def _check(self, entry: str) -> _Checked:
        unverified = jose.peek(_bearer(entry))
        settings = self._issuers.get(unverified.issuer or "")
        if settings is None:
            raise TokenInvalidError(cause="iss is not accepted")
        keys = await self._sources[settings.issuer].for_kid(unverified.kid)
        verified = unverified.verify(
            keys=keys,
            algorithms=settings.algorithms,
            types=settings.token_types,
            extra_headers=settings.extra_headers,
        )
        checked = self._read(verified.claims, settings)
        self._verified.put(entry, verified.key, checked)
        return checked

    def _read(self, claims: jose.Claims, settings: Block) -> _Checked:
        claims.check_issuer(settings.issuer)
        claims.check_audience(settings.audience, listed=settings.audience_list)
        expires = claims.check_times(self._clock(), max_age=settings.max_age)
        claims.optional_text("jti")
        principal = Principal(
            agent=Agent(settings.issuer, claims.text("sub", max_length=MAX_SUBJECT)),
            groups=frozenset(claims.optional_texts(settings.groups_claim)),
            client_id=claims.text(settings.client_id_claim),
            expire_time=float(expires),
        )
        self._check_more(claims, principal, settings)
        begins = max(claims.instant("iat"), claims.instant("nbf") if "nbf" in claims else 0)
        return _Checked(principal, settings.issuer, float(begins))


class AgentVerifier(TokenVerifier[IssuerSettings]):
    """Turns agents' access tokens into principals."""


def _bearer(entry: str) -> str:
    if len(entry) > _LONGEST_ENTRY:
        raise TokenInvalidError(cause="authorization entry is too long")
    match = _BEARER.fullmatch(entry)
    if match is None:
        raise TokenInvalidError(cause="authorization entry is not one bearer token")
    return match.group(1)


def _check_block(settings: IssuerSettings) -> None:
    if "|" in settings.issuer:
        raise StartupError("issuers: '|' separates issuer and subject; an issuer cannot hold it")
    forbidden = jose.FORBIDDEN_HEADERS.intersection(settings.extra_headers)
    if forbidden:
        raise StartupError(f"issuers: extra_headers may not hold {sorted(forbidden)}")
