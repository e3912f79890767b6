"""The authorities of client certificates, as their file says now: TLS asks only at the handshake."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from broker.errors import StartupError

MAX_CHAIN = 4
"""Most certificates between a client's and its authority's; gRPC's own chains are shorter."""


class Authorities:
    """The accepted authorities, read again when their file changes.

    A connection, and a TLS session that is resumed, can outlive the removal of the authority that
    vouched for it (T7). A file that is wrong or gone leaves the last good authorities in force;
    `trouble` says what to mend.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file, PEM.

        Raises:
            StartupError: it holds no certificate.
        """
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._trusted: list[x509.Certificate] = []
        self._generation = 0
        self.error = ""
        self.generation()
        if not self._trusted:
            raise StartupError(f"{path}: no authority: {self.error}")

    def generation(self) -> int:
        """Counts the contents that the file has had; what was vouched for holds for one of them."""
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_size, found.st_ino
            if stamp != self._stamp:
                self._trusted = x509.load_pem_x509_certificates(self._path.read_bytes())
                self._stamp = stamp
                self._generation += 1
                self.error = ""
        except (OSError, ValueError) as exc:
            self.error = f"client authorities cannot be read: {type(exc).__name__}"
        return self._generation

    def trouble(self) -> str:
        """Looks at the file; says what is wrong with it, or ""."""
        self.generation()
        return f"{self._path}: {self.error}" if self.error else ""

    def vouch(self, leaf: x509.Certificate, others: list[x509.Certificate]) -> bool:
        """Says whether one of the authorities issued a certificate, directly or through others.

        Args:
            leaf: the client's.
            others: what the client sent beside it.
        """
        current = leaf
        for _ in range(MAX_CHAIN):
            if any(_issued(current, authority) for authority in self._trusted):
                return True
            issuer = next(
                (other for other in others if _is_authority(other) and _issued(current, other)), None
            )
            if issuer is None:
                return False
            current = issuer
        return False


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
