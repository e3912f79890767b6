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
-- Lists events above an id that are no leaves yet.
SELECT id, leaf_hash FROM broker.tlog_pending($1, $2);

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
