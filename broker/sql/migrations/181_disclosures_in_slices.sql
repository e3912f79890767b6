-- The second look of the index over released reads goes in slices: a transaction that is under way for hours, anywhere
-- in the cluster, leaves millions of events to look at again, and no statement has time for them all.
--
-- The places of 120 mean a little less: up to `settled_time` nothing can come any more, and up to `settled_id` the
-- second look has come, which is behind it only while slices are left. Between settled_id and seen_id somebody may
-- still commit; a question that leaves nothing out looks there itself (broker.look_again), a slice a statement.

-- Looks once more at the next events that an open transaction may have brought: those behind p_after, up to p_upto.
-- The first call gives neither. Where `reached` is `upto`, everything that had been committed when the first look
-- at those ids was over is in the index.
CREATE FUNCTION broker.look_again(
    p_most integer, p_after uuid, p_upto uuid, OUT taken bigint, OUT reached uuid, OUT upto uuid
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_place broker.disclosure_place;
    v_after uuid;
BEGIN
    IF p_most NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION 'from 1 to 100000 events' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT p.* INTO STRICT v_place FROM broker.disclosure_place AS p FOR UPDATE;
    -- What others settled meanwhile needs no third look; beyond what was seen the walk looks for the first time.
    upto := least(p_upto, v_place.seen_id);
    v_after := least(upto, greatest(p_after, v_place.settled_id));
    reached := broker.slice_end(v_after, upto, p_most);
    taken := broker.take_disclosures(v_after, reached);
END
$$;

-- The end of the next so many events behind one id: that of the last of them, or p_upto where there are fewer.
CREATE FUNCTION broker.slice_end(p_after uuid, p_upto uuid, p_most integer) RETURNS uuid
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((
        SELECT e.id FROM broker.ledger_event AS e
        WHERE e.id > p_after AND e.id < p_upto ORDER BY e.id OFFSET p_most - 1 LIMIT 1
    ), p_upto);
END
$$;

-- As in 120, but for the slices: p_most bounds the second look like the first.
--
-- Args: p_most, how many events at most, of either look; p_exact, leave out nothing that is committed now, however
-- long it takes: for a release that does not know broker.look_again yet.
CREATE OR REPLACE FUNCTION broker.index_disclosures(
    p_most integer DEFAULT 5000, p_exact boolean DEFAULT false, OUT scanned bigint, OUT taken bigint, OUT caught_up boolean
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_now timestamptz := clock_timestamp(); -- before our own number is drawn
    v_own xid8;
    v_oldest xid8;
    v_place broker.disclosure_place;
    v_settled timestamptz;
    v_final uuid; -- up to here nothing can come any more
    v_reached uuid;
    v_last uuid;
BEGIN
    IF p_most NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION 'from 1 to 100000 events' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT p.* INTO STRICT v_place FROM broker.disclosure_place AS p FOR UPDATE;
    v_own := pg_current_xact_id();
    v_oldest := pg_snapshot_xmin(pg_current_snapshot());
    -- A clock that was set back: ids come again from where it is now.
    v_settled := least(v_place.settled_time, v_now);
    IF v_oldest >= v_own THEN
        v_settled := v_now;
        v_place.probe_xid := NULL;
    ELSE
        IF v_oldest >= v_place.probe_xid THEN
            v_settled := greatest(v_settled, least(v_place.probe_time, v_now));
            v_place.probe_xid := NULL;
        END IF;
        IF v_place.probe_xid IS NULL THEN -- somebody older is still under way: ask again when they are through
            v_place.probe_xid := v_own;
            v_place.probe_time := v_now;
        END IF;
    END IF;
    -- Every ten seconds is often enough; what is left of a second look goes on at once.
    IF v_settled > v_place.settled_time + interval '10 seconds' OR v_settled < v_place.settled_time THEN
        v_place.settled_time := v_settled;
    END IF;
    -- Ids may be a minute off the clock they were checked against.
    v_final := broker.uuid7_floor(
        greatest(v_place.settled_time, timestamptz 'epoch' + interval '1 minute') - interval '1 minute');

    taken := 0;
    v_place.settled_id := least(v_place.settled_id, v_final);
    v_reached := v_place.settled_id;
    IF p_exact THEN
        v_reached := v_place.seen_id;
    ELSIF v_reached < least(v_place.seen_id, v_final) THEN
        v_reached := broker.slice_end(v_reached, least(v_place.seen_id, v_final), p_most);
    END IF;
    IF v_reached > v_place.settled_id THEN
        taken := broker.take_disclosures(v_place.settled_id, v_reached);
        v_place.settled_id := least(v_reached, v_final);
    END IF;

    SELECT count(*), (array_agg(n.id ORDER BY n.id DESC))[1] INTO scanned, v_last
    FROM (SELECT e.id FROM broker.ledger_event AS e WHERE e.id > v_place.seen_id ORDER BY e.id LIMIT p_most) AS n;
    IF scanned > 0 THEN
        taken := taken + broker.take_disclosures(v_place.seen_id, v_last);
        -- What can come no more when it is first looked at needs no second look.
        IF v_place.settled_id = v_place.seen_id THEN
            v_place.settled_id := greatest(v_place.settled_id, least(v_last, v_final));
        END IF;
        v_place.seen_id := v_last;
    END IF;
    caught_up := scanned < p_most;
    UPDATE broker.disclosure_place SET
        settled_id = v_place.settled_id, seen_id = v_place.seen_id, settled_time = v_place.settled_time,
        probe_xid = v_place.probe_xid, probe_time = v_place.probe_time;
END
$$;

REVOKE ALL ON FUNCTION broker.look_again, broker.slice_end FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.look_again TO broker_admin, broker_auditor;
