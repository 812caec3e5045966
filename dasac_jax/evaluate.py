"""python -m dasac_jax.evaluate CHECKPOINT… or PREDICTIONS… --truth FOLDER: IoU, a report."""

from __future__ import annotations

from dasac_jax.runtime import garbage, malloc

if __name__ == "__main__":
    malloc.prepare()  # before anything else, since it may start the command once more
    garbage.collect_seldom()  # importing makes much that stays

import argparse
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from dasac_jax.cli import Parser, code_of, leave
from dasac_jax.errors import UserError
from dasac_jax.runtime import lock, logs

if TYPE_CHECKING:  # imported late, as it takes a while
    from dasac_jax.evaluation.seed_groups import Named

_LOG = logging.getLogger(__name__)

_SPLITS = ("val", "selection", "source_val", "source_train")
_IDS = ("train", "cityscapes")
_WITH_TRUTH = ("ids", "truth_ids")
_WITH_CHECKPOINTS = ("data_root", "split", "list", "teacher", "batch")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises UserError for flags that are unknown or do not go together."""
    parser = Parser(prog="python -m dasac_jax.evaluate", description=_DESCRIPTION)
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help=_INPUT)
    add("--output", type=Path, default=Path("evaluation"), help="the report's folder: %(default)s")
    add("--class-names", help=_CLASS_NAMES)
    add = parser.add_argument_group("checkpoints").add_argument
    add("--data-root", type=Path, help="prepared data; by default that of the checkpoint's run")
    add("--split", choices=_SPLITS, help="images of the data root to score: val by default")
    add("--list", type=Path, help="list file, `image label` in each line, instead of a split")
    add("--teacher", action="store_true", default=None, help="score the teacher, not the student")
    add("--batch", type=int, help="images at a time over all devices, by default one on each")
    add = parser.add_argument_group("label maps").add_argument
    add("--truth", type=Path, help="folder of true label maps, PNG")
    add("--ids", choices=_IDS, help="what the predictions hold: train ids by default")
    add("--truth-ids", choices=_IDS, help="what the truth holds, by default the same")
    flags = parser.parse_args(argv)
    _check(flags)
    return flags


_INPUT = (
    "checkpoints (a run, its stage's folder, a converted one; a run of several seeds, all of which "
    "are scored), or, with --truth, folders of predicted label maps; several are compared with the "
    "first"
)
_CLASS_NAMES = (
    "the data's classes in the order of their train ids, with commas between them; by default "
    "the checkpoint's, or Cityscapes' 19"
)
_DESCRIPTION = (
    "Scores checkpoints on labelled images, or folders of predicted label maps against a folder "
    "of true ones: IoU, precision and recall by class, their means, pixel accuracy. Writes "
    "evaluation.md, evaluation.json, evaluation.csv and pictures."
)


def run(flags: argparse.Namespace, console: Console | None = None) -> None:
    """Score what the flags name and write the report. Raises UserError."""
    # Imported late: a mistake on the command line is answered at once.
    from dasac_jax.evaluation import report, scores
    from dasac_jax.runtime import program_cache

    names, groups = grouped(flags.inputs, runs=flags.truth is None)
    with logs.logging_to(None, primary=False, console=Console(stderr=True)):
        program_cache.keep_programs()
        if flags.truth is not None:
            facts, without = {"truth": str(flags.truth)}, ()
            results = _of_folders(flags, names)
        else:
            facts, results, without = _of_checkpoints(flags, names, groups)
    facts |= {"versions": {"dasac-jax": version("dasac-jax"), "jax": version("jax")}}
    means = scores.means(results[0].class_names, without)
    console = console or Console()
    with lock.held(flags.output, flag="--output"):
        report.write(flags.output, results, means, facts=facts, groups=groups, console=console)
    told = f"report: {flags.output / report.MARKDOWN_FILE}"
    console.print(told, markup=False, highlight=False, soft_wrap=True)


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """A short name for each path: what distinguishes it from the others.

    Raises UserError for a path that is given twice.
    """
    parts = [path.parts for path in paths]
    if len(set(parts)) < len(parts):
        twice = next(path for path in paths if list(paths).count(path) > 1)
        raise UserError(f"{twice} is given twice: give each once")
    if len(paths) == 1:
        return {str(Path(*parts[0][-2:])): paths[0]}
    common = 0
    shortest = min(len(part) for part in parts) - 1
    while common < shortest and len({part[common] for part in parts}) == 1:
        common += 1
    return {str(Path(*path.parts[common:])): path for path in paths}


def grouped(paths: Sequence[Path], *, runs: bool) -> tuple[dict[str, Path], list[Named]]:
    """What is to be scored by its name, and which of it are the seeds of one run.

    runs: whether the paths are checkpoints. Then a run of several seeds stands for its seeds that
    are finished. Raises UserError where none is, and as `named` does.
    """
    from dasac_jax.evaluation import seed_groups

    found = {path: seed_groups.find(path) if runs else None for path in paths}
    if len(found) < len(paths):
        return named(paths), []  # which raises: a path is given twice
    members = [[*group.members.values()] if group else [path] for path, group in found.items()]
    names = named([path for several in members for path in several])
    name_of = {path: name for name, path in names.items()}
    name_of_group = {path: name for name, path in named(paths).items()}
    return names, [
        seed_groups.Named(
            name_of_group[path],
            {seed: name_of[member] for seed, member in group.members.items()},
            group.unfinished,
        )
        for path, group in found.items()
        if group
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line says; a mistake ends with one line on stderr and code 2."""
    logs.quiet_jax()
    leave(code_of(lambda: run(parse(argv)), "nothing was written"))


