"""What is published verifies with an implementation that is not ours: golang.org/x/mod/sumdb.

Runs where Go and Debian's golang-golang-x-mod-dev are installed; nothing is downloaded.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import asyncpg
import pytest

from broker.tlog import prove_inclusion
from tests.tlog.conftest import COUNT

SOURCES = Path("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog")
PROGRAM = Path(__file__).parent / "verifier.go"


@pytest.fixture(scope="module")
def verifier(tmp_path_factory) -> Path:
    """Builds the verifier from Debian's sources."""
    go = shutil.which("go")
    if go is None or not SOURCES.is_dir():
        pytest.skip("SKIPPED, NOT VERIFIED: apt-get install golang-go golang-golang-x-mod-dev")
    folder = tmp_path_factory.mktemp("verifier")
    built = folder / "verifier"
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    subprocess.run([go, "build", "-o", str(built), str(PROGRAM)], env=environment, check=True, timeout=300)
    return built


async def test_go_verifies_what_is_published(full, verifier):
    """Signature, tiles, the tree's root, an inclusion proof and an older size: all as Go computes them."""
    before = await full.published()
    await full.integrate(300)
    await full.integrate(700)  # several finished tiles and one that is not
    key = full.keys.load().active
    conn = await asyncpg.connect(full.database.dsn("broker_auditor"))
    proof = await prove_inclusion(conn, full.storage, [key], full.events[7])
    await conn.close()
    request = json.dumps({"index": proof.index, "leaf": proof.leaf.decode(), "old": COUNT})

    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(verifier), str(folder), str(key)],
            input=request, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    told = run(full.folder / "log")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == {
        "size": len(full.events),
        "path": [base64.b64encode(digest).decode() for digest in proof.path],
        "oldRoot": base64.b64encode(before.root).decode(),
    }

    # The control: with one bit of one tile changed it refuses.
    copy = full.folder / "changed"
    shutil.copytree(full.folder / "log", copy)
    tile = copy / "tile" / "0" / "000"
    data = bytearray(tile.read_bytes())
    data[0] ^= 1
    tile.write_bytes(data)
    assert run(copy).returncode != 0
