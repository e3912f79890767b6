-- name: spans_of_grant
-- Lists the spans of a grant: the trace that created it, then its reads, at most $2 traces, oldest first.
WITH traces AS (
    SELECT s.trace_id, min(s.start_ns) AS begin_ns FROM broker.span_row AS s
    WHERE s.grant_id = $1 GROUP BY s.trace_id
    UNION
    (SELECT r.trace_id, r.start_ns FROM broker.read_trace AS r WHERE r.grant_id = $1 ORDER BY r.start_ns LIMIT $2)
    ORDER BY begin_ns LIMIT $2
)
SELECT
    encode(s.trace_id, 'hex') AS trace_id, encode(s.span_id, 'hex') AS span_id,
    encode(s.parent_span_id, 'hex') AS parent_span_id,
    s.name, s.kind, s.start_ns, s.end_ns, s.status, s.attributes, s.links
FROM broker.span AS s
WHERE s.trace_id IN (SELECT t.trace_id FROM traces AS t)
ORDER BY s.start_ns, s.span_id;

-- name: grants_without_spans
-- Lists ledger events of grants whose trace has no span stored, recorded from $1 until $2, oldest first, at most $3.
SELECT e.id, e.kind, e.grant_id, e.trace_id, e.record_time
FROM broker.ledger_event AS e
WHERE
    e.id >= broker.uuid7_floor($1) AND e.id < broker.uuid7_floor($2)
    AND e.kind IN ('grant', 'read', 'revoke')
    AND NOT EXISTS (
        SELECT FROM broker.read_trace AS r
        WHERE e.trace_id ~ '^[0-9a-f]{32}$' AND r.trace_id = decode(e.trace_id, 'hex')
    )
    AND NOT EXISTS (
        SELECT FROM broker.span_row AS s
        WHERE e.trace_id ~ '^[0-9a-f]{32}$' AND s.trace_id = decode(e.trace_id, 'hex')
    )
ORDER BY e.id
LIMIT $3;
