"""A sample company around a real broker: database, authority, identity provider, helpdesk, `broker serve`.

    async with World.start(customers=200) as world:
        async with world.client("alice") as client:
            record = await client.read("T-1001", ["customer.name"], purpose="resolve-ticket")

For `broker dev`, the demo and every test that wants the real thing. Only identities and data are
samples: transport, tokens, feed, policy, guard and ledger are those of production.

Invariants:
- tickets reach the broker as signed events over the admin port, never by a side door;
- one company per folder at a time, kept by a lock that dies with the process;
- what was started here is stopped here, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from broker.client import (
    AdminClient,
    AuditClient,
    BrokerClient,
    ClientError,
    FeedClient,
    PolicyClient,
    UnavailableError,
)
from broker.dev import sample
from broker.dev.databases import Databases, open_databases
from broker.dev.helpdesk import STATE_NAME, Helpdesk, assignment
from broker.dev.layout import AGENT_ISSUER, FEED_ID, HOST, Layout
from broker.dev.sample import AGENTS, SampleAgent, SampleData, SampleTicket
from broker.dev.serving import READY_TIMEOUT, ServeProcess
from broker.errors import StartupError
from broker.keys import write_durably
from broker.model import Agent

HEARTBEAT_INTERVAL = 5.0
"""Seconds between heartbeats; the settings allow a minute of silence."""

TOKEN_LIFE = 900.0
"""Seconds that a client's token is used before it is made anew; the issuer's last an hour."""


def agent(subject: str) -> Agent:
    """Names an agent of the sample company."""
    return Agent(AGENT_ISSUER, subject)


class World:
    """The running company; made by `World.start`."""

    def __init__(self, layout: Layout, databases: Databases, helpdesk: Helpdesk, serve: ServeProcess) -> None:
        """Takes the parts; `start` puts them together."""
        self.layout = layout
        self.folder = layout.folder
        self.databases = databases
        self.helpdesk = helpdesk
        self.serve = serve
        self._feed_lock = asyncio.Lock()
        self._is_known = False  # whether the broker has heard of this helpdesk's tickets
        self._beats: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        folder: Path | None = None,
        *,
        customers: int = 200,
        agents: Sequence[SampleAgent] = AGENTS,
        seed: int = sample.SEED,
        workers: int = 1,
        separate_records: bool = False,
        fsync: bool = True,
        serving: bool = True,
        usual_ports: bool = False,
        settings: Mapping[str, object] | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> AsyncIterator[World]:
        """Starts a company, or the one that the folder holds.

        Args:
            folder: where it is kept; None: a temporary one, removed at the end.
            customers: how many, on the first start.
            agents: who works there.
            seed: of the sample data.
            workers: access processes of `broker serve`.
            separate_records: keep the records in a database of their own.
            fsync: off only where losing the data is fine.
            serving: start `broker serve`; else `start_serving` does it later.
            usual_ports: prefer the documented ports.
            settings: further settings of `broker serve`, by their names in the file.
            progress: told what is done now.
        """
        async with AsyncExitStack() as stack:
            if folder is None:
                folder = Path(tempfile.mkdtemp(prefix="broker-world-"))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                temporary = True
            else:
                temporary = False
            layout = Layout(folder)
            layout.make()
            stack.enter_context(_locked(layout))
            if temporary:
                stack.callback(shutil.rmtree, layout.postgres_folder().parent, ignore_errors=True)
            layout.save_agents({each.subject: each for each in agents})
            draw = partial(sample.draw, customers, agents=agents, seed=seed)
            databases, data = await open_databases(
                layout, draw, separate_records=separate_records, fsync=fsync, progress=progress
            )
            stack.push_async_callback(asyncio.to_thread, databases.server.stop)
            helpdesk = _open_helpdesk(layout, data)
            ports = layout.choose_ports(usual=usual_ports)
            layout.write_settings(databases.settings(), workers=workers, extra=settings or {})
            serve = ServeProcess(layout.settings_file, layout.serve_log, http=(HOST, ports["http"]))
            world = cls(layout, databases, helpdesk, serve)
            world._is_known = data is None
            stack.push_async_callback(world.stop)
            if serving:
                await world.start_serving(progress=progress)
            layout.built.touch()
            yield world

    async def start_serving(
        self, *, progress: Callable[[str], None] = lambda _: None, heartbeats: bool = True
    ) -> None:
        """Starts `broker serve`, brings the helpdesk's tickets to it and waits until it is ready."""
        progress("Starting broker serve")
        await self.serve.start()
        await self.serve.wait_until("/healthz")
        progress("Bringing tickets and assignments to the broker")
        await self.catch_up()
        if heartbeats:
            self._beats = asyncio.create_task(self._keep_beating())
        await self.serve.wait_until("/readyz")

    async def stop(self) -> None:
        """Stops the heartbeats and `broker serve`; database and folder stay."""
        if self._beats is not None:
            self._beats.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beats
            self._beats = None
        await self.serve.stop()

    # --- where and as whom -------------------------------------------------------------------------
    @property
    def access_target(self) -> str:
        """Gives `host:port` of the tools' port."""
        return f"{HOST}:{self.layout.ports()['access']}"

    @property
    def admin_target(self) -> str:
        """Gives `host:port` of the administrators' port."""
        return f"{HOST}:{self.layout.ports()['admin']}"

    def dsn(self, role: str = "") -> str:
        """Gives the DSN of the broker's database, as a role or as the superuser."""
        return self.databases.dsn(role)

    def records_dsn(self, role: str = "") -> str:
        """Gives the DSN of the records database, as a role or as the superuser."""
        return self.databases.records_dsn(role)

    def client(self, subject: str, *, tool: str = "desk", timeout: float = 5.0) -> BrokerClient:
        """Makes the client of a tool with an agent at its keyboard."""
        tls = self.layout.client_tls(f"tool-{tool}")
        kept: list[tuple[str, float]] = []

        def token() -> str:
            if not kept or time.time() > kept[0][1]:
                kept[:] = [(self.layout.token(subject, tool), time.time() + TOKEN_LIFE)]
            return kept[0][0]

        return BrokerClient(
            self.access_target,
            ca_file=tls.ca_file,
            cert_file=tls.cert_file,
            key_file=tls.key_file,
            token_source=token,
            timeout=timeout,
        )

    def admin(self) -> AdminClient:
        """Makes the client of an incident responder."""
        tls = self.layout.client_tls("admin")
        return AdminClient(
            self.admin_target, ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file
        )

    def policy(self, name: str, *, timeout: float = 5.0) -> PolicyClient:
        """Makes the client of an administrator at a console, as `anna`."""
        tls = self.layout.client_tls("console")
        return PolicyClient(
            self.admin_target,
            ca_file=tls.ca_file,
            cert_file=tls.cert_file,
            key_file=tls.key_file,
            token_source=lambda: self.layout.admin_token(name),
            timeout=timeout,
        )

    def audit(self, name: str = "audrey", *, timeout: float = 5.0) -> AuditClient:
        """Makes the client of an auditor at a console."""
        tls = self.layout.client_tls("console")
        return AuditClient(
            self.admin_target,
            ca_file=tls.ca_file,
            cert_file=tls.cert_file,
            key_file=tls.key_file,
            token_source=lambda: self.layout.admin_token(name),
            timeout=timeout,
        )

    def feed(self) -> FeedClient:
        """Makes the helpdesk's client."""
        tls = self.layout.client_tls("feed")
        return FeedClient(
            self.admin_target, ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file
        )

    # --- the helpdesk ------------------------------------------------------------------------------
    async def publish(self, *events: str) -> list[str]:
        """Brings events of `world.helpdesk` to the broker, in their order; gives what became of each.

        Sign them in the very call: `await world.publish(world.helpdesk.close("T-1"))`, so that no
        heartbeat in between counts an event that was not sent yet.
        """
        async with self._feed_lock, self.feed() as feed:
            # Remembered first: if we die before the broker has them, the next start sees the gap.
            self.helpdesk.save(self.layout.helpdesk)
            return await feed.publish(events)

    async def catch_up(self) -> None:
        """Waits for the admin port; brings it everything where something is missing."""
        loop = asyncio.get_running_loop()
        end = loop.time() + READY_TIMEOUT
        while True:
            try:
                if not self._is_known:
                    await self._resync()
                await self.beat()
            except UnavailableError:
                if self.serve.returncode is not None or loop.time() > end:
                    raise StartupError(
                        f"the admin port does not answer:\n{self.serve.last_words()}"
                    ) from None
                await asyncio.sleep(0.05)
            else:
                return

    async def beat(self) -> None:
        """Sends a heartbeat, and a snapshot where the broker misses events."""
        if await self._is_behind():
            await self._resync()
            # A heartbeat counts where its second is later than that of the one before.
            await asyncio.sleep(1 - time.time() % 1)
            await self._is_behind()

    async def _is_behind(self) -> bool:
        async with self._feed_lock, self.feed() as feed:
            return (await feed.heartbeat(self.helpdesk.heartbeat())).resync_needed

    async def _resync(self) -> None:
        async with self._feed_lock, self.feed() as feed:
            await feed.resync(self.helpdesk.snapshot())
            self._is_known = True

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_INTERVAL)
            # Whoever stopped the broker knows; a feed goes on and is heard when it is back.
            with contextlib.suppress(ClientError):
                await self.beat()


