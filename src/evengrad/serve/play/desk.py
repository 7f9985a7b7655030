"""Requests of the playground -> worker processes, one a page; a stuck one is killed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from evengrad.errors import InputError
from evengrad.serve.live import event, stream
from evengrad.serve.play.process import PATIENCE, EndedError, Message, Worker
from evengrad.serve.play.state import State

_GLANCE, _ALIVE, _GRACE = 0.5, 15.0, 20.0  # seconds between two looks; of silence; after which a closed page's process ends
_MOST = 3  # processes; the one that was asked longest ago ends for a new one
_BYTES = 20_000  # of a request


class Desk:
    """Gives each page that is open a worker of its own; `leaving` says whether the server is about to end."""

    def __init__(self, leaving: Callable[[], bool]) -> None:
        self._leaving_now = leaving
        self._workers: OrderedDict[str, Worker] = OrderedDict()
        self._spare: asyncio.Task[Worker] | None = None
        self._lock: asyncio.Lock | None = None
        self._watched: Counter[str] = Counter()
        self._leaving: set[asyncio.Task[None]] = set()

    def prepare(self) -> None:
        """Starts a process before it is asked anything: importing torch takes seconds."""
        if self._spare is None:
            self._spare = asyncio.create_task(_started())

    async def do(self, request: Request) -> Response:
        """Answers one question: `{"session": …, "do": "look", "state": {…}}`."""
        try:
            message = await _message(request)
            state = vars(State.of(message.get("state", {})))
            asked = {"state": state, "points": bool(message.get("points")), "named": str(message.get("named") or "")[:200]}
            try:
                answer = await self._asked(message["session"], message["do"], asked)
            except EndedError:
                if message["do"] != "look":
                    raise
                answer = await self._asked(message["session"], "look", asked)  # what ended was stuck on something else
            except TimeoutError:
                return PlainTextResponse("the network took too long; its process was stopped, the next change starts another", 504)
        except InputError as error:
            return PlainTextResponse(str(error), 400)
        if "error" in answer:
            return PlainTextResponse(answer["error"], 422)
        return JSONResponse({k: v for k, v in answer.items() if k != "id"} | {"run": answer["id"]})

    async def _asked(self, session: str, what: str, message: Message) -> Message:
        worker = await self._worker(session)
        try:
            return await worker.ask(what, message)
        except TimeoutError:
            worker.kill()
            raise

    async def frames(self, request: Request) -> Response:
        """Streams what a page's training shows."""
        session = _session(request.query_params.get("session"))
        if session is None:
            return PlainTextResponse("expected ?session=, 8 to 40 letters and digits", 400)
        return stream(self._frames(session))

    async def close(self) -> None:
        """Ends every process."""
        for task in self._leaving:
            task.cancel()
        if self._spare is not None:
            self._workers["spare"] = await self._spare
            self._spare = None
        for worker in self._workers.values():
            await worker.close()
        self._workers.clear()

    async def _frames(self, session: str) -> AsyncIterator[str]:
        self._watched[session] += 1
        try:
            yield event("open", {})
            silent = time.monotonic()
            while not self._leaving_now():
                worker = self._workers.get(session)  # another one after the first was killed
                message = None if worker is None else await worker.next_frame(_GLANCE)
                if worker is None:
                    await asyncio.sleep(_GLANCE)
                if message is not None:
                    silent = time.monotonic()
                    yield event("frame", message)
                elif time.monotonic() - silent > _ALIVE:
                    silent = time.monotonic()
                    yield ": still here\n\n"
        finally:
            self._watched[session] -= 1
            task = asyncio.create_task(self._leave(session))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _leave(self, session: str) -> None:
        """Ends the process of a page that was closed, unless it comes back."""
        await asyncio.sleep(_GRACE)
        if self._watched[session] <= 0 and (worker := self._workers.pop(session, None)) is not None:
            del self._watched[session]
            await worker.close()

    async def _worker(self, session: str) -> Worker:
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            worker = self._workers.get(session)
            if worker is None or not worker.alive:
                if worker is not None:
                    await worker.close()
                self.prepare()
                assert self._spare is not None
                worker, self._spare = await self._spare, None
                self._workers[session] = worker
            self._workers.move_to_end(session)
            while len(self._workers) > _MOST:
                _, oldest = self._workers.popitem(last=False)
                await oldest.close()
        return worker


async def _started() -> Worker:
    worker = Worker()
    await worker.start()
    return worker


async def _message(request: Request) -> Message:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BYTES:
            raise InputError(f"expected a request of {_BYTES:,} bytes at most")
    try:
        message = json.loads(body)
    except ValueError as error:
        raise InputError(f"expected JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("state", {}), dict) or message.get("do") not in PATIENCE:
        raise InputError(f'expected {{"session": …, "do": one of {", ".join(PATIENCE)}, "state": {{…}}}}')
    message["session"] = _session(message.get("session"))
    if message["session"] is None:
        raise InputError("expected a session of 8 to 40 letters and digits")
    return message


def _session(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9]{8,40}", value) else None
