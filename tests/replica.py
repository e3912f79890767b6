"""A further `broker serve` on a running company's databases, as a second replica of the broker."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from broker.client import BrokerClient
from broker.dev.layout import HOST, free_port
from broker.dev.serving import ServeProcess
from broker.dev.world import World


class Replica:
    """One `broker serve` beside the company's own."""

    def __init__(self, world: World, serve: ServeProcess, settings: Path, ports: Mapping[str, int]) -> None:
        """Takes whose, which process, what it read and where it listens."""
        self.world = world
        self.serve = serve
        self.settings = settings
        self.ports = ports

    def client(self, subject: str, *, tool: str = "desk", timeout: float = 5.0) -> BrokerClient:
        """Makes a tool's client of this replica."""
        tls = self.world.layout.client_tls(f"tool-{tool}")
        return BrokerClient(
            f"{HOST}:{self.ports['access']}",
            ca_file=tls.ca_file,
            cert_file=tls.cert_file,
            key_file=tls.key_file,
            token_source=lambda: self.world.layout.token(subject, tool),
            timeout=timeout,
        )

    def listens(self, port: str = "access") -> bool:
        """Says whether somebody accepts connections on a port."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((HOST, self.ports[port])) == 0


def written(world: World, name: str, changes: Mapping[str, object]) -> tuple[Path, dict[str, int]]:
    """Writes settings like the company's own, with other ports, locks and whatever else is said."""
    old = world.layout.ports()
    ports = {role: free_port() for role in old}
    text = world.layout.settings_file.read_text("utf-8")
    for role in ("access", "admin"):
        text = text.replace(f"port = {old[role]}}}", f"port = {ports[role]}}}")
    lines = [
        line for line in text.splitlines() if line.split(" = ")[0] not in {"http_port", "lock_dir", *changes}
    ]
    lines += [f"http_port = {ports['http']}", f'lock_dir = "{world.folder / f"locks-{name}"}"']
    lines += [f"{key} = {value!r}" for key, value in changes.items()]
    path = world.folder / f"{name}.toml"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return path, ports


@asynccontextmanager
async def replica(
    world: World,
    name: str,
    *,
    environment: Mapping[str, str] | None = None,
    ready: bool = True,
    **changes: object,
) -> AsyncIterator[Replica]:
    """Starts one; stops it at the end, if it still runs.

    Args:
        world: the company.
        name: of its files.
        environment: further variables.
        ready: wait until it is.
        changes: settings.
    """
    settings, ports = written(world, name, {"workers": 1, **changes})
    serve = ServeProcess(
        settings, world.folder / f"{name}.log", http=(HOST, ports["http"]), environment=environment
    )
    await serve.start()
    try:
        if ready:
            await serve.wait_until("/readyz")
        yield Replica(world, serve, settings, ports)
    finally:
        await serve.stop()


def workers(parent: int, role: str = "access") -> dict[int, int]:
    """Gives the children of a parent: index -> process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, IndexError, ValueError):
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if int(stat[1]) == parent and stat[0] != "Z" and command[-3] == role.encode():
                found[int(command[-2])] = int(entry.name)
    return found


def alive(pid: int) -> bool:
    """Says whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def eventually(check, seconds: float = 20.0):
    """Polls until something that other processes do has happened; gives what the check gave."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.01)
    return found


def has_ended(pid: int) -> bool:
    """Says whether a process that is not our child has gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return not alive(pid)
    return True
