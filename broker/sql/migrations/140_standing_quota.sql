-- How often a day auditors may ask who had access to a customer: a key per question, or one question on record would
-- open every customer's tickets for ten minutes to whoever holds the auditor's DSN.
--
-- The questions' own command asks the records database first, which has a cap of the same size.

-- Day * 1,000,000 + how many on it. A sequence, because a transaction that is rolled back gives nothing of it back.
CREATE SEQUENCE broker.standing_quota;

ALTER FUNCTION broker.standing_at(uuid, text, timestamptz) RENAME TO standing_then;

-- As broker.standing_then, 2000 times on one day (UTC), for all auditors together.
CREATE FUNCTION broker.standing_at(p_question uuid, p_customer text, p_time timestamptz) RETURNS TABLE (
    ticket_id text, status text, kind text, opened_by text, agent text, relation text, provenance text,
    since timestamptz, suspended boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_today bigint := floor(extract(EPOCH FROM clock_timestamp()) / 86400)::bigint * 1000000;
    v_used bigint;
BEGIN
    -- One after the other: two who looked at once would both see room.
    PERFORM pg_advisory_xact_lock(1651666795, 140); -- "brok", migration 140
    SELECT greatest(q.last_value, v_today) INTO v_used FROM broker.standing_quota AS q;
    IF v_used - v_today >= 2000 THEN
        RAISE EXCEPTION 'the questions of today are used up' USING ERRCODE = 'BK140';
    END IF;
    PERFORM setval('broker.standing_quota', v_used + 1);
    RETURN QUERY SELECT * FROM broker.standing_then(p_question, p_customer, p_time);
END
$$;

REVOKE ALL ON SEQUENCE broker.standing_quota FROM PUBLIC;
REVOKE ALL ON FUNCTION broker.standing_then(uuid, text, timestamptz) FROM broker_auditor;
REVOKE ALL ON FUNCTION broker.standing_at(uuid, text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.standing_at(uuid, text, timestamptz) TO broker_auditor;
