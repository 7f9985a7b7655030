"""A run that is being written -> server-sent events that say when there is more to see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from starlette.responses import StreamingResponse

from evengrad.serve.shelf import Entry, Shelf

POLL = 0.1  # seconds between two looks at a file's size and time
_ALIVE = 15.0  # seconds after which a silent line says that it is still there


def stream(events: AsyncIterator[str]) -> StreamingResponse:
    """Wraps events into a response that nothing between may hold back."""
    return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def event(kind: str, data: object, *, key: str = "") -> str:
    """Writes one event; its data are a line of JSON."""
    return (f"id: {key}\n" if key else "") + f"event: {kind}\ndata: {json.dumps(data, allow_nan=False)}\n\n"


async def changes(shelf: Shelf, entry: Entry, leaving: Callable[[], bool]) -> AsyncIterator[str]:
    """Yields an event at once, and one whenever the run was written to, began to stand still, or is gone."""
    seen, silent = None, 0.0
    while not leaving():
        now = shelf.again(entry)
        if now is None:
            yield event("gone", {})
            return
        if (now.version, now.live) != seen:
            seen, silent = (now.version, now.live), 0.0
            yield event("version", {"stamp": now.stamp, "live": now.live}, key=now.stamp)
        elif silent >= _ALIVE:
            silent = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(POLL)
        silent += POLL
