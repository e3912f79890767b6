"""JWKS, metrics and readiness over HTTP; nothing here needs a secret, nothing here names anybody."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.telemetry import render_metrics

JWKS_MAX_AGE = 300
"""Seconds that a verifier may keep the keys; a new key is published longer than that before it signs."""


def application(
    jwks: Callable[[], str], metrics_dir: Path, not_ready: Callable[[], dict[str, str]]
) -> Starlette:
    """Makes the application.

    Args:
        jwks: gives the JWK Set as text.
        metrics_dir: where the workers leave their metrics.
        not_ready: names the children that are not ready, and why.
    """

    async def keys(_: Request) -> Response:
        headers = {"cache-control": f"public, max-age={JWKS_MAX_AGE}"}
        return Response(jwks(), media_type="application/jwk-set+json", headers=headers)

    async def metrics(_: Request) -> Response:
        return Response(render_metrics(metrics_dir), media_type="text/plain; version=0.0.4")

    async def alive(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(_: Request) -> Response:
        missing = not_ready()
        return JSONResponse(
            {"status": "ready" if not missing else "not ready", "why": missing}, 503 if missing else 200
        )

    return Starlette(
        routes=[
            Route("/.well-known/jwks.json", keys),
            Route("/jwks.json", keys),
            Route("/metrics", metrics),
            Route("/healthz", alive),
            Route("/readyz", ready),
        ]
    )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the parent decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app: Starlette) -> uvicorn.Server:
    """Makes the server of an application; it is told its socket when it serves."""
    return _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            server_header=False,
        )
    )
