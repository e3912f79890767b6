-- Reads that were followed by no work: judged once, a day after, while it is still known which ticket a grant was for.
--
-- A visit is all that one agent read on one ticket on one day (UTC): reads of one visit share one explanation, so
-- they count once. It is explained by work of that agent on that ticket (reply, note, call, status) from the first
-- of its reads to a day after the last.

CREATE TABLE broker.visit_tally (
    day date NOT NULL,
    agent_id integer NOT NULL, -- broker.disclosure_name
    queue text NOT NULL, -- ticket kind, purpose and relation: agents who do the same work
    visits integer NOT NULL,
    unexplained integer NOT NULL,
    unjudged integer NOT NULL, -- of no ticket that we know any more: the grant was forgotten before its day was judged
    PRIMARY KEY (day, agent_id, queue),
    CHECK (unexplained + unjudged <= visits)
);

-- The visits without work, for who has to ask about them.
CREATE TABLE broker.unexplained_visit (
    event_id uuid PRIMARY KEY, -- its first read
    day date NOT NULL,
    agent_id integer NOT NULL,
    queue text NOT NULL,
    reads integer NOT NULL,
    customer text NOT NULL, -- pseudonyms, both
    ticket text NOT NULL
);
CREATE INDEX unexplained_visit_agent ON broker.unexplained_visit (agent_id, day);

-- The next day to judge; its lock lets one replica judge at a time.
CREATE TABLE broker.visit_place (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    next_day date NOT NULL
);
-- Grants are kept for a week after their end; of what was before, nobody could tell the ticket.
INSERT INTO broker.visit_place (next_day) VALUES ((clock_timestamp() AT TIME ZONE 'UTC')::date - 7);

-- Judges the next day whose visits have all had their day of work, and an hour for the feed; NULL: none is due.
-- A whole day commits with the place behind it, so that each is judged once.
CREATE FUNCTION broker.judge_visits(OUT judged date)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_day date;
    v_from uuid;
    v_upto uuid;
BEGIN
    SELECT p.next_day INTO STRICT v_day FROM broker.visit_place AS p FOR UPDATE;
    v_from := broker.uuid7_floor(v_day::timestamp AT TIME ZONE 'UTC');
    v_upto := broker.uuid7_floor((v_day + 1)::timestamp AT TIME ZONE 'UTC');
    IF
        clock_timestamp() < (v_day + 2)::timestamp AT TIME ZONE 'UTC' + interval '1 hour'
        -- nor while the index may lack a read of the day
        OR EXISTS (
            SELECT FROM broker.disclosure_place AS p
            WHERE p.settled_id < v_upto
                AND EXISTS (SELECT FROM broker.ledger_event AS e WHERE e.id > p.seen_id AND e.id < v_upto)
        )
    THEN
        RETURN;
    END IF;
    WITH visit AS MATERIALIZED (
        SELECT
            d.agent_id, d.ticket, (array_agg(d.event_id ORDER BY d.event_id))[1] AS event_id,
            (array_agg(d.customer ORDER BY d.event_id))[1] AS customer,
            (array_agg(concat_ws(' ', g.ticket_kind, g.purpose, g.relation) ORDER BY d.event_id))[1] AS queue,
            min(d.read_time) AS first_time, max(d.read_time) AS last_time, count(*) AS reads,
            max(a.ticket_id) AS ticket_id
        FROM broker.disclosure AS d
        INNER JOIN broker.disclosure_ground AS g ON g.ground_id = d.ground_id
        LEFT JOIN broker.access_grant AS a ON a.grant_id = d.grant_id
        WHERE d.event_id >= v_from AND d.event_id < v_upto AND d.narrowed IS NULL
        GROUP BY d.agent_id, d.ticket
    ),
    verdict AS MATERIALIZED (
        SELECT v.*, v.ticket_id IS NULL AS unjudged, v.ticket_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM broker.work_event AS w
            INNER JOIN broker.disclosure_name AS n ON n.kind = 'agent' AND n.name = w.actor_agent
            WHERE
                w.ticket_id = v.ticket_id AND n.name_id = v.agent_id
                -- the helpdesk's clock is another one
                AND w.event_time BETWEEN v.first_time - interval '1 minute' AND v.last_time + interval '1 day'
        ) AS unexplained
        FROM visit AS v
    ),
    told AS (
        INSERT INTO broker.unexplained_visit (event_id, day, agent_id, queue, reads, customer, ticket)
        SELECT v.event_id, v_day, v.agent_id, v.queue, v.reads, v.customer, v.ticket FROM verdict AS v WHERE v.unexplained
    )
    INSERT INTO broker.visit_tally (day, agent_id, queue, visits, unexplained, unjudged)
    SELECT v_day, v.agent_id, v.queue, count(*), count(*) FILTER (WHERE v.unexplained), count(*) FILTER (WHERE v.unjudged)
    FROM verdict AS v GROUP BY v.agent_id, v.queue;
    UPDATE broker.visit_place SET next_day = v_day + 1;
    judged := v_day;
END
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA broker FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA broker FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.judge_visits TO broker_admin, broker_auditor;
GRANT SELECT ON broker.visit_tally, broker.unexplained_visit, broker.visit_place TO broker_auditor;
