"""Data of your own with DINOv2 ViT-S: the rooms of custom_example.py. Copy both and change them.

python -m dasac_jax.main --config configs/custom_dinov2_s.py --workdir runs/custom_dinov2_s

docs/custom_data.md walks through the data, docs/dinov2.md through the network.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """DINOv2's optimiser and network, the example's data and batches."""
    example = runpy.run_path(str(Path(__file__).with_name("custom_example.py")))["get_config"]()
    config = recipe.dinov2_base()
    recipe.use_dinov2(config, "dinov2_vits14")
    config.data = example.data
    config.select = example.select

    config.optimiser.warmup_steps = 100  # less than either stage has
    config.baseline.crop = example.baseline.crop
    config.baseline.epochs = 20  # passes over source_train.txt
    config.adapt.crop = example.adapt.crop
    config.adapt.source_batch = example.adapt.source_batch
    config.adapt.groups = example.adapt.groups
    config.adapt.epochs = 40  # counted over both stages
    return config
