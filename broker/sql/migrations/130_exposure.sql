-- One agent's disclosures are read from their index alone: an agent's hundred thousand lie on as many pages of the
-- table. Costs the walker some bytes a read, off the append's path.
DROP INDEX broker.disclosure_agent;
CREATE INDEX disclosure_agent ON broker.disclosure (agent_id, event_id)
INCLUDE (customer, ticket, read_time, tool_id, fields_id, ground_id, narrowed);
