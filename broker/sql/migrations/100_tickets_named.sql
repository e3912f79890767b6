-- A ticket's pseudonyms by its own id, for an auditor who was told the ticket: those of its grants that are still
-- kept (a week after their end). A ticket of several customers has a pseudonym with each.

CREATE FUNCTION broker.ticket_pseudonyms(p_ticket text) RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = broker, pg_temp AS $$
    SELECT DISTINCT g.ticket_pseudonym FROM broker.access_grant AS g WHERE g.ticket_id = p_ticket LIMIT 100
$$;

REVOKE ALL ON FUNCTION broker.ticket_pseudonyms FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.ticket_pseudonyms TO broker_auditor;
