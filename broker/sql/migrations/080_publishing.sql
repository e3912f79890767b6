-- How a policy comes into force: somebody proposes it, somebody else approves it by its digest, and in the
-- transaction of the approval it is a signed version and the active one. Which version every worker has.
--
-- Invariants:
--   * no login role writes versions but through these functions, and they publish what was proposed;
--   * a proposal is written once, and ends once: the end is a row of its own, the first one wins;
--   * author and approver are two persons, unless the author alone publishes what was found to widen
--     nothing. Whether something widens the database cannot know: the admin process says so when it stores
--     the proposal, and the signature over the version is its word for it;
--   * a proposal is published on the version that it was made for, or not at all;
--   * version numbers are counted under a lock, so that the process can sign the number before it is stored.
-- What a superuser does here shows at the brokers: they check signature, digests and number.

ALTER TABLE broker.policy_version
ADD COLUMN how text CHECK (how IN ('first', 'approved', 'alone', 'break-glass')),
ADD COLUMN tests jsonb,
ADD COLUMN tests_digest text CHECK (tests_digest ~ '^[0-9a-f]{64}$'),
ADD COLUMN base_version bigint REFERENCES broker.policy_version,
ADD COLUMN proposal_id uuid UNIQUE,
ADD COLUMN author text,
ADD COLUMN approver text,
ADD COLUMN reason text,
ADD COLUMN signature text;
COMMENT ON COLUMN broker.policy_version.how IS 'How it came into force; NULL for a version that an older release loaded.';
COMMENT ON COLUMN broker.policy_version.tests IS 'File name -> text of the tests that came with the policy.';
COMMENT ON COLUMN broker.policy_version.author IS 'issuer|subject of the person who proposed it.';
COMMENT ON COLUMN broker.policy_version.approver IS 'issuer|subject of the person who approved it; NULL where nobody had to.';
COMMENT ON COLUMN broker.policy_version.signature IS 'JWS of typ broker-policy+jwt over number, digests and persons; brokers serve nothing without it.';

-- One spelling per person, as broker/model.py folds them; the process compares first and more strictly.
CREATE FUNCTION broker.person_key(p_person text) RETURNS text
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT rtrim(lower(normalize(btrim(split_part(p_person, '|', 1)), NFKC)), '/')
        || '|' || lower(normalize(btrim(substr(p_person, strpos(p_person, '|') + 1)), NFKC))
$$;

ALTER TABLE broker.policy_version
ADD CONSTRAINT policy_version_is_signed CHECK (
    how IS NOT NULL AND signature <> '' AND tests IS NOT NULL AND tests_digest IS NOT NULL
    AND signature IS NOT NULL
) NOT VALID,
ADD CONSTRAINT policy_version_has_two_persons CHECK (
    how IN ('first', 'break-glass')
    OR (how = 'alone' AND author IS NOT NULL AND approver IS NULL AND proposal_id IS NOT NULL)
    OR (
        how = 'approved' AND proposal_id IS NOT NULL AND author IS NOT NULL AND approver IS NOT NULL
        AND broker.person_key(author) <> broker.person_key(approver)
    )
) NOT VALID;

CREATE TABLE broker.policy_proposal (
    proposal_id uuid PRIMARY KEY,
    base_version bigint NOT NULL REFERENCES broker.policy_version,
    restores_version bigint REFERENCES broker.policy_version,
    digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    files_digest text NOT NULL CHECK (files_digest ~ '^[0-9a-f]{64}$'),
    files jsonb NOT NULL CHECK (
        jsonb_typeof(files) = 'object'
        AND files ?& ARRAY['model.conf', 'policy.csv', 'catalog.yaml', 'limits.yaml', 'admin.csv']
        AND files - ARRAY['model.conf', 'policy.csv', 'catalog.yaml', 'limits.yaml', 'admin.csv'] = '{}'
        AND NOT jsonb_path_exists(files, '$.* ? (@.type() != "string" || @ == "")')
    ),
    tests_digest text NOT NULL CHECK (tests_digest ~ '^[0-9a-f]{64}$'),
    tests jsonb NOT NULL CHECK (jsonb_typeof(tests) = 'object'),
    author text NOT NULL CHECK (author LIKE '_%|_%'),
    console text NOT NULL CHECK (console <> ''),
    reason text NOT NULL CHECK (reason <> ''),
    widens boolean NOT NULL,
    report jsonb NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    expire_time timestamptz NOT NULL
);
COMMENT ON TABLE broker.policy_proposal IS 'What somebody wants to be the policy; never changed.';
COMMENT ON COLUMN broker.policy_proposal.digest IS 'Hex SHA-256 over files and tests; an approver names it.';
COMMENT ON COLUMN broker.policy_proposal.base_version IS 'The version that was active; published on it or not at all.';
COMMENT ON COLUMN broker.policy_proposal.restores_version IS 'The version whose content this is, where it rolls back.';
COMMENT ON COLUMN broker.policy_proposal.widens IS 'Whether the admin process found that it widens anything, or could not tell.';
COMMENT ON COLUMN broker.policy_proposal.report IS 'Lint, tests, comparison and replay, as the approver reads them.';

