"""PyTorch's side: eager as the original runs it, or tuned."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import problem, torch_networks, torch_step
from benchmarks.problem import Problem


def make(task: Problem, *, tuned: bool) -> Callable[[], dict[str, Any]]:
    """A function that computes once and gives what it computed, still on the device."""
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
        backend.allow_tf32 = task.dtype != "float32"
    torch.backends.cudnn.benchmark = tuned
    device = "cuda" if task.device == "gpu" else "cpu"
    network = torch_step.network(task.network, problem.CLASSES, device)
    if task.task == "predict":
        return _predictor(task, network, tuned, device)
    adaptation = torch_step.Adaptation(network, tuned=tuned, dtype=task.dtype)
    batch = torch_step.tensors(problem.adapt_batch(task), device)
    return lambda: adaptation.step(batch)


def _predictor(task, network, tuned, device):
    network.requires_grad_(False)
    module = network
    if tuned:
        module = torch.compile(network.to(memory_format=torch.channels_last))
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in _STATISTICS)
    image = torch.tensor(problem.image(task)).permute(0, 3, 1, 2).float() / 255
    image = ((image - mean) / std).contiguous().to(device)
    return lambda: {"labels": torch_step.predict(module, image, tuned=tuned, dtype=task.dtype)}


class Whole(torch.nn.Module):
    """A network with normalisation before it, upsampling and the choice of class behind."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        for name, values in zip(("mean", "std"), _STATISTICS, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 → (B, H, W) uint8."""
        x = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        aligned = getattr(self.network, "align_corners", True)
        logits = torch_networks.upsample(self.network(x), images.shape[1:3], aligned)
        return logits.argmax(1).to(torch.uint8)


_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # ImageNet's, as both sides take them


def ceilings(task: Problem) -> dict[str, Any]:
    """Operations of a large matrix product, bytes moved by a copy, and functions that do them."""
    device = "cuda" if task.device == "gpu" else "cpu"
    dtype = torch.bfloat16 if task.dtype == "bfloat16" else torch.float32
    size = 8192 if task.device == "gpu" else 2048
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    long = torch.zeros(2**28 if task.device == "gpu" else 2**25, device=device)

    def waiting(function):
        def run():
            function()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    return {
        "product": (2.0 * size**3, waiting(lambda: a @ b)),
        "copy": (2.0 * long.nbytes, waiting(lambda: long + 1)),
    }


def peak_device_bytes() -> int | None:
    """The most that the GPU's memory held."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def settle(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """Wait for values and give them as arrays."""
    return {name: value.float().cpu().numpy() for name, value in values.items()}
