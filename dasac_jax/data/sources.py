"""Random-access sources of image and label pairs, from list files or from the folders.

A list file holds one `image[ label]` per line, relative to the data root. Where there is none, the
folders are sorted and split deterministically into sets of the published sizes. Data of one's own
("custom") have lists only.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dasac_jax.data import classes
from dasac_jax.data.pairs import PREPARED, Pair, PairSource
from dasac_jax.data.tfds import records
from dasac_jax.errors import UserError
from dasac_jax.files import CITYSCAPES_IMAGE, cityscapes_label

ROLES = ("source_train", "source_val", "target_train", "selection", "val")

_TARGET_LISTS = {
    "target_train": "train_cityscapes.txt",
    "selection": "val2_cityscapes.txt",
    "val": "val_cityscapes.txt",
}
_IMAGES = "cityscapes/leftImg8bit"
_LABELS = "cityscapes/gtFine2"


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where a labelled source lies, and the names of its published lists."""

    images: str
    labels: str
    lists: dict[str, str]
    held_out_is_trained_on: bool
    origin: str


_SOURCES = {
    "gta5": _Source(
        "game/images",
        "game/labels_cs",
        {"source_train": "train_game_9K.txt", "source_val": "val_game_1K.txt"},
        False,
        'GTA5, from the download site of "Playing for Data"',
    ),
    "synthia": _Source(
        "synthia/RGB",
        "synthia/labels_cs",
        {"source_train": "train_synthia_9K.txt", "source_val": "val_synthia.txt"},
        True,
        "SYNTHIA-RAND-CITYSCAPES, from the SYNTHIA download site",
    ),
    classes.CUSTOM: _Source("", "", {role: f"{role}.txt" for role in ROLES}, False, "your own"),
}


def read_list(path: str | os.PathLike) -> tuple[Pair, ...]:
    """The pairs of a list file; blank lines are skipped.

    Raises UserError with file and line for lines that are not one or two relative paths, and for
    images listed twice; names the file when it is unreadable or empty.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read list file {path}: {error}") from error
    lines: dict[str, int] = {}
    pairs = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"list file {path}, line {number}"
        if len(fields) > 2:
            raise UserError(f"{where}: `image` or `image label` expected, got {line.strip()!r}")
        if any(os.path.isabs(field) for field in fields):
            raise UserError(f"{where}: paths relative to the data root expected, got {line!r}")
        if fields[0] in lines:
            raise UserError(f"{where}: {fields[0]} is listed in line {lines[fields[0]]} already")
        lines[fields[0]] = number
        pairs.append((fields[0], fields[1] if len(fields) == 2 else None))
    if not pairs:
        raise UserError(f"list file {path} is empty")
    return tuple(pairs)


def open_source(
    data_config: Any, role: str, list_file: str | os.PathLike | None = None
) -> PairSource:
    """The source for one of ROLES; `data_config` is the configuration's `data` section.

    "source_train" and "source_val" are labelled source images, "target_train" the unlabelled
    target (its label files are never opened), "selection" labelled images out of target training,
    "val" the target's validation set. list_file: holds the pairs instead of the role's own. Only
    files of the pairs are looked for here; nothing is decoded. Raises UserError for missing
    folders and files, bad lists and impossible splits.
    """
    root = os.fspath(data_config.root)
    name = str(list_file or role)
    stored = None if list_file else records.open_records(data_config, role)
    list_file = list_file or _list_file(data_config, role)
    pairs = read_list(list_file) if list_file else _derive(data_config, role, stored)
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
        _check_files(data_config, name, "images", [image for image, _ in pairs])
        _check_files(data_config, name, "labels", labelled)
    size = data_config.source_size if role.startswith("source") else data_config.target_size
    height, width = size
    return PairSource(
        root, pairs, (int(height), int(width)), name,
        len(classes.of(data_config)), classes.id_map(data_config, role), stored,
    )  # fmt: skip


def _source(data_config: Any) -> _Source:
    if data_config.source not in _SOURCES:
        raise UserError(
            f"data.source is {data_config.source!r}: one of {sorted(_SOURCES)} is known"
        )
    return _SOURCES[data_config.source]


def _list_file(data_config: Any, role: str) -> str | None:
    """The list file that decides this role, or None when the folders do."""
    lists = _list_names(data_config)
    if role not in lists:
        raise UserError(f"unknown role {role!r}: one of {', '.join(ROLES)} expected")
    path = os.path.join(data_config.lists, lists[role])
    return path if data_config.lists and os.path.isfile(path) else None


def _list_names(data_config: Any) -> dict[str, str]:
    return _TARGET_LISTS | _source(data_config).lists


def has(data_config: Any, role: str) -> bool:
    """Whether there are images of a role; only data of one's own may lack those of a role."""
    own = data_config.source == classes.CUSTOM
    return not own or _list_file(data_config, role) is not None


