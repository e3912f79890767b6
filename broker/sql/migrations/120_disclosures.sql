-- Who saw whom: an index over the ledger's released reads, filled off the append's path.
--
-- Invariants:
--   * it is derived: every row repeats a ledger event, whose leaf is the truth; dropping it all and walking the
--     ledger again gives the same rows;
--   * each event is taken once, whatever dies when: the rows and the place in the ledger commit together;
--   * nothing is left behind: an event is behind us for good only when no transaction that could still bring
--     one is under way (broker.index_disclosures says how that is known);
--   * an event that cannot be read is a row whose fields are unknown, never a row that is missing.

-- Agents and tools, by a short number.
CREATE TABLE broker.disclosure_name (
    name_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('agent', 'tool')),
    name text NOT NULL,
    UNIQUE (kind, name)
);

-- Which fields a read gave out, and how; few combinations make up all reads.
CREATE TABLE broker.disclosure_fields (
    fields_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE, -- of the leaf's levels: arrays may be too long for an index
    clear text [] NOT NULL, -- full names, sorted
    masked text [] NOT NULL,
    unreadable boolean NOT NULL -- the leaf does not say: any field may have been given out
);

-- The facts on which it was given out.
CREATE TABLE broker.disclosure_ground (
    ground_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,
    purpose text NOT NULL,
    relation text NOT NULL,
    ticket_kind text NOT NULL, -- the queue
    provenance text NOT NULL,
    opened_by text NOT NULL,
    presence text NOT NULL
);

-- A queue in a week. Kind '': all queues.
CREATE TABLE broker.disclosure_stratum (
    stratum_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ticket_kind text NOT NULL,
    week date NOT NULL, -- its Monday, UTC
    UNIQUE (ticket_kind, week)
);

-- Distinct customers that were disclosed to an agent or tool in a queue's week, per combination of fields: what
-- chance is worked out from. Name and fields 0: to anybody, whatever the fields. In a stratum of all queues a
-- customer counts in the week of their first disclosure alone, so that weeks can be added up.
CREATE TABLE broker.disclosure_tally (
    name_id integer NOT NULL,
    stratum_id integer NOT NULL,
    fields_id integer NOT NULL,
    customers bigint NOT NULL,
    PRIMARY KEY (name_id, stratum_id, fields_id)
);

-- One row per released read. No foreign keys: one function alone writes, and they would double its cost.
CREATE TABLE broker.disclosure (
    event_id uuid NOT NULL PRIMARY KEY, -- the ledger event
    read_time timestamptz NOT NULL, -- its record_time
    agent_id integer NOT NULL,
    tool_id integer NOT NULL,
    fields_id integer NOT NULL,
    ground_id integer NOT NULL,
    stratum_id integer NOT NULL, -- of its queue and week
    grant_id uuid,
    customer text COLLATE "C" NOT NULL, -- pseudonyms, both
    ticket text COLLATE "C" NOT NULL,
    narrowed text CHECK (narrowed IN ('aborted', 'empty')) -- by a later outcome: nothing was given out
);
-- By customer; also what tells at a glance whether somebody had been disclosed to this agent before.
CREATE INDEX disclosure_customer ON broker.disclosure (customer, agent_id, stratum_id, fields_id);
-- By agent, tool or grant and time: ids grow with time, broker.uuid7_floor gives a time's smallest.
CREATE INDEX disclosure_agent ON broker.disclosure (agent_id, event_id);
CREATE INDEX disclosure_tool ON broker.disclosure (tool_id, event_id);
CREATE INDEX disclosure_grant ON broker.disclosure (grant_id, event_id);

-- How far the walk has come; its lock is what lets one replica walk at a time.
CREATE TABLE broker.disclosure_place (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    settled_id uuid NOT NULL, -- up to here nothing can come any more
    seen_id uuid NOT NULL, -- up to here everything was looked at that had been committed by then
    settled_time timestamptz NOT NULL,
    probe_xid xid8, -- a transaction id, and a time at which every one before it had been given out
    probe_time timestamptz,
    CHECK (settled_id <= seen_id)
);
INSERT INTO broker.disclosure_place (settled_id, seen_id, settled_time)
VALUES ('00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000', '-infinity');

