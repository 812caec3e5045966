"""Batches of decoded images on the host, read ahead by Grain's threads.

What cannot be read ends the run with its path, item and reason; so does what never answers.

What a step reads is a function of (seed, step) alone: resuming means starting at a later step, and
a process of several reads its rows of the same global batch.
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
from dasac_jax.data.labels import IGNORE, NUM_CLASSES
from dasac_jax.data.pairs import PairSource
from dasac_jax.errors import UserError

Batch = dict[str, Any]

NUM_THREADS = 8
"""Decoding threads; PNG decoding and resizing release the interpreter lock."""

STALL_SECONDS = 45
"""How long a single image and its label may take; far less than a second is usual."""

_LOOKS = 45  # while waiting for one


@dataclasses.dataclass(frozen=True)
class _TrainItems:
    """All images of all steps as one random-access sequence: of a step, source rows come first."""

    source: PairSource
    target: PairSource
    sampler: sampling.TargetSampler
    seed: int
    first_step: int
    num_steps: int
    steps_per_epoch: int
    source_batch: int
    target_batch: int
    source_rows: range
    target_rows: range
    closed: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def rows(self) -> int:
        return len(self.source_rows) + len(self.target_rows)

    def __len__(self) -> int:
        return self.num_steps * self.rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        step, row = divmod(int(index), self.rows)
        epoch, step = divmod(self.first_step + step, self.steps_per_epoch)
        if row < len(self.source_rows):
            item = self.source_rows[row]
            order = _source_order(self.seed, epoch, len(self.source))
            record = _read(self.source, int(order[step * self.source_batch + item]), self.closed)
        else:
            item = self.target_rows[row - len(self.source_rows)]
            position = step * self.target_batch + item
            record = _read(self.target, self.sampler.index(self.seed, epoch, position), self.closed)
        return record | {"item": item}


@dataclasses.dataclass(frozen=True)
class _AllItems:
    """The items of a source, read under guard."""

    source: PairSource
    closed: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return _read(self.source, int(index), self.closed)


def _read(source: PairSource, index: int, closed: threading.Event) -> dict[str, Any]:
    """source[index], in a thread of its own: should it hang, nothing has to wait for its end.

    closed: set when nobody wants the items any more, so that waiting for others ends as well.

    Raises UserError naming the file and item when it takes longer than STALL_SECONDS, or its
    thread dies.
    """
    done: queue.SimpleQueue = queue.SimpleQueue()

    def read() -> None:
        try:
            done.put((source[index], None))
        except BaseException as error:  # whatever it is, whoever waits has to know
            done.put((None, error))

    threading.Thread(target=read, daemon=True).start()
    where = f"{source.pairs[index][0]} (item {index} of {source.name}, in {source.root})"
    # Looks are counted, not seconds: a program that was suspended for a while goes on.
    for _ in range(_LOOKS):
        try:
            record, error = done.get(timeout=STALL_SECONDS / _LOOKS)
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
    *,
    seed: int,
    first_step: int,
    num_steps: int,
    source_batch: int,
    target_batch: int,
    steps_per_epoch: int,
    source_rows: range,
    target_rows: range,
    weights: np.ndarray | None = None,
    num_classes: int = NUM_CLASSES,
    uniform_classes: Sequence[int] = (),
    num_threads: int = NUM_THREADS,
    prefetch: int = 4,
) -> Iterator[Batch]:
    """The local rows of the global batches of steps `first_step` .. `first_step` + `num_steps` - 1.

    Row r of step s is position (s mod steps_per_epoch) · batch + r of epoch s // steps_per_epoch,
    in the source's shuffled order or in the target's sampling by `weights` (N, C); see
    `dasac_jax.data.sampling`. Of b = len(source_rows) and g = len(target_rows) rows, a batch has:

        source_image (b, h, w, 3) uint8, source_label (b, h, w) uint8, source_item (b,) int32,
        target_image (g, h', w', 3) uint8, target_item (g,) int32, names: list of b + g str

    where items are global rows and names are of source and then target images. `prefetch` steps
    are decoded ahead. Close the iterator (`del` or `.close()`) to stop the threads.

    Raises UserError at once for batches, rows or epochs that do not fit, and while iterating for
    files that cannot be read or do not answer within STALL_SECONDS; the path, the item and the
    reason are named, and the same steps are read again when the file is mended.
    """
    _check_rows("source", source_batch, source_rows)
    _check_rows("target", target_batch, target_rows)
    if not len(target):
        raise UserError("there are no target images to train on")
    if steps_per_epoch < 1 or steps_per_epoch * source_batch > len(source):
        raise UserError(
            f"{len(source)} source images do not fill {max(steps_per_epoch, 1)} steps per epoch "
            f"of {source_batch} images: use a smaller batch or fewer steps per epoch"
        )
    sampler = sampling.target_sampler(len(target), weights, num_classes, uniform_classes)
    items = _TrainItems(
        source, target, sampler, seed, first_step, num_steps, steps_per_epoch,
        source_batch, target_batch, source_rows, target_rows,
    )  # fmt: skip
    collate = functools.partial(_train_batch, num_source=len(source_rows))
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


def _check_rows(domain: str, batch: int, rows: range) -> None:
    if not rows or min(rows) < 0 or max(rows) >= batch:
        raise UserError(f"{domain} rows {rows} are not rows of a batch of {batch}")


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
    return {
        "source_image": np.stack([r["image"] for r in source]),
        "source_label": np.stack([r["label"] for r in source]),
        "source_item": np.array([r["item"] for r in source], np.int32),
        "target_image": np.stack([r["image"] for r in target]),
        "target_item": np.array([r["item"] for r in target], np.int32),
        "names": [r["name"] for r in records],
    }


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
