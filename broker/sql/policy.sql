-- name: active_version$
-- Gives the version in force.
SELECT broker.active_policy_version();

-- name: look^
-- Gives the version in force, and the time: rules end by this clock.
SELECT broker.active_policy_version() AS version, clock_timestamp() AS time;

-- name: active^
-- Gives the policy in force with its files and tests, and the newest number there is.
SELECT
    v.version, v.digest, v.files::text AS files, v.tests::text AS tests, v.tests_digest, v.signature,
    v.author, v.approver,
    (SELECT max(n.version) FROM broker.policy_version AS n) AS newest
FROM broker.policy_active AS a
JOIN broker.policy_version AS v USING (version);

-- name: version^
-- Gives one version with its files and tests.
SELECT
    v.version, v.digest, v.files::text AS files, v.tests::text AS tests, v.tests_digest, v.signature,
    v.author, v.approver
FROM broker.policy_version AS v
WHERE v.version = $1;

-- name: proposed_files^
-- Gives the files of a proposal, for compiling them ahead.
SELECT p.files_digest, p.files::text AS files FROM broker.policy_proposal AS p WHERE p.proposal_id = $1;

-- name: report_worker!
-- Says which version this worker has, and through which guard it reads.
SELECT broker.report_policy_worker($1, $2, $3::text::jsonb);
