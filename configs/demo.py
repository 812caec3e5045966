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
    config.data.source_size = (128, 256)
    config.data.target_size = (128, 256)
    config.data.source_images = 0
    config.data.source_held_out = 0
    config.data.selection_images = 20

    config.baseline.crop = (96, 96)
    config.baseline.source_batch = 4
    config.baseline.target_batch = 4
    config.baseline.learning_rate = 5e-4
    config.baseline.jitter = 0.2
    config.baseline.epochs = 25

    config.adapt.crop = (128, 256)
    config.adapt.source_batch = 4
    config.adapt.groups = 1
    config.adapt.learning_rate = 1e-4
    config.adapt.epochs = 31  # six more
    config.adapt.source_scale = (0.6, 1.4)
    config.adapt.target_weight = 1.0
    # The published run makes about a thousand teacher updates, this one a hundred.
    config.adapt.teacher_every_steps = 5
    config.adapt.teacher_momentum = 0.9

    config.checkpoint_every_steps = 200
    return config