def _open_helpdesk(layout: Layout, data: SampleData | None) -> Helpdesk:
    """Opens the helpdesk; on a first start it opens every sample ticket."""
    if data is None and (layout.helpdesk / STATE_NAME).exists():
        return Helpdesk.restore(layout.helpdesk, time.time)
    helpdesk = Helpdesk(FEED_ID, time.time)
    for ticket in data.tickets if data else ():
        open_ticket(helpdesk, ticket)
    for name in layout.helpdesk.iterdir():
        name.unlink()
    helpdesk.save(layout.helpdesk)
    write_durably(layout.helpdesk_jwks, helpdesk.jwks().encode())
    return helpdesk


def open_ticket(helpdesk: Helpdesk, ticket: SampleTicket) -> list[str]:
    """Opens a sample ticket with its assignments; gives the events."""
    opened_by = ticket.opened_by if ticket.opened_by in {"customer", "system"} else agent(ticket.opened_by)
    opened = helpdesk.open(
        ticket.ticket_id, customers=ticket.customers, kind=ticket.kind, opened_by=opened_by
    )
    assignments = [
        assignment(
            agent(each.subject),
            "queue" if each.assigned_by == "queue" else agent(each.assigned_by),
            each.relation,
        )
        for each in ticket.assignments
    ]
    return [opened, helpdesk.assign(ticket.ticket_id, *assignments)]


@contextlib.contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Keeps two starts in one folder apart; a crash frees the lock.

    Raises:
        StartupError: another one runs there.
    """
    descriptor = os.open(layout.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StartupError(f"a `broker dev` runs in {str(layout.folder)!r} already") from None
    try:
        yield
    finally:
        os.close(descriptor)
