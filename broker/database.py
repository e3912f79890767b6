"""The only door to PostgreSQL: pools, one `transaction()`, named queries, migrations, batches.

Invariants:
- settings of a session travel in `server_settings` (they survive a release; `init=` does not);
- nobody waits without a bound: connect, acquire and every statement have a timeout;
- a driver error becomes one of ours here, once; its text (it can quote rows) is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import aiosql
import asyncpg

from broker.errors import BrokerError, DatabaseUnavailableError, RequestMalformedError, StartupError

T = TypeVar("T")
R = TypeVar("R")
Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

ACQUIRE_TIMEOUT = 2.0
"""Seconds to wait for a free connection before the call is refused, so that calls never pile up."""

CONNECT_TIMEOUT = 3.0
"""Seconds to wait for a new connection; a black-holed server must not hold a start or a read."""

UNREACHABLE: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # closed to connections
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
)
"""What says that the database, not the statement, is at fault."""


class Queries:
    """The named statements of one `sql/<noun>.sql`, as attributes holding SQL text."""

    def __init__(self, noun: str) -> None:
        """Reads the file that ships with the package."""
        text = files("broker").joinpath("sql", f"{noun}.sql").read_text("utf-8")
        loaded = aiosql.from_str(text, "asyncpg", mandatory_parameters=False)
        self._sql = {name: getattr(loaded, name).sql for name in loaded.available_queries}

    def __getattr__(self, name: str) -> str:
        """Gives the statement of that name."""
        try:
            return str(self._sql[name])
        except KeyError:
            raise AttributeError(name) from None


@cache
def queries(noun: str) -> Queries:
    """Loads the named statements of a noun, once per process."""
    return Queries(noun)


def check_dsn(dsn: str, name: str) -> None:
    """Refuses a DSN that leaves this machine without a verified server certificate.

    Where the driver would go is read as the driver reads it: the address first, then `host` (of what stands
    twice the last), then PGHOST.

    Raises:
        StartupError: a host is not local and `sslmode` is not `verify-full`, or it stands outside of the DSN.
    """
    parts = urlsplit(dsn)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise StartupError(f"{name}: not a DSN; write postgresql://user:password@host:port/database")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    user, at, address = parts.netloc.partition("@")
    named = (address if at else user) or query.get("host", "")
    elsewhere = [host for host in map(_host, named.split(",")) if not _is_local(host)]
    if elsewhere and query.get("sslmode") != "verify-full":
        host = elsewhere[0].rpartition("@")[2]  # before it: what of a password was not encoded
        raise StartupError(f"{name}: host {host!r} is not local; add ?sslmode=verify-full to the DSN")
    outside = "" if named else os.environ.get("PGHOST", "")
    if "service" in query or not all(map(_is_local, map(_host, outside.split(",")))):
        raise StartupError(f"{name}: its host comes from PGHOST or a service file; name it in the DSN")


def _host(text: str) -> str:
    """Gives a host without its port; `[::1]:5432` is an IPv6 address, `/run` a folder of sockets."""
    text = unquote(text)
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text if text.startswith("/") else text.partition(":")[0]


def _is_local(host: str) -> bool:
    return host.startswith("/") or host in {"", "localhost", "127.0.0.1", "::1"}


def session_settings(
    name: str, statement_timeout: float, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Gives what every session of ours is set to, in a pool or alone.

    Args:
        name: `application_name`, seen by the database's operator.
        statement_timeout: seconds, for a statement, a lock and a transaction that does nothing.
        more: further server settings.
    """
    millis = str(int(statement_timeout * 1000))
    return {
        "application_name": name,
        "statement_timeout": millis,
        "lock_timeout": millis,
        "idle_in_transaction_session_timeout": millis,
        "timezone": "UTC",
        "jit": "off",
        # Whatever the role or the database is set to: an answer waits for its commit to be durable,
        # and behind a lock a statement sees what the last holder committed.
        "synchronous_commit": "on",
        "default_transaction_isolation": "read committed",
        **(more or {}),
    }


