"""A day at the company with marked customers: what goes well, what is refused, and what breaks.

Whatever the tools were told as an error and whatever tokens they hold is kept, for the search.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from unittest import mock

import grpc

from broker import masking
from broker.client import BrokerCallError, BrokerClient, ClientError
from broker.dev.layout import process_environment
from broker.dev.world import World, agent
from broker.telemetry.logs import JsonFormatter
from broker.v1 import access_service_pb2 as pb
from tests.leaks import marked
from tests.leaks.search import opened, written
from tests.promises.company import client_at, connected, open_ticket, second_broker

PROFILE = ["customer.name", "customer.company", "customer.city", "customer.country", "customer.plan"]
CONTACT = ["customer.email", "customer.phone", "customer.street", "customer.postal_code", "customer.notes"]
BILLING = ["customer.card_number", "customer.iban", "invoice.total", "invoice.status", "invoice.invoice_date"]
IDENTITY = ["customer.birth_date", "customer.id_document"]
DEVICE = ["customer.device_model", "customer.device_serial"]
EVERYTHING = [*PROFILE, *CONTACT, *BILLING, *IDENTITY, *DEVICE]


@dataclass
class Story:
    """What came of it."""

    world: World
    tickets: list[str] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    tokens: list[bytes] = field(default_factory=list)
    disclosed: list[str] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    grants: list[str] = field(default_factory=list)
    log: io.StringIO = field(default_factory=io.StringIO)  # of the broker in this process
    output: dict[str, bytes] = field(default_factory=dict)  # of commands

    async def refused(self, call: Awaitable[object]) -> None:
        """Awaits a call that must fail; keeps everything that the caller hears."""
        try:
            await call
        except grpc.aio.AioRpcError as exc:
            self.keep(exc)
        except ClientError as exc:
            self.reasons.add(getattr(exc, "reason", ""))
            self.errors.append(f"{exc!r} {exc} {vars(exc)!r}".encode())
            if isinstance(exc, BrokerCallError) and exc.decision_id:
                self.decisions.append(exc.decision_id)
        else:
            raise AssertionError("it was not refused")

    def keep(self, exc: grpc.aio.AioRpcError) -> None:
        """Keeps an error as it came over the wire."""
        self.reasons.add(exc.code().name)
        self.errors.append(f"{exc.details()} {exc.debug_error_string()}".encode())
        for key, value in (*(exc.trailing_metadata() or ()), *(exc.initial_metadata() or ())):
            self.errors += [key.encode(), value if isinstance(value, bytes) else value.encode()]

    async def read(self, client: BrokerClient, ticket: str, fields: list[str], purpose: str) -> None:
        """Reads, and keeps values and tokens."""
        record = await client.read(ticket, fields, purpose=purpose)
        self.disclosed += [value for f in record for value in f.values if value]
        self.decisions += [record.decision_id, record.grant.decision_id]
        self.grants.append(record.grant.grant_id)
        self.tokens += [
            opened(record.grant.token.encode()),
            opened(record.receipt.signed_root.encode()),
            record.receipt.leaf,
        ]


async def begin(world: World) -> Story:
    """Brings the marked customers and their tickets."""
    story = Story(world)
    async with connected(world.records_dsn()) as dba:
        await marked.insert(dba)
    assignees = ("alice", "bob", "bella", "amir")
    for number, (customer, who) in enumerate(zip(marked.customer_ids(), assignees, strict=True)):
        ticket = f"ZZ-Geheimvorgang-{number}7"
        story.tickets.append(ticket)
        await open_ticket(world, ticket, customer, who)
    await world.publish(world.helpdesk.change(story.tickets[2], kind="billing"))
    return story


async def go_well(story: Story) -> None:
    """Reads clear and masked, revokes, lists, explains; the ticket changes meanwhile."""
    world, (general, tier2, billing, closing) = story.world, story.tickets
    await world.publish(
        world.helpdesk.reply(tier2), world.helpdesk.call_started(tier2), world.helpdesk.note(general)
    )
    async with world.client("alice") as alice, world.client("bob") as bob, world.client("bella") as bella:
        await story.read(alice, general, [*PROFILE, *CONTACT], "resolve-ticket")
        await story.read(alice, general, PROFILE, "call-back")
        await story.read(bob, tier2, [*PROFILE, *CONTACT, *DEVICE], "resolve-ticket")
        await story.read(bob, tier2, IDENTITY, "verify-identity")
        await story.read(bella, billing, [*PROFILE, *BILLING], "resolve-ticket")
        async for _ in bob.assigned_tickets():
            pass
        for decision in list(story.decisions):
            for client in (alice, bob, bella):
                try:
                    story.errors.append(repr(await client.explain(decision)).encode())
                except BrokerCallError:
                    continue
        grant = await alice.create_grant(general, PROFILE, purpose="resolve-ticket")
        story.tokens.append(opened(grant.token.encode()))
        await alice.status(grant.grant_id)
        await alice.revoke(grant)
        await story.refused(alice.read_with(grant, PROFILE[:1]))
    async with world.client("amir") as amir:
        grant = await amir.create_grant(closing, PROFILE, purpose="resolve-ticket")
        await world.publish(world.helpdesk.close(closing))
        await story.refused(amir.read_with(grant, PROFILE[:1]))


async def be_refused(story: Story) -> None:
    """Asks for what is not theirs, and types people's data into every place of a request."""
    world, (general, *_) = story.world, story.tickets
    texts = [marker.value for marker in marked.markers() if str(marked.FIRST) in marker.name]
    async with world.client("mallory") as mallory, world.client("alice") as alice:
        await story.refused(mallory.create_grant(general, PROFILE, purpose="resolve-ticket"))
        await story.refused(alice.create_grant(general, ["customer.card_number"], purpose="resolve-ticket"))
        await story.refused(alice.create_grant(general, ["customer.nickname"], purpose="resolve-ticket"))
        await story.refused(alice.explain(str(uuid.uuid4())))
        await story.refused(alice.revoke(str(uuid.uuid4())))
        grant = await alice.create_grant(general, PROFILE, purpose="resolve-ticket")
        await story.refused(mallory.read_with(grant, PROFILE))
        await story.refused(alice.read_with(grant, ["customer.email"]))
        for text in texts:
            squeezed = "".join(c for c in text if c.isalnum() and c.isascii())
            for ticket in (text, squeezed):
                await story.refused(alice.create_grant(ticket, PROFILE, purpose="resolve-ticket"))
            await story.refused(alice.create_grant(general, PROFILE, purpose=text))
            await story.refused(alice.create_grant(general, [text], purpose="resolve-ticket"))
            await story.refused(
                alice.create_grant(general, PROFILE, purpose="resolve-ticket", customer_id=squeezed)
            )
            await story.refused(alice.explain(text))
            await story.refused(alice.revoke(text))
            await story.refused(alice.read_with(grant, [text]))
        bearer = ("authorization", f"Bearer {await alice._token()}")
        for text in texts:
            written_as = text.encode("ascii", "ignore").decode()
            for request, metadata in (
                (pb.ReadRecordRequest(grant_token=text, fields=PROFILE), (bearer,)),
                (pb.ReadRecordRequest(grant_token="a.b.c", fields=[text]), (bearer,)),
                (pb.ReadRecordRequest(), (("authorization", f"Bearer {written_as}"),)),
                (pb.ReadRecordRequest(), (bearer, ("x-note", written_as), ("traceparent", written_as))),
            ):
                await story.refused(alice._stub.ReadRecord(request, timeout=5, metadata=metadata))
            for page in (
                pb.CreateGrantRequest(request_id=text, ticket_id=general, purpose="p", fields=PROFILE),
                pb.CreateGrantRequest(
                    request_id=str(uuid.uuid4()), ticket_id=general, purpose="resolve-ticket",
                    fields=PROFILE, audience=text,
                ),
            ):  # fmt: skip
                await story.refused(alice._stub.CreateGrant(page, timeout=5, metadata=(bearer,)))
            listing = pb.ListAssignedTicketsRequest(page_token=text)
            await story.refused(alice._stub.ListAssignedTickets(listing, timeout=5, metadata=(bearer,)))


