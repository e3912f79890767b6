-- name: replay_inputs
-- Gives the distinct decisions of a span by version, with how many there are and the first one's event.
SELECT detail, policy_version, decisions, example
FROM broker.replay_inputs(broker.uuid7_floor($1), broker.uuid7_floor($2));

-- name: replay_people
-- Counts whom changed decisions concern, by mark.
SELECT mark, agents, customers, nameless, named, named_decisions
FROM broker.replay_people(
    broker.uuid7_floor($1), broker.uuid7_floor($2), $3::bigint[], $4::integer[], $5::bytea[], $6::integer[],
    $7::integer[], $8::integer[], $9::integer[], $10::integer
);

-- name: versions_in_force
-- Gives the rules of each version that was in force at some time of a span.
SELECT v.version, v.files ->> 'policy.csv' AS rules
FROM broker.policy_version AS v
WHERE v.create_time < $2
    AND NOT EXISTS (
        SELECT FROM broker.policy_version AS n WHERE n.version > v.version AND n.create_time <= $1
    )
ORDER BY v.version;
