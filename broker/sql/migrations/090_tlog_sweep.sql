-- The look for new events, between two ids: the horizon is looked over in slices, so that no look is long.

DROP FUNCTION broker.tlog_pending(uuid, integer);

-- Events between two ids that are no leaves yet, lowest ids first, with their hashes.
-- Both sides are walked along their indexes, whatever the statistics say: the cost is that of the window, not of
-- the ledger.
CREATE FUNCTION broker.tlog_pending(p_after uuid, p_before uuid, p_most integer) RETURNS TABLE (
    id uuid, leaf_hash bytea
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker, pg_temp
SET plan_cache_mode = force_custom_plan SET enable_hashjoin = off SET enable_seqscan = off
SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT e.id, sha256('\x00'::bytea || e.leaf)
    FROM broker.ledger_event AS e
    WHERE
        e.id > p_after AND e.id < p_before
        AND NOT EXISTS (
            SELECT FROM broker.ledger_tree AS t
            WHERE t.event_id = e.id AND t.event_id > p_after AND t.event_id < p_before
        )
    ORDER BY e.id
    LIMIT p_most;
END
$$;
REVOKE ALL ON FUNCTION broker.tlog_pending FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.tlog_pending TO broker_admin;
