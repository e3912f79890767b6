"""Says whether the guard still stands, assertion by assertion, and what to do where it does not.

Invariants:
- reads what every role may read, so the reader's own connection can ask at each start;
- an assertion that cannot be answered has failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg

from broker.catalog import Catalog
from broker.database import Connection, queries
from broker.records.plan import FUNCTIONS, allowed_columns, findings, slow
from broker.records.relations import World, look
from broker.records.shape import Shape, guard_shape, uncovered

FIXED_IN = {15: 150014, 16: 160010, 17: 170006}
"""First minor releases in which statistics no longer leak past row security (CVE-2025-8713)."""

INSTALL = "run: broker records install --yes"


@dataclass(frozen=True, slots=True)
class Assertion:
    """One thing that must hold, whether it does, and what to do if not."""

    name: str
    ok: bool
    text: str
    remedy: str = ""
    warning: bool = False  # slow or untidy, not open


async def check(conn: Connection, catalog: Catalog) -> list[Assertion]:
    """Checks everything the second lock rests on; works for the administrator and for the reader."""
    q = queries("records")
    roles = {r["name"]: r for r in await conn.fetch(q.roles)}
    missing = sorted({"broker_reader", "broker_guard", "broker_guard_keeper"} - roles.keys())
    if missing:
        return [
            Assertion("roles", False, f"no role {', '.join(missing)}", "run deploy/roles.sql as a superuser")
        ]
    if not (await conn.fetch(q.is_installed))[0]["room"]:
        return [Assertion("installed", False, "the guard is not installed here", INSTALL)]
    world = await look(conn, catalog)
    views = await conn.fetch(q.guard_views)
    functions = await conn.fetch(q.guard_functions)
    installed = await installed_shape(conn)
    found = [
        *_roles(roles),
        *_tables(catalog, world, installed or {}),
        *_views(catalog, world, views),
        *_functions(functions),
    ]
    found += await _status(conn, catalog, installed)
    minimum = FIXED_IN.get(world.version // 10000, 150014)
    found.append(
        Assertion(
            "server",
            world.version >= minimum,
            f"server version {world.version}",
            f"update PostgreSQL to {minimum // 10000}.{minimum % 10000} or newer (CVE-2025-8713)",
            warning=True,
        )
    )
    return found


async def installed_shape(conn: Connection) -> Shape | None:
    """Gives what the installed guard holds; None where it does not say. The reader's role may ask."""
    try:
        status = await conn.fetchrow(queries("records").status)
    except (
        asyncpg.InvalidSchemaNameError,
        asyncpg.UndefinedFunctionError,
        asyncpg.UndefinedTableError,
        asyncpg.InsufficientPrivilegeError,
    ):
        return None
    shape: Shape | None = json.loads(status["mapping"]) if status and status["mapping"] else None
    return shape


async def fingerprint(conn: Connection) -> str:
    """Digests how the guard looks now; names are spelt out whatever the session's search path."""
    async with conn.transaction():
        before = await conn.fetchval("SELECT current_setting('search_path')")
        await conn.execute("SELECT set_config('search_path', 'pg_catalog', true)")
        digest: str = await conn.fetchval(queries("records").fingerprint)
        await conn.execute("SELECT set_config('search_path', $1, true)", before)
    return digest


def _roles(roles: dict[str, asyncpg.Record]) -> Iterator[Assertion]:
    for name, role in roles.items():
        yield Assertion(
            f"{name} is plain",
            not role["mighty"],
            "may not be superuser, bypass row security, or make roles or databases",
            f"ALTER ROLE {name} NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION",
        )
        yield Assertion(
            f"{name} is in no other role",
            not role["member_of"] and not role["mighty"],
            f"member of: {', '.join(role['member_of']) or 'none'}",
            f"REVOKE those roles FROM {name}",
        )
        if name != "broker_reader":
            yield Assertion(
                f"{name} cannot log in",
                not role["can_login"],
                "nobody logs in as it",
                f"ALTER ROLE {name} NOLOGIN",
            )


