-- The ground of a read by lookups alone, whatever the planner knows.
--
-- 070 joined the view `standing` to the grant as a whole. On tables that were never analysed, as after a first
-- load, the planner then went from the agent to all of the agent's assignments, with the ticket and the feed of
-- each, to keep one: 260 pages and 0.5 ms a read with 40 tickets assigned. Behind LATERAL and LIMIT the ticket is
-- there first. And the agent is compared with IS NOT DISTINCT FROM, for which no index is good: so a grant is found
-- by its id, never among the agent's, and what is the agent's by the grant's.

CREATE OR REPLACE FUNCTION broker.read_ground(
    p_grant uuid, p_agent text, p_facts_version bigint, p_present boolean, p_version bigint, p_now timestamptz
) RETURNS TABLE (reason text, customer text, ticket text, counted boolean)
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT
        CASE
            WHEN g.revoke_time IS NOT NULL OR g.expire_time <= p_now THEN 'TOKEN_INVALID'
            WHEN x.agent IS NOT NULL THEN 'AGENT_SUSPENDED'
            WHEN s.ticket_id IS NULL OR c.ticket_id IS NULL THEN 'TICKET_DENIED'
            WHEN s.stale_time <= p_now THEN 'FEED_STALE'
            -- its last assignee may learn that it is closed, nobody else (K1)
            WHEN s.status NOT IN ('open', 'pending') AND s.relation = 'assignee' THEN 'TICKET_CLOSED'
            WHEN s.status NOT IN ('open', 'pending') THEN 'TICKET_DENIED'
            -- equal or stale: what the caller leaves out (NULL) is not equal
            WHEN (p_version = (SELECT p.version FROM broker.policy_active AS p)) IS NOT TRUE THEN 'POLICY_STALE'
            WHEN
                (
                    s.facts_version = p_facts_version
                    AND coalesce(s.present_until > p_now, false) = p_present
                ) IS NOT TRUE
                THEN 'FACTS_STALE'
            ELSE ''
        END,
        g.customer_pseudonym,
        g.ticket_pseudonym,
        -- a budget row younger than a minute says: counted already, nothing to write
        coalesce(b.last_time > p_now - interval '1 minute', false)
    FROM broker.access_grant AS g
    LEFT JOIN LATERAL (
        SELECT * FROM broker.standing AS own WHERE own.ticket_id = g.ticket_id AND own.agent = g.agent LIMIT 1
    ) AS s ON true
    LEFT JOIN broker.ticket_customer AS c ON c.ticket_id = g.ticket_id AND c.customer_id = g.customer_id
    LEFT JOIN broker.agent_suspension AS x ON x.agent = g.agent AND x.end_time IS NULL
    LEFT JOIN broker.budget_use AS b ON b.agent = g.agent AND b.customer_pseudonym = g.customer_pseudonym
    WHERE g.grant_id = p_grant AND g.agent IS NOT DISTINCT FROM p_agent
$$;

-- Whether a read on the grant would find it alive and its ground standing now; no row if not.
CREATE OR REPLACE FUNCTION broker.grant_status(p_grant uuid, p_agent text) RETURNS TABLE (
    ticket_id text, expire_time timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT g.ticket_id, g.expire_time
    FROM broker.access_grant AS g
    INNER JOIN LATERAL (
        SELECT * FROM broker.standing AS own WHERE own.ticket_id = g.ticket_id AND own.agent = g.agent LIMIT 1
    ) AS s ON true
    INNER JOIN broker.ticket_customer AS c ON c.ticket_id = g.ticket_id AND c.customer_id = g.customer_id
    WHERE
        g.grant_id = p_grant AND g.agent IS NOT DISTINCT FROM p_agent
        AND g.revoke_time IS NULL AND g.expire_time > clock_timestamp()
        AND s.status IN ('open', 'pending') AND s.stale_time > clock_timestamp()
        AND NOT EXISTS (
            SELECT FROM broker.agent_suspension AS x WHERE x.agent = p_agent AND x.end_time IS NULL
        )
$$;
