"""Real photographs: CamVid from day to dusk with ResNet-101 and ImageNet weights, for a GPU.

python scripts/prepare_data.py camvid FOLDER
python scripts/download.py imagenet --convert
python -m dasac_jax.main --config configs/camvid_dusk_r101.py --workdir runs/camvid_dusk_r101

Sizes and epochs suit 577 frames of 360×480; the rest is as published for GTA5. Nothing has been
measured with it yet. Try `config.dtype = "bfloat16"` where the GPU has it.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """The data of `camvid_dusk.py` at full size, the network and settings of `gta_r101.py`."""
    config = recipe.base()
    small = runpy.run_path(str(Path(__file__).with_name("camvid_dusk.py")))["get_config"]()
    config.data.update(small.data)
    config.data.source_size = (360, 480)
    config.data.target_size = (360, 480)
    config.select = "last"

    config.baseline.crop = (320, 320)
    config.baseline.source_batch = 8
    config.baseline.epochs = 40  # of 72 steps

    config.adapt.crop = (360, 480)
    config.adapt.epochs = 100  # sixty more
    config.adapt.source_scale = (0.75, 1.5)  # source frames are as large as the crop
    # Updates are counted within an epoch, which is 72 steps here.
    config.adapt.teacher_every_steps = 10
    return config
