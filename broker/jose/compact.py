"""The compact form, in order: length, three parts, header, key, signature, claims."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from broker.errors import TokenInvalidError
from broker.jose import strictjson
from broker.jose.claims import Claims
from broker.jose.keyset import KID, Key, KeySet
from broker.jose.strictjson import Json

MAX_TOKEN_BYTES = 8192
"""Longest token; gRPC's metadata holds no more, and nothing costly happens to more (J20)."""

PLAIN_HEADERS = frozenset({"alg", "typ", "kid"})
"""The header parameters that every token has, and has no others beside."""

FORBIDDEN_HEADERS = frozenset({"b64", "crit", "cty", "enc", "jku", "jwk", "x5c", "x5u", "zip"})
"""Never accepted, whatever the settings say: they change how a token is read or where keys come from."""

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_ALGORITHMS = ("ES256", "ES384", "EdDSA", "PS256", "RS256", "RS384")
_VERIFIERS = {name: jwt.PyJWS(algorithms=[name]) for name in _ALGORITHMS}


@dataclass(frozen=True, slots=True)
class Verified:
    """A token whose signature is good; its times and names are still to be looked at."""

    header: Mapping[str, Json]
    claims: Claims
    key: Key


@dataclass(frozen=True, slots=True)
class Unverified:
    """A well-formed token that nobody vouches for yet; good for choosing among configured keys only."""

    token: str
    kid: str
    issuer: str | None  # as claimed; None where it is absent or no text
    _header: Mapping[str, Json]
    _payload: bytes

    def verify(
        self,
        *,
        keys: KeySet,
        algorithms: Collection[str],
        types: Collection[str],
        extra_headers: Collection[str] = (),
    ) -> Verified:
        """Checks header and signature; see `read`."""
        header = self._header
        unknown = header.keys() - PLAIN_HEADERS
        if not unknown <= set(extra_headers) or not FORBIDDEN_HEADERS.isdisjoint(unknown):
            raise TokenInvalidError(cause="header parameter is not accepted")
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in algorithms or algorithm not in _VERIFIERS:
            raise TokenInvalidError(cause="alg is not accepted")
        if not _accepted_type(header.get("typ"), types):
            raise TokenInvalidError(cause="typ is not accepted")
        key = keys.get(self.kid)
        if key is None:
            raise TokenInvalidError(cause="kid is unknown")
        if algorithm not in key.algorithms:
            raise TokenInvalidError(cause="alg is not the key's")
        try:
            done = _VERIFIERS[algorithm].decode_complete(self.token, key.public, algorithms=[algorithm])
        except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise TokenInvalidError(cause="signature is wrong") from exc
        if done["payload"] != self._payload:
            raise TokenInvalidError(cause="two readings of the token differ")
        return Verified(header, Claims(_object(self._payload, "claims")), key)


def peek(token: str, *, max_bytes: int = MAX_TOKEN_BYTES) -> Unverified:
    """Takes a token apart without believing it.

    Raises:
        TokenInvalidError: it is too long or malformed.
    """
    if len(token) > max_bytes:
        raise TokenInvalidError(cause="token is too long")
    parts = token.split(".", 3)
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        raise TokenInvalidError(cause="token does not have three parts")
    header_bytes, payload, _signature = (_decode(part) for part in parts)
    header = _object(header_bytes, "header")
    claims = _object(payload, "claims")
    kid, issuer = header.get("kid"), claims.get("iss")
    if not isinstance(kid, str) or not KID.fullmatch(kid):
        raise TokenInvalidError(cause="kid is missing or malformed")
    return Unverified(token, kid, issuer if isinstance(issuer, str) else None, header, payload)


def read(
    token: str,
    *,
    keys: KeySet,
    algorithms: Collection[str],
    types: Collection[str],
    extra_headers: Collection[str] = (),
    max_bytes: int = MAX_TOKEN_BYTES,
) -> Verified:
    """Reads a token and checks its signature; the claims' meaning is the caller's to check.

    Args:
        token: compact form, three base64url parts without padding.
        keys: where its `kid` must be found, exactly.
        algorithms: accepted `alg`; the key must be of that algorithm, too.
        types: accepted `typ`, compared without case, `application/` may be left out (RFC 7515, 4.1.9).
        extra_headers: header parameters accepted beside alg, typ and kid, and ignored.
        max_bytes: longest token.

    Raises:
        TokenInvalidError: whatever is wrong; the cause says what, for log and ledger.
    """
    unverified = peek(token, max_bytes=max_bytes)
    return unverified.verify(keys=keys, algorithms=algorithms, types=types, extra_headers=extra_headers)


def _decode(part: str) -> bytes:
    """Decodes one part; only the one canonical spelling, so that one token has one text (J21)."""
    if not _SEGMENT.fullmatch(part) or len(part) % 4 == 1:
        raise TokenInvalidError(cause="token is not base64url")
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode("ascii"):
        raise TokenInvalidError(cause="token is not canonical base64url")
    return decoded


def _object(data: bytes, name: str) -> dict[str, Json]:
    try:
        value = strictjson.loads(data)
    except strictjson.StrictJsonError as exc:
        raise TokenInvalidError(cause=f"{name}: {exc}") from exc
    if not isinstance(value, dict):
        raise TokenInvalidError(cause=f"{name}: not an object")
    return value


def _accepted_type(found: Json, accepted: Collection[str]) -> bool:
    if not isinstance(found, str) or not found.isascii():
        return False
    return _media_type(found) in {_media_type(name) for name in accepted}


def _media_type(name: str) -> str:
    return name.lower().removeprefix("application/")
