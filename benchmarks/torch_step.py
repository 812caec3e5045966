"""The adaptation step in plain PyTorch: teacher, alignment, pooling, pseudo labels, focal loss,
SGD with the four groups.

Eager, in the layout that PyTorch defaults to and with a pass each for source and target, as the
original runs it; or tuned: one pass over both, channels last, autocast, `torch.compile`.
"""

import copy
import re
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks import problem
from benchmarks.torch_networks import NETWORKS, upsample

NEW_LAYERS = r"^(model\.layer5|classifier|features\.4[24]|vgg_head|score_pool[34])\."
Batch = dict[str, torch.Tensor]


def network(arch: str, classes: int, device: str = "cpu") -> nn.Module:
    """The network with the problem's weights, its batch norm frozen and its dropout off."""
    module = NETWORKS[arch](classes).eval()
    if hasattr(module, "load_problem"):
        module.load_problem()
        return module.to(device)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    module.load_state_dict(
        {name: torch.tensor(problem.weight(name, s)) for name, s in shapes.items()}
    )
    return module.to(device)


def tensors(batch: dict[str, Any], device: str = "cpu") -> Batch:
    """The problem's arrays as tensors; images (B, H, W, 3) become (B, 3, H, W)."""

    def convert(name, array):
        tensor = torch.tensor(array)
        if name.endswith(("_view", "_image")):
            tensor = tensor.permute(0, 3, 1, 2).contiguous()
        return (tensor.long() if name.endswith("_label") else tensor).to(device)

    return {name: convert(name, array) for name, array in batch.items()}


