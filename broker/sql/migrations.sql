-- name: create_table#
-- Makes the list of applied migrations, once.
CREATE TABLE IF NOT EXISTS broker.migration (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    apply_time timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- name: applied
-- Lists the applied migrations.
SELECT name, sha256 FROM broker.migration ORDER BY name;

-- name: record!
-- Records an applied migration.
INSERT INTO broker.migration (name, sha256) VALUES ($1, $2);
