"""The end of a run: source only, baseline, adapted student and teacher side by side."""

import logging
import time
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from dasac_jax import models
from dasac_jax.checkpoints import store
from dasac_jax.data import sources
from dasac_jax.errors import UserError
from dasac_jax.evaluation import scoring
from dasac_jax.evaluation.metrics import summarise
from dasac_jax.files import PAGE_FILE
from dasac_jax.method import state as states
from dasac_jax.reporting import metrics_log, summary
from dasac_jax.reporting.label_pictures import colourise, panel
from dasac_jax.runtime import data_parallel, processes
from dasac_jax.training import (
    from_config,
    initial_state,
    lists_record,
    stages,
    target_shares,
)
from dasac_jax.training.workdir import Run

_LOG = logging.getLogger(__name__)

STATISTICS_STEPS = 100  # a batch's weight in the running statistics falls by 0.9 a step
PICTURED = 4


def report_run(run: Run) -> None:
    """Score what the stages left on the target's validation set, write the report and print it.

    When the report of these very checkpoints is there, it is printed at once.
    """
    reached = processes.from_first(lambda: _reached(run))
    if not reached:
        _LOG.info("nothing to report yet: no stage has left a checkpoint")
        return
    scored = processes.from_first(lambda: summary.facts(run.folder).get("steps") != reached)
    if scored:
        _score(run, reached)
    if processes.is_first():
        if scored or not (run.folder / PAGE_FILE).exists():
            from dasac_jax.reporting import page  # matplotlib, which takes a while to import

            page.write(run.folder)
        summary.show(run.folder)


def _reached(run: Run) -> dict[str, int]:
    """The newest step of every stage that has left one."""
    steps = {stage: store.latest_step(run.newest(stage)) for stage in ("baseline", "adapt")}
    return {stage: step for stage, step in steps.items() if step is not None}


def _score(run: Run, reached: dict[str, int]) -> None:
    """Score every network there is, where the target has labelled images, and write the result."""
    started = time.monotonic()
    # Before all else, since it refuses a metrics.jsonl that is damaged.
    trained = processes.from_first(lambda: _seconds_to_train(run))
    rows, kept, images = {}, {}, 0
    if sources.has(run.config.data, "val"):
        pairs = run.open("val")
        images = len(pairs)
        score = scoring.scorer(from_config.create_model(run.config))
        for name, variables in _networks(run, reached):
            _LOG.info("scoring %s on %d images", name, images)
            counts, kept[name] = scoring.confusion(
                score, variables, pairs, batch=run.config.validation_batch, keep=PICTURED
            )
            if not counts.any():
                raise UserError(
                    f"val: no label pixel of {images} images stands for a class, so nothing can be "
                    "scored: mend the labels or data.classes.target_ids; all networks are kept"
                )
            rows[name] = summarise(counts, run.config.left_out)
    else:
        _LOG.info("nothing is scored: %s has no list of labelled images", run.config.data.lists)
    shares = target_shares.measure(run, reached)
    if not processes.is_first():
        return
    facts = {
        "seed": run.config.seed,
        "arch": run.config.arch,
        "steps": reached,
        "images": images,
        "seconds to train": trained,
        "seconds to score": round(time.monotonic() - started, 1),
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
        "versions": {name: version(name) for name in ("dasac-jax", "jax", "flax", "optax")},
    }
    if "adapt" in reached and shares is None:
        facts[summary.VANISHED_UNKNOWN] = "not looked for, as nothing is known of the baseline"
        _LOG.warning(
            "whether a class has vanished is not known: %s holds no baseline and %s no counts of "
            "its predictions", run.folder, run.weights_file.name,
        )  # fmt: skip
    if "adapt" in reached and not run.weights_file.exists():
        facts["target images were drawn"] = f"uniformly, there being no {run.weights_file.name}"
    if changes := lists_record.changes(run):
        facts["images changed on the way"] = changes
    # So that no page of an earlier result outlives a stop before the new one is written.
    (run.folder / PAGE_FILE).unlink(missing_ok=True)
    summary.write(
        run.folder, rows, run.classes,
        ignore=run.config.left_out, picture=_picture(kept, run.classes), facts=facts,
        shares=shares,
    )  # fmt: skip


def _seconds_to_train(run: Run) -> dict[str, float]:
    return {
        stage: round(x, 1) for stage, x in metrics_log.seconds(metrics_log.read(run.folder)).items()
    }


def _networks(run: Run, reached: dict[str, int]):
    """(name, variables) of every network there is to compare."""
    if "baseline" in reached:
        baseline = _handed_on(run, "baseline")
        student = baseline.student
    if "baseline" in reached and not models.has_batch_norm(run.config.arch):
        yield "source only", student  # the target has had no part in it
    elif "baseline" in reached:
        source_only, _ = processes.state_from_first(
            lambda: (_source_only(run, baseline), {}), lambda: student
        )
        yield "source only", source_only
        yield "baseline", student
    if "adapt" in reached:
        adapted = _handed_on(run, "adapt")
        yield "adapted", adapted.student
        yield "teacher", adapted.teacher


def _handed_on(run: Run, stage: str) -> states.TrainState:
    handed_on = partial(initial_state.handed_on, stage=stage)
    state, _ = initial_state.shared_state(run, stage, handed_on)
    return state


def _source_only(run: Run, baseline: states.TrainState) -> dict[str, Any]:
    """The baseline's weights with running statistics of the source's training views alone."""
    config = run.config.baseline
    layout = data_parallel.layout(
        "baseline", config.source_batch, config.target_batch,
        devices=1, local_devices=1, process=0,
    )  # fmt: skip
    # The statistics are of at most as many batches as the baseline was trained on.
    trained = config.epochs * run.steps_per_epoch("baseline")
    make_views = jax.jit(from_config.baseline_views(run.config))
    key = jax.random.key(run.config.seed)

    def images():
        raw = stages.batches(run, layout, None, 0, min(STATISTICS_STEPS, trained))
        for step, batch in enumerate(raw):
            shards = data_parallel.shard(batch, layout)
            shard = jax.tree.map(lambda x: x[0], shards)
            yield make_views(jax.random.fold_in(key, step), shard)["source_image"]

    model = from_config.create_model(run.config)
    return scoring.source_statistics(model, baseline.student, images())


def _picture(kept, classes) -> np.ndarray | None:
    """Image, truth and predictions of the first few images, by network."""
    names = [name for name in (summary.reference(kept), "adapted") if name in kept]
    rows = []
    for shown in zip(*(kept[name] for name in names), strict=True):
        image, truth, _ = shown[0]
        maps = [truth, *(labels for _, _, labels in shown)]
        rows.append([image, *(colourise(labels, classes) for labels in maps)])
    return panel(rows, ["image", "truth", *names], classes) if rows else None
