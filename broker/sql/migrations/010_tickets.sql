-- Tickets, their customers and who is assigned: what the helpdesk's signed events say.
--
-- Invariants:
--   * broker_feed writes, through the functions at the end alone; no login role has a right on a table;
--   * each aspect of a ticket (details, status, assignments, presence) has the newest version that was
--     received for that aspect, so events in any order end in the state of their proper order;
--   * whatever a decision rests on draws a new facts_version when it changes;
--   * writers take turns (broker.take_turn), so no two of them meet half-way; readers never wait.
--
-- Refusals of the functions, all of which undo the whole batch:
--   BK001 the same version of a ticket came before with other content
--   BK002 the ticket belongs to another feed
--   BK003 the heartbeat's time is too far from the clock of this database
--   BK004 the snapshot (or the first load) is older than a snapshot that was applied

-- What the owner makes is closed to PUBLIC from the start; every GRANT is explicit.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE SEQUENCE broker.facts_version AS bigint;
COMMENT ON SEQUENCE broker.facts_version IS 'Drawn on every change of what a decision rests on.';

CREATE TABLE broker.feed (
    feed_id text PRIMARY KEY,
    contiguous_seq bigint NOT NULL DEFAULT 0 CHECK (contiguous_seq >= 0),
    resync_seq bigint NULL CHECK (resync_seq >= 0),
    last_heartbeat_time timestamptz NULL,
    stale_time timestamptz NOT NULL DEFAULT '-infinity'
);
COMMENT ON TABLE broker.feed IS 'One helpdesk that sends signed events.';
COMMENT ON COLUMN broker.feed.contiguous_seq IS 'Highest sequence number up to which nothing is missing.';
COMMENT ON COLUMN broker.feed.resync_seq IS 'Sequence number of the last snapshot: it covers all events up to it.';
COMMENT ON COLUMN broker.feed.last_heartbeat_time IS 'The iat of the last heartbeat that counted; only a later one counts.';
COMMENT ON COLUMN broker.feed.stale_time IS 'From then on nothing of this feed is ground for access. Never heard of: -infinity.';

CREATE TABLE broker.feed_ahead (
    feed_id text NOT NULL REFERENCES broker.feed,
    seq bigint NOT NULL CHECK (seq > 0),
    PRIMARY KEY (feed_id, seq)
);
COMMENT ON TABLE broker.feed_ahead IS 'Sequence numbers received beyond the first gap.';

CREATE TABLE broker.ticket (
    ticket_id text PRIMARY KEY,
    feed_id text NOT NULL REFERENCES broker.feed,
    version bigint NOT NULL CHECK (version >= 0),
    content_hash bytea NOT NULL,
    last_seq bigint NOT NULL CHECK (last_seq >= 0),
    -- open -> pending, closed, deleted: work is under way; ground for access
    -- pending -> open, closed, deleted: waits for somebody; ground for access
    -- closed -> open: work is done; no ground, its last assignee may learn why
    -- deleted: gone from the helpdesk; treated as closed
    status text NOT NULL CHECK (status IN ('open', 'pending', 'closed', 'deleted')),
    kind text NOT NULL,
    -- customer: wrote or called; agent: opened by opened_by_agent; system: monitoring, billing run
    -- import: by a first load, nobody vouches for it; unknown: its ticket event has not come yet
    opened_by text NOT NULL CHECK (opened_by IN ('customer', 'agent', 'system', 'import', 'unknown')),
    opened_by_agent text NULL,
    present_until timestamptz NULL,
    -- newest version received per aspect; -1: none yet
    details_version bigint NOT NULL DEFAULT -1,
    status_version bigint NOT NULL DEFAULT -1,
    assignments_version bigint NOT NULL DEFAULT -1,
    facts_version bigint NOT NULL DEFAULT nextval('broker.facts_version'),
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((opened_by = 'agent') = (opened_by_agent IS NOT NULL))
);
COMMENT ON TABLE broker.ticket IS 'A ticket as its feed last described it; belongs to the feed that first sent it.';
COMMENT ON COLUMN broker.ticket.version IS 'Newest version received; 0: first load.';
COMMENT ON COLUMN broker.ticket.content_hash IS 'SHA-256 of the content of that version.';
COMMENT ON COLUMN broker.ticket.last_seq IS 'Highest sequence number that spoke of this ticket; 0: first load alone.';
COMMENT ON COLUMN broker.ticket.kind IS 'A word of the helpdesk; the policy knows those of the catalog, others match no rule.';
COMMENT ON COLUMN broker.ticket.present_until IS 'Until then the customer counts as present.';
CREATE INDEX ticket_live_by_feed ON broker.ticket (feed_id) WHERE status IN ('open', 'pending');

