"""Waiting some seconds, or until it is time to stop."""

from __future__ import annotations

import asyncio


async def stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Waits; tells whether it is time to stop."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
