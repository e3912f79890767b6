-- name: lead
-- Tells whether this session is the one sequencer now.
SELECT pg_try_advisory_lock(1651663207, 90);

-- name: head
-- Reads the head, and below which number all transactions have ended.
SELECT
    h.size, h.root, h.note, h.low_id,
    extract(EPOCH FROM statement_timestamp())::double precision AS now,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
    broker.appends_stopped() AS stopped
FROM broker.tlog_head AS h;

-- name: mark
-- Takes a transaction's number: whoever gets a greater one begins to write later than `now`.
-- The end of a snapshot would not do: it is behind the last one that has ended, not the last that was given.
SELECT
    extract(EPOCH FROM statement_timestamp())::double precision AS now,
    pg_current_xact_id()::text::bigint AS xid;

-- name: pending
-- Lists events between two ids that are no leaves yet.
SELECT id, leaf_hash FROM broker.tlog_pending($1, $2, $3);

-- name: integrate
-- Makes events leaves and swaps the head.
SELECT broker.tlog_integrate($1, $2, $3::uuid[], $4::bytea[], $5, $6);

-- name: settle
-- Remembers up to where every event is a leaf.
SELECT broker.tlog_settle($1, $2, $3);

-- name: hashes
-- Reads the hashes of a range of leaves.
SELECT broker.tlog_hashes($1, $2);

-- name: stop
-- Stops every append.
SELECT broker.stop_appends();

-- name: resume
-- Lets appends go on.
SELECT broker.resume_appends();

-- name: keep
-- Keeps a cosigned checkpoint.
SELECT broker.tlog_keep($1, $2, $3);

-- name: state
-- Puts a signed statement beside its event.
SELECT broker.tlog_state($1, $2);

-- name: verify_head
-- Reads the head as it is stored.
SELECT size, root, note, low_id FROM broker.tlog_head;

-- name: verify_last
-- Reads the last leaf's index.
SELECT max(seq) FROM broker.ledger_tree;

-- name: verify_statements
-- Lists what the log's key signed about events that are not there any more.
SELECT s.event_id, s.note, s.leaf, t.seq, t.leaf_hash
FROM broker.tlog_statement AS s
LEFT JOIN broker.ledger_tree AS t ON t.event_id = s.event_id
ORDER BY s.statement_id;

-- name: verify_checkpoints
-- Lists the kept checkpoints.
SELECT size, root, note FROM broker.tlog_checkpoint ORDER BY size;

-- name: verify_leaves
-- Reads a range of leaves with their events; a time that no program can hold is none.
SELECT
    t.seq, t.event_id, t.leaf_hash, e.leaf, e.id, e.kind,
    CASE WHEN e.record_time BETWEEN '0002-01-01 UTC' AND '9998-12-31 UTC' THEN e.record_time END AS record_time,
    e.agent, e.tool, e.grant_id, e.trace_id, e.customer_pseudonym, e.ticket_pseudonym, e.outcome, e.reason,
    e.policy_version
FROM broker.ledger_tree AS t
LEFT JOIN broker.ledger_event AS e ON e.id = t.event_id
WHERE t.seq >= $1 AND t.seq < $2
ORDER BY t.seq;

-- name: verify_inserted
-- Lists events below an id that are no leaves.
SELECT e.id FROM broker.ledger_event AS e
WHERE e.id < $1 AND NOT EXISTS (SELECT FROM broker.ledger_tree AS t WHERE t.event_id = e.id)
ORDER BY e.id
LIMIT $2;

-- name: verify_loose
-- Counts events that are no leaves, below an id and from there on.
SELECT count(*) FILTER (WHERE e.id < $1) AS inserted, count(*) FILTER (WHERE e.id >= $1) AS waiting
FROM broker.ledger_event AS e
WHERE NOT EXISTS (SELECT FROM broker.ledger_tree AS t WHERE t.event_id = e.id);

-- name: prove_leaf
-- Reads an event with its place in the tree; NULL while it has none.
SELECT t.seq, e.leaf FROM broker.ledger_event AS e
LEFT JOIN broker.ledger_tree AS t ON t.event_id = e.id
WHERE e.id = $1;

-- name: kept
-- Reads the signed checkpoint of a size, where it was kept.
SELECT note FROM broker.tlog_checkpoint WHERE size = $1;

-- name: stopped
-- Tells whether appends are stopped.
SELECT broker.appends_stopped();

-- name: prunable
-- Lists partitions that end before a time, oldest first, each with the id that it ends before.
SELECT c.relname::text AS name, broker.uuid7_floor(b.last_time) AS below
FROM pg_inherits AS i
INNER JOIN pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL (
    SELECT (to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month') AT TIME ZONE 'UTC' AS last_time
) AS b
WHERE i.inhparent = 'broker.ledger_event'::regclass AND b.last_time <= $1
ORDER BY c.relname;

-- name: prune_check
-- What keeps events below an id from being dropped: how many are no leaves, and whether more can come.
SELECT
    (
        SELECT count(*) FROM broker.ledger_event AS e
        WHERE e.id < $1 AND NOT EXISTS (SELECT FROM broker.ledger_tree AS t WHERE t.event_id = e.id)
    ) AS loose,
    (SELECT h.low_id >= $1 FROM broker.tlog_head AS h) AS closed;

-- name: prune_bounds
-- Between which leaves the events below an id lie.
SELECT coalesce(min(t.seq), 0) AS lo, coalesce(max(t.seq) + 1, 0) AS hi
FROM broker.ledger_event AS e
INNER JOIN broker.ledger_tree AS t ON t.event_id = e.id
WHERE e.id < $1;

-- name: prune_leaves
-- Reads the events below an id that are leaves of a range.
SELECT t.seq, e.id, e.leaf
FROM broker.ledger_tree AS t
INNER JOIN broker.ledger_event AS e ON e.id = t.event_id
WHERE t.seq >= $2 AND t.seq < $3 AND t.event_id < $1
ORDER BY t.seq;
