-- Snapshots: what closes by silence, and how little of them is written.
--
-- Invariants:
--   * a snapshot's silence closes a ticket unless something after the snapshot spoke of its status: a note or
--     an assignment says nothing of that, and the event that closed it may be the very one that was lost;
--   * a new facts_version is drawn where a fact differs from what is stored, so a snapshot that says nothing
--     new leaves every open grant as it is, and tickets that are stored as it says are not written at all;
--   * feeds do not wait for each other: whoever writes holds their own feed's row, and makes the rows of new
--     tickets in the order of their ids.

-- 0 for what is stored already: silence closes it, as it should where nothing newer is known. Of a ticket that was
-- opened after a snapshot that is applied after this migration, that is wrong until its next event: access ends.
ALTER TABLE broker.ticket ADD COLUMN status_seq bigint NOT NULL DEFAULT 0 CHECK (status_seq >= 0);
COMMENT ON COLUMN broker.ticket.status_seq IS 'Sequence number of what gave it its status; 0: first load alone.';
ALTER TABLE broker.ticket DROP COLUMN last_seq;

-- Lets a feed's writers take turns until their transaction ends, and gives the feed's row.
--
-- Other feeds pass. Who erases a customer locks the table, so that no writer is under way behind that.
CREATE OR REPLACE FUNCTION broker.take_turn(p_feed text) RETURNS broker.feed
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
DECLARE
    v_feed broker.feed;
BEGIN
    LOCK TABLE broker.feed IN ROW EXCLUSIVE MODE;
    INSERT INTO broker.feed (feed_id) VALUES (p_feed) ON CONFLICT DO NOTHING;
    SELECT f.* INTO STRICT v_feed FROM broker.feed AS f WHERE f.feed_id = p_feed FOR NO KEY UPDATE;
    RETURN v_feed;
END
$$;

-- Makes the rows of tickets that nobody has spoken of yet; no ground until they are described.
--
-- All at once and by their ids, and a snapshot's parts come by their ids, too: two feeds that speak of the same
-- new tickets in opposite order would lock each other out. The second waits here and is then told that the
-- tickets are another feed's.
CREATE FUNCTION broker.claim_tickets(p_feed text, p_events jsonb) RETURNS void
LANGUAGE sql SET search_path = broker, pg_temp AS $$
    INSERT INTO broker.ticket (ticket_id, feed_id, version, content_hash, status, kind, opened_by)
    SELECT n.ticket_id, p_feed, 0, '', 'closed', 'unknown', 'unknown'
    FROM (
        SELECT DISTINCT (e.value ->> 'ticket_id') COLLATE "C" AS ticket_id FROM jsonb_array_elements(p_events) AS e
    ) AS n
    ORDER BY n.ticket_id
    ON CONFLICT DO NOTHING
$$;

DROP FUNCTION broker.replace_assignments(text, bigint, jsonb, boolean, timestamptz);
-- Replaces who is live on a ticket, keeping history; a row that says the same goes on. True where anything changed.
CREATE FUNCTION broker.replace_assignments(
    p_ticket text, p_version bigint, p_assignments jsonb, p_live boolean, p_now timestamptz
) RETURNS boolean
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
DECLARE
    v_changed boolean;
BEGIN
    -- Whoever is no longer named, or named otherwise, ends first: one live row per agent.
    UPDATE broker.assignment AS a SET end_time = greatest(p_now, a.start_time)
    WHERE a.ticket_id = p_ticket AND a.end_time IS NULL AND NOT EXISTS (
        SELECT
        FROM jsonb_to_recordset(p_assignments) AS s (agent text, relation text, assigned_by text, assigned_by_agent text)
        WHERE s.agent = a.agent AND s.relation = a.relation AND s.assigned_by = a.assigned_by
            AND s.assigned_by_agent IS NOT DISTINCT FROM a.assigned_by_agent
    );
    v_changed := FOUND;
    UPDATE broker.assignment AS a SET version = p_version
    WHERE a.ticket_id = p_ticket AND a.end_time IS NULL AND a.version < p_version;
    INSERT INTO broker.assignment
        (ticket_id, agent, relation, assigned_by, assigned_by_agent, version, ticket_live, start_time)
    SELECT p_ticket, s.agent, s.relation, s.assigned_by, s.assigned_by_agent, p_version, p_live, p_now
    FROM jsonb_to_recordset(p_assignments) AS s (agent text, relation text, assigned_by text, assigned_by_agent text)
    ON CONFLICT (ticket_id, agent) WHERE end_time IS NULL DO NOTHING;
    RETURN v_changed OR FOUND;
