"""PyTorch files made into checkpoints that training, prediction and evaluation start from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.table import Table

from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.files import replacing
from dasac_jax.interop import published
from dasac_jax.interop.contents import Contents, recognise
from dasac_jax.interop.fresh import fresh
from dasac_jax.interop.names import entries, flax_path, variables_from_state_dict
from dasac_jax.interop.torch_files.file import load_torch_file, release_pages
from dasac_jax.method import optim
from dasac_jax.method.settings import Settings
from dasac_jax.method.state import TrainState

# The steps in an epoch of the authors' adaptation: 9000 GTA5 images, 8 in a step. A run that
# continues from the checkpoint counts by its own data (`dasac_jax.training.initial_state`).
STEPS_PER_EPOCH = 1125
_RELEASE_EVERY_SECONDS = 0.25


@dataclass(frozen=True)
class Converted:
    """A converted file: the checkpoint's folder, what the file held, and which file it is."""

    output: Path
    contents: Contents
    identity: published.Identity


def convert(
    path: Path | str, output: Path | str, arch: str | None = None, allow_missing: bool = False
) -> Converted:
    """Make a checkpoint, in the new folder `output`, of a PyTorch file.

    arch: the network, needed where the file fits several. allow_missing: new layers (the heads)
    that the file lacks are drawn. Raises UserError where the file cannot be read or does not
    fit, or `output` is there already.
    """
    path, output = Path(path), Path(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"{output} is there already: give another folder, or remove it")
    loaded = load_torch_file(path)
    try:
        contents = recognise(loaded, arch, allow_missing)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    identity = published.identify(path)
    metadata = facts(contents, path.name, identity.sums)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with _pages_released(contents), replacing(output) as unfinished:
            manager = store.open_manager(unfinished, keep=1)
            store.save(manager, train_state(contents), metadata=metadata, copy=False)
            store.finish(manager)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from error
    return Converted(output, contents, identity)


def train_state(contents: Contents, seed: int = 0) -> TrainState:
    """The training state that a file's contents stand for; its arrays are views of the file's.

    What the file lacks has the values of a stage's start: the teacher is the student, the class
    prior is β everywhere, and momentum is zero. New layers are drawn from `seed`.
    """
    shapes = entries(contents.arch, contents.num_classes)
    drawn = fresh(contents.missing, shapes, seed)
    student = variables_from_state_dict(contents.arch, contents.student | drawn)
    teacher = student
    if contents.teacher is not None:
        teacher = variables_from_state_dict(contents.arch, drawn | contents.teacher)
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    buffers = variables_from_state_dict(contents.arch, zeros | (contents.momentum or {}))["params"]
    prior = contents.class_prior
    if prior is None:
        prior = np.full(contents.num_classes, Settings.beta, np.float32)
    adapting = contents.kind == "final" and contents.epoch is not None
    return TrainState(
        params=student["params"],
        batch_stats=student["batch_stats"],
        teacher=teacher,
        class_prior=prior,
        opt_state=_optimiser_state(student["params"], buffers),
        step=np.int32(contents.epoch * STEPS_PER_EPOCH if adapting else 0),
        seed=np.uint32(seed),
    )


def facts(contents: Contents, name: str, sums: published.Digests) -> dict[str, Any]:
    """The checkpoint's metadata: those of a stage's checkpoint, and where it comes from.

    "origin" marks a checkpoint as converted; with "epoch" a stage can go on from it. "drawn" names
    the arrays that were drawn at random because the file lacks them.
    """
    found: dict[str, Any] = {
        "arch": contents.arch,
        "num_classes": contents.num_classes,
        "stage": "adapt" if contents.kind == "final" else "baseline",
        "origin": {"file": name, "kind": contents.kind, "md5": sums.md5, "sha256": sums.sha256},
    }
    if contents.epoch is not None:
        found |= {"epoch": contents.epoch, "best_score": contents.score or 0.0}
    if contents.missing:
        shapes = entries(contents.arch, contents.num_classes)
        places = (flax_path(contents.arch, n, len(shapes[n])) for n in contents.missing)
        found["drawn"] = ["/".join([collection, *path]) for collection, path in places]
    if contents.settings:
        found["optimiser"] = contents.settings
    if contents.counters:
        found["batches_counted"] = contents.counters
    return found


def table(done: Converted) -> Table:
    """A table of all tensors in the file, and of those that were drawn because it lacks them."""
    contents = done.contents
    out = Table("in the file", "tensors", "numbers", "remarks", title=_title(done))
    total = np.zeros(2, np.int64)
    for what, shapes, remark in _found(contents):
        counts = len(shapes), sum(int(np.prod(shape)) for shape in shapes)
        out.add_row(what, *(f"{count:,}" for count in counts), remark)
        total += counts
    out.add_section()
    out.add_row("all", *(f"{count:,}" for count in total))
    if contents.missing:
        shapes = entries(contents.arch, contents.num_classes)
        numbers = sum(int(np.prod(shapes[name])) for name in contents.missing)
        remark = f"not in the file, drawn: {_some(contents.missing)}"
        out.add_row("new layers", f"{len(contents.missing):,}", f"{numbers:,}", remark)
    return out


def _found(contents: Contents) -> Iterator[tuple[str, list[tuple[int, ...]], str]]:
    """(what, shapes of its tensors, a remark) for everything that a file holds."""
    for which in ("student", "teacher"):
        arrays = getattr(contents, which)
        if arrays is not None:
            stats = {n: x for n, x in arrays.items() if n.endswith(("running_mean", "running_var"))}
            yield which, [x.shape for name, x in arrays.items() if name not in stats], "weights"
            yield "", [x.shape for x in stats.values()], "running statistics"
        if which in contents.counters:
            yield "", [()] * len(contents.counters[which]), "batch counters, kept aside"
    if contents.class_prior is not None:
        yield "class prior", [contents.class_prior.shape], "running_conf"
        yield "teacher runs", [(1,)], "slow_init"
    if contents.momentum is not None:
        words = (f"{key.replace('_', ' ')} {x:g}" for key, x in contents.settings.items())
        yield "momentum", [x.shape for x in contents.momentum.values()], ", ".join(words)
    if contents.dropped:
        yield "dropped", [x.shape for x in contents.dropped.values()], _some(contents.dropped)


def _title(done: Converted) -> str:
    contents = done.contents
    words = [contents.arch, contents.kind, f"{contents.num_classes} classes"]
    if contents.epoch is not None:
        words.append(f"epoch {contents.epoch}")
    if contents.score is not None:
        words.append(f"best mIoU {contents.score:.3f}")
    return ", ".join(words)


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _optimiser_state(params: Any, buffers: Any) -> Any:
    """The state of the package's SGD with these momentum buffers."""
    empty = jax.eval_shape(optim.create(0.0).init, params)
    return optax.tree_utils.tree_set(empty, trace=buffers)


@contextmanager
def _pages_released(contents: Contents) -> Iterator[None]:
    """Return the mapped file's pages to the system while its arrays are read.

    They would otherwise stay in memory until the whole file has been written.
    """
    any_array = next(iter(contents.student.values()))  # they all lie in the same mapped file
    done = threading.Event()

    def release() -> None:
        while not done.wait(_RELEASE_EVERY_SECONDS):
            release_pages(any_array)

    thread = threading.Thread(target=release, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
