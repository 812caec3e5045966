"""TFDS builders that store the PNG files of a prepared set in ArrayRecord files.

The records are in the order of the folders and the metadata holds the files' names, so that readers
can divide a set into training and held-out images as they divide the folders.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from dasac_jax.data import layout
from dasac_jax.data.decoding import DECODE_ERRORS, check_label_format, displayed_size
from dasac_jax.data.labels import IGNORE
from dasac_jax.data.pairs import STRETCH, PairSource
from dasac_jax.data.tfds import sets
from dasac_jax.errors import UserError

_OPTIONS = "group_size:1,uncompressed"  # PNGs are compressed already
_SHARD = 500  # examples per file: about 1 GB of full-sized images


@dataclasses.dataclass(eq=False)
class Storage(tfds.core.BuilderConfig):
    """How a set is stored. size: (h, w) of all images and labels, None to store files unchanged."""

    size: sets.Size | None = None


def storage(size: sets.Size | None) -> Storage:
    """The builder's `config` for a size."""
    what = "as prepared" if size is None else f"brought to {size[1]}×{size[0]} pixels"
    return Storage(
        name=sets.storage_name(size), description=f"Images and labels {what}.", size=size
    )


class _InfoWithoutServer(tfds.core.DatasetInfo):
    """What is known of a set; no server is asked."""

    def initialize_from_bucket(self) -> None:
        """Do nothing: the set is on no server.

        TFDS would look for it there, and leave an empty folder among the temporary files.
        """


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images and train-id labels of one prepared set; `manual_dir` is the data root.

    An example has `image` (h, w, 3) uint8, `label` (h, w, 1) uint8 (255 everywhere where the set
    has none) and `name`, the image's path below the root. splits: those to build. jobs: files to
    work on at a time. update: called with the number of examples of all splits that are done.
    """

    VERSION = tfds.core.Version(sets.VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The data root that scripts/prepare_data.py filled."
    SET = ""

    def __init__(
        self,
        *,
        splits: Sequence[str] = (),
        jobs: int = 1,
        update: Callable[[int], None] | None = None,
        **options: Any,
    ) -> None:
        self._splits = tuple(splits) or sets.SPLITS[self.SET]
        self._jobs = jobs
        self._update = update
        self._done = 0
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        return _InfoWithoutServer(
            builder=self,
            description=f"{self.SET}, prepared for training: images and train ids as PNG.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.Image(shape=(None, None, 1)),
                    "name": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        root = Path(dl_manager.manual_dir)
        pairs = {split: layout.find_pairs(root, self.SET, split) for split in self._splits}
        self.info.metadata["pairs"] = pairs
        return {split: self._generate_examples(root, pairs[split]) for split in pairs}

    def _generate_examples(
        self, root: Path, pairs: Sequence[sets.Pair]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        def read(index: int) -> tuple[bytes, bytes]:
            if self.builder_config.size is None:
                return _unchanged(root, pairs[index])
            return _resized(
                root, pairs[index], self.builder_config.size, STRETCH.get(self.SET, 0.0)
            )

        for index, (image, label) in enumerate(_read_ahead(read, len(pairs), self._jobs)):
            yield index, {"image": image, "label": label, "name": pairs[index][0]}
            self._done += 1
            if self._update is not None:
                self._update(self._done)

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> None:
        del download_config
        # The inherited writer keeps a whole split in memory to sort it, and beyond 1 GB it uses
        # temporary files, for which it needs TensorFlow.
        splits = self._split_generators(dl_manager)
        infos = [self._write(split, examples) for split, examples in splits.items()]
        self.info.set_splits(tfds.core.SplitDict(infos))

    def _write(self, split: str, examples: Iterator[tuple[int, Any]]) -> tfds.core.SplitInfo:
        """Write a split's examples in their order, `_SHARD` to a file."""
        template = tfds.core.ShardedFileTemplate(
            dataset_name=self.name, data_dir=self.data_path, split=split,
            filetype_suffix=self.info.file_format.file_suffix,
        )  # fmt: skip
        count = len(self.info.metadata["pairs"][split])
        lengths = [min(_SHARD, count - start) for start in range(0, count, _SHARD)]
        num_bytes = 0
        for index, length in enumerate(lengths):
            path = template.sharded_filepath(shard_index=index, num_shards=len(lengths))
            writer = ArrayRecordWriter(str(path), _OPTIONS)
            for _, example in itertools.islice(examples, length):
                record = self.info.features.serialize_example(example)
                writer.write(record)
                num_bytes += len(record)
            writer.close()
        return tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template
        )


class PreparedCityscapes(Prepared):
    """The target: train, val and test (without labels)."""

    SET = "cityscapes"


class PreparedGta5(Prepared):
    """GTA5 as the source."""

    SET = "gta5"


class PreparedSynthia(Prepared):
    """SYNTHIA-RAND-CITYSCAPES as the source."""

    SET = "synthia"


BUILDERS = {builder.SET: builder for builder in (PreparedCityscapes, PreparedGta5, PreparedSynthia)}


def _unchanged(root: Path, pair: sets.Pair) -> tuple[bytes, bytes]:
    """The bytes of both files, whose checksums are compared; without a label one of 255 only.

    Raises UserError where a label holds another value than a train id or 255.
    """
    encoded = _checked(root / pair[0])
    if pair[1] is None:
        return encoded, _png(np.full(displayed_size(root / pair[0]), IGNORE, np.uint8))
    PairSource(str(root), (pair,), (1, 1), "the set").label_values(0)
    return encoded, _checked(root / pair[1], check_label_format)


def _resized(root: Path, pair: sets.Pair, size: sets.Size, stretch: float) -> tuple[bytes, bytes]:
    """Both files resized as training does it, encoded as PNG."""
    item = PairSource(str(root), (pair,), size, "the set", stretch=stretch)[0]
    return _png(item["image"]), _png(item["label"])


def _checked(path: Path, check_format: Callable[[Image.Image, Path], None] | None = None) -> bytes:
    """A file, whose checksums are compared. check_format: called with the opened image."""
    try:
        encoded = path.read_bytes()
        with Image.open(io.BytesIO(encoded)) as image:
            if check_format is not None:
                check_format(image, path)
            image.verify()
    except DECODE_ERRORS as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return encoded


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def _read_ahead(read: Callable[[int], Any], count: int, jobs: int) -> Iterator[Any]:
    """read(0), read(1), … in order, at most 2 · `jobs` of them being read or waiting."""
    pool = ThreadPoolExecutor(jobs)
    waiting: deque[Future] = deque()
    try:
        for index in range(count):
            waiting.append(pool.submit(read, index))
            if len(waiting) == 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