async def feed_goes_wrong(story: Story) -> None:
    """Sends events that carry more than they may: a helpdesk's tickets are full of people."""
    helpdesk, text = story.world.helpdesk, marked.markers()[0].value
    event = {"type": "ticket", "ticket_id": "ZZ-1", "version": 1, "kind": "general", "status": "open",
             "opened_by": {"by": "customer"}, "customers": ["1"], "assignments": []}  # fmt: skip
    async with story.world.feed() as feed:
        for spoilt in (
            {**event, "subject": text},
            {**event, "ticket_id": text},
            {**event, "kind": text},
            {**event, "status": text},
            {**event, "opened_by": {"by": "agent", "issuer": "i", "subject": text, "name": text}},
        ):
            await story.refused(feed.publish([helpdesk.sign({"seq": helpdesk.seq + 1, **spoilt})]))
        await story.refused(feed.publish([text]))
        await story.refused(feed.heartbeat(text))


async def administer(story: Story) -> None:
    """Suspends, reinstates and revokes, as an incident responder does."""
    async with story.world.admin() as admin, story.world.client("alice") as alice:
        await admin.suspend(agent("alice"), reason="left the building")
        await story.refused(alice.create_grant(story.tickets[0], PROFILE, purpose="resolve-ticket"))
        await admin.reinstate(agent("alice"), reason="came back")
        await admin.revoke_grants(ticket_id=story.tickets[0], reason="drill")
        await story.refused(admin.revoke_grants(grant_id=marked.markers()[0].value, reason="drill"))
        async for suspension in admin.suspensions(ended=True):
            story.errors.append(repr(suspension).encode())


