"""Images whose sides are no multiples of 8 or 32: shapes, and the logits against live PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.models import create_model

SIZES = ((65, 129), (71, 93), (97, 161))
RESNET_STAGES = ((3, 1, 1), (4, 2, 1), (23, 1, 2), (3, 1, 4))  # blocks, stride, dilation


def resnet_rows(n):
    """Stride-2 convolution, pool rounded up, stride-2 convolution."""
    n = (n + 1) // 2
    n = n // 2 + 1
    return (n + 1) // 2


@pytest.mark.parametrize("arch", ["deeplabv2_resnet101", "deeplabv2_vgg16_bn", "fcn_vgg16_bn"])
@pytest.mark.parametrize("size", [*SIZES, (64, 128), (512, 1024), (640, 640)])
def test_shape_of_the_logits(arch, size):
    model = create_model(arch)
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    rows = resnet_rows if "resnet" in arch else lambda n: n // 8
    assert logits.shape == (2, rows(size[0]), rows(size[1]), 19)


class TorchNetworks:
    """The three networks as functions of a state_dict and images (B, 3, H, W)."""

    def __init__(self, torch, state_dict):
        self.functional = torch.nn.functional
        self.entries = {name: torch.tensor(value) for name, value in state_dict.items()}

    def conv(self, x, name, stride=1, padding=0, dilation=1):
        weight, bias = self.entries[f"{name}.weight"], self.entries.get(f"{name}.bias")
        return self.functional.conv2d(x, weight, bias, stride, padding, dilation)

    def norm(self, x, name):
        names = ("running_mean", "running_var", "weight", "bias")
        return self.functional.batch_norm(x, *(self.entries[f"{name}.{n}"] for n in names))

    def pool(self, x):
        return self.functional.max_pool2d(x, 2, 2)

    def up(self, x, like):
        return self.functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)

    def atrous(self, x, name):
        rates = (6, 12, 18, 24)
        return sum(self.conv(x, f"{name}.{i}", 1, r, r) for i, r in enumerate(rates))

    def deeplabv2_resnet101(self, x):
        x = self.norm(self.conv(x, "model.conv1", 2, 3), "model.bn1").relu()
        x = self.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        for stage, (blocks, stride, dilation) in enumerate(RESNET_STAGES, start=1):
            for i in range(blocks):
                x = self.bottleneck(x, f"model.layer{stage}.{i}", stride, dilation, i == 0)
        return self.atrous(x, "model.layer5.conv2d_list")

    def bottleneck(self, x, name, stride, dilation, first):
        stride, shortcut = (stride, x) if first else (1, x)
        if first:
            shortcut = self.conv(x, f"{name}.downsample.0", stride)
            shortcut = self.norm(shortcut, f"{name}.downsample.1")
        y = self.norm(self.conv(x, f"{name}.conv1", stride), f"{name}.bn1").relu()
        y = self.conv(y, f"{name}.conv2", 1, dilation, dilation)
        y = self.norm(y, f"{name}.bn2").relu()
        return (self.norm(self.conv(y, f"{name}.conv3"), f"{name}.bn3") + shortcut).relu()

    def features(self, x, name, indices, dilation=1):
        for i in indices:
            x = self.conv(x, f"{name}.{i}", 1, dilation, dilation)
            x = self.norm(x, f"{name}.{i + 1}").relu()
        return x

    def deeplabv2_vgg16_bn(self, x):
        for indices in ((0, 3), (7, 10), (14, 17, 20)):
            x = self.pool(self.features(x, "features", indices))
        x = self.features(x, "features", (24, 27, 30))
        x = self.features(x, "features", (33, 36, 39), dilation=2)
        for i in (42, 44):
            x = self.conv(x, f"features.{i}", 1, 4, 4).relu()
        return self.atrous(x, "classifier.conv2d_list")

    def fcn_vgg16_bn(self, x):
        for indices in ((0, 3), (7, 10), (14, 17, 20)):
            x = self.pool(self.features(x, "block1", indices))
        pool4 = self.pool(self.features(x, "block2", (24, 27, 30)))
        y = self.pool(self.features(pool4, "block3", (34, 37, 40)))
        y = self.norm(self.conv(y, "vgg_head.0", 1, 3), "vgg_head.1").relu()
        y = self.norm(self.conv(y, "vgg_head.4"), "vgg_head.5").relu()
        y = self.conv(y, "vgg_head.8")
        skip4, skip3 = self.conv(pool4, "score_pool4"), self.conv(x, "score_pool3")
        return self.up(self.up(y, skip4) + skip4, skip3) + skip3


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arch", "sizes"),
    [
        ("deeplabv2_resnet101", SIZES[2:]),
        ("deeplabv2_vgg16_bn", SIZES[1:]),
        ("fcn_vgg16_bn", SIZES[1:2]),
    ],
)
def test_logits_are_those_of_pytorch(arch, sizes, runs, recipe, torch):
    state_dict = runs.start(recipe, arch)
    network = getattr(TorchNetworks(torch, state_dict), arch)
    variables = runs.variables(arch, state_dict)
    apply = jax.jit(create_model(arch).apply)
    for size in sizes:
        images = recipe.image(f"odd/{size}", 1, *size)
        with torch.no_grad():
            theirs = network(torch.tensor(images).permute(0, 3, 1, 2))
        theirs = np.moveaxis(theirs.numpy(), 1, -1)
        ours = apply(variables, images)
        assert ours.shape == theirs.shape
        assert runs.relative(ours, theirs) < 1e-5, size
