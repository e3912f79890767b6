"""What people need to try the broker on one machine: database, identities, feed, sample data."""