def optimiser(student: nn.Module, rate: float) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 and the rates and decays of weights and biases, old and new.

    For a transformer AdamW, its encoder with a share of the head's rate.
    """
    if hasattr(student, "encoder"):
        groups = [
            {"params": student.head.parameters()},
            {"params": student.encoder.parameters(), "lr": rate * problem.ENCODER_RATE},
        ]
        return torch.optim.AdamW(groups, lr=rate, weight_decay=problem.ADAMW_DECAY)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        bias = name.endswith(".bias")
        factor = (2.0 if bias else 1.0) * (10.0 if re.match(NEW_LAYERS, name) else 1.0)
        groups.setdefault((factor, 0.0 if bias else 5e-4), []).append(parameter)
    return torch.optim.SGD(
        [
            {"params": parameters, "lr": rate * factor, "weight_decay": decay}
            for (factor, decay), parameters in groups.items()
        ],
        lr=rate,
        momentum=0.9,
    )


class Adaptation:
    """A student, its teacher and what the method keeps; `step` makes one update."""

    def __init__(self, student: nn.Module, *, tuned: bool = False, dtype: str = "float32"):
        self.student = student
        self.upsample = partial(upsample, align_corners=getattr(student, "align_corners", True))
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.device = next(student.parameters()).device.type
        self.optimiser = optimiser(student, problem.LEARNING_RATE)
        classes = problem.CLASSES
        self.prior = torch.full((classes,), problem.BETA, device=self.device)
        self.done, self.tuned, self.dtype = 0, tuned, dtype
        self.run_student, self.run_teacher = self.student, self.teacher
        if tuned:
            for module in (self.student, self.teacher):
                module.to(memory_format=torch.channels_last)
            self.run_student = torch.compile(self.student)
            self.run_teacher = torch.compile(self.teacher)

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One update; the losses and the share of labelled pixels."""
        self._follow()
        size = batch["student_view"].shape[2:]
        with torch.no_grad():
            logits = self._run(self.run_teacher, batch["teacher_view"])
            probs = self.upsample(logits, size).softmax(1)
            self.prior = _moved(self.prior, probs)
            refined = fuse(probs, batch)
            labels, confidence = pseudo_labels(refined, batch["padded"], self.prior)
        source, target = self._student_logits(batch)
        source, target = self.upsample(source, size), self.upsample(target, size)
        loss_source = functional.cross_entropy(
            source, batch["source_label"], ignore_index=255, reduction="none"
        ).mean()
        focal = (1 - self.prior.clamp(min=0)) ** problem.FOCAL_POWER
        entropy = functional.cross_entropy(
            target, labels, weight=focal, ignore_index=255, reduction="none"
        )
        loss_target = (entropy * confidence).mean()
        self.optimiser.zero_grad(set_to_none=True)
        (loss_source + problem.TARGET_WEIGHT * loss_target).backward()
        self.optimiser.step()
        self.done += 1
        return {
            "loss_source": loss_source.detach(),
            "loss_target": loss_target.detach(),
            "labelled": (labels != 255).float().mean(),
        }

    def _follow(self) -> None:
        """The teacher moves towards the student every so often; at first it is the student."""
        if self.done % problem.TEACHER_EVERY:
            return
        momentum = problem.TEACHER_MOMENTUM if self.done else 0.0
        with torch.no_grad():
            for ours, theirs in zip(
                self.teacher.state_dict().values(),
                self.student.state_dict().values(),
                strict=True,
            ):
                if ours.is_floating_point():
                    ours.mul_(momentum).add_(theirs, alpha=1 - momentum)

    def _student_logits(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        images = batch["source_image"], batch["student_view"]
        if not self.tuned:
            return self._run(self.run_student, images[0]), self._run(self.run_student, images[1])
        logits = self._run(self.run_student, torch.cat(images))
        return logits[: len(images[0])], logits[len(images[0]) :]

    def _run(self, module: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if self.tuned:
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.dtype):
            return module(images).float()


def autocast(device: str, dtype: str) -> Any:
    """bfloat16 where PyTorch thinks that it is safe; nothing for float32."""
    if dtype != "bfloat16":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


def fuse(probs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(V, C, H, W) aligned, averaged over the groups' views and brought back to each view."""
    there, back = batch["to_reference"], batch["from_reference"]
    _, classes, height, width = probs.shape
    aligned = _warped(probs * ~batch["padded"][:, None], there)
    aligned = aligned * _warped(torch.ones_like(probs[:, :1]), back)
    groups = aligned.reshape(-1, problem.GROUP_SIZE, classes, height, width).sum(1)
    total = groups.sum(1, keepdim=True)
    pooled = (groups / total.clamp(min=1e-3)).repeat_interleave(problem.GROUP_SIZE, 0)
    valid = (total > 0.1).float().repeat_interleave(problem.GROUP_SIZE, 0)
    return _warped(pooled, back) * _warped(valid, back)


def pseudo_labels(
    probs: torch.Tensor, padded: torch.Tensor, prior: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (V, H, W), 255 where not confident enough, and the confidence."""
    confidence, winner = probs.max(1)
    views, classes = probs.shape[:2]
    flat = winner.flatten(1)
    peak = torch.zeros(views, classes, device=probs.device)
    peak = peak.scatter_reduce(1, flat, confidence.flatten(1), "amax")
    peak = peak * (1 - torch.exp(-prior / problem.BETA))
    threshold = (problem.THRESHOLD_UPPER * peak).clamp(min=problem.THRESHOLD_LOWER)
    kept = (confidence > threshold.gather(1, flat).reshape(winner.shape)) & ~padded
    return torch.where(kept, winner, 255), confidence


def predict(
    module: nn.Module, images: torch.Tensor, *, tuned: bool = False, dtype: str = "float32"
) -> torch.Tensor:
    """Labels (B, H, W) of normalised images (B, 3, H, W): forward, upsampling, argmax."""
    if tuned:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), autocast(images.device.type, dtype):
        aligned = getattr(module, "align_corners", True)
        return upsample(module(images), images.shape[2:], aligned).argmax(1)


def _moved(prior: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    share = probs.mean((0, 2, 3))
    prior = torch.where((share > 1e-8) & (prior == problem.BETA), share, prior)
    return problem.PRIOR_MOMENTUM * prior + (1 - problem.PRIOR_MOMENTUM) * share


def _warped(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