def _derive(data_config: Any, role: str, stored: Any) -> tuple[Pair, ...]:
    """The pairs of a role from sorted folders; see the module's first lines.

    stored: the `Records` to take instead of folders, or None.
    """
    if data_config.source == classes.CUSTOM:
        raise UserError("; ".join(_missing_lists(data_config, [role])))
    if role.startswith("source"):
        return _derive_source(data_config, role, stored)
    split = "val" if role == "val" else "train"
    folder = f"{_IMAGES}/{split}"
    pairs = tuple(
        (
            f"{folder}/{name}",
            f"{_LABELS}/{split}/{cityscapes_label(name)}",
        )
        for name in _names(data_config, folder, f"*/*{CITYSCAPES_IMAGE}", stored)
    )
    if role == "selection":
        return _spread(pairs, data_config.selection_images, "data.selection_images")
    return pairs


def _derive_source(data_config: Any, role: str, stored: Any) -> tuple[Pair, ...]:
    source = _source(data_config)
    names = _names(data_config, source.images, "*", stored)
    names = names[: data_config.source_images or None]
    pairs = tuple((f"{source.images}/{name}", f"{source.labels}/{name}") for name in names)
    held_out = _spread(pairs, data_config.source_held_out, "data.source_held_out")
    if role == "source_val":
        return held_out
    if source.held_out_is_trained_on:
        return pairs
    if len(held_out) == len(pairs):
        raise UserError(f"data.source_held_out holds out all {len(pairs)} source images")
    apart = set(held_out)
    return tuple(pair for pair in pairs if pair not in apart)


def _names(data_config: Any, folder: str, pattern: str, stored: Any) -> list[str]:
    """The images below a folder of the data root, in order."""
    if stored:
        return stored.names_below(folder)
    place = Path(data_config.root, folder)
    return [path.relative_to(place).as_posix() for path in _png(place, pattern)]


def _png(folder: Path, pattern: str) -> list[Path]:
    """The sorted PNG files that match; hidden ones are unfinished files. Empty is an error."""
    if not folder.is_dir():
        raise UserError(f"folder {folder} is missing")
    paths = sorted(p for p in folder.glob(f"{pattern}.png") if not p.name.startswith("."))
    if not paths:
        raise UserError(f"folder {folder} holds no images {pattern}.png")
    return paths


def _spread(pairs: Sequence[Pair], count: int, key: str) -> tuple[Pair, ...]:
    """`count` pairs spread evenly over all: consecutive frames resemble each other."""
    if not 0 <= count <= len(pairs):
        raise UserError(f"{key} is {count}, but there are {len(pairs)} images to take them from")
    return tuple(pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(count))


def _check_files(data_config: Any, name: str, kind: str, paths: Sequence[str]) -> None:
    root = data_config.root
    absent = [path for path in paths if not os.path.isfile(os.path.join(root, path))]
    if absent:
        prepared = kind == "labels" and data_config.source != classes.CUSTOM
        advice = f"; labels are {PREPARED}" if prepared else ""
        raise UserError(
            f"{len(absent)} of {len(paths)} {kind} of {name} are missing below {root}, "
            f"first: {', '.join(absent[:3])}{advice}"
        )


def missing(data_config: Any, roles: Sequence[str] = ROLES) -> list[str]:
    """One line per folder or list file that `roles` need and that is not there; empty when ready.

    A line has the path, what should be there, and where it comes from. Reads no file.
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
            continue  # its files are looked for when it is opened
        if role.startswith("source"):
            folders[source.images] = f"the source images: {source.origin}"
            folders[source.labels] = f"the source labels as train ids, {PREPARED}: {source.origin}"
            continue
        split = "val" if role == "val" else "train"
        folders[f"{_IMAGES}/{split}"] = (
            f"the target images ({split}): leftImg8bit_trainvaltest.zip "
            "from www.cityscapes-dataset.com"
        )
        if role == "val" or (role == "selection" and data_config.selection_images):
            folders[f"{_LABELS}/{split}"] = (
                f"the target labels ({split}) as train ids, {PREPARED} from gtFine: "
                "gtFine_trainvaltest.zip from www.cityscapes-dataset.com"
            )
    lines += [
        f"{root / path}: {use}" for path, use in folders.items() if not (root / path).is_dir()
    ]
    return lines


def _missing_lists(data_config: Any, roles: Sequence[str]) -> list[str]:
    """`missing` for data of one's own."""
    what = {True: "`image label` in each line", False: "an image in each line"}
    return [
        f"{os.path.join(data_config.lists, _list_names(data_config)[role])}: the list of "
        f"{role.replace('_', ' ')} images, {what[role != 'target_train']}, relative to "
        f'{data_config.root}, because data.source is "{classes.CUSTOM}"'
        for role in roles
        if _list_file(data_config, role) is None
    ]
