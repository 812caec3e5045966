"""GTA5 to Cityscapes, VGG-16 FCN-8s: published at 49.9 mIoU (baseline 36.7).

python -m dasac_jax.main --config configs/gta_fcn.py --workdir runs/gta_fcn
"""

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """The base with the other network, its batches, learning rate and loss weight."""
    config = recipe.base()
    config.arch = "fcn_vgg16_bn"
    config.init = "weights/vgg16_bn_fcn_imagenet"
    config.init_from = "vgg16_bn-6c64b313.pth from https://download.pytorch.org/models/"

    config.baseline.source_batch = 16
    config.baseline.target_batch = 2
    config.baseline.learning_rate = 5e-4
    config.baseline.jitter = 0.4

    config.adapt.learning_rate = 5e-4
    config.adapt.target_weight = 2.0
    config.adapt.threshold_lower = 0.1
    return config