CREATE TABLE broker.ticket_customer (
    ticket_id text NOT NULL REFERENCES broker.ticket,
    customer_id text NOT NULL,
    PRIMARY KEY (ticket_id, customer_id)
);
COMMENT ON TABLE broker.ticket_customer IS 'Whom a ticket is about; the only place that links the two, erased with the person.';
CREATE INDEX ticket_customer_by_customer ON broker.ticket_customer (customer_id);

CREATE TABLE broker.assignment (
    assignment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ticket_id text NOT NULL REFERENCES broker.ticket,
    agent text NOT NULL,
    -- assignee: works on it; supervisor: answers for it; collaborator: was asked to help
    relation text NOT NULL CHECK (relation IN ('assignee', 'supervisor', 'collaborator')),
    -- queue: routed by the helpdesk; agent: by assigned_by_agent; import: by a first load
    assigned_by text NOT NULL CHECK (assigned_by IN ('queue', 'agent', 'import')),
    assigned_by_agent text NULL,
    version bigint NOT NULL CHECK (version >= 0),
    ticket_live boolean NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz NULL,
    CHECK ((assigned_by = 'agent') = (assigned_by_agent IS NOT NULL)),
    CHECK (end_time >= start_time)
);
COMMENT ON TABLE broker.assignment IS 'Who was related to a ticket, from when to when, and by whom; rows are ended, never deleted.';
COMMENT ON COLUMN broker.assignment.version IS 'Newest version of the ticket that stated it.';
COMMENT ON COLUMN broker.assignment.ticket_live IS 'Whether the ticket is open or pending, copied for the index of an agent''s tickets.';
COMMENT ON COLUMN broker.assignment.start_time IS 'When the broker learnt of it.';
COMMENT ON COLUMN broker.assignment.end_time IS 'When the broker learnt of its end; NULL: live. Equal to start_time: outdated on arrival, never live.';
CREATE UNIQUE INDEX assignment_live ON broker.assignment (ticket_id, agent) WHERE end_time IS NULL;
CREATE INDEX assignment_newest_first ON broker.assignment (agent, start_time DESC, ticket_id COLLATE "C" DESC)
WHERE end_time IS NULL AND ticket_live;
CREATE INDEX assignment_by_assignee ON broker.assignment (ticket_id, agent, version DESC) WHERE relation = 'assignee';

CREATE TABLE broker.work_event (
    ticket_id text NOT NULL REFERENCES broker.ticket,
    version bigint NOT NULL CHECK (version > 0),
    -- reply: word to or from the customer; note: internal; call: began or ended; status: of the ticket
    kind text NOT NULL CHECK (kind IN ('reply', 'note', 'call', 'status')),
    -- customer; agent: actor_agent; system: telephony, automation
    actor text NOT NULL CHECK (actor IN ('customer', 'agent', 'system')),
    actor_agent text NULL,
    -- of a call: started -> ended; of a status: the new one; else ''
    state text NOT NULL,
    event_time timestamptz NOT NULL,
    present_until timestamptz NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (ticket_id, version),
    CHECK ((actor = 'agent') = (actor_agent IS NOT NULL))
);
COMMENT ON TABLE broker.work_event IS 'What was done on a ticket; no content, only that it happened.';
COMMENT ON COLUMN broker.work_event.present_until IS 'How long the customer counts as present because of it; NULL: not at all.';
CREATE INDEX work_event_presence ON broker.work_event (ticket_id, version) INCLUDE (present_until)
WHERE present_until IS NOT NULL;
CREATE INDEX work_event_call_ended ON broker.work_event (ticket_id, version DESC)
WHERE kind = 'call' AND state = 'ended';

CREATE TABLE broker.ticket_event (
    ticket_id text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    content_hash bytea NOT NULL,
    seq bigint NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (ticket_id, version)
);
COMMENT ON TABLE broker.ticket_event IS 'Which versions were received, so that each is applied once and none can be rewritten.';

-- Lets writers take turns until their transaction ends, and gives the feed's row.
--
-- Of all feeds: two that spoke of the same new tickets in opposite order would lock each other out.
CREATE FUNCTION broker.take_turn(p_feed text) RETURNS broker.feed
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
DECLARE
    v_feed broker.feed;
