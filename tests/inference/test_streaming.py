"""Everything is computed once, in batches of one size, with few images in memory."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.inference.streaming import prefetch, stream


class Work:
    """Reads an image full of its item, computes item + 1, and keeps count."""

    def __init__(self, heights=(4,), slow=0.0):
        self.heights, self.slow = heights, slow
        self.lock = threading.Lock()
        self.read_count = self.written_count = self.most_held = 0
        self.written, self.batches = {}, []

    def read(self, item):
        with self.lock:
            self.read_count += 1
            self.most_held = max(self.most_held, self.read_count - self.written_count)
        return np.full((self.heights[item % len(self.heights)], 5, 3), item, np.int64)

    def start(self, images):
        self.batches.append(images.shape)
        return lambda: images[:, 0, 0, 0] + 1

    def write(self, item, image, result, index):
        time.sleep(self.slow)
        assert image[0, 0, 0] == item
        with self.lock:
            self.written_count += 1
            self.written[item] = int(result[index])

    def run(self, count, batch, threads=2):
        parts = {"read": self.read, "predict": self.start, "write": self.write}
        return list(stream(range(count), **parts, batch=batch, threads=threads))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 17])
def test_each_item_once(count):
    work = Work()
    ends = [*range(4, count, 4), count] if count else []
    assert work.run(count, batch=4) == ends  # told of when all of a batch are written
    assert work.written == {item: item + 1 for item in range(count)}
    assert [shape[0] for shape in work.batches] == [4] * (count // 4) + [count % 4] * (
        count % 4 > 0
    )


def test_batches_are_of_one_size():
    work = Work(heights=(4, 6, 4, 8))
    work.run(40, batch=4)
    assert work.written == {item: item + 1 for item in range(40)}
    assert Counter(shape[1] for shape in work.batches) == {4: 5, 6: 3, 8: 3}


def test_memory_does_not_grow_with_the_number_of_images():
    most = []
    for count in (60, 300):
        work = Work(slow=0.001)
        work.run(count, batch=3, threads=2)
        most.append(work.most_held)
    assert max(most) <= 7 * 3 + 3 * 2


def test_sizes_that_never_fill_a_batch_do_not_pile_up():
    work = Work(heights=tuple(range(1, 101)))
    work.run(100, batch=2, threads=2)
    assert len(work.written) == 100
    assert work.most_held <= 7 * 2 + 3 * 2


def test_reading_computing_and_writing_overlap():
    meeting = threading.Barrier(3)  # one by one, the parts would never be there at once

    def read(item):
        if item == 6:
            meeting.wait(60)
        return np.full((2, 2, 3), item)

    def start(images):
        if images[0, 0, 0, 0] == 4:
            meeting.wait(60)
        return lambda: None

    def write(item, *_):
        if item == 2:
            meeting.wait(60)

    list(stream(range(30), read=read, predict=start, write=write, batch=1, threads=2))
    assert not meeting.broken


@pytest.mark.parametrize("part", ["read", "start", "finish", "write"])
def test_a_failure_of_any_part_ends_it(part):
    work = Work()

    def fail(item):
        if item == 5:
            raise UserError(f"{part} of {item}")

    def read(item):
        if part == "read":
            fail(item)
        return work.read(item)

    def start(images):
        if part == "start":
            fail(images[0, 0, 0, 0])

        def finish():
            if part == "finish":
                fail(images[0, 0, 0, 0])
            return work.start(images)()

        return finish

    def write(item, image, result, index):
        if part == "write":
            fail(item)
        work.write(item, image, result, index)

    threads = threading.active_count()
    with pytest.raises(UserError, match=f"{part} of 5"):
        list(stream(range(50), read=read, predict=start, write=write, batch=1, threads=2))
    assert 5 not in work.written and len(work.written) < 20
    assert threading.active_count() == threads


def test_prefetch():
    seen = []

    def items():
        for i in range(3):
            seen.append(i)
            yield i

    found = prefetch(items())
    assert (next(found), seen) == (0, [0, 1])
    assert list(found) == [1, 2]
    assert list(prefetch([])) == []
