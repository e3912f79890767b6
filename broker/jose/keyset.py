"""Public keys by `kid`, from a JWK Set (RFC 7517); each key is bound to the algorithms it may check.

Invariants:
- asymmetric keys alone; a secret or private key in a published set spoils the whole set;
- two keys of one `kid` spoil the set: which of them would count must never depend on their order;
- a key that is for encryption, of an unknown type or too weak is left out (RFC 7517, 5), so that an
  issuer's newer keys do not shut everybody out; a set with nothing usable is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from broker.errors import StartupError
from broker.jose import strictjson
from broker.jose.strictjson import Json

PublicKey: TypeAlias = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey

MAX_JWKS_BYTES = 256 * 1024
"""Largest key set; identity providers publish a few kilobytes, with certificate chains 50."""

MAX_KEYS = 64
"""Most keys of a set; an issuer rotates among two to four."""

RSA_BITS = range(2048, 8193)
"""Accepted RSA sizes: below is broken, above costs milliseconds a check."""

RSA_EXPONENTS = range(2**16 + 1, 2**32, 2)
"""Accepted public exponents (FIPS 186-5 wants more than 2^16); a huge one is a way to burn time."""

KID = re.compile(r"[\x21-\x7e]{1,128}")
"""A key id: printable ASCII; it is compared, never looked for in files or tables."""

_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_RSA_ALGORITHMS = frozenset({"RS256", "RS384", "PS256"})
_CURVE_ALGORITHM = {"P-256": "ES256", "P-384": "ES384", "Ed25519": "EdDSA"}
_CURVE_TYPE = {"P-256": "EC", "P-384": "EC", "Ed25519": "OKP"}
_THUMBPRINT_MEMBERS = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}


class KeySetInvalidError(Exception):
    """A JWK Set cannot be trusted; the message is a fixed phrase for the operator."""


@dataclass(frozen=True, slots=True)
class Key:
    """One public key: equal keys have equal ids, algorithms and thumbprints."""

    kid: str
    algorithms: frozenset[str]
    thumbprint: str  # RFC 7638, so that other key material under the same `kid` is another key
    public: PublicKey = field(compare=False, repr=False)


class KeySet:
    """Keys by exact `kid`; never changes, a new state of the world is a new set."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        """Holds the keys.

        Raises:
            KeySetInvalidError: two of them have one `kid`.
        """
        found = list(keys)
        self._keys: Mapping[str, Key] = {key.kid: key for key in found}
        if len(self._keys) != len(found):
            raise KeySetInvalidError("two keys have one kid")

    @classmethod
    def from_jwks(cls, text: str | bytes) -> KeySet:
        """Reads a JWK Set.

        Raises:
            KeySetInvalidError: it is malformed, holds a secret, repeats a `kid`, or has no usable key.
        """
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        if len(data) > MAX_JWKS_BYTES:
            raise KeySetInvalidError("the key set is too large")
        try:
            document = strictjson.loads(data)
        except strictjson.StrictJsonError as exc:
            raise KeySetInvalidError(f"the key set is not accepted: {exc}") from exc
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list) or len(entries) > MAX_KEYS:
            raise KeySetInvalidError("the key set is not an object with a list of keys")
        keys = cls(key for entry in entries if (key := _read_key(entry)) is not None)
        if not len(keys):
            raise KeySetInvalidError("the key set holds no usable key")
        return keys

    def get(self, kid: str) -> Key | None:
        """Gives the key of exactly that id."""
        return self._keys.get(kid)

    def holds(self, key: Key) -> bool:
        """Says whether exactly this key, with this material, is (still) in the set."""
        return self._keys.get(key.kid) == key

    def __iter__(self) -> Iterator[Key]:
        """Goes over the keys."""
        return iter(self._keys.values())

    def __len__(self) -> int:
        """Counts the keys."""
        return len(self._keys)


class KeyFile:
    """A JWK Set in a file, read again when the file changes.

    A file that has become unreadable or wrong leaves the last good keys in force: taking a key
    away is done by writing a good file without it. `trouble` says what is wrong, for an alert.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            StartupError: there is no good key set in it.
        """
        self._path = path
        self.error = ""
        self._stamp: tuple[int, int, int] | None = None
        try:
            self._stamp = self._look()
            self._keys = self._read()
        except (OSError, KeySetInvalidError) as exc:
            reason = type(exc).__name__ if isinstance(exc, OSError) else exc
            raise StartupError(f"{path}: no key set: {reason}") from exc

    def current(self) -> KeySet:
        """Gives the keys of now; costs one look at the file's inode."""
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._keys = self._read()
                self.error = ""
        except KeySetInvalidError as exc:
            self.error = str(exc)
        except OSError as exc:
            self._stamp = None
            self.error = type(exc).__name__
        return self._keys

    def trouble(self) -> str:
        """Looks at the file; says what is wrong with it, or ""."""
        self.current()
        return f"{self._path}: {self.error}" if self.error else ""

    def _look(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> KeySet:
        with self._path.open("rb") as file:
            return KeySet.from_jwks(file.read(MAX_JWKS_BYTES + 1))


def key_from_public(public: PublicKey, *, kid: str | None = None) -> Key:
    """Makes a key from key material; its id is its thumbprint where none is given."""
    jwk = public_jwk(public)
    key = _read_key({**jwk, "kid": kid or thumbprint(jwk)})
    if key is None:
        raise KeySetInvalidError("the key is of an unknown type or too weak")
    return key


def public_jwk(public: PublicKey) -> dict[str, Json]:
    """Writes key material as a JWK, without `kid`, `use` and `alg`."""
    jwk: dict[str, Json]
    if isinstance(public, RSAPublicKey):
        jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
    return {name: jwk[name] for name in _THUMBPRINT_MEMBERS[str(jwk["kty"])]}


def thumbprint(jwk: Mapping[str, Json]) -> str:
    """Computes the SHA-256 thumbprint of a JWK (RFC 7638)."""
    required = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[str(jwk["kty"])]}
    digest = hashlib.sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _read_key(jwk: Json) -> Key | None:
    """Reads one entry; None where it is none of our business, an error where it spoils the set."""
    if not isinstance(jwk, dict):
        raise KeySetInvalidError("a key is not an object")
    kty, kid = jwk.get("kty"), jwk.get("kid")
    if kty == "oct" or not _PRIVATE.isdisjoint(jwk):
        raise KeySetInvalidError("the key set holds a secret or private key")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    if not isinstance(kid, str) or not KID.fullmatch(kid):
        return None  # nobody can name it
    algorithms = _algorithms(jwk)
    if not algorithms:
        return None
    public = _public(str(kty), jwk)
    if public is None:
        return None
    return Key(kid, algorithms, thumbprint(public_jwk(public)), public)


