"""GTA5 to Cityscapes, DINOv2 ViT-L with a light head: no result of this method is published.

docs/dinov2.md says what differs from the paper's networks.

python -m dasac_jax.main --config configs/gta_dinov2_l.py --workdir runs/gta_dinov2_l
"""

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """The base of DINOv2 with this network."""
    config = recipe.dinov2_base()
    recipe.use_dinov2(config, "dinov2_vitl14")
    config.remat = True  # 24 blocks: keep their inputs alone
    return config
