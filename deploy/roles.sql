-- Roles of the broker, least privilege each; run once per cluster and database by a superuser.
--
--   psql "$SUPERUSER_DSN" -f deploy/roles.sql
--
-- Then give each LOGIN role its own password (ALTER ROLE … PASSWORD) and hand each process only
-- the DSNs that it needs. Safe to run again.

DO $roles$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            -- owns schema broker, runs `broker migrate`; no process of the service uses it
            ('broker_owner', 'LOGIN'),
            -- the access workers: call functions, read tickets; write no table but those of the spans
            ('broker_access', 'LOGIN'),
            -- the admin process: policy activation and containment
            ('broker_admin', 'LOGIN'),
            -- the admin process's feed side: the only role that writes tickets and assignments
            ('broker_feed', 'LOGIN'),
            -- the access workers in the records database: guard views only
            ('broker_reader', 'LOGIN'),
            -- auditors: read ledger and spans, no records; a customer's pseudonym and tickets only through functions
            -- that want the question on record
            ('broker_auditor', 'LOGIN'),
            -- owns the guard views in the records database; nobody logs in as it
            ('broker_guard', 'NOLOGIN'),
            -- owns guard keys, salts and the functions over them; nobody logs in as it
            ('broker_guard_keeper', 'NOLOGIN')
        ) AS t (name, login)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name) THEN
            EXECUTE format(
                'CREATE ROLE %I %s NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION NOINHERIT',
                wanted.name, wanted.login
            );
        END IF;
    END LOOP;
END
$roles$;

CREATE SCHEMA IF NOT EXISTS broker AUTHORIZATION broker_owner;
REVOKE ALL ON SCHEMA broker FROM PUBLIC;
