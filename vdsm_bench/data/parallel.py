"""Drawing clips in several processes, in order, so that a store has the same bytes as with one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: items per errand of a worker: large enough to make up for sending it
_ERRAND = 16
#: errands handed out ahead per worker; bounds what waits in memory to be written
_AHEAD = 2


@contextlib.contextmanager
def in_order(
    draw: Callable[[T], R], items: Sequence[T], *, processes: int
) -> Iterator[Iterator[R]]:
    """Gives ``draw(item)`` of one item after the other.

    Args:
        draw: a pure function that can be pickled: a function of a module, a method of a dataset.
        items: what is drawn, or read.
        processes: how many work at once; with 1, or too little to do, all is drawn here.

    Leaving the context stops the workers. They also stop when this process is killed. Where a
    worker dies (no memory, or a script without a ``__main__`` guard) the rest is drawn here.
    """
    processes = min(processes, len(items) // (2 * _ERRAND))
    if processes < 2:
        yield map(draw, items)
        return
    # spawned, not forked: a fork would inherit threads and the store's lock, and with the lock
    # an orphan would keep out the next command
    pool = ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=_follow_parent
    )
    try:
        yield _collect(pool, draw, items, ahead=_AHEAD * processes)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collect(
    pool: ProcessPoolExecutor, draw: Callable[[T], R], items: Sequence[T], *, ahead: int
) -> Iterator[R]:
    begun: deque[Future[list[R]]] = deque()
    starts = iter(range(0, len(items), _ERRAND))
    done = 0
    try:
        while True:
            while len(begun) < ahead and (start := next(starts, None)) is not None:
                begun.append(pool.submit(_run, draw, items[start : start + _ERRAND]))
            if not begun:
                return
            results = begun.popleft().result()
            done += len(results)
            yield from results
    except BrokenProcessPool:
        yield from map(draw, items[done:])


def _run(draw: Callable[[T], R], errand: Sequence[T]) -> list[R]:
    return [draw(item) for item in errand]


def _follow_parent() -> None:
    """Leaves Ctrl-C to the parent, and ends when the parent ends, however that happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.join,), daemon=True).start()


def _end_with(join: Callable[[], None]) -> None:
    join()
    os._exit(1)
