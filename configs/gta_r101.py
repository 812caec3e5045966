"""GTA5 to Cityscapes, ResNet-101 DeepLabv2: published at 53.8 mIoU (baseline 40.8).

python -m dasac_jax.main --config configs/gta_r101.py --workdir runs/gta_r101
"""

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """The base as it is."""
    return recipe.base()
