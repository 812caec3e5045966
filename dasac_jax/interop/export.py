"""Checkpoints written as PyTorch or safetensors files, under the names of the authors' code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from dasac_jax.errors import UserError
from dasac_jax.files import replacing
from dasac_jax.inference import trained_network
from dasac_jax.interop import dinov2_names
from dasac_jax.interop.names import state_dict_from_variables
from dasac_jax.interop.torch_files.writer import save_torch_file


def state_dict(
    checkpoint: Path | str, *, teacher: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """{PyTorch name: array} of a checkpoint's network, and a description of it in text values.

    checkpoint: a run's work directory, a stage's folder, a folder of steps or one step's. The
    names are those of the authors' network, without prefixes, so that its load_state_dict takes
    them with strict=True. PyTorch's counts of batches are those of the file that the checkpoint was
    converted from, else zero. Raises UserError where there is no such checkpoint or no teacher in
    it.
    """
    _, networks, facts = trained_network.open_checkpoint(checkpoint)
    variables = trained_network.choose(networks, checkpoint, teacher=teacher)
    which = "teacher" if teacher else "student"
    found = state_dict_from_variables(facts["arch"], variables)
    # A head that nobody trained belongs to no file.
    for place in facts.get("drawn", ()) if facts["arch"] in dinov2_names.ARCHES else ():
        found.pop(dinov2_names.original_name(tuple(place.split("/")[1:])), None)
    for name, count in facts.get("batches_counted", {}).get(which, {}).items():
        found[name] = np.asarray(count, np.int64)
    described = {key: str(facts[key]) for key in ("arch", "num_classes", "epoch") if key in facts}
    return found, {**described, "network": which}


def to_torch(checkpoint: Path | str, output: Path | str, *, teacher: bool = False) -> int:
    """Write a checkpoint's network as a PyTorch file; returns the number of tensors."""
    _refuse_existing(output)
    arrays, _ = state_dict(checkpoint, teacher=teacher)
    save_torch_file(output, arrays)
    return len(arrays)


def to_safetensors(checkpoint: Path | str, output: Path | str, *, teacher: bool = False) -> int:
    """Write a checkpoint's network as a safetensors file; returns the number of tensors.

    DINOv2's encoder gets the names of transformers' files, those of `state_dict` being the original
    ones.
    """
    _refuse_existing(output)
    arrays, description = state_dict(checkpoint, teacher=teacher)
    if description["arch"] in dinov2_names.ARCHES:
        arrays = dinov2_names.to_transformers(arrays)
    # safetensors writes an array's memory as it is and ignores its strides.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        with replacing(output) as unfinished:
            save_file(arrays, unfinished, metadata=description)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {output}: {error}") from error
    return len(arrays)


def _refuse_existing(output: Path | str) -> None:
    if Path(output).exists():
        raise UserError(f"{output} is there already: give another name, or remove it")
