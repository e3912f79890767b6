-- A replay knows which version took a decision: an event names the groups that its version mapped, so whether
-- somebody was in another one is not on record. The functions of 085, by version.

DROP FUNCTION broker.replay_inputs(uuid, uuid);
DROP FUNCTION broker.replay_people(uuid, uuid, bytea [], integer [], integer [], integer [], integer);

-- The distinct decisions of the events from one id up to another and the version that took them (0: the event
-- does not tell), each with how many there are and the first one's id.
CREATE FUNCTION broker.replay_inputs(p_from uuid, p_until uuid)
RETURNS TABLE (detail bytea, policy_version bigint, decisions bigint, example text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp
SET work_mem = '64MB' SET plan_cache_mode = force_custom_plan
-- Distinct values are few; the planner thinks otherwise of an expression, and would sort every leaf on disk.
SET enable_sort = off SET enable_mergejoin = off AS $$
    SELECT
        broker.decision_part(e.leaf, e.outcome, e.reason), coalesce(e.policy_version, 0), count(*),
        min(e.id::text COLLATE "C") -- there is no min(uuid)
    FROM broker.ledger_event AS e
    WHERE e.id >= p_from AND e.id < p_until AND broker.is_policy_decision(e.kind, e.reason)
    GROUP BY 1, 2
$$;

-- Whom changed decisions concern. A detail of a class of versions has one signature, a signature one or more
-- marks; per mark: how many agents and customers, how many decisions whose event names no customer, and the
-- agents with most.
CREATE FUNCTION broker.replay_people(
    p_from uuid, p_until uuid, p_versions bigint [], p_version_classes integer [],
    p_details bytea [], p_classes integer [], p_signatures integer [],
    p_marked_signatures integer [], p_marks integer [], p_named integer
) RETURNS TABLE (
    mark integer, agents bigint, customers bigint, nameless bigint, named text [], named_decisions bigint []
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp
SET work_mem = '64MB' SET plan_cache_mode = force_custom_plan
-- Distinct values are few; the planner thinks otherwise of an expression, and would sort every leaf on disk.
SET enable_sort = off SET enable_mergejoin = off AS $$
    WITH versions AS MATERIALIZED (
        SELECT u.version, u.class FROM unnest(p_versions, p_version_classes) AS u (version, class)
    ),
    changed AS MATERIALIZED (
        SELECT u.detail, u.class, u.signature
        FROM unnest(p_details, p_classes, p_signatures) AS u (detail, class, signature)
    ),
    marks AS MATERIALIZED (
        SELECT u.signature, u.mark FROM unnest(p_marked_signatures, p_marks) AS u (signature, mark)
    ),
    who AS MATERIALIZED (
        SELECT c.signature, e.agent, e.customer_pseudonym AS customer
        FROM broker.ledger_event AS e
        INNER JOIN versions AS v ON v.version = coalesce(e.policy_version, 0)
        INNER JOIN changed AS c
            ON c.detail = broker.decision_part(e.leaf, e.outcome, e.reason) AND c.class = v.class
        WHERE e.id >= p_from AND e.id < p_until AND broker.is_policy_decision(e.kind, e.reason)
    ),
    -- Distinct before the marks multiply them, and once more behind.
    exposed AS (
        SELECT x.mark, count(*) FILTER (WHERE x.customer <> '') AS customers
        FROM (
            SELECT DISTINCT m.mark, w.customer
            FROM (SELECT DISTINCT signature, customer FROM who) AS w
            INNER JOIN marks AS m USING (signature)
        ) AS x
        GROUP BY 1
    ),
    by_agent AS (
        SELECT
            m.mark, w.agent, sum(w.decisions)::bigint AS decisions, sum(w.nameless)::bigint AS nameless,
            row_number() OVER (PARTITION BY m.mark ORDER BY sum(w.decisions) DESC, w.agent) AS place
        FROM (
            SELECT signature, agent, count(*) AS decisions, count(*) FILTER (WHERE customer = '') AS nameless
            FROM who
            GROUP BY 1, 2
        ) AS w
        INNER JOIN marks AS m USING (signature)
        GROUP BY 1, 2
    ),
    most AS (
        SELECT
            b.mark, count(*) AS agents, sum(b.nameless)::bigint AS nameless,
            array_agg(b.agent ORDER BY b.place) FILTER (WHERE b.place <= p_named) AS named,
            array_agg(b.decisions ORDER BY b.place) FILTER (WHERE b.place <= p_named) AS named_decisions
        FROM by_agent AS b
        GROUP BY 1
    )
    SELECT m.mark, m.agents, x.customers, m.nameless, m.named, m.named_decisions
    FROM most AS m
    INNER JOIN exposed AS x USING (mark)
$$;

REVOKE ALL ON FUNCTION
    broker.replay_inputs(uuid, uuid),
    broker.replay_people(
        uuid, uuid, bigint [], integer [], bytea [], integer [], integer [], integer [], integer [], integer
    )
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    broker.replay_inputs(uuid, uuid),
    broker.replay_people(
        uuid, uuid, bigint [], integer [], bytea [], integer [], integer [], integer [], integer [], integer
    )
TO broker_admin;
