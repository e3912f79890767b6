"""Who may import whom, beyond the layers that pyproject.toml declares."""

import functools
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]

# target -> the rooms that may import it directly
ALLOWED = {
    "broker.client": {"client", "cli", "dev"},
    "broker.v1": {"client", "rpc", "v1"},
    "grpc": {"client", "rpc", "server", "v1"},
    "grpc_health": {"client", "rpc", "server"},
    "grpc_reflection": {"rpc", "server"},
    "grpc_status": {"client", "rpc", "server"},
    "casbin": {"policy"},
    "jwt": {"client", "dev", "grants", "jose", "keys"},
}


@functools.cache
def graph():
    return grimp.build_graph("broker", include_external_packages=True, cache_dir=None)


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def importers(target):
    """Gives the modules that import the target or what lies below it, with the rooms they are in."""
    below = {m for m in graph().modules if m == target or m.startswith(f"{target}.")}
    return {i for m in below for i in graph().find_modules_that_directly_import(m)}


def test_layers():
    """The declared layers hold, and every module says where it stands."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", ALLOWED)
def test_only_these_import(target):
    """A library or package with an edge of its own is imported in the rooms that own the edge."""
    strangers = {m for m in importers(target) if room(m) not in ALLOWED[target]}

    assert strangers == set()


def test_importers_are_seen():
    """The check above sees imports: the generated code imports grpc."""
    assert any(room(m) == "v1" for m in importers("grpc"))


def test_client_imports_the_protocol_alone():
    """A tool builder's client pulls in nothing of the broker but its protocol."""
    client = {m for m in graph().modules if m == "broker.client" or m.startswith("broker.client.")}
    imported = {i for m in client for i in graph().find_modules_directly_imported_by(m)}
    ours = {i for i in imported if i.startswith("broker.")}

    assert {i for i in ours if room(i) not in {"client", "v1"}} == set()


def test_modules_stay_small():
    """A module past 400 lines becomes a package of the same name."""
    files = (f for f in (ROOT / "broker").rglob("*.py") if "v1" not in f.relative_to(ROOT).parts)
    long = {str(f.relative_to(ROOT)): n for f in files if (n := len(f.read_text("utf-8").splitlines())) > 400}

    assert long == {}


def test_no_rooms_without_a_noun():
    """Nothing is called utils, helpers, common or manager."""
    banned = {"utils", "util", "helpers", "common", "manager", "misc"}

    assert [m for m in graph().modules if m.startswith("broker.") and banned & set(m.split("."))] == []