@asynccontextmanager
async def failing_database(world: World, how: Mapping[str, str]) -> AsyncIterator[None]:
    """Lets a DBA break something for a while: what to do, and how to undo it."""
    async with connected(world.dsn()) as dba:
        for statement in how:
            await dba.execute(statement)
        try:
            yield
        finally:
            for undo in reversed(how.values()):
                await dba.execute(undo)


def quoting_failures() -> dict[str, dict[str, str]]:
    """Gives database errors whose texts quote people's rows, each at another statement of the broker."""
    value = marked.markers()[0].value

    def trigger(table: str, when: str) -> dict[str, str]:
        return {
            "CREATE FUNCTION broker.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION 'row of %', '{value}' USING DETAIL = '{value}', HINT = '{value}'; END $$;"
            "GRANT EXECUTE ON FUNCTION broker.fail() TO PUBLIC": "DROP FUNCTION broker.fail()",
            f"CREATE TRIGGER fail {when} ON {table} FOR EACH ROW EXECUTE FUNCTION broker.fail()":
                f"DROP TRIGGER fail ON {table}",
        }  # fmt: skip

    return {
        "the event cannot be written": trigger("broker.ledger_event", "BEFORE INSERT"),
        "the grant cannot be written": trigger("broker.access_grant", "BEFORE INSERT"),
        "the budget cannot be written": {
            **trigger("broker.budget_use", "BEFORE INSERT OR UPDATE"),
            "DELETE FROM broker.budget_use": "SELECT 1",
        },
        "the spans cannot be written": trigger("broker.span_row", "BEFORE INSERT"),
    }


async def break_down(story: Story) -> None:
    """Makes databases and code fail in ways whose errors quote people."""
    world, ticket = story.world, story.tickets[0]
    async with world.client("alice") as alice:
        for name, how in quoting_failures().items():
            grant = await alice.create_grant(ticket, PROFILE, purpose="resolve-ticket")
            async with failing_database(world, how):
                if name == "the spans cannot be written":
                    await story.read(alice, ticket, PROFILE, "resolve-ticket")
                elif name == "the grant cannot be written":
                    await story.refused(alice.create_grant(ticket, PROFILE, purpose="resolve-ticket"))
                else:
                    await story.refused(alice.read_with(grant, PROFILE))
        # A cast in the guard's view fails and says on which value.
        grant = await alice.create_grant(ticket, PROFILE, purpose="resolve-ticket")
        async with connected(world.records_dsn()) as dba:
            view = await dba.fetchval("SELECT pg_get_viewdef('broker_guard.read_customer'::regclass)")
            columns = await dba.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'broker_guard.read_customer'::regclass"
                " AND attnum > 2 ORDER BY attnum"
            )
            names = ", ".join(row["attname"] for row in columns)
            broken = f"SELECT grant_id, name::integer::text AS name, {names} FROM ({view.rstrip(';')}) AS v"
            make = "CREATE OR REPLACE VIEW broker_guard.read_customer WITH (security_barrier = true) AS "
            await dba.execute(make + broken)
            try:
                await story.refused(alice.read_with(grant, PROFILE))
            finally:
                await dba.execute(make + view)
    await break_code(story)


