"""An OIDC issuer for trying the broker on one machine, and for its tests; never for production.

It has a key and mints access tokens (RFC 9068) for whoever can read its folder. It serves nothing:
its key set is a file that the issuer's block in the settings names (`jwks_file`).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker import jose
from broker.errors import StartupError
from broker.keys import FileSigner, sign_compact, write_durably

TYP = "at+jwt"
LIFE = 3600.0
"""Seconds that a token lives; the longest that an issuer's block accepts by default."""

JWKS_FILE, _KEY_FILE = "jwks.json", "development-issuer-key.pem"


class DevelopmentIssuer:
    """One issuer with one ES256 key."""

    def __init__(self, issuer: str, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        """Makes an issuer in memory.

        Args:
            issuer: `iss` of its tokens.
            key: its private key; a new one by default.
        """
        self.issuer = issuer
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.public = jose.key_from_public(self.key.public_key())
        self._signer = FileSigner(self.public.kid, self.key)

    @classmethod
    def open(cls, issuer: str, folder: Path) -> DevelopmentIssuer:
        """Reads the issuer of a folder, made there on the first call; its key set is `jwks.json` in it.

        Raises:
            StartupError: what is there is no issuer's key.
        """
        path = folder / _KEY_FILE
        if not path.exists():
            made = cls(issuer)
            pem = made.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(path, pem)
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as exc:
            raise StartupError(f"{path}: no private key: {type(exc).__name__}") from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StartupError(f"{path}: not a P-256 key")
        found = cls(issuer, key)
        write_durably(folder / JWKS_FILE, found.jwks().encode("ascii"))
        return found

    def jwks(self) -> str:
        """Gives its JWK Set."""
        jwk = {**jose.public_jwk(self.key.public_key()), "kid": self.public.kid, "alg": "ES256", "use": "sig"}
        return json.dumps({"keys": [jwk]})

    def claims(
        self,
        subject: str,
        *,
        audience: str,
        client_id: str,
        groups: Iterable[str] = (),
        now: float | None = None,
        life: float = LIFE,
    ) -> dict[str, object]:
        """Makes the claims of an access token.

        Args:
            subject: `sub`, the agent.
            audience: `aud`, the broker as the issuer knows it.
            client_id: the tool's OAuth client.
            groups: what the policy maps to roles.
            now: POSIX seconds; this machine's clock by default.
            life: seconds.
        """
        issued = int(time.time() if now is None else now)
        return {
            "iss": self.issuer,
            "sub": subject,
            "aud": audience,
            "client_id": client_id,
            "groups": sorted(groups),
            "iat": issued,
            "exp": issued + int(life),
            "jti": secrets.token_urlsafe(12),
        }

    def sign(self, claims: dict[str, object], *, typ: str = TYP) -> str:
        """Signs claims as a token."""
        return sign_compact(self._signer, {"typ": typ}, claims)

    def mint(
        self,
        subject: str,
        *,
        audience: str,
        client_id: str,
        groups: Iterable[str] = (),
        now: float | None = None,
        life: float = LIFE,
    ) -> str:
        """Makes an agent's access token; see `claims`."""
        return self.sign(
            self.claims(subject, audience=audience, client_id=client_id, groups=groups, now=now, life=life)
        )
