"""The two domains of data of one's own: their files, sizes, and what their labels hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from dasac_jax.own_data import pairing, places, survey
from dasac_jax.own_data.class_files import Table
from dasac_jax.own_data.pairing import Pairing
from dasac_jax.own_data.survey import Labels, Size

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a progress bar with a title and a number of steps; gives a function to move it."""


class Domain(NamedTuple):
    """The images of a domain, those with labels in pairs, and sizes in the images' order.

    pairing: None where no labels were given.
    """

    images: tuple[Path, ...]
    sizes: tuple[Size, ...]
    pairing: Pairing | None


def find(
    name: str,
    images: Sequence[str],
    labels: Sequence[str] | None,
    table: Table | None,
    jobs: int,
    progress: Progress,
) -> Domain:
    """The files of the domain `name`, "source" or "target", from its two flags' places.

    table: of the classes, which may say how the names of labels end. Raises UserError as `find` and
    `pair` do.
    """
    found = places.find(images, places.IMAGE_SUFFIXES, f"--{name}-images")
    pairs, paths = None, [image.path for image in found]
    if labels:
        option = f"--{name}-labels"
        endings = table.endings if table else ()
        label_files = places.find(labels, places.LABEL_SUFFIXES, option)
        pairs = pairing.pair(found, label_files, endings, option)
        # Where labels lie among the images, they are no images themselves.
        paths = [path for path in paths if path not in _labels(pairs)]
        if name == "source":
            paths = [image for image, _ in pairs.pairs]
    with progress(f"{name} images", len(paths)) as update:
        sizes = survey.image_sizes(paths, jobs, update)
    return Domain(tuple(paths), tuple(sizes), pairs)


def read_labels(
    name: str, domain: Domain, *, by_colour: bool, kept: Path | None, jobs: int, progress: Progress
) -> Labels:
    """What the labels of a domain hold, see `survey.read_labels`."""
    pairs = domain.pairing.pairs
    size_of = dict(zip(domain.images, domain.sizes, strict=True))
    sizes = [size_of[image] for image, _ in pairs]
    option = f"--{name}-labels"
    with progress(f"{name} labels", len(pairs)) as update:
        return survey.read_labels(
            pairs, sizes, option, by_colour=by_colour, kept=kept, jobs=jobs, update=update
        )


def _labels(pairs: Pairing) -> set[Path]:
    return {label for _, label in pairs.pairs} | set(pairs.labels_alone)
