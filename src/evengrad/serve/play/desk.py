"""Requests of the playground -> worker processes, one a page; a stuck one is killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

import evengrad
from evengrad.errors import InputError
from evengrad.serve.live import event, stream
from evengrad.serve.play.state import State

Message = dict[str, Any]
_PATIENCE = {"look": 20.0, "train": 20.0, "stop": 5.0, "judge": 60.0, "fix": 90.0}  # seconds to wait for an answer
_BEGIN = 90.0  # seconds that a process may take to import torch
_SILENT = 30.0  # seconds without a frame after which a training is stuck
_MOST = 3  # processes; the one that was asked longest ago ends for a new one
_BYTES = 20_000  # of a request
_LINE = 8 * 2**20  # bytes of an answer


class Worker:
    """A process, the answers that are waited for, and the frames of its training."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._ready = asyncio.Event()
        self._numbers = itertools.count(1)
        self.frames: asyncio.Queue[Message] = asyncio.Queue(maxsize=256)
        self.training, self.heard = False, time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts the process; it imports torch, which this one does not."""
        home = str(Path(evengrad.__file__).parents[1])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "evengrad.serve.play.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LINE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )
        self._reader = asyncio.create_task(self._read())

    async def ask(self, what: str, message: Message) -> Message:
        """Returns the answer to a question.

        Raises:
            TimeoutError: if none came in time; the process is stuck.
            InputError: if the process ended, or refuses.
        """
        await asyncio.wait_for(self._ready.wait(), _BEGIN)
        if self._process is None or self._process.stdin is None or not self.alive:
            raise InputError("the process that networks run in has ended; reload the page")
        number = next(self._numbers)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self.training = self.training or what == "train"
        self._process.stdin.write(json.dumps({**message, "do": what, "id": number}).encode() + b"\n")
        try:
            await self._process.stdin.drain()
            return await asyncio.wait_for(future, _PATIENCE[what])
        finally:
            self._waiting.pop(number, None)

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """Ends the process and waits until it is gone."""
        self.kill()
        if self._process is not None:
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, ConnectionError):  # a line beyond all measure: the process is of no use
            async for line in self._process.stdout:
                self._sort(json.loads(line))
        self.kill()
        self._ready.set()
        self.training = False
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(InputError("the process that networks run in ended; it is started again with the next change"))
        self._put({"ended": "the process that networks run in ended"})

    def _sort(self, message: Message) -> None:
        self.heard = time.monotonic()
        if "ready" in message:
            self._ready.set()
        elif "run" in message:
            self.training = "ended" not in message
            self._put(message)
        else:
            future = self._waiting.get(message.get("id", 0))
            if future is not None and not future.done():
                future.set_result(message)

    def _put(self, message: Message) -> None:
        if self.frames.full():
            self.frames.get_nowait()
        self.frames.put_nowait(message)


class Desk:
    """Gives each page that is open a worker of its own."""

    def __init__(self) -> None:
        self._workers: OrderedDict[str, Worker] = OrderedDict()
        self._spare: asyncio.Task[Worker] | None = None
        self._lock: asyncio.Lock | None = None

    def prepare(self) -> None:
        """Starts a process before it is asked anything: importing torch takes seconds."""
        if self._spare is None:
            self._spare = asyncio.create_task(_started())

    async def do(self, request: Request) -> Response:
        """Answers one question: `{"session": …, "do": "look", "state": {…}}`."""
        try:
            message = await _message(request)
            state = vars(State.of(message.get("state") or {}))
            worker = await self._worker(message["session"])
            asked = {"state": state, "points": bool(message.get("points")), "named": str(message.get("named") or "")[:200]}
            try:
                answer = await worker.ask(message["do"], asked)
            except TimeoutError:
                worker.kill()
                return PlainTextResponse("the network took too long; its process was stopped, the next change starts another", 504)
        except InputError as error:
            return PlainTextResponse(str(error), 400)
        if "error" in answer:
            return PlainTextResponse(answer["error"], 422)
        return JSONResponse({k: v for k, v in answer.items() if k != "id"} | {"run": answer["id"]})

    async def frames(self, request: Request) -> Response:
        """Streams what a page's training shows."""
        session = _session(request.query_params.get("session"))
        if session is None:
            return PlainTextResponse("expected ?session=, 8 to 40 letters and digits", 400)
        return stream(self._frames(session))

    async def close(self) -> None:
        """Ends every process."""
        if self._spare is not None:
            self._workers["spare"] = await self._spare
            self._spare = None
        for worker in self._workers.values():
            await worker.close()
        self._workers.clear()

    async def _frames(self, session: str) -> AsyncIterator[str]:
        worker = await self._worker(session)
        yield event("open", {})
        while worker is self._workers.get(session):
            try:
                yield event("frame", await asyncio.wait_for(worker.frames.get(), 5))
            except TimeoutError:
                yield ": still here\n\n"
            if worker.training and time.monotonic() - worker.heard > _SILENT:
                worker.kill()

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
    if not isinstance(message, dict) or not isinstance(message.get("state") or {}, dict) or message.get("do") not in _PATIENCE:
        raise InputError(f'expected {{"session": …, "do": one of {", ".join(_PATIENCE)}, "state": {{…}}}}')
    message["session"] = _session(message.get("session"))
    if message["session"] is None:
        raise InputError("expected a session of 8 to 40 letters and digits")
    return message


def _session(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9]{8,40}", value) else None
