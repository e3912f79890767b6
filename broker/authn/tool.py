"""From a client certificate to a tool: exactly one name in exactly one place, or nobody.

Invariants:
- TLS has checked the chain before we see the certificate, and nothing else (attacks.md, finding 6);
- the name is the one URI SAN, a strict SPIFFE id of our trust domain; never the common name, which
  gRPC falls back to; a DNS name only where the settings say so and there is no URI at all;
- a connection outlives what was true at its handshake, and a resumed session has none: validity,
  authority, deny list and allow-list are looked at on every call.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.authn.authority import Authorities
from broker.errors import StartupError, ToolIdentityError
from broker.model import Tool

MAX_CERTIFICATE_BYTES = 16 * 1024
"""Longest certificate; SPIRE's are about one kilobyte."""

MAX_REMEMBERED = 1024
"""Certificates remembered; there are dozens of tools, and each has one or two."""

LONGEST_SPIFFE_ID = 2048
"""Bytes (SPIFFE-ID, 2.3)."""

RSA_BITS = range(2048, 8193)
"""Accepted RSA sizes; gRPC itself takes RSA-1024."""

_SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+"
_PATH = re.compile(rf"(?:/{_SEGMENT})+")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_DNS_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+"
)
_SERIAL = re.compile(r"(?:serial=)?([0-9A-Fa-f]{1,2}(?::?[0-9A-Fa-f]{1,2}){0,20})")
"""One revoked serial, also as `openssl x509 -noout -serial` prints it."""

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_DIGESTS = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True)
class _Certificate:
    """What we keep of a certificate that names exactly one identity."""

    tool: Tool
    serial: int
    begins: float  # POSIX seconds
    ends: float
    generation: int  # of the authorities that vouched for it


class RevokedSerials:
    """The deny list of client certificates: a file of hex serials, one a line, `#` lines are notes.

    Read again when it changes. A file that is wrong, or gone, takes no serial off the list: what it
    still says clearly is added to what it said before, and `trouble` says what to mend.
    """

    def __init__(self, path: Path | None) -> None:
        """Reads the file; none means that nothing is revoked.

        Raises:
            StartupError: it cannot be read or a line of it is no serial.
        """
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._serials: frozenset[int] = frozenset()
        self.error = ""
        self._follow()
        if self.error:
            raise StartupError(f"{path}: {self.error}")

    def __contains__(self, serial: int) -> bool:
        """Says whether a serial is revoked now."""
        self._follow()
        return serial in self._serials

    def trouble(self) -> str:
        """Looks at the file; says what is wrong with it, or ""."""
        self._follow()
        return f"{self._path}: {self.error}" if self.error else ""

    def _follow(self) -> None:
        if self._path is None:
            return
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_size, found.st_ino
            if stamp == self._stamp:
                return
            lines = self._path.read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            self._stamp = None
            self.error = f"cannot be read: {type(exc).__name__}"
            return
        words = {number: line.strip() for number, line in enumerate(lines, 1)}
        wanted = {n: word for n, word in words.items() if word and not word.startswith("#")}
        read = {number: _SERIAL.fullmatch(word) for number, word in wanted.items()}
        wrong = [number for number, match in read.items() if match is None]
        serials = {int(match[1].replace(":", ""), 16) for match in read.values() if match is not None}
        self._stamp = stamp
        self._serials = frozenset(serials | self._serials) if wrong else frozenset(serials)
        self.error = f"line {wrong[0]} is no hex serial" if wrong else ""


