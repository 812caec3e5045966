"""GTA5 to Cityscapes, VGG-16 FCN-8s: published at 49.9 mIoU (baseline 36.7).

python -m dasac_jax.main --config configs/gta_fcn.py --workdir runs/gta_fcn
"""

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """The base of both networks on VGG-16, with this network and its learning rates."""
    config = recipe.vgg16_base()
    config.arch = "fcn_vgg16_bn"
    config.init = "weights/vgg16_bn_fcn_imagenet"
    config.baseline.learning_rate = 5e-4
    config.adapt.learning_rate = 5e-4
    return config