CREATE TABLE broker.policy_proposal_end (
    proposal_id uuid PRIMARY KEY REFERENCES broker.policy_proposal,
    outcome text NOT NULL CHECK (outcome IN ('approved', 'alone', 'rejected', 'withdrawn')),
    person text NOT NULL CHECK (person LIKE '_%|_%'),
    console text NOT NULL CHECK (console <> ''),
    reason text NOT NULL,
    version bigint UNIQUE REFERENCES broker.policy_version,
    end_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((version IS NOT NULL) = (outcome IN ('approved', 'alone')))
);
COMMENT ON TABLE broker.policy_proposal_end IS 'What became of a proposal; without a row it waits, has expired, or was overtaken.';

CREATE TRIGGER policy_proposal_is_kept BEFORE UPDATE OR DELETE ON broker.policy_proposal
FOR EACH ROW EXECUTE FUNCTION broker.refuse_policy_change();
CREATE TRIGGER policy_proposal_is_not_emptied BEFORE TRUNCATE ON broker.policy_proposal
FOR EACH STATEMENT EXECUTE FUNCTION broker.refuse_policy_change();
CREATE TRIGGER policy_proposal_end_is_kept BEFORE UPDATE OR DELETE ON broker.policy_proposal_end
FOR EACH ROW EXECUTE FUNCTION broker.refuse_policy_change();
CREATE TRIGGER policy_proposal_end_is_not_emptied BEFORE TRUNCATE ON broker.policy_proposal_end
FOR EACH STATEMENT EXECUTE FUNCTION broker.refuse_policy_change();

CREATE VIEW broker.policy_proposal_state AS
SELECT
    p.proposal_id,
    CASE
        WHEN e.outcome IS NOT NULL THEN e.outcome
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
COMMENT ON VIEW broker.policy_proposal_state IS 'Where each proposal stands now.';

-- Stores a proposal; gives 'open', or 'overtaken' where another version than its base is active, or 'full'
-- where too many wait already.
CREATE FUNCTION broker.propose_policy(
    p_id uuid, p_base bigint, p_restores bigint, p_digest text, p_files_digest text, p_files jsonb,
    p_tests_digest text, p_tests jsonb, p_author text, p_console text, p_reason text, p_widens boolean, p_report jsonb,
    p_seconds double precision, p_most integer
) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = broker, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1651666795, 20);
    IF p_base IS DISTINCT FROM broker.active_policy_version() THEN
        RETURN 'overtaken';
    END IF;
    IF (SELECT count(*) FROM policy_proposal_state AS s WHERE s.state = 'open') >= p_most THEN
        RETURN 'full';
    END IF;
    INSERT INTO policy_proposal (
        proposal_id, base_version, restores_version, digest, files_digest, files, tests_digest, tests, author,
        console, reason, widens, report, expire_time
    ) VALUES (
        p_id, p_base, p_restores, p_digest, p_files_digest, p_files, p_tests_digest, p_tests, p_author,
        p_console, p_reason, p_widens, p_report, clock_timestamp() + make_interval(secs => p_seconds)
    );
    -- Brokers compile it now, so that its approval has nothing to wait for.
    PERFORM pg_notify('broker_policy', p_id::text);
    RETURN 'open';
END
$$;

