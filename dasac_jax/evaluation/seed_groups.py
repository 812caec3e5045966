"""Runs of several seeds among the results of an evaluation: mean and deviation of each such run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dasac_jax.errors import UserError
from dasac_jax.files import METRICS_FILE, seed_folders
from dasac_jax.reporting import spread, tables
from dasac_jax.reporting.spread import Spread

_STAGES = ("baseline", "adapt")

Scores = Mapping[str, Any]
"""Every number of a result, see `scores.scores`."""


class Group(NamedTuple):
    """A run of several seeds: its path, the results' paths by seed, and seeds not finished yet."""

    path: Path
    members: dict[int, Path]
    unfinished: tuple[int, ...] = ()


def find(path: Path) -> Group | None:
    """The finished seeds of a run by --seeds; None where `path` is no such run.

    path: the run's folder, or its folder with a stage behind it, as in RUN/baseline, which stands
    for this stage of each seed. Raises UserError where no seed is finished.
    """
    stage = path.name if path.name in _STAGES and not path.exists() else ""
    there = seed_folders(path.parent if stage else path)
    if not there:
        return None
    members = {x: y / stage for x, y in there.items() if (y / METRICS_FILE).exists()}
    if not members:
        raise UserError(f"{path}: none of its seeds {', '.join(map(str, there))} is finished")
    return Group(path, members, tuple(seed for seed in there if seed not in members))


class Named(NamedTuple):
    """A group by the names of its results: its own name, the results by seed, unfinished seeds."""

    name: str
    results: dict[int, str]
    unfinished: tuple[int, ...] = ()


def document(groups: Sequence[Named], by_name: Mapping[str, Scores], class_names) -> dict[str, Any]:
    """What evaluation.json says: mean, deviation and count of each score, in 0..1."""

    def of(group: Named, pick: Callable[[Scores], float]) -> dict[str, Any]:
        return _over(group, by_name, pick)._asdict()

    return {
        group.name: {
            "seeds": {str(seed): name for seed, name in group.results.items()},
            "unfinished": list(group.unfinished),
            "iou": {
                name: of(group, lambda values, i=i: float(values["iou"][i]))
                for i, name in enumerate(class_names)
            },
            "means": {
                mean: of(group, lambda values, m=mean: values["means"][m]["iou"])
                for mean in next(iter(by_name.values()))["means"]
            },
            "pixel_accuracy": of(group, lambda values: values["pixel_accuracy"]),
        }
        for group in groups
    }


def table(
    groups: Sequence[Named], by_name: Mapping[str, Scores], class_names: Sequence[str]
) -> tables.Table:
    """IoU of each class in %, mean ± deviation over the seeds of each group.

    Behind them stand the differences of the others to the first, seed by seed, in points.
    """
    first, *others = groups
    header = ["class", *(group.name for group in groups)]
    header += [f"{group.name} − {first.name}" for group in others]

    def line(label: str, pick: Callable[[Scores], float]) -> list[str]:
        cells = [spread.text(_over(group, by_name, pick), digits=2) for group in groups]
        for group in others:
            shared = [seed for seed in group.results if seed in first.results]
            pairs = [(by_name[group.results[x]], by_name[first.results[x]]) for x in shared]
            found = spread.of(pick(after) - pick(before) for after, before in pairs)
            cells.append(spread.text(found, digits=2, sign="+"))
        return [label, *cells]

    lines = [
        line(name, lambda values, i=i: float(values["iou"][i]))
        for i, name in enumerate(class_names)
    ]
    totals = [
        line(mean, lambda values, m=mean: values["means"][m]["iou"])
        for mean in next(iter(by_name.values()))["means"]
    ]
    totals.append(line("pixel accuracy", lambda values: values["pixel_accuracy"]))
    return tables.Table(header, lines, totals)


def notes(groups: Sequence[Named]) -> list[str]:
    """Over which seeds each group is, in lines."""
    lines = []
    for group in groups:
        done, left = list(group.results), list(group.unfinished)
        text = f"{group.name}: {len(done)} of {len(done) + len(left)} seeds are finished: "
        text += ", ".join(map(str, done))
        if len(done) == 1:
            text += "; one seed says nothing of how much another one would differ"
        lines.append(text)
    return lines


def _over(group: Named, by_name: Mapping[str, Scores], pick: Callable[[Scores], float]) -> Spread:
    return spread.of(pick(by_name[name]) for name in group.results.values())
