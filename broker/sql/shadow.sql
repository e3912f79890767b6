-- name: start_shadow$
-- Lets a draft run as shadow; gives its id.
SELECT broker.start_shadow($1::text::jsonb, $2, $3);

-- name: stop_shadow$
-- Ends the shadow that runs; gives its digest.
SELECT broker.stop_shadow();

-- name: running_id$
-- Gives the id of the shadow that runs; NULL where none does.
SELECT shadow_id FROM broker.shadow_policy WHERE end_time IS NULL;

-- name: running^
-- Gives the shadow that runs with its files.
SELECT shadow_id, digest, files::text AS files FROM broker.shadow_policy WHERE end_time IS NULL;

-- name: count_shadow$
-- Adds what a worker counted; false where the shadow has ended.
SELECT broker.count_shadow(
    $1, $2, $3, $4, $5, $6, $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
    $13::bigint[], $14::text[], $15
);

-- name: latest^
-- Gives the shadow that was started last.
SELECT
    shadow_id, digest, started_by, start_time, end_time, compared, differing, left_out, unlisted, trouble,
    count_time
FROM broker.shadow_policy
ORDER BY shadow_id DESC
LIMIT 1;

-- name: differences
-- Gives where a shadow decides otherwise, most often first.
SELECT field, active, shadow, roles, ticket_kind, purpose, uses, facts, first_time, last_time
FROM broker.shadow_difference
WHERE shadow_id = $1
ORDER BY uses DESC, field, active, shadow, roles, ticket_kind, purpose
LIMIT $2;
