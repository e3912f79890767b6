"""From a catalog and what the database looks like to the SQL that installs the guard; no I/O.

Invariants:
- every step knows its undo, and nothing is forced on a table's owner (never FORCE);
- a table that has row security or policies of its own is left alone: that is a refusal;
- what is filled into a template was quoted by PostgreSQL or matches `relations.WORD`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from broker.catalog import Catalog, Kind
from broker.database import queries
from broker.records.matching import match_parts, matching
from broker.records.relations import RESERVED, WORD, Relation, World, chain
from broker.records.steps import Step, fill, grant, literal, step

SCAN = 1000
"""Most rows of one customer that a view sorts; beyond, which rows are shown is arbitrary, and they
are flagged as cut. Keeps a customer with a million rows as cheap as one with a thousand."""

SCAN_PARENTS = 10_000
"""Most parents of one customer whose children are looked for, for the same reason."""

LOCK_TRY = "200ms"
"""How long one try for a lock may hold others up; below deadlock_timeout (1 s), so nobody is aborted
for us."""

UNDOING = "-- an undo itself"
"""Marks steps that undo an earlier installation; they are not remembered."""

OUR_POLICIES = frozenset({"broker_guard_others", "broker_guard_passes"})

STORE_TABLES = ("guard_key", "salt", "install_step", "installation", "match_quota")

FUNCTIONS = (  # template, signature, who may call it
    ("customer_key", "customer_key(text)", ""),
    # PostgreSQL asks whoever reads a view for the right to call the functions in it, not the owner
    ("open_passes", "open_passes()", "broker_reader, broker_guard"),
    ("pseudonyms", "pseudonyms(text[], text[])", "broker_reader"),
    ("status", "status()", "broker_reader"),
    ("unseal", "unseal(broker_guard.guard_key, text, text)", ""),
    ("match_customers", "match_customers(text, text[], text[])", "broker_auditor"),
    ("check_admin_pass", "check_admin_pass(text, text)", ""),
    ("resolve_pseudonyms", "resolve_pseudonyms(text, text[])", "broker_auditor"),
    ("erase_salt", "erase_salt(text, text)", "broker_auditor"),
)

INTEGERS = frozenset({"smallint", "integer", "bigint"})
TEXTS = frozenset({"text", "character varying"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be done, in order, and what the administrator should know of it."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    mapping: str = ""  # what is stored as installed; "" for an undo
    forget: bool = False  # the old mapping's steps are undone first and forgotten

    @property
    def statements(self) -> tuple[str, ...]:
        """Gives everything that runs, in one transaction: locks, steps, and the record of both."""
        if not self.steps:
            return ()
        tables = dict.fromkeys(s.relation for s in self.steps if s.relation)
        told = [fill("begin", timeout=LOCK_TRY), *(fill("lock", table=table) for table in tables)]
        told += [s.sql for s in self.steps]
        if not self.mapping:
            return tuple(told)
        if self.forget:
            told.append(fill("steps_forget"))
        for s in self.steps:
            if s.undo != UNDOING:
                values = {"part": s.part, "relation": s.relation, "sql": s.sql, "undo": s.undo}
                told.append(fill("step_remember", **{k: literal(v) for k, v in values.items()}))
        digest = queries("records").fingerprint.rstrip().removesuffix(";")
        told.append(fill("plain_names"))
        told.append(fill("installation_remember", mapping=literal(self.mapping), fingerprint=digest))
        return tuple(told)

    @property
    def script(self) -> str:
        """Gives the same as a file for psql, for administrators who run everything themselves."""
        why = {s.sql: s.why for s in self.steps}
        lines = ["\\set ON_ERROR_STOP on", "BEGIN;"]
        lines += [(f"-- {why[sql]}\n" if sql in why else "") + f"{sql};" for sql in self.statements]
        return "\n\n".join([*lines, "COMMIT;"]) + "\n"


def findings(catalog: Catalog, world: World) -> list[str]:
    """Lists every reason not to install, each with what to do; empty when there is none.

    Args:
        catalog: what is to be mapped.
        world: what the database looks like, an installed mapping taken away.
    """
    found: list[str] = []
    for kind in catalog.kinds.values():
        relation = world.relations.get(kind.name)
        if relation is None:
            found.append(
                f"kind {kind.name}: there is no relation {kind.schema}.{kind.table}; mend the catalog"
            )
            continue
        found += _names(kind, relation)
        found += _links(catalog, kind, world)
        found += _view(kind, relation, world) if relation.is_view else _table(kind, relation)
    return found


def _names(kind: Kind, relation: Relation) -> Iterator[str]:
    wanted = [kind.key, *([kind.link] if kind.link else []), *(f.column for f in kind.fields.values())]
    for column in dict.fromkeys(wanted):
        if column not in relation.columns:
            yield f"kind {kind.name}: {relation.quoted} has no column {column!r}; mend the catalog"
    if not kind.fields:
        yield f"kind {kind.name}: it has no fields; map one or leave the kind out"
    for name in (kind.name, *kind.fields):
        if not WORD.fullmatch(name) or name in RESERVED:
            yield f"kind {kind.name}: {name!r} cannot be a name here; choose another in the catalog"


def _links(catalog: Catalog, kind: Kind, world: World) -> Iterator[str]:
    parent = world.relations.get(kind.via) if kind.via else None
    relation = world.relations[kind.name]
    if parent is None:
        return
    link, key = relation.columns.get(kind.link), parent.columns.get(catalog.kinds[kind.via].key)
    if (
        link
        and key
        and not (link.type == key.type or {link.type, key.type} <= INTEGERS or {link.type, key.type} <= TEXTS)
    ):
        yield f"kind {kind.name}: link is {link.type}, the parent's key {key.type}; make them alike"
    if catalog.kinds[kind.via].via and parent.oid == relation.oid:
        yield f"kind {kind.name}: it lies on its parent's own table, whose policy would ask itself for ever"


def _table(kind: Kind, relation: Relation) -> Iterator[str]:
    if relation.relkind not in {"r", "p"}:
        yield (
            f"kind {kind.name}: {relation.quoted} is neither table nor view (materialised views and foreign "
            f"tables cannot be guarded); map the table behind it"
        )
        return
    if relation.policies or relation.row_security:
        yield (
            f"kind {kind.name}: {relation.quoted} has row security already "
            f"(policies: {', '.join(relation.policies) or 'none'}); the guard would change what they mean. "
            f"Map a table without, or agree with {relation.owner} on dropping them"
        )
    if relation.guard_owns or relation.reader_owns:
        yield f"kind {kind.name}: broker_guard or broker_reader owns {relation.quoted}, so no policy binds it"
    if relation.reader_rights:
        yield (
            f"kind {kind.name}: broker_reader has rights on {relation.quoted} itself (perhaps by PUBLIC); "
            f"revoke them: the guard means nothing while the table is open to the reader"
        )
    if relation.guard_table_rights:
        yield f"kind {kind.name}: broker_guard has rights on all of {relation.quoted}; revoke them"


def _view(kind: Kind, relation: Relation, world: World) -> Iterator[str]:
    tables = {r.oid for r in world.relations.values() if not r.is_view}
    if relation.reader_rights:
        yield f"kind {kind.name}: broker_reader has rights on {relation.quoted} itself; revoke them"
    for base in (b for b in world.bases if b.mapped == relation.oid):
        where = f"kind {kind.name}: view {relation.quoted} reads {base.quoted} through {base.via}"
        if base.definers:
            yield f"{where}, which calls {', '.join(base.definers)} with other rights; nothing guards that"
        if base.invoker:
            yield f"{where}, a security_invoker view: it would need rights for broker_reader on the table"
        elif base.relkind not in {"r", "p"}:
            yield f"{where}, which is no table and cannot be guarded"
        elif not base.under_guard:
            yield (
                f"{where} with the rights of {base.acting}, whom the guard does not bind; "
                f"ALTER VIEW {base.via} OWNER TO broker_guard, or map the table"
            )
        elif base.base not in tables:
            yield f"{where}, which no kind maps, so nothing guards it; map it as a kind of its own"


def notes(catalog: Catalog, world: World) -> tuple[str, ...]:
    """Lists what changes for nobody's rows but may be felt: PostgreSQL's own limits, lacking indexes."""
    found: list[str] = []
    for kind in catalog.kinds.values():
        relation = world.relations[kind.name]
        if relation.is_view:
            continue
        if relation.copiers:
            found.append(
                f"{relation.quoted}: row security makes PostgreSQL refuse COPY FROM to all but owner, "
                f"superuser and BYPASSRLS; INSERT goes on. May insert today: {', '.join(relation.copiers)}"
            )
        found += [f"{relation.quoted}: {text}" for text in slow(kind, relation)]
    return tuple(dict.fromkeys(found))


def slow(kind: Kind, relation: Relation) -> Iterator[str]:
    """Says what would make reads of a kind scan its table."""
    column = relation.columns[kind.link or kind.key]
    if not column.indexed:
        yield f"no index begins with {column.quoted}; a read scans the table: CREATE INDEX ({column.quoted})"
    if not column.leakproof:
        yield f"equality of {column.quoted} ({column.type}) is not leakproof, so no read can use its index"
    if not kind.via and not column.unique:
        yield f"{column.quoted} is not unique; one customer may show as several, of which one is read"


def build(catalog: Catalog, world: World, done: Collection[str] = ()) -> tuple[Step, ...]:
    """Makes the steps; `findings` was empty.

    Args:
        catalog: what is to be mapped.
        world: what the database looks like, an installed mapping taken away.
        done: statements that were run before; of the store, only what is not among them is made.
    """
    return (
        *(s for s in _store() if s.sql not in done),
        *matching(catalog, world),
        *_functions(catalog, world),
        *_guards(catalog, world),
        *_views(catalog, world),
    )


def _store() -> Iterator[Step]:
    yield step("store_schema", "the guard's own room", part="store")
    yield step("store_usage", "both roles may name what lies in it", part="store")
    for table in STORE_TABLES:
        yield step(f"store_{table}", f"the keeper's table {table}", part="store")
        yield Step(fill("store_owner", table=table), "", "nobody logs in as its owner", "store")


def _functions(catalog: Catalog, world: World) -> Iterator[Step]:
    key_type = world.relations[catalog.root.name].columns[catalog.root.key].type
    for name, signature, callers in FUNCTIONS:
        yield step(name, f"function {signature}", key_type=key_type, **match_parts(catalog, world))
        yield Step(fill("function_private", function=signature), "", "nobody calls it by default")
        if callers:
            yield Step(fill("function_grant", function=signature, roles=callers), "", "these may call it")
        yield Step(fill("function_owner", function=signature), "", "it runs with the keeper's rights")


def _guards(catalog: Catalog, world: World) -> Iterator[Step]:
    by_oid = {r.oid: r for r in world.relations.values()}
    for relation in by_oid.values():
        kinds = [k for k in catalog.kinds.values() if world.relations[k.name].oid == relation.oid]
        columns = [c for c in _readable(world, relation, kinds) if not relation.columns[c].guard_granted]
        if columns and not (relation.is_view and relation.guard_owns):
            quoted = [relation.columns[c].quoted for c in columns]
            yield grant(relation, quoted, "broker_guard", "the mapped columns, no other")
        if relation.is_view:
            continue
        table = relation.quoted
        conditions = dict.fromkeys(_condition(catalog, world, kind) for kind in kinds)
        yield step("policy_others", "every other role sees and writes as before", relation=table, table=table)
        yield step(
            "policy_passes",
            "the guard sees rows of customers with an open pass",
            relation=table,
            table=table,
            condition=" OR ".join(f"({c})" for c in conditions),
        )
        yield step("row_security", "the policies take effect", relation=table, table=table)


def _readable(world: World, relation: Relation, kinds: Sequence[Kind]) -> list[str]:
    """Lists the columns that the guard needs of a relation, in the relation's order."""
    wanted = {c for k in kinds for c in (k.key, k.link, *(f.column for f in k.fields.values())) if c}
    numbers = {n for b in world.bases if b.base == relation.oid for n in b.columns}
    return [c.name for c in relation.columns.values() if c.name in wanted or c.number in numbers]