async def open_pool(
    dsn: str,
    *,
    name: str,
    min_size: int = 1,
    max_size: int = 4,
    statement_timeout: float = 5.0,
    settings: Mapping[str, str] | None = None,
) -> asyncpg.Pool:
    """Opens a pool whose every session carries the same settings.

    Args:
        dsn: where and as whom.
        name: `application_name`, seen by the database's operator.
        min_size: connections opened at once.
        max_size: most connections.
        statement_timeout: seconds, enforced by the server and (a little later) by the client.
        settings: further server settings of each session.

    Raises:
        DatabaseUnavailableError: no connection could be made.
    """
    check_dsn(dsn, name)
    with translated():
        return await asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            timeout=CONNECT_TIMEOUT,
            command_timeout=statement_timeout + 1.0,
            reset=_reset,
            server_settings=session_settings(name, statement_timeout, settings),
        )


async def _reset(conn: asyncpg.Connection) -> None:
    """Leaves a released connection as it is: nobody sets anything on a session, so there is
    nothing to wipe, and asyncpg's own reset would cost a round trip a call.
    """
    if conn.is_in_transaction():
        await conn.reset()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns driver errors into ours; the driver's text stays in the chain and never in a message.

    Raises:
        DatabaseUnavailableError: the database does not answer.
        RequestMalformedError: a value cannot be stored (NUL, lone surrogate, out of range).
    """
    try:
        yield
    except UNREACHABLE as exc:
        raise DatabaseUnavailableError(cause=type(exc).__name__) from exc
    except (asyncpg.DataError, asyncpg.CharacterNotInRepertoireError, UnicodeEncodeError) as exc:
        raise RequestMalformedError(cause=type(exc).__name__) from exc
    except asyncpg.QueryCanceledError as exc:
        raise DatabaseUnavailableError(cause=type(exc).__name__) from exc


@contextlib.asynccontextmanager
async def connection(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    """Lends a connection; waits at most `ACQUIRE_TIMEOUT`."""
    with translated():
        async with pool.acquire(timeout=ACQUIRE_TIMEOUT) as conn:
            yield conn


class HeldConnection:
    """One connection kept out of a pool by its only user: no acquire and no release per statement."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Takes the pool; nothing is held before the first use."""
        self._pool = pool
        self._held: asyncpg.pool.PoolConnectionProxy | None = None

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Runs one statement; after a failure the next one gets another connection."""
        with translated():
            if self._held is None:
                self._held = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT)
            try:
                return await self._held.fetch(statement, *arguments)
            except BaseException:
                await self.release()
                raise

    async def release(self) -> None:
        """Gives the connection back; the pool cannot close before."""
        held, self._held = self._held, None
        if held is not None:
            await self._pool.release(held)


@contextlib.asynccontextmanager
async def transaction(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    """Lends a connection inside a READ COMMITTED transaction; nobody else writes BEGIN."""
    async with connection(pool) as conn, conn.transaction():
        yield conn


CROWD_SHARE = 7
"""Tenths of a crowd that a busy batch waits for. Measured with 16 and 64 calls under way against a fixed wait
of 0.7 ms, nine pairs: flushes of 6 and 9 for 4 and 6, throughput up and p99 down by a tenth. With five tenths
flushes were smaller than with the fixed wait, with more than seven only p99 grew."""


class Batch(Generic[T, R]):
    """Collects what arrives while a flush is under way and flushes it as one.

    Natural batching: an idle batch flushes a single item at once, a busy one as many as came
    meanwhile. An item that is submitted after a flush has begun is in the next one; that order is
    what makes a revocation that returned before the submit visible to the item (P4).
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]],
        *,
        limit: int,
        backlog: int,
        refused: Callable[[], BaseException],
        gather: float = 0.0,
    ) -> None:
        """Takes the flush, the most items of one flush and the most that may wait.

        Args:
            flush: gives one result (or exception) per item, in order.
            limit: most items of one flush.
            backlog: most items waiting; beyond it `submit` raises, so memory stays bounded.
            refused: makes the exception for an item that found the backlog full.
            gather: seconds that a busy batch waits at most until most of those who were here lately are
                here again: callers who have just been answered come back in a moment, and a fuller flush
                costs each of them less. Never for all, who are served meanwhile: neither the database nor
                this process is to idle. A single caller never waits.
        """
        self._flush = flush
        self._limit = limit
        self._backlog = backlog
        self._refused = refused
        self._gather = gather
        self._crowd = 0  # how many were here at once lately, waiting or in a flush
        self._wanted = 0  # how many the gathering waits for; 0: it does not
        self._enough = asyncio.Event()
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    def enqueue(self, item: T) -> asyncio.Future[R]:
        """Takes an item into the next flush; the future gets the item's own result."""
        if len(self._waiting) >= self._backlog:
            raise self._refused()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) == self._wanted:
            self._enough.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return future

    async def submit(self, item: T) -> R:
        """Waits until the item's own flush is through and gives its own result."""
        return await self.enqueue(item)

    async def drain(self) -> None:
        """Waits until nothing is under way."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while self._waiting:
            if self._gather and self._crowd > 1:
                await self._gathered()
            batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
            answers: list[tuple[asyncio.Future[R], R | BaseException]]
            futures = [future for _, future in batch]
            try:
                results = await self._flush([item for item, _ in batch])
                answers = list(zip(futures, results, strict=True))
            except Exception as exc:  # noqa: BLE001 - every waiter must hear of it, whatever it is
                answers = [(f, exc.again() if isinstance(exc, BrokerError) else exc) for f in futures]
            for future, result in answers:
                if future.done():  # its client went away; its neighbours must not fail for it
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
            # Slowly down, at once up: one thin moment does not make a crowd of many one of few.
            self._crowd = max(len(batch) + len(self._waiting), self._crowd * 7 // 8)

    async def _gathered(self) -> None:
        """Waits until most of the crowd are here."""
        self._wanted = min(self._crowd * CROWD_SHARE // 10, self._limit)
        if len(self._waiting) < self._wanted:
            self._enough.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._gather):
                    await self._enough.wait()
        self._wanted = 0


MIGRATION_LOCK = 0x62726F6B
"""Advisory lock that keeps two `broker migrate` apart; the bytes spell "brok"."""


async def migrate(dsn: str, progress: Callable[[str], None] = lambda _: None) -> list[str]:
    """Applies the migrations that are missing, in order, each in its own transaction.

    If we die between two of them, the next run goes on where this one stopped.

    Returns:
        The names applied now.

    Raises:
        StartupError: the database holds a migration that this release does not know, or one whose
            text has changed since.
    """
    check_dsn(dsn, "owner DSN")
    folder = files("broker").joinpath("sql", "migrations")
    scripts = {p.name: p.read_text("utf-8") for p in folder.iterdir() if p.name.endswith(".sql")}
    with translated():
        conn = await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT,
            server_settings={"lock_timeout": "4s", "statement_timeout": "60s", "timezone": "UTC"},
        )
    try:
        await conn.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        await conn.execute(queries("migrations").create_table)
        known = {r["name"]: r["sha256"] for r in await conn.fetch(queries("migrations").applied)}
        if unknown := sorted(known.keys() - scripts.keys()):
            raise StartupError(f"the database is newer than this release: it holds {', '.join(unknown)}")
        applied: list[str] = []
        for name, script in sorted(scripts.items()):
            digest = hashlib.sha256(script.encode()).hexdigest()
            if name in known:
                if known[name] != digest:
                    raise StartupError(f"migration {name} was changed after it had been applied")
                continue
            async with conn.transaction():
                await conn.execute(script)
                await conn.execute(queries("migrations").record, name, digest)
            progress(name)
            applied.append(name)
        return applied
    finally:
        await conn.close(timeout=CONNECT_TIMEOUT)
