"""Whoever takes trust away hears whether it was taken: a source that cannot be read raises an alert."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time

import pytest
from prometheus_client import CollectorRegistry

from broker.keys import KeyFolder, SigningKeys
from broker.server.trust import TrustWatch
from broker.telemetry import Metrics
from tests.replica import eventually, replica

ALERT = 'broker_trust_alert{{source="{}"}} {}'


async def test_each_change_is_logged_once(tmp_path, caplog):
    """Wrong, wrong otherwise, right again: three lines, and the gauge follows."""
    folder = KeyFolder(tmp_path / "keys")
    folder.rotate(time.time(), immediately=True)
    now = [time.time()]
    keys = SigningKeys(folder, lambda: now[0])
    registry = CollectorRegistry()
    watch = TrustWatch(Metrics(registry=registry), {"signing_keys": [str, keys.trouble]})
    manifest = folder.folder / "manifest.json"
    good = manifest.read_bytes()
    shown = []
    with caplog.at_level(logging.INFO, "broker.server.trust"):
        for content in (good, b"{}", b"{}", b"[", good, good):
            manifest.write_bytes(content)
            now[0] += 2
            watch.look()
            shown.append(registry.get_sample_value("broker_trust_alert", {"source": "signing_keys"}))

    assert shown == [0, 1, 1, 1, 0, 0]
    assert [(r.levelname, r.file) for r in caplog.records] == [
        ("ERROR", "signing_keys"),
        ("ERROR", "signing_keys"),
        ("INFO", "signing_keys"),
    ]
    assert str(manifest) in caplog.records[0].reason


@pytest.mark.asyncio(loop_scope="session")
async def test_access_worker_and_admin_process_tell(world):
    """A deny list and a manifest of signing keys that go wrong are an alert in both, and no outage."""
    revoked = world.folder / "revoked-serials"
    revoked.write_text("")
    keys = world.folder / "keys-of-trust"
    shutil.copytree(world.layout.keys, keys)
    async with replica(world, "trust", revoked_serials_file=str(revoked), keys_dir=str(keys)) as other:
        for source in ("revoked_serials", "signing_keys", "feed_keys", "issuer_keys", "client_authorities"):
            await metric(other, ALERT.format(source, "0.0"))
        revoked.write_text("Serial Number: 1234\n")
        (keys / "manifest.json").write_text("{}")
        for source in ("revoked_serials", "signing_keys"):
            await metric(other, ALERT.format(source, "1.0"))
        # the access worker and the admin process
        await eventually(lambda: said(other) == ["revoked_serials"] * 2 + ["signing_keys"] * 2)
        assert await other.serve.status("/readyz") == 200


def said(broker) -> list[str]:
    """Gives the sources that a broker's log calls wrong."""
    text = (broker.settings.parent / "trust.log").read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]
    return sorted(line["file"] for line in lines if line["level"] == "error" and "file" in line)


async def metric(broker, line: str, seconds: float = 10.0) -> None:
    """Waits until the metrics hold a line."""
    end = time.monotonic() + seconds
    while line not in (await broker.serve.get("/metrics"))[1]:
        assert time.monotonic() < end, line
        await asyncio.sleep(0.05)
