"""The built-in demo: the whole recipe on two small rendered domains, for two CPU cores.

python -m dasac_jax.main --config configs/demo.py --workdir runs/demo
"""

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """The recipe of `gta_r101.py` with a small network, small images and few epochs."""
    config = recipe.base()
    config.arch = "deeplabv2_demo"
    config.init = ""
    config.select = "last"

    config.demo = recipe.demo_data()
    config.data.root = ""
    config.data.source_size = (192, 384)
    config.data.target_size = (192, 384)
    config.data.source_images = 0
    config.data.source_held_out = 0
    config.data.selection_images = 20

    config.baseline.crop = (120, 120)
    config.baseline.source_batch = 8
    config.baseline.target_batch = 8
    config.baseline.learning_rate = 5e-3
    config.baseline.epochs = 15

    config.adapt.crop = (96, 192)
    config.adapt.learning_rate = 2e-3
    config.adapt.epochs = 25

    config.validate_every_epochs = 5
    config.validation_batch = 4
    config.checkpoint_every_steps = 100
    config.log_every_steps = 20
    return config
