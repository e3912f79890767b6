"""What the admin process and the access workers do about policies: first one, news, and who has which."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg

from broker.errors import BrokerError, PolicyInvalidError, PolicyUnavailableError, StartupError
from broker.keys import SigningKeys
from broker.ledger import EventIds
from broker.policy import AdminTable, Policy
from broker.policy.bundle import Bundle
from broker.policy.listener import PolicyListener
from broker.policy.seal import Seals
from broker.policy.store import PolicyHolder, PolicyStore
from broker.publishing import Child, ChildExaminer, Founding, GuardCheck, Publisher, Questions, Reading
from broker.records import RecordReader
from broker.records.shape import Shape, shape_text
from broker.rpc.admin import METHOD_NAMES
from broker.rpc.calls import Method
from broker.rpc.policy import PolicyService
from broker.rpc.policy_questions import PolicyQuestions
from broker.rpc.policy_shadows import PolicyShadows
from broker.server.parts import until_there
from broker.server.worker import Report
from broker.settings import Settings
from broker.shadowing import Shadows

log = logging.getLogger(__name__)

REPORT = 10.0
"""Seconds between a worker's words on its version and on the guard."""


@dataclass(frozen=True, slots=True)
class AdminPolicies:
    """The policy in force, and the service that changes it."""

    holder: PolicyHolder
    methods: Sequence[Method[Any, Any]]


async def open_admin_policies(
    pool: asyncpg.Pool,
    settings: Settings,
    ids: EventIds,
    keys: SigningKeys,
    clock: Callable[[], float],
    report: Report,
    stop: asyncio.Event,
) -> AdminPolicies:
    """Waits for a policy, on a new database that of `policies_dir`, and makes what publishes others."""
    names = [f"/{name}" for name in METHOD_NAMES]
    store = PolicyStore(pool, Seals(keys.known, settings.issuer))
    founding = Founding(pool=pool, ids=ids, keys=keys, issuer=settings.issuer, clock=clock, methods=names)
    await until_there("policy", partial(_bootstrap, store, founding, settings), report, stop)
    holder = PolicyHolder(store)  # without a bound: whoever mends a policy needs the table that lets them
    await until_there("policy", partial(first_policy, holder), report, stop)
    reading = Reading(pool)
    # A child of their own: no question, and many may ask, keeps an examination waiting.
    questions = Questions(Child(), dsn=settings.admin_dsn, methods=names, clock=clock)
    publisher = Publisher(
        pool=pool,
        store=store,
        ids=ids,
        keys=keys,
        issuer=settings.issuer,
        clock=clock,
        examine=ChildExaminer(),
        methods=names,
        check_guard=GuardCheck(reading),
        replay=questions.replay_days,
    )
    methods = (
        *PolicyService(holder, store, publisher, reading).methods(),
        *PolicyQuestions(store, publisher, questions).methods(),
        *PolicyShadows(Shadows(pool, ids, questions.hold), publisher).methods(),
    )
    return AdminPolicies(holder, methods)


async def open_worker_policies(
    pool: asyncpg.Pool,
    settings: Settings,
    keys: SigningKeys,
    stack: AsyncExitStack,
    report: Report,
    stop: asyncio.Event,
) -> tuple[PolicyStore, PolicyHolder]:
    """Waits for a policy, and hears of the next ones from then on."""
    store = PolicyStore(pool, Seals(keys.known, settings.issuer))
    holder = PolicyHolder(store, longest=settings.policy_confirm_seconds)
    await until_there("policy", partial(first_policy, holder), report, stop)
    listen(settings.dsn, holder, "broker-access", stack)
    return store, holder


def listen(dsn: str, holder: PolicyHolder, name: str, stack: AsyncExitStack) -> None:
    """Hears of new policies at once, until the stack closes."""
    task = asyncio.create_task(PolicyListener(dsn, holder, name=f"{name}: listener").run())

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


async def first_policy(holder: PolicyHolder) -> None:
    """Loads the first policy.

    Raises:
        PolicyUnavailableError: there is none, or it is not to be served.
    """
    await holder.refresh()
    if not holder.loaded:
        raise PolicyUnavailableError(cause=holder.alert)


def tell_of_missing(table: AdminTable, names: Sequence[str]) -> None:
    """Says which RPCs of this release the version in force lets nobody call; a new version mends it."""
    for name in table.missing(names):
        log.error("admin.csv has no row for a method: nobody may call it", extra={"method": name})


class WorkerReport:
    """Says which version this worker has and which guard it reads through: on every swap, and in between."""

    def __init__(
        self,
        store: PolicyStore,
        holder: PolicyHolder,
        records: RecordReader,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes what it tells of."""
        self._store = store
        self._holder = holder
        self._records = records
        self._steady = steady
        self._worker = f"{socket.gethostname()}/{os.getpid()}"
        self._said = ""
        self._due = 0.0
        self._at_once: asyncio.Task[bool] | None = None
        holder.follow(self._swapped)

    def _swapped(self, _policy: Policy) -> None:
        self._at_once = asyncio.create_task(self.say())

    async def say(self) -> bool:
        """Says it where something changed or ten seconds are over; what fails is said next time.

        Returns:
            Whether the guard told its shape, as far as it was asked.
        """
        now, reached = self._steady(), True
        try:
            version = self._holder.current.version
            if version == self._said and now < self._due:
                return True
            shape = await _or_none(self._records.installed_shape)
            reached = shape is not None
            await self._store.report(self._worker, int(version), shape_text(shape) if shape else None)
            self._said, self._due = version, now + REPORT
        except (BrokerError, asyncpg.PostgresError) as exc:
            log.info("version not reported", extra={"reason": type(exc).__name__})
        return reached


async def _or_none(ask: Callable[[], Awaitable[Shape | None]]) -> Shape | None:
    try:
        return await ask()
    except (BrokerError, asyncpg.PostgresError):
        return None


async def _bootstrap(store: PolicyStore, founding: Founding, settings: Settings) -> None:
    """Activates the files of `policies_dir` on an empty database, and only there."""
    if await store.active_version():
        return
    try:
        bundle = Bundle.from_directory(settings.policies_dir)
        await founding.found(bundle, by="broker serve")
    except PolicyInvalidError as exc:
        raise StartupError(f"policies_dir: the policy cannot be the first version\n{exc}") from None
