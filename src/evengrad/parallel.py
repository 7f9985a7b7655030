"""A function and items -> its results, several at a time in forked processes, so that functions of the user's own need not be pickled."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from evengrad.errors import EvengradError

T = TypeVar("T")
R = TypeVar("R")


def can_fork() -> bool:
    """True where processes can be forked and no GPU is in use: a forked process cannot use it."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()


def each(function: Callable[[T], R], items: Sequence[T], *, workers: int = 1) -> list[R]:
    """Returns the function's result for each item; `workers` at a time, one after the other where processes cannot be forked.

    Each process runs torch with one thread: threads that the parent has do not live on in it.

    Raises:
        EvengradError: if a process ends without a result; what the function raises is raised here.
    """
    if workers < 2 or len(items) < 2 or not can_fork():
        return [function(item) for item in items]
    context = multiprocessing.get_context("fork")
    found: dict[int, R] = {}
    running: dict[int, tuple[Any, Connection]] = {}
    waiting = list(range(len(items)))
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_run, args=(theirs, function, items[index]), daemon=True)
                process.start()
                theirs.close()
                running[index] = process, ours
            ready = multiprocessing.connection.wait([c for _, c in running.values()])
            for index in [i for i, (_, c) in running.items() if c in ready]:
                process, connection = running.pop(index)
                found[index] = _received(connection)
                process.join()
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()
    return [found[i] for i in range(len(items))]


def _received(connection: Connection) -> Any:
    try:
        result, error = connection.recv()
    except EOFError as ended:
        raise EvengradError("a training's process ended without a result: it may have run out of memory. Use workers=1") from ended
    if error is not None:
        raise error
    return result


def _run(connection: Connection, function: Callable[[Any], Any], item: Any) -> None:
    torch.set_num_threads(1)
    try:
        answer: tuple[Any, Exception | None] = function(item), None
    except Exception as error:
        answer = None, error if isinstance(error, EvengradError) else EvengradError(f"{type(error).__name__}: {error}")
    connection.send(answer)
    connection.close()
