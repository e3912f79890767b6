-- Who could have read a customer at a time, and who did: broker/audit/access_at.py.

-- name: standing
-- Lists who stood how to the customer's tickets then.
SELECT * FROM broker.standing_at($1, $2, $3);

-- name: policy
-- Reads the policy that was in force then; a version is in force from its row on, until the next one's.
SELECT version, files, create_time FROM broker.policy_version
WHERE create_time <= $1 ORDER BY version DESC LIMIT 1;

-- name: seen_in_tokens
-- Finds, for each agent, the last decision before a time and the groups that their token named then: among their last
-- $3 events, because it is not said that any of them has groups. What are no groups in a leaf are none.
SELECT a.agent, e.record_time, e.groups
FROM unnest($1::text[]) AS a (agent)
CROSS JOIN LATERAL (
    SELECT l.record_time, d.groups
    FROM (
        SELECT o.id, o.record_time, o.kind, o.leaf FROM broker.ledger_event AS o
        WHERE o.agent = a.agent AND o.id < broker.uuid7_floor($2::timestamptz)
        ORDER BY o.id DESC LIMIT $3
    ) AS l
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN l.kind IN ('grant', 'read', 'denial') THEN broker.leaf_detail(l.leaf) -> 'groups'
        END AS groups OFFSET 0
    ) AS d
    WHERE
        jsonb_typeof(d.groups) = 'array'
        AND NOT jsonb_path_exists(d.groups, 'strict $[*] ? (@.type() != "string")', silent => true)
    ORDER BY l.id DESC LIMIT 1
) AS e;

-- name: did
-- Counts the disclosures of a customer by agent.
SELECT
    d.agent, count(*) AS reads, min(d.read_time) AS first, max(d.read_time) AS last,
    max(d.read_time) FILTER (WHERE d.read_time <= $2) AS last_before
FROM broker.disclosed AS d
WHERE d.customer = $1 AND d.narrowed IS NULL
GROUP BY d.agent ORDER BY d.agent;

-- name: history_start
-- Gives since when the states of tickets and their customers are kept.
SELECT start_time FROM broker.history_start;
