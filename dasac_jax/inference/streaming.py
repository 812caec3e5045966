"""Reads, computes and writes at the same time, with a bounded number of images in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np

THREADS = 4
"""Threads that read, and as many that write; image codecs release the interpreter lock."""

_BATCHES_WAITING = 4  # as many images as this many batches have may wait for others of their size


def stream(
    items: Iterable[Any],
    *,
    read: Callable[[Any], np.ndarray],
    predict: Callable[[np.ndarray], Callable[[], Any]],
    write: Callable[[Any, np.ndarray, Any, int], None],
    batch: int,
    threads: int = THREADS,
) -> Iterator[int]:
    """Read every item's image, compute over batches of images of one size, write each result.

    read(item) returns an image (H, W, 3); predict(images (B, H, W, 3)), B ≤ batch, starts computing
    and returns a function that waits for the result; write(item, image, result, index) stores the
    part of the result that belongs to the image at `index` of its batch. Reading and writing go on
    in threads while the next batch is computed. A batch has fewer images at the end, and when too
    many images of other sizes wait. At most about 7 batches and 3 · threads images are in memory.

    Yields the number of items written so far, each time that all of a batch are written. The first
    exception of any part ends it; what was handed to the writing threads by then is still written.
    """
    with ExitStack() as stack:
        readers = ThreadPoolExecutor(threads, thread_name_prefix="read")
        stack.callback(readers.shutdown, cancel_futures=True)
        writers = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="write"))
        writing: deque[tuple[Future, bool]] = deque()  # and whether it is its batch's last one
        done = 0
        for members, wait in prefetch(_batches(items, readers, read, predict, batch, threads)):
            result = wait()
            for index, (item, image) in enumerate(members):
                if len(writing) >= 2 * threads:
                    future, completes_batch = writing.popleft()
                    future.result()
                    done += 1
                    if completes_batch:
                        yield done
                future = writers.submit(write, item, image, result, index)
                writing.append((future, index == len(members) - 1))
        for future, completes_batch in writing:
            future.result()
            done += 1
            if completes_batch:
                yield done


def _batches(items, readers, read, predict, batch, threads) -> Iterator[tuple[list, Callable]]:
    """(members of a batch, function that waits for its result) of batches, as they are started."""
    groups: dict[tuple[int, ...], list[tuple[Any, np.ndarray]]] = {}
    for item, image in _read_ahead(items, readers, read, threads):
        group = groups.setdefault(image.shape, [])
        group.append((item, image))
        waiting = sum(map(len, groups.values()))
        if len(group) == batch:
            yield _start(groups.pop(image.shape), predict)
        elif waiting >= _BATCHES_WAITING * batch:
            yield _start(groups.pop(next(iter(groups))), predict)
    for group in groups.values():
        yield _start(group, predict)


def _start(members, predict):
    return members, predict(np.stack([image for _, image in members]))


def _read_ahead(items, readers, read, threads) -> Iterator[tuple[Any, np.ndarray]]:
    """(item, its image) in order; the images of the next items are read meanwhile."""
    reading: deque[tuple[Any, Future]] = deque()
    for item in items:
        reading.append((item, readers.submit(read, item)))
        if len(reading) > threads:
            item, future = reading.popleft()
            yield item, future.result()
    while reading:
        item, future = reading.popleft()
        yield item, future.result()


def prefetch(items: Iterable[Any]) -> Iterator[Any]:
    """The same items, each given out after the next one has been taken from the iterable.

    Where taking an item starts a computation, the next one then runs while this one is used.
    """
    taken: deque[Any] = deque()
    for item in items:
        taken.append(item)
        if len(taken) > 1:
            yield taken.popleft()
    yield from taken
