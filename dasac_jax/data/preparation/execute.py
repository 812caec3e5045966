"""Carry out a preparation: link or copy the images and convert the labels, several at a time.

Finished files are kept, so that a preparation continues where it was interrupted.
"""

import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from dasac_jax.data.decoding import displayed_size, read_ids, same_proportions, turned_hint
from dasac_jax.data.pairs import STRETCH
from dasac_jax.data.preparation import original_labels
from dasac_jax.data.preparation.plan import Original, Plan
from dasac_jax.data.preparation.train_ids import (
    CannotWriteError,
    is_current,
    is_of,
    write_train_ids,
    writing,
)
from dasac_jax.errors import UserError
from dasac_jax.files import UNFINISHED

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

KEPT, LINKED, COPIED, WRITTEN = "kept", "linked", "copied", "written"


class Outcome(NamedTuple):
    """What was done for one original.

    image, label: KEPT, LINKED, COPIED or WRITTEN; None for a label that does not exist, and for
    both where `error` says what is wrong. resized: the sizes of image and label, in words, where
    they differed.
    """

    image: str | None
    label: str | None
    resized: str | None = None
    error: str | None = None


@dataclass
class Summary:
    """How many images and labels were kept, linked, copied or written, and what to report."""

    images: Counter = field(default_factory=Counter)
    labels: Counter = field(default_factory=Counter)
    resized: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def in_threads(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    jobs: int,
    update: Callable[[int], None] | None = None,
) -> list[_Result]:
    """The results of `function` for all items, in order, from `jobs` threads.

    Threads suffice because Pillow releases Python's lock while it decodes and encodes. The first
    exception is raised and what has not begun is cancelled. update: called with the number of
    results so far.
    """
    results = []
    pool = ThreadPoolExecutor(jobs)
    try:
        for result in pool.map(function, items):
            results.append(result)
            if update is not None:
                update(len(results))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def carry_out(
    plan: Plan,
    root: Path,
    *,
    copy: bool = False,
    jobs: int = 1,
    update: Callable[[int], None] | None = None,
) -> Summary:
    """Prepare everything of `plan` below `root` in `jobs` threads.

    An original that cannot be read, or in whose place another file lies, is left out and noted
    among the errors. The originals themselves are never changed. update: called with the number of
    originals done. Raises CannotWriteError as soon as a file cannot be written.
    """
    remove_unfinished(plan, root)

    def prepare(original: Original) -> Outcome:
        return _with_error(lambda: _prepare(original, plan, root, copy))

    return _sum(in_threads(prepare, plan.originals, jobs, update))


def dry_run(plan: Plan, root: Path, *, copy: bool = False) -> Summary:
    """What `carry_out` would do, from names, sizes, times and notes in labels. Writes nothing."""
    return _sum(_with_error(lambda o=o: Outcome(*_actions(o, root, copy))) for o in plan.originals)