class ToolVerifier:
    """Turns the peer's certificate into a `Tool`; one for each port, by its allow-list."""

    def __init__(
        self,
        trust_domain: str,
        known: Callable[[str], bool],
        clock: Callable[[], float],
        *,
        dns_identities: bool = False,
        revoked: RevokedSerials | None = None,
        authorities: Authorities | None = None,
    ) -> None:
        """Takes what certificates are held against.

        Args:
            trust_domain: SPIFFE trust domain, `support.example`.
            known: whether an identity may use this port; asked on every call.
            clock: POSIX seconds.
            dns_identities: accept exactly one DNS SAN where there is no URI SAN.
            revoked: deny list.
            authorities: asked again behind TLS; without them the handshake's word stands for as long as
                the connection and its resumed sessions do.

        Raises:
            StartupError: the trust domain is none.
        """
        if not _TRUST_DOMAIN.fullmatch(trust_domain):
            raise StartupError(
                "trust_domain: lower-case letters, digits, '.', '-' and '_', no scheme, no port"
            )
        self._prefix = f"spiffe://{trust_domain}"
        self._known = known
        self._clock = clock
        self._dns_identities = dns_identities
        self._revoked = revoked or RevokedSerials(None)
        self._authorities = authorities
        self._remembered: OrderedDict[bytes, _Certificate] = OrderedDict()

    def verify(self, certificate: bytes, chain: bytes = b"") -> Tool:
        """Gives the tool that a peer's certificate names.

        Args:
            certificate: the leaf, PEM (`x509_pem_cert` of gRPC's auth context) or DER; b"" where the
                connection has none.
            chain: what the peer sent, PEM (`x509_pem_cert_chain`); needed where authorities issue
                through others.

        Raises:
            ToolIdentityError: it names nobody, more than one, somebody unknown, or is not valid now.
        """
        digest = hashlib.sha256(certificate).digest()
        generation = self._authorities.generation() if self._authorities else 0
        found = self._remembered.get(digest)
        if found is None or found.generation != generation:
            found = self._read(certificate, chain, generation)
            self._remembered[digest] = found
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        else:
            self._remembered.move_to_end(digest)
        if not found.begins <= self._clock() <= found.ends:
            raise ToolIdentityError(cause="certificate is not valid now")
        if found.serial in self._revoked:
            raise ToolIdentityError(cause="certificate is revoked")
        if not self._known(found.tool.identity):
            raise ToolIdentityError(cause="identity is not known here")
        return found.tool

    def _read(self, certificate: bytes, chain: bytes, generation: int) -> _Certificate:
        leaf = _load(certificate)
        if self._authorities and not self._authorities.vouch(leaf, _load_chain(chain)):
            raise ToolIdentityError(cause="certificate is of no authority of ours")
        try:
            extensions = {extension.oid: extension.value for extension in leaf.extensions}
            _check_strength(leaf)
            _check_use(extensions)
            identity = self._identity(extensions)
            der = leaf.public_bytes(serialization.Encoding.DER)
            return _Certificate(
                tool=Tool(identity, _base64url(hashlib.sha256(der).digest())),
                serial=leaf.serial_number,
                begins=leaf.not_valid_before_utc.timestamp(),
                ends=leaf.not_valid_after_utc.timestamp(),
                generation=generation,
            )
        except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
            raise ToolIdentityError(cause="certificate extensions are malformed") from exc
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise ToolIdentityError(cause="certificate is malformed") from exc

    def _identity(self, extensions: dict[x509.ObjectIdentifier, x509.ExtensionType]) -> str:
        names = extensions.get(x509.SubjectAlternativeName.oid)
        if not isinstance(names, x509.SubjectAlternativeName):
            raise ToolIdentityError(cause="certificate has no subject alternative name")
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) == 1:
            return self._spiffe_id(uris[0])
        if uris:
            raise ToolIdentityError(cause="certificate has several URI names")
        dns = names.get_values_for_type(x509.DNSName)
        if not self._dns_identities:
            raise ToolIdentityError(cause="certificate has no URI name")
        if len(dns) != 1 or len(names) != 1 or not _DNS_NAME.fullmatch(dns[0]):
            raise ToolIdentityError(cause="certificate does not have exactly one DNS name")
        return dns[0]

    def _spiffe_id(self, uri: str) -> str:
        """Accepts one spelling of an id of our trust domain (SPIFFE-ID, 2): no port, user or escape."""
        path = uri.removeprefix(self._prefix)
        if path == uri or len(uri) > LONGEST_SPIFFE_ID or not _PATH.fullmatch(path):
            raise ToolIdentityError(cause="URI name is not a SPIFFE id of our trust domain")
        return uri


def peer_certificates(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[bytes, bytes]:
    """Picks the leaf and what came beside it out of gRPC's auth context; b"" for what is not there.

    Everything else in there is left alone, above all `x509_common_name` and `peer_spiffe_id`.
    """
    leaves = tuple(auth_context.get("x509_pem_cert", ()))
    chains = tuple(auth_context.get("x509_pem_cert_chain", ()))
    return (leaves[0] if len(leaves) == 1 else b"", chains[0] if len(chains) == 1 else b"")


def _load(certificate: bytes) -> x509.Certificate:
    if not certificate:
        raise ToolIdentityError(cause="no client certificate")
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise ToolIdentityError(cause="certificate is too long")
    try:
        if certificate.lstrip().startswith(b"-----BEGIN "):
            (leaf,) = x509.load_pem_x509_certificates(certificate)
            return leaf
        return x509.load_der_x509_certificate(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ToolIdentityError(cause="certificate is malformed") from exc


def _load_chain(chain: bytes) -> list[x509.Certificate]:
    if not chain:
        return []
    if len(chain) > 4 * MAX_CERTIFICATE_BYTES:
        raise ToolIdentityError(cause="certificate chain is too long")
    try:
        return x509.load_pem_x509_certificates(chain)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ToolIdentityError(cause="certificate chain is malformed") from exc


def _check_strength(leaf: x509.Certificate) -> None:
    """Refuses keys and digests that gRPC lets pass."""
    key = leaf.public_key()
    strong = (
        (isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS)
        or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES))
        or isinstance(key, ed25519.Ed25519PublicKey)
    )
    if not strong:
        raise ToolIdentityError(cause="certificate's key is too weak")
    digest = leaf.signature_hash_algorithm  # None: EdDSA, which brings its own
    if digest is not None and not isinstance(digest, _DIGESTS):
        raise ToolIdentityError(cause="certificate's signature uses a weak digest")


def _check_use(extensions: dict[x509.ObjectIdentifier, x509.ExtensionType]) -> None:
    """Refuses a certificate that was not made for a client of TLS."""
    usages = extensions.get(x509.ExtendedKeyUsage.oid)
    if not isinstance(usages, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise ToolIdentityError(cause="certificate is not for clients")
    basic = extensions.get(x509.BasicConstraints.oid)
    if isinstance(basic, x509.BasicConstraints) and basic.ca:
        raise ToolIdentityError(cause="certificate is an authority's")
    usage = extensions.get(x509.KeyUsage.oid)
    if isinstance(usage, x509.KeyUsage) and (not usage.digital_signature or usage.key_cert_sign):
        raise ToolIdentityError(cause="certificate's key is not for signing handshakes")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
