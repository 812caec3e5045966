"""Which images and labels each role of a run reads, and where their files are.

The pairs of a role come from its list file, which holds one `image[ label]` per line, relative to
the data root (see `list_files`). Without a list file they come from the sorted folders, divided in
the published proportions, always in the same way. Data of one's own ("custom") always have list
files.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dasac_jax.data import classes, layout, list_files
from dasac_jax.data.layout import Entries, Folders
from dasac_jax.data.pairs import PREPARED, STRETCH, Pair, PairSource
from dasac_jax.data.tfds import records
from dasac_jax.data.tfds.records import Records
from dasac_jax.errors import UserError
from dasac_jax.files import check_reachable

ROLES = ("source_train", "source_val", "target_train", "selection", "val")
"""What a run uses images for; `open_source` says what each role is."""

_TARGET_LISTS = {
    "target_train": "train_cityscapes.txt",
    "selection": "val2_cityscapes.txt",
    "val": "val_cityscapes.txt",
}


@dataclasses.dataclass(frozen=True)
class _Source:
    """A labelled source: its folders, the names of its published lists, and its origin in words.

    held_out_is_trained_on: whether "source_val" is a part of "source_train".
    """

    folders: Folders
    lists: dict[str, str]
    held_out_is_trained_on: bool
    origin: str


_SOURCES = {
    "gta5": _Source(
        layout.GTA5,
        {"source_train": "train_game_9K.txt", "source_val": "val_game_1K.txt"},
        False,
        'GTA5, from the download site of "Playing for Data"',
    ),
    "synthia": _Source(
        layout.SYNTHIA,
        {"source_train": "train_synthia_9K.txt", "source_val": "val_synthia.txt"},
        True,
        "SYNTHIA-RAND-CITYSCAPES, from the SYNTHIA download site",
    ),
    classes.CUSTOM: _Source(
        Folders("", ""), {role: f"{role}.txt" for role in ROLES}, False, "your own"
    ),
}


def open_source(
    data_config: Any, role: str, list_file: str | os.PathLike | None = None
) -> PairSource:
    """The source for one of ROLES; `data_config` is the configuration's `data` section.

    "source_train" and "source_val" are labelled source images, "target_train" the unlabelled
    target (its label files are never opened), "selection" labelled images out of target training,
    "val" the target's validation set. list_file: holds the pairs instead of the role's own. All
    files of the pairs are looked for, each folder being read once; none is opened. Raises UserError
    for missing folders and files, bad lists and impossible splits.
    """
    root = os.fspath(data_config.root)
    name = str(list_file or role)
    stored = None if list_file else records.open_records(data_config, role)
    list_file = list_file or _list_file(data_config, role)
    entries = layout.folder_entries(root)

    def is_file(path: str) -> bool:
        return path in stored.places if stored else not layout.missing_files(root, entries, [path])

    if list_file:
        pairs = list_files.read_pairs(list_file, root, is_file, labelled=role != "target_train")
    else:
        pairs = _pairs_of_folders(data_config, role, stored, entries)
    if role == "target_train":
        pairs = tuple((image, None) for image, _ in pairs)
    else:
        unlabelled = [image for image, label in pairs if label is None]
        if unlabelled:
            raise UserError(
                f"list file {list_file} gives no label for {len(unlabelled)} of {len(pairs)} "
                f"images, first {unlabelled[0]}: `image label` is needed in each line"
            )
    if stored:
        stored.check(role, pairs)
    else:
        labelled = [label for _, label in pairs if label is not None]
        _check_files(data_config, entries, name, "images", [image for image, _ in pairs])
        _check_files(data_config, entries, name, "labels", labelled)
    of_source = role.startswith("source")
    height, width = data_config.source_size if of_source else data_config.target_size
    stretch = STRETCH.get(data_config.source, 0.0) if of_source else 0.0
    return PairSource(
        root, pairs, (int(height), int(width)), name,
        len(classes.of(data_config)), classes.id_map(data_config, role), stored, stretch,
    )  # fmt: skip


def _source(data_config: Any) -> _Source:
    if data_config.source not in _SOURCES:
        raise UserError(
            f"data.source is {data_config.source!r}: one of {sorted(_SOURCES)} is known"
        )
    return _SOURCES[data_config.source]


def _list_file(data_config: Any, role: str) -> str | None:
    """The role's list file, or None where there is none and the folders decide."""
    lists = _list_names(data_config)
    if role not in lists:
        raise UserError(f"unknown role {role!r}: one of {', '.join(ROLES)} expected")
    path = os.path.join(data_config.lists, lists[role])
    if data_config.lists:
        check_reachable(path)
    # A folder of this name, or a link to nothing, is a mistake that reading it will name.
    return path if data_config.lists and os.path.lexists(path) else None


def _list_names(data_config: Any) -> dict[str, str]:
    return _TARGET_LISTS | _source(data_config).lists


def has(data_config: Any, role: str) -> bool:
    """Whether there are images of a role; only data of one's own may lack those of a role."""
    own = data_config.source == classes.CUSTOM
    return not own or _list_file(data_config, role) is not None