def remove_unfinished(plan: Plan, root: Path) -> int:
    """Remove the unfinished files that a killed preparation left. Returns how many there were."""
    places = [p for o in plan.originals for p in (o.image_place, o.label_place) if p]
    count = 0
    for folder in sorted({(root / place).parent for place in places}):
        for path in folder.glob(f".*.png{UNFINISHED}"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise CannotWriteError(f"cannot remove the unfinished {path}: {error}") from error
            count += 1
    return count


def _with_error(prepare: Callable[[], Outcome]) -> Outcome:
    """The outcome of `prepare`, with an exception about an original's files put into words."""
    try:
        return prepare()
    except CannotWriteError:
        raise
    except UserError as error:
        return Outcome(None, None, error=str(error))
    except OSError as error:
        return Outcome(None, None, error=f"cannot read {error.filename}: {error.strerror}")


def _sum(outcomes: Iterable[Outcome]) -> Summary:
    summary = Summary()
    for outcome in outcomes:
        if outcome.error:
            summary.errors.append(outcome.error)
            continue
        summary.images[outcome.image] += 1
        if outcome.label:
            summary.labels[outcome.label] += 1
        if outcome.resized:
            summary.resized.append(outcome.resized)
    return summary


def _prepare(original: Original, plan: Plan, root: Path, copy: bool) -> Outcome:
    image_action, label_action = _actions(original, root, copy)
    resized = None
    # The label comes first, so that no image is linked whose label turns out to be unreadable.
    if label_action == WRITTEN:
        train_ids, resized = _read(original, plan)
        label_action = _write_label(root / original.label_place, train_ids, original.label)
    if image_action != KEPT:
        with writing(root / original.image_place) as part:
            if copy:
                shutil.copy2(original.image, part)  # with its time, see `_is_copy`
            else:
                part.symlink_to(original.image.resolve())
    return Outcome(image_action, label_action, resized)


def _actions(original: Original, root: Path, copy: bool) -> tuple[str, str | None]:
    """What has to be done for image and label.

    Raises UserError where another file lies in the image's place, OSError where an original cannot
    be read.
    """
    label = None
    if original.label is not None:
        label = KEPT if is_of(root / original.label_place, original.label) else WRITTEN
    needed = COPIED if copy else LINKED
    image, place = original.image, root / original.image_place
    image.stat()  # an error where the original is not there
    if place.is_symlink():  # from an earlier preparation; the originals may have moved since
        linked = not copy and os.path.realpath(place) == os.path.realpath(image)
        return KEPT if linked else needed, label
    if not place.exists():
        return needed, label
    # The originals may have been unpacked into the data root itself. They are never replaced.
    if place.is_file() and _is_copy(place, image):
        return KEPT, label
    raise UserError(
        f"{place} is there already and is no copy of {image}: move it away, or choose another "
        "--root"
    )


def _is_copy(place: Path, image: Path) -> bool:
    """Whether a file has the content of an original: only where their times differ they are read.

    A copy gets its original's time when it is made.
    """
    there, wanted = place.stat(), image.stat()
    if os.path.samestat(there, wanted):
        return True
    if there.st_size != wanted.st_size:
        return False
    if there.st_mtime_ns == wanted.st_mtime_ns:
        return True
    return filecmp.cmp(place, image, shallow=False)


def _write_label(place: Path, train_ids: np.ndarray, original: Path) -> str:
    """Write a label, or note of the one that is there that it is the same; KEPT or WRITTEN.

    Raises UserError where a label without such a note, and no older than the original, holds
    something else: it may be of another original, or the user's own.
    """
    action = WRITTEN
    if place.is_file():
        try:
            there = read_ids(place)
        except UserError:  # nothing worth keeping
            there = train_ids[:0]
        if np.array_equal(there, train_ids):
            action = KEPT
        elif there.size and is_of(place, original) is None and is_current(place, original):
            raise UserError(
                f"{place} is there already and is not what {original} gives: move it away, or "
                "choose another --root"
            )
    write_train_ids(place, train_ids, original)
    return action


def _read(original: Original, plan: Plan) -> tuple[np.ndarray, str | None]:
    """Train ids (h, w) uint8 to be stored, and the sizes in words where image and label differ."""
    train_ids = original_labels.read(original.label, plan.kind, plan.palettes)
    size = displayed_size(original.image)
    if train_ids.shape == size:
        return train_ids, None
    sizes = f"image {size[1]}×{size[0]}, label {train_ids.shape[1]}×{train_ids.shape[0]}"
    stretch = STRETCH.get(plan.name, 0.0)
    if plan.label_size is None or not same_proportions(size, train_ids.shape, stretch):
        raise UserError(
            f"{original.label} does not fit {original.image}: {sizes}"
            + turned_hint(original.image, size, train_ids.shape)
        )
    resized = Image.fromarray(train_ids).resize(plan.label_size[::-1], Image.Resampling.NEAREST)
    return np.array(resized), f"{original.image.stem} ({sizes})"