END
$$;

-- Brings one ticket up to one statement about it; true where anything of it is stored now that was not before.
--
-- p_event holds, beside ticket_id, version, seq and hash, the aspects that it speaks of:
--   kind + opened_by + opened_by_agent + customers (details), status, assignments, work.
-- p_restate: a statement of the same version counts, too (snapshot, first load).
-- The ticket's row is there: claim_tickets came before.
CREATE OR REPLACE FUNCTION broker.put_ticket(p_feed text, p_event jsonb, p_restate boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
DECLARE
    v_ticket text := p_event ->> 'ticket_id';
    v_version bigint := (p_event ->> 'version')::bigint;
    v_least bigint := CASE WHEN p_restate THEN v_version ELSE v_version - 1 END;  -- newest that gives way
    v_now timestamptz := clock_timestamp();
    v_old broker.ticket;
    v_new broker.ticket;
    v_live boolean;
    v_changed boolean := false;  -- whether a decision could turn out otherwise
BEGIN
    SELECT t.* INTO STRICT v_old FROM broker.ticket AS t WHERE t.ticket_id = v_ticket;
    IF v_old.feed_id <> p_feed THEN
        RAISE EXCEPTION USING ERRCODE = 'BK002', MESSAGE = 'the ticket belongs to another feed';
    END IF;
    v_new := v_old;

    IF p_event ? 'customers' AND v_old.details_version <= v_least THEN
        v_new.kind := p_event ->> 'kind';
        v_new.opened_by := p_event ->> 'opened_by';
        v_new.opened_by_agent := p_event ->> 'opened_by_agent';
        v_new.details_version := v_version;
        DELETE FROM broker.ticket_customer AS c
        WHERE c.ticket_id = v_ticket AND NOT p_event -> 'customers' ? c.customer_id;
        v_changed := FOUND;
        INSERT INTO broker.ticket_customer (ticket_id, customer_id)
        SELECT v_ticket, s.customer_id FROM jsonb_array_elements_text(p_event -> 'customers') AS s (customer_id)
        ON CONFLICT DO NOTHING;
        v_changed := v_changed OR FOUND;
    END IF;

    IF p_event ? 'status' AND v_old.status_version <= v_least THEN
        v_new.status := p_event ->> 'status';
        v_new.status_version := v_version;
        v_new.status_seq := (p_event ->> 'seq')::bigint;
    END IF;
    v_live := v_new.status IN ('open', 'pending');

    IF p_event ? 'assignments' AND v_old.assignments_version <= v_least THEN
        v_new.assignments_version := v_version;
        IF broker.replace_assignments(v_ticket, v_version, p_event -> 'assignments', v_live, v_now) THEN
            v_changed := true;
        END IF;
    ELSIF p_event ? 'assignments' AND NOT p_restate THEN
        -- Outdated on arrival: never live, but part of the history.
        INSERT INTO broker.assignment
            (ticket_id, agent, relation, assigned_by, assigned_by_agent, version, ticket_live, start_time, end_time)
        SELECT v_ticket, s.agent, s.relation, s.assigned_by, s.assigned_by_agent, v_version, false, v_now, v_now
        FROM jsonb_to_recordset(p_event -> 'assignments')
            AS s (agent text, relation text, assigned_by text, assigned_by_agent text);
    END IF;

    IF p_event ? 'work' AND broker.put_work(v_ticket, v_version, p_event -> 'work') THEN
        v_changed := true;  -- present_until, which put_work has written
    END IF;

    IF v_live <> (v_old.status IN ('open', 'pending')) THEN
        UPDATE broker.assignment AS a SET ticket_live = v_live
        WHERE a.ticket_id = v_ticket AND a.end_time IS NULL AND a.ticket_live <> v_live;
    END IF;
    v_changed := v_changed OR v_new.status <> v_old.status OR v_new.kind <> v_old.kind
        OR v_new.opened_by <> v_old.opened_by OR v_new.opened_by_agent IS DISTINCT FROM v_old.opened_by_agent;
    v_new.version := greatest(v_old.version, v_version);
    UPDATE broker.ticket AS t SET
        kind = v_new.kind, opened_by = v_new.opened_by, opened_by_agent = v_new.opened_by_agent,
        status = v_new.status, status_seq = v_new.status_seq,
        details_version = v_new.details_version, status_version = v_new.status_version,
        assignments_version = v_new.assignments_version, version = v_new.version,
        content_hash = CASE WHEN v_version >= t.version THEN decode(p_event ->> 'hash', 'hex') ELSE t.content_hash END,
        facts_version = CASE WHEN v_changed THEN nextval('broker.facts_version') ELSE t.facts_version END,
        update_time = v_now
    WHERE t.ticket_id = v_ticket;
    RETURN v_changed OR v_new IS DISTINCT FROM v_old;
END
$$;

-- Applies a batch of events, all or nothing; one outcome per event, in their order.
CREATE OR REPLACE FUNCTION broker.apply_ticket_events(
    p_feed text, p_events jsonb, OUT outcomes text [], OUT contiguous_seq bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    -- Beyond that many numbers after a gap nothing more is noted: only a resync (or sending again) mends it.
    c_most_ahead CONSTANT bigint := 10000;
    v_feed broker.feed := broker.take_turn(p_feed);
    v_room bigint := c_most_ahead - (SELECT count(*) FROM broker.feed_ahead AS a WHERE a.feed_id = p_feed);
    v_event jsonb;
    v_known bytea;
    v_seq bigint;
    v_outcome text;
BEGIN
    outcomes := '{}';
    PERFORM broker.claim_tickets(p_feed, p_events);
    FOR v_event IN SELECT e.value FROM jsonb_array_elements(p_events) WITH ORDINALITY AS e (value, n) ORDER BY e.n
    LOOP
        v_seq := (v_event ->> 'seq')::bigint;
        IF v_seq > v_feed.contiguous_seq AND (v_room > 0 OR v_seq = v_feed.contiguous_seq + 1) THEN
            INSERT INTO broker.feed_ahead (feed_id, seq) VALUES (p_feed, v_seq) ON CONFLICT DO NOTHING;
            v_room := v_room - 1;
        END IF;
        PERFORM FROM broker.ticket AS t WHERE t.ticket_id = v_event ->> 'ticket_id' AND t.feed_id <> p_feed;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'BK002', MESSAGE = 'the ticket belongs to another feed',
                DETAIL = cardinality(outcomes)::text;
        END IF;
        INSERT INTO broker.ticket_event (ticket_id, version, content_hash, seq)
        VALUES (v_event ->> 'ticket_id', (v_event ->> 'version')::bigint, decode(v_event ->> 'hash', 'hex'), v_seq)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT k.content_hash INTO STRICT v_known FROM broker.ticket_event AS k
            WHERE k.ticket_id = v_event ->> 'ticket_id' AND k.version = (v_event ->> 'version')::bigint;
            IF v_known <> decode(v_event ->> 'hash', 'hex') THEN
                RAISE EXCEPTION USING ERRCODE = 'BK001', MESSAGE = 'the same version came before with other content',
                    DETAIL = cardinality(outcomes)::text;
            END IF;
            v_outcome := 'duplicate';
        ELSIF v_seq <= v_feed.resync_seq THEN
            v_outcome := 'superseded';  -- a later snapshot said what became of it, also where it said so by silence
        ELSIF broker.put_ticket(p_feed, v_event, false) THEN
            v_outcome := 'applied';
        ELSE
            v_outcome := 'superseded';
        END IF;
        outcomes := outcomes || v_outcome;
    END LOOP;
    contiguous_seq := broker.close_gap(p_feed, v_feed.contiguous_seq);
END
$$;

-- Applies a part of a snapshot taken at p_seq; in one transaction with end_snapshot, parts by their tickets' ids.
CREATE OR REPLACE FUNCTION broker.apply_snapshot(p_feed text, p_seq bigint, p_events jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_feed broker.feed := broker.take_turn(p_feed);
    v_event jsonb;
BEGIN
    IF p_seq < v_feed.resync_seq THEN
        RAISE EXCEPTION USING ERRCODE = 'BK004', MESSAGE = 'a newer snapshot was applied';
    END IF;
    PERFORM broker.claim_tickets(p_feed, p_events);
    -- What is stored just as the snapshot says is not written again: each aspect of that version, the digest of
    -- all of them, and the status, which a snapshot's silence may have changed since.
    FOR v_event IN
        SELECT e.value FROM jsonb_array_elements(p_events) WITH ORDINALITY AS e (value, n)
        WHERE NOT EXISTS (
            SELECT FROM broker.ticket AS t
            WHERE t.ticket_id = e.value ->> 'ticket_id' AND t.feed_id = p_feed
                AND (e.value ->> 'version')::bigint = ALL (
                    ARRAY[t.version, t.details_version, t.status_version, t.assignments_version]
                )
                AND t.content_hash = decode(e.value ->> 'hash', 'hex') AND t.status = e.value ->> 'status'
        )
        ORDER BY e.n
    LOOP
        PERFORM broker.put_ticket(p_feed, v_event, true);
    END LOOP;
END
$$;

-- Ends a snapshot: closes the open tickets that it did not name, and goes on from p_seq.
CREATE OR REPLACE FUNCTION broker.end_snapshot(
    p_feed text, p_seq bigint, p_named text [], OUT closed bigint, OUT contiguous_seq bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_feed broker.feed := broker.take_turn(p_feed);
    v_closed text [];
BEGIN
    IF p_seq < v_feed.resync_seq THEN
        RAISE EXCEPTION USING ERRCODE = 'BK004', MESSAGE = 'a newer snapshot was applied';
    END IF;
    -- Newer than the snapshot's silence is only what gave the ticket its status after the snapshot.
    WITH silent AS (
        UPDATE broker.ticket AS t SET
            status = 'closed', status_seq = p_seq, facts_version = nextval('broker.facts_version'),
            update_time = clock_timestamp()
        WHERE t.feed_id = p_feed AND t.status IN ('open', 'pending') AND t.status_seq <= p_seq
            AND NOT EXISTS (SELECT FROM unnest(p_named) AS n (ticket_id) WHERE n.ticket_id = t.ticket_id)
        RETURNING t.ticket_id
    )
    SELECT coalesce(array_agg(s.ticket_id), '{}') INTO v_closed FROM silent AS s;
    UPDATE broker.assignment AS a SET ticket_live = false
    WHERE a.ticket_id = ANY (v_closed) AND a.end_time IS NULL AND a.ticket_live;
    UPDATE broker.feed AS f SET resync_seq = p_seq WHERE f.feed_id = p_feed;
    closed := cardinality(v_closed);
    contiguous_seq := broker.close_gap(p_feed, greatest(p_seq, v_feed.contiguous_seq));
END
$$;

-- Loads tickets before the feed's first events, as version 0; what an event spoke of stays as it is.
CREATE OR REPLACE FUNCTION broker.import_tickets(
    p_feed text, p_events jsonb, OUT loaded bigint, OUT kept bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_feed broker.feed := broker.take_turn(p_feed);
    v_event jsonb;
BEGIN
    IF v_feed.resync_seq IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'BK004', MESSAGE = 'a snapshot was applied; it knows more than a first load';
    END IF;
    PERFORM broker.claim_tickets(p_feed, p_events);
    loaded := 0;
    kept := 0;
    FOR v_event IN SELECT e.value FROM jsonb_array_elements(p_events) WITH ORDINALITY AS e (value, n) ORDER BY e.n
    LOOP
        PERFORM FROM broker.ticket AS t
        WHERE t.ticket_id = v_event ->> 'ticket_id' AND (t.version > 0 OR t.feed_id <> p_feed);
        IF FOUND THEN
            kept := kept + 1;
        ELSE
            PERFORM broker.put_ticket(p_feed, v_event, true);
            loaded := loaded + 1;
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION broker.claim_tickets, broker.replace_assignments FROM PUBLIC;
