-- Replaying recorded decisions under a draft, and the draft that runs as shadow beside the active policy.
--
-- Invariants:
--   * a security admin's process reads no event: it gets what distinct decisions saw and said, how many
--     there were, and the id of one; customers leave these functions as counts only, agents by name where
--     their decisions would change;
--   * decisions are those that a policy took and that nothing else stopped: grants and reads that went
--     through, denials by policy, and how many of those were only counted;
--   * a shadow decides nothing: no function that decides or appends reads its tables.

-- The part of a leaf that says what its decision saw and said; equal decisions have equal bytes. Written
-- as an expression over the leaf, which is a fixed head, the detail and a tail of known length; inside a
-- JSON string the quotes of the name that is looked for could not stand unescaped.
CREATE FUNCTION broker.decision_part(p_leaf bytea, p_outcome text, p_reason text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substring(
        p_leaf
        FROM position('"detail":'::bytea IN p_leaf) + 9
        FOR length(p_leaf) - position('"detail":'::bytea IN p_leaf) - 78 - length(p_outcome) - length(p_reason)
    )
$$;

-- Whether an event is a decision that a policy took and that nothing else stopped.
CREATE FUNCTION broker.is_policy_decision(p_kind text, p_reason text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (p_kind IN ('grant', 'read') AND p_reason = '')
        OR (p_kind IN ('denial', 'denials') AND p_reason = 'POLICY_DENIED')
$$;

-- The distinct decisions of the events from one id up to another, each with how many there are and the
-- first one's id.
CREATE FUNCTION broker.replay_inputs(p_from uuid, p_until uuid)
RETURNS TABLE (detail bytea, decisions bigint, example text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp
SET work_mem = '64MB' SET plan_cache_mode = force_custom_plan
-- Distinct values are few; the planner thinks otherwise of an expression, and would sort every leaf on disk.
SET enable_sort = off SET enable_mergejoin = off AS $$
    SELECT
        broker.decision_part(e.leaf, e.outcome, e.reason), count(*),
        min(e.id::text COLLATE "C") -- there is no min(uuid)
    FROM broker.ledger_event AS e
    WHERE e.id >= p_from AND e.id < p_until AND broker.is_policy_decision(e.kind, e.reason)
    GROUP BY 1
$$;

-- Whom changed decisions concern. A detail has one signature, a signature one or more marks; per mark: how
-- many agents and customers, how many decisions whose event names no customer, and the agents with most.
CREATE FUNCTION broker.replay_people(
    p_from uuid, p_until uuid, p_details bytea [], p_signatures integer [],
    p_marked_signatures integer [], p_marks integer [], p_named integer
) RETURNS TABLE (
    mark integer, agents bigint, customers bigint, nameless bigint, named text [], named_decisions bigint []
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp
SET work_mem = '64MB' SET plan_cache_mode = force_custom_plan
-- Distinct values are few; the planner thinks otherwise of an expression, and would sort every leaf on disk.
SET enable_sort = off SET enable_mergejoin = off AS $$
    WITH changed AS MATERIALIZED (
        SELECT u.detail, u.signature FROM unnest(p_details, p_signatures) AS u (detail, signature)
    ),
    marks AS MATERIALIZED (
        SELECT u.signature, u.mark FROM unnest(p_marked_signatures, p_marks) AS u (signature, mark)
    ),
    who AS MATERIALIZED (
        SELECT c.signature, e.agent, e.customer_pseudonym AS customer
        FROM broker.ledger_event AS e
        INNER JOIN changed AS c ON c.detail = broker.decision_part(e.leaf, e.outcome, e.reason)
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
    broker.decision_part(bytea, text, text),
    broker.is_policy_decision(text, text),
    broker.replay_inputs(uuid, uuid),
    broker.replay_people(uuid, uuid, bytea [], integer [], integer [], integer [], integer)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    broker.uuid7_floor(timestamptz),
    broker.replay_inputs(uuid, uuid),
    broker.replay_people(uuid, uuid, bytea [], integer [], integer [], integer [], integer)
TO broker_admin;
