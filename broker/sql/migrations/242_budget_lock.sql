-- Serialises what may grow one agent's budget use, on every replica, until the transaction ends.
--
-- In a class of its own ("brob"): in that of 030 the sequencer, the walkers and the partitions hold small numbers for
-- long, and an agent whose name hashes to one of them could neither be granted nor read anything. Who is just being
-- charged by the old lock while this commits is not waited for: once, by one customer, a budget may be overshot.
CREATE OR REPLACE FUNCTION broker.lock_budget(p_agent text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(1651666786, hashtext(p_agent))
$$;
