"""Grant tokens: what a grant says, signed, for one tool and one agent.

Invariants:
- a token says exactly what the grant's row says, and no personal data: the ticket, never the customer;
- it is worth nothing apart from the tool's TLS key (`cnf`), the tool (`act`), the agent (`sub`) and
  the audience (`aud`): all four are compared on every use, and so are its times;
- only its signature is remembered, until the key that signed it goes;
- whether the grant still stands is not in here: that is the database's to say, by `jti`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from broker import jose
from broker.errors import RequestMalformedError, TokenInvalidError
from broker.keys import ALGORITHM, SigningKeys, compact_length
from broker.model import Agent, Grant, Level, Tool

TYP: Final = "broker-grant+jwt"
"""`typ` of a grant, so that no other token of ours or of an issuer passes for one (RFC 8725, 3.11)."""

HEADER: Final = {"typ": TYP}

DETAIL_TYPE: Final = "broker_record_read"
"""`type` of the one entry of `authorization_details` (RFC 9396)."""

LONGEST = 3600.0
"""Seconds; no setting allows a longer grant, so no longer token is ours."""

FRAME: Final = 1024
"""Characters of a token beside its texts, at most: names, numbers, header, signature."""

LEVEL: Final = 12
"""Characters that a field's level takes, with all that is around it."""

# Claims, in the order in which they are written.
ISSUER: Final = "iss"
AUDIENCE: Final = "aud"
SUBJECT: Final = "sub"  # `issuer|subject`: unique among our subjects, as RFC 7519 asks
SUBJECT_ID: Final = "sub_id"  # the same, in two members (RFC 9493, format iss_sub)
ACTOR: Final = "act"  # the tool that acts for the agent (RFC 8693)
CONFIRMATION: Final = "cnf"  # the tool's certificate (RFC 8705)
JWT_ID: Final = "jti"  # the grant's id; revocation is by it, never by the token's text
ISSUED: Final = "iat"
NOT_BEFORE: Final = "nbf"
EXPIRES: Final = "exp"
DETAILS: Final = "authorization_details"
POLICY_VERSION: Final = "policy_version"
CLAIMS: Final = (
    ISSUER, AUDIENCE, SUBJECT, SUBJECT_ID, ACTOR, CONFIRMATION, JWT_ID,
    ISSUED, NOT_BEFORE, EXPIRES, DETAILS, POLICY_VERSION,
)  # fmt: skip

# Members of those claims that are objects.
SUBJECT_FORMAT: Final = "format"
ISS_SUB: Final = "iss_sub"
THUMBPRINT: Final = "x5t#S256"
DETAIL_KIND: Final = "type"
TICKET: Final = "ticket"
PURPOSE: Final = "purpose"
FIELDS: Final = "fields"


@dataclass(frozen=True, slots=True)
class GrantClaims:
    """What a verified grant token says."""

    grant_id: UUID
    agent: Agent
    tool_identity: str
    tool_thumbprint: str
    ticket_id: str
    purpose: str
    levels: Mapping[str, Level]
    audience: str
    policy_version: str
    begin_time: float  # POSIX seconds
    expire_time: float  # POSIX seconds

    def check(self, now: float, *, tool: Tool, agent: Agent, audience: str) -> None:
        """Refuses the grant for anybody and any time but those it was made for.

        Raises:
            TokenInvalidError: it is expired or not yet valid, or made for another tool, TLS key, agent
                or audience.
        """
        jose.check_window(now, begins=self.begin_time, expires=self.expire_time)
        if self.tool_identity != tool.identity:
            raise TokenInvalidError(cause="grant of another tool")
        if self.tool_thumbprint != tool.thumbprint:
            raise TokenInvalidError(cause="grant bound to another certificate")
        if self.agent != agent:
            raise TokenInvalidError(cause="grant of another agent")
        if self.audience != audience:
            raise TokenInvalidError(cause="grant for another audience")