def _algorithms(jwk: Mapping[str, Json]) -> frozenset[str]:
    """Gives what the key may check: by its type and curve, narrowed by its own `alg`."""
    kty, curve, named = (jwk.get(name) for name in ("kty", "crv", "alg"))
    possible: frozenset[str] = frozenset()
    if kty == "RSA":
        possible = _RSA_ALGORITHMS
    elif isinstance(curve, str) and kty == _CURVE_TYPE.get(curve):
        possible = frozenset({_CURVE_ALGORITHM[curve]})
    if named == "Ed25519":  # RFC 9864's name of the same thing
        named = "EdDSA"
    return possible if named is None else frozenset(name for name in possible if name == named)


def _public(kty: str, jwk: dict[str, Json]) -> PublicKey | None:
    from_jwk: Callable[[dict[str, Json]], object] = {
        "RSA": RSAAlgorithm.from_jwk,
        "EC": ECAlgorithm.from_jwk,
        "OKP": OKPAlgorithm.from_jwk,
    }[kty]
    try:
        public = from_jwk(jwk)
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as exc:
        raise KeySetInvalidError("a key's numbers are wrong") from exc
    if isinstance(public, RSAPublicKey):
        strong = public.key_size in RSA_BITS and public.public_numbers().e in RSA_EXPONENTS
        return public if strong else None
    if isinstance(public, EllipticCurvePublicKey | Ed25519PublicKey):
        return public
    return None
