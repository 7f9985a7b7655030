"""A worker process -> answers to questions, and the frames of its training; a stuck one is killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import evengrad
from evengrad.errors import InputError

Message = dict[str, Any]
PATIENCE = {"look": 20.0, "train": 20.0, "stop": 5.0, "judge": 60.0, "fix": 90.0}  # seconds to wait for an answer
_BEGIN = 90.0  # seconds that a process may take to import torch
_SILENT = 30.0  # seconds without a frame after which a training is stuck
_LINE = 8 * 2**20  # bytes of an answer


class EndedError(InputError):
    """The process ended while something was asked of it."""


class Worker:
    """A process, the answers that are waited for, and the frames of its training."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._killed = False
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._ready = asyncio.Event()
        self._numbers = itertools.count(1)
        self.frames: asyncio.Queue[Message] = asyncio.Queue(maxsize=256)
        self.training, self.heard = False, time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process is not None and self._process.returncode is None and not self._killed

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
            EndedError: if the process ended.
        """
        await asyncio.wait_for(self._ready.wait(), _BEGIN)
        if self._process is None or self._process.stdin is None or not self.alive:
            raise EndedError("the process that networks run in has ended; the next change starts another")
        number = next(self._numbers)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self.training = self.training or what == "train"
        self._process.stdin.write(json.dumps({**message, "do": what, "id": number}).encode() + b"\n")
        try:
            await self._process.stdin.drain()
            return await asyncio.wait_for(future, PATIENCE[what])
        finally:
            self._waiting.pop(number, None)

    async def next_frame(self, seconds: float) -> Message | None:
        """Returns the next frame, or None if there is none in time; a training that is stuck is ended."""
        if self.training and time.monotonic() - self.heard > _SILENT:
            self.kill()
        try:
            return await asyncio.wait_for(self.frames.get(), seconds)
        except TimeoutError:
            return None

    def kill(self) -> None:
        """Ends the process at once."""
        self._killed = True
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
                future.set_exception(EndedError("the process that networks run in ended; the next change starts another"))
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