BEGIN
    LOCK TABLE broker.feed IN SHARE ROW EXCLUSIVE MODE;  -- lets readers pass
    INSERT INTO broker.feed (feed_id) VALUES (p_feed) ON CONFLICT DO NOTHING;
    SELECT f.* INTO STRICT v_feed FROM broker.feed AS f WHERE f.feed_id = p_feed;
    RETURN v_feed;
END
$$;

-- Replaces who is live on a ticket, keeping history; a row that says the same goes on.
CREATE FUNCTION broker.replace_assignments(
    p_ticket text, p_version bigint, p_assignments jsonb, p_live boolean, p_now timestamptz
) RETURNS void
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
BEGIN
    -- Whoever is no longer named, or named otherwise, ends first: one live row per agent.
    UPDATE broker.assignment AS a SET end_time = greatest(p_now, a.start_time)
    WHERE a.ticket_id = p_ticket AND a.end_time IS NULL AND NOT EXISTS (
        SELECT
        FROM jsonb_to_recordset(p_assignments) AS s (agent text, relation text, assigned_by text, assigned_by_agent text)
        WHERE s.agent = a.agent AND s.relation = a.relation AND s.assigned_by = a.assigned_by
            AND s.assigned_by_agent IS NOT DISTINCT FROM a.assigned_by_agent
    );
    UPDATE broker.assignment AS a SET version = p_version
    WHERE a.ticket_id = p_ticket AND a.end_time IS NULL AND a.version < p_version;
    INSERT INTO broker.assignment
        (ticket_id, agent, relation, assigned_by, assigned_by_agent, version, ticket_live, start_time)
    SELECT p_ticket, s.agent, s.relation, s.assigned_by, s.assigned_by_agent, p_version, p_live, p_now
    FROM jsonb_to_recordset(p_assignments) AS s (agent text, relation text, assigned_by text, assigned_by_agent text)
    ON CONFLICT (ticket_id, agent) WHERE end_time IS NULL DO NOTHING;
END
$$;

