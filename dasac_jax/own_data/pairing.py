"""Which label file belongs to which image, by the names that both share."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dasac_jax.errors import UserError
from dasac_jax.own_data.places import Found

_IMAGE_ENDINGS = re.compile(
    r"[-_. ](leftImg8bit|rgb_anon|rgb_ref_anon|image|img|rgb|sat|photo|raw|color)$", re.IGNORECASE
)
_BEGINNINGS = re.compile(
    r"^(image|img|rgb|photo|mask|label|classgt|gt|seg|segmentation|annotation|semantic)s?[-_. ]?"
    r"(?=\d)",
    re.IGNORECASE,
)
_USUAL_ENDINGS = (
    "_gtFine_labelIds", "_gt_labelIds", "_labelIds", "_gtFine_labellevel3Ids", "_labellevel3Ids",
)  # fmt: skip
_LOSSY = (".jpg", ".jpeg")


class Pairing(NamedTuple):
    """Images with their labels in the images' order, what has no partner, and notes in words."""

    pairs: tuple[tuple[Path, Path], ...]
    images_alone: tuple[Path, ...]
    labels_alone: tuple[Path, ...]
    notes: tuple[str, ...]


class _Fit(NamedTuple):
    """A label that fits an image. ending: of its name; folders: how many folders agree."""

    label: Found
    ending: str
    folders: int


def pair(
    images: Sequence[Found], labels: Sequence[Found], endings: Sequence[str], option: str
) -> Pairing:
    """Pair images and labels whose names agree but for suffix, folders and endings as in `_mask`.

    Of images and labels of equal names those belong together whose folders agree. Where a folder
    holds several label files for each image, differing in how their names end, the first of
    `endings` that there is says which are meant. option: the labels' flag, for messages. Raises
    UserError where two labels fit an image or two images a label, and where no pair is found.
    """
    labels = _without_images(images, labels)
    fits = _fits(images, labels)
    chosen, note = _choose_ending(fits, endings, option)
    partner = {image: _best(image, of_image, option) for image, of_image in chosen.items()}
    partner = _one_image_each(partner)
    used = set(partner.values())
    pairs = tuple((image.path, partner[image].path) for image in images if image in partner)
    if not pairs:
        raise UserError(
            f"{option}: no pairs: no label's name agrees with an image's; the first image is "
            f"{images[0].path.name}, the first label {labels[0].path.name}"
            if labels
            else f"{option}: no pairs: all label files are images too"
        )
    label_paths = {label.path for label in labels}
    same_ending = {fit.label for of_image in chosen.values() for fit in of_image}
    spare = {fit.label for of_image in fits.values() for fit in of_image} - same_ending
    return Pairing(
        pairs,
        tuple(i.path for i in images if i not in partner and i.path not in label_paths),
        tuple(x.path for x in labels if x not in used and x not in spare),
        (note,) if note else (),
    )


def _without_images(images: Sequence[Found], labels: Sequence[Found]) -> list[Found]:
    """The labels where images and labels lie in one folder: what may be a label of another file."""
    both = {image.path for image in images} & {label.path for label in labels}
    if not both:
        return list(labels)
    stems = {image.path.with_suffix("") for image in images}
    lossy = {image.path.with_suffix("") for image in images if image.path.suffix.lower() in _LOSSY}

    def is_label(path: Path) -> bool:
        if path.suffix.lower() in _LOSSY:
            return False
        shorter = [path.with_name(name) for name, _ in _shortened(path.stem) if name != path.stem]
        return path.with_suffix("") in lossy or any(name in stems for name in shorter)

    return [label for label in labels if label.path not in both or is_label(label.path)]


def _fits(images: Sequence[Found], labels: Sequence[Found]) -> dict[Found, list[_Fit]]:
    """The labels whose names fit each image's."""
    by_key = defaultdict(list)
    label_paths = {label.path for label in labels}
    for image in images:
        if image.path not in label_paths:
            by_key[_key(image.path.stem)].append(image)
    fits: dict[Found, list[_Fit]] = {}
    for label in labels:
        for name, ending in _shortened(label.path.stem):
            if found := by_key.get(_key(name)):
                for image in found:
                    common = _agreeing(image.folders, label.folders)
                    fits.setdefault(image, []).append(_Fit(label, ending, common))
                break
    return fits


def _key(stem: str) -> str:
    """What the name of an image has in common with that of its label."""
    return _BEGINNINGS.sub("", _IMAGE_ENDINGS.sub("", stem))


def _shortened(stem: str) -> list[tuple[str, str]]:
    """A label's name as it is, and without endings of at least one letter, the longest first."""
    cuts = [match.start() for match in re.finditer(r"[-_. ]", stem)][::-1]
    shorter = [(stem[:cut], stem[cut:]) for cut in cuts if cut]
    return [(stem, "")] + [(a, b) for a, b in shorter if re.search("[A-Za-z]", b)]


def _agreeing(first: Sequence[str], second: Sequence[str]) -> int:
    """How many folders occur on both ways."""
    return (Counter(first) & Counter(second)).total()


def _choose_ending(
    fits: dict[Found, list[_Fit]], endings: Sequence[str], option: str
) -> tuple[dict[Found, list[_Fit]], str | None]:
    """The fits of one ending where images have labels of several, and a note which was taken."""
    counts = Counter(ending for of in fits.values() for ending in {fit.ending for fit in of})
    several = any(len({fit.ending for fit in of}) > 1 for of in fits.values())
    if not several:
        return fits, None
    ending = next((e for e in (*endings, *_USUAL_ENDINGS) if e in counts), None)
    if ending is None:
        image, found = next((i, of) for i, of in fits.items() if len({f.ending for f in of}) > 1)
        names = ", ".join(sorted({fit.label.path.name for fit in found})[:4])
        pattern = f"**/*{found[0].ending}{found[0].label.path.suffix}"
        raise UserError(
            f"{option}: several labels fit image {image.path.name}: {names}; name those that are "
            f"meant by a pattern in quotes, such as '{pattern}' below their folder"
        )
    chosen = {image: [fit for fit in of if fit.ending == ending] for image, of in fits.items()}
    others = ", ".join(f"*{e or '(no ending)'}" for e, _ in counts.most_common() if e != ending)
    return {i: of for i, of in chosen.items() if of}, f"labels are *{ending}, not {others}"


def _best(image: Found, fits: Sequence[_Fit], option: str) -> Found:
    most = max(fit.folders for fit in fits)
    best = [fit.label for fit in fits if fit.folders == most]
    if len(best) > 1:
        raise UserError(
            f"{option}: two labels fit image {image.path}: {best[0].path} and {best[1].path}; "
            "remove one of them, or name the folders of images and labels that belong together"
        )
    return best[0]


def _one_image_each(partner: dict[Found, Found]) -> dict[Found, Found]:
    """Without the images whose label belongs to another image, whose folders agree better."""
    images = defaultdict(list)
    for image, label in partner.items():
        images[label].append(image)
    kept = {}
    for label, fitting in images.items():
        counts = [_agreeing(image.folders, label.folders) for image in fitting]
        best = [i for i, count in zip(fitting, counts, strict=True) if count == max(counts)]
        if len(best) > 1:
            raise UserError(
                f"two images fit label {label.path}: {best[0].path} and {best[1].path}; give "
                "folders in which each label has one image"
            )
        kept[best[0]] = label
    return kept
