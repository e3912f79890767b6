"""A ledger of many decisions, made in the database from a seed: what a month of a company leaves behind."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

import asyncpg

from broker.access.refusals import decision_detail
from broker.model import Facts, OpenedBy, Presence, Provenance, Relation
from broker.policy import Policy

INPUTS = 4_000
"""Distinct inputs drawn; those that are often asked are drawn often (by Zipf), as in life."""

READS_PER_GRANT = 5
"""Six events in a row are of one agent and one customer."""

AGENTS, CUSTOMERS = 500, 100_000

ASKED = (
    ("customer.name", "customer.city"),
    ("customer.name", "customer.email", "customer.phone"),
    ("customer.name", "customer.device_model", "customer.device_serial"),
    ("customer.name", "customer.card_number", "invoice.total"),
    ("customer.name", "customer.birth_date", "customer.id_document"),
)

FILL = """
INSERT INTO broker.ledger_event
SELECT
    e.id, e.kind, clock_timestamp(), e.agent, 'spiffe://bench/tool/desk', e.grant_id, md5(e.n::text),
    e.customer, e.ticket, e.outcome, e.reason, 1, convert_to(
        '{"v":1,"id":"' || e.id || '","trace":"' || md5(e.n::text) || '","kind":"' || e.kind || '","agent":"'
        || e.agent || '","tool":"spiffe://bench/tool/desk","grant":"' || e.grant_id || '","customer":"'
        || e.customer || '","ticket":"' || e.ticket || '","policy_version":"1","detail":' || e.detail
        || ',"outcome":"' || e.outcome || '","reason":"' || e.reason || broker.leaf_tail(clock_timestamp()),
        'UTF8')
FROM (
    SELECT
        n, i.kind, i.detail, i.outcome, i.reason, md5('grant' || n / 6)::uuid AS grant_id,
        'https://idp.example|a' || abs(hashint8(n / 6 * 7 + 1)) % $3::bigint AS agent,
        md5('c' || abs(hashint8(n / 6 * 13 + 5)) % $4::bigint) AS customer, md5('t' || n / 6) AS ticket,
        overlay(
            overlay(md5(n || $5::bigint::text) PLACING '7' FROM 13 FOR 1)
            PLACING left(replace(broker.uuid7_floor(
                $6::timestamptz + n / $2::bigint::float8 * ($7::timestamptz - $6::timestamptz)
            )::text, '-', ''), 12)
            FROM 1 FOR 12
        )::uuid AS id
    FROM generate_series($1::bigint, $2::bigint - 1) AS n
    INNER JOIN bench_input AS i ON i.slot = abs(hashint8(n * 31 + 11)) % $8::bigint
) AS e
"""


@dataclass(frozen=True)
class Span:
    """When the generated decisions were taken, by the database's clock."""

    since: datetime
    until: datetime
    decisions: int


def inputs(policy: Policy, seed: int) -> list[tuple[str, str, str, str]]:
    """Draws distinct decisions of a policy: kind, detail, outcome, reason."""
    rng = random.Random(seed)
    groups = sorted(policy.book.groups)
    made: dict[str, tuple[str, str, str, str]] = {}
    while len(made) < INPUTS:
        mine = rng.sample(groups, rng.choice((1, 1, 1, 2)))
        facts = Facts(
            purpose=rng.choice(["resolve-ticket"] * 6 + sorted(policy.catalog.purposes)),
            relation=rng.choice([Relation.ASSIGNEE] * 8 + [Relation.SUPERVISOR, Relation.COLLABORATOR]),
            kind=rng.choice(policy.catalog.ticket_kinds),
            provenance=rng.choice([Provenance.ROUTED] * 8 + list(Provenance)),
            opened_by=rng.choice([OpenedBy.CUSTOMER] * 6 + list(OpenedBy)),
            presence=rng.choice(list(Presence)),
        )
        asked = rng.choice(ASKED)
        decided = policy.decide_for(frozenset(mine), facts, asked)
        decision, detail = decided.decision, decision_detail(decided)
        if not decision.allowed:
            kind, outcome, reason = "denial", "refused", "POLICY_DENIED"
        elif rng.randrange(READS_PER_GRANT + 1):
            kind, outcome, reason = "read", "released", ""
            detail["levels"] = {f.name: f.level.value if f.level else "withheld" for f in decision.fields}
        else:
            kind, outcome, reason = "grant", "granted", ""
        text = json.dumps(detail, separators=(",", ":"))
        made[kind + text] = (kind, text, outcome, reason)
    return list(made.values())


async def fill(conn: asyncpg.Connection, policy: Policy, decisions: int, *, seed: int = 20251125) -> Span:
    """Puts decisions on the ledger, spread over this month so far; needs a superuser."""
    drawn = inputs(policy, seed)
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(drawn))))
    slots = 100_000
    rows, at = [], 0
    for slot in range(slots):
        while weights[at] < weights[-1] * slot / slots:
            at += 1
        rows.append((slot, *drawn[at]))
    await conn.execute(
        "CREATE TEMP TABLE bench_input"
        " (slot bigint PRIMARY KEY, kind text, detail text, outcome text, reason text)"
    )
    await conn.copy_records_to_table("bench_input", records=rows)
    since, until = await conn.fetchrow(
        "SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', clock_timestamp()"
    )
    await conn.execute(FILL, 0, decisions, AGENTS, CUSTOMERS, seed, since, until, slots, timeout=600)
    await conn.execute("VACUUM ANALYZE broker.ledger_event", timeout=600)
    return Span(since, until, decisions)
