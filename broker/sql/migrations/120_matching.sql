-- Identifiers of complainants become pseudonyms in the records database, and only behind a query on record.
--
-- The auditor's tool brings a pass of broker.match_pass there, which this function gives for a committed
-- 'auditor_query' event alone; the guard's keys, which both databases hold, sign it. Which customer a ticket is
-- about goes sealed from here to there, so it is never seen by whoever carries it.

-- HMAC-SHA-256 of a text under a guard key.
CREATE FUNCTION broker.guard_mac(p_key broker.guard_key, p_text text) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = broker, pg_temp AS $$
    SELECT sha256(p_key.outer_pad || sha256(p_key.inner_pad || convert_to(p_text, 'UTF8')))
$$;

-- XORs 288 bytes (a customer has 255 at most) with a key stream that is used once: the nonce is fresh for each pass.
CREATE FUNCTION broker.seal(p_key broker.guard_key, p_nonce text, p_text text) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = broker, pg_temp AS $$
DECLARE
    v_bytes bytea := convert_to(p_text, 'UTF8');
    v_stream bytea := '';
BEGIN
    v_bytes := v_bytes || decode(repeat('00', 288 - octet_length(v_bytes)), 'hex');
    FOR i IN 0..8 LOOP
        v_stream := v_stream || broker.guard_mac(p_key, concat_ws('|', 'seal', p_nonce, i));
    END LOOP;
    FOR i IN 0..287 LOOP
        v_bytes := set_byte(v_bytes, i, get_byte(v_bytes, i) # get_byte(v_stream, i));
    END LOOP;
    RETURN v_bytes;
END
$$;

-- Lets the auditor who put a query on record match its identifiers, for ten minutes and as many as it says.
--
-- p_tickets: ticket numbers among them; each comes back sealed, its customer inside, or nothing where it is
-- unknown or about several. From outside all look the same.
CREATE FUNCTION broker.match_pass(p_event uuid, p_tickets text []) RETURNS TABLE (pass text, sealed text [])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_key broker.guard_key;
    v_leaf bytea;
    v_brought bigint;
    v_next bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    v_lines integer;
    v_nonce uuid := gen_random_uuid();
    v_body text;
BEGIN
    SELECT e.leaf, e.xmin::text::bigint INTO v_leaf, v_brought FROM broker.ledger_event AS e
    WHERE
        e.id = p_event AND e.kind = 'auditor_query'
        AND e.id > broker.uuid7_floor(clock_timestamp() - interval '10 minutes');
    -- Committed, or it could be taken back when the answer is here: xmin in full, with the high half it lacks.
    v_brought := (v_next >> 32 << 32) + v_brought;
    IF v_brought >= v_next AND v_brought > 4294967296 THEN
        v_brought := v_brought - 4294967296;
    END IF;
    IF v_leaf IS NULL OR pg_xact_status(v_brought::text::xid8) IS DISTINCT FROM 'committed' THEN
        RAISE EXCEPTION 'no such query on record' USING ERRCODE = 'insufficient_privilege';
    END IF;
    v_lines := (broker.leaf_detail(v_leaf) ->> 'identifiers')::integer;
    IF v_lines IS NULL OR coalesce(cardinality(p_tickets), 0) > v_lines THEN
        RAISE EXCEPTION 'more tickets than identifiers on record' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT k.* INTO v_key FROM broker.guard_key AS k ORDER BY k.create_time DESC, k.key_id DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no guard key; run: broker keys rotate' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    v_body := concat_ws(
        '|', 'match', v_key.key_id, p_event, v_nonce, v_lines, floor(extract(EPOCH FROM clock_timestamp()))::bigint + 600
    );
    RETURN QUERY SELECT
        v_body || '|' || encode(broker.guard_mac(v_key, v_body), 'hex'),
        ARRAY(
            SELECT encode(broker.seal(v_key, concat_ws('|', v_nonce, t.n), coalesce(c.customer, '')), 'hex')
            FROM unnest(p_tickets) WITH ORDINALITY AS t (ticket, n)
            LEFT JOIN LATERAL (
                SELECT min(l.customer_id) AS customer FROM broker.ticket_customer AS l
                WHERE l.ticket_id = t.ticket HAVING count(*) = 1
            ) AS c ON true
            ORDER BY t.n
        );
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA broker FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.match_pass TO broker_auditor;