class GrantTokens:
    """Mints and verifies grant tokens."""

    def __init__(self, keys: SigningKeys, issuer: str, clock: Callable[[], float]) -> None:
        """Takes what it works with.

        Args:
            keys: sign, and verify what they signed.
            issuer: `iss` of our grants.
            clock: POSIX seconds.
        """
        self._keys = keys
        self._issuer = issuer
        self._clock = clock
        self._verified: jose.VerifiedCache[GrantClaims] = jose.VerifiedCache(
            lambda key, _claims: self._keys.verifying().holds(key)
        )

    def check_length(self, grant: Grant) -> None:
        """Refuses a grant that is yet to be made, before anything says that it was.

        Args:
            grant: as it is going to be; of its times only the number of digits counts.

        Raises:
            RequestMalformedError: it names so many fields that no request could carry its token.
        """
        said = "".join((
            self._issuer, grant.audience, *2 * (grant.agent.issuer, grant.agent.subject), grant.tool_identity,
            grant.tool_thumbprint, grant.ticket_id, grant.purpose, grant.policy_version, *grant.levels,
        ))  # fmt: skip
        # Most are far below: to encode every grant's claims twice would be a fifth of its time in here.
        # A printable character is two in JSON at most, as quotation marks are, and a third more in base64.
        longest = (len(said) + LEVEL * len(grant.levels)) * 8 // 3 + FRAME
        if longest <= jose.MAX_TOKEN_BYTES and said.isascii() and said.isprintable():
            return
        if compact_length(HEADER, self._claims(grant)) > jose.MAX_TOKEN_BYTES:
            raise RequestMalformedError(field="fields", cause="grant token would be too long")

    def mint(self, grant: Grant) -> str:
        """Signs a grant."""
        return self._keys.sign(HEADER, self._claims(grant))

    def _claims(self, grant: Grant) -> dict[str, object]:
        issued = int(grant.create_time.timestamp())
        return {
            ISSUER: self._issuer,
            AUDIENCE: grant.audience,
            SUBJECT: grant.agent.key,
            SUBJECT_ID: {
                SUBJECT_FORMAT: ISS_SUB,
                ISSUER: grant.agent.issuer,
                SUBJECT: grant.agent.subject,
            },
            ACTOR: {SUBJECT: grant.tool_identity},
            CONFIRMATION: {THUMBPRINT: grant.tool_thumbprint},
            JWT_ID: str(grant.grant_id),
            ISSUED: issued,
            NOT_BEFORE: issued,
            EXPIRES: int(grant.expire_time.timestamp()),
            DETAILS: [
                {
                    DETAIL_KIND: DETAIL_TYPE,
                    TICKET: grant.ticket_id,
                    PURPOSE: grant.purpose,
                    FIELDS: {name: level.value for name, level in grant.levels.items()},
                }
            ],
            POLICY_VERSION: grant.policy_version,
        }

    def verify(self, token: str, *, tool: Tool, agent: Agent, audience: str) -> GrantClaims:
        """Gives what the grant says, to the one it was made for.

        Args:
            token: the grant's text.
            tool: who is at the other end of the connection.
            agent: whom the access token beside it names.
            audience: who we are.

        Raises:
            TokenInvalidError: it is not a grant of ours for this tool, agent, audience and time.
        """
        claims = self.read(token)
        claims.check(self._clock(), tool=tool, agent=agent, audience=audience)
        return claims

    def read(self, token: str) -> GrantClaims:
        """Gives what a token of ours says, whoever holds it and whatever the time: never enough to act on.

        Raises:
            TokenInvalidError: we did not sign it as a grant, or its key has gone.
        """
        known = self._verified.get(token)
        if known is not None:
            return known
        unverified = jose.peek(token)
        keys = self._keys.verifying(unverified.kid)
        verified = unverified.verify(keys=keys, algorithms=(ALGORITHM,), types=(TYP,))
        claims = self._parse(verified.claims)
        self._verified.put(token, verified.key, claims)
        return claims

    def _parse(self, claims: jose.Claims) -> GrantClaims:
        claims.check_exactly(CLAIMS)
        claims.check_issuer(self._issuer)
        begin, expire = claims.instant(NOT_BEFORE), claims.instant(EXPIRES)
        if claims.instant(ISSUED) != begin or not begin < expire <= begin + LONGEST:
            raise TokenInvalidError(cause="lifetime is not accepted")
        detail = _one_detail(claims)
        actor, confirmation = claims.members(ACTOR), claims.members(CONFIRMATION)
        actor.check_exactly((SUBJECT,))
        confirmation.check_exactly((THUMBPRINT,))
        return GrantClaims(
            grant_id=_grant_id(claims.text(JWT_ID)),
            agent=_agent(claims),
            tool_identity=actor.text(SUBJECT),
            tool_thumbprint=confirmation.text(THUMBPRINT),
            ticket_id=detail.text(TICKET),
            purpose=detail.text(PURPOSE),
            levels=_levels(detail.members(FIELDS)),
            audience=claims.text(AUDIENCE),
            policy_version=claims.text(POLICY_VERSION),
            begin_time=begin,
            expire_time=expire,
        )


def _one_detail(claims: jose.Claims) -> jose.Claims:
    details = claims[DETAILS]
    if not isinstance(details, list) or len(details) != 1 or not isinstance(details[0], dict):
        raise TokenInvalidError(cause="authorization_details is not one object")
    detail = jose.Claims(details[0])
    detail.check_exactly((DETAIL_KIND, TICKET, PURPOSE, FIELDS))
    if detail.text(DETAIL_KIND) != DETAIL_TYPE:
        raise TokenInvalidError(cause="authorization_details is of another type")
    return detail


def _agent(claims: jose.Claims) -> Agent:
    """Reads the agent from `sub_id`; `sub` must say the same."""
    members = claims.members(SUBJECT_ID)
    members.check_exactly((SUBJECT_FORMAT, ISSUER, SUBJECT))
    agent = Agent(members.text(ISSUER), members.text(SUBJECT))
    if members.text(SUBJECT_FORMAT) != ISS_SUB or claims.text(SUBJECT, max_length=1024) != agent.key:
        raise TokenInvalidError(cause="sub and sub_id differ")
    return agent


def _grant_id(text: str) -> UUID:
    try:
        grant_id = UUID(text)
    except ValueError as exc:
        raise TokenInvalidError(cause="jti is no grant id") from exc
    if str(grant_id) != text:
        raise TokenInvalidError(cause="jti is not in canonical form")
    return grant_id


def _levels(fields: jose.Claims) -> dict[str, Level]:
    try:
        levels = {name: Level(fields.text(name)) for name in fields}
    except ValueError as exc:
        raise TokenInvalidError(cause="a field has an unknown level") from exc
    if not levels:
        raise TokenInvalidError(cause="a grant without fields")
    return levels
