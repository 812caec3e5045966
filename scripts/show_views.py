"""A contact sheet of what one step of the adaptation trains on.

python scripts/show_views.py --config configs/demo.py --workdir RUN [--output views.png] …
"""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from PIL import Image

from dasac_jax import config as recipe
from dasac_jax import main as training  # noqa: F401 (defines --config and --workdir)
from dasac_jax import recipe_flags
from dasac_jax.errors import EXIT_INTERRUPTED, EXIT_MISTAKE, UserError, message
from dasac_jax.files import DATA, replacing
from dasac_jax.runtime import logs

_OUTPUT = flags.DEFINE_string("output", "views.png", "The picture's file.")
_STEP = flags.DEFINE_integer("step", 0, "The step of the adaptation to show.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", None, "Instead of config.seed.", lower_bound=0)

# A picture is made once: compiling well takes longer than it saves.
_QUICKLY = {"xla_backend_optimization_level": 0}


def run(config: ConfigDict, folder: Path, output: Path, step: int, seed: int | None = None) -> str:
    """Draw the sheet and write it; returns what was done, in words. Raises UserError."""
    # Imported late: a mistake on the command line is answered at once.
    from dasac_jax.image.normalise import source_statistics
    from dasac_jax.reporting import contact_sheet
    from dasac_jax.training import workdir

    recipe.check(config)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.root = config.data.root or str(folder / DATA)
    workdir.make_demo(workdir.Run(config, folder))
    # Not earlier: another seed would render another demo.
    config.seed = config.seed if seed is None else seed
    job = workdir.Run(config, folder)
    raw = read_batch(job, step)
    statistics = source_statistics(config.data.statistics)
    made, drawn, sources = make_views(config, raw, step, statistics)
    sheet = contact_sheet.contact_sheet(
        raw, made, drawn, sources,
        statistics=statistics,
        title=f"adaptation, seed {config.seed}, step {step}",
        classes=job.classes,
    )  # fmt: skip
    _write(sheet, output)
    return f"{output}: {sheet.shape[1]}×{sheet.shape[0]} pixels, of data in {config.data.root}"


def read_batch(run, step: int) -> dict[str, Any]:
    """The images that training reads for a step of the adaptation, as from `loader.batches`.

    With the folder's importance weights, where the run has made them.
    """
    from dasac_jax.runtime import data_parallel
    from dasac_jax.training import stages

    adapt = run.config.adapt
    weights = run.importance_weights() if run.weights_file.exists() else None
    layout = data_parallel.layout(
        "adapt", adapt.source_batch, adapt.groups, adapt.group_size,
        devices=1, local_devices=1, process=0,
    )  # fmt: skip
    return next(stages.batches(run, layout, weights, step, 1))


def make_views(config: ConfigDict, raw: dict[str, Any], step: int, statistics):
    """What training makes of a batch at this step: views, and the parameters behind them.

    statistics: mean and std that the source is normalised with. Returns the batch of
    `views.adapt_views`, `contact_sheet.Drawn`, and the sources' windows.
    """
    from dasac_jax.image import views
    from dasac_jax.method import steps
    from dasac_jax.reporting import contact_sheet
    from dasac_jax.training import from_config

    target = from_config.target_view_settings(config)
    source_scale = tuple(config.adapt.source_scale)
    size, shape = target["size"], raw["source_image"].shape[1:3]
    mean, std = statistics

    def make(key, arrays):
        batch = views.adapt_views(
            key, arrays, source_scale=source_scale, source_mean=mean, source_std=std, **target
        )
        drawn = contact_sheet.drawn_views(key, arrays["target_view"], **target)
        sources = contact_sheet.drawn_sources(
            key, arrays["source_item"], shape, size=size, scale=source_scale
        )
        return {"all": (batch, drawn, sources)}

    whole = steps.on_views(lambda _, batch: batch["all"], make, from_config.STAGE_NUMBER["adapt"])
    arrays = {name: raw[name] for name in raw if name != "names"}
    count = config.adapt.groups * config.adapt.group_size
    arrays["target_view"] = np.arange(count, dtype=np.int32)
    state = SimpleNamespace(seed=config.seed, step=step)
    made = jax.jit(partial(whole, state), compiler_options=_QUICKLY)(arrays)
    return jax.tree.map(np.asarray, made)


def _write(picture: np.ndarray, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            Image.fromarray(picture).save(unfinished, format="PNG")
    except OSError as error:
        raise UserError(
            f"--output {path} cannot be written ({error.strerror}): choose another file"
        ) from error


def main(argv: list[str]) -> None:
    """Draw what the flags say; a mistake ends with one line on stderr and code 2."""
    del argv
    logs.quiet_jax()
    try:
        for name in ("config", "workdir"):
            if not flags.FLAGS[name].value:
                raise UserError(f"--{name} is missing: give --config FILE and --workdir FOLDER")
        config, folder = flags.FLAGS.config, Path(flags.FLAGS.workdir)
        print(run(config, folder, Path(_OUTPUT.value), _STEP.value, _SEED.value))
    except (UserError, PermissionError) as error:
        print(f"error: {message(error)}", file=sys.stderr)
        sys.exit(EXIT_MISTAKE)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    app.run(main, flags_parser=recipe_flags.parse_flags)