def _pairs_of_folders(
    data_config: Any, role: str, stored: Records | None, entries: Entries
) -> tuple[Pair, ...]:
    """The pairs of a role without a list file.

    stored: what holds the files instead of the folders, or None.
    """
    if data_config.source == classes.CUSTOM:
        raise UserError("missing: " + "; ".join(_missing_lists(data_config, [role])))
    if role.startswith("source"):
        return _source_pairs(data_config, role, stored, entries)
    folders = layout.cityscapes("val" if role == "val" else "train")
    pairs = _all_pairs(data_config, folders, stored, entries, labelled=role != "target_train")
    if role == "selection":
        return _spread(pairs, data_config.selection_images, "data.selection_images")
    return pairs


def _source_pairs(
    data_config: Any, role: str, stored: Records | None, entries: Entries
) -> tuple[Pair, ...]:
    """The pairs of "source_train" or "source_val" without a list file."""
    source = _source(data_config)
    pairs = _all_pairs(data_config, source.folders, stored, entries, labelled=True)
    pairs = pairs[: data_config.source_images or None]
    held_out = _spread(pairs, data_config.source_held_out, "data.source_held_out")
    if role == "source_val":
        return held_out
    if source.held_out_is_trained_on:
        return pairs
    if len(held_out) == len(pairs):
        raise UserError(f"data.source_held_out holds out all {len(pairs)} source images")
    apart = set(held_out)
    return tuple(pair for pair in pairs if pair not in apart)


def _all_pairs(
    data_config: Any, folders: Folders, stored: Records | None, entries: Entries, *, labelled: bool
) -> tuple[Pair, ...]:
    """All images of a set, sorted, with the labels that belong to them, there or not.

    labelled: whether labels are looked for.
    """
    if stored:
        names = stored.names_below(folders.images)
    else:
        place = Path(data_config.root, folders.images)
        if not place.is_dir():
            raise UserError(f"folder {place} is missing")
        names = layout.image_names(data_config.root, entries, folders)
        if not names:
            raise UserError(f"folder {place} holds no images {folders.pattern}")
    look = entries if labelled and not stored else layout.no_entries
    return tuple(
        (f"{folders.images}/{name}", layout.label_path(look, folders, name)) for name in names
    )


def _spread(pairs: Sequence[Pair], count: int, key: str) -> tuple[Pair, ...]:
    """`count` pairs at equal distances, because consecutive frames resemble each other.

    Raises UserError naming the configuration's `key` where there are too few pairs.
    """
    if not 0 <= count <= len(pairs):
        raise UserError(f"{key} is {count}, but there are {len(pairs)} images to take them from")
    return tuple(pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(count))


def _check_files(
    data_config: Any, entries: Entries, name: str, kind: str, paths: Sequence[str]
) -> None:
    """Raise UserError where files are missing. kind: "images" or "labels" of the source `name`."""
    root = data_config.root
    absent = layout.missing_files(root, entries, paths)
    if absent:
        prepared = kind == "labels" and data_config.source != classes.CUSTOM
        advice = f"; labels are {PREPARED}" if prepared else ""
        meant = layout.similar_file(entries, absent[0])
        advice += f"; there is a file {meant}" if meant else ""
        raise UserError(
            f"{len(absent)} of {len(paths)} {kind} of {name} are missing below {root}, "
            f"first: {', '.join(absent[:3])}{advice}"
        )


def missing(data_config: Any, roles: Sequence[str] = ROLES) -> list[str]:
    """One line per folder or list file that `roles` need and that is not there.

    A line has the path, what should be there, and where it comes from. Looks for no image.
    """
    if data_config.source == classes.CUSTOM:
        return _missing_lists(data_config, roles)
    source, root = _source(data_config), Path(data_config.root)
    lines = []
    if data_config.lists and not any(_list_file(data_config, role) for role in ROLES):
        names = " or ".join(sorted(_list_names(data_config).values()))
        lines.append(f"{data_config.lists}: list files ({names}), because data.lists is set")
    folders: dict[str, str] = {}
    for role in roles:
        if _list_file(data_config, role) or records.find(data_config, role):
            continue  # `open_source` looks for the files that a list or a stored set names
        if role.startswith("source"):
            origin = source.origin
            folders[source.folders.images] = f"the source images: {origin}"
            folders[source.folders.labels] = f"the source labels as train ids, {PREPARED}: {origin}"
            continue
        split = "val" if role == "val" else "train"
        target = layout.cityscapes(split)
        folders[target.images] = (
            f"the target images ({split}): leftImg8bit_trainvaltest.zip "
            "from www.cityscapes-dataset.com"
        )
        if role == "val" or (role == "selection" and data_config.selection_images):
            folders[target.labels] = (
                f"the target labels ({split}) as train ids, {PREPARED} from gtFine: "
                "gtFine_trainvaltest.zip from www.cityscapes-dataset.com"
            )
    lines += [
        f"{root / path}: {use}" for path, use in folders.items() if not (root / path).is_dir()
    ]
    return lines


def _missing_lists(data_config: Any, roles: Sequence[str]) -> list[str]:
    """`missing` for data of one's own."""
    lines = []
    for role in roles:
        if _list_file(data_config, role) is None:
            path = os.path.join(data_config.lists, _list_names(data_config)[role])
            line = "an image" if role == "target_train" else "`image label`"
            lines.append(
                f"{path}: the list of {role.replace('_', ' ')} images, {line} in each line, "
                f'relative to {data_config.root}, because data.source is "{classes.CUSTOM}"'
            )
    return lines
