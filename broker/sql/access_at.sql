-- Who could have read a customer at a time, and who did: broker/audit/access_at.py.

-- name: standing
-- Lists who stood how to the customer's tickets then.
SELECT * FROM broker.standing_at($1, $2, $3);

-- name: policy
-- Reads the policy that was in force then; a version is in force from its row on, until the next one's.
SELECT version, files, create_time FROM broker.policy_version
WHERE create_time <= $1 ORDER BY version DESC LIMIT 1;

-- name: seen_in_tokens
-- Finds, for each agent, the last decision before a time and the groups that their token named then.
SELECT a.agent, e.record_time, e.leaf
FROM unnest($1::text[]) AS a (agent)
CROSS JOIN LATERAL (
    SELECT l.record_time, l.leaf FROM broker.ledger_event AS l
    WHERE
        l.agent = a.agent AND l.id < broker.uuid7_floor($2::timestamptz) AND l.kind IN ('grant', 'read', 'denial')
        AND broker.leaf_detail(l.leaf) ? 'groups'
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
