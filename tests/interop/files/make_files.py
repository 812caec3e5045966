"""Make the PyTorch files beside this script: python make_files.py, with torch installed.

The tests know what is in them, and read them without torch. The two hostile ones are written by
hand with pickle; whoever loads them with pickle makes a file named `pwned` in the current folder.
"""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent


def snapshot() -> dict:
    """What a training leaves behind, in miniature: every kind of tensor, and plain values."""
    base = torch.arange(24, dtype=torch.float32)
    layer = torch.nn.BatchNorm1d(2)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
    layer(torch.tensor([[0.0, 1.0], [2.0, 5.0]])).sum().backward()
    optimiser.step()
    return {
        "model": layer.state_dict(),
        "optimizer": optimiser.state_dict(),
        "views": OrderedDict(
            whole=base,
            middle=base[4:10].view(2, 3),
            turned=base.view(4, 6).t(),
            every_third=base[1::3],
            expanded=base[3:4].expand(2, 2),
        ),
        "weight": torch.nn.Parameter(torch.tensor([[1.5, -2.0]])),
        "dtypes": [
            torch.tensor([1, 0, 3]).to(dtype)
            for dtype in (
                torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
                torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64,
            )
        ],
        # PyTorch writes these to a legacy file too, but reads it only with weights_only=False.
        "newer": [
            torch.tensor([1, 0, 3]).to(dtype) for dtype in (torch.uint16, torch.float8_e4m3fn)
        ],
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "plain": (1, -2, 3.5, True, None, "é", b"\xff", 1 << 70, [(), {}]),
        "epoch": 136,
    }  # fmt: skip


def weights() -> dict:
    """Shares of classes per image, as numpy scalars, and numpy arrays of several kinds."""
    return {
        "00001.png": {np.int64(0): np.float64(0.25), np.int64(13): np.float64(0.75)},
        np.str_("00002.png"): {np.uint8(7): np.float32(1.0)},
        "arrays": [
            np.arange(6, dtype=np.int16).reshape(2, 3),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.arange(3, dtype=">f4"),
            np.array(["a", "bcd"]),
            np.empty((0, 2)),
        ],
    }


class Hostile:
    """What pickle calls when it reads one of these."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile_zip() -> bytes:
    """A zip archive whose pickle runs a command."""
    command = Hostile(os.system, "touch pwned")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": command}, protocol=2))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def hostile_legacy() -> bytes:
    """A legacy stream whose pickle evaluates an expression."""
    expression = Hostile(eval, "open('pwned', 'w')")
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [0x1950A86A20F9469CFC6C, 1001, system, {"weight": expression}, []]
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.save(snapshot(), FOLDER / "zip.pth")
    old = {key: value for key, value in snapshot().items() if key != "newer"}
    torch.save(old, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(weights(), FOLDER / "weights.data")
    (FOLDER / "hostile_zip.pth").write_bytes(hostile_zip())
    (FOLDER / "hostile_legacy.pth").write_bytes(hostile_legacy())
