"""python -m dasac_jax.main --config configs/gta_r101.py --workdir RUN [--config.key=value …]"""

import logging
import sys
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from dasac_jax import config as recipe
from dasac_jax import logs, workdir
from dasac_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for everything the run writes.")
INTERRUPTED = 130  # the shell's code for Ctrl-C


def run(config: ConfigDict, folder: Path) -> None:
    """Run a configuration's stages in a work directory and report. Raises UserError."""
    # Imported late: a mistake on the command line is answered at once.
    from dasac_jax import comparison, stages

    recipe.check(config)
    job = workdir.open_run(config, folder)
    stages.check_devices(config)
    with logs.logging_to(folder, primary=jax.process_index() == 0):
        workdir.make_demo(job)
        stages.check_data(job)
        # Not earlier: whoever has to mend a mistake can do so in the same folder.
        workdir.claim(job, config)
        for stage in recipe.stages(config):
            stages.RUNNERS[stage](job)
        comparison.report_run(job)


def main(argv: list[str]) -> None:
    """Run what the flags say; a mistake ends with one line on stderr and code 2."""
    del argv
    # At absl's level INFO it reports each kind of device that is not there.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    try:
        for name, flag in (("config", _CONFIG), ("workdir", _WORKDIR)):
            if not flag.value:
                raise UserError(f"--{name} is missing: give --config FILE and --workdir FOLDER")
        run(_CONFIG.value, Path(_WORKDIR.value))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    app.run(main, flags_parser=recipe.parse_flags)
