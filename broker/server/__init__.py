"""`broker serve`: a parent that watches, access workers that answer tools, one admin process.

    parent      HTTP (JWKS, metrics, readiness), lock files, supervision; never imports grpc
    worker.py   entry of a child: settings from stdin, status lines to stdout, log to stderr
    access.py   composition of an access worker
    admin.py    composition of the admin process
    ports.py    one gRPC port: TLS, options, health, draining

Each child gets the DSNs of its own role only, so that the process that asks for passes holds no
credentials that could invent an assignment.
"""

from __future__ import annotations

from broker.settings import Settings


def serve(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; gives the exit code."""
    from broker.server.parent import serve as run  # noqa: PLC0415 - children import this package, too

    return run(settings)
