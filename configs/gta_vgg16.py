"""GTA5 to Cityscapes, VGG-16 DeepLabv2: published at 49.8 mIoU (baseline 37.1).

python -m dasac_jax.main --config configs/gta_vgg16.py --workdir runs/gta_vgg16
"""

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """The base with the other network, its batches and its loss weight."""
    config = recipe.base()
    config.arch = "deeplabv2_vgg16_bn"
    config.init = "weights/vgg16_bn_imagenet"
    config.init_from = "vgg16_bn-6c64b313.pth from https://download.pytorch.org/models/"

    config.baseline.source_batch = 16
    config.baseline.target_batch = 2
    config.baseline.jitter = 0.4

    config.adapt.target_weight = 2.0
    config.adapt.threshold_lower = 0.1
    return config
