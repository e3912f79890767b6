-- The ledger: append-only, partitioned by event id (UUIDv7), ground checked in the append.

CREATE TABLE broker.ledger_event (
    id uuid NOT NULL, -- UUIDv7 made by the writer: order, partition and idempotency key
    kind text NOT NULL CHECK (kind IN (
        'admin', -- an administrative call, allowed or refused
        'auditor_query',
        'denial', -- a call refused before any grant or read
        'denials', -- several denials of one peer and reason, counted
        'grant',
        'login_failure',
        'outcome', -- narrows an earlier read: aborted, empty
        'policy',
        'read',
        'revoke',
        'suspension'
    )),
    record_time timestamptz NOT NULL, -- the database's clock; annotates, never orders
    agent text NOT NULL, -- issuer|subject, '' where unknown
    tool text NOT NULL,
    grant_id uuid,
    trace_id text NOT NULL,
    customer_pseudonym text NOT NULL,
    ticket_pseudonym text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN (
        'done', -- administrative and policy events
        'granted',
        'refused',
        'released' -- released at most: an 'outcome' event may narrow it
    )),
    reason text NOT NULL CHECK (reason ~ '^[A-Z_]*$'), -- an ErrorReason, '' unless refused
    policy_version bigint,
    leaf bytea NOT NULL, -- the truth: canonical JSON; every column above is an index over it
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX ledger_event_agent ON broker.ledger_event (agent, id);
CREATE INDEX ledger_event_grant ON broker.ledger_event (grant_id) WHERE grant_id IS NOT NULL;

