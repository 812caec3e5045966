"""Every recipe loads, passes the checks and holds the published values."""

import re
import runpy
from pathlib import Path

import pytest

from dasac_jax import config as recipe

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
PUBLISHED = sorted(
    f"{source}_{network}" for source in ("gta", "synthia") for network in ("r101", "vgg16", "fcn")
)

# By network: source and target batch, rate, jitter of the baseline; rate, target weight and lowest
# threshold of the adaptation.
VALUES = {
    "r101": (12, 8, 2.5e-4, 0.5, 2.5e-4, 5.0, 0.2),
    "vgg16": (16, 2, 2.5e-4, 0.4, 2.5e-4, 2.0, 0.1),
    "fcn": (16, 2, 5e-4, 0.4, 5e-4, 2.0, 0.1),
}
NETWORKS = {
    "r101": ("deeplabv2_resnet101", "resnet101-5d3b4d8f.pth"),
    "vgg16": ("deeplabv2_vgg16_bn", "vgg16_bn-6c64b313.pth"),
    "fcn": ("fcn_vgg16_bn", "vgg16_bn-6c64b313.pth"),
}
# The published mIoU: baseline, adapted.
SCORES = {
    "gta_r101": (40.8, 53.8),
    "gta_vgg16": (37.1, 49.8),
    "gta_fcn": (36.7, 49.9),
    "synthia_r101": (36.3, 52.6),
    "synthia_vgg16": (34.4, 49.1),
    "synthia_fcn": (31.6, 46.8),
}


def load(name):
    """The recipe's configuration and its docstring."""
    module = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))
    return module["get_config"](), module["__doc__"]


def test_every_published_recipe_is_there():
    transformers = {f"{source}_dinov2_{size}" for source in ("gta", "synthia") for size in "bl"}
    own = {"demo", "custom_example", "custom_dinov2_s", "camvid_dusk", "camvid_dusk_r101"}
    assert set(PUBLISHED) | transformers | own == set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if "dinov2" in name])
def test_transformers_have_their_optimiser(name):
    config, doc = load(name)
    assert config.arch == f"dinov2_vit{name[-1]}14"
    assert (config.optimiser.kind, config.optimiser.weight_decay) == ("adamw", 0.01)
    assert config.baseline.learning_rate == config.adapt.learning_rate == 1.41e-4
    assert config.optimiser.encoder_rate == 0.1
    assert ("SYNTHIA" in doc) == (config.data.source == "synthia") == name.startswith("synthia")
    if not name.startswith("custom"):
        assert (config.optimiser.warmup_steps, config.dtype) == (1500, "bfloat16")
        assert "no result of this method is published" in doc


@pytest.mark.parametrize("name", NAMES)
def test_passes_the_checks_and_tells_its_command(name):
    config, doc = load(name)
    recipe.check(config)
    assert f"--config configs/{name}.py --workdir runs/{name}" in doc


@pytest.mark.parametrize("name", NAMES)
def test_adds_no_key_that_nothing_reads(name):
    config, _ = load(name)
    added = recipe.flatten(config).keys() - recipe.flatten(recipe.base()).keys()
    assert {key.split(".")[0] for key in added} <= {"demo"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_holds_the_published_values(name):
    config, doc = load(name)
    source, network = name.split("_")
    baseline, adapt = config.baseline, config.adapt
    values = (
        *(baseline.source_batch, baseline.target_batch, baseline.learning_rate, baseline.jitter),
        *(adapt.learning_rate, adapt.target_weight, adapt.threshold_lower),
    )
    assert values == VALUES[network]
    assert (config.arch, config.init_from.split()[0]) == NETWORKS[network]
    assert (adapt.source_batch, adapt.groups, adapt.group_size) == (8, 2, 4)
    assert (baseline.epochs, adapt.epochs) == (100, 200)
    assert (baseline.crop, adapt.crop) == ((640, 640), (512, 1024))
    assert (config.data.source == "synthia") == (source == "synthia")
    assert config.data.statistics == "gta5"
    scores = tuple(float(x) for x in re.findall(r"\d\d\.\d", doc))
    assert scores[::-1] == SCORES[name]


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("synthia")])
def test_synthia_uses_all_images_and_leaves_classes_out(name):
    config, _ = load(name)
    assert (config.data.source_images, config.data.source_held_out) == (0, 400)
    assert config.data.source_size == (760, 1280)
    assert config.left_out == (9, 14, 16)