def allowed_columns(catalog: Catalog, world: World, relation: Relation) -> frozenset[str]:
    """Gives the columns of a relation that the guard is meant to read."""
    kinds = [
        k
        for k in catalog.kinds.values()
        if k.name in world.relations and world.relations[k.name].oid == relation.oid
    ]
    return frozenset(_readable(world, relation, kinds))


def _condition(catalog: Catalog, world: World, kind: Kind) -> str:
    relation = world.relations[kind.name]
    links = chain(catalog, kind)
    if len(links) == 1:
        return fill("condition_customer", column=relation.columns[kind.link or kind.key].quoted)
    parent = links[-2]
    return fill(
        "condition_parent",
        parent=world.relations[parent.name].quoted,
        parent_key=world.relations[parent.name].columns[parent.key].quoted,
        table=relation.quoted,
        column=relation.columns[kind.link].quoted,
    )


def _views(catalog: Catalog, world: World) -> Iterator[Step]:
    yield step("schema_create", "for the moment of handing over views")
    for kind in catalog.kinds.values():
        view = f"read_{kind.name}"
        yield step("view", f"how kind {kind.name} is read", view=view, **_view_parts(catalog, world, kind))
        yield Step(fill("view_grant", view=view), "", "the only thing the reader may read")
        yield Step(fill("view_owner", view=view), "", "it reads with the guard's rights, under its policies")
    yield Step(fill("schema_create_end"), "", "handed over")


