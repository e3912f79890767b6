-- A draft that decides beside the active policy on live traffic, without effect; its differences, counted.
--
-- Invariants:
--   * a shadow decides nothing: no function that decides, grants or appends reads these tables;
--   * at most one shadow runs; the one before it is kept to be looked at, older ones are forgotten;
--   * what the workers count is bounded, in rows and in the length of words; what finds no row is counted
--     as unlisted. No customer, ticket or agent is named in here.

CREATE TABLE broker.shadow_policy (
    shadow_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    files jsonb NOT NULL CHECK (jsonb_typeof(files) = 'object'),
    started_by text NOT NULL CHECK (started_by <> ''),
    start_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    end_time timestamptz, -- NULL: it runs
    compared bigint NOT NULL DEFAULT 0, -- uses of decisions that the shadow was held against
    differing bigint NOT NULL DEFAULT 0, -- those of them with at least one field that differs
    left_out bigint NOT NULL DEFAULT 0, -- uses that found no place in a worker's memory
    unlisted bigint NOT NULL DEFAULT 0, -- field differences that found no row below
    trouble text NOT NULL DEFAULT '' CHECK (length(trouble) <= 200), -- why a worker cannot run it; its last word
    count_time timestamptz -- when a worker last reported
);
CREATE UNIQUE INDEX shadow_policy_one_runs ON broker.shadow_policy ((true)) WHERE end_time IS NULL;
COMMENT ON TABLE broker.shadow_policy IS 'The draft that runs as shadow, and the one before it.';

CREATE TABLE broker.shadow_difference (
    shadow_id bigint NOT NULL REFERENCES broker.shadow_policy ON DELETE CASCADE,
    field text NOT NULL CHECK (length(field) <= 200),
    active text NOT NULL CHECK (active IN ('withheld', 'masked', 'clear')),
    shadow text NOT NULL CHECK (shadow IN ('withheld', 'masked', 'clear', 'unknown')), -- unknown: no such field
    roles text NOT NULL CHECK (length(roles) <= 500), -- those of then, as `billing+tier1`
    ticket_kind text NOT NULL CHECK (length(ticket_kind) <= 200),
    purpose text NOT NULL CHECK (length(purpose) <= 200),
    uses bigint NOT NULL,
    facts text NOT NULL CHECK (length(facts) <= 1000), -- JSON: the facts of the first one
    first_time timestamptz NOT NULL,
    last_time timestamptz NOT NULL,
    PRIMARY KEY (shadow_id, field, active, shadow, roles, ticket_kind, purpose)
);
COMMENT ON TABLE broker.shadow_difference IS 'Where a shadow decides otherwise, by class, with how often.';

-- Lets a draft run as shadow in place of the one that runs; gives its id.
CREATE FUNCTION broker.start_shadow(p_files jsonb, p_digest text, p_by text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_id bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1651666795, 85); -- "brok", migration 085
    DELETE FROM shadow_policy WHERE end_time IS NOT NULL;
    UPDATE shadow_policy SET end_time = clock_timestamp() WHERE end_time IS NULL;
    INSERT INTO shadow_policy (digest, files, started_by) VALUES (p_digest, p_files, p_by)
    RETURNING shadow_id INTO v_id;
    PERFORM pg_notify('broker_shadow', v_id::text);
    RETURN v_id;
END
$$;

-- Ends the shadow that runs; gives its digest, NULL where none did.
CREATE FUNCTION broker.stop_shadow() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_digest text;
BEGIN
    PERFORM pg_advisory_xact_lock(1651666795, 85);
    UPDATE shadow_policy SET end_time = clock_timestamp() WHERE end_time IS NULL
    RETURNING digest INTO v_digest;
    PERFORM pg_notify('broker_shadow', '');
    RETURN v_digest;
END
$$;

-- Adds what one worker counted; nothing where the shadow has ended. One row per class of difference, at
-- most p_most of them.
CREATE FUNCTION broker.count_shadow(
    p_shadow bigint, p_compared bigint, p_differing bigint, p_left_out bigint, p_unlisted bigint, p_trouble text,
    p_fields text [], p_actives text [], p_shadows text [], p_roles text [], p_kinds text [],
    p_purposes text [], p_uses bigint [], p_facts text [], p_most integer
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_unlisted bigint;
BEGIN
    -- The row's lock is the turn: workers do not meet in the table below.
    UPDATE shadow_policy SET
        compared = compared + p_compared,
        differing = differing + p_differing,
        left_out = left_out + p_left_out,
        unlisted = unlisted + p_unlisted,
        trouble = CASE WHEN p_trouble = '' THEN trouble ELSE left(p_trouble, 200) END,
        count_time = v_now
    WHERE shadow_id = p_shadow AND end_time IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    WITH asked AS (
        SELECT u.*, row_number() OVER () AS place, d.shadow_id IS NOT NULL AS known
        FROM unnest(p_fields, p_actives, p_shadows, p_roles, p_kinds, p_purposes, p_uses, p_facts)
            AS u (field, active, shadow, roles, ticket_kind, purpose, uses, facts)
        LEFT JOIN shadow_difference AS d ON
            d.shadow_id = p_shadow AND d.field = u.field AND d.active = u.active AND d.shadow = u.shadow
            AND d.roles = u.roles AND d.ticket_kind = u.ticket_kind AND d.purpose = u.purpose
    ),
    room AS (SELECT p_most - count(*) AS rows FROM shadow_difference WHERE shadow_id = p_shadow),
    taken AS (
        INSERT INTO shadow_difference AS d
        SELECT
            p_shadow, a.field, a.active, a.shadow, a.roles, a.ticket_kind, a.purpose, a.uses, a.facts, v_now, v_now
        FROM asked AS a
        CROSS JOIN room
        WHERE a.known OR (SELECT count(*) FROM asked AS b WHERE NOT b.known AND b.place <= a.place) <= room.rows
        ON CONFLICT (shadow_id, field, active, shadow, roles, ticket_kind, purpose) DO UPDATE SET
            uses = d.uses + excluded.uses, last_time = excluded.last_time
        RETURNING d.field, d.active, d.shadow, d.roles, d.ticket_kind, d.purpose
    )
    SELECT coalesce(sum(a.uses), 0) INTO v_unlisted
    FROM asked AS a
    LEFT JOIN taken AS t USING (field, active, shadow, roles, ticket_kind, purpose)
    WHERE t.field IS NULL;
    UPDATE shadow_policy SET unlisted = unlisted + v_unlisted WHERE shadow_id = p_shadow AND v_unlisted > 0;
    RETURN true;
END
$$;

REVOKE ALL ON broker.shadow_policy, broker.shadow_difference FROM PUBLIC;
REVOKE ALL ON FUNCTION
    broker.start_shadow(jsonb, text, text),
    broker.stop_shadow(),
    broker.count_shadow(
        bigint, bigint, bigint, bigint, bigint, text, text [], text [], text [], text [], text [], text [], bigint [],
        text [], integer
    )
FROM PUBLIC;
GRANT SELECT ON broker.shadow_policy, broker.shadow_difference TO broker_admin, broker_auditor;
GRANT SELECT (shadow_id, digest, files, end_time) ON broker.shadow_policy TO broker_access;
GRANT EXECUTE ON FUNCTION broker.start_shadow(jsonb, text, text), broker.stop_shadow() TO broker_admin;
GRANT EXECUTE ON FUNCTION broker.count_shadow(
    bigint, bigint, bigint, bigint, bigint, text, text [], text [], text [], text [], text [], text [], bigint [],
    text [], integer
) TO broker_access;
