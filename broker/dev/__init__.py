"""What people need to try the broker on one machine: database, identities, feed, sample data."""

import os

# Here grpc clients and child processes live in one process. Every child execs at once, so grpc's
# own preparations for a fork only cost time and write warnings; read when grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
