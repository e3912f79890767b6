"""The seal of a version: what the admin process signs, and every process checks before it serves.

Invariants:
- a seal names number, digests and persons, so it fits one row and no other: old content comes back under a
  new number and a new seal (C15), and nobody is made the approver of what somebody else approved;
- whatever is wrong with it, the version is not served and the last good one stays;
- the table that it names was held against Casbin before it was signed; a worker that compiles the same one
  need not ask Casbin again, and a worker that compiles another must.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker import jose
from broker.errors import PolicyInvalidError, TokenInvalidError
from broker.keys import ALGORITHM

TYPE = "broker-policy+jwt"
_NAMES = ("iss", "iat", "version", "digest", "tests", "how")
_OPTIONAL = ("base", "proposal", "author", "approver", "table")

Persons = tuple[str | None, str | None]
"""A version's author and approver, as `issuer|subject`; None where there is none."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What is signed about a version."""

    version: int
    digest: str
    tests_digest: str
    how: str  # first | approved | alone | break-glass
    base: int | None = None
    proposal: str = ""
    author: str = ""  # issuer|subject
    approver: str = ""
    table: str = ""  # digest of the compiled table that Casbin agreed with; empty: none is vouched for

    def claims(self, issuer: str, now: float) -> dict[str, object]:
        """Gives the claims to sign."""
        claims: dict[str, object] = {
            "iss": issuer, "iat": int(now), "version": self.version, "digest": self.digest,
            "tests": self.tests_digest, "how": self.how,
        }  # fmt: skip
        more = {
            "base": self.base, "proposal": self.proposal, "author": self.author, "approver": self.approver,
            "table": self.table,
        }  # fmt: skip
        return claims | {name: value for name, value in more.items() if value}


class Seals:
    """Checks seals with the keys that this broker ever had."""

    def __init__(self, keys: Callable[[str], jose.KeySet], issuer: str) -> None:
        """Takes what gives the public keys, those that are gone among them, and the broker's `issuer`."""
        self._keys = keys
        self._issuer = issuer

    def check(
        self,
        signature: str | None,
        version: int,
        digest: str,
        tests_digest: str | None,
        persons: Persons | None = None,
    ) -> str:
        """Refuses a version whose seal is not over this number, these digests and these persons.

        Args:
            signature: the seal.
            version: the row's number.
            digest: of its files.
            tests_digest: of its tests.
            persons: its author and its approver; None: not looked at.

        Returns:
            The digest of the table that whoever signed held against Casbin; empty where it names none.

        Raises:
            PolicyInvalidError: names the version; what is wrong with the signature is the cause.
        """
        try:
            return self._check(signature, (version, digest, tests_digest), persons)
        except TokenInvalidError as exc:
            raise PolicyInvalidError(
                [f"policy version {version}: no good signature: {exc.cause} [signature]"]
            ) from None

    def _check(self, signature: str | None, row: tuple[int, str, str | None], persons: Persons | None) -> str:
        if not signature:
            raise TokenInvalidError(cause="it is not signed")
        unverified = jose.peek(signature)
        keys = self._keys(unverified.kid)
        claims = unverified.verify(keys=keys, algorithms=(ALGORITHM,), types=(TYPE,)).claims
        claims.check_exactly(_NAMES, optional=_OPTIONAL)
        claims.check_issuer(self._issuer)
        if (claims.integer("version"), claims.text("digest"), claims.text("tests")) != row:
            raise TokenInvalidError(cause="it was signed for another number or other files")
        signed = claims.optional_text("author"), claims.optional_text("approver")
        if persons is not None and signed != persons:
            raise TokenInvalidError(cause="it was signed for other persons")
        return claims.optional_text("table") or ""


class _Unchecked(Seals):
    """Lets every version pass."""

    def __init__(self) -> None:
        """Needs no keys."""

    def check(self, *_row: object, **_more: object) -> str:
        """Lets it pass; vouches for nothing."""
        return ""


UNCHECKED = _Unchecked()
"""For reports by those who have no keys: nothing is ever served that was read with it."""