-- Every disclosure with its words: what reports read.
CREATE VIEW broker.disclosed AS
SELECT
    d.event_id,
    d.read_time,
    a.name AS agent,
    t.name AS tool,
    d.grant_id,
    d.customer,
    d.ticket,
    f.clear,
    f.masked,
    f.unreadable,
    g.purpose,
    g.relation,
    g.ticket_kind,
    g.provenance,
    g.opened_by,
    g.presence,
    d.narrowed
FROM broker.disclosure AS d
INNER JOIN broker.disclosure_name AS a ON d.agent_id = a.name_id
INNER JOIN broker.disclosure_name AS t ON d.tool_id = t.name_id
INNER JOIN broker.disclosure_fields AS f ON d.fields_id = f.fields_id
INNER JOIN broker.disclosure_ground AS g ON d.ground_id = g.ground_id;

-- As in 050, and the transaction has its number before the clock is looked at. So an event whose id is a
-- minute older than a moment was brought, if at all, by a transaction that had its number in that moment.
CREATE OR REPLACE FUNCTION broker.check_clock(p_ids uuid []) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_number xid8 := pg_current_xact_id();
    v_now timestamptz := clock_timestamp();
    v_low uuid := broker.uuid7_floor(v_now - interval '60 seconds');
    v_high uuid := broker.uuid7_floor(v_now + interval '60 seconds');
BEGIN
    IF v_number IS NULL OR EXISTS (SELECT FROM unnest(p_ids) AS u (id) WHERE u.id NOT BETWEEN v_low AND v_high) THEN
        RAISE EXCEPTION 'clock skew' USING ERRCODE = 'BK002';
    END IF;
END
$$;

-- The detail of a leaf with levels and facts as objects; NULL where the leaf cannot be read.
-- A worker writes a leaf's head as bytes: a broken one must not stop the walk for everybody else's.
CREATE FUNCTION broker.leaf_detail(p_leaf bytea) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_detail jsonb;
BEGIN
    v_detail := convert_from(p_leaf, 'UTF8')::jsonb -> 'detail';
    RETURN CASE WHEN jsonb_typeof(v_detail) = 'object' THEN v_detail END;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;

-- Takes the released reads between two ids that were not taken yet; gives how many.
-- Looks into big tables are LATERAL with LIMIT, which no planner turns into a join over all of them; what is
-- left to join are some thousand reads with a few words each, and nested loops would be the slow way.
CREATE FUNCTION broker.take_disclosures(p_after uuid, p_upto uuid) RETURNS bigint
LANGUAGE plpgsql SET search_path = broker, pg_temp SET enable_nestloop = off SET enable_bitmapscan = off AS $$
DECLARE
    v_taken bigint;
    v_outcome record;
