-- Grants, suspensions, and the ground on which a grant stands.

CREATE TABLE broker.agent_suspension (
    suspension_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent text NOT NULL,
    reason text NOT NULL,
    suspended_by text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    end_time timestamptz -- NULL -> in force; set once by reinstate
);
CREATE UNIQUE INDEX agent_suspension_live ON broker.agent_suspension (agent) WHERE end_time IS NULL;

CREATE TABLE broker.access_grant (
    grant_id uuid PRIMARY KEY,
    decision_id uuid NOT NULL,
    request_id uuid NOT NULL,
    request_hash bytea NOT NULL, -- what was asked: a repeat with other content is refused
    agent text NOT NULL,
    tool_identity text NOT NULL,
    tool_thumbprint text NOT NULL,
    ticket_id text NOT NULL,
    customer_id text NOT NULL,
    customer_pseudonym text NOT NULL,
    ticket_pseudonym text NOT NULL,
    purpose text NOT NULL,
    audience text NOT NULL,
    fields text [] NOT NULL, -- what is granted, levels beside it
    levels text [] NOT NULL,
    answer jsonb NOT NULL, -- the decision field by field, for a repeated request
    policy_version bigint NOT NULL,
    trace_id text NOT NULL,
    pass text NOT NULL, -- opens one customer's mapped columns in the records database
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    revoke_time timestamptz, -- NULL -> not revoked; set once
    UNIQUE (agent, request_id)
);
CREATE INDEX access_grant_live ON broker.access_grant (agent, expire_time) WHERE revoke_time IS NULL;
CREATE INDEX access_grant_end ON broker.access_grant (expire_time); -- for purge
CREATE INDEX access_grant_ticket ON broker.access_grant (ticket_id, expire_time) WHERE revoke_time IS NULL;

-- Distinct customers of an agent, by pseudonym. last_time is renewed at most once a minute, so the
-- windows are one minute longer than they say: never an undercount.
CREATE TABLE broker.budget_use (
    agent text NOT NULL,
    customer_pseudonym text NOT NULL,
    last_time timestamptz NOT NULL,
    PRIMARY KEY (agent, customer_pseudonym)
);
CREATE INDEX budget_use_window ON broker.budget_use (agent, last_time);
CREATE INDEX budget_use_end ON broker.budget_use (last_time); -- for purge

-- One row per live relation of an agent to a ticket, with all that an append compares.
CREATE VIEW broker.standing AS
SELECT
    a.ticket_id,
    a.agent,
    a.relation,
    t.status,
    t.facts_version,
    t.present_until,
    f.stale_time
FROM broker.assignment AS a
INNER JOIN broker.ticket AS t ON a.ticket_id = t.ticket_id
INNER JOIN broker.feed AS f ON t.feed_id = f.feed_id
WHERE a.end_time IS NULL;

-- Functions over tables are plpgsql, whose plans are kept by the session; before release 18 an SQL function
-- is planned at each call. Their plans go down the indexes whatever the statistics say (P9).

-- When the agent may read one customer more: NULL if now. `known` customers cost nothing.
CREATE FUNCTION broker.budget_free_time(
    p_agent text, p_customer text, p_hour integer, p_day integer, p_now timestamptz
) RETURNS timestamptz LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off AS $$
BEGIN
    RETURN (
        SELECT max(w.free_time)
        FROM (
            VALUES (interval '61 minutes', p_hour), (interval '1441 minutes', p_day)
        ) AS span (width, most)
        CROSS JOIN LATERAL (
            -- the window holds `most` or more others: one slot frees when the (n - most + 1)th oldest leaves
            SELECT u.last_time + span.width AS free_time
            FROM broker.budget_use AS u
            WHERE u.agent = p_agent AND u.last_time > p_now - span.width
            ORDER BY u.last_time DESC
            OFFSET greatest(span.most - 1, 0) LIMIT 1
        ) AS w
        WHERE NOT EXISTS (
            SELECT FROM broker.budget_use AS k
            WHERE
                k.agent = p_agent AND k.customer_pseudonym = p_customer
                AND k.last_time > p_now - span.width
        )
    );
END
$$;

-- A budget of nought frees up never; say so with infinity.
CREATE FUNCTION broker.budget_refusal(
    p_agent text, p_customer text, p_hour integer, p_day integer, p_now timestamptz
) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF least(p_hour, p_day) <= 0 THEN
        RETURN 'infinity';
    END IF;
    RETURN broker.budget_free_time(p_agent, p_customer, p_hour, p_day, p_now);
END
$$;

-- Serialises what may grow one agent's budget use, on every replica, until the transaction ends.
CREATE FUNCTION broker.lock_budget(p_agent text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(1651663207, hashtext(p_agent))
$$;

-- Why this agent may not (any longer) reach this customer through this ticket: '' if they may.
-- FACTS_STALE and POLICY_STALE mean: decide again with the facts and the policy of now.
CREATE FUNCTION broker.ground_refusal(
    p_agent text, p_ticket text, p_customer text,
    p_facts_version bigint, p_present boolean, p_policy_version bigint, p_now timestamptz
) RETURNS text LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off AS $$
BEGIN
    RETURN (
        SELECT CASE
            WHEN EXISTS (SELECT FROM broker.agent_suspension AS x WHERE x.agent = p_agent AND x.end_time IS NULL)
                THEN 'AGENT_SUSPENDED'
            WHEN s.ticket_id IS NULL THEN 'TICKET_DENIED'
            WHEN s.stale_time <= p_now THEN 'FEED_STALE'
            WHEN s.status NOT IN ('open', 'pending') AND s.relation = 'assignee' THEN 'TICKET_CLOSED'
            WHEN s.status NOT IN ('open', 'pending') THEN 'TICKET_DENIED'
            -- equal or stale: what the caller leaves out (NULL) is not equal
            WHEN (p_policy_version = broker.active_policy_version()) IS NOT TRUE THEN 'POLICY_STALE'
            WHEN
                (
                    s.facts_version = p_facts_version
                    AND coalesce(s.present_until > p_now, false) = p_present
                ) IS NOT TRUE
                THEN 'FACTS_STALE'
            -- last: where the customers have changed the facts have, and the caller shall look again
            WHEN NOT EXISTS (
                SELECT FROM broker.ticket_customer AS c
                WHERE c.ticket_id = p_ticket AND c.customer_id = p_customer
            ) THEN 'TICKET_DENIED'
            ELSE ''
        END
        FROM (SELECT 1) AS one
        LEFT JOIN broker.standing AS s ON s.ticket_id = p_ticket AND s.agent = p_agent
    );
END
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA broker FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA broker FROM PUBLIC;
