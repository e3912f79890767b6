"""Makes what compose.yaml needs to try the broker out: certificates, keys, passwords, settings.

    python deploy/prepare.py FOLDER

Writes one folder per reader below FOLDER (each is a volume) and gives it to that reader's user when
run as root. Does nothing when they are there. Not for production: the authority's key, the agents'
signing key and the helpdesk's lie side by side in FOLDER/tools.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jwt.algorithms import ECAlgorithm

from broker.keys import KeyFolder, LogKeyFolder
from broker.keys.log import LOG_MANIFEST

LIFETIME = timedelta(days=90)
TRUST_DOMAIN = "broker.dev"
LOG_ORIGIN = f"broker.{TRUST_DOMAIN}/ledger"
CLIENTS = ("tool/helpdesk", "feed/helpdesk", "admin/containment", "admin/auditor", "admin/console")
"""The identities that policies/admin.csv and the settings below know."""

OWNERS = {
    "postgres": 999,
    "migrate": 10001,
    "guard": 10001,
    "broker": 10001,
    "tools": 0,
    "signing-keys": 10001,
}
"""The user that reads each folder: PostgreSQL's image runs as 999, the broker's as 10001."""

ROLES = ("broker_owner", "broker_access", "broker_admin", "broker_feed", "broker_reader", "broker_auditor")
MOUNT = "/run/prepared"
POLICIES = "/srv/broker/policies"
"""Where the image has the starting policy."""

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True)
class Authority:
    """A certificate authority that lives as long as this run and as FOLDER/tools/ca.key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls) -> Authority:
        """Makes a self-signed authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker try-out authority")])
        builder = _builder(name, name, key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    def issue(
        self, name: str, usage: x509.ObjectIdentifier, names: list[x509.GeneralName]
    ) -> tuple[str, str]:
        """Gives certificate and key as PEM, for one usage and exactly these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(subject, self.certificate.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        return _pem(certificate), _private(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _signer(kid: str) -> tuple[str, str]:
    """Gives a signing key as PEM and its public half as a JWK Set."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return _private(key), json.dumps({"keys": [{**jwk, "kid": kid, "alg": "ES256", "use": "sig"}]})


def _dsn(role: str, passwords: dict[str, str]) -> str:
    return (
        f"postgresql://{role}:{passwords[role]}@postgres:5432/broker"
        f"?sslmode=verify-full&sslrootcert={MOUNT}/ca.crt"
    )


def _settings(passwords: dict[str, str]) -> str:
    """Gives the settings of `broker serve` (deploy/README.md explains them)."""
    listener = "\n".join(
        (
            'host = "0.0.0.0"',
            f'cert_file = "{MOUNT}/server.crt"',
            f'key_file = "{MOUNT}/server.key"',
            f'client_ca_file = "{MOUNT}/ca.crt"',
        )
    )
    return f"""\
dsn = "{_dsn("broker_access", passwords)}"
reader_dsn = "{_dsn("broker_reader", passwords)}"
admin_dsn = "{_dsn("broker_admin", passwords)}"
feed_dsn = "{_dsn("broker_feed", passwords)}"
auditor_dsn = "{_dsn("broker_auditor", passwords)}"

issuer = "https://broker.{TRUST_DOMAIN}"
trust_domain = "{TRUST_DOMAIN}"
keys_dir = "/var/lib/broker"
tlog_dir = "/var/lib/broker/log"
tlog_keys_dir = "/var/lib/broker/log-keys"
tlog_origin = "{LOG_ORIGIN}"
policies_dir = "{POLICIES}"
http_host = "0.0.0.0"

[access]
port = 7443
{listener}

[admin]
port = 7444
{listener}

[[issuers]]
issuer = "https://idp.{TRUST_DOMAIN}"
audience = "support-access-broker"
algorithms = ["ES256"]
jwks_file = "{MOUNT}/agents.jwks"

[[admin_issuers]]
issuer = "https://idp.{TRUST_DOMAIN}"
audience = "support-access-broker-admin"
algorithms = ["ES256"]
jwks_file = "{MOUNT}/admins.jwks"
# A token without this claim, as a service account's, is nobody's: it could be the second person.
person_claim = "idtyp"
person_values = ["user"]

[[tools]]
identity = "spiffe://{TRUST_DOMAIN}/tool/helpdesk"
client_ids = ["helpdesk"]

[[feeds]]
feed_id = "https://helpdesk.{TRUST_DOMAIN}"
jwks_file = "{MOUNT}/helpdesk.jwks"
"""


def prepare() -> dict[str, dict[str, str]]:
    """Gives the text of every file: folder -> file name -> text."""
    authority = Authority.create()
    ca = _pem(authority.certificate)
    passwords = {role: secrets.token_urlsafe(32) for role in ROLES}
    superuser = secrets.token_urlsafe(32)
    loopback: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    ]
    postgres = authority.issue("postgres", SERVER, [x509.DNSName("postgres"), *loopback])
    brokers: list[x509.GeneralName] = [x509.DNSName("broker-1"), x509.DNSName("broker-2"), *loopback]
    server = authority.issue("broker", SERVER, brokers)
    tools: dict[str, str] = {"ca.crt": ca, "ca.key": _private(authority.key)}
    for path in CLIENTS:
        spiffe = x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}/{path}")
        name = path.replace("/", "-")
        tools[f"{name}.crt"], tools[f"{name}.key"] = authority.issue(name, CLIENT, [spiffe])
    tools["agents.key"], agents = _signer("agents-1")
    tools["admins.key"], admins = _signer("admins-1")
    tools["helpdesk.key"], helpdesk = _signer("helpdesk-1")
    return {
        "postgres": {
            "server.crt": postgres[0],
            "server.key": postgres[1],
            "superuser-password": superuser,
            # token_urlsafe holds no quote
            "passwords.sql": "".join(f"ALTER ROLE {r} PASSWORD '{p}';\n" for r, p in passwords.items()),
        },
        "migrate": {"ca.crt": ca, "migrate.toml": f'owner_dsn = "{_dsn("broker_owner", passwords)}"\n'},
        "guard": {
            "ca.crt": ca,
            "guard.toml": f'owner_dsn = "{_dsn("broker_owner", passwords)}"\n'
            f'records_owner_dsn = "{_dsn("postgres", {"postgres": superuser})}"\n'
            f'policies_dir = "{POLICIES}"\n',
        },
        "broker": {
            "ca.crt": ca,
            "server.crt": server[0],
            "server.key": server[1],
            "agents.jwks": agents,
            "admins.jwks": admins,
            "helpdesk.jwks": helpdesk,
            "broker.toml": _settings(passwords),
        },
        "tools": tools,
        "signing-keys": {},
    }


def main(folder: Path) -> int:
    """Writes the files once; a folder that is complete stays as it is."""
    if (folder / "tools" / "complete").exists():
        sys.stdout.write("prepared before; nothing to do\n")
        return 0
    for name, files in prepare().items():
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            path = target / file
            path.write_text(text, "utf-8")
            path.chmod(0o600)
        target.chmod(0o700)
        if name == "signing-keys":
            keys = KeyFolder(target)
            if not keys.list(time.time()):
                keys.rotate(time.time(), immediately=True)
            # asked by itself: a run may have died between the two
            if not (target / "log-keys" / LOG_MANIFEST).exists():
                LogKeyFolder(target / "log-keys", LOG_ORIGIN).create()
        if os.geteuid() == 0:
            for path in (*target.rglob("*"), target):
                os.chown(path, OWNERS[name], OWNERS[name])
    # Last: if we die before, the next run makes everything anew and nothing mixes.
    (folder / "tools" / "complete").touch()
    sys.stdout.write(f"prepared {', '.join(OWNERS)}\n")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 - the script and its one argument
        sys.exit("usage: python deploy/prepare.py FOLDER")
    raise SystemExit(main(Path(sys.argv[1])))