async def break_code(story: Story) -> None:
    """Lets the broker's own code raise with a value in the text, and cancels a read under way."""
    world, ticket = story.world, story.tickets[0]

    def fail(_kind: object, value: str | None) -> str:
        raise ValueError(f"cannot mask {value!r}")

    with captured_log(story.log), mock.patch.object(masking, "mask", fail):
        async with second_broker(world) as target, client_at(world, target, "alice") as alice:
            grant = await alice.create_grant(ticket, CONTACT, purpose="resolve-ticket")
            await story.refused(alice.read_with(grant, CONTACT))
            reading = asyncio.create_task(alice.read_with(grant, CONTACT))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            raised = mock.Mock(side_effect=RuntimeError(marked.markers()[2].value))
            with mock.patch("broker.access.creating.facts_of", raised):
                await story.refused(alice.create_grant(ticket, CONTACT, purpose="resolve-ticket"))


class captured_log:  # noqa: N801 - used like a function
    """Writes what the loggers say, in the broker's format, into a stream as well."""

    def __init__(self, stream: io.StringIO) -> None:
        self.handler = logging.StreamHandler(stream)
        self.handler.setFormatter(JsonFormatter())

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self.handler)
        self.level = logging.getLogger("broker").level
        logging.getLogger("broker").setLevel(logging.INFO)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self.handler)
        logging.getLogger("broker").setLevel(self.level)


async def command(story: Story, *arguments: str) -> None:
    """Runs a command of the broker; keeps what it printed."""
    world = story.world
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker", *arguments,
        env=process_environment(world.layout.settings_file, {"BROKER_DEV_DIR": str(world.layout.folder)}),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    story.output[" ".join(arguments)] = output


async def command_line(story: Story) -> None:
    """Runs the commands that print something, but for the read itself, whose purpose is to show."""
    refused = next(d for d in story.decisions)
    runs = [
        ("access", "tickets", "--agent", "alice"),
        ("access", "explain", refused, "--agent", "alice"),
        ("access", "read", story.tickets[0], "--agent", "mallory", "--fields", "customer.name"),
        ("access", "read", marked.markers()[2].value, "--agent", "alice", "--fields", "customer.name"),
        ("trace", "show", story.grants[0]),
        ("trace", "show", story.grants[0], "--json"),
        ("contain", "list", "--all", "--json"),
        ("feed", "status"),
        ("keys", "list"),
        ("keys", "list", "--guard"),
        ("records", "check"),
    ]
    for start in range(0, len(runs), 2):
        await asyncio.gather(*(command(story, *run) for run in runs[start : start + 2]))


async def stores(story: Story) -> dict[str, bytes]:
    """Gives everything that the broker has kept or said, by where."""
    world = story.world
    async with connected(world.dsn()) as dba:
        tables = await dba.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class AS c"
            " WHERE c.relnamespace = 'broker'::regnamespace AND NOT c.relispartition"
            " AND c.relkind IN ('r', 'p', 'v', 'm', 'S')"
        )
        dump = {row["name"]: written(await dba.fetch(f"SELECT * FROM {row['name']}")) for row in tables}
        # what stands beside rows: comments, and the texts of the broker's last statements
        dump["catalogs"] = written(
            await dba.fetch(
                "SELECT description FROM pg_description UNION ALL SELECT query FROM pg_stat_activity"
                " WHERE datname = current_database() AND usename LIKE 'broker%'"
            )
        )
    async with connected(world.records_dsn()) as dba:
        kept = ("match_quota", "installation", "install_step")  # not salts: they are by customer, and alone
        guard = [written(await dba.fetch(f"SELECT * FROM broker_guard.{name}")) for name in kept]
        guard.append(written(await dba.fetch(
            "SELECT query FROM pg_stat_activity WHERE usename LIKE 'broker%'"
        )))  # fmt: skip
    server_log = world.layout.serve_log.read_bytes() + story.log.getvalue().encode()
    return {
        "server log": server_log + world.databases.server.log.read_bytes(),
        "broker database": b"\n".join(dump.values()),
        "guard": b"\n".join(guard),
        "spans": dump["broker.span"],
        "ledger": dump["broker.ledger_event"],
        "metrics": (await world.serve.get("/metrics"))[1].encode(),
        "errors": b"\n".join(story.errors),
        "tokens": b"\n".join(story.tokens),
        "commands": b"\n".join(story.output.values()),
    }
