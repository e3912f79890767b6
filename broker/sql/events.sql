-- The ledger's events for auditors, in the order of the transparency log; those that it has not yet come last.
-- Looks into the ledger are LATERAL with LIMIT: one by its id each, which no planner turns into a join over it all.
-- Older releases stored leaves of any size; one beyond what 220_append.sql allows is told by its size alone.

-- name: head
-- Gives how many leaves there are, and how many chunks of them are indexed.
SELECT h.size, (SELECT coalesce(max(c.chunk) + 1, 0) FROM broker.event_chunk AS c) AS chunks FROM broker.tlog_head AS h;

-- name: last_leaf
-- Gives the event of the last leaf of a tree of some size; no row for an empty one.
SELECT t.event_id FROM broker.ledger_tree AS t
WHERE t.seq < $1 AND t.event_id IS NOT NULL ORDER BY t.seq DESC LIMIT 1;

-- name: matching
-- Gives those of some leaves whose events are meant. What an id's own time rules out ($13 and $14) is not looked at.
SELECT t.seq
FROM unnest($1::bigint[]) AS u (seq)
CROSS JOIN LATERAL (SELECT * FROM broker.ledger_tree AS x WHERE x.seq = u.seq LIMIT 1) AS t
CROSS JOIN LATERAL (
    SELECT * FROM broker.ledger_event AS x
    WHERE t.event_id >= $13::uuid AND t.event_id <= $14::uuid AND x.id = t.event_id LIMIT 1
) AS e
WHERE
    ($2::text IS NULL OR e.agent = $2) AND ($3::text IS NULL OR e.tool = $3)
    AND ($4::text IS NULL OR e.customer_pseudonym = $4) AND ($5::text IS NULL OR e.ticket_pseudonym = $5)
    AND ($6::uuid IS NULL OR e.grant_id = $6) AND ($7::text IS NULL OR e.kind = $7)
    AND ($8::text IS NULL OR e.outcome = $8) AND ($9::text IS NULL OR e.reason = $9)
    AND ($10::bigint IS NULL OR e.policy_version = $10)
    AND ($11::timestamptz IS NULL OR e.record_time >= $11) AND ($12::timestamptz IS NULL OR e.record_time < $12)
ORDER BY t.seq;

-- name: leaves
-- Gives the events of some leaves, those that are meant.
SELECT
    e.id, t.seq, e.record_time, e.kind, e.outcome, e.reason, e.agent, e.tool, e.customer_pseudonym, e.ticket_pseudonym,
    e.grant_id, e.trace_id, e.policy_version,
    CASE WHEN octet_length(e.leaf) <= 262144 THEN e.leaf ELSE '' END AS leaf, octet_length(e.leaf) AS leaf_size
FROM unnest($1::bigint[]) AS u (seq)
CROSS JOIN LATERAL (SELECT * FROM broker.ledger_tree AS x WHERE x.seq = u.seq LIMIT 1) AS t
CROSS JOIN LATERAL (SELECT * FROM broker.ledger_event AS x WHERE x.id = t.event_id LIMIT 1) AS e
WHERE
    ($2::text IS NULL OR e.agent = $2) AND ($3::text IS NULL OR e.tool = $3)
    AND ($4::text IS NULL OR e.customer_pseudonym = $4) AND ($5::text IS NULL OR e.ticket_pseudonym = $5)
    AND ($6::uuid IS NULL OR e.grant_id = $6) AND ($7::text IS NULL OR e.kind = $7)
    AND ($8::text IS NULL OR e.outcome = $8) AND ($9::text IS NULL OR e.reason = $9)
    AND ($10::bigint IS NULL OR e.policy_version = $10)
    AND ($11::timestamptz IS NULL OR e.record_time >= $11) AND ($12::timestamptz IS NULL OR e.record_time < $12)
ORDER BY t.seq;

