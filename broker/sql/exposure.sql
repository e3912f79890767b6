-- Exposure reports and packs: see broker/audit/exposure.py and broker/audit/pack.py.

-- name: one_snapshot#
-- Reads from one snapshot, and plans each question for its own arguments.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
SET LOCAL plan_cache_mode = force_custom_plan;
SET LOCAL work_mem = '64MB';

-- name: names
-- Lists agents and tools by number.
SELECT name_id, name FROM broker.disclosure_name;

-- name: name_id
-- Finds the number of an agent or a tool.
SELECT name_id FROM broker.disclosure_name WHERE kind = $1 AND name = $2;

-- name: shapes
-- Lists which fields reads gave out, and how.
SELECT fields_id, clear, masked, unreadable FROM broker.disclosure_fields;

-- name: grounds
-- Lists the facts on which they did.
SELECT ground_id, purpose, provenance FROM broker.disclosure_ground;

-- name: disclosures
-- Reads the selected disclosures in the order of their customers.
SELECT d.customer, d.ticket, d.read_time, d.agent_id, d.tool_id, d.fields_id, d.ground_id
FROM broker.disclosure AS d
WHERE
    d.narrowed IS NULL
    AND ($1::integer IS NULL OR d.agent_id = $1)
    AND ($2::integer IS NULL OR d.tool_id = $2)
    AND ($3::text IS NULL OR d.customer = $3)
    AND ($4::uuid IS NULL OR d.grant_id = $4)
    AND d.event_id >= $5 AND d.event_id <= $6
    AND ($7::timestamptz IS NULL OR d.read_time >= $7)
    AND ($8::timestamptz IS NULL OR d.read_time < $8)
ORDER BY d.customer, d.event_id;

-- name: versions
-- Lists the policy's versions, oldest first.
SELECT v.version, v.digest FROM broker.policy_version AS v ORDER BY v.version;

-- name: catalogs
-- Reads the catalogs of versions, oldest first.
SELECT v.files ->> 'catalog.yaml' AS catalog FROM broker.policy_version AS v
WHERE v.version = ANY($1::bigint[]) ORDER BY v.version;

-- name: leaves
-- Reads the leaves of the selected disclosures, narrowed ones and what narrowed them too, in the log's order.
WITH selected AS MATERIALIZED (
    SELECT d.event_id, d.grant_id, d.narrowed
    FROM broker.disclosure AS d
    WHERE
        ($1::integer IS NULL OR d.agent_id = $1)
        AND ($2::integer IS NULL OR d.tool_id = $2)
        AND ($3::text IS NULL OR d.customer = $3)
        AND ($4::uuid IS NULL OR d.grant_id = $4)
        AND d.event_id >= $5 AND d.event_id <= $6
        AND ($7::timestamptz IS NULL OR d.read_time >= $7)
        AND ($8::timestamptz IS NULL OR d.read_time < $8)
),
wanted AS (
    SELECT s.event_id FROM selected AS s
    UNION
    SELECT e.id
    FROM (SELECT DISTINCT s.grant_id FROM selected AS s WHERE s.narrowed IS NOT NULL) AS g
    INNER JOIN broker.ledger_event AS e ON e.grant_id = g.grant_id
    WHERE e.kind = 'outcome'
)
SELECT t.seq, e.leaf, w.event_id
FROM wanted AS w
LEFT JOIN broker.ledger_event AS e ON e.id = w.event_id
LEFT JOIN broker.ledger_tree AS t ON t.event_id = w.event_id
ORDER BY t.seq NULLS FIRST;

-- name: leaves_by_customer
-- Reads the leaves of the selected disclosures once more, in the order of their customers.
SELECT d.customer, e.leaf
FROM broker.disclosure AS d
INNER JOIN broker.ledger_event AS e ON e.id = d.event_id
WHERE
    ($1::integer IS NULL OR d.agent_id = $1)
    AND ($2::integer IS NULL OR d.tool_id = $2)
    AND ($3::text IS NULL OR d.customer = $3)
    AND ($4::uuid IS NULL OR d.grant_id = $4)
    AND d.event_id >= $5 AND d.event_id <= $6
    AND ($7::timestamptz IS NULL OR d.read_time >= $7)
    AND ($8::timestamptz IS NULL OR d.read_time < $8)
ORDER BY d.customer COLLATE "C", d.event_id;
