"""Signed tokens (JWS compact form), read strictly: PyJWT checks the signature, this room all else.

Invariants:
- `read` raises `TokenInvalidError` and nothing else, whatever the bytes; its cause is a fixed phrase;
- length first, then form, then header, then key, then signature; claims are seen only behind it;
- asymmetric keys alone, each bound to its algorithms; a key is found by its exact `kid` or not at all;
- nothing inside a token ever chooses where keys come from, or names a file or an address.

    verified = jose.read(token, keys=jose.KeySet.from_jwks(text), algorithms=("ES256",), types=("at+jwt",))
    subject = verified.claims.text("sub")
    verified.claims.check_times(clock(), max_age=3600)
"""

from broker.jose.cache import VerifiedCache
from broker.jose.claims import CLOCK_SKEW, Claims, check_window
from broker.jose.compact import FORBIDDEN_HEADERS, MAX_TOKEN_BYTES, Unverified, Verified, peek, read
from broker.jose.keyset import (
    Key,
    KeyFile,
    KeySet,
    KeySetInvalidError,
    key_from_public,
    public_jwk,
    thumbprint,
)

__all__ = [
    "CLOCK_SKEW",
    "FORBIDDEN_HEADERS",
    "MAX_TOKEN_BYTES",
    "Claims",
    "Key",
    "KeyFile",
    "KeySet",
    "KeySetInvalidError",
    "Unverified",
    "Verified",
    "VerifiedCache",
    "check_window",
    "key_from_public",
    "peek",
    "public_jwk",
    "read",
    "thumbprint",
]
