-- Passes for what is on record say for whom, not only for how many.
--
-- Invariants:
--   * a pass of ResolvePseudonyms opens the one list whose digest its event tells;
--   * what match_pass seals is digested in the pass: nothing else can be put in its place;
--   * an event that says less than that gives no pass.
--
-- The guard in the records database checks both from this release on: `broker records install` after this.

-- The key that signs now.
CREATE FUNCTION broker.signing_guard_key() RETURNS broker.guard_key
LANGUAGE plpgsql STABLE SET search_path = broker, pg_temp AS $$
DECLARE
    v_key broker.guard_key;
BEGIN
    SELECT k.* INTO v_key FROM broker.guard_key AS k ORDER BY k.create_time DESC, k.key_id DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no guard key; run: broker keys rotate' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN v_key;
END
$$;

-- A pass for ten minutes: what it is for, its end, and their MAC.
CREATE FUNCTION broker.pass_of(p_key broker.guard_key, VARIADIC p_parts text []) RETURNS text
LANGUAGE sql STABLE SET search_path = broker, pg_temp AS $$
    SELECT b.body || '|' || encode(broker.guard_mac(p_key, b.body), 'hex')
    FROM (
        SELECT array_to_string(
            p_parts || floor(extract(EPOCH FROM clock_timestamp()) + 600)::bigint::text, '|'
        ) AS body
    ) AS b
$$;

-- As in 120, and the pass is for what it seals alone.
CREATE OR REPLACE FUNCTION broker.match_pass(p_event uuid, p_tickets text []) RETURNS TABLE (pass text, sealed text [])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_key broker.guard_key;
    v_lines text;
    v_nonce text := gen_random_uuid()::text;
    v_sealed text [];
BEGIN
    SELECT broker.leaf_detail(e.leaf) ->> 'identifiers' INTO v_lines FROM broker.ledger_event AS e WHERE e.id = p_event;
    IF v_lines IS NULL OR NOT broker.on_record(p_event, 'auditor_query', 'identifiers', v_lines) THEN
        RAISE EXCEPTION 'no such query on record' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF coalesce(cardinality(p_tickets), 0) > v_lines::integer THEN
        RAISE EXCEPTION 'more tickets than identifiers on record' USING ERRCODE = 'insufficient_privilege';
    END IF;
    v_key := broker.signing_guard_key();
    v_sealed := ARRAY(
        SELECT encode(broker.seal(v_key, concat_ws('|', v_nonce, t.n), coalesce(c.customer, '')), 'hex')
        FROM unnest(p_tickets) WITH ORDINALITY AS t (ticket, n)
        LEFT JOIN LATERAL (
            SELECT min(l.customer_id) AS customer FROM broker.ticket_customer AS l
            WHERE l.ticket_id = t.ticket HAVING count(*) = 1
        ) AS c ON true
        ORDER BY t.n
    );
    RETURN QUERY SELECT
        broker.pass_of(
            v_key, 'match', v_key.key_id, p_event::text, v_nonce, v_lines,
            encode(sha256(convert_to(array_to_string(v_sealed, ','), 'UTF8')), 'hex')
        ),
        v_sealed;
END
$$;

-- As in 130, and ResolvePseudonyms is for the pseudonyms that its event digests.
CREATE OR REPLACE FUNCTION broker.admin_pass(p_event uuid, p_call text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_key broker.guard_key;
    v_subject text;
BEGIN
    IF p_call NOT IN ('ResolvePseudonyms', 'EraseCustomer') OR NOT broker.on_record(p_event, 'admin', 'call', p_call) THEN
        RAISE EXCEPTION 'no such call on record' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT
        CASE p_call
            WHEN 'EraseCustomer' THEN e.customer_pseudonym
            ELSE (d.detail ->> 'pseudonyms') || '|' || (d.detail ->> 'digest')
        END
    INTO v_subject
    FROM broker.ledger_event AS e CROSS JOIN LATERAL (SELECT broker.leaf_detail(e.leaf) AS detail) AS d
    WHERE e.id = p_event;
    IF coalesce(v_subject, '') = '' THEN
        RAISE EXCEPTION 'the event says nothing to do' USING ERRCODE = 'insufficient_privilege';
    END IF;
    v_key := broker.signing_guard_key();
    RETURN broker.pass_of(v_key, p_call, v_key.key_id, p_event::text, v_subject);
END
$$;

REVOKE ALL ON FUNCTION broker.signing_guard_key, broker.pass_of FROM PUBLIC;