-- Says whether a person may publish a proposal now, and under which number; holds the lock until the
-- transaction ends, so that it stays true. Verdicts: 'ok', 'unknown', 'digest', 'self', 'widens', 'not-author'
-- and the states of a proposal that does not wait.
CREATE FUNCTION broker.may_publish_policy(p_id uuid, p_digest text, p_person text, p_alone boolean)
RETURNS TABLE (verdict text, version bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = broker, pg_temp
AS $$
DECLARE
    v_proposal policy_proposal;
    v_state text;
    v_is_author boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(1651666795, 20);
    SELECT * INTO v_proposal FROM policy_proposal AS p WHERE p.proposal_id = p_id;
    SELECT s.state INTO v_state FROM policy_proposal_state AS s WHERE s.proposal_id = p_id;
    v_is_author := broker.person_key(v_proposal.author) = broker.person_key(p_person);
    verdict := CASE
        WHEN v_proposal.proposal_id IS NULL THEN 'unknown'
        WHEN v_state <> 'open' THEN v_state
        WHEN v_proposal.digest IS DISTINCT FROM p_digest THEN 'digest'
        WHEN NOT p_alone AND v_is_author IS DISTINCT FROM false THEN 'self'
        WHEN p_alone AND v_is_author IS DISTINCT FROM true THEN 'not-author'
        WHEN p_alone AND v_proposal.widens THEN 'widens'
        ELSE 'ok'
    END;
    version := (SELECT coalesce(max(v.version), 0) + 1 FROM policy_version AS v);
    RETURN NEXT;
END
$$;

-- Publishes a proposal under the number that was signed; the caller's transaction appends the event.
CREATE FUNCTION broker.publish_policy(
    p_id uuid, p_digest text, p_person text, p_console text, p_alone boolean, p_reason text, p_version bigint,
    p_signature text
) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = broker, pg_temp
AS $$
DECLARE
    v_may record;
    v_how text := CASE WHEN p_alone THEN 'alone' ELSE 'approved' END;
BEGIN
    SELECT * INTO v_may FROM broker.may_publish_policy(p_id, p_digest, p_person, p_alone);
    IF v_may.verdict <> 'ok' OR v_may.version <> p_version THEN
        RAISE EXCEPTION 'this proposal cannot be published: %', v_may.verdict USING ERRCODE = 'BK080';
    END IF;
    INSERT INTO policy_version (
        version, digest, files, loaded_by, how, tests, tests_digest, base_version, proposal_id, author, approver,
        reason, signature
    ) OVERRIDING SYSTEM VALUE
    SELECT
        p_version, p.files_digest, p.files, p_console, v_how, p.tests, p.tests_digest, p.base_version, p.proposal_id,
        p.author, CASE WHEN p_alone THEN NULL ELSE p_person END, p.reason, p_signature
    FROM policy_proposal AS p
    WHERE p.proposal_id = p_id;
    INSERT INTO policy_proposal_end (proposal_id, outcome, person, console, reason, version)
    VALUES (p_id, v_how, p_person, p_console, p_reason, p_version);
    PERFORM broker.make_policy_active(p_version);
END
$$;

CREATE FUNCTION broker.make_policy_active(p_version bigint) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = broker, pg_temp
AS $$
BEGIN
    INSERT INTO policy_active (version) VALUES (p_version)
    ON CONFLICT (singleton) DO UPDATE SET version = excluded.version, activate_time = clock_timestamp();
    -- Sent at the commit; brokers that miss it look every second, and learn of it from their next append.
    PERFORM pg_notify('broker_policy', p_version::text);
END
$$;

-- Ends a proposal that waits, without publishing it; gives 'ok', or why not. Only its author withdraws.
CREATE FUNCTION broker.end_policy_proposal(
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
    ELSIF v_state NOT IN ('open', 'overtaken', 'expired') THEN
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

-- Publishes version 1 on a new database, and only there; of brokers that start side by side one does.
CREATE FUNCTION broker.publish_first_policy(
    p_files jsonb, p_digest text, p_tests jsonb, p_tests_digest text, p_by text, p_signature text
) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = broker, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1651666795, 20);
    IF EXISTS (SELECT FROM policy_version) THEN
        RETURN false;
    END IF;
    INSERT INTO policy_version (version, digest, files, loaded_by, how, tests, tests_digest, signature)
    OVERRIDING SYSTEM VALUE
    VALUES (1, p_digest, p_files, p_by, 'first', p_tests, p_tests_digest, p_signature);
    PERFORM broker.make_policy_active(1);
    RETURN true;
END
$$;

-- Gives the number of the next version, and holds the lock; for the owner, who breaks the glass.
CREATE FUNCTION broker.next_policy_version() RETURNS bigint
LANGUAGE plpgsql
SET search_path = broker, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1651666795, 20);
    RETURN (SELECT coalesce(max(v.version), 0) + 1 FROM policy_version AS v);
END
$$;

