"""A small prepared data root whose files differ in size, colour format and content."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

SIZES = ((12, 20), (9, 20), (12, 21))


def save(path, seed, *, label):
    height, width = SIZES[seed % len(SIZES)]
    shape = (height, width) if label else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 19 if label else 256, shape, np.uint8)
    image = Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Palette images are no rarity; the order of their colours must not matter.
    (image.quantize(50) if not label and seed % 4 == 3 else image).save(path)


def make_root(root, *, target_labels=True):
    for i in range(10):
        save(root / f"game/images/{i + 1:05d}.png", i, label=False)
        save(root / f"game/labels_cs/{i + 1:05d}.png", i, label=True)
    # Compared as text "a-b/…" comes before "a/…", compared folder by folder after it.
    for split, cities in (("train", ("a", "a-b", "ulm")), ("val", ("bonn",)), ("test", ("bern",))):
        for number, city in enumerate(cities):
            for i in range(3):
                stem, seed = f"{split}/{city}/{city}_{i:06d}_000019", 20 + 3 * number + i
                save(root / f"cityscapes/leftImg8bit/{stem}_leftImg8bit.png", seed, label=False)
                place = root / f"cityscapes/gtFine2/{stem}_gtFine_labelIds.png"
                if split != "test" and (target_labels or split == "val"):
                    save(place, seed, label=True)
    return root


@pytest.fixture
def root(tmp_path):
    """Ten game pairs, nine target training, three validation and three test images."""
    return make_root(tmp_path / "data")


@pytest.fixture
def config(root):
    """The `data` section of a configuration that reads the folders."""
    return ConfigDict(
        {
            "root": str(root), "source": "gta5", "source_size": (12, 20), "target_size": (6, 11),
            "lists": "", "source_images": 8, "source_held_out": 2, "selection_images": 4,
            "tfds": "",
        }
    )  # fmt: skip
