-- Visits that were followed by no work: see migrations/120_unexplained.sql.

-- name: judge
-- Judges the next day that is due; NULL where none is.
SELECT broker.judge_visits();

-- name: tallies
-- Lists the judged visits of each day, queue and agent since a day.
SELECT t.day, t.queue, n.name AS agent, t.visits - t.unjudged AS visits, t.unexplained, t.unjudged
FROM broker.visit_tally AS t
INNER JOIN broker.disclosure_name AS n ON t.agent_id = n.name_id
WHERE t.day >= $1
ORDER BY t.day, t.queue, n.name;

-- name: visits
-- Lists an agent's visits without work since a day, newest first.
SELECT v.event_id, v.day, v.queue, v.reads, v.customer, v.ticket
FROM broker.unexplained_visit AS v
INNER JOIN broker.disclosure_name AS n ON v.agent_id = n.name_id AND n.kind = 'agent'
WHERE n.name = $1 AND v.day >= $2
ORDER BY v.event_id DESC
LIMIT $3;
