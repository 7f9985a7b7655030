"""chunks of cells -> rows: here, or in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from evengrad.errors import EvengradError, ForwardError, InputError
from evengrad.lab.own import load
from evengrad.lab.packing import checked
from evengrad.lab.study import Cell, Row, Study

Chunk = list[Cell]
Timed = tuple[list[Row], float]  # rows of a chunk, and the seconds that they took


def compute(study: Study, chunks: Sequence[Chunk], workers: int) -> Iterator[tuple[Chunk, list[Row], float]]:
    """Yields every chunk with its rows and the seconds that they took, as they come.

    Raises:
        EvengradError: if a chunk fails; it names the chunk's cells, and the study's own error is the cause.
    """
    if min(workers, len(chunks)) > 1:
        yield from _apart(study, chunks, min(workers, len(chunks)))
        return
    for chunk in chunks:
        try:
            rows, seconds = _timed(study, chunk)
        except Exception as error:
            raise _failure(study, chunk, error) from error
        yield chunk, rows, seconds


def _timed(study: Study, chunk: Chunk) -> Timed:
    """Computes a chunk on one thread of torch: its bits do not depend on the number of cores, and cores are for workers."""
    import torch

    threads, started = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)
    try:
        rows = study.compute(chunk)
    finally:
        torch.set_num_threads(threads)
    if len(rows) != len(chunk):
        raise InputError(f"compute() must return a Row for each of {len(chunk)} cells; got {len(rows)}")
    return [checked(cell, row) for cell, row in zip(chunk, rows, strict=True)], time.perf_counter() - started


def _apart(study: Study, chunks: Sequence[Chunk], workers: int) -> Iterator[tuple[Chunk, list[Row], float]]:
    """Has each worker compute one chunk at a time, so that one that dies tells which chunk it died of."""
    waiting = iter(chunks)
    running: dict[Future[Timed], tuple[ProcessPoolExecutor, Chunk]] = {}
    with _processes(workers) as pools:

        def start(pool: ProcessPoolExecutor, chunk: Chunk) -> None:
            running[pool.submit(_in_worker, _portable(study), chunk)] = pool, chunk

        with _interrupts_ignored():  # the processes that start here inherit it: Ctrl-C is answered by this one alone
            for pool, chunk in zip(pools, waiting, strict=False):
                start(pool, chunk)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda f: f.exception() is not None):  # what is there is kept before an error ends it all
                pool, chunk = running.pop(future)
                if (error := future.exception()) is not None:
                    raise _failure(study, chunk, error) from error
                if (following := next(waiting, None)) is not None:
                    start(pool, following)
                yield chunk, *future.result()


@contextmanager
def _processes(count: int) -> Iterator[list[ProcessPoolExecutor]]:
    """Executors of one process each, which all end here, at once if this is left by an error."""
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pools = [ProcessPoolExecutor(1, context, _end_with_parent) for _ in range(count)]
    try:
        yield pools
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main one may, and only it is interrupted
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """Ends this worker when the process that started it is gone, even if that was killed."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _portable(study: Study) -> Any:
    return study if study.source is None else (study.source, vars(study))


def _in_worker(portable: Any, chunk: Chunk) -> Timed:
    if isinstance(portable, Study):
        return _timed(portable, chunk)
    source, fields = portable
    kind = load(source.path)
    if kind.source != source:
        raise InputError(f"{source.path} was changed while it ran; run it again")
    return _timed(kind(**fields), chunk)


def _failure(study: Study, chunk: Chunk, error: BaseException) -> EvengradError:
    where = str(chunk[0]) if len(chunk) == 1 else f"a chunk of {len(chunk)} cells, {chunk[0]} to {chunk[-1]}"
    if isinstance(error, BrokenExecutor):
        return EvengradError(
            f"the worker that computed {where} of the study {study.name!r} died: out of memory, or killed (or a script of one's own "
            f"calls it outside of if __name__ == '__main__':). Finished cells are kept; run it again with fewer workers"
        )
    if isinstance(error, EvengradError):
        return InputError(f"study {study.name!r}, {where}: {error}")
    return ForwardError(f"study {study.name!r} raised {type(error).__name__} at {where}: {error}")
