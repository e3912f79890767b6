-- Erasing a person, and passes for what only the admin process may ask of the records database.
--
-- Invariants:
--   * a pass is given for an event that is committed, and for what that event says alone;
--   * after broker.erase_customer no table of this database holds the customer's key, nor a digest in which
--     it could be guessed; pseudonyms stay, which are nobody's once the salt is gone.

-- Lets the admin process do at the records database what an event of its own says: ResolvePseudonyms, for as
-- many as the event counts, or EraseCustomer, for the pseudonym that the event names. For ten minutes.
CREATE FUNCTION broker.admin_pass(p_event uuid, p_call text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_key broker.guard_key;
    v_subject text;
    v_body text;
BEGIN
    IF p_call NOT IN ('ResolvePseudonyms', 'EraseCustomer') OR NOT broker.on_record(p_event, 'admin', 'call', p_call) THEN
        RAISE EXCEPTION 'no such call on record' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT
        CASE p_call
            WHEN 'EraseCustomer' THEN e.customer_pseudonym
            ELSE broker.leaf_detail(e.leaf) ->> 'pseudonyms'
        END
    INTO v_subject FROM broker.ledger_event AS e WHERE e.id = p_event;
    IF coalesce(v_subject, '') = '' THEN
        RAISE EXCEPTION 'the event says nothing to do' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT k.* INTO v_key FROM broker.guard_key AS k ORDER BY k.create_time DESC, k.key_id DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no guard key; run: broker keys rotate' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    v_body := concat_ws(
        '|', p_call, v_key.key_id, p_event, v_subject, floor(extract(EPOCH FROM clock_timestamp()))::bigint + 600
    );
    RETURN v_body || '|' || encode(sha256(
        v_key.outer_pad || sha256(v_key.inner_pad || convert_to(v_body, 'UTF8'))
    ), 'hex');
END
$$;

-- Unlinks a customer from everything here; answers what there was. Safe to run again.
--
-- Grants go, live ones with the dead: each holds the customer's key, in its pass, too. Tickets stay, but forget
-- whom they were about, and the digests of the events that said so: who knew the rest of an event could try
-- customers until one fits. An event that is sent again then counts as superseded instead of as a duplicate.
CREATE FUNCTION broker.erase_customer(
    p_customer text, OUT live_grants bigint, OUT grants bigint, OUT tickets bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_tickets text [];
BEGIN
    -- Writers of tickets wait until we are through; readers never.
    LOCK TABLE broker.feed IN SHARE ROW EXCLUSIVE MODE;
    SELECT coalesce(array_agg(l.ticket_id), '{}') INTO v_tickets FROM (
        SELECT c.ticket_id FROM broker.ticket_customer AS c WHERE c.customer_id = p_customer
        UNION
        SELECT c.ticket_id FROM broker.ticket_customer_past AS c WHERE c.customer_id = p_customer
    ) AS l;
    DELETE FROM broker.ticket_customer AS c WHERE c.customer_id = p_customer;
    DELETE FROM broker.ticket_customer_past AS c WHERE c.customer_id = p_customer;
    -- What a decision rests on has changed, so none that was taken before is released.
    UPDATE broker.ticket AS t SET content_hash = '', facts_version = nextval('broker.facts_version')
    WHERE t.ticket_id = ANY (v_tickets);
    DELETE FROM broker.ticket_event AS e WHERE e.ticket_id = ANY (v_tickets);
    WITH gone AS (
        DELETE FROM broker.access_grant AS g WHERE g.customer_id = p_customer
        RETURNING g.revoke_time IS NULL AND g.expire_time > clock_timestamp() AS live
    )
    SELECT count(*) FILTER (WHERE g.live), count(*) INTO live_grants, grants FROM gone AS g;
    tickets := cardinality(v_tickets);
END
$$;

REVOKE ALL ON FUNCTION broker.admin_pass, broker.erase_customer FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.admin_pass, broker.erase_customer TO broker_admin;
