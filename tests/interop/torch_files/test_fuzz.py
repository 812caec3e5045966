"""Hundreds of damaged PyTorch files: read correctly or refused, and nothing else happens."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.interop import load_torch_file

FUZZ = Path(__file__).parents[1] / "files" / "fuzz.py"
# A night's worth with DASAC_FUZZ_FILES=30000. Every day has other files; a failure tells the seed.
COUNT = int(os.environ.get("DASAC_FUZZ_FILES", "600"))
SEED = int(os.environ.get("DASAC_FUZZ_SEED", date.today().toordinal()))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Iterator[tuple[dict, Path]]:
    """The report of files/fuzz.py, and the folder of the damaged files that could be read."""
    folder = tmp_path_factory.mktemp("fuzzed")
    ended = subprocess.run(
        [sys.executable, str(FUZZ), str(folder), str(COUNT), str(SEED)],
        cwd=FUZZ.parents[3], capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    yield json.loads(ended.stdout), folder


def test_damaged_files(fuzzed):
    report, _ = fuzzed
    assert report["wrong"] == [], f"DASAC_FUZZ_FILES={COUNT} DASAC_FUZZ_SEED={SEED}"
    assert sum(report["read"].values()) + sum(report["refused"].values()) == COUNT
    # Of every kind enough are refused, and enough get through to say something.
    assert len(report["refused"]) == len(report["read"]) == 6
    assert min(report["refused"].values()) > COUNT / 15
    assert sum(report["read"].values()) > COUNT / 10


def agree(ours, theirs, torch, where):
    """What was read here is what PyTorch read."""
    if isinstance(theirs, torch.Tensor):
        assert str(theirs.dtype) == f"torch.{ours.dtype}", where
        plain = theirs.detach().clone(memory_format=torch.contiguous_format)
        raw = plain.reshape(-1).view(torch.uint8).numpy()
        assert ours.shape == theirs.shape, where
        assert ours.tobytes() == raw.tobytes(), where
    elif isinstance(theirs, dict):
        assert list(map(repr, ours)) == list(map(repr, theirs)), where
        for mine, other in zip(ours.values(), theirs.values(), strict=True):
            agree(mine, other, torch, where)
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), where
        for mine, other in zip(ours, theirs, strict=True):
            agree(mine, other, torch, where)
    elif isinstance(theirs, (torch.dtype, torch.device)):
        assert str(ours) in str(theirs), where
    else:
        np.testing.assert_equal(ours, theirs, err_msg=where)


@pytest.mark.torch
def test_damaged_files_that_pytorch_reads_too(torch, fuzzed):
    _, folder = fuzzed
    compared = 0
    # Of damaged archives PyTorch may give memory that it never wrote; those that were read here
    # were compared with the whole one.
    for path in sorted([*folder.glob("*-pickle-*.pth"), *folder.glob("*-legacy.pth")]):
        try:
            theirs = torch.load(path, weights_only=True)
        except Exception as error:  # PyTorch has no one error for damaged files
            assert str(error), path.name
            continue
        agree(load_torch_file(path), theirs, torch, path.name)
        compared += 1
    assert compared > COUNT / 30
