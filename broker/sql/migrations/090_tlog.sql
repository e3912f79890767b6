-- The transparency log: which event is which leaf of the tree, and the head that is signed.
-- The mathematics, the keys and the published copy are outside (broker/tlog): the administrator of this
-- database is one of the adversaries, so nothing here is believed by `broker audit verify`.

-- One row a leaf, for ever: partitions of the ledger may be dropped, the tree never shrinks.
CREATE TABLE broker.ledger_tree (
    seq bigint PRIMARY KEY CHECK (seq >= 0), -- the leaf's index
    event_id uuid UNIQUE, -- NULL -> adopted from the published tiles after an accepted loss
    leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32)
);
CREATE TRIGGER ledger_tree_append_only BEFORE UPDATE OR DELETE ON broker.ledger_tree
FOR EACH ROW EXECUTE FUNCTION broker.refuse_change();
CREATE TRIGGER ledger_tree_no_truncate BEFORE TRUNCATE ON broker.ledger_tree
FOR EACH STATEMENT EXECUTE FUNCTION broker.refuse_change();

-- The newest checkpoint: swapped, never just written, so that of two sequencers one wins.
CREATE TABLE broker.tlog_head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    size bigint NOT NULL,
    root bytea NOT NULL,
    note text NOT NULL, -- the signed checkpoint, '' while the tree is empty
    low_id uuid NOT NULL, -- every event below is a leaf, or was never committed
    update_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO broker.tlog_head (size, root, note, low_id)
VALUES (0, sha256(''::bytea), '', '00000000-0000-0000-0000-000000000000');