def _tables(catalog: Catalog, world: World, installed: Shape) -> Iterator[Assertion]:
    for kind in catalog.kinds.values():
        relation = world.relations.get(kind.name)
        if relation is None:
            yield Assertion(
                f"{kind.name}: relation", False, f"no {kind.schema}.{kind.table}", "mend the catalog"
            )
            continue
        name = f"{kind.name}: {relation.quoted}"
        if relation.is_view:
            wrong = [t for t in findings(catalog, world) if t.startswith(f"kind {kind.name}: view")]
            yield Assertion(
                f"{name} guarded below", not wrong, "; ".join(wrong) or "every base table is guarded"
            )
        else:
            guarded = relation.row_security and relation.restricted and relation.others_free
            yield Assertion(
                f"{name} guarded", guarded, "row security on, our two policies for the right roles", INSTALL
            )
            yield Assertion(
                f"{name} not above its policy",
                not relation.guard_owns and not relation.reader_owns,
                f"owned by {relation.owner}",
                "give the table another owner, or take the roles out of it",
            )
            # What is installed may be ahead of the active catalog: a version comes after its guard.
            ahead = {
                column
                for shape in installed.values()
                if shape["table"] == [kind.schema, kind.table]
                for column in (shape["key"], shape["link"], *shape["fields"].values())
            }
            reads = {c.name for c in relation.columns.values() if c.guard_reads}
            extra = reads - allowed_columns(catalog, world, relation) - ahead
            yield Assertion(
                f"{name} mapped columns only",
                not extra and not relation.guard_table_rights,
                f"beyond what is installed: {', '.join(sorted(extra)) or 'none'}",
                "REVOKE them from broker_guard and PUBLIC",
            )
        yield Assertion(
            f"{name} closed to the reader",
            not relation.reader_rights,
            "broker_reader has no right on table or column",
            "REVOKE it, from PUBLIC too",
        )
        wanted = {kind.key, *([kind.link] if kind.link else []), *(f.column for f in kind.fields.values())}
        if lost := sorted(wanted - relation.columns.keys()):
            yield Assertion(f"{name} columns", False, f"no column {', '.join(lost)}", "mend the catalog")
        elif not relation.is_view:
            for text in slow(kind, relation):
                yield Assertion(f"{name} fast", False, text, warning=True)


def _views(catalog: Catalog, world: World, views: list[asyncpg.Record]) -> Iterator[Assertion]:
    reading = {f"read_{name}" for name in catalog.kinds}
    mapped = {r.oid for r in world.relations.values()} | {b.mapped for b in world.bases}
    by_name = {v["name"]: v for v in views if v["schema"] == "broker_guard"}
    for name in sorted(reading):
        view = by_name.get(name)
        ok = (
            view is not None
            and view["owner"] == "broker_guard"
            and view["barrier"]
            and view["relkind"] == "v"
        )
        yield Assertion(f"view {name}", ok, "a security_barrier view of broker_guard", INSTALL)
        yield Assertion(
            f"view {name} for the reader alone",
            view is not None and view["reader_reads"] and not view["others"],
            f"others: {', '.join(view['others']) if view else '?'}",
            INSTALL,
        )
    strays = [
        f"{v['schema']}.{v['name']}"
        for v in views
        if v["oid"] not in mapped
        and (
            v["owner"] == "broker_guard"
            and not (v["schema"] == "broker_guard" and v["name"].startswith("read_"))
        )
    ]
    yield Assertion(
        "nothing else of broker_guard",
        not strays,
        f"also owned by broker_guard: {', '.join(strays) or 'none'}",
        "DROP it, or give it another owner",
    )
    stores = [v["name"] for v in views if v["schema"] == "broker_guard" and v["relkind"] != "v"]
    keeper = all(v["owner"] == "broker_guard_keeper" and not v["others"] and not v["reader_reads"]
                 for v in views if v["name"] in stores)  # fmt: skip
    yield Assertion("keys and salts", keeper, "read by the keeper's functions only", INSTALL)


def _functions(functions: list[asyncpg.Record]) -> Iterator[Assertion]:
    wanted = {name for name, _, _ in FUNCTIONS}
    have = {f["short_name"] for f in functions}
    yield Assertion("functions", have == wanted, f"functions: {', '.join(sorted(have))}", INSTALL)
    for f in functions:
        definer = f["definer"] == (f["short_name"] != "customer_key")
        ok = f["owner"] == "broker_guard_keeper" and definer and f["pinned"] and not f["is_public"]
        yield Assertion(
            f"function {f['name']}", ok, "the keeper's, search_path pinned, not for PUBLIC", INSTALL
        )


async def _status(conn: Connection, catalog: Catalog, installed: Shape | None) -> list[Assertion]:
    try:
        status = await conn.fetchrow(queries("records").status)
        looks = await fingerprint(conn)
    except (
        asyncpg.UndefinedFunctionError,
        asyncpg.UndefinedTableError,
        asyncpg.InsufficientPrivilegeError,
    ) as exc:
        return [
            Assertion("status", False, f"the guard does not say what it is ({type(exc).__name__})", INSTALL)
        ]
    if status is None or installed is None:
        return [Assertion("mapping", False, "no mapping is installed", INSTALL)]
    lacking = uncovered(installed, catalog)
    rotate = "run: broker keys rotate --guard"
    return [
        Assertion(
            "mapping covers the catalog",
            not lacking,
            "; ".join(lacking) or "every kind and field",
            INSTALL,
        ),
        Assertion(
            "mapping is the catalog's",
            installed == guard_shape(catalog),
            "what is installed and the active catalog are the same",
            INSTALL,
            warning=True,
        ),
        Assertion(
            "unchanged",
            looks == status["fingerprint"],
            "policies, views and functions look as installed",
            INSTALL,
        ),
        Assertion(
            "a key verifies", status["keys_in_use"] > 0, f"{status['keys_in_use']} keys in use", rotate
        ),
        Assertion(
            "one key in use",
            status["keys_in_use"] == 1,
            f"{status['keys_in_use']} in use, {status['keys_running_out']} running out",
            rotate,
            warning=True,
        ),
    ]
