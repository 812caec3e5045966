"""python -m dasac_jax.main --config configs/gta_r101.py --workdir RUN [--config.key=value …]

With --seeds 0,1,2 the recipe is run once for each.
"""

from dasac_jax.runtime import garbage, malloc

if __name__ == "__main__":
    malloc.prepare()  # before anything else, since it may start the command once more
    garbage.collect_seldom()  # importing makes much that stays

import contextlib
import gc
import json
import os
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from dasac_jax import config as recipe
from dasac_jax import recipe_flags
from dasac_jax.errors import EXIT_INTERRUPTED, EXIT_MISTAKE, EXIT_RESUME, UserError, message
from dasac_jax.reporting import start_log
from dasac_jax.runtime import lock, logs, processes, stop_requests, watchdog
from dasac_jax.training import workdir

_CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for everything the run writes.")
_CHANGED_DATA = flags.DEFINE_bool(
    "changed_data", False, "Go on although the images are not those that the run was begun with."
)
_SEEDS = flags.DEFINE_string(
    "seeds", None, "Run the recipe once for each seed, as in 0,1,2, in WORKDIR/seed0 and so on."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many train as one.", 1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", 0)


def run(config: ConfigDict, folder: Path, *, changed_data: bool = False) -> None:
    """Run a configuration's stages in a work directory and report.

    changed_data: whether to go on where the images are not those that the run was begun with.
    Raises UserError, and Stopped where a stop was requested: all is saved then.
    """
    # Imported late: a mistake on the command line is answered at once.
    from dasac_jax.runtime import program_cache
    from dasac_jax.training import final_scores, lists_record, stages

    recipe.check(config)
    processes.check_alike(json.dumps(recipe.flatten(config)), "configuration")
    job = workdir.open_run(config, folder)
    stages.check_devices(config)
    primary = processes.is_first()
    with contextlib.ExitStack() as stack:
        stack.enter_context(logs.logging_to(folder, primary=primary))
        program_cache.keep_programs()
        stack.enter_context(stop_requests.agreeing(watchdog.stop_request))
        stack.enter_context(stop_requests.time_limit(config.max_minutes))
        if primary:  # one lock and one entry for all processes of this run
            stack.enter_context(lock.held(folder))
            start_log.append(folder, config)
        processes.check_shared(folder)
        processes.from_first(lambda: workdir.make_demo(job))
        changes = processes.from_first(lambda: lists_record.check(job, accept=changed_data))
        stages.check_data(job)
        # Only now, so that the folder can be used again once a mistake found above is mended.
        if primary:
            workdir.claim(job, config)
            lists_record.write(job, changes)
        for stage in recipe.stages(config):
            stages.RUNNERS[stage](job)
            gc.collect()
            malloc.give_back()  # the next stage's programs and arrays are of other sizes
        final_scores.report_run(job)


def run_seeds(config: ConfigDict, folder: Path, text: str) -> int:
    """Run a configuration's stages once for each seed; returns the exit code.

    text: the seeds as they are given, "0,1,2". Raises UserError.
    """
    from dasac_jax.training import seeds

    for flag in (_COORDINATOR, _PROCESS_ID):
        if flag.value is not None:
            raise UserError(
                f"--seeds and --{flag.name} do not go together: give each process --config.seed "
                "and a --workdir for the seed"
            )
    wanted = seeds.parse(text, sys.argv[1:])
    recipe.check(config)
    return seeds.run(config, folder, wanted, seeds.command(sys.argv[1:]))


@watchdog.ending_together()
def main(argv: list[str]) -> None:
    """Run what the flags say; a mistake ends with one line on stderr and code 2."""
    del argv
    logs.quiet_jax()
    try:
        for name, flag in (("config", _CONFIG), ("workdir", _WORKDIR)):
            if not flag.value:
                raise UserError(f"--{name} is missing: give --config FILE and --workdir FOLDER")
        if _SEEDS.value is not None:
            sys.exit(run_seeds(_CONFIG.value, Path(_WORKDIR.value), _SEEDS.value))
        processes.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        with stop_requests.on_signals():
            run(_CONFIG.value, Path(_WORKDIR.value), changed_data=_CHANGED_DATA.value)
    except (UserError, PermissionError) as error:
        print(f"error: {message(error)}", file=sys.stderr)
        sys.exit(EXIT_MISTAKE)
    except stop_requests.Stopped as reason:
        print(f"stopped by {reason}: all is saved, the same command goes on", file=sys.stderr)
        sys.exit(EXIT_RESUME)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.stdout.flush()
        os._exit(EXIT_INTERRUPTED)  # at once, without waiting for threads that are still writing


if __name__ == "__main__":
    garbage.collect_seldom()  # once more, for what has been imported
    app.run(main, flags_parser=recipe_flags.parse_flags)
