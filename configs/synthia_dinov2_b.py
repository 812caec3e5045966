"""SYNTHIA to Cityscapes, DINOv2 ViT-B with a light head: no result of this method is published.

The mean is over 16 classes: terrain, truck and train are left out, as is usual for SYNTHIA.

docs/dinov2.md says what differs from the paper's networks.

python -m dasac_jax.main --config configs/synthia_dinov2_b.py --workdir runs/synthia_dinov2_b
"""

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """The base of DINOv2 with this network and SYNTHIA as its source."""
    config = recipe.dinov2_base()
    recipe.use_dinov2(config, "dinov2_vitb14")
    recipe.use_synthia(config)
    return config
