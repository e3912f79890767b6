-- What auditors' acts on the log need, and one event whose columns said more than its leaf.

GRANT SELECT ON broker.tlog_checkpoint TO broker_admin;

-- Revokes the agent's own grant and appends its event once; no row for anybody else's. As in 050_ledger.sql,
-- but columns are an index over the leaf and hold nothing that the leaf does not: the grant is named, and
-- through it customer, ticket and policy.
CREATE OR REPLACE FUNCTION broker.revoke_own_grant(
    p_id uuid, p_grant uuid, p_agent text, p_tool text, p_trace text, p_head bytea
) RETURNS TABLE (revoke_time timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_grant broker.access_grant;
    v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM broker.check_clock(ARRAY[p_id]);
    SELECT g.* INTO v_grant FROM broker.access_grant AS g
    WHERE g.grant_id = p_grant AND g.agent = p_agent FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF v_grant.revoke_time IS NULL THEN
        UPDATE broker.access_grant AS g SET revoke_time = v_now WHERE g.grant_id = p_grant;
        INSERT INTO broker.ledger_event VALUES (
            p_id, 'revoke', v_now, p_agent, p_tool, p_grant, p_trace, '', '', 'done', '', NULL,
            broker.leaf(p_head, 'done', '', v_now)
        );
    END IF;
    RETURN QUERY SELECT coalesce(v_grant.revoke_time, v_now);
END
$$;
