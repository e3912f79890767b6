"""What prepare.py makes for Compose is what PostgreSQL, the broker and the tools accept."""

import importlib.util
import shutil
import ssl
import time
import tomllib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.keys import KeyFolder, KeyState, LogKeyFolder
from broker.keys.log import LOG_MANIFEST
from broker.settings import SERVE_NEEDS, read_settings
from tests.conftest import LOGIN_ROLES

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("prepare", DEPLOY / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def given(module, monkeypatch):
    """Who was given which path: everywhere as root does it, and without needing root."""
    owners = {}
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(module.os, "chown", lambda path, user, group: owners.update({path: (user, group)}))
    return owners


@pytest.fixture
def folder(module, tmp_path, given):
    assert module.main(tmp_path) == 0
    return tmp_path


def certificate(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_serve_accepts_the_settings(folder, monkeypatch):
    """The settings file is complete and each setting in it is known."""
    monkeypatch.setenv("BROKER_CONFIG", str(folder / "broker" / "broker.toml"))

    settings = read_settings(*SERVE_NEEDS)

    assert settings.reflection is False
    assert not settings.owner_dsn


def test_migrate_accepts_its_settings(folder, monkeypatch):
    """The migration's container holds the owner's DSN and no other."""
    monkeypatch.setenv("BROKER_CONFIG", str(folder / "migrate" / "migrate.toml"))

    settings = read_settings("owner_dsn")

    assert not settings.dsn


def test_the_guard_accepts_its_settings(folder, monkeypatch):
    """The guard's container holds the owners' DSNs and none that a broker serves with."""
    monkeypatch.setenv("BROKER_CONFIG", str(folder / "guard" / "guard.toml"))

    settings = read_settings("owner_dsn", "records_owner_dsn")

    assert not settings.dsn
    assert (folder / "postgres" / "superuser-password").read_text("utf-8") in settings.records_owner_dsn


def test_settings_name_mounted_files(folder, module):
    """Each file that the settings name is in the folder mounted beside them."""

    def named(value):
        if isinstance(value, dict):
            return [n for v in value.values() for n in named(v)]
        if isinstance(value, list):
            return [n for v in value for n in named(v)]
        text = str(value)
        return [Path(text).name] if text.startswith(module.MOUNT) else []

    names = named(tomllib.loads((folder / "broker" / "broker.toml").read_text("utf-8")))

    assert names
    assert [n for n in names if not (folder / "broker" / n).is_file()] == []


@pytest.mark.parametrize("path", ["broker/server", "postgres/server"])
def test_server_certificates(folder, path):
    """A server's certificate chains to the authority, is for servers and loads with its key."""
    context = ssl.create_default_context(cafile=folder / "tools" / "ca.crt")
    context.load_cert_chain(folder / f"{path}.crt", folder / f"{path}.key")
    leaf = certificate(folder / f"{path}.crt")
    leaf.verify_directly_issued_by(certificate(folder / "tools" / "ca.crt"))

    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.parametrize(
    "path", ["tool/helpdesk", "feed/helpdesk", "admin/containment", "admin/auditor", "admin/console"]
)
def test_client_certificates(folder, module, path):
    """A client's certificate names exactly one SPIFFE id and is for clients alone."""
    leaf = certificate(folder / "tools" / f"{path.replace('/', '-')}.crt")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value

    assert [n.value for n in names] == [f"spiffe://{module.TRUST_DOMAIN}/{path}"]
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_admin_policy_knows_the_identities(module):
    """The starting admin.csv gives roles to the very identities that get certificates."""
    lines = (DEPLOY.parent / "policies" / "admin.csv").read_text("utf-8").splitlines()
    known = {line.split(", ")[1] for line in lines if line.startswith("g, spiffe:")}
    made = {f"spiffe://{module.TRUST_DOMAIN}/{path}" for path in module.CLIENTS}

    assert known == {name for name in made if "/tool/" not in name}


def test_there_is_a_signing_key(folder):
    """Grants can be signed from the first start on."""
    (key,) = KeyFolder(folder / "signing-keys").list(time.time())

    assert key.state is KeyState.ACTIVE


def test_there_is_a_log_key(folder, module):
    """The sequencer can sign from the first start on."""
    log = LogKeyFolder(folder / "signing-keys" / "log-keys", module.LOG_ORIGIN)

    assert log.load().active.name == module.LOG_ORIGIN
    assert log.signer(0)


def test_everything_belongs_to_who_reads_it(folder, module, given):
    """The files are for their owner alone, so nothing is left to root that somebody else must read."""
    expected = {
        path: (user, user)
        for name, user in module.OWNERS.items()
        for path in (folder / name, *(folder / name).rglob("*"))
        if path.name != "complete"
    }

    assert folder / "signing-keys" / "log-keys" / LOG_MANIFEST in expected
    assert given == expected


def test_every_role_gets_a_password(folder, module):
    """Each login role of roles.sql has a password of its own."""
    lines = (folder / "postgres" / "passwords.sql").read_text("utf-8").splitlines()

    assert {line.split()[2] for line in lines} == set(module.ROLES) == set(LOGIN_ROLES)
    assert len({line.split("'")[1] for line in lines}) == len(lines)


def test_brokers_get_no_private_key_but_their_own(folder):
    """Neither the authority's key nor an issuer's reaches the brokers' volume."""
    keys = [p for p in (folder / "broker").iterdir() if "PRIVATE" in p.read_text("utf-8")]

    assert [p.name for p in keys] == ["server.key"]
    assert load_pem_private_key(keys[0].read_bytes(), None).curve.name == "secp256r1"


def test_files_are_private(folder):
    """Only the owner reads what was made."""
    loose = [p for p in folder.rglob("*") if p.name != "complete" and p.stat().st_mode & 0o077]

    assert loose == []


def test_second_run_changes_nothing(folder, module):
    """Starting again keeps passwords and keys."""
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert module.main(folder) == 0
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_died_half_way(folder, module):
    """A run that died before its end is made anew as a whole, so that nothing mixes."""
    (folder / "tools" / "complete").unlink()
    before = (folder / "broker" / "ca.crt").read_bytes()

    assert module.main(folder) == 0
    now = {(folder / name / "ca.crt").read_bytes() for name in ("broker", "migrate", "guard", "tools")}
    assert len(now) == 1
    assert before not in now


def test_died_between_the_keys(folder, module):
    """A run that died between the two kinds of keys leaves the next one to make what is lacking."""
    (folder / "tools" / "complete").unlink()
    shutil.rmtree(folder / "signing-keys" / "log-keys")
    (key,) = KeyFolder(folder / "signing-keys").list(time.time())

    assert module.main(folder) == 0
    assert [k.kid for k in KeyFolder(folder / "signing-keys").list(time.time())] == [key.kid]
    assert LogKeyFolder(folder / "signing-keys" / "log-keys", module.LOG_ORIGIN).load()
