"""The command convert_torch_weights.py: PyTorch files to checkpoints, and back to files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dasac_jax.cli import Parser, code_of
from dasac_jax.errors import UserError


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for mistakes, 130 for Ctrl-C.

    arguments: those of the command line where they are not given; console: standard output.
    """
    out = console or Console()
    return code_of(lambda: _run(_parser().parse_args(arguments), out), "nothing was written")


def _run(options: argparse.Namespace, console: Console) -> None:
    out = options.to_torch or options.to_safetensors
    for flag in ("arch", "allow_missing") if out else ("teacher",):
        if getattr(options, flag):
            direction = "making a checkpoint" if out else "--to-torch and --to-safetensors"
            raise UserError(f"--{flag.replace('_', '-')} is for {direction}: leave it out")
    # Imported only now, so that a mistake on the command line is answered without loading JAX.
    import jax

    jax.config.update("jax_platforms", "cpu")  # nothing is computed: leave accelerators to others
    if out:
        from dasac_jax.interop import export

        write = export.to_torch if options.to_torch else export.to_safetensors
        count = write(options.input, options.output, teacher=options.teacher)
        _print(console, f"{count} tensors: {options.output}")
        return
    from dasac_jax.interop import convert, importance

    if options.output.suffix == ".tsv":
        count = importance.convert(options.input, options.output)
        _print(console, f"importance weights of {count} images: {options.output}")
        return
    try:
        done = convert.convert(options.input, options.output, options.arch, options.allow_missing)
    except UserError:
        if importance.is_weights_file(options.input):
            raise UserError(
                f"{options.input} holds importance weights, no network: give RUN/weights.tsv as "
                "the output, in the run's work directory"
            ) from None
        raise
    console.print(convert.table(done))
    for note in done.contents.notes:
        _print(console, f"note: {note}")
    _print(console, f"{options.input}: {done.identity.text}")
    _print(console, f"checkpoint: {done.output}")


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="convert_torch_weights.py",
        description="Makes a checkpoint of a PyTorch file, or with --to-torch and "
        "--to-safetensors a file of a checkpoint; and a run's weights.tsv of the authors' "
        "cs_weights_….data. PyTorch is not needed.",
    )
    parser.add_argument("input", type=Path, help="the PyTorch file; going back, a checkpoint")
    parser.add_argument(
        "output",
        type=Path,
        help="the new folder; going back, the new file; for importance weights, RUN/weights.tsv",
    )
    parser.add_argument("--arch", help="the network, where the file fits several")
    parser.add_argument(
        "--allow-missing", action="store_true", help="draw heads that the file lacks"
    )
    back = parser.add_mutually_exclusive_group()
    back.add_argument("--to-torch", action="store_true", help="write a state_dict for PyTorch")
    back.add_argument("--to-safetensors", action="store_true", help="write safetensors")
    parser.add_argument(
        "--teacher", action="store_true", help="going back: the teacher, not the student"
    )
    return parser
