"""The text of a recipe for data of one's own: a file as one would write it by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dasac_jax.own_data.proposal import Classes, Key

_WIDTH = 100
# Of the demo's recipe: a small network from random weights learns in fewer, larger steps.
_SMALL_NETWORK = {
    "init": "",
    "baseline.learning_rate": 5e-4,
    "baseline.jitter": 0.2,
    "adapt.learning_rate": 1e-4,
    "adapt.source_scale": (0.6, 1.4),
    "adapt.target_weight": 1.0,
    "adapt.teacher_every_steps": 5,
    "adapt.teacher_momentum": 0.9,
    "checkpoint_every_steps": 200,
}
_TEMPLATE = '''"""{title}

python -m dasac_jax.main --config {path} --workdir {run}

Written by scripts/prepare_data.py own; change it as you like. docs/configuration.md has every key,
what is not set here is as in dasac_jax/config.py.
"""

from pathlib import Path

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """{title}"""
    config = recipe.base()
    config.data.source = "custom"
    config.data.root = {root}  # the lists' paths are relative to it
    config.data.lists = str(Path(__file__).resolve().parent / "lists")

    config.data.classes.names = {names}
    config.data.classes.palette = {palette}
    # Which value of the label files stands for which class; others are ignored.
    config.data.classes.source_ids = {source_ids}
    config.data.classes.target_ids = {target_ids}

    config.data.statistics = "none"  # the colours of a known source are taken for no other
    # No target label is read for selection: the last snapshot is handed on.
    config.data.selection_images = 0
    config.select = "last"

{settings}
    return config
'''


def text(
    path: Path,
    run: str,
    root: Path,
    classes: Classes,
    source_ids: Sequence[tuple[Key, str]],
    target_ids: Sequence[tuple[Key, str]],
    settings: dict[str, Any],
    reasons: Sequence[str],
) -> str:
    """The recipe at `path`. settings: by dotted keys; reasons: why these, for comments."""
    values = dict(settings)
    if values["arch"] == "deeplabv2_demo":
        values |= _SMALL_NETWORK
    lines = [f"    # {line}" for reason in reasons for line in _comment(reason)]
    for section in ("", "data", "baseline", "adapt"):
        keys = [key for key in values if (key.rpartition(".")[0] or "") == section]
        lines += [f"    config.{key} = {_literal(values[key])}" for key in keys]
    return _TEMPLATE.format(
        title=f"{len(classes.names)} classes of one's own data in {root.name or root}.",
        path=path,
        run=run,
        root=_literal(str(root)),
        names=_tuple(classes.names),
        palette=_tuple(classes.palette),
        source_ids=_tuple(source_ids),
        target_ids=_tuple(target_ids),
        settings="\n".join(lines),
    )


def _comment(reason: str) -> list[str]:
    """A reason in lines that fit."""
    lines = [""]
    for word in reason.split():
        if len(lines[-1]) + len(word) > _WIDTH - 10:
            lines.append("  ")
        lines[-1] += (" " if lines[-1].strip() else "") + word
    return lines


def _literal(value: Any) -> str:
    """Python's text of a value, strings in double quotes."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple):
        inner = ", ".join(map(_literal, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)


def _tuple(values: Sequence[Any]) -> str:
    """A tuple of many values, in lines that fit."""
    if not values:
        return "()"
    lines = [""]
    for value in values:
        item = f"{_literal(value)}, "
        if len(lines[-1]) + len(item) > _WIDTH - 8:
            lines.append("")
        lines[-1] += item
    inner = "\n".join(f"        {line.rstrip()}" for line in lines)
    return f"(\n{inner}\n    )  # fmt: skip"