-- Publishes without persons: for a company that has locked itself out. Of the schema's owner alone.
CREATE FUNCTION broker.break_policy_glass(
    p_version bigint, p_files jsonb, p_digest text, p_tests jsonb, p_tests_digest text, p_by text, p_reason text,
    p_signature text
) RETURNS void
LANGUAGE plpgsql
SET search_path = broker, pg_temp
AS $$
BEGIN
    IF p_version <> broker.next_policy_version() THEN
        RAISE EXCEPTION 'another version was published meanwhile' USING ERRCODE = 'BK080';
    END IF;
    INSERT INTO policy_version (
        version, digest, files, loaded_by, how, tests, tests_digest, base_version, reason, signature
    ) OVERRIDING SYSTEM VALUE
    VALUES (
        p_version, p_digest, p_files, p_by, 'break-glass', p_tests, p_tests_digest,
        broker.active_policy_version(), p_reason, p_signature
    );
    PERFORM broker.make_policy_active(p_version);
END
$$;

-- What every worker decides by, and what guard it reads through.
CREATE TABLE broker.policy_worker (
    worker text PRIMARY KEY CHECK (worker <> ''),
    version bigint NOT NULL,
    confirm_time timestamptz NOT NULL,
    guard jsonb,
    guard_time timestamptz
);
COMMENT ON TABLE broker.policy_worker IS 'One row per access worker, as it said last; rows that fell silent go after a day.';
COMMENT ON COLUMN broker.policy_worker.guard IS 'Shape of the installed guard, as the worker reads it in the records database.';

CREATE FUNCTION broker.report_policy_worker(p_worker text, p_version bigint, p_guard jsonb) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = broker, pg_temp
AS $$
    DELETE FROM policy_worker AS w WHERE w.confirm_time < clock_timestamp() - interval '1 day';
    INSERT INTO policy_worker AS w (worker, version, confirm_time, guard, guard_time)
    VALUES (
        p_worker, p_version, clock_timestamp(), p_guard, CASE WHEN p_guard IS NOT NULL THEN clock_timestamp() END
    )
    ON CONFLICT (worker) DO UPDATE SET
        version = excluded.version,
        confirm_time = excluded.confirm_time,
        guard = coalesce(excluded.guard, w.guard),
        guard_time = coalesce(excluded.guard_time, w.guard_time);
$$;

DROP FUNCTION broker.bootstrap_policy(jsonb, text, text);
DROP FUNCTION broker.activate_policy(jsonb, text, text, bigint);

REVOKE ALL ON
broker.policy_proposal, broker.policy_proposal_end, broker.policy_proposal_state, broker.policy_worker
FROM PUBLIC;
REVOKE ALL ON FUNCTION
    broker.person_key(text),
    broker.propose_policy(
        uuid, bigint, bigint, text, text, jsonb, text, jsonb, text, text, text, boolean, jsonb,
        double precision, integer
    ),
    broker.may_publish_policy(uuid, text, text, boolean),
    broker.publish_policy(uuid, text, text, text, boolean, text, bigint, text),
    broker.make_policy_active(bigint),
    broker.end_policy_proposal(uuid, text, text, text, text),
    broker.publish_first_policy(jsonb, text, jsonb, text, text, text),
    broker.next_policy_version(),
    broker.break_policy_glass(bigint, jsonb, text, jsonb, text, text, text, text),
    broker.report_policy_worker(text, bigint, jsonb)
FROM PUBLIC;

GRANT SELECT ON broker.policy_proposal, broker.policy_proposal_end, broker.policy_proposal_state,
broker.policy_worker TO broker_admin, broker_auditor;
GRANT EXECUTE ON FUNCTION
    broker.propose_policy(
        uuid, bigint, bigint, text, text, jsonb, text, jsonb, text, text, text, boolean, jsonb,
        double precision, integer
    ),
    broker.may_publish_policy(uuid, text, text, boolean),
    broker.publish_policy(uuid, text, text, text, boolean, text, bigint, text),
    broker.end_policy_proposal(uuid, text, text, text, text),
    broker.publish_first_policy(jsonb, text, jsonb, text, text, text)
TO broker_admin;
-- What an access worker compiles ahead: the files of proposals, which it does not otherwise know.
GRANT SELECT (proposal_id, base_version, files_digest, files) ON broker.policy_proposal TO broker_access;
GRANT EXECUTE ON FUNCTION broker.report_policy_worker(text, bigint, jsonb) TO broker_access;