-- Kept checkpoints: one a minute, and those that a witness cosigned.
CREATE TABLE broker.tlog_checkpoint (
    size bigint PRIMARY KEY,
    root bytea NOT NULL,
    note text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX tlog_checkpoint_time ON broker.tlog_checkpoint (create_time);

-- What the log's key signed about leaves without events: accepted losses and pruned partitions.
CREATE TABLE broker.tlog_statement (
    statement_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL UNIQUE, -- the event that tells of it
    note text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Off in normal times, when it costs nothing; on while the database is behind the published log, and then
-- nothing can be put on record by anybody, so nothing is disclosed.
CREATE FUNCTION broker.refuse_append() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is behind its published checkpoint' USING ERRCODE = 'BK003';
END
$$;
CREATE TRIGGER ledger_event_stopped BEFORE INSERT ON broker.ledger_event
FOR EACH STATEMENT EXECUTE FUNCTION broker.refuse_append();
ALTER TABLE broker.ledger_event DISABLE TRIGGER ledger_event_stopped;

-- Whether appends are stopped.
CREATE FUNCTION broker.appends_stopped() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT t.tgenabled <> 'D' FROM pg_catalog.pg_trigger AS t
    WHERE t.tgrelid = 'broker.ledger_event'::regclass AND t.tgname = 'ledger_event_stopped'
$$;

-- Stops every append, on every replica, from the next statement on.
CREATE FUNCTION broker.stop_appends() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
BEGIN
    ALTER TABLE broker.ledger_event ENABLE TRIGGER ledger_event_stopped;
END
$$;

-- Lets appends go on.
CREATE FUNCTION broker.resume_appends() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
BEGIN
    ALTER TABLE broker.ledger_event DISABLE TRIGGER ledger_event_stopped;
END
$$;

-- Events above an id that are no leaves yet, lowest ids first, with their hashes.
-- Both sides are walked along their indexes from p_after on, whatever the statistics say: the cost is that
-- of the window, not of the ledger.
CREATE FUNCTION broker.tlog_pending(p_after uuid, p_most integer) RETURNS TABLE (id uuid, leaf_hash bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = broker, pg_temp
SET plan_cache_mode = force_custom_plan SET enable_hashjoin = off SET enable_seqscan = off
SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT e.id, sha256('\x00'::bytea || e.leaf)
    FROM broker.ledger_event AS e
    WHERE
        e.id > p_after
        AND NOT EXISTS (
            SELECT FROM broker.ledger_tree AS t WHERE t.event_id = e.id AND t.event_id > p_after
        )
    ORDER BY e.id
    LIMIT p_most;
END
$$;

-- Makes events leaves and swaps the head, or does nothing and answers false where somebody else did first.
CREATE FUNCTION broker.tlog_integrate(
    p_size bigint, p_root bytea, p_ids uuid [], p_hashes bytea [], p_new_root bytea, p_note text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
DECLARE
    v_size bigint := p_size + cardinality(p_ids);
BEGIN
    -- The row's lock makes the second of two wait, and then find another size.
    UPDATE broker.tlog_head SET size = v_size, root = p_new_root, note = p_note, update_time = clock_timestamp()
    WHERE size = p_size AND root = p_root;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO broker.ledger_tree (seq, event_id, leaf_hash)
    SELECT p_size + u.ord - 1, u.id, u.hash
    FROM unnest(p_ids, p_hashes) WITH ORDINALITY AS u (id, hash, ord);
    INSERT INTO broker.tlog_checkpoint (size, root, note)
    SELECT v_size, p_new_root, p_note
    WHERE NOT EXISTS (
        SELECT FROM broker.tlog_checkpoint AS c WHERE c.create_time > clock_timestamp() - interval '1 minute'
    );
    RETURN true;
END
$$;

-- Remembers up to where every event is a leaf; never goes back.
CREATE FUNCTION broker.tlog_settle(p_size bigint, p_root bytea, p_low uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    UPDATE broker.tlog_head SET low_id = p_low WHERE size = p_size AND root = p_root AND low_id < p_low
$$;

-- The hashes of leaves p_from to p_to (without it), one behind the other; shorter where some are missing.
CREATE FUNCTION broker.tlog_hashes(p_from bigint, p_to bigint) RETURNS bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT coalesce(string_agg(t.leaf_hash, ''::bytea ORDER BY t.seq), ''::bytea)
    FROM broker.ledger_tree AS t WHERE t.seq >= p_from AND t.seq < p_to
$$;

-- Keeps a checkpoint with a witness's cosignature.
CREATE FUNCTION broker.tlog_keep(p_size bigint, p_root bytea, p_note text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    INSERT INTO broker.tlog_checkpoint AS c (size, root, note) VALUES (p_size, p_root, p_note)
    ON CONFLICT (size) DO UPDATE SET note = excluded.note
    WHERE c.root = excluded.root AND length(c.note) < length(excluded.note)
$$;

-- Puts a signed statement beside the event that tells of it.
CREATE FUNCTION broker.tlog_state(p_event uuid, p_note text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    INSERT INTO broker.tlog_statement (event_id, note) VALUES (p_event, p_note)
$$;

REVOKE ALL ON broker.ledger_tree, broker.tlog_head, broker.tlog_checkpoint, broker.tlog_statement FROM PUBLIC;
REVOKE ALL ON FUNCTION
    broker.refuse_append, broker.appends_stopped, broker.stop_appends, broker.resume_appends,
    broker.tlog_pending, broker.tlog_integrate, broker.tlog_settle, broker.tlog_hashes, broker.tlog_keep,
    broker.tlog_state
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.appends_stopped TO broker_access, broker_admin, broker_auditor;
GRANT EXECUTE ON FUNCTION
    broker.stop_appends, broker.resume_appends, broker.tlog_pending, broker.tlog_integrate, broker.tlog_settle,
    broker.tlog_hashes, broker.tlog_keep, broker.tlog_state
TO broker_admin;
GRANT SELECT ON broker.tlog_head TO broker_admin;
GRANT SELECT ON broker.ledger_tree, broker.tlog_head, broker.tlog_checkpoint, broker.tlog_statement
TO broker_auditor;
