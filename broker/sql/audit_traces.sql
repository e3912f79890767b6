-- Spans and events together, for auditors.

-- name: spans_of_traces
-- Lists the spans of some traces.
SELECT
    encode(s.trace_id, 'hex') AS trace_id, encode(s.span_id, 'hex') AS span_id,
    encode(s.parent_span_id, 'hex') AS parent_span_id,
    s.name, s.kind, s.start_ns, s.end_ns, s.status, s.attributes, s.links
FROM broker.span AS s
WHERE s.trace_id = ANY($1::bytea[])
ORDER BY s.start_ns, s.span_id;

-- name: events_of_traces
-- Lists the events that the requests of some traces name.
SELECT
    e.id, t.seq, e.record_time, e.kind, e.outcome, e.reason, e.agent, e.tool, e.customer_pseudonym, e.ticket_pseudonym,
    e.grant_id, e.trace_id, e.policy_version,
    CASE WHEN octet_length(e.leaf) <= 262144 THEN e.leaf ELSE '' END AS leaf, octet_length(e.leaf) AS leaf_size
FROM broker.ledger_event AS e
LEFT JOIN broker.ledger_tree AS t ON t.event_id = e.id
WHERE e.id = ANY($1::uuid[])
ORDER BY e.id;

-- name: events_of_grants
-- Lists the events of some grants, at most $2.
SELECT
    e.id, t.seq, e.record_time, e.kind, e.outcome, e.reason, e.agent, e.tool, e.customer_pseudonym, e.ticket_pseudonym,
    e.grant_id, e.trace_id, e.policy_version,
    CASE WHEN octet_length(e.leaf) <= 262144 THEN e.leaf ELSE '' END AS leaf, octet_length(e.leaf) AS leaf_size
FROM broker.ledger_event AS e
LEFT JOIN broker.ledger_tree AS t ON t.event_id = e.id
WHERE e.grant_id = ANY($1::uuid[])
ORDER BY e.id
LIMIT $2;

-- name: traces_of_grants
-- Lists the traces that are stored of some grants, oldest first, at most $2.
SELECT x.trace_id FROM (
    SELECT s.trace_id, min(s.start_ns) AS begin_ns FROM broker.span_row AS s
    WHERE s.grant_id = ANY($1::uuid[]) GROUP BY s.trace_id
    UNION
    (
        SELECT r.trace_id, r.start_ns FROM broker.read_trace AS r
        WHERE r.grant_id = ANY($1::uuid[]) ORDER BY r.start_ns LIMIT $2
    )
    ORDER BY begin_ns LIMIT $2
) AS x;

-- name: tickets
-- Gives the pseudonyms of a ticket by its own id.
SELECT p.pseudonym FROM broker.ticket_pseudonyms($1) AS p (pseudonym);

-- name: search_spans
-- Lists spans that began between two times, newest first, at most $5, behind one of them where the end is its begin.
-- A step is looked for in requests that began a minute before at most: that is what the index finds.
SELECT
    encode(s.trace_id, 'hex') AS trace_id, encode(s.span_id, 'hex') AS span_id,
    encode(s.parent_span_id, 'hex') AS parent_span_id,
    s.name, s.kind, s.start_ns, s.end_ns, s.status, s.attributes, s.links
FROM broker.span AS s
WHERE
    s.near_ns >= $1 - 60000000000 AND s.near_ns <= $2
    AND s.start_ns >= $1 AND s.start_ns <= $2 AND (s.start_ns < $2 OR s.span_id < $3::bytea)
    AND s.attributes @> $4::jsonb AND ($6::text IS NULL OR s.name = $6)
ORDER BY s.start_ns DESC, s.span_id DESC
LIMIT $5;

-- name: without_spans
-- Counts grants, reads and revocations on record between two times, and those that have no span; names some.
SELECT count(*) AS events, count(*) FILTER (WHERE m.missing) AS missing,
    (array_agg(m.id ORDER BY m.id DESC) FILTER (WHERE m.missing))[1:$3] AS some
FROM (
    SELECT e.id, r.known IS NULL AND s.known IS NULL AS missing
    FROM broker.ledger_event AS e
    CROSS JOIN LATERAL (
        SELECT CASE WHEN e.trace_id ~ '^[0-9a-f]{32}$' THEN decode(e.trace_id, 'hex') END AS trace_id
    ) AS t
    LEFT JOIN LATERAL (
        SELECT true AS known FROM broker.read_trace AS x WHERE x.trace_id = t.trace_id LIMIT 1
    ) AS r ON true
    LEFT JOIN LATERAL (
        SELECT true AS known FROM broker.span_row AS x WHERE x.trace_id = t.trace_id LIMIT 1
    ) AS s ON true
    WHERE
        e.id >= broker.uuid7_floor($1) AND e.id < broker.uuid7_floor($2)
        AND e.kind IN ('grant', 'read', 'revoke')
) AS m;

-- name: without_events
-- Counts traced requests between two times that name their event, and those whose event is not there; names some.
-- What a span names is anybody's word: what is no id at all names an event that is not there.
SELECT count(*) AS traces, count(*) FILTER (WHERE m.missing) AS missing,
    (array_agg(encode(m.trace_id, 'hex') ORDER BY m.start_ns DESC) FILTER (WHERE m.missing))[1:$3] AS some
FROM (
    SELECT n.trace_id, n.start_ns, e.known IS NULL AS missing
    FROM (
        SELECT r.trace_id, r.start_ns, r.event_id FROM broker.read_trace AS r
        WHERE r.start_ns >= $1 AND r.start_ns < $2 AND r.event_id IS NOT NULL
        UNION ALL
        SELECT
            s.trace_id, s.start_ns,
            CASE
                WHEN s.attributes ->> 'broker.decision.id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                    THEN (s.attributes ->> 'broker.decision.id')::uuid
            END
        FROM broker.span_row AS s
        WHERE s.start_ns >= $1 AND s.start_ns < $2 AND s.parent_span_id IS NULL AND s.attributes ? 'broker.decision.id'
    ) AS n
    LEFT JOIN LATERAL (
        SELECT true AS known FROM broker.ledger_event AS x WHERE x.id = n.event_id LIMIT 1
    ) AS e ON true
) AS m;
