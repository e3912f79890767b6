-- The versions of the policy, and which of them is active.
--
-- Invariants:
--   * a version is written once and never changed: no login role has a right to UPDATE or DELETE, and
--     a trigger refuses them to everybody, the owner included;
--   * the active version is one row; it only ever moves to a higher number, so an old policy comes
--     back as a new version with the old content;
--   * all five files or none;
--   * whoever activates says which version they think is active, and nothing happens if they are wrong;
--   * the functions run in their caller's transaction: the ledger event of the change is committed
--     with it or not at all.

CREATE TABLE broker.policy_version (
    version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    files jsonb NOT NULL CHECK (
        jsonb_typeof(files) = 'object'
        AND files ?& ARRAY['model.conf', 'policy.csv', 'catalog.yaml', 'limits.yaml', 'admin.csv']
        AND files - ARRAY['model.conf', 'policy.csv', 'catalog.yaml', 'limits.yaml', 'admin.csv'] = '{}'
        AND NOT jsonb_path_exists(files, '$.* ? (@.type() != "string" || @ == "")')
    ),
    loaded_by text NOT NULL CHECK (loaded_by <> ''),
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE broker.policy_version IS 'Every policy that was ever active, as its files; kept, because decisions name it.';
COMMENT ON COLUMN broker.policy_version.digest IS 'Hex SHA-256 over names and texts; the broker computes it again whenever it loads.';
COMMENT ON COLUMN broker.policy_version.files IS 'File name -> text, exactly as it was checked.';
COMMENT ON COLUMN broker.policy_version.loaded_by IS 'Who activated it, as the command or service names them.';

CREATE TABLE broker.policy_active (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version bigint NOT NULL REFERENCES broker.policy_version,
    activate_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE broker.policy_active IS 'The one row that says which policy is in force; empty on a new database.';

CREATE FUNCTION broker.refuse_policy_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = broker, pg_temp
AS $$
BEGIN
    IF TG_TABLE_NAME = 'policy_active' AND TG_OP = 'UPDATE' AND NEW.version > OLD.version THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a policy version is never changed, removed or gone back to' USING ERRCODE = 'BK020';
END
$$;

CREATE TRIGGER policy_version_is_kept BEFORE UPDATE OR DELETE ON broker.policy_version
FOR EACH ROW EXECUTE FUNCTION broker.refuse_policy_change();
CREATE TRIGGER policy_version_is_not_emptied BEFORE TRUNCATE ON broker.policy_version
FOR EACH STATEMENT EXECUTE FUNCTION broker.refuse_policy_change();
CREATE TRIGGER policy_active_only_grows BEFORE UPDATE OR DELETE ON broker.policy_active
FOR EACH ROW EXECUTE FUNCTION broker.refuse_policy_change();
CREATE TRIGGER policy_active_is_not_emptied BEFORE TRUNCATE ON broker.policy_active
FOR EACH STATEMENT EXECUTE FUNCTION broker.refuse_policy_change();

-- Gives the version in force; NULL on a new database.
CREATE FUNCTION broker.active_policy_version() RETURNS bigint
LANGUAGE sql
STABLE
AS $$ SELECT a.version FROM broker.policy_active AS a $$;

-- Stores a policy and makes it the active one; gives its version, or NULL where another version
-- than p_expected_current is active (NULL: whichever is).
CREATE FUNCTION broker.activate_policy(
    p_files jsonb, p_digest text, p_loaded_by text, p_expected_current bigint
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = broker, pg_temp
AS $$
DECLARE
    v_version bigint;
BEGIN
    -- Writers take turns; readers, who only SELECT, do not wait. An advisory lock, because on a new
    -- database there is no row yet that could be locked.
    PERFORM pg_advisory_xact_lock(1651666795, 20); -- "brok", migration 020
    IF p_expected_current IS NOT NULL
        AND p_expected_current IS DISTINCT FROM broker.active_policy_version() THEN
        RETURN NULL;
    END IF;
    INSERT INTO policy_version (digest, files, loaded_by)
    VALUES (p_digest, p_files, p_loaded_by)
    RETURNING version INTO v_version;
    INSERT INTO policy_active (version) VALUES (v_version)
    ON CONFLICT (singleton) DO UPDATE SET version = excluded.version, activate_time = clock_timestamp();
    -- Sent at the commit; brokers that miss it learn of the version from their next ledger append.
    PERFORM pg_notify('broker_policy', v_version::text);
    RETURN v_version;
END
$$;

-- Activates a policy on a new database; on any other gives the version that is active already, so
-- that brokers which start side by side agree.
CREATE FUNCTION broker.bootstrap_policy(p_files jsonb, p_digest text, p_loaded_by text)
RETURNS TABLE (version bigint, created boolean)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = broker, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1651666795, 20);
    version := broker.active_policy_version();
    created := version IS NULL;
    IF created THEN
        version := broker.activate_policy(p_files, p_digest, p_loaded_by, NULL);
    END IF;
    RETURN NEXT;
END
$$;

REVOKE ALL ON broker.policy_version, broker.policy_active FROM PUBLIC;
REVOKE ALL ON FUNCTION
    broker.refuse_policy_change(),
    broker.active_policy_version(),
    broker.activate_policy(jsonb, text, text, bigint),
    broker.bootstrap_policy(jsonb, text, text)
FROM PUBLIC;

GRANT USAGE ON SCHEMA broker TO broker_access, broker_admin, broker_auditor;
GRANT SELECT ON broker.policy_version, broker.policy_active TO broker_access, broker_admin, broker_auditor;
GRANT EXECUTE ON FUNCTION broker.active_policy_version() TO broker_access, broker_admin, broker_auditor;
GRANT EXECUTE ON FUNCTION broker.activate_policy(jsonb, text, text, bigint) TO broker_admin;
GRANT EXECUTE ON FUNCTION broker.bootstrap_policy(jsonb, text, text) TO broker_admin;
