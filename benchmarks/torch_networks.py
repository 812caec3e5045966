"""The networks in plain PyTorch, as one would write them there. The modules' names are those of
the authors' state_dict, so that weights of `interop.state_dict_from_variables` load as they are.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

ATROUS_RATES = (6, 12, 18, 24)
DROPOUT_RATE = 0.1


class Bottleneck(nn.Module):
    """1×1, dilated 3×3, 1×1 with a residual; the stride sits on the first 1×1."""

    def __init__(self, channels: int, width: int, stride: int, dilation: int, project: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, 4 · width, H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


class AtrousHead(nn.Module):
    """Sum of four dilated 3×3 convolutions."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.conv2d_list = nn.ModuleList(
            nn.Conv2d(channels, classes, 3, 1, rate, rate) for rate in ATROUS_RATES
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D, h, w) → (B, C, h, w)."""
        return sum(branch(x) for branch in self.conv2d_list)


class ResNet(nn.Module):
    """ResNet with stages 3 and 4 dilated instead of strided, and the atrous head."""

    def __init__(self, classes: int, blocks=(3, 4, 23, 3), widths=(64, 128, 256, 512), stem=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        channels, strides, dilations = stem, (1, 2, 1, 1), (1, 1, 2, 4)
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            stage = []
            for block in range(count):
                stride = strides[i] if block == 0 else 1
                stage.append(Bottleneck(channels, width, stride, dilations[i], block == 0))
                channels = 4 * width
            setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
        self.layer5 = AtrousHead(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → (B, C, h, w)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer5(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


class DeepLabResNet(nn.Module):
    """The authors' wrapper, which gives names their prefix `model.`."""

    def __init__(self, classes: int, **sizes):
        super().__init__()
        self.model = ResNet(classes, **sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → (B, C, h, w)."""
        return self.model(x)


def vgg(plan: str, channels: int, start: int = 0) -> nn.Sequential:
    """A run of VGG layers by the plan that `dasac_jax.models.vgg` describes."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()

    def add(layer: nn.Module) -> None:
        layers[str(start + len(layers))] = layer

    for item in plan.split():
        if item == "P":
            add(nn.MaxPool2d(2))
            continue
        kind, features = item.strip("0123456789"), int(item.lstrip("DF"))
        dilation = {"": 1, "D": 2, "F": 4}[kind]
        add(nn.Conv2d(channels, features, 3, 1, dilation, dilation))
        if kind != "F":
            add(nn.BatchNorm2d(features))
        add(nn.ReLU(inplace=True))
        channels = features
    return nn.Sequential(layers)


class DeepLabVGG(nn.Module):
    """DeepLabv2 on VGG-16-BN."""

    def __init__(self, classes: int):
        super().__init__()
        plan = "64 64 P 128 128 P 256 256 256 P 512 512 512 D512 D512 D512 F1024 F1024"
        self.features = vgg(plan, 3)
        self.classifier = AtrousHead(1024, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → (B, C, h, w)."""
        return self.classifier(self.features(x))


class FCN8s(nn.Module):
    """FCN-8s on VGG-16-BN."""

    def __init__(self, classes: int, width: int = 4096):
        super().__init__()
        self.block1 = vgg("64 64 P 128 128 P 256 256 256 P", 3)
        self.block2 = vgg("512 512 512 P", 256, 24)
        self.block3 = vgg("512 512 512 P", 512, 34)
        self.vgg_head = nn.Sequential(
            nn.Conv2d(512, width, 7, 1, 3),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(DROPOUT_RATE),
            nn.Conv2d(width, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(DROPOUT_RATE),
            nn.Conv2d(width, classes, 1),
        )
        self.score_pool4 = nn.Conv2d(512, classes, 1)
        self.score_pool3 = nn.Conv2d(256, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → (B, C, h, w)."""
        pool3 = self.block1(x)
        pool4 = self.block2(pool3)
        score = self.vgg_head(self.block3(pool4))
        for skip in (self.score_pool4(pool4), self.score_pool3(pool3)):
            score = upsample(score, skip.shape[2:]) + skip
        return score


def _dinov2(name):
    def make(classes):
        from benchmarks import torch_dinov2  # transformers, which takes seconds to import

        return torch_dinov2.DINOv2(classes, *torch_dinov2.SIZES[name])

    return make


NETWORKS = {
    "deeplabv2_resnet101": DeepLabResNet,
    "deeplabv2_vgg16_bn": DeepLabVGG,
    "fcn_vgg16_bn": FCN8s,
    "deeplabv2_demo": lambda classes: DeepLabResNet(
        classes, blocks=(1, 1, 2, 1), widths=(16, 24, 32, 32), stem=16
    ),
    "deeplabv2_small": lambda classes: DeepLabResNet(
        classes, blocks=(1, 1, 2, 1), widths=(32, 48, 64, 64), stem=32
    ),
    **{
        name: _dinov2(name)
        for name in ("dinov2_vits14", "dinov2_vitb14", "dinov2_vitl14", "dinov2_demo")
    },
}


def upsample(
    logits: torch.Tensor, size: tuple[int, int], align_corners: bool = True
) -> torch.Tensor:
    """Bilinear: (B, C, h, w) → (B, C, H, W)."""
    return functional.interpolate(logits, tuple(size), mode="bilinear", align_corners=align_corners)
