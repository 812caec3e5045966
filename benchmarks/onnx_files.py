"""ONNX files of the problem's network for the engines: images in, labels out.

`run.py` starts it, so that neither its own process nor an engine's holds what writing takes:
python -m benchmarks.onnx_files PROBLEM-AS-JSON FOLDER WRITER…
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.problem import CLASSES, Problem


def ours(task: Problem, path: Path) -> None:
    """Write the file that `dasac_jax.export` makes, for images of one size."""
    from benchmarks.ours import variables
    from dasac_jax.export import onnx_file
    from dasac_jax.models import create_model

    model, size = create_model(task.network), (task.height, task.width)
    content = onnx_file.serialised(
        model, variables(task.network), size=size, outputs=("labels",), float16=False, metadata={}
    )
    path.write_bytes(content)


def torch(task: Problem, path: Path) -> None:
    """Write the file that PyTorch's exporter makes of the same network in PyTorch."""
    import torch

    from benchmarks import torch_step
    from benchmarks.theirs import Whole

    network = Whole(torch_step.network(task.network, CLASSES)).eval()
    images = torch.zeros((1, task.height, task.width, 3), dtype=torch.uint8)
    torch.onnx.export(
        network, (images,), path, dynamo=True, external_data=False, verbose=False,
        input_names=["images"], output_names=["labels"],
    )  # fmt: skip


WRITERS = {"ours": ours, "torch": torch}


def main(task: Problem, folder: Path, writers: Sequence[str]) -> None:
    """Write FOLDER/WRITER.onnx for each writer."""
    for name in writers:
        WRITERS[name](task, folder / f"{name}.onnx")


if __name__ == "__main__":
    main(Problem(**json.loads(sys.argv[1])), Path(sys.argv[2]), sys.argv[3:])
