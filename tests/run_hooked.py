"""The command line with an accident built in, or watching what is read of the configuration.

python run_hooked.py interrupt STAGE STEP SIGNAL --config … (the signal comes before that step)
python run_hooked.py record FILE --config … (FILE gets the keys read, one a line)
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

from absl import app
from ml_collections import ConfigDict

from dasac_jax import config as recipe
from dasac_jax import main, recipe_flags
from dasac_jax.runtime import garbage
from dasac_jax.training import loop


def interrupt(stage: str, step: str, number: str) -> None:
    """Send this process a signal when the batch of a step is asked for."""
    train = loop.train
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it

    def hooked(state, step_function, make_batches, plan, *rest):
        def batches(first_step, num_steps):
            with contextlib.closing(make_batches(first_step, num_steps)) as real:
                for number_of_step, batch in enumerate(real, start=first_step + 1):
                    if (plan.name, number_of_step) == (stage, int(step)):
                        os.kill(os.getpid(), int(number))
                    yield batch

        return train(state, step_function, batches, plan, *rest)

    loop.train = hooked


def _sections(config: ConfigDict, prefix: str = ""):
    """(dotted name, section) of a configuration's sections, those within sections too."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield prefix + name, value
            yield from _sections(value, f"{prefix}{name}.")


def record(path: str) -> None:
    """Write down every key that is read once the run has begun, checks and copies left out."""
    base, read, paused = recipe.base(), set(), [True]
    sections = {frozenset(section.keys()): name for name, section in _sections(base)}
    get, flatten, check, run = ConfigDict.__getitem__, recipe.flatten, recipe.check, main.run

    def getitem(self, key):
        if not paused[0]:
            section = sections.get(frozenset(self.keys()))
            read.add(f"{section}.{key}" if section else key)
        return get(self, key)

    def unseen(function, at_work):
        def call(*arguments):
            before, paused[0] = paused[0], at_work
            try:
                return function(*arguments)
            finally:
                paused[0] = before

        return call

    ConfigDict.__getitem__ = getitem
    recipe.flatten, recipe.check = unseen(flatten, True), unseen(check, True)

    def recorded(config, folder, *, changed_data):
        unseen(lambda *given: run(*given, changed_data=changed_data), False)(config, folder)
        Path(path).write_text("\n".join(sorted(read)), encoding="utf-8")

    main.run = recorded


def run(argv: list[str]) -> None:
    """The command line of [program, hook, argument, …, --flag, …]; the hook may be left out."""
    garbage.collect_seldom()  # as the command does
    flags_from = next(i for i, x in enumerate(argv) if x.startswith("--"))
    if flags_from > 1:
        {"interrupt": interrupt, "record": record}[argv[1]](*argv[2:flags_from])
    given = [argv[0], *argv[flags_from:]]
    app.run(main.main, argv=given, flags_parser=recipe_flags.parse_flags)


if __name__ == "__main__":
    run(sys.argv)
