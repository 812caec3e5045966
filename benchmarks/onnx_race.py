"""Races the ONNX file of `dasac_jax.export` against the one that PyTorch exports, in onnxruntime.

python benchmarks/onnx_race.py --network deeplabv2_resnet101 --size 512 1024 --repeats 3

Both files take the same images and give labels; weights are drawn. Needs the extras [export,torch],
and `pip install onnxruntime onnxscript`.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
import onnxruntime
import torch

from benchmarks import torch_networks
from dasac_jax.export import onnx_file
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD
from dasac_jax.interop import state_dict_from_variables
from dasac_jax.models import create_model


class Whole(torch.nn.Module):
    """PyTorch's network with normalisation before it, upsampling and the choice of class behind."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 → (B, H, W) uint8."""
        x = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        logits = torch_networks.upsample(self.network(x), images.shape[1:3])
        return logits.argmax(1).to(torch.uint8)


def write_both(arch: str, size: tuple[int, int], folder: Path) -> dict[str, Path]:
    """Our file and PyTorch's, of the same weights."""
    paths = {"ours": folder / "ours.onnx", "PyTorch's": folder / "theirs.onnx"}
    model = create_model(arch)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    variables = jax.tree.map(np.asarray, dict(variables))
    paths["ours"].write_bytes(
        onnx_file.serialised(
            model, variables, size=size, outputs=("labels",), float16=False, metadata={}
        )
    )
    network = torch_networks.NETWORKS[arch](19)
    arrays = state_dict_from_variables(arch, variables)
    network.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in arrays.items()})
    images = torch.zeros((1, *size, 3), dtype=torch.uint8)
    torch.onnx.export(
        Whole(network).eval(), (images,), paths["PyTorch's"], dynamo=True, external_data=False,
        input_names=["images"], output_names=["labels"],
    )  # fmt: skip
    return paths


def race(paths: dict[str, Path], size: tuple[int, int], repeats: int, threads: int) -> None:
    """Print what a picture takes, the sessions taking turns in one process."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = {name: onnxruntime.InferenceSession(path, options) for name, path in paths.items()}
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    cpu, wall = ({name: [] for name in sessions} for _ in range(2))
    for turn in range(repeats + 1):
        for name, session in list(sessions.items())[:: 1 if turn % 2 else -1]:
            started = time.process_time(), time.perf_counter()
            session.run(["labels"], {"images": images})
            if turn:  # the first one warms up
                cpu[name].append(time.process_time() - started[0])
                wall[name].append(time.perf_counter() - started[1])
    for name in sessions:
        print(
            f"{name}: {statistics.median(cpu[name]):.2f} CPU seconds, "
            f"{statistics.median(wall[name]):.2f} s, {paths[name].stat().st_size / 1e6:.1f} MB"
        )


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="deeplabv2_resnet101")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    flags = parser.parse_args()
    size = tuple(flags.size)
    with tempfile.TemporaryDirectory() as folder:
        race(write_both(flags.network, size, Path(folder)), size, flags.repeats, flags.threads)


if __name__ == "__main__":
    main()
