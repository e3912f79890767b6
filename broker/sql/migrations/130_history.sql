-- What a ticket was and whom it was about at an earlier time: who could have read is asked of it.
--
-- Assignments keep their history already (010). Here a ticket's state and its customers get one, each by a
-- trigger that fires only where something of it changes, so that a work event costs the feed nothing more.
--
-- Invariants:
--   * a state that was in force is either in broker.ticket, since state_time, or in broker.ticket_past;
--   * before broker.history_start nothing is known of states and links, and nobody pretends that it is;
--   * history with a customer's key is a link like any other: broker.erase_customer takes it, too.

CREATE TABLE broker.history_start (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    start_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO broker.history_start DEFAULT VALUES;

-- now() is worked out once here: the table is not rewritten, however many tickets it has.
ALTER TABLE broker.ticket ADD COLUMN state_time timestamptz NOT NULL DEFAULT now();
ALTER TABLE broker.ticket ALTER COLUMN state_time SET DEFAULT clock_timestamp();
COMMENT ON COLUMN broker.ticket.state_time IS 'Since when status, kind and opener are as they are, as the broker learnt it.';

CREATE TABLE broker.ticket_past (
    ticket_id text NOT NULL,
    status text NOT NULL,
    kind text NOT NULL,
    opened_by text NOT NULL,
    opened_by_agent text NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL
);
COMMENT ON TABLE broker.ticket_past IS 'What tickets were before they became what they are; no row: not described yet, no ground.';
CREATE INDEX ticket_past_by_ticket ON broker.ticket_past (ticket_id, end_time);

CREATE FUNCTION broker.keep_ticket_past() RETURNS trigger
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
BEGIN
    NEW.state_time := greatest(clock_timestamp(), OLD.state_time);
    IF OLD.status_version >= 0 THEN  -- before its first status a ticket is no ground for anything
        INSERT INTO broker.ticket_past VALUES (
            OLD.ticket_id, OLD.status, OLD.kind, OLD.opened_by, OLD.opened_by_agent, OLD.state_time, NEW.state_time
        );
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER ticket_keeps_past BEFORE UPDATE OF status, kind, opened_by, opened_by_agent ON broker.ticket
FOR EACH ROW WHEN (
    OLD.status <> NEW.status OR OLD.kind <> NEW.kind OR OLD.opened_by <> NEW.opened_by
    OR OLD.opened_by_agent IS DISTINCT FROM NEW.opened_by_agent OR OLD.status_version < 0
) EXECUTE FUNCTION broker.keep_ticket_past();

ALTER TABLE broker.ticket_customer ADD COLUMN start_time timestamptz NOT NULL DEFAULT now();
ALTER TABLE broker.ticket_customer ALTER COLUMN start_time SET DEFAULT clock_timestamp();
COMMENT ON COLUMN broker.ticket_customer.start_time IS 'When the broker learnt of it.';
COMMENT ON TABLE broker.ticket_customer IS 'Whom a ticket is about; with ticket_customer_past all that links the two, erased with the person.';

CREATE TABLE broker.ticket_customer_past (
    ticket_id text NOT NULL,
    customer_id text NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL
);
COMMENT ON TABLE broker.ticket_customer_past IS 'Whom tickets were about; erased with the person.';
CREATE INDEX ticket_customer_past_by_customer ON broker.ticket_customer_past (customer_id);

CREATE FUNCTION broker.keep_ticket_customer_past() RETURNS trigger
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
BEGIN
    INSERT INTO broker.ticket_customer_past VALUES (OLD.ticket_id, OLD.customer_id, OLD.start_time, clock_timestamp());
    RETURN NULL;
END
$$;
CREATE TRIGGER ticket_customer_keeps_past AFTER DELETE ON broker.ticket_customer
FOR EACH ROW EXECUTE FUNCTION broker.keep_ticket_customer_past();

-- The indexes of 010 hold live ones, or assignees. Partial, so that no plan of the access path changes (P6, P9).
CREATE INDEX assignment_ended ON broker.assignment (ticket_id, end_time) WHERE end_time IS NOT NULL;

-- Whether an event of this kind and call is on record for good: committed, and within ten minutes.
--
-- xmin has the low half of a transaction's number; the high half is that of now, or the one before.
CREATE FUNCTION broker.on_record(p_event uuid, p_kind text, p_key text, p_word text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = broker, pg_temp AS $$
DECLARE
    v_next bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    v_brought bigint;
    v_leaf bytea;
BEGIN
    SELECT e.leaf, e.xmin::text::bigint INTO v_leaf, v_brought FROM broker.ledger_event AS e
    WHERE e.id = p_event AND e.kind = p_kind AND e.id > broker.uuid7_floor(clock_timestamp() - interval '10 minutes');
    IF v_leaf IS NULL OR broker.leaf_detail(v_leaf) ->> p_key IS DISTINCT FROM p_word THEN
        RETURN false;
    END IF;
    v_brought := (v_next >> 32 << 32) + v_brought;
    IF v_brought >= v_next AND v_brought > 4294967296 THEN
        v_brought := v_brought - 4294967296;
    END IF;
    RETURN pg_xact_status(v_brought::text::xid8) IS NOT DISTINCT FROM 'committed';
END
$$;

-- Who stood how to a customer's tickets at a time: one row per agent and ticket that was ground then.
--
-- For an auditor whose question is on record. Before history_start a ticket is taken for open, and as it is first
-- known; links and assignments that ended before are not lost, but the former are not known.
CREATE FUNCTION broker.standing_at(p_question uuid, p_customer text, p_time timestamptz) RETURNS TABLE (
    ticket_id text, status text, kind text, opened_by text, agent text, relation text, provenance text,
    since timestamptz, suspended boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    v_start timestamptz := (SELECT h.start_time FROM broker.history_start AS h);
BEGIN
    IF NOT broker.on_record(p_question, 'auditor_query', 'query', 'access') THEN
        RAISE EXCEPTION 'no such query on record' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN QUERY
    WITH linked AS (
        SELECT c.ticket_id FROM broker.ticket_customer AS c
        WHERE c.customer_id = p_customer AND (c.start_time <= p_time OR c.start_time <= v_start)
        UNION
        SELECT c.ticket_id FROM broker.ticket_customer_past AS c
        WHERE
            c.customer_id = p_customer AND c.end_time > p_time
            AND (c.start_time <= p_time OR c.start_time <= v_start)
    ),
    state AS (
        SELECT
            l.ticket_id,
            coalesce(p.status, t.status) AS status,
            coalesce(p.kind, t.kind) AS kind,
            CASE WHEN p.ticket_id IS NULL THEN t.opened_by ELSE p.opened_by END AS opened_by,
            CASE WHEN p.ticket_id IS NULL THEN t.opened_by_agent ELSE p.opened_by_agent END AS opened_by_agent
        FROM linked AS l
        INNER JOIN broker.ticket AS t ON t.ticket_id = l.ticket_id
        LEFT JOIN LATERAL (
            SELECT h.* FROM broker.ticket_past AS h
            WHERE h.ticket_id = l.ticket_id AND h.end_time > greatest(p_time, v_start)
            ORDER BY h.end_time LIMIT 1
        ) AS p ON true
        WHERE
            p_time < v_start
            OR (
                coalesce(p.start_time, t.state_time) <= p_time AND coalesce(p.status, t.status) IN ('open', 'pending')
            )
    )
    SELECT
        s.ticket_id, s.status, s.kind,
        CASE
            WHEN s.opened_by_agent = a.agent THEN 'self'
            WHEN s.opened_by = 'agent' THEN 'peer'
            WHEN s.opened_by = 'import' THEN 'imported'
            ELSE s.opened_by
        END,
        a.agent, a.relation,
        CASE
            WHEN a.assigned_by_agent = a.agent THEN 'self'
            WHEN a.assigned_by = 'agent' THEN 'peer'
            WHEN a.assigned_by = 'queue' THEN 'routed'
            ELSE 'imported'
        END,
        a.start_time,
        EXISTS (
            SELECT FROM broker.agent_suspension AS x
            WHERE x.agent = a.agent AND x.create_time <= p_time AND (x.end_time IS NULL OR x.end_time > p_time)
        )
    FROM state AS s
    CROSS JOIN LATERAL (
        SELECT l.* FROM broker.assignment AS l WHERE l.ticket_id = s.ticket_id AND l.end_time IS NULL
        UNION ALL
        SELECT e.* FROM broker.assignment AS e WHERE e.ticket_id = s.ticket_id AND e.end_time > p_time
    ) AS a
    WHERE a.start_time <= p_time
    ORDER BY a.agent, s.ticket_id;
END
$$;

REVOKE ALL ON broker.history_start, broker.ticket_past, broker.ticket_customer_past FROM PUBLIC;
REVOKE ALL ON FUNCTION
    broker.keep_ticket_past, broker.keep_ticket_customer_past, broker.on_record, broker.standing_at
FROM PUBLIC;
GRANT SELECT ON broker.history_start TO broker_auditor;
GRANT EXECUTE ON FUNCTION broker.standing_at, broker.leaf_detail TO broker_auditor;