-- Records a piece of work; true where it moved the customer's presence.
CREATE FUNCTION broker.put_work(p_ticket text, p_version bigint, p_work jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
DECLARE
    v_until timestamptz;
BEGIN
    INSERT INTO broker.work_event
        (ticket_id, version, kind, actor, actor_agent, state, event_time, present_until)
    VALUES (
        p_ticket, p_version, p_work ->> 'kind', p_work ->> 'actor', p_work ->> 'actor_agent', p_work ->> 'state',
        (p_work ->> 'time')::timestamptz, (p_work ->> 'present_until')::timestamptz
    ) ON CONFLICT DO NOTHING;
    -- Presence is worked out from all that is known, so the order of arrival does not matter.
    SELECT max(w.present_until) INTO v_until
    FROM broker.work_event AS w
    WHERE w.ticket_id = p_ticket AND w.present_until IS NOT NULL AND w.version > coalesce((
        SELECT max(e.version) FROM broker.work_event AS e
        WHERE e.ticket_id = p_ticket AND e.kind = 'call' AND e.state = 'ended'
    ), 0);
    UPDATE broker.ticket AS t SET present_until = v_until
    WHERE t.ticket_id = p_ticket AND t.present_until IS DISTINCT FROM v_until;
    RETURN FOUND;
END
$$;

-- Brings one ticket up to one statement about it; true where a decision could turn out otherwise.
--
-- p_event holds, beside ticket_id, version, seq and hash, the aspects that it speaks of:
--   kind + opened_by + opened_by_agent + customers (details), status, assignments, work.
-- p_restate: a statement of the same version counts, too (snapshot, first load).
CREATE FUNCTION broker.put_ticket(p_feed text, p_event jsonb, p_restate boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
DECLARE
    v_ticket text := p_event ->> 'ticket_id';
    v_version bigint := (p_event ->> 'version')::bigint;
    v_least bigint := CASE WHEN p_restate THEN v_version ELSE v_version - 1 END;  -- newest that gives way
    v_now timestamptz := clock_timestamp();
    v_old broker.ticket;
    v_status text;
    v_live boolean;
    v_changed boolean;
BEGIN
    INSERT INTO broker.ticket (ticket_id, feed_id, version, content_hash, last_seq, status, kind, opened_by)
    VALUES (v_ticket, p_feed, 0, '', 0, 'closed', 'unknown', 'unknown')  -- no ground until it is described
    ON CONFLICT DO NOTHING;
    SELECT t.* INTO STRICT v_old FROM broker.ticket AS t WHERE t.ticket_id = v_ticket;
    IF v_old.feed_id <> p_feed THEN
        RAISE EXCEPTION USING ERRCODE = 'BK002', MESSAGE = 'the ticket belongs to another feed';
    END IF;
    v_changed := false;
    v_status := v_old.status;

    IF p_event ? 'customers' AND v_old.details_version <= v_least THEN
        UPDATE broker.ticket AS t SET
            kind = p_event ->> 'kind', opened_by = p_event ->> 'opened_by',
            opened_by_agent = p_event ->> 'opened_by_agent', details_version = v_version
        WHERE t.ticket_id = v_ticket;
        DELETE FROM broker.ticket_customer AS c
        WHERE c.ticket_id = v_ticket AND NOT p_event -> 'customers' ? c.customer_id;
        INSERT INTO broker.ticket_customer (ticket_id, customer_id)
        SELECT v_ticket, s.customer_id FROM jsonb_array_elements_text(p_event -> 'customers') AS s (customer_id)
        ON CONFLICT DO NOTHING;
        v_changed := true;
    END IF;

    IF p_event ? 'status' AND v_old.status_version <= v_least THEN
        v_status := p_event ->> 'status';
        UPDATE broker.ticket AS t SET status = v_status, status_version = v_version WHERE t.ticket_id = v_ticket;
        v_changed := true;
    END IF;
    v_live := v_status IN ('open', 'pending');

    IF p_event ? 'assignments' AND v_old.assignments_version <= v_least THEN
        PERFORM broker.replace_assignments(v_ticket, v_version, p_event -> 'assignments', v_live, v_now);
        UPDATE broker.ticket AS t SET assignments_version = v_version WHERE t.ticket_id = v_ticket;
        v_changed := true;
    ELSIF p_event ? 'assignments' AND NOT p_restate THEN
        -- Outdated on arrival: never live, but part of the history.
        INSERT INTO broker.assignment
            (ticket_id, agent, relation, assigned_by, assigned_by_agent, version, ticket_live, start_time, end_time)
        SELECT v_ticket, s.agent, s.relation, s.assigned_by, s.assigned_by_agent, v_version, false, v_now, v_now
        FROM jsonb_to_recordset(p_event -> 'assignments')
            AS s (agent text, relation text, assigned_by text, assigned_by_agent text);
    END IF;

    IF p_event ? 'work' AND broker.put_work(v_ticket, v_version, p_event -> 'work') THEN
        v_changed := true;
    END IF;

    UPDATE broker.assignment AS a SET ticket_live = v_live
    WHERE a.ticket_id = v_ticket AND a.end_time IS NULL AND a.ticket_live <> v_live;
    UPDATE broker.ticket AS t SET
        version = greatest(t.version, v_version),
        content_hash = CASE WHEN v_version >= t.version THEN decode(p_event ->> 'hash', 'hex') ELSE t.content_hash END,
        last_seq = greatest(t.last_seq, (p_event ->> 'seq')::bigint),
        facts_version = CASE WHEN v_changed THEN nextval('broker.facts_version') ELSE t.facts_version END,
        update_time = v_now
    WHERE t.ticket_id = v_ticket;
    RETURN v_changed OR v_version > v_old.version;
END
$$;

-- Moves contiguous_seq over what has been received, and forgets it.
CREATE FUNCTION broker.close_gap(p_feed text, p_from bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = broker, pg_temp AS $$
DECLARE
    v_seq bigint;
BEGIN
    DELETE FROM broker.feed_ahead AS a WHERE a.feed_id = p_feed AND a.seq <= p_from;
    SELECT coalesce(max(r.seq), p_from) INTO v_seq
    FROM (
        SELECT a.seq, row_number() OVER (ORDER BY a.seq) AS n FROM broker.feed_ahead AS a WHERE a.feed_id = p_feed
    ) AS r
    WHERE r.seq = p_from + r.n;
    DELETE FROM broker.feed_ahead AS a WHERE a.feed_id = p_feed AND a.seq <= v_seq;
    UPDATE broker.feed AS f SET contiguous_seq = v_seq WHERE f.feed_id = p_feed AND f.contiguous_seq <> v_seq;
    RETURN v_seq;
END
$$;

-- Applies a batch of events, all or nothing; one outcome per event, in their order.
CREATE FUNCTION broker.apply_ticket_events(
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

-- Extends the feed's freshness where nothing is missing; an old heartbeat extends nothing.
CREATE FUNCTION broker.feed_heartbeat(
    p_feed text, p_seq bigint, p_time timestamptz, p_max_silence interval, p_tolerance interval,
    OUT resync_needed boolean, OUT contiguous_seq bigint, OUT stale_time timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_feed broker.feed := broker.take_turn(p_feed);
    v_now timestamptz := clock_timestamp();
BEGIN
    IF NOT p_time BETWEEN v_now - p_tolerance AND v_now + p_tolerance THEN
        RAISE EXCEPTION USING ERRCODE = 'BK003', MESSAGE = 'the heartbeat''s time is too far from the clock';
    END IF;
    IF p_seq = v_feed.contiguous_seq AND p_time > coalesce(v_feed.last_heartbeat_time, '-infinity') THEN
        UPDATE broker.feed AS f SET last_heartbeat_time = p_time, stale_time = v_now + p_max_silence
        WHERE f.feed_id = p_feed RETURNING f.stale_time INTO v_feed.stale_time;
    END IF;
    resync_needed := p_seq > v_feed.contiguous_seq;
    contiguous_seq := v_feed.contiguous_seq;
    stale_time := v_feed.stale_time;
END
$$;

-- Applies a part of a snapshot taken at p_seq; in one transaction with end_snapshot.
CREATE FUNCTION broker.apply_snapshot(p_feed text, p_seq bigint, p_events jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_feed broker.feed := broker.take_turn(p_feed);
    v_event jsonb;
BEGIN
    IF p_seq < v_feed.resync_seq THEN
        RAISE EXCEPTION USING ERRCODE = 'BK004', MESSAGE = 'a newer snapshot was applied';
    END IF;
    FOR v_event IN SELECT e.value FROM jsonb_array_elements(p_events) WITH ORDINALITY AS e (value, n) ORDER BY e.n
    LOOP
        PERFORM broker.put_ticket(p_feed, v_event, true);
    END LOOP;
END
$$;

-- Ends a snapshot: closes the open tickets that it did not name, and goes on from p_seq.
CREATE FUNCTION broker.end_snapshot(
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
    -- What an event after the snapshot spoke of is newer than the snapshot's silence.
    WITH silent AS (
        UPDATE broker.ticket AS t SET
            status = 'closed', last_seq = p_seq, facts_version = nextval('broker.facts_version'),
            update_time = clock_timestamp()
        WHERE t.feed_id = p_feed AND t.status IN ('open', 'pending') AND t.last_seq <= p_seq
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
CREATE FUNCTION broker.import_tickets(
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

-- The ground of one agent on one ticket: one row always.
--
-- A ticket that was never this agent's looks like one that does not exist: the same lookup finds
-- nothing and none follows, so neither answer nor time tells them apart, and nothing of it leaves here.
-- To a suspended agent every ticket looks like that, their own ones, too.
CREATE FUNCTION broker.ground(
    p_ticket text, p_agent text,
    OUT kind text, OUT status text, OUT relation text, OUT provenance text, OUT opened_by text,
    OUT present_until timestamptz, OUT present boolean, OUT facts_version bigint, OUT customers text [],
    OUT was_last_assignee boolean, OUT feed_fresh boolean, OUT suspended boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker, pg_temp
-- One plan, by the indexes, also where it was made while the tables were still small.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_live broker.assignment;
    v_mine bigint;  -- newest version that named the agent as assignee
    v_ticket broker.ticket;
BEGIN
    kind := 'unknown';
    status := 'deleted';
    relation := 'none';
    provenance := 'unknown';
    opened_by := 'unknown';
    present := false;
    facts_version := 0;
    customers := '{}';
    was_last_assignee := false;
    feed_fresh := false;
    suspended := EXISTS (SELECT FROM broker.agent_suspension AS x WHERE x.agent = p_agent AND x.end_time IS NULL);
    IF suspended THEN
        RETURN;
    END IF;

    SELECT a.* INTO v_live FROM broker.assignment AS a
    WHERE a.ticket_id = p_ticket AND a.agent = p_agent AND a.end_time IS NULL;
    SELECT max(a.version) INTO v_mine FROM broker.assignment AS a
    WHERE a.ticket_id = p_ticket AND a.agent = p_agent AND a.relation = 'assignee';
    IF v_live.agent IS NULL AND v_mine IS NULL THEN
        RETURN;
    END IF;

    SELECT t.* INTO STRICT v_ticket FROM broker.ticket AS t WHERE t.ticket_id = p_ticket;
    IF v_ticket.status NOT IN ('open', 'pending') THEN
        SELECT v_mine = max(a.version) INTO was_last_assignee FROM broker.assignment AS a
        WHERE a.ticket_id = p_ticket AND a.relation = 'assignee';
        was_last_assignee := coalesce(was_last_assignee, false);
        status := CASE WHEN was_last_assignee THEN v_ticket.status ELSE status END;
    ELSIF v_live.agent IS NOT NULL THEN
        kind := v_ticket.kind;
        status := v_ticket.status;
        relation := v_live.relation;
        provenance := CASE
            WHEN v_live.assigned_by_agent = p_agent THEN 'self'
            WHEN v_live.assigned_by = 'agent' THEN 'peer'
            WHEN v_live.assigned_by = 'queue' THEN 'routed'
            ELSE 'imported'
        END;
        opened_by := CASE
            WHEN v_ticket.opened_by_agent = p_agent THEN 'self'
            WHEN v_ticket.opened_by = 'agent' THEN 'peer'
            WHEN v_ticket.opened_by = 'import' THEN 'imported'
            ELSE v_ticket.opened_by
        END;
        present_until := v_ticket.present_until;
        present := coalesce(v_ticket.present_until > v_now, false);
        facts_version := v_ticket.facts_version;
        SELECT coalesce(array_agg(c.customer_id ORDER BY c.customer_id COLLATE "C"), '{}') INTO customers
        FROM broker.ticket_customer AS c WHERE c.ticket_id = p_ticket;
        SELECT f.stale_time > v_now INTO STRICT feed_fresh FROM broker.feed AS f WHERE f.feed_id = v_ticket.feed_id;
    END IF;
END
$$;

-- The open tickets of an agent, newest relation first; NULL, NULL asks for the first page.
CREATE FUNCTION broker.list_assigned(
    p_agent text, p_limit integer, p_start_time timestamptz, p_ticket text
) RETURNS TABLE (ticket_id text, kind text, relation text, start_time timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker, pg_temp
-- One plan, down the index of newest first, also where it was made while the tables were still small.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT a.ticket_id, t.kind, a.relation, a.start_time
    FROM broker.assignment AS a
    INNER JOIN broker.ticket AS t ON t.ticket_id = a.ticket_id
    WHERE a.agent = p_agent AND a.end_time IS NULL AND a.ticket_live
        AND (a.start_time, a.ticket_id COLLATE "C") < (coalesce(p_start_time, 'infinity'), coalesce(p_ticket, ''))
    ORDER BY a.start_time DESC, a.ticket_id COLLATE "C" DESC
    LIMIT p_limit;
END
$$;

-- How fresh each feed is; for readiness and metrics.
CREATE FUNCTION broker.feeds() RETURNS TABLE (
    feed_id text, contiguous_seq bigint, stale_time timestamptz, fresh boolean, events_missing boolean
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT
        f.feed_id, f.contiguous_seq, f.stale_time, f.stale_time > clock_timestamp(),
        EXISTS (SELECT FROM broker.feed_ahead AS a WHERE a.feed_id = f.feed_id)
    FROM broker.feed AS f ORDER BY f.feed_id
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA broker FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA broker FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA broker FROM PUBLIC;

GRANT USAGE ON SCHEMA broker TO broker_access, broker_admin, broker_feed, broker_auditor;

GRANT EXECUTE ON FUNCTION broker.apply_ticket_events(text, jsonb) TO broker_feed;
GRANT EXECUTE ON FUNCTION broker.feed_heartbeat(text, bigint, timestamptz, interval, interval) TO broker_feed;
GRANT EXECUTE ON FUNCTION broker.apply_snapshot(text, bigint, jsonb) TO broker_feed;
GRANT EXECUTE ON FUNCTION broker.end_snapshot(text, bigint, text []) TO broker_feed;
GRANT EXECUTE ON FUNCTION broker.import_tickets(text, jsonb) TO broker_feed;
GRANT EXECUTE ON FUNCTION broker.ground(text, text) TO broker_access;
GRANT EXECUTE ON FUNCTION broker.list_assigned(text, integer, timestamptz, text) TO broker_access;
GRANT EXECUTE ON FUNCTION broker.feeds() TO broker_access, broker_admin, broker_feed;
