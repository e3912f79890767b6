-- Whose reads explain complaints: see broker/audit/attribution.py.

-- name: names
-- Lists agents and tools.
SELECT name_id, kind, name FROM broker.disclosure_name ORDER BY name_id;

-- name: known_fields
-- Lists the fields that any read gave out in clear.
SELECT DISTINCT c.name FROM broker.disclosure_fields AS f CROSS JOIN unnest(f.clear) AS c (name) ORDER BY c.name;

-- name: reads
-- Finds the reads of customers, a bounded number of each.
SELECT
    r.event_id, r.read_time, r.agent_id, r.tool_id, r.stratum_id, r.customer, r.grant_id, f.clear, f.unreadable,
    s.ticket_kind, s.week
FROM unnest($1::text[]) AS asked (customer)
CROSS JOIN LATERAL (
    SELECT d.* FROM broker.disclosure AS d WHERE d.customer = asked.customer AND d.narrowed IS NULL LIMIT $2
) AS r
INNER JOIN broker.disclosure_fields AS f ON r.fields_id = f.fields_id
INNER JOIN broker.disclosure_stratum AS s ON r.stratum_id = s.stratum_id;

-- name: sizes
-- Counts the customers of queues' weeks.
SELECT stratum_id, customers FROM broker.disclosure_tally
WHERE name_id = 0 AND fields_id = 0 AND stratum_id = ANY($1::integer[]);

-- name: seen
-- Counts, rather too many than too few, the customers whom subjects had seen with a field in clear.
SELECT t.name_id, t.stratum_id, k.name AS field, sum(t.customers)::bigint AS customers
FROM broker.disclosure_tally AS t
INNER JOIN broker.disclosure_fields AS f ON t.fields_id = f.fields_id
INNER JOIN unnest($3::text[]) AS k (name)
    ON f.unreadable OR k.name = ANY(f.clear) OR (k.name = '' AND cardinality(f.clear) > 0)
WHERE t.name_id = ANY($1::integer[]) AND t.stratum_id = ANY($2::integer[])
GROUP BY t.name_id, t.stratum_id, k.name;

-- name: weeks
-- Lists the weeks of all queues with the customers who were disclosed for the first time in them.
SELECT s.stratum_id, s.week, coalesce(t.customers, 0) AS customers
FROM broker.disclosure_stratum AS s
LEFT JOIN broker.disclosure_tally AS t ON s.stratum_id = t.stratum_id AND t.name_id = 0 AND t.fields_id = 0
WHERE s.ticket_kind = '';

-- name: totals
-- Counts the customers whom each agent and tool ever saw.
SELECT t.name_id, sum(t.customers)::bigint AS customers
FROM broker.disclosure_tally AS t
INNER JOIN broker.disclosure_stratum AS s ON t.stratum_id = s.stratum_id
WHERE s.ticket_kind = '' AND t.name_id > 0
GROUP BY t.name_id;

-- name: leaves
-- Fetches events with their bytes, the truth.
SELECT id, leaf FROM broker.ledger_event WHERE id = ANY($1::uuid[]);

-- name: outcomes
-- Fetches what the reads of grants came to.
SELECT leaf FROM broker.ledger_event WHERE grant_id = ANY($1::uuid[]) AND kind = 'outcome';

-- name: match_pass
-- Gets the pass that lets the identifiers of a query on record be matched, and the tickets' customers sealed.
SELECT pass, sealed FROM broker.match_pass($1, $2::text[]);

-- name: match_customers
-- Turns identifiers into pseudonyms; in the records database.
SELECT line, found, pseudonym FROM broker_guard.match_customers($1, $2::text[], $3::text[]);
