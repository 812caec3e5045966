"""GTA5 to Cityscapes, DINOv2 ViT-B with a light head: no result of this method is published.

docs/dinov2.md says what differs from the paper's networks.

python -m dasac_jax.main --config configs/gta_dinov2_b.py --workdir runs/gta_dinov2_b
"""

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """The base of DINOv2 with this network."""
    config = recipe.dinov2_base()
    recipe.use_dinov2(config, "dinov2_vitb14")
    return config
