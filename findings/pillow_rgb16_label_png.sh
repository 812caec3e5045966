#!/usr/bin/env bash
# Pillow 12.0.0, numpy 2.3.4 (Python 3.11 to 3.13).
# SYNTHIA-RAND-CITYSCAPES ships its labels as PNGs of three channels of 16 bits: class numbers from
# 0 to 22 in the first channel, instance numbers in the second.
# Expected: Pillow reads the numbers, or says that it cannot.
# Seen: it opens the file as 8-bit "RGB" and keeps the upper byte of every sample. All class numbers
# become 0, without an error or a warning, so every pixel seems to be of the class "void".
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.0.0 numpy==2.3.4
"$folder/venv/bin/python" - "$folder/label.png" <<'PYTHON'
import struct
import sys
import warnings
import zlib

import numpy as np
from PIL import Image

warnings.simplefilter("error")
classes = np.arange(23).reshape(1, 23)
samples = np.stack([classes, classes * 40, 0 * classes], axis=-1).astype(">u2")


def chunk(kind, content):
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


header = struct.pack(">2I5B", 23, 1, 16, 2, 0, 0, 0)
rows = zlib.compress(b"\0" + samples.tobytes())
with open(sys.argv[1], "wb") as file:
    file.write(b"\x89PNG\r\n\x1a\n")
    file.write(chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))

with Image.open(sys.argv[1]) as image:
    pixels = np.asarray(image)
    print(image.mode, pixels.dtype, "classes read:", sorted(set(pixels[0, :, 0].tolist())))
    assert image.mode == "RGB" and pixels.dtype == np.uint8
assert (pixels[..., 0] == 0).all(), "class numbers are kept now"
assert (pixels[..., 1] == samples[..., 1] >> 8).all()
print("as described: of 23 class numbers only 0 is left")
PYTHON