BEGIN
    WITH
    read AS MATERIALIZED (
        SELECT
            e.id, e.record_time, e.agent, e.tool, e.grant_id,
            e.customer_pseudonym AS customer, e.ticket_pseudonym AS ticket,
            date_trunc('week', e.record_time AT TIME ZONE 'UTC')::date AS week,
            CASE WHEN jsonb_typeof(l.detail -> 'levels') = 'object' THEN l.detail -> 'levels' END AS levels,
            CASE WHEN jsonb_typeof(l.detail -> 'facts') = 'object' THEN l.detail -> 'facts' ELSE '{}' END AS facts
        FROM broker.ledger_event AS e
        LEFT JOIN LATERAL (SELECT true AS known FROM broker.disclosure AS d WHERE d.event_id = e.id LIMIT 1) AS k ON true
        CROSS JOIN LATERAL (SELECT broker.leaf_detail(e.leaf) AS detail WHERE k.known IS NULL OFFSET 0) AS l
        WHERE e.id > p_after AND e.id <= p_upto AND e.kind = 'read' AND e.outcome = 'released'
    ),
    -- Words that are new get their number; a word that is known draws none.
    new_name AS (
        INSERT INTO broker.disclosure_name (kind, name)
        SELECT w.kind, w.name
        FROM (SELECT 'agent' AS kind, r.agent AS name FROM read AS r UNION SELECT 'tool', r.tool FROM read AS r) AS w
        WHERE NOT EXISTS (SELECT FROM broker.disclosure_name AS k WHERE k.kind = w.kind AND k.name = w.name)
        RETURNING name_id, kind, name
    ),
    name AS (SELECT * FROM broker.disclosure_name UNION ALL SELECT * FROM new_name),
    levels AS MATERIALIZED (
        SELECT u.levels, sha256(convert_to(coalesce(u.levels::text, 'unreadable'), 'UTF8')) AS digest
        FROM (SELECT DISTINCT r.levels FROM read AS r) AS u
    ),
    new_fields AS (
        INSERT INTO broker.disclosure_fields (digest, clear, masked, unreadable)
        SELECT
            u.digest,
            ARRAY(SELECT f.key FROM jsonb_each_text(u.levels) AS f WHERE f.value = 'clear' ORDER BY f.key COLLATE "C"),
            ARRAY(SELECT f.key FROM jsonb_each_text(u.levels) AS f WHERE f.value = 'masked' ORDER BY f.key COLLATE "C"),
            u.levels IS NULL
        FROM levels AS u
        WHERE NOT EXISTS (SELECT FROM broker.disclosure_fields AS k WHERE k.digest = u.digest)
        RETURNING fields_id, digest
    ),
    fields AS (
        SELECT u.levels, k.fields_id
        FROM levels AS u
        INNER JOIN (
            SELECT n.fields_id, n.digest FROM new_fields AS n
            UNION ALL
            SELECT o.fields_id, o.digest FROM broker.disclosure_fields AS o
        ) AS k ON k.digest = u.digest
    ),
    facts AS MATERIALIZED (
        SELECT u.facts, sha256(convert_to(u.facts::text, 'UTF8')) AS digest FROM (SELECT DISTINCT r.facts FROM read AS r) AS u
    ),
    new_ground AS (
        INSERT INTO broker.disclosure_ground
            (digest, purpose, relation, ticket_kind, provenance, opened_by, presence)
        SELECT
            u.digest, coalesce(u.facts ->> 'purpose', ''), coalesce(u.facts ->> 'relation', ''),
            coalesce(u.facts ->> 'ticket_kind', ''), coalesce(u.facts ->> 'provenance', ''),
            coalesce(u.facts ->> 'opened_by', ''), coalesce(u.facts ->> 'presence', '')
        FROM facts AS u
        WHERE NOT EXISTS (SELECT FROM broker.disclosure_ground AS k WHERE k.digest = u.digest)
        RETURNING ground_id, digest
    ),
    ground AS (
        SELECT
            u.facts, k.ground_id,
            -- '' is every queue; longer words than any catalog has would not fit the index
            coalesce(nullif(left(u.facts ->> 'ticket_kind', 100), ''), 'unknown') AS ticket_kind
        FROM facts AS u
        INNER JOIN (
            SELECT n.ground_id, n.digest FROM new_ground AS n
            UNION ALL
            SELECT o.ground_id, o.digest FROM broker.disclosure_ground AS o
        ) AS k ON k.digest = u.digest
    ),
    worded AS MATERIALIZED (
        SELECT
            r.id, r.record_time, r.grant_id, r.customer, r.ticket, r.week,
            a.name_id AS agent_id, t.name_id AS tool_id, f.fields_id, g.ground_id, g.ticket_kind
        FROM read AS r
        INNER JOIN name AS a ON a.kind = 'agent' AND a.name = r.agent
        INNER JOIN name AS t ON t.kind = 'tool' AND t.name = r.tool
        INNER JOIN fields AS f ON f.levels IS NOT DISTINCT FROM r.levels
        INNER JOIN ground AS g ON g.facts = r.facts
    ),
    new_stratum AS (
        INSERT INTO broker.disclosure_stratum (ticket_kind, week)
        SELECT w.ticket_kind, w.week
        FROM (SELECT r.ticket_kind, r.week FROM worded AS r UNION SELECT '', r.week FROM worded AS r) AS w
        WHERE NOT EXISTS (
            SELECT FROM broker.disclosure_stratum AS k WHERE k.ticket_kind = w.ticket_kind AND k.week = w.week
        )
        RETURNING stratum_id, ticket_kind, week
    ),
    stratum AS (
        SELECT n.stratum_id, n.ticket_kind, n.week FROM new_stratum AS n
        UNION ALL
        SELECT o.stratum_id, o.ticket_kind, o.week FROM broker.disclosure_stratum AS o
    ),
    taken AS MATERIALIZED (
        SELECT r.*, s.stratum_id, w.stratum_id AS week_id
        FROM worded AS r
        INNER JOIN stratum AS s ON s.ticket_kind = r.ticket_kind AND s.week = r.week
        INNER JOIN stratum AS w ON w.ticket_kind = '' AND w.week = r.week
    ),
    stored AS (
        INSERT INTO broker.disclosure
            (event_id, read_time, agent_id, tool_id, fields_id, ground_id, stratum_id, grant_id, customer, ticket)
        SELECT
            r.id, r.record_time, r.agent_id, r.tool_id, r.fields_id, r.ground_id, r.stratum_id, r.grant_id,
            r.customer, r.ticket
        FROM taken AS r
    ),
    -- Agents and tools alike; 0 and 0: anybody, whatever the fields.
    subject AS (
        SELECT 0 AS name_id, 0 AS fields_id, r.stratum_id, r.week_id, r.week, r.customer, 0 AS tool_id FROM taken AS r
        UNION ALL
        SELECT r.agent_id, r.fields_id, r.stratum_id, r.week_id, r.week, r.customer, 0 FROM taken AS r
        UNION ALL
        SELECT r.tool_id, r.fields_id, r.stratum_id, r.week_id, r.week, r.customer, r.tool_id FROM taken AS r
    ),
    -- Customers who are new to a subject in a queue's week, or altogether. What this statement stores is not
    -- seen by it; LIMIT keeps each look a look into the customer's few rows.
    fresh AS (
        SELECT s.name_id, s.stratum_id, s.fields_id
        FROM (SELECT DISTINCT name_id, fields_id, stratum_id, customer, tool_id FROM subject) AS s
        LEFT JOIN LATERAL (
            SELECT true AS known FROM broker.disclosure AS d
            WHERE
                d.customer = s.customer AND d.stratum_id = s.stratum_id
                AND (s.name_id = 0 OR d.fields_id = s.fields_id AND (d.agent_id = s.name_id OR d.tool_id = s.tool_id))
            LIMIT 1
        ) AS k ON true
        WHERE k.known IS NULL
        UNION ALL
        SELECT s.name_id, s.week_id, s.fields_id
        FROM (
            SELECT DISTINCT ON (name_id, fields_id, customer, tool_id) name_id, fields_id, week_id, customer, tool_id
            FROM subject ORDER BY name_id, fields_id, customer, tool_id, week
        ) AS s
        LEFT JOIN LATERAL (
            SELECT true AS known FROM broker.disclosure AS d
            WHERE
                d.customer = s.customer
                AND (s.name_id = 0 OR d.fields_id = s.fields_id AND (d.agent_id = s.name_id OR d.tool_id = s.tool_id))
            LIMIT 1
        ) AS k ON true
        WHERE k.known IS NULL
    ),
    tallied AS (
        INSERT INTO broker.disclosure_tally AS t (name_id, stratum_id, fields_id, customers)
        SELECT f.name_id, f.stratum_id, f.fields_id, count(*) FROM fresh AS f GROUP BY 1, 2, 3
        ON CONFLICT (name_id, stratum_id, fields_id) DO UPDATE SET customers = t.customers + excluded.customers
    )
    SELECT count(*) INTO v_taken FROM taken;

    -- An outcome comes after its read and only narrows a read of its own agent's grant.
    FOR v_outcome IN
        SELECT e.agent, e.grant_id, l.detail ->> 'read' AS read_id, l.detail ->> 'came_to' AS came_to
        FROM broker.ledger_event AS e
        CROSS JOIN LATERAL (SELECT broker.leaf_detail(e.leaf) AS detail OFFSET 0) AS l
        WHERE e.id > p_after AND e.id <= p_upto AND e.kind = 'outcome' AND l.detail ->> 'came_to' IN ('aborted', 'empty')
    LOOP
        UPDATE broker.disclosure AS d SET narrowed = v_outcome.came_to
        FROM broker.disclosure_name AS n
        WHERE
            d.grant_id = v_outcome.grant_id AND d.event_id::text = v_outcome.read_id
            AND n.kind = 'agent' AND n.name = v_outcome.agent AND n.name_id = d.agent_id AND d.narrowed IS NULL;
    END LOOP;
    RETURN v_taken;