-- Smallest UUIDv7 of a time.
CREATE FUNCTION broker.uuid7_floor(p_time timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(EPOCH FROM p_time) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- The time inside a UUIDv7.
CREATE FUNCTION broker.uuid7_time(p_id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT to_timestamp(('x' || lpad(left(replace(p_id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0)
$$;

-- Name of the partition that a time falls into.
CREATE FUNCTION broker.partition_name(p_time timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 'ledger_event_' || to_char(p_time AT TIME ZONE 'UTC', 'YYYYMM')
$$;

-- Refuses every change of a stored event, whoever asks: the second lock behind the missing rights.
CREATE FUNCTION broker.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger events are never changed' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER ledger_event_append_only BEFORE UPDATE OR DELETE ON broker.ledger_event
FOR EACH ROW EXECUTE FUNCTION broker.refuse_change();
CREATE TRIGGER ledger_event_no_truncate BEFORE TRUNCATE ON broker.ledger_event
FOR EACH STATEMENT EXECUTE FUNCTION broker.refuse_change();

-- Makes the partitions of this month and the next `p_ahead` ones; safe to run at any time.
-- Made beside the ledger and attached: `PARTITION OF` would lock it against appends, and behind one
-- long query of an auditor nothing could be put on record.
CREATE FUNCTION broker.ensure_partitions(p_ahead integer DEFAULT 2) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_start timestamp;
    v_name text;
    v_made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(1651663207, 0);
    FOR i IN 0..p_ahead LOOP
        v_start := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') + make_interval(months => i);
        v_name := broker.partition_name(v_start AT TIME ZONE 'UTC');
        CONTINUE WHEN to_regclass('broker.' || v_name) IS NOT NULL;
        EXECUTE format('CREATE TABLE broker.%I (LIKE broker.ledger_event INCLUDING CONSTRAINTS)', v_name);
        EXECUTE format(
            'ALTER TABLE broker.ledger_event ATTACH PARTITION broker.%I FOR VALUES FROM (%L) TO (%L)',
            v_name,
            broker.uuid7_floor(v_start AT TIME ZONE 'UTC'),
            broker.uuid7_floor((v_start + interval '1 month') AT TIME ZONE 'UTC')
        );
        -- Row triggers come with the attachment, statement triggers do not.
        EXECUTE format(
            'CREATE TRIGGER ledger_event_no_truncate BEFORE TRUNCATE ON broker.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION broker.refuse_change()',
            v_name
        );
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END
$$;

-- Whether an event of now and one of the day after tomorrow would find their partitions.
CREATE FUNCTION broker.partitions_ready() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT bool_and(EXISTS (
        SELECT FROM pg_inherits AS i
        INNER JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE
            i.inhparent = 'broker.ledger_event'::regclass
            AND NOT i.inhdetachpending
            AND c.relname = broker.partition_name(needed.at)
    ))
    FROM (VALUES (clock_timestamp()), (clock_timestamp() + interval '2 days')) AS needed (at)
$$;

-- The end of every leaf: when it was recorded.
CREATE FUNCTION broker.leaf_tail(p_time timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT '","record_time":"' || to_char(p_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '"}'
$$;

-- Completes a leaf: the writer's JSON without its closing brace, then what only the append knows.
CREATE FUNCTION broker.leaf(p_head bytea, p_outcome text, p_reason text, p_time timestamptz) RETURNS bytea
LANGUAGE sql STABLE AS $$
    SELECT p_head || convert_to(
        ',"outcome":"' || p_outcome || '","reason":"' || p_reason || broker.leaf_tail(p_time), 'UTF8')
$$;

-- Refuses a writer whose clock is far from ours: its ids would land in the wrong order or partition.
CREATE FUNCTION broker.check_clock(p_ids uuid []) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_low uuid := broker.uuid7_floor(clock_timestamp() - interval '60 seconds');
    v_high uuid := broker.uuid7_floor(clock_timestamp() + interval '60 seconds');
BEGIN
    IF EXISTS (SELECT FROM unnest(p_ids) AS u (id) WHERE u.id NOT BETWEEN v_low AND v_high) THEN
        RAISE EXCEPTION 'clock skew' USING ERRCODE = 'BK002';
    END IF;
END
$$;

-- Appends events that need no ground: denials, failed log-ins, outcomes, administrative calls.
CREATE FUNCTION broker.append_any(
    p_ids uuid [], p_kinds text [], p_agents text [], p_tools text [], p_grants uuid [], p_traces text [],
    p_customers text [], p_tickets text [], p_outcomes text [], p_reasons text [], p_versions bigint [],
    p_heads bytea []
) RETURNS TABLE (id uuid, leaf bytea, record_time timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM broker.check_clock(p_ids);
    RETURN QUERY
    INSERT INTO broker.ledger_event AS e
        (id, kind, record_time, agent, tool, grant_id, trace_id, customer_pseudonym, ticket_pseudonym,
         outcome, reason, policy_version, leaf)
    SELECT
        u.id, u.kind, v_now, u.agent, u.tool, u.grant_id, u.trace_id, u.customer, u.ticket,
        u.outcome, u.reason, u.version, broker.leaf(u.head, u.outcome, u.reason, v_now)
    FROM unnest(
        p_ids, p_kinds, p_agents, p_tools, p_grants, p_traces, p_customers, p_tickets, p_outcomes, p_reasons,
        p_versions, p_heads
    ) AS u (id, kind, agent, tool, grant_id, trace_id, customer, ticket, outcome, reason, version, head)
    RETURNING e.id, e.leaf, e.record_time;
END
$$;

-- The doors to append_any, one per role: each may say what is its own to say, nobody may forge the rest.
DO $doors$
DECLARE
    door record;
BEGIN
    FOR door IN
        SELECT * FROM (VALUES
            ('append_events', ARRAY['denial', 'denials', 'login_failure', 'outcome']),
            (
                'append_admin_events',
                ARRAY['admin', 'denial', 'denials', 'login_failure', 'policy', 'revoke', 'suspension']
            ),
            ('append_auditor_events', ARRAY['auditor_query'])
        ) AS d (name, kinds)
    LOOP
        EXECUTE format($body$
            CREATE FUNCTION broker.%I(
                p_ids uuid [], p_kinds text [], p_agents text [], p_tools text [], p_grants uuid [],
                p_traces text [], p_customers text [], p_tickets text [], p_outcomes text [],
                p_reasons text [], p_versions bigint [], p_heads bytea []
            ) RETURNS TABLE (id uuid, leaf bytea, record_time timestamptz)
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $function$
            BEGIN
                IF NOT (p_kinds <@ %L::text [] AND p_outcomes <@ ARRAY['done', 'refused']) THEN
                    RAISE EXCEPTION 'kind not allowed here' USING ERRCODE = 'insufficient_privilege';
                END IF;
                RETURN QUERY SELECT * FROM broker.append_any(
                    p_ids, p_kinds, p_agents, p_tools, p_grants, p_traces, p_customers, p_tickets,
                    p_outcomes, p_reasons, p_versions, p_heads);
            END
            $function$
        $body$, door.name, door.kinds);
    END LOOP;
END
$doors$;

-- Appends reads, each with its ground checked now: which were accepted, which refused and why.
-- Rows with reason POLICY_STALE or FACTS_STALE are not stored: the caller decides again. Nor is a read on
-- a grant that is not the agent's (leaf NULL): whoever may call this could name anybody in it. The caller
-- records the refusal as its own.
CREATE FUNCTION broker.append_reads(
    p_ids uuid [], p_grants uuid [], p_agents text [], p_tools text [], p_traces text [],
    p_facts_versions bigint [], p_presents boolean [], p_versions bigint [],
    p_hours integer [], p_days integer [], p_heads bytea []
) RETURNS TABLE (ord bigint, reason text, leaf bytea, free_time timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp
-- A group is small and every lookup has its index: one plan, the same with ten tickets and ten million.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
    v_reasons text [];
    v_customers text [];
    v_tickets text [];
    v_free timestamptz [] := array_fill(NULL::timestamptz, ARRAY[cardinality(p_ids)]);
    v_charge boolean;
    v_read record;
    v_tail text := broker.leaf_tail(v_now);
BEGIN
    PERFORM broker.check_clock(p_ids);

    SELECT
        array_agg(CASE
            WHEN g.grant_id IS NULL OR g.revoke_time IS NOT NULL OR g.expire_time <= v_now THEN 'TOKEN_INVALID'
            WHEN x.agent IS NOT NULL THEN 'AGENT_SUSPENDED'
            WHEN s.ticket_id IS NULL OR c.ticket_id IS NULL THEN 'TICKET_DENIED'
            WHEN s.stale_time <= v_now THEN 'FEED_STALE'
            -- its last assignee may learn that it is closed, nobody else (K1)
            WHEN s.status NOT IN ('open', 'pending') AND s.relation = 'assignee' THEN 'TICKET_CLOSED'
            WHEN s.status NOT IN ('open', 'pending') THEN 'TICKET_DENIED'
            -- equal or stale: what the caller leaves out (NULL) is not equal
            WHEN (u.version = p.version) IS NOT TRUE THEN 'POLICY_STALE'
            WHEN
                (
                    s.facts_version = u.facts_version
                    AND coalesce(s.present_until > v_now, false) = u.present
                ) IS NOT TRUE
                THEN 'FACTS_STALE'
            ELSE ''
        END ORDER BY u.ord),
        array_agg(g.customer_pseudonym ORDER BY u.ord), -- NULL: no grant of this agent's
        array_agg(g.ticket_pseudonym ORDER BY u.ord),
        -- a budget row younger than a minute says: counted already, nothing to write
        bool_or(b.agent IS NULL OR least(u.hour, u.day) <= 0)
    INTO v_reasons, v_customers, v_tickets, v_charge
    FROM unnest(p_grants, p_agents, p_facts_versions, p_presents, p_versions, p_hours, p_days)
        WITH ORDINALITY AS u (grant_id, agent, facts_version, present, version, hour, day, ord)
    CROSS JOIN (SELECT broker.active_policy_version() AS version) AS p
    -- LIMIT keeps each lookup a lookup: the planner cannot turn it into a join over all tickets.
    LEFT JOIN LATERAL (SELECT * FROM broker.access_grant WHERE grant_id = u.grant_id LIMIT 1) AS g
        ON g.agent = u.agent
    LEFT JOIN LATERAL (
        SELECT * FROM broker.standing WHERE ticket_id = g.ticket_id AND agent = g.agent LIMIT 1
    ) AS s ON true
    LEFT JOIN LATERAL (
        SELECT ticket_id FROM broker.ticket_customer
        WHERE ticket_id = g.ticket_id AND customer_id = g.customer_id LIMIT 1
    ) AS c ON true
    LEFT JOIN LATERAL (
        SELECT agent FROM broker.agent_suspension WHERE agent = u.agent AND end_time IS NULL LIMIT 1
    ) AS x ON true
    LEFT JOIN LATERAL (
        SELECT agent FROM broker.budget_use
        WHERE agent = g.agent AND customer_pseudonym = g.customer_pseudonym
            AND last_time > v_now - interval '1 minute' LIMIT 1
    ) AS b ON true;

    IF v_charge THEN
        -- One order for everybody, so that two groups never wait for each other in a circle.
        FOR v_read IN
            SELECT DISTINCT hashtext(p_agents[i]) AS slot, p_agents[i] AS agent
            FROM generate_subscripts(p_ids, 1) AS i
            WHERE v_reasons[i] = '' ORDER BY 1, 2
        LOOP
            PERFORM broker.lock_budget(v_read.agent);
        END LOOP;
        -- Behind the locks every statement sees what the last holder committed.
        FOR i IN 1..cardinality(p_ids) LOOP
            CONTINUE WHEN v_reasons[i] <> '';
            v_free[i] := broker.budget_refusal(p_agents[i], v_customers[i], p_hours[i], p_days[i], v_now);
            IF v_free[i] IS NOT NULL THEN
                v_reasons[i] := 'BUDGET_EXCEEDED';
            ELSE
                INSERT INTO broker.budget_use AS b (agent, customer_pseudonym, last_time)
                VALUES (p_agents[i], v_customers[i], v_now)
                ON CONFLICT (agent, customer_pseudonym) DO UPDATE SET last_time = excluded.last_time
                WHERE b.last_time < excluded.last_time - interval '1 minute';
            END IF;
        END LOOP;
    END IF;

    RETURN QUERY
    WITH verdict AS MATERIALIZED (
        SELECT
            u.ord, u.id, u.grant_id, u.agent, u.tool, u.trace_id, u.version, u.reason, u.customer, u.ticket,
            u.free_time,
            CASE WHEN u.reason NOT IN ('POLICY_STALE', 'FACTS_STALE') AND u.customer IS NOT NULL THEN
                u.head || convert_to(
                    CASE WHEN u.reason = '' THEN ',"outcome":"released"' ELSE ',"outcome":"refused"' END
                    || ',"reason":"' || u.reason || v_tail, 'UTF8'
                )
            END AS leaf
        FROM unnest(
            p_ids, p_grants, p_agents, p_tools, p_traces, p_versions, p_heads, v_reasons, v_customers, v_tickets,
            v_free
        ) WITH ORDINALITY AS u (
            id, grant_id, agent, tool, trace_id, version, head, reason, customer, ticket, free_time, ord
        )
    ),
    stored AS (
        INSERT INTO broker.ledger_event
            (id, kind, record_time, agent, tool, grant_id, trace_id, customer_pseudonym, ticket_pseudonym,
             outcome, reason, policy_version, leaf)
        SELECT
            v.id, 'read', v_now, v.agent, v.tool, v.grant_id, v.trace_id, v.customer, v.ticket,
            CASE WHEN v.reason = '' THEN 'released' ELSE 'refused' END, v.reason, v.version, v.leaf
        FROM verdict AS v
        WHERE v.leaf IS NOT NULL
    )
    SELECT v.ord, v.reason, v.leaf, v.free_time FROM verdict AS v;
END
$$;

-- Creates a grant while its ground holds, mints its pass and appends its event, all or nothing.
-- A repeated request answers the grant that stands; reason REQUEST_ID_REUSED where it asks otherwise.
CREATE FUNCTION broker.create_grant(
    p_id uuid, p_grant uuid, p_request uuid, p_hash bytea, p_agent text, p_tool text, p_thumbprint text,
    p_ticket text, p_customer text, p_customer_pseudonym text, p_ticket_pseudonym text, p_purpose text,
    p_audience text, p_fields text [], p_levels text [], p_answer jsonb, p_version bigint,
    p_facts_version bigint, p_present boolean, p_seconds double precision, p_hour integer, p_day integer,
    p_trace text, p_head bytea
) RETURNS TABLE (
    reason text, grant_id uuid, decision_id uuid, create_time timestamptz, expire_time timestamptz,
    pass text, answer jsonb, policy_version bigint, trace_id text, leaf bytea, free_time timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
    v_expire timestamptz := v_now + make_interval(secs => p_seconds);
    v_reason text;
    v_free timestamptz;
    v_pass text := '';
    v_leaf bytea;
    v_old broker.access_grant;
BEGIN
    PERFORM broker.check_clock(ARRAY[p_id]);
    v_reason := broker.ground_refusal(
        p_agent, p_ticket, p_customer, p_facts_version, p_present, p_version, v_now);
    IF v_reason = '' THEN
        v_free := broker.budget_refusal(p_agent, p_customer_pseudonym, p_hour, p_day, v_now);
        IF v_free IS NOT NULL THEN
            v_reason := 'BUDGET_EXCEEDED';
        END IF;
    END IF;
    IF v_reason IN ('POLICY_STALE', 'FACTS_STALE') THEN
        RETURN QUERY SELECT v_reason, NULL::uuid, NULL::uuid, NULL::timestamptz, NULL::timestamptz, NULL::text,
            NULL::jsonb, NULL::bigint, NULL::text, NULL::bytea, NULL::timestamptz;
        RETURN;
    END IF;

    IF v_reason = '' THEN
        v_pass := broker.mint_pass(p_grant, p_customer, p_fields, v_expire);
        INSERT INTO broker.access_grant VALUES (
            p_grant, p_id, p_request, p_hash, p_agent, p_tool, p_thumbprint, p_ticket, p_customer,
            p_customer_pseudonym, p_ticket_pseudonym, p_purpose, p_audience, p_fields, p_levels, p_answer,
            p_version, p_trace, v_pass, v_now, v_expire, NULL
        ) ON CONFLICT (agent, request_id) DO NOTHING;
        IF NOT FOUND THEN
            SELECT g.* INTO v_old FROM broker.access_grant AS g
            WHERE g.agent = p_agent AND g.request_id = p_request;
            v_reason := CASE
                WHEN
                    v_old.request_hash = p_hash AND v_old.tool_thumbprint = p_thumbprint
                    AND v_old.revoke_time IS NULL AND v_old.expire_time > v_now
                    THEN ''
                ELSE 'REQUEST_ID_REUSED'
            END;
            v_pass := ''; -- of a grant that is not made: a refusal on record must open nothing
            IF v_reason = '' THEN
                RETURN QUERY SELECT '', v_old.grant_id, v_old.decision_id, v_old.create_time, v_old.expire_time,
                    v_old.pass, v_old.answer, v_old.policy_version, v_old.trace_id, NULL::bytea,
                    NULL::timestamptz;
                RETURN;
            END IF;
        END IF;
    END IF;

    v_leaf := broker.leaf(p_head, CASE WHEN v_reason = '' THEN 'granted' ELSE 'refused' END, v_reason, v_now);
    INSERT INTO broker.ledger_event VALUES (
        p_id, 'grant', v_now, p_agent, p_tool, p_grant, p_trace, p_customer_pseudonym, p_ticket_pseudonym,
        CASE WHEN v_reason = '' THEN 'granted' ELSE 'refused' END, v_reason, p_version, v_leaf
    );
    RETURN QUERY SELECT v_reason, p_grant, p_id, v_now, v_expire, v_pass, p_answer, p_version, p_trace, v_leaf,
        v_free;
END
$$;

-- One live grant with its pass; no row for another agent's grant, or one that is revoked or over.
CREATE FUNCTION broker.open_grant(p_grant uuid, p_agent text) RETURNS TABLE (
    pass text, purpose text, customer_pseudonym text, ticket_pseudonym text, ticket_id text,
    fields text [], levels text [], expire_time timestamptz, trace_id text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT
        g.pass, g.purpose, g.customer_pseudonym, g.ticket_pseudonym, g.ticket_id,
        g.fields, g.levels, g.expire_time, g.trace_id
    FROM broker.access_grant AS g
    WHERE
        g.grant_id = p_grant AND g.agent = p_agent
        AND g.revoke_time IS NULL AND g.expire_time > clock_timestamp()
$$;

-- Whether a read on the grant would find it alive and its ground standing now; no row if not.
CREATE FUNCTION broker.grant_status(p_grant uuid, p_agent text) RETURNS TABLE (
    ticket_id text, expire_time timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT g.ticket_id, g.expire_time
    FROM broker.access_grant AS g
    INNER JOIN broker.standing AS s ON s.ticket_id = g.ticket_id AND s.agent = g.agent
    INNER JOIN broker.ticket_customer AS c ON c.ticket_id = g.ticket_id AND c.customer_id = g.customer_id
    WHERE
        g.grant_id = p_grant AND g.agent = p_agent
        AND g.revoke_time IS NULL AND g.expire_time > clock_timestamp()
        AND s.status IN ('open', 'pending') AND s.stale_time > clock_timestamp()
        AND NOT EXISTS (
            SELECT FROM broker.agent_suspension AS x WHERE x.agent = p_agent AND x.end_time IS NULL
        )
$$;

-- Revokes the agent's own grant and appends its event once; no row for anybody else's.
CREATE FUNCTION broker.revoke_own_grant(
    p_id uuid, p_grant uuid, p_agent text, p_tool text, p_trace text, p_head bytea
) RETURNS TABLE (revoke_time timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_grant broker.access_grant;
    v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM broker.check_clock(ARRAY[p_id]);
    SELECT g.* INTO v_grant FROM broker.access_grant AS g
    WHERE g.grant_id = p_grant AND g.agent = p_agent FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF v_grant.revoke_time IS NULL THEN
        UPDATE broker.access_grant AS g SET revoke_time = v_now WHERE g.grant_id = p_grant;
        INSERT INTO broker.ledger_event VALUES (
            p_id, 'revoke', v_now, p_agent, p_tool, p_grant, p_trace, v_grant.customer_pseudonym,
            v_grant.ticket_pseudonym, 'done', '', v_grant.policy_version, broker.leaf(p_head, 'done', '', v_now)
        );
    END IF;
    RETURN QUERY SELECT coalesce(v_grant.revoke_time, v_now);
END
$$;

-- What became of events whose commit answered with an error.
CREATE FUNCTION broker.read_back(p_ids uuid []) RETURNS TABLE (id uuid, reason text, leaf bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT e.id, e.reason, e.leaf FROM broker.ledger_event AS e WHERE e.id = ANY (p_ids)
$$;

-- An agent's own event, to explain a denial to them.
CREATE FUNCTION broker.own_event(p_id uuid, p_agent text) RETURNS TABLE (leaf bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT e.leaf FROM broker.ledger_event AS e WHERE e.id = p_id AND e.agent = p_agent AND p_agent <> ''
$$;

-- Whether an agent is suspended now.
CREATE FUNCTION broker.is_suspended(p_agent text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT EXISTS (SELECT FROM broker.agent_suspension AS x WHERE x.agent = p_agent AND x.end_time IS NULL)
$$;

-- Suspends an agent; answers the suspension in force.
CREATE FUNCTION broker.suspend_agent(p_agent text, p_reason text, p_by text) RETURNS broker.agent_suspension
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_row broker.agent_suspension;
BEGIN
    INSERT INTO broker.agent_suspension (agent, reason, suspended_by) VALUES (p_agent, p_reason, p_by)
    ON CONFLICT (agent) WHERE end_time IS NULL DO NOTHING;
    SELECT s.* INTO STRICT v_row FROM broker.agent_suspension AS s WHERE s.agent = p_agent AND s.end_time IS NULL;
    RETURN v_row;
END
$$;

-- Ends an agent's suspension; answers when, NULL where there was none.
CREATE FUNCTION broker.reinstate_agent(p_agent text) RETURNS timestamptz
LANGUAGE sql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    UPDATE broker.agent_suspension SET end_time = clock_timestamp()
    WHERE agent = p_agent AND end_time IS NULL RETURNING end_time
$$;

-- Revokes live grants by exactly one selector; answers how many.
CREATE FUNCTION broker.revoke_grants(p_agent text, p_ticket text, p_grant uuid) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_count bigint;
BEGIN
    IF num_nonnulls(p_agent, p_ticket, p_grant) <> 1 THEN
        RAISE EXCEPTION 'exactly one selector' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    UPDATE broker.access_grant AS g SET revoke_time = clock_timestamp()
    WHERE
        g.revoke_time IS NULL AND g.expire_time > clock_timestamp()
        AND (p_agent IS NULL OR g.agent = p_agent)
        AND (p_ticket IS NULL OR g.ticket_id = p_ticket)
        AND (p_grant IS NULL OR g.grant_id = p_grant);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

-- Forgets what no decision needs any more: grants a week after their end, budget rows after two days.
-- At most `p_most` of each, so that one call stays short whatever has gathered; answers how many.
CREATE FUNCTION broker.purge(p_most integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_grants bigint;
    v_uses bigint;
BEGIN
    DELETE FROM broker.access_grant WHERE grant_id = ANY (ARRAY(
        SELECT g.grant_id FROM broker.access_grant AS g
        WHERE g.expire_time < clock_timestamp() - interval '7 days' LIMIT p_most
    ));
    GET DIAGNOSTICS v_grants = ROW_COUNT;
    DELETE FROM broker.budget_use WHERE ctid = ANY (ARRAY(
        SELECT u.ctid FROM broker.budget_use AS u
        WHERE u.last_time < clock_timestamp() - interval '2 days' LIMIT p_most
    )) AND last_time < clock_timestamp() - interval '2 days';
    GET DIAGNOSTICS v_uses = ROW_COUNT;
    RETURN v_grants + v_uses;
END
$$;

SELECT broker.ensure_partitions();

REVOKE ALL ON ALL TABLES IN SCHEMA broker FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA broker FROM PUBLIC;
GRANT USAGE ON SCHEMA broker TO broker_access, broker_admin, broker_feed, broker_auditor;
GRANT EXECUTE ON FUNCTION
    broker.append_reads, broker.append_events, broker.create_grant, broker.open_grant, broker.grant_status,
    broker.revoke_own_grant, broker.read_back, broker.own_event, broker.partitions_ready,
    broker.is_suspended
TO broker_access;
GRANT EXECUTE ON FUNCTION
    broker.append_admin_events, broker.read_back, broker.suspend_agent, broker.reinstate_agent, broker.revoke_grants,
    broker.ensure_partitions, broker.partitions_ready, broker.purge
TO broker_admin;
-- Where the records live in this database, too, the reader appends and reads in one statement. What it
-- gains is a way to write reads into the ledger, each on a grant that the agent it names has or had.
GRANT USAGE ON SCHEMA broker TO broker_reader;
GRANT EXECUTE ON FUNCTION broker.append_reads TO broker_reader;
GRANT EXECUTE ON FUNCTION broker.append_auditor_events TO broker_auditor;
GRANT SELECT ON broker.agent_suspension TO broker_admin, broker_auditor;
GRANT SELECT ON broker.ledger_event TO broker_auditor;
