-- Erasing a person in time, and past grants that are just being made.
--
-- The index is built while nobody can create a grant: a second for a million of them, and a week of grants is kept.
-- Migrations run in transactions, so it cannot be built beside the traffic here. Where that second is too long, run
--   CREATE INDEX CONCURRENTLY access_grant_customer ON broker.access_grant (customer_id);
-- before, as broker_owner; then this finds it there. (One that was interrupted is invalid: drop it first.)
CREATE INDEX IF NOT EXISTS access_grant_customer ON broker.access_grant (customer_id);

-- Refuses a grant whose ticket is not the customer's any more. create_grant looked at that before; but between its
-- look and its commit the customer may have been erased, and the grant would hold their key for a week. The lock is held until the commit: who erases waits for it.
-- To the caller the database is busy: asked again, the ticket is denied.
CREATE FUNCTION broker.check_grant_customer() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp SET enable_seqscan = off AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1651666789, hashtext(NEW.customer_id)); -- "broe"
    IF NOT EXISTS (
        SELECT FROM broker.ticket_customer AS c
        WHERE c.ticket_id = NEW.ticket_id AND c.customer_id = NEW.customer_id
    ) THEN
        RAISE EXCEPTION 'the ticket changed meanwhile' USING ERRCODE = 'lock_not_available';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER access_grant_customer_known BEFORE INSERT ON broker.access_grant
FOR EACH ROW EXECUTE FUNCTION broker.check_grant_customer();

-- As in 130; grants that are there go before anybody waits for us, those that are just being made when they are done.
CREATE OR REPLACE FUNCTION broker.erase_customer(
    p_customer text, OUT live_grants bigint, OUT grants bigint, OUT tickets bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_tickets text [];
    v_live bigint;
    v_grants bigint;
BEGIN
    SELECT g.live, g.dropped INTO live_grants, grants FROM broker.drop_grants(p_customer) AS g;
    -- Writers of tickets wait until we are through; readers never.
    LOCK TABLE broker.feed IN SHARE ROW EXCLUSIVE MODE;
    -- Behind this lock no grant is under way, and who wants to store one finds no link when we are through.
    PERFORM pg_advisory_xact_lock(1651666789, hashtext(p_customer));
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
    SELECT g.live, g.dropped INTO v_live, v_grants FROM broker.drop_grants(p_customer) AS g;
    live_grants := live_grants + v_live;
    grants := grants + v_grants;
    tickets := cardinality(v_tickets);
END
$$;

-- Deletes a customer's grants: each holds their key, in its pass, too.
CREATE FUNCTION broker.drop_grants(p_customer text, OUT live bigint, OUT dropped bigint)
LANGUAGE plpgsql SET search_path = broker, pg_temp SET enable_seqscan = off AS $$
BEGIN
    WITH gone AS (
        DELETE FROM broker.access_grant AS g WHERE g.customer_id = p_customer
        RETURNING g.revoke_time IS NULL AND g.expire_time > clock_timestamp() AS live
    )
    SELECT count(*) FILTER (WHERE g.live), count(*) INTO live, dropped FROM gone AS g;
END
$$;

REVOKE ALL ON FUNCTION broker.check_grant_customer, broker.drop_grants FROM PUBLIC;
