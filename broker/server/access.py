"""Composition of an access worker: builds each object once, serves, drains."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial

from broker.access import (
    Access,
    Disclosure,
    GrantCreation,
    OneStatement,
    OpenGrants,
    RecordReading,
    Refusals,
    SideBySide,
    share_database,
)
from broker.authn import AgentVerifier, Authenticator, RevokedSerials, ToolVerifier, open_sources
from broker.database import open_pool
from broker.errors import StartupError
from broker.grants import GrantTokens
from broker.keys import SigningKeys
from broker.ledger import DenialRate, EventIds, GrantStore, Ledger
from broker.policy.tally import Tally
from broker.records import READER_SETTINGS, RecordReader
from broker.rpc.access import METHOD_NAMES, AccessService
from broker.rpc.chain import Chain
from broker.rpc.gates import AccessGate
from broker.rpc.limits import PeerLimits
from broker.server.parts import close, open_telemetry, record_rest, sign_root, steady_clock, until_there
from broker.server.policies import WorkerReport, open_worker_policies
from broker.server.ports import Port, authorities_of
from broker.server.trust import TrustWatch
from broker.server.watch import Watch
from broker.server.worker import Report
from broker.settings import Settings
from broker.shadowing import Shadowing
from broker.telemetry import Metrics
from broker.tickets import Tickets


async def run(settings: Settings, report: Report, stop: asyncio.Event) -> None:
    """Serves the access port until told to stop."""
    if settings.access is None or settings.keys_dir is None:
        raise StartupError("settings are missing: access, keys_dir")
    async with AsyncExitStack() as stack:
        pool = await until_there(
            "broker database",
            partial(
                open_pool, settings.dsn, name="broker-access", min_size=2, max_size=8,
                settings={"plan_cache_mode": "force_generic_plan"},
            ),
            report, stop,
        )  # fmt: skip
        stack.push_async_callback(close, pool)
        clock = await steady_clock(pool, report, stop)
        reader_pool = await until_there(
            "records database",
            partial(
                open_pool, settings.reader_dsn, name="broker-reader", min_size=2, max_size=6,
                settings=READER_SETTINGS,
            ),
            report, stop,
        )  # fmt: skip
        stack.push_async_callback(close, reader_pool)

        metrics = Metrics(METHOD_NAMES)
        telemetry = await open_telemetry(settings.dsn, metrics, stack, report, stop)

        keys = SigningKeys(settings.keys_dir, clock)
        store, holder = await open_worker_policies(pool, settings, keys, stack, report, stop)
        records = RecordReader(reader_pool, holder.current.catalog)
        holder.follow(lambda policy: records.use(policy.catalog))
        await until_there("records guard", records.verify_role, report, stop)

        ids = EventIds()
        ledger = Ledger(
            pool,
            partial(sign_root, keys, clock),
            clocks=(time.time, clock),
            on_group=metrics.group_size.observe,
            on_failure=lambda _: metrics.append_failures.inc(),
        )
        refusals = Refusals(ledger, ids, DenialRate(settings.denial_events_per_minute, time.monotonic))
        tickets = Tickets(pool)
        audiences = {tool.identity: tool.audiences for tool in settings.tools}
        side_by_side = SideBySide(ledger, records)
        disclosure: Disclosure = side_by_side
        if await until_there("databases", partial(share_database, pool, reader_pool), report, stop):
            disclosure = one_statement = OneStatement(reader_pool, ledger, records, side_by_side)
            stack.push_async_callback(one_statement.close)
        opened = OpenGrants(lambda: datetime.fromtimestamp(clock(), UTC))
        shadow = Tally()
        await stack.enter_async_context(Shadowing(settings.dsn, shadow))
        grants = GrantStore(pool)
        tokens = GrantTokens(keys, settings.issuer, clock)
        access = Access(
            creation=GrantCreation(
                policy=holder,
                tickets=tickets,
                records=records,
                ledger=ledger,
                tokens=tokens,
                refusals=refusals,
                ids=ids,
                opened=opened,
                shadow=shadow,
                audience=settings.issuer,
                audiences=lambda tool: audiences.get(tool, ()),
                grant_seconds=settings.grant_seconds,
            ),
            reading=RecordReading(
                policy=holder,
                tickets=tickets,
                disclosure=disclosure,
                ledger=ledger,
                store=grants,
                tokens=tokens,
                refusals=refusals,
                ids=ids,
                opened=opened,
                shadow=shadow,
                audience=settings.issuer,
            ),
            tickets=tickets,
            store=grants,
            ids=ids,
            opened=opened,
        )
        sources = open_sources(settings.issuers)
        for source in sources.values():
            await until_there("issuer keys", source.start, report, stop)
            stack.push_async_callback(source.close)
        revoked, authorities = RevokedSerials(settings.revoked_serials_file), authorities_of(settings.access)
        tools = ToolVerifier(
            settings.trust_domain,
            audiences.__contains__,
            clock,
            dns_identities=settings.dns_identities,
            revoked=revoked,
            authorities=authorities,
        )
        agents = AgentVerifier(settings.issuers, sources, clock)
        chain = Chain(
            gate=AccessGate(Authenticator(tools, agents, settings.tools)),
            telemetry=telemetry,
            metrics=metrics,
            refusals=refusals,
            ids=ids,
            limits=PeerLimits(
                rate=settings.peer_rate, concurrency=settings.peer_concurrency, clock=time.monotonic
            ),
            call_timeout=settings.call_timeout,
        )
        port = Port("access", settings.access, chain, shared=settings.workers > 1)
        port.add(AccessService(access, keys.jwks).methods())
        if settings.reflection:
            port.add_reflection()
        await port.start()

        watch = Watch(
            port=port,
            holder=holder,
            reporting=WorkerReport(store, holder, records),
            records=records,
            ledger=ledger,
            tickets=tickets,
            refusals=refusals,
            trust=TrustWatch(
                metrics,
                {
                    "client_authorities": [authorities.trouble] if authorities else [],
                    "issuer_keys": [source.trouble for source in sources.values()],
                    "revoked_serials": [revoked.trouble],
                    "signing_keys": [keys.trouble],
                },
            ),
            metrics=metrics,
            feeds=settings.feeds,
        )
        await watch.run(report, stop)

        report("draining")
        await port.drain(settings.drain_seconds)
        await record_rest(refusals)
        await ledger.drain()
