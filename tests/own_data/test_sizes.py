"""The sizes, crops and batches that are chosen for images and machines."""

import pytest

from dasac_jax.errors import UserError
from dasac_jax.own_data import sizes
from dasac_jax.own_data.sizes import Machine

GIB = 2**30


def choose(source, target, machine, count=1000):
    return sizes.choose([source] * count, [target] * count, machine)


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("memory", [8, 24, 80])
@pytest.mark.parametrize("source", [(360, 480), (1052, 1914), (2160, 3840), (40, 64)])
def test_crops_fit_images_memory_and_devices(source, memory, devices):
    machine = Machine(True, devices, memory * GIB)
    values = choose(source, (1024, 2048), machine).values
    side, _ = values["baseline.crop"]
    height, width = values["adapt.crop"]
    assert 32 <= side <= min(values["data.source_size"])
    assert height <= 1024 and width <= 2048 and abs(width / height - 2) < 0.1
    baseline = values["baseline.source_batch"] + values["baseline.target_batch"]
    adapted = values["adapt.source_batch"] + 4 * values["adapt.groups"]
    for pixels in (baseline * side * side, adapted * height * width):
        # 4.2 GiB a megapixel is what docs/memory.md has for ResNet-101 in float32
        assert pixels / devices / 1e6 * 4.2 < memory or side == 32
    assert values["baseline.source_batch"] % devices == values["adapt.source_batch"] % devices == 0
    views = values["adapt.groups"] * 4
    assert views % devices == 0
    assert (views // devices) % 4 == 0 or 4 % (views // devices) == 0


def test_sizes_are_near_the_median_and_smaller_without_an_accelerator():
    mixed = [(360, 480)] * 6 + [(1000, 1000)] * 5
    gpu = sizes.choose(mixed, mixed, Machine(True, 1, 80 * GIB))
    assert gpu.values["data.source_size"] == (360, 480)
    assert gpu.values["arch"] == "deeplabv2_resnet101"
    assert any("the median of 11 images" in reason for reason in gpu.reasons)
    cpu = sizes.choose(mixed, mixed, Machine(False, 1, 8 * GIB))
    assert cpu.values["data.source_size"] == (192, 256) and cpu.values["arch"] == "deeplabv2_demo"
    assert any("480×360, made smaller" in reason for reason in cpu.reasons)


def test_the_adaptation_comes_behind_the_baseline_also_for_very_few_images():
    values = sizes.choose([(64, 64)] * 2, [(64, 64)], Machine(False, 1, 8 * GIB)).values
    assert values["baseline.source_batch"] == 2
    assert 0 < values["baseline.epochs"] <= 1000 < values["adapt.epochs"]


def test_what_is_too_small_or_too_few_is_refused():
    machine = Machine(True, 4, 8 * GIB)
    with pytest.raises(UserError, match="target images of 64×20 pixels, the median, are smaller"):
        choose((64, 64), (20, 64), machine)
    with pytest.raises(UserError, match="3 source images are fewer than the smallest batch of 4"):
        choose((64, 64), (64, 64), machine, count=3)
