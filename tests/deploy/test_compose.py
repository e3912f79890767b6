"""What Compose starts comes up: its steps in its order, against a real PostgreSQL, without an engine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import pytest
import yaml

from broker.dev.layout import HOST, free_port
from broker.dev.postgres import EmbeddedPostgres
from broker.dev.serving import ServeProcess
from tests.deploy.test_prepare import DEPLOY, module  # noqa: F401 - a fixture

SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
ROOT = DEPLOY.parent
BIN = Path(sys.executable).parent
FROM_IMAGE = "/srv/broker/policies"
STATE = "/var/lib/broker"


class Machine:
    """What the containers see, in folders of this machine: names and mounts are swapped, nothing else."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres) -> None:
        self.folder = folder
        self.postgres = postgres
        self.prepared = folder / "prepared"

    def config(self, service: str) -> Path:
        """Gives a service's settings as they are on this machine."""
        config = SERVICES[service]["environment"]["BROKER_CONFIG"]
        volume = next(v for v in SERVICES[service]["volumes"] if v.split(":")[1] == str(Path(config).parent))
        mounted = self.prepared / volume.split(":")[0].removeprefix("prepared-")
        path = mounted / Path(config).name
        text = path.read_text("utf-8")
        socket = self.postgres.dsn("broker", "x", "x").partition("?")[2]
        for old, new in (
            ("@postgres:5432/broker", "@/broker"),
            (f"sslmode=verify-full&sslrootcert={Path(config).parent}/ca.crt", socket),
            (f'"{Path(config).parent}/', f'"{mounted}/'),
            (STATE, str(self.prepared / "signing-keys")),
            (FROM_IMAGE, str(ROOT / "policies")),
        ):
            text = text.replace(old, new)
        path = path.with_name(f"here-{path.name}")
        path.touch(mode=0o600)
        path.write_text(text, "utf-8")
        return path

    def run(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs what a service runs that ends by itself."""
        path = f"{BIN}:{os.environ['PATH']}"
        environment = {"PATH": path, "BROKER_CONFIG": str(self.config(service)), "HOME": str(self.folder)}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
        )


@pytest.fixture(scope="module")
def machine(module):  # noqa: F811
    """Prepares the volumes and a server that has run its own start scripts."""
    folder = Path(tempfile.mkdtemp(prefix="broker-compose-"))
    folder.chmod(0o711)
    postgres = EmbeddedPostgres(folder / "pg", fsync=False)
    try:
        # as in the container, but for the owners of files: whoever runs the tests runs all services
        chown, module.os.chown = module.os.chown, lambda *_: None
        try:
            assert module.main(folder / "prepared") == 0
        finally:
            module.os.chown = chown
        postgres.start()
        asyncio.run(start_scripts(postgres, folder / "prepared" / "postgres"))
        yield Machine(folder, postgres)
    finally:
        postgres.remove()
        shutil.rmtree(folder, ignore_errors=True)


async def start_scripts(postgres: EmbeddedPostgres, prepared: Path) -> None:
    """Does what PostgreSQL's image does with a new data folder: makes the database, runs what is mounted."""
    conn = await asyncpg.connect(postgres.dsn())
    await conn.execute(f"CREATE DATABASE {SERVICES['postgres']['environment']['POSTGRES_DB']}")
    password = (prepared / "superuser-password").read_text("utf-8")
    await conn.close()
    conn = await asyncpg.connect(postgres.dsn("broker"))
    mounted = {Path(v.split(":")[1]): DEPLOY / v.split(":")[0] for v in SERVICES["postgres"]["volumes"]}
    scripts = sorted(path for path in mounted if path.parent.name == "docker-entrypoint-initdb.d")
    for script in scripts:
        if script.suffix == ".sql":
            await conn.execute(mounted[script].read_text("utf-8"))
        else:  # it hands psql one file
            assert "/run/prepared/passwords.sql" in mounted[script].read_text("utf-8")
            await conn.execute((prepared / "passwords.sql").read_text("utf-8"))
    await conn.execute(f"ALTER ROLE postgres PASSWORD '{password}'")
    await conn.close()


def before(service: str) -> list[str]:
    """Gives the services that must have ended well before one starts, first ones first."""
    found: list[str] = []
    for name, how in SERVICES[service].get("depends_on", {}).items():
        for earlier in (*before(name), *([name] if how["condition"].endswith("successfully") else [])):
            if earlier not in found:
                found.append(earlier)
    return found


async def test_brokers_come_up_by_what_goes_before_them(machine):
    """Each service that a broker waits for ends well, twice; then a broker is up and lacks its feed alone."""
    steps = [name for name in before("broker-1") if name != "prepare"]
    assert steps == ["migrate", "guard"]
    for _ in range(2):
        for name in steps:
            service = SERVICES[name]
            command = service.get("entrypoint", ["broker"]) + service.get("command", [])
            local = [str(DEPLOY / Path(word).name) if word.startswith("/") else word for word in command]
            done = machine.run(name, *local)
            assert done.returncode == 0, (name, done.stdout, done.stderr)
    keys = json.loads(machine.run("guard", "broker", "keys", "list", "--guard", "--json").stdout)
    assert [key["state"] for key in keys] == ["signing"]

    ports = {f"BROKER_{role}__PORT": str(free_port()) for role in ("ACCESS", "ADMIN")}
    http = (HOST, free_port())
    serve = ServeProcess(
        machine.config("broker-1"),
        machine.folder / "serve.log",
        http=http,
        environment={
            **ports,
            "BROKER_HTTP_PORT": str(http[1]),
            "BROKER_LOCK_DIR": str(machine.folder / "locks"),
        },
    )
    await serve.start()
    try:
        await serve.wait_until("/healthz")
        why = None
        end = time.monotonic() + 20
        while why is None or any("stale" not in text for text in why.values()):
            assert serve.returncode is None, serve.last_words()
            assert time.monotonic() < end, why
            await asyncio.sleep(0.05)
            why = json.loads((await serve.get("/readyz"))[1])["why"]
    finally:
        await serve.stop()

    assert why == {"access-0": "feed https://helpdesk.broker.dev: stale"}
