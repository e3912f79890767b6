"""A certificate authority for trying the broker on one machine, and for its tests; never for production.

Invariants:
- made once per folder; its private key is a file of mode 0600 and its own file name says what it is;
- a tool's or administrator's certificate has one SPIFFE id and no common name to fall back to;
- `issue` can also make what the broker must refuse, because the tests need exactly that.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from broker.errors import StartupError
from broker.keys import write_durably

LIFE = dt.timedelta(days=825)
"""Life of what it issues; long, because nobody renews a development certificate."""

CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

_CERT_FILE, _KEY_FILE = "ca.pem", "development-ca-key.pem"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def cert_pem(self) -> bytes:
        """Gives the certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """Gives the private key as PEM, unencrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def serial(self) -> str:
        """Gives the serial number in hex, as the file of revoked serials names it."""
        return f"{self.certificate.serial_number:x}"

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes `<name>.pem` and `<name>-key.pem`, both 0600; gives their paths."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
        write_durably(key, self.key_pem)
        write_durably(cert, self.cert_pem)
        return cert, key


class DevelopmentAuthority:
    """One authority: makes certificates for servers, tools and administrators."""

    def __init__(self, root: Issued) -> None:
        """Takes the authority's own certificate and key."""
        self.root = root

    @classmethod
    def create(
        cls, name: str = "support access broker, development", now: dt.datetime | None = None
    ) -> DevelopmentAuthority:
        """Makes a new authority in memory."""
        key = ec.generate_private_key(ec.SECP256R1())
        start = (now or dt.datetime.now(dt.UTC)) - dt.timedelta(hours=1)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + 4 * LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(Issued(certificate, key))

    @classmethod
    def open(cls, folder: Path) -> DevelopmentAuthority:
        """Reads the authority of a folder, made there on the first call.

        Raises:
            StartupError: what is there is no authority.
        """
        cert, key = folder / _CERT_FILE, folder / _KEY_FILE
        if not cert.exists():
            made = cls.create()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(key, made.root.key_pem)  # before the certificate: its file says "complete"
            write_durably(cert, made.root.cert_pem)
            return made
        try:
            private = serialization.load_pem_private_key(key.read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate(cert.read_bytes())
        except (OSError, ValueError, TypeError) as exc:
            raise StartupError(f"{folder}: no development authority: {type(exc).__name__}") from exc
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise StartupError(f"{key}: not the key of a development authority")
        return cls(Issued(certificate, private))

    @property
    def cert_pem(self) -> bytes:
        """Gives the authority's certificate, which servers and clients trust."""
        return self.root.cert_pem

    def server(self, *names: str) -> Issued:
        """Makes a certificate for a server under these DNS names and addresses."""
        dns = [name for name in names if not _is_address(name)]
        return self.issue(dns=dns, addresses=[n for n in names if _is_address(n)], usages=SERVER)

    def client(self, spiffe_id: str) -> Issued:
        """Makes a certificate for a tool or an administrator."""
        return self.issue(uris=[spiffe_id])

    def issue(
        self,
        *,
        uris: Sequence[str] = (),
        dns: Sequence[str] = (),
        addresses: Sequence[str] = (),
        common_name: str = "",
        usages: Sequence[ObjectIdentifier] = CLIENT,
        key: PrivateKey | None = None,
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
        digest: hashes.HashAlgorithm | None = None,
        authority: bool = False,
    ) -> Issued:
        """Makes any certificate.

        Args:
            uris: URI names, as they stand.
            dns: DNS names.
            addresses: IP addresses.
            common_name: CN of the subject; none where empty.
            usages: extended key usages; no extension where empty.
            key: private key; a new P-256 one by default.
            not_before: an hour ago by default.
            not_after: `not_before` plus `LIFE` by default.
            digest: of the authority's signature; SHA-256 by default.
            authority: make it an authority itself.
        """
        private = key or ec.generate_private_key(ec.SECP256R1())
        start = not_before or dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.root.certificate.subject)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(not_after or start + LIFE)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=authority), critical=True)
        )
        names: list[x509.GeneralName] = [
            *(x509.UniformResourceIdentifier(uri) for uri in uris),
            *(x509.DNSName(name) for name in dns),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
        ]
        if names:  # critical, as RFC 5280 asks where there is no subject
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        signing_key = self.root.key
        if not isinstance(signing_key, ec.EllipticCurvePrivateKey):
            raise StartupError("the development authority has another kind of key")
        certificate = builder.sign(signing_key, digest or hashes.SHA256())  # type: ignore[arg-type]
        return Issued(certificate, private)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
