"""The command `python -m dasac_jax.export CHECKPOINT OUT.onnx` (or OUT.stablehlo)."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from dasac_jax.cli import Parser, code_of, leave
from dasac_jax.errors import UserError
from dasac_jax.files import plain, replacing

# The package of the extra [export] that writes the files with each suffix.
WRITERS = {".onnx": "onnx", ".stablehlo": "flatbuffers"}
OUTPUTS = {
    "labels": ("labels",),
    "logits": ("logits",),
    "probabilities": ("probabilities",),
    "both": ("labels", "probabilities"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and print its report; exits with code 2 after a mistake, 130 after Ctrl-C."""
    leave(code_of(lambda: print(run(_parser().parse_args(argv))), "nothing was written"))


def run(arguments: argparse.Namespace) -> str:
    """Write the file that the command line asks for. Returns a report; raises UserError."""
    files = _files(arguments.output)
    if arguments.size is None and arguments.output.suffix == ".stablehlo":
        raise UserError(
            f"{arguments.output}: a StableHLO program is for images of one size: give --size H W"
        )
    # Imported only now, so that a mistake on the command line is answered without loading JAX.
    import jax

    from dasac_jax.export import description
    from dasac_jax.inference import predictor, trained_network
    from dasac_jax.runtime import logs

    if arguments.size and min(arguments.size) < predictor.SMALLEST:
        height, width = arguments.size
        raise UserError(
            f"--size {height} {width}: the networks take {predictor.SMALLEST} pixels a side or more"
        )
    jax.config.update("jax_platforms", "cpu")  # nothing is computed: leave accelerators to others
    with logs.logging_to(None, console=Console(stderr=True)):
        model, networks, facts = trained_network.open_checkpoint(arguments.checkpoint)
    variables = trained_network.choose(networks, arguments.checkpoint, teacher=arguments.teacher)
    _check_finite(variables, arguments.checkpoint)
    outputs = OUTPUTS[arguments.output_kind]
    # A StableHLO program computes as the checkpoint's run did, ONNX operations in float32.
    trained = (
        facts.get("dtype", "float32") if arguments.output.suffix == ".stablehlo" else "float32"
    )
    described = description.of(
        facts, teacher=arguments.teacher, outputs=outputs,
        precision="float16" if arguments.float16 else trained,
    )  # fmt: skip
    contents = _contents(arguments, model, variables, outputs, plain(described))
    _write(dict(zip(files, contents, strict=True)))
    return _report(arguments, described, len(contents[0]))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m dasac_jax.export",
        description="Writes a checkpoint's network as an ONNX file, or as a StableHLO program for "
        "JAX on CPUs and CUDA GPUs. It takes uint8 RGB images; normalisation, upsampling and the "
        "choice of the class are inside. Names of classes, colours and the checkpoint's facts are "
        "in the ONNX file's metadata, or in OUT.stablehlo.json.",
    )
    add = parser.add_argument
    add("checkpoint", help="a run's work directory, a stage, a folder of steps, or one step")
    add("output", type=Path, metavar="OUT", help="the new file: OUT.onnx or OUT.stablehlo")
    add("--teacher", action="store_true", help="take the teacher instead of the student")
    add("--size", type=int, nargs=2, metavar=("H", "W"),
        help="height and width of the images; without it an ONNX file takes any")  # fmt: skip
    add("--output", dest="output_kind", choices=OUTPUTS, default="labels",
        help="what comes out for each pixel (labels); both: labels and probabilities")  # fmt: skip
    add("--float16", action="store_true",
        help="weights and layers in float16: half the size, few pixels differ")  # fmt: skip
    return parser


def _files(output: Path) -> list[Path]:
    """The files to write.

    Raises UserError for an unknown suffix, a file that exists and a package that is missing.
    """
    if output.suffix not in WRITERS:
        raise UserError(f"{output}: a name that ends in {' or '.join(WRITERS)} is needed")
    files = [output]
    if output.suffix == ".stablehlo":
        files.append(output.with_name(f"{output.name}.json"))
    for file in files:
        if file.exists():
            raise UserError(f"{file} is there already: give another name, or remove it")
    writer = WRITERS[output.suffix]
    try:
        importlib.import_module(writer)
    except ModuleNotFoundError:
        raise UserError(
            f"{output}: writing it needs {writer}: pip install 'dasac-jax[export]'"
        ) from None
    return files


def _check_finite(variables: Any, checkpoint: str) -> None:
    import numpy as np
    from flax.traverse_util import flatten_dict

    for path, value in flatten_dict(variables, sep="/").items():
        if not np.isfinite(value).all():
            raise UserError(
                f"checkpoint {checkpoint}: {path} holds values that are not finite, so its "
                "predictions mean nothing; take another step"
            )


def _contents(arguments, model, variables, outputs, described) -> list[bytes]:
    """The contents of the files."""
    size = tuple(arguments.size) if arguments.size else None
    options = {"size": size, "outputs": outputs, "float16": arguments.float16}
    if arguments.output.suffix == ".stablehlo":
        from dasac_jax.export import stablehlo

        text = json.dumps(described, indent=1, ensure_ascii=False) + "\n"
        return [stablehlo.serialised(model, variables, **options), text.encode()]
    from dasac_jax.export import onnx_file

    metadata = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in described.items()
    }
    return [onnx_file.serialised(model, variables, metadata=metadata, **options)]


def _write(contents: dict[Path, bytes]) -> None:
    """Write all of the files or none of them. Raises UserError."""
    path = next(iter(contents))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for path, content in contents.items():
                stack.enter_context(replacing(path)).write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _report(arguments, described, count: int) -> str:
    smallest = described["smallest_side"]
    size = f"any size from {smallest} pixels a side"
    if arguments.size:
        size = "×".join(map(str, arguments.size))
    step = f" of step {described['step']}" if "step" in described else ""
    return (
        f"{described['network']}{step} of {described['arch']}, {described['precision']}, "
        f"{count / 1e6:.1f} MB: {arguments.output}\n"
        f"images of {size} → {', '.join(described['outputs'])}; "
        f"licence of the weights: {described['licence']}"
    )
