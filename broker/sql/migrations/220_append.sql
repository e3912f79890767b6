-- What reaches the ledger is bounded, and the walkers of the ledger can rely on its order.

-- Whoever appends may be taken over: neither a name that no index holds nor a leaf that no answer carries may come
-- in. NOT VALID: what is there stays, and no table is read for it.
ALTER TABLE broker.ledger_event ADD CONSTRAINT ledger_event_sizes CHECK (
    octet_length(leaf) <= 262144 AND octet_length(agent) <= 2400 AND octet_length(tool) <= 2400
    AND octet_length(trace_id) <= 64
) NOT VALID;

-- As in 070; the number is drawn before the clock is read.
CREATE OR REPLACE FUNCTION broker.append_read(
    p_id uuid, p_grant uuid, p_agent text, p_tool text, p_trace text,
    p_facts_version bigint, p_present boolean, p_version bigint,
    p_hour integer, p_day integer, p_head bytea,
    OUT reason text, OUT leaf bytea, OUT free_time timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_variable
DECLARE
    v_own xid8 := pg_current_xact_id(); -- first of all: see check_clock in 120
    v_now timestamptz := clock_timestamp();
    v_customer text; -- NULL: no grant of this agent's
    v_ticket text;
    v_counted boolean;
BEGIN
    IF p_id NOT BETWEEN broker.uuid7_floor(v_now - interval '60 seconds')
        AND broker.uuid7_floor(v_now + interval '60 seconds')
    THEN
        RAISE EXCEPTION 'clock skew' USING ERRCODE = 'BK002';
    END IF;
    SELECT g.reason, g.customer, g.ticket, g.counted INTO reason, v_customer, v_ticket, v_counted
    FROM broker.read_ground(p_grant, p_agent, p_facts_version, p_present, p_version, v_now) AS g;
    IF NOT FOUND THEN
        reason := 'TOKEN_INVALID';
    ELSIF reason = '' AND (NOT v_counted OR least(p_hour, p_day) <= 0) THEN
        PERFORM broker.lock_budget(p_agent);
        -- Behind the lock every statement sees what the last holder committed.
        free_time := broker.charge_budget(p_agent, v_customer, p_hour, p_day, v_now);
        IF free_time IS NOT NULL THEN
            reason := 'BUDGET_EXCEEDED';
        END IF;
    END IF;
    leaf := broker.read_leaf(p_head, reason, v_customer, broker.leaf_tail(v_now));
    IF leaf IS NOT NULL THEN
        INSERT INTO broker.ledger_event
            (id, kind, record_time, agent, tool, grant_id, trace_id, customer_pseudonym, ticket_pseudonym,
             outcome, reason, policy_version, leaf)
        VALUES (
            p_id, 'read', v_now, p_agent, p_tool, p_grant, p_trace, v_customer, v_ticket,
            CASE WHEN reason = '' THEN 'released' ELSE 'refused' END, reason, p_version, leaf
        );
    END IF;
END
$$;
