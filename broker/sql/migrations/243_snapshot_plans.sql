-- Plans of snapshots that hold for large ones.
--
-- A session's sixth call takes a plan that was made without looking at the arguments: the tickets that a snapshot
-- names were taken for a handful, and each open ticket was compared with all of them in turn, 100,000 with 100,000,
-- until the statement timed out. Once a snapshot, planning is nothing.
ALTER FUNCTION broker.end_snapshot(text, bigint, text []) SET plan_cache_mode = force_custom_plan;

-- Applies a part of a snapshot taken at p_seq; in one transaction with end_snapshot, parts by their tickets' ids.
CREATE OR REPLACE FUNCTION broker.apply_snapshot(p_feed text, p_seq bigint, p_events jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_feed broker.feed := broker.take_turn(p_feed);
    v_event jsonb;
BEGIN
    IF p_seq < v_feed.resync_seq THEN
        RAISE EXCEPTION USING ERRCODE = 'BK004', MESSAGE = 'a newer snapshot was applied';
    END IF;
    PERFORM broker.claim_tickets(p_feed, p_events);
    -- What is stored just as the snapshot says is not written again: each aspect of that version, the digest of
    -- all of them, and the status, which a snapshot's silence may have changed since.
    FOR v_event IN
        SELECT e.value FROM jsonb_array_elements(p_events) WITH ORDINALITY AS e (value, n)
        -- LIMIT: a look by the primary key for each, also where the plan was made while the table was small
        LEFT JOIN LATERAL (
            SELECT k.* FROM broker.ticket AS k WHERE k.ticket_id = e.value ->> 'ticket_id' LIMIT 1
        ) AS t ON true
        WHERE (
            t.feed_id = p_feed
            AND (e.value ->> 'version')::bigint = ALL (
                ARRAY[t.version, t.details_version, t.status_version, t.assignments_version]
            )
            AND t.content_hash = decode(e.value ->> 'hash', 'hex') AND t.status = e.value ->> 'status'
        ) IS NOT TRUE
        ORDER BY e.n
    LOOP
        PERFORM broker.put_ticket(p_feed, v_event, true);
    END LOOP;
END
$$;
