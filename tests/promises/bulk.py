"""A company a hundred times as large, for the length of a transaction, and what a read then touches."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, product
from typing import Any
from uuid import UUID

import asyncpg

from broker.ledger import EventIds
from broker.model import Facts, OpenedBy, Presence, Provenance, Relation
from broker.policy import Policy, PolicyFiles, load

FILL = """
INSERT INTO broker.ticket
SELECT made.* FROM broker.ticket AS t, generate_series($1::int, $2::int) AS i,
LATERAL jsonb_populate_record(NULL::broker.ticket, to_jsonb(t) || jsonb_build_object(
    'ticket_id', 'bulk-' || i
)) AS made
WHERE t.ticket_id = $3;

INSERT INTO broker.ticket_customer
SELECT 'bulk-' || i, (1000 + i)::text FROM generate_series($1::int, $2::int) AS i;

INSERT INTO broker.assignment OVERRIDING SYSTEM VALUE
SELECT made.* FROM broker.assignment AS a, generate_series($1::int, $2::int) AS i,
LATERAL jsonb_populate_record(NULL::broker.assignment, to_jsonb(a) || jsonb_build_object(
    'assignment_id', 1000000 + i, 'ticket_id', 'bulk-' || i,
    'agent', CASE WHEN i % 2 = 0 THEN a.agent ELSE 'https://idp.example|agent-' || i % 997 END
)) AS made
WHERE a.ticket_id = $3 AND a.end_time IS NULL;

INSERT INTO broker.access_grant
SELECT made.* FROM broker.access_grant AS g, generate_series($1::int, $2::int) AS i,
LATERAL jsonb_populate_record(NULL::broker.access_grant, to_jsonb(g) || jsonb_build_object(
    'grant_id', gen_random_uuid(), 'request_id', gen_random_uuid(), 'ticket_id', 'bulk-' || i
)) AS made
WHERE g.ticket_id = $3;

INSERT INTO broker.budget_use
SELECT 'https://idp.example|agent-' || i % 997, 'pseudonym-' || i, clock_timestamp()
FROM generate_series($1::int, $2::int) AS i;

INSERT INTO crm.customer (customer_id, name, email)
SELECT 1000 + i, 'Bulk ' || i, 'bulk-' || i || '@example.com' FROM generate_series($1::int, $2::int) AS i
"""
"""What makes the company larger by tickets $1 to $2, each like ticket $3."""


async def fill(dba: asyncpg.Connection, size: int, *, like: str) -> None:
    """Brings customers, tickets and all about them up to a number; every second one is the agent's own."""
    have = await dba.fetchval("SELECT count(*) FROM broker.ticket WHERE ticket_id LIKE 'bulk-%'")
    await dba.execute("SET LOCAL session_replication_role = replica")  # no foreign keys are looked up
    for statement in FILL.split(";\n"):
        arguments = [have + 1, size, like][: 3 if "$3" in statement else 2]
        await dba.execute(statement, *arguments)
    await dba.execute("SET LOCAL session_replication_role = origin")
    await dba.execute(
        "ANALYZE broker.ticket, broker.ticket_customer, broker.assignment, broker.access_grant,"
        " broker.budget_use, crm.customer"
    )


EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)"
APPEND_ONE = "SELECT * FROM broker.append_read($1, $2, $3, 't', '0', $4, false, $5, 1000, 1000, '{'::bytea)"
APPEND_GROUP = """
SELECT * FROM broker.append_reads(
    ARRAY[$1::uuid], ARRAY[$2::uuid], ARRAY[$3::text], ARRAY['t'], ARRAY['0'], ARRAY[$4::bigint],
    ARRAY[false], ARRAY[$5::bigint], ARRAY[1000], ARRAY[1000], ARRAY['{'::bytea]
)
"""


@dataclass(frozen=True)
class Footprint:
    """What the parts of one read touched."""

    pages: dict[str, int]
    rows: dict[str, int]


async def footprint(dba: asyncpg.Connection, grant_id: UUID) -> Footprint:
    """Measures the statements of a read as the broker's roles run them, and one that must scan."""
    grant = await dba.fetchrow("SELECT * FROM broker.access_grant WHERE grant_id = $1", grant_id)
    ticket = grant["ticket_id"]
    facts = await dba.fetchval("SELECT facts_version FROM broker.ticket WHERE ticket_id = $1", ticket)
    version = await dba.fetchval("SELECT version FROM broker.policy_active")
    ids = EventIds()
    parts: dict[str, tuple[str, str, Callable[[], list[Any]]]] = {
        "ground": (
            "broker_access",
            "SELECT * FROM broker.ground($1, $2)",
            lambda: [ticket, grant["agent"]],
        ),
        **{
            name: ("broker_access", statement, lambda: [ids.new(), grant_id, grant["agent"], facts, version])
            for name, statement in (("append", APPEND_ONE), ("group", APPEND_GROUP))
        },
        "read": ("broker_reader", "SELECT * FROM broker_guard.read_customer", list),
        "a scan": ("postgres", "SELECT * FROM broker.ticket WHERE content_hash = ''", list),
    }
    pages, rows = {}, {}
    for name, (role, statement, arguments) in parts.items():
        await dba.execute(f"SET LOCAL ROLE {role}")
        await dba.execute("SELECT set_config('broker.pass', $1, true)", grant["pass"])
        found = []
        for _ in range(4):  # the first ones plan, and set hint bits
            [plan] = json.loads(await dba.fetchval(f"{EXPLAIN} {statement}", *arguments()))
            top = plan["Plan"]
            found.append((top["Shared Hit Blocks"] + top["Shared Read Blocks"], int(top["Actual Rows"])))
        pages[name], rows[name] = min(found)
        await dba.execute("RESET ROLE")
    return Footprint(pages, rows)


def larger_policy(files: PolicyFiles, rules: int) -> Policy:
    """Gives the policy with so many rules more, none of which changes an answer."""
    columns = product(
        ("call-back", "verify-identity", "billing-dispute", "quality-review", "resolve-ticket"),
        ("supervisor", "collaborator"),
        ("account", "billing", "device", "general", "refund"),
        ("self", "imported"),
        ("customer", "system", "self", "peer"),
        ("present", "absent"),
        ("billing", "device", "identity", "profile"),
    )
    more = [f"p, tier1, {', '.join(words)}, any, deny\n" for words in islice(columns, rules)]
    text = files.texts["policy.csv"].replace("# end\n", "") + "".join(more) + "# end\n"
    return load(PolicyFiles.from_mapping({**files.texts, "policy.csv": text}), "1")


def calls(policy: Policy) -> int:
    """Counts the calls, Python's and C's, of one decision that was taken once before."""
    facts = Facts(
        purpose="resolve-ticket",
        relation=Relation.ASSIGNEE,
        kind="general",
        provenance=Provenance.ROUTED,
        opened_by=OpenedBy.CUSTOMER,
        presence=Presence.ABSENT,
    )
    roles, fields = policy.roles_of(frozenset({"support-tier1"})), ("customer.name", "customer.email")
    policy.decide(roles, facts, fields)
    counted = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        policy.decide(roles, facts, fields)
    finally:
        sys.setprofile(None)
    return counted
