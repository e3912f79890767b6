-- Where which value is in the ledger: an index over events in the order of the transparency log, filled off the
-- append's path, because each index of the ledger's own slows every append.
--
-- The log's order is dense and never changes, so the index is written once and never again: when 4,096 leaves are
-- full, they become a chunk. No horizon is needed, as the sequencer has waited for it.
--
-- Invariants:
--   * it is derived: it says where to look, and whoever looks compares the event itself, so that two values with
--     one hash cost a look and nothing else; dropping all rows and indexing again gives the same rows;
--   * a chunk is all there or not at all: its rows commit together.

-- Chunks that are indexed, without a gap from 0 on.
CREATE TABLE broker.event_chunk (
    chunk integer PRIMARY KEY,
    first_time timestamptz, -- record times of its events; NULL: none of them is here any more
    last_time timestamptz
);

-- In which places of a chunk a value is. Places are two bytes each, big-endian; 512 bytes are a bitmap, highest
-- bit first. Two of these in hand tell where both values are, at the cost of their bytes, however often
-- each occurs.
CREATE TABLE broker.event_posting (
    value bigint NOT NULL, -- broker.event_value
    chunk integer NOT NULL,
    places bytea NOT NULL,
    PRIMARY KEY (value, chunk)
);

-- The number of a value: which column (1 agent, 2 tool, 3 customer, 4 ticket, 5 grant, 6 kind, 7 outcome, 8 reason,
-- 9 policy version), and its text. PostgreSQL keeps this hash over releases: partitioning by hash rests on it.
CREATE FUNCTION broker.event_value(p_column integer, p_text text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended(p_text COLLATE "C", p_column)
$$;

-- Indexes the next full chunks, at most so many; gives how many, and how many full ones are left.
CREATE FUNCTION broker.index_events(p_most integer, OUT indexed integer, OUT remaining bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_size bigint;
    v_chunk integer;
    v_none bit(4096) := repeat('0', 4096)::bit(4096);
BEGIN
    indexed := 0;
    -- One at a time; another process that is at it does what we would.
    IF NOT pg_try_advisory_xact_lock(1651663207, 100) THEN
        remaining := 0;
        RETURN;
    END IF;
    SELECT h.size INTO STRICT v_size FROM broker.tlog_head AS h;
    SELECT coalesce(max(c.chunk) + 1, 0) INTO v_chunk FROM broker.event_chunk AS c;
    WHILE indexed < p_most AND (v_chunk + 1) * 4096::bigint <= v_size LOOP
        WITH
        event AS MATERIALIZED (
            SELECT
                (t.seq - v_chunk * 4096::bigint)::integer AS place, e.record_time, e.agent, e.tool,
                e.customer_pseudonym, e.ticket_pseudonym, e.grant_id, e.kind, e.outcome, e.reason, e.policy_version
            FROM broker.ledger_tree AS t
            CROSS JOIN LATERAL (SELECT * FROM broker.ledger_event AS x WHERE x.id = t.event_id LIMIT 1) AS e
            WHERE t.seq >= v_chunk * 4096::bigint AND t.seq < (v_chunk + 1) * 4096::bigint
        ),
        word AS MATERIALIZED (
            SELECT broker.event_value(v.number, v.text) AS value, e.place
            FROM event AS e
            CROSS JOIN LATERAL (VALUES
                (1, e.agent), (2, e.tool), (3, e.customer_pseudonym), (4, e.ticket_pseudonym), (5, e.grant_id::text),
                (6, e.kind), (7, e.outcome), (8, e.reason), (9, e.policy_version::text)
            ) AS v (number, text)
            WHERE v.text <> ''
        ),
        often AS MATERIALIZED (SELECT w.value FROM word AS w GROUP BY w.value HAVING count(*) >= 256),
        posted AS (
            INSERT INTO broker.event_posting (value, chunk, places)
            SELECT w.value, v_chunk, string_agg(int2send(w.place::smallint), ''::bytea ORDER BY w.place)
            FROM word AS w
            WHERE NOT EXISTS (SELECT FROM often AS o WHERE o.value = w.value)
            GROUP BY w.value
            UNION ALL
            SELECT w.value, v_chunk, substr(bit_send(bit_or(set_bit(v_none, w.place, 1))), 5)
            FROM word AS w
            WHERE EXISTS (SELECT FROM often AS o WHERE o.value = w.value)
            GROUP BY w.value
        )
        INSERT INTO broker.event_chunk (chunk, first_time, last_time)
        SELECT v_chunk, min(e.record_time), max(e.record_time) FROM event AS e;
        v_chunk := v_chunk + 1;
        indexed := indexed + 1;
    END LOOP;
    remaining := v_size / 4096 - v_chunk;
END
$$;

REVOKE ALL ON broker.event_chunk, broker.event_posting FROM PUBLIC;
REVOKE ALL ON FUNCTION broker.event_value, broker.index_events FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.index_events TO broker_admin;
GRANT EXECUTE ON FUNCTION broker.event_value TO broker_auditor;
GRANT SELECT ON broker.event_chunk, broker.event_posting TO broker_auditor;
