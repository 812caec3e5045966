"""Reading, computing and writing at the same time, with a bounded number of images in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np

THREADS = 4
"""For reading, and as many for writing; image codecs release the interpreter lock."""

_GROUPS_WAITING = 4  # batches' worth of images that wait for others of their size


def stream(
    items: Iterable[Any],
    *,
    read: Callable[[Any], np.ndarray],
    start: Callable[[np.ndarray], Callable[[], Any]],
    write: Callable[[Any, np.ndarray, Any, int], None],
    batch: int,
    threads: int = THREADS,
) -> Iterator[int]:
    """Read every item's image, compute over batches of images of one size, write each result.

    read(item) gives an image (H, W, 3); start(images (B, H, W, 3)), B ≤ batch, starts computing
    and gives a function that waits for the result; write(item, image, result, place) stores what
    belongs to the image at `place` in its batch. Reading and writing go on in threads while the
    next batch is computed. A batch is incomplete at the end, and when too many images of other
    sizes wait. No more than about 7 batches and 3 · threads images are held at a time.

    Yields how many items are written so far. The first exception of any part ends it; what the
    writers were given by then is written.
    """
    with ExitStack() as stack:
        readers = ThreadPoolExecutor(threads, thread_name_prefix="read")
        stack.callback(readers.shutdown, cancel_futures=True)
        writers = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="write"))
        writing: deque[Future] = deque()
        done = 0
        for members, finish in one_ahead(_started(items, readers, read, start, batch, threads)):
            result = finish()
            for place, (item, image) in enumerate(members):
                if len(writing) >= 2 * threads:
                    writing.popleft().result()
                    done += 1
                    yield done
                writing.append(writers.submit(write, item, image, result, place))
        for future in writing:
            future.result()
            done += 1
            yield done


def _started(items, readers, read, start, batch, threads) -> Iterator[tuple[list, Callable]]:
    """(members of a batch, function that waits for its result), each as it is started."""
    groups: dict[tuple[int, ...], list[tuple[Any, np.ndarray]]] = {}
    for item, image in _read_ahead(items, readers, read, threads):
        group = groups.setdefault(image.shape, [])
        group.append((item, image))
        waiting = sum(map(len, groups.values()))
        if len(group) == batch:
            yield _begin(groups.pop(image.shape), start)
        elif waiting >= _GROUPS_WAITING * batch:
            yield _begin(groups.pop(next(iter(groups))), start)
    for group in groups.values():
        yield _begin(group, start)


def _begin(members, start):
    return members, start(np.stack([image for _, image in members]))


def _read_ahead(items, readers, read, threads) -> Iterator[tuple[Any, np.ndarray]]:
    """(item, its image) in order."""
    reading: deque[tuple[Any, Future]] = deque()
    for item in items:
        reading.append((item, readers.submit(read, item)))
        if len(reading) > threads:
            item, future = reading.popleft()
            yield item, future.result()
    while reading:
        item, future = reading.popleft()
        yield item, future.result()


def one_ahead(items: Iterable[Any]) -> Iterator[Any]:
    """The same items, each given out when the next one has been started."""
    before: deque[Any] = deque()
    for started in items:
        before.append(started)
        if len(before) > 1:
            yield before.popleft()
    yield from before