def _check(flags: argparse.Namespace) -> None:
    if flags.truth is None:
        wrong, kind = _WITH_TRUTH, "label maps: give --truth FOLDER too"
    else:
        wrong, kind = _WITH_CHECKPOINTS, "checkpoints, but --truth says that label maps are scored"
    for name in wrong:
        if getattr(flags, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is for {kind}")
    if flags.list is not None and flags.split is not None:
        raise UserError("--list and --split both say what to score: give one of them")
    if flags.batch is not None and flags.batch < 1:
        raise UserError(f"--batch is {flags.batch}: at least 1 is needed")


def _class_names(flags: argparse.Namespace) -> tuple[str, ...] | None:
    if flags.class_names is None:
        return None
    names = tuple(name.strip() for name in flags.class_names.split(","))
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise UserError(
            f"--class-names is {flags.class_names!r}: at least two different names are needed"
        )
    if len(names) > 254:
        raise UserError(f"--class-names gives {len(names)} classes: 8-bit labels hold up to 254")
    return names


def _of_folders(flags, names):
    from dasac_jax.evaluation import scores

    classes, results = _class_names(flags), []
    for name, path in names.items():
        result = scores.of_folder(
            name, path, flags.truth,
            class_names=classes, ids=flags.ids or "train", truth_ids=flags.truth_ids,
        )  # fmt: skip
        results.append(result)
        classes = result.class_names  # in which the others are compared
    return results


def _of_checkpoints(flags, names, groups):
    """Facts for the report, the results, and the train ids that the first one's run leaves out.

    Checkpoints are compared on the data of the first, but each seed of a run is scored on its own,
    where their labels mean the same: the demo renders other images for each.
    """
    from dasac_jax.evaluation import scored_data, scores

    classes, results, without = _class_names(flags), [], ()
    split, opened = flags.split or "val", []
    seeds = {name for group in groups for name in group.results.values()}

    def open_pairs(path, network):
        return scored_data.open_pairs(
            path, root=flags.data_root, split=split, list_file=flags.list, facts=network.stored
        )

    for name, path in names.items():
        network = scores.open_network(path, teacher=bool(flags.teacher), class_names=classes)
        if not opened:
            pairs = open_pairs(path, network)
            _check_order(flags, network, pairs, classes)
            classes = classes or network.class_names  # of the data; the others compare by name
            out = scored_data.left_out(path, network.stored)
            without = tuple(classes.index(network.class_names[i]) for i in out)
        elif name in seeds and flags.data_root is None and flags.list is None:
            own = open_pairs(path, network)
            alike = own.id_map == opened[0].id_map and network.class_names == classes
            pairs = own if alike else opened[0]
        else:
            pairs = opened[0]
        if pairs not in opened:
            scored_data.check_labels(pairs, classes, split)
            opened.append(pairs)
        results.append(
            scores.of_network(name, network, pairs, class_names=classes, batch=flags.batch)
        )
    return {"data": _described(opened)}, results, without


def _described(opened) -> str:
    """The images that were scored; a warning where they are several sets."""
    text = f"{opened[0].name} in {', '.join(dict.fromkeys(str(pairs.root) for pairs in opened))}"
    if len(opened) > 1:
        text += f" ({len(opened)} sets of images)"
        _LOG.warning(
            "the seeds were scored on %d sets of images, each on that of its own run: differences "
            "between results of different sets are also those of the images", len(opened),
        )  # fmt: skip
    return text


def _check_order(flags, network, pairs, classes) -> None:
    """Raise UserError where --class-names contradicts what is known of the labels' classes."""
    is_known = pairs.id_map or (flags.data_root is None and flags.list is None)
    if classes and is_known and classes != network.class_names:
        raise UserError(
            f"--class-names gives {', '.join(classes)}, but the labels of checkpoint "
            f"{network.path} have the order {', '.join(network.class_names)}: leave the flag out"
        )


if __name__ == "__main__":
    garbage.collect_seldom()  # once more, for what has been imported
    main()
