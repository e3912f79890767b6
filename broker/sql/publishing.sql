-- name: propose$
-- Stores a proposal; 'open', 'overtaken' or 'full'.
SELECT broker.propose_policy(
    $1, $2, $3, $4, $5, $6::text::jsonb, $7, $8::text::jsonb, $9, $10, $11, $12, $13::text::jsonb, $14, $15,
    $16, $17
);

-- name: may_publish^
-- Says whether a person may publish a proposal, and under which number; locks.
SELECT verdict, version FROM broker.may_publish_policy($1, $2, $3, $4);

-- name: publish!
-- Publishes a proposal under the number that was signed.
SELECT broker.publish_policy($1, $2, $3, $4, $5, $6, $7, $8);

-- name: end_proposal$
-- Rejects or withdraws a proposal; 'ok', or why not.
SELECT broker.end_policy_proposal($1, $2, $3, $4, $5);

-- name: publish_first$
-- Publishes version 1 on a new database; false where there is one.
SELECT broker.publish_first_policy($1::text::jsonb, $2, $3::text::jsonb, $4, $5, $6);

-- name: next_version$
-- Gives the next version's number; locks.
SELECT broker.next_policy_version();

-- name: break_glass!
-- Publishes without persons, as the owner.
SELECT broker.break_policy_glass($1, $2::text::jsonb, $3, $4::text::jsonb, $5, $6, $7, $8);

-- name: proposal^
-- Gives one proposal with all it holds.
SELECT
    p.proposal_id, p.base_version, p.restores_version, p.digest, p.files::text AS files, p.tests::text AS tests,
    p.author, p.console, p.reason, p.widens, p.report::text AS report, p.create_time, p.expire_time,
    s.state, s.person AS end_person, s.reason AS end_reason, s.version, s.end_time
FROM broker.policy_proposal AS p
JOIN broker.policy_proposal_state AS s USING (proposal_id)
WHERE p.proposal_id = $1;

-- name: list_proposals
-- Gives a page of proposals, newest first, without what they hold.
SELECT
    p.proposal_id, p.base_version, p.restores_version, p.digest, p.author, p.console, p.reason, p.widens,
    p.create_time, p.expire_time, s.state, s.person AS end_person, s.reason AS end_reason, s.version, s.end_time
FROM broker.policy_proposal AS p
JOIN broker.policy_proposal_state AS s USING (proposal_id)
WHERE ($1 OR s.state = 'open') AND ($2::uuid IS NULL OR p.proposal_id < $2)
ORDER BY p.proposal_id DESC
LIMIT $3;

-- name: list_versions
-- Gives a page of versions, newest first, without what they hold.
SELECT
    v.version, v.digest, v.tests_digest, v.how, v.base_version, v.proposal_id, v.author, v.approver, v.reason,
    v.loaded_by, v.create_time, p.restores_version
FROM broker.policy_version AS v
LEFT JOIN broker.policy_proposal AS p USING (proposal_id)
WHERE $1::bigint IS NULL OR v.version < $1
ORDER BY v.version DESC
LIMIT $2;

-- name: catalogs
-- Gives each catalog that was in force since the glass was broken last, newest first.
SELECT v.files ->> 'catalog.yaml' AS catalog
FROM broker.policy_version AS v
WHERE
    v.version >= coalesce((SELECT max(b.version) FROM broker.policy_version AS b WHERE b.how = 'break-glass'), 0)
GROUP BY v.files ->> 'catalog.yaml'
ORDER BY max(v.version) DESC;

-- name: workers
-- Gives what each worker said last.
SELECT w.worker, w.version, w.confirm_time, w.guard::text AS guard, w.guard_time
FROM broker.policy_worker AS w
ORDER BY w.worker;

-- name: freshest_guard^
-- Gives the guard as a worker read it last, where that is not longer ago than this.
SELECT w.guard::text AS guard, w.guard_time
FROM broker.policy_worker AS w
WHERE w.guard_time > clock_timestamp() - make_interval(secs => $1)
ORDER BY w.guard_time DESC
LIMIT 1;
