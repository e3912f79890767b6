-- Acts that two may do at once or twice: each does what it says and is on record under the id that it answers.

-- Suspends an agent; answers the suspension in force.
--
-- One that is in force when we want to begin ours may be ended before we look at it: then ours begins after all.
CREATE OR REPLACE FUNCTION broker.suspend_agent(p_agent text, p_reason text, p_by text)
RETURNS broker.agent_suspension
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_row broker.agent_suspension;
BEGIN
    LOOP
        INSERT INTO broker.agent_suspension (agent, reason, suspended_by) VALUES (p_agent, p_reason, p_by)
        ON CONFLICT (agent) WHERE end_time IS NULL DO NOTHING;
        SELECT s.* INTO v_row FROM broker.agent_suspension AS s WHERE s.agent = p_agent AND s.end_time IS NULL;
        IF FOUND THEN
            RETURN v_row;
        END IF;
    END LOOP;
END
$$;

-- Revokes the agent's own grant; no row for anybody else's. As in 090_tlog_acts.sql: columns are an index over the
-- leaf and hold nothing that the leaf does not, so the grant is named, and through it customer, ticket and policy.
--
-- Each call appends its event, also where the grant was revoked before: the caller is told the event's id, and its
-- trace names it. The time is that of the first.
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
    END IF;
    INSERT INTO broker.ledger_event VALUES (
        p_id, 'revoke', v_now, p_agent, p_tool, p_grant, p_trace, '', '', 'done', '', NULL,
        broker.leaf(p_head, 'done', '', v_now)
    );
    RETURN QUERY SELECT coalesce(v_grant.revoke_time, v_now);
END
$$;