END
$$;

-- Walks the ledger some events further; restartable, one walker at a time, others wait for it.
--
-- Transactions commit out of order, so there are two places. Up to `seen_id` we looked at what was committed
-- then. Up to `settled_id` nothing can come any more: an event's id is at most a minute ahead of the clock of its
-- append, whose transaction had its number by then (check_clock); when every transaction with a number lower
-- than ours has ended, all ids a minute older than the moment we drew ours are there. What lies between the two
-- is looked at again, where p_exact asks for it, or else every ten seconds.
--
-- Args: p_most, how many events at most; p_exact, leave out nothing that is committed now.
CREATE FUNCTION broker.index_disclosures(
    p_most integer DEFAULT 5000, p_exact boolean DEFAULT false, OUT scanned bigint, OUT taken bigint, OUT caught_up boolean
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_now timestamptz := clock_timestamp(); -- before our own number is drawn
    v_own xid8;
    v_oldest xid8;
    v_place broker.disclosure_place;
    v_settled timestamptz;
    v_last uuid;
BEGIN
    IF p_most NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION 'from 1 to 100000 events' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT p.* INTO STRICT v_place FROM broker.disclosure_place AS p FOR UPDATE;
    v_own := pg_current_xact_id();
    v_oldest := pg_snapshot_xmin(pg_current_snapshot());
    -- A clock that was set back: ids come again from where it is now.
    v_settled := least(v_place.settled_time, v_now);
    IF v_oldest >= v_own THEN
        v_settled := v_now;
        v_place.probe_xid := NULL;
    ELSE
        IF v_oldest >= v_place.probe_xid THEN
            v_settled := greatest(v_settled, least(v_place.probe_time, v_now));
            v_place.probe_xid := NULL;
        END IF;
        IF v_place.probe_xid IS NULL THEN -- somebody older is still under way: ask again when they are through
            v_place.probe_xid := v_own;
            v_place.probe_time := v_now;
        END IF;
    END IF;

    taken := 0;
    IF p_exact OR v_settled > v_place.settled_time + interval '10 seconds' OR v_settled < v_place.settled_time THEN
        taken := broker.take_disclosures(v_place.settled_id, v_place.seen_id);
        -- Ids may be a minute off the clock they were checked against.
        v_place.settled_id := least(v_place.seen_id, broker.uuid7_floor(
            greatest(v_settled, timestamptz 'epoch' + interval '1 minute') - interval '1 minute'));
        v_place.settled_time := v_settled;
    END IF;

    SELECT count(*), (array_agg(n.id ORDER BY n.id DESC))[1] INTO scanned, v_last
    FROM (SELECT e.id FROM broker.ledger_event AS e WHERE e.id > v_place.seen_id ORDER BY e.id LIMIT p_most) AS n;
    IF scanned > 0 THEN
        taken := taken + broker.take_disclosures(v_place.seen_id, v_last);
        v_place.seen_id := v_last;
    END IF;
    caught_up := scanned < p_most;
    UPDATE broker.disclosure_place SET
        settled_id = v_place.settled_id, seen_id = v_place.seen_id, settled_time = v_place.settled_time,
        probe_xid = v_place.probe_xid, probe_time = v_place.probe_time;
END
$$;

-- How far the walk is behind: the newest event that was looked at, the newest there is, and the time between.
CREATE FUNCTION broker.disclosure_lag(OUT indexed_to timestamptz, OUT newest timestamptz, OUT behind interval)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT
        p.seen, l.newest, greatest(coalesce(l.newest - p.seen, interval '0'), interval '0')
    FROM (SELECT broker.uuid7_time(seen_id) AS seen FROM broker.disclosure_place) AS p
    LEFT JOIN LATERAL (
        SELECT broker.uuid7_time(e.id) AS newest FROM broker.ledger_event AS e ORDER BY e.id DESC LIMIT 1
    ) AS l ON true
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA broker FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA broker FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.index_disclosures, broker.disclosure_lag TO broker_admin, broker_auditor;
GRANT SELECT ON
    broker.disclosed, broker.disclosure, broker.disclosure_name, broker.disclosure_fields, broker.disclosure_ground,
    broker.disclosure_stratum, broker.disclosure_tally
TO broker_auditor;
