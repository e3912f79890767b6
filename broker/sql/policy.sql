-- name: active_version$
-- Gives the version in force.
SELECT broker.active_policy_version();

-- name: active^
-- Gives the policy in force with its files.
SELECT v.version, v.digest, v.files::text AS files
FROM broker.policy_active AS a
JOIN broker.policy_version AS v USING (version);

-- name: activate$
-- Stores a policy and makes it the active one, unless another version than expected is active.
SELECT broker.activate_policy($1::text::jsonb, $2, $3, $4);

-- name: bootstrap^
-- Activates a policy on a new database.
SELECT version, created FROM broker.bootstrap_policy($1::text::jsonb, $2, $3);