def _view_parts(catalog: Catalog, world: World, kind: Kind) -> dict[str, str]:
    links = chain(catalog, kind)
    relation = world.relations[kind.name]
    first = world.relations[links[0].name]
    top = first.columns[links[0].link or links[0].key].quoted
    source = fill("source_customer", table=first.quoted, alias="t0", column=top)
    for i, (parent, link) in enumerate(pairwise(links)):
        here, above = world.relations[link.name], world.relations[parent.name]
        source = fill(
            "source_parent",
            above=source,
            parent=f"t{i}",
            parent_key=above.columns[parent.key].quoted,
            scan=SCAN_PARENTS,
            table=here.quoted,
            alias=f"t{i + 1}",
            column=here.columns[link.link].quoted,
        )
    last = f"t{len(links) - 1}"
    columns = [f"{last}.{relation.columns[kind.key].quoted} AS sort_key"]
    fields = []
    for i, f in enumerate(kind.fields.values()):
        columns.append(f"{last}.{relation.columns[f.column].quoted} AS c{i}")
        fields.append(
            f"CASE WHEN '{f.full_name}' = ANY (pass.fields) THEN found.c{i}::text END AS \"{f.name}\""
        )
    return {
        "fields": ",\n    ".join(fields),
        "columns": ",\n            ".join(columns),
        "source": source,
        "scan": str(max(SCAN, kind.rows + 1)),
        "limit": str(kind.rows + 1),
        "names": ", ".join(f"'{f.full_name}'" for f in kind.fields.values()),
    }
