-- name: apply_events^
-- Applies a batch of events of one feed, all or nothing.
SELECT outcomes, contiguous_seq FROM broker.apply_ticket_events($1, $2);

-- name: heartbeat^
-- Extends a feed's freshness where nothing is missing.
SELECT resync_needed, contiguous_seq, stale_time FROM broker.feed_heartbeat($1, $2, $3, $4, $5);

-- name: apply_snapshot$
-- Applies a part of a snapshot.
SELECT broker.apply_snapshot($1, $2, $3);

-- name: end_snapshot^
-- Ends a snapshot; closes what it did not name.
SELECT closed, contiguous_seq FROM broker.end_snapshot($1, $2, $3);

-- name: import_tickets^
-- Loads tickets before the first events.
SELECT loaded, kept FROM broker.import_tickets($1, $2);

-- name: grounds
-- Gives the grounds of agents on tickets; one row per pair always, in their order.
SELECT
    g.kind, g.status, g.relation, g.provenance, g.opened_by, g.present_until, g.present, g.facts_version,
    g.customers, g.was_last_assignee, g.feed_fresh, g.suspended
FROM unnest($1::text [], $2::text []) WITH ORDINALITY AS asked (ticket_id, agent, ord)
CROSS JOIN LATERAL broker.ground(asked.ticket_id, asked.agent) AS g
ORDER BY asked.ord;

-- name: list_assigned
-- Lists an agent's open tickets, newest relation first, beyond a position.
SELECT ticket_id, kind, relation, start_time FROM broker.list_assigned($1, $2, $3, $4);

-- name: feeds
-- Lists how fresh each feed is.
SELECT feed_id, contiguous_seq, stale_time, fresh, events_missing FROM broker.feeds();
