-- A statement about missing events keeps the leaf of its own event: by its place in the tree it is known when the
-- statement was made, also after that event was itself pruned.

ALTER TABLE broker.tlog_statement ADD COLUMN leaf bytea; -- NULL -> of an older release, and not believed

-- Puts a signed statement beside the event that tells of it.
CREATE OR REPLACE FUNCTION broker.tlog_state(p_event uuid, p_note text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    INSERT INTO broker.tlog_statement (event_id, note, leaf)
    SELECT e.id, p_note, e.leaf FROM broker.ledger_event AS e WHERE e.id = p_event
$$;
