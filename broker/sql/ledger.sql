-- name: append_reads
-- Appends a group of reads; gives reason, leaf and free_time per read.
SELECT ord, reason, leaf, free_time
FROM broker.append_reads(
    $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[], $8::bigint[],
    $9::integer[], $10::integer[], $11::bytea[]
)
ORDER BY ord;

-- name: append_read
-- Appends one read; gives the same of it.
SELECT 1::bigint AS ord, reason, leaf, free_time
FROM broker.append_read(
    $1::uuid, $2::uuid, $3::text, $4::text, $5::text, $6::bigint, $7::boolean, $8::bigint, $9::integer,
    $10::integer, $11::bytea
);

-- name: append_events
-- Appends events that need no ground.
SELECT id, leaf
FROM broker.append_events(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::bigint[], $12::bytea[]
);

-- name: append_admin_events
-- Appends administrative events, inside the caller's transaction.
SELECT id, leaf
FROM broker.append_admin_events(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::bigint[], $12::bytea[]
);

-- name: append_auditor_events
-- Appends what an auditor asked for.
SELECT id, leaf
FROM broker.append_auditor_events(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::bigint[], $12::bytea[]
);

-- name: create_grant
-- Creates one grant, from the same values without arrays.
SELECT
    1::bigint AS ord, reason, grant_id, decision_id, create_time, expire_time, pass, answer, policy_version,
    trace_id, leaf, free_time
FROM broker.create_grant(
    $1::uuid, $2::uuid, $3::uuid, $4::bytea, $5::text, $6::text, $7::text, $8::text, $9::text, $10::text,
    $11::text, $12::text, $13::text, string_to_array($14::text, ','), string_to_array($15::text, ','),
    $16::jsonb, $17::bigint, $18::bigint, $19::boolean, $20::double precision, $21::integer, $22::integer,
    $23::text, $24::bytea
);

-- name: create_grants
-- Creates grants with their passes and events; fields and levels of each are joined by commas.
SELECT
    asked.ord, made.reason, made.grant_id, made.decision_id, made.create_time, made.expire_time, made.pass,
    made.answer, made.policy_version, made.trace_id, made.leaf, made.free_time
FROM unnest(
    $1::uuid[], $2::uuid[], $3::uuid[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::jsonb[],
    $17::bigint[], $18::bigint[], $19::boolean[], $20::double precision[], $21::integer[], $22::integer[],
    $23::text[], $24::bytea[]
) WITH ORDINALITY AS asked (
    id, grant_id, request_id, hash, agent, tool, thumbprint, ticket_id, customer_id, customer, ticket,
    purpose, audience, fields, levels, answer, version, facts_version, present, seconds, per_hour, per_day,
    trace_id, head, ord
)
CROSS JOIN LATERAL broker.create_grant(
    asked.id, asked.grant_id, asked.request_id, asked.hash, asked.agent, asked.tool, asked.thumbprint,
    asked.ticket_id, asked.customer_id, asked.customer, asked.ticket, asked.purpose, asked.audience,
    string_to_array(asked.fields, ','), string_to_array(asked.levels, ','), asked.answer, asked.version,
    asked.facts_version, asked.present, asked.seconds, asked.per_hour, asked.per_day, asked.trace_id,
    asked.head
) AS made
ORDER BY asked.ord;

-- name: open_grant
-- Opens an agent's own grant.
SELECT
    pass, purpose, customer_pseudonym, ticket_pseudonym, ticket_id, fields, levels, expire_time, trace_id
FROM broker.open_grant($1, $2);

-- name: grant_status
-- Tells whether a grant is usable now.
SELECT ticket_id, expire_time FROM broker.grant_status($1, $2);

-- name: revoke_own_grant
-- Revokes an agent's own grant with its event.
SELECT revoke_time FROM broker.revoke_own_grant($1, $2, $3, $4, $5, $6);

-- name: read_back
-- Asks what became of events whose commit answered with an error.
SELECT id, reason, leaf FROM broker.read_back($1::uuid[]);

-- name: own_event
-- Fetches an agent's own event.
SELECT leaf FROM broker.own_event($1, $2);

-- name: is_suspended
-- Tells whether an agent is suspended now.
SELECT broker.is_suspended($1);

-- name: ready
-- Tells whether the ledger could take an event now and the day after tomorrow.
SELECT
    broker.partitions_ready() AS partitions,
    NOT pg_is_in_recovery() AS writable,
    broker.appends_stopped() AS stopped,
    extract(EPOCH FROM clock_timestamp())::double precision AS now;

-- name: now
-- Tells the database's time, POSIX seconds.
SELECT extract(EPOCH FROM clock_timestamp())::double precision;

-- name: ensure_partitions
-- Makes the partitions of the coming months.
SELECT broker.ensure_partitions();

-- name: purge
-- Forgets some ended grants and old budget rows; gives how many.
SELECT broker.purge();
