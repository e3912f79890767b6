-- A proposal that has ended stays as it ended, and proposals that wait neither keep an emergency nor others out.
--
-- Invariants:
--   * what expired before another version came into force has expired, for ever; what was overtaken first, was;
--   * only what waits is rejected or withdrawn;
--   * nobody alone fills the list of those that wait, and what its author publishes alone does not wait.

CREATE OR REPLACE VIEW broker.policy_proposal_state AS
SELECT
    p.proposal_id,
    CASE
        WHEN e.outcome IS NOT NULL THEN e.outcome
        WHEN p.expire_time <= clock_timestamp() AND NOT EXISTS (
            SELECT FROM broker.policy_version AS v
            WHERE v.version > p.base_version AND v.create_time < p.expire_time
        ) THEN 'expired'
        WHEN p.base_version IS DISTINCT FROM (SELECT a.version FROM broker.policy_active AS a) THEN 'overtaken'
        WHEN p.expire_time <= clock_timestamp() THEN 'expired'
        ELSE 'open'
    END AS state,
    e.person,
    e.console,
    e.reason,
    e.version,
    e.end_time
FROM broker.policy_proposal AS p
LEFT JOIN broker.policy_proposal_end AS e USING (proposal_id);

-- As propose_policy of migration 080, which the release before this one calls. With p_alone the caller publishes it in
-- the same transaction, so nobody's room is taken; else it gives 'full', too, where too many of the author's wait.
CREATE FUNCTION broker.propose_policy(
    p_id uuid, p_base bigint, p_restores bigint, p_digest text, p_files_digest text, p_files jsonb,
    p_tests_digest text, p_tests jsonb, p_author text, p_console text, p_reason text, p_widens boolean, p_report jsonb,
    p_seconds double precision, p_most integer, p_most_of_author integer, p_alone boolean
) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = broker, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1651666795, 20);
    IF NOT p_alone AND p_most_of_author <= (
        SELECT count(*)
        FROM policy_proposal_state AS s
        JOIN policy_proposal AS p USING (proposal_id)
        WHERE s.state = 'open' AND broker.person_key(p.author) = broker.person_key(p_author)
    ) THEN
        RETURN 'full';
    END IF;
    RETURN broker.propose_policy(
        p_id, p_base, p_restores, p_digest, p_files_digest, p_files, p_tests_digest, p_tests, p_author, p_console,
        p_reason, p_widens, p_report, p_seconds, CASE WHEN p_alone THEN NULL ELSE p_most END
    );
END
$$;

-- Ends a proposal that waits, without publishing it; gives 'ok', or why not. Only its author withdraws.
CREATE OR REPLACE FUNCTION broker.end_policy_proposal(
    p_id uuid, p_outcome text, p_person text, p_console text, p_reason text
) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = broker, pg_temp
AS $$
DECLARE
    v_author text;
    v_state text;
BEGIN
    PERFORM pg_advisory_xact_lock(1651666795, 20);
    SELECT p.author INTO v_author FROM policy_proposal AS p WHERE p.proposal_id = p_id;
    SELECT s.state INTO v_state FROM policy_proposal_state AS s WHERE s.proposal_id = p_id;
    IF v_author IS NULL THEN
        RETURN 'unknown';
    ELSIF v_state <> 'open' THEN
        RETURN v_state;
    ELSIF p_outcome NOT IN ('rejected', 'withdrawn') THEN
        RAISE EXCEPTION 'a proposal ends by publish_policy or is rejected or withdrawn' USING ERRCODE = 'BK080';
    ELSIF p_outcome = 'withdrawn' AND broker.person_key(v_author) <> broker.person_key(p_person) THEN
        RETURN 'not-author';
    END IF;
    INSERT INTO policy_proposal_end (proposal_id, outcome, person, console, reason)
    VALUES (p_id, p_outcome, p_person, p_console, p_reason);
    RETURN 'ok';
END
$$;

REVOKE ALL ON FUNCTION broker.propose_policy(
    uuid, bigint, bigint, text, text, jsonb, text, jsonb, text, text, text, boolean, jsonb, double precision, integer,
    integer, boolean
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION broker.propose_policy(
    uuid, bigint, bigint, text, text, jsonb, text, jsonb, text, text, text, boolean, jsonb, double precision, integer,
    integer, boolean
) TO broker_admin;
