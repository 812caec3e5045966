"""Batches of decoded images on the host, read ahead by Grain's threads.

A file that cannot be read ends the run with its path, item and reason, and so does a read that
never returns.

What a step reads is a function of (seed, step) alone: resuming means starting at a later step, and
each of several processes reads its rows of the same global batch.
"""

import dataclasses
import functools
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from dasac_jax.data import sampling
from dasac_jax.data.labels import IGNORE
from dasac_jax.data.pairs import PairSource
from dasac_jax.errors import UserError
from dasac_jax.runtime.data_parallel import Layout

Batch = dict[str, Any]

NUM_THREADS = 8
"""Decoding threads; PNG decoding and resizing release the interpreter lock."""

STALL_SECONDS = 45
"""How long a single image and its label may take; far less than a second is usual."""

_POLLS = 45  # how often within that time it is asked whether the image is there


@dataclasses.dataclass(frozen=True)
class _TrainItems:
    """All images of all steps as one random-access sequence: of a step, source rows come first."""

    source: PairSource
    target: PairSource
    layout: Layout
    sampler: sampling.TargetSampler
    seed: int
    first_step: int
    num_steps: int
    closed: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def rows(self) -> int:
        """How many images this process reads for a step."""
        return len(self.layout.source_rows) + len(self.layout.target_rows)

    def __len__(self) -> int:
        return self.num_steps * self.rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        layout, source_rows = self.layout, self.layout.source_rows
        step, row = divmod(int(index), self.rows)
        epoch, step = divmod(self.first_step + step, len(self.source) // layout.source_batch)
        if row < len(source_rows):
            item = source_rows[row]
            order = _source_order(self.seed, epoch, len(self.source))
            record = _read(self.source, int(order[step * layout.source_batch + item]), self.closed)
        else:
            item = layout.target_rows[row - len(source_rows)]
            position = step * layout.target_batch + item
            record = _read(self.target, self.sampler.index(self.seed, epoch, position), self.closed)
        return record | {"item": item}


@dataclasses.dataclass(frozen=True)
class _AllItems:
    """The items of a source, each read by `_read`."""

    source: PairSource
    closed: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return _read(self.source, int(index), self.closed)


def _read(source: PairSource, index: int, closed: threading.Event) -> dict[str, Any]:
    """source[index], read in a thread of its own, which nothing has to wait for should it hang.

    Python waits at its end for Grain's threads, so a read that hangs in one of them would keep the
    program from ending, and no watchdog could wake who waits for it. A thread costs 0.07 ms of
    CPU time, decoding an image of 1024 x 2048 pixels 67 ms.

    closed: set when no more items are wanted, so that waiting for this one ends as well.

    Raises UserError naming the file and item when it takes longer than STALL_SECONDS, or its
    thread dies.
    """
    done: queue.SimpleQueue = queue.SimpleQueue()

    def read() -> None:
        try:
            done.put((source[index], None))
        except BaseException as error:  # whatever it is, the waiting thread has to know
            done.put((None, error))

    threading.Thread(target=read, daemon=True).start()
    where = f"{source.pairs[index][0]} (item {index} of {source.name}, in {source.root})"
    # Polls are counted, not seconds, so that a program which was suspended meanwhile goes on.
    for _ in range(_POLLS):
        try:
            record, error = done.get(timeout=STALL_SECONDS / _POLLS)
        except queue.Empty:
            if closed.is_set():
                raise UserError(f"reading {where} was given up") from None
            continue
        if error is None:
            return record
        if isinstance(error, Exception):
            error.add_note(f"while reading {where}")
            raise error
        raise UserError(f"the thread that was reading {where} died: {error!r}") from error
    raise UserError(
        f"reading {where} takes longer than {STALL_SECONDS} seconds: is the disk or network "
        "that it lies on out of order? The same command goes on when it is mended"
    )


# Reading ahead crosses from one epoch into the next, so two orders are in use at a time.
_source_order = functools.lru_cache(maxsize=4)(sampling.source_order)


def batches(
    source: PairSource,
    target: PairSource,
    layout: Layout,
    sampler: sampling.TargetSampler,
    *,
    seed: int,
    first_step: int,
    num_steps: int,
    num_threads: int = NUM_THREADS,
    prefetch: int = 4,
) -> Iterator[Batch]:
    """This process's rows of the global batches of steps `first_step` .. + `num_steps` - 1.

    An epoch has as many steps as whole batches of the source. Row r of step s is position
    (s mod steps per epoch) · batch + r of epoch s // steps per epoch, in the source's shuffled
    order or in the target's sampling by `sampler`; see `dasac_jax.data.sampling`. With
    b = len(layout.source_rows) and g = len(layout.target_rows), a batch has:

        source_image (b, h, w, 3) uint8, source_label (b, h, w) uint8, source_item (b,) int32,
        target_image (g, h', w', 3) uint8, target_item (g,) int32, names: list of b + g str

    where items are global rows and names are of source and then target images; with g = 0 there is
    no target_image and no target_item. `prefetch` steps
    are decoded ahead. Close the iterator (`del` or `.close()`) to stop the threads.

    Raises UserError at once where the source does not fill a batch or there is no target image,
    and while iterating for files that cannot be read or do not answer within STALL_SECONDS; the
    path, the item and the reason are named, and the same steps are read again when the file is
    mended.
    """
    if not len(target):
        raise UserError("there are no target images to train on")
    if layout.source_batch > len(source):
        raise UserError(
            f"{len(source)} source images do not fill a batch of {layout.source_batch}: use a "
            "smaller batch"
        )
    items = _TrainItems(source, target, layout, sampler, seed, first_step, num_steps)
    collate = functools.partial(_train_batch, num_source=len(layout.source_rows))
    return _read_ahead(items, items.rows, collate, num_threads, prefetch)


def evaluation_batches(
    source: PairSource, batch: int, *, num_threads: int = NUM_THREADS, prefetch: int = 2
) -> Iterator[Batch]:
    """All pairs of a source once, in order, in batches of exactly `batch`.

    A batch has image (B, h, w, 3) uint8, label (B, h, w) uint8, names (list of B) and valid (B,)
    bool. The last batch is filled up by repeating the last image with label 255 and valid False,
    so that summed scores count every image once. Raises UserError for files that cannot be read.
    """
    if batch < 1:
        raise UserError(f"the evaluation batch must be at least 1, got {batch}")
    return _read_ahead(
        _AllItems(source),
        batch,
        functools.partial(_evaluation_batch, batch=batch),
        num_threads,
        prefetch,
    )


def _read_ahead(items, batch: int, collate, num_threads: int, prefetch: int) -> Iterator[Batch]:
    """Decodes single items in threads, so that those of one step are spread over all of them."""
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch * batch)
    dataset = grain.MapDataset.source(items).to_iter_dataset(options)
    iterator = iter(dataset.batch(batch, batch_fn=collate))
    try:
        yield from iterator
    finally:
        items.closed.set()
        iterator.close()


def _train_batch(records: Sequence[dict[str, Any]], *, num_source: int) -> Batch:
    source, target = records[:num_source], records[num_source:]
    batch = {
        "source_image": np.stack([r["image"] for r in source]),
        "source_label": np.stack([r["label"] for r in source]),
        "source_item": np.array([r["item"] for r in source], np.int32),
        "names": [r["name"] for r in records],
    }
    if target:
        batch["target_image"] = np.stack([r["image"] for r in target])
        batch["target_item"] = np.array([r["item"] for r in target], np.int32)
    return batch


def _evaluation_batch(records: Sequence[dict[str, Any]], *, batch: int) -> Batch:
    short = batch - len(records)
    last = records[-1] | {"label": np.full_like(records[-1]["label"], IGNORE)}
    padded = [*records, *[last] * short]
    return {
        "image": np.stack([r["image"] for r in padded]),
        "label": np.stack([r["label"] for r in padded]),
        "names": [r["name"] for r in padded],
        "valid": np.arange(batch) < len(records),
    }
