-- name: replay_inputs
-- Gives the distinct decisions of a span, with how many there are and the first one's event.
SELECT detail, decisions, example
FROM broker.replay_inputs(broker.uuid7_floor($1), broker.uuid7_floor($2));

-- name: replay_people
-- Counts whom changed decisions concern, by mark.
SELECT mark, agents, customers, nameless, named, named_decisions
FROM broker.replay_people(
    broker.uuid7_floor($1), broker.uuid7_floor($2), $3::bytea[], $4::integer[], $5::integer[], $6::integer[],
    $7::integer
);
