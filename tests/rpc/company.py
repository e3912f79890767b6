"""The company that the attacks are tried on: a real `broker serve`, and what stands around it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import tomllib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.dev.ca import DevelopmentAuthority, Issued
from broker.dev.layout import HOST, free_port
from broker.dev.world import World, agent
from broker.server.parent import NOT_FOR
from broker.v1 import access_service_pb2 as pb
from tests.rpc.wire import Answer, Peer

SETTINGS: dict[str, object] = {"denial_events_per_minute": 100_000}
"""Every refusal is recorded by itself, so that each test can look its own up."""

READY = 20.0


class Company:
    """A world, and short words for what attackers and controls do in it."""

    def __init__(self, world: World) -> None:
        """Takes the running world."""
        self.world = world
        self.authority: DevelopmentAuthority = world.layout.authority()
        self._tickets = itertools.count(1)
        self._auditor: asyncpg.Connection | None = None
        self._issued: dict[str, Issued] = {}
        self.stack = contextlib.AsyncExitStack()

    # --- who calls -----------------------------------------------------------------------------------
    def issued(self, name: str) -> Issued:
        """Gives the certificate of `tool-desk`, `tool-phone`, `admin` or `feed`."""
        if name not in self._issued:
            tls = self.world.layout.client_tls(name)
            key: Any = load_pem_private_key(tls.key_file.read_bytes(), None)
            self._issued[name] = Issued(x509.load_pem_x509_certificate(tls.cert_file.read_bytes()), key)
        return self._issued[name]

    def token(self, subject: str, tool: str = "desk", **more: Any) -> str:
        """Makes an agent's access token."""
        return self.world.layout.token(subject, tool, **more)

    def peer(
        self, subject: str = "", certificate: str | Issued | None = "tool-desk", *, target: str = ""
    ) -> Peer:
        """Connects to the access port, or another target, as an agent at a tool."""
        issued = self.issued(certificate) if isinstance(certificate, str) else certificate
        tool = certificate.removeprefix("tool-") if isinstance(certificate, str) else "desk"
        token = self.token(subject, tool) if subject else ""
        return Peer(target or self.world.access_target, self.authority.cert_pem, issued, token)

    def admin(self, certificate: str | Issued = "admin", person: str = "") -> Peer:
        """Connects to the admin port, for a person where a service is personal."""
        peer = self.peer("", certificate, target=self.world.admin_target)
        peer.token = self.world.layout.admin_token(person) if person else ""
        return peer

    # --- what there is -------------------------------------------------------------------------------
    async def ticket(
        self,
        assignee: str | None = "alice",
        *,
        customers: tuple[str, ...] = ("5",),
        kind: str = "general",
        opened_by: str = "customer",
        assigned_by: str = "queue",
        closed: str = "",
    ) -> str:
        """Opens a ticket in the helpdesk and brings it to the broker; gives its id."""
        desk = self.world.helpdesk
        name = f"R-{next(self._tickets)}"
        by = agent(assigned_by) if assigned_by != "queue" else "queue"
        who = agent(assignee) if assignee else None
        opener = opened_by if opened_by in {"customer", "system"} else agent(opened_by)
        opened = desk.open(
            name, customers=customers, kind=kind, opened_by=opener, assignee=who, assigned_by=by
        )
        events = [opened, *([desk.set_status(name, closed)] if closed else [])]
        await self.world.publish(*events)
        return name

    async def grant(self, peer: Peer, ticket: str, *fields: str, **more: Any) -> pb.CreateGrantResponse:
        """Creates a grant that must come about."""
        answer = await peer.call("AccessService/CreateGrant", creation(ticket, *fields, **more))
        assert answer.code == "OK", answer
        return pb.CreateGrantResponse.FromString(answer.data)

    # --- what is on record -----------------------------------------------------------------------------
    async def auditor(self) -> asyncpg.Connection:
        """Gives a connection as the auditor."""
        if self._auditor is None:
            self._auditor = await asyncpg.connect(self.world.dsn("broker_auditor"))
            self.stack.push_async_callback(self._auditor.close)
        return self._auditor

    async def count(self, where: str) -> int:
        """Counts the events of which this holds; `text` is their leaf."""
        events = "SELECT *, convert_from(leaf, 'UTF8') AS text FROM broker.ledger_event"
        columns = where.replace("leaf ", "text ")
        return int(
            await (await self.auditor()).fetchval(f"SELECT count(*) FROM ({events}) AS e WHERE {columns}")
        )

    async def event(self, decision_id: str) -> dict[str, Any] | None:
        """Gives the ledger's leaf of a decision, as the auditor reads it; None: there is none."""
        auditor = await self.auditor()
        leaf = await auditor.fetchval(
            "SELECT leaf FROM broker.ledger_event WHERE id = $1", uuid.UUID(decision_id)
        )
        return None if leaf is None else json.loads(leaf)

    async def recorded(self, answer: Answer) -> dict[str, Any]:
        """Gives the leaf of a refusal, which must be on record with its reason."""
        leaf = await self.event(answer.decision_id)
        assert leaf is not None, answer
        assert (leaf["outcome"], leaf["reason"]) == ("refused", answer.reason)
        return leaf

    def settings(self) -> dict[str, Any]:
        """Gives the settings that the server was started with."""
        return tomllib.loads(self.world.layout.settings_file.read_text("utf-8"))

    @property
    def listener(self) -> dict[str, Any]:
        """Gives the settings of the access port."""
        found: dict[str, Any] = self.settings()["access"]
        return found

    @property
    def access_port(self) -> int:
        """Gives the access port's number."""
        return int(self.world.access_target.rpartition(":")[2])

    # --- further workers -------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def worker(
        self,
        patch: str = "",
        *,
        role: str = "access",
        settings: Mapping[str, object] | None = None,
        port: int = 0,
    ) -> AsyncIterator[Worker]:
        """Runs another worker on this company's databases, with a fault planted in it."""
        read = self.settings()
        port = port or free_port()
        read |= dict.fromkeys(NOT_FOR[role], "") | dict(settings or {})
        read[role] |= {"port": port}
        worker = Worker(role, f"{HOST}:{port}")
        await worker.start(patch, read, self.world.folder)
        try:
            yield worker
        finally:
            await worker.stop()


