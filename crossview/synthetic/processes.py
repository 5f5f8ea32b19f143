"""Processes that work through tasks in order, and end with the one that started them."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class Makers:
    """Some processes that work through tasks, in order.

    Args:
        pool: The processes; None works here.
        workers: How many.
    """

    def __init__(self, pool: concurrent.futures.ProcessPoolExecutor | None, workers: int) -> None:
        self._pool = pool
        self._workers = workers

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Results in the order of the tasks; only a few tasks wait at a time."""
        if self._pool is None:
            yield from map(function, tasks)
            return
        waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
        for task in tasks:
            waiting.append(self._pool.submit(function, task))
            if len(waiting) > 2 * self._workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def makers(workers: int) -> Iterator[Makers]:
    """So many processes; one is this process itself."""
    if workers == 1:
        yield Makers(None, 1)
        return
    # spawned: a process with threads (progress bars, networks) cannot be forked safely
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker
    )
    try:
        yield Makers(pool, workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave interrupts to the parent, and end with it even where it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