-- name: pending
-- Lists the events between two ids that are none of the first $3 leaves, at most $4 of them, $5 says from which
-- end; `meant` says which of them are.
SELECT
    e.id, NULL::bigint AS seq, e.record_time, e.kind, e.outcome, e.reason, e.agent, e.tool, e.customer_pseudonym,
    e.ticket_pseudonym, e.grant_id, e.trace_id, e.policy_version,
    CASE WHEN octet_length(e.leaf) <= 262144 THEN e.leaf ELSE '' END AS leaf, octet_length(e.leaf) AS leaf_size,
    ($6::text IS NULL OR e.agent = $6) AND ($7::text IS NULL OR e.tool = $7)
    AND ($8::text IS NULL OR e.customer_pseudonym = $8) AND ($9::text IS NULL OR e.ticket_pseudonym = $9)
    AND ($10::uuid IS NULL OR e.grant_id = $10) AND ($11::text IS NULL OR e.kind = $11)
    AND ($12::text IS NULL OR e.outcome = $12) AND ($13::text IS NULL OR e.reason = $13)
    AND ($14::bigint IS NULL OR e.policy_version = $14)
    AND ($15::timestamptz IS NULL OR e.record_time >= $15)
    AND ($16::timestamptz IS NULL OR e.record_time < $16) AS meant
FROM (
    (
        SELECT * FROM broker.ledger_event AS x
        WHERE NOT $5::boolean AND x.id > $1::uuid AND x.id < $2::uuid AND NOT EXISTS (
            SELECT FROM broker.ledger_tree AS t WHERE t.event_id = x.id AND t.seq < $3::bigint
        )
        ORDER BY x.id DESC LIMIT $4::bigint
    )
    UNION ALL
    (
        SELECT * FROM broker.ledger_event AS x
        WHERE $5::boolean AND x.id > $1::uuid AND x.id < $2::uuid AND NOT EXISTS (
            SELECT FROM broker.ledger_tree AS t WHERE t.event_id = x.id AND t.seq < $3::bigint
        )
        ORDER BY x.id LIMIT $4::bigint
    )
) AS e;

-- name: event
-- Gives one event by its id.
SELECT
    e.id, t.seq, e.record_time, e.kind, e.outcome, e.reason, e.agent, e.tool, e.customer_pseudonym, e.ticket_pseudonym,
    e.grant_id, e.trace_id, e.policy_version,
    CASE WHEN octet_length(e.leaf) <= 262144 THEN e.leaf ELSE '' END AS leaf, octet_length(e.leaf) AS leaf_size
FROM broker.ledger_event AS e
LEFT JOIN broker.ledger_tree AS t ON t.event_id = e.id
WHERE e.id = $1;

-- name: chunks_between
-- Gives the first and the last chunk with events between two times, and those that lie between them whole.
SELECT
    min(c.chunk) AS low, max(c.chunk) AS high,
    min(c.chunk) FILTER (WHERE c.first_time >= $1 AND c.last_time < $2) AS whole_low,
    max(c.chunk) FILTER (WHERE c.first_time >= $1 AND c.last_time < $2) AS whole_high
FROM broker.event_chunk AS c
WHERE c.last_time >= $1 AND c.first_time < $2;

-- name: rarity
-- Counts the chunks that hold a value, up to 64: the rarest of several values leads.
SELECT count(*) FROM (
    SELECT FROM broker.event_posting AS p
    WHERE p.value = broker.event_value($1, $2) AND p.chunk >= $3 AND p.chunk < $4 LIMIT 64
) AS found;

-- name: postings_down
-- Gives where a value is in the last chunks below one, at most so many.
SELECT p.chunk, p.places FROM broker.event_posting AS p
WHERE p.value = broker.event_value($1, $2) AND p.chunk >= $3 AND p.chunk < $4 ORDER BY p.chunk DESC LIMIT $5;

-- name: postings_up
-- Gives where a value is in the next chunks from one on, at most so many.
SELECT p.chunk, p.places FROM broker.event_posting AS p
WHERE p.value = broker.event_value($1, $2) AND p.chunk >= $3 AND p.chunk < $4 ORDER BY p.chunk LIMIT $5;

-- name: postings_in
-- Gives where a value is in some chunks.
SELECT p.chunk, p.places FROM unnest($3::integer[]) AS u (chunk)
CROSS JOIN LATERAL (
    SELECT * FROM broker.event_posting AS x WHERE x.value = broker.event_value($1, $2) AND x.chunk = u.chunk LIMIT 1
) AS p;

-- name: index_events
-- Indexes the next full chunks.
SELECT indexed, remaining FROM broker.index_events($1);
