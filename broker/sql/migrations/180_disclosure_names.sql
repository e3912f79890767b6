-- Words of any length: an agent or a tool is found by a digest, and of a fact's words so much is kept as a key holds.
--
-- A B-tree refuses a row beyond 2,704 bytes. One event with a longer name would stop the index over released reads
-- for everybody, at every try; one with longer facts the judging of unexplained visits, whose key has three of them.

-- IMMUTABLE, because convert_to to UTF8 is so in a database that is UTF8.
CREATE FUNCTION broker.name_digest(p_name text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(convert_to(p_name, 'UTF8'))
$$;
REVOKE ALL ON FUNCTION broker.name_digest FROM PUBLIC;

ALTER TABLE broker.disclosure_name
ADD COLUMN digest bytea NOT NULL GENERATED ALWAYS AS (broker.name_digest(name)) STORED;
ALTER TABLE broker.disclosure_name ADD UNIQUE (kind, digest);
ALTER TABLE broker.disclosure_name DROP CONSTRAINT disclosure_name_kind_name_key;

UPDATE broker.disclosure_ground AS g SET
    purpose = left(g.purpose, 100), relation = left(g.relation, 100), ticket_kind = left(g.ticket_kind, 100),
    provenance = left(g.provenance, 100), opened_by = left(g.opened_by, 100), presence = left(g.presence, 100)
WHERE
    greatest(
        length(g.purpose), length(g.relation), length(g.ticket_kind), length(g.provenance), length(g.opened_by),
        length(g.presence)
    ) > 100;

-- As in 120, but for the above: no word of a catalog is longer than a hundred letters.
CREATE OR REPLACE FUNCTION broker.take_disclosures(p_after uuid, p_upto uuid) RETURNS bigint
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
        WHERE NOT EXISTS (
            SELECT FROM broker.disclosure_name AS k WHERE k.kind = w.kind AND k.digest = broker.name_digest(w.name)
        )
        RETURNING name_id, kind, name
    ),
    name AS (
        SELECT o.name_id, o.kind, o.name FROM broker.disclosure_name AS o UNION ALL SELECT n.* FROM new_name AS n
    ),
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
            u.digest,
            coalesce(left(u.facts ->> 'purpose', 100), ''),
            coalesce(left(u.facts ->> 'relation', 100), ''),
            coalesce(left(u.facts ->> 'ticket_kind', 100), ''),
            coalesce(left(u.facts ->> 'provenance', 100), ''),
            coalesce(left(u.facts ->> 'opened_by', 100), ''),
            coalesce(left(u.facts ->> 'presence', 100), '')
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