class Worker:
    """One child of `broker serve` without its parent."""

    def __init__(self, role: str, target: str) -> None:
        """Takes what it is and where it listens."""
        self.role = role
        self.target = target
        self.why = "starting"

    async def start(self, patch: str, settings: Mapping[str, object], folder: Path) -> None:
        """Starts it; returns when it is ready."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
        code = f"{patch}\nimport sys\nfrom broker.server.worker import main\nsys.exit(main())"
        self.log = folder / f"worker-{self.target.rpartition(':')[2]}.log"
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, self.role, "0",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env={**kept, "GRPC_VERBOSITY": "NONE"},
            )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(settings).encode() + b"\n")  # left open: its end is our death
        self._watch = asyncio.create_task(self._follow())
        await self.until("")

    async def until(self, why: str) -> None:
        """Waits until it says that this is why it is not ready; "" for ready."""
        async with asyncio.timeout(READY):
            while self.why != why:
                assert self._process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)

    async def _follow(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.why = json.loads(line)["why"]

    @property
    def pid(self) -> int:
        """Gives its process id."""
        return self._process.pid

    def terminate(self) -> None:
        """Asks it to drain, as its parent would."""
        self._process.terminate()

    async def wait(self) -> int:
        """Waits for its end; gives the exit code."""
        async with asyncio.timeout(READY):
            return await self._process.wait()

    async def stop(self) -> None:
        """Ends it."""
        if self._process.returncode is None:
            self._process.terminate()
        await self.wait()
        await self._watch


def creation(
    ticket: str, *fields: str, purpose: str = "resolve-ticket", **more: Any
) -> pb.CreateGrantRequest:
    """Writes the request for a grant."""
    return pb.CreateGrantRequest(
        request_id=str(uuid.uuid4()),
        ticket_id=ticket,
        purpose=purpose,
        fields=fields or ("customer.name",),
        **more,
    )


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Waits for what another process is about to do."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - nothing of ours tells when
            await asyncio.sleep(0.02)


def memory(pid: int) -> int:
    """Gives a process's resident memory in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    raise AssertionError("no VmRSS")


def children(pid: int) -> dict[str, int]:
    """Gives the workers of a `broker serve` by role."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"broker.server.worker" in words:
            found[words[words.index(b"broker.server.worker") + 1].decode()] = int(child)
    return found
