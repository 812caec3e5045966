"""scripts/benchmark_data.py measures the same work on both sides, and prints it."""

import runpy
from pathlib import Path

import numpy as np
import pytest

SIZES = {"source": (52, 95), "target": (64, 128)}
CROP = (32, 64)


@pytest.fixture(scope="module")
def benchmark():
    script = Path(__file__).parents[2] / "scripts" / "benchmark_data.py"
    return runpy.run_path(str(script))


@pytest.fixture(scope="module")
def data(benchmark, tmp_path_factory):
    return benchmark["make_data"](tmp_path_factory.mktemp("data"), *SIZES.values())


def test_both_ways_make_batches_of_the_same_shapes(benchmark, data):
    source, target = data
    opened = benchmark["open_step"](source, target)
    images, labels, views, noisy = benchmark["original_step"](
        *opened, CROP, np.random.default_rng(1)
    )
    assert images.shape == (8, 3, *CROP) and labels.shape == (8, *CROP)
    assert views.shape == noisy.shape == (8, 3, *CROP)
    assert views.dtype == np.float32 and np.isfinite(views).all()
    assert (labels == 255).any() and (labels < 19).mean() > 0.3
    assert (np.abs(views - noisy).mean((1, 2, 3)) > 1e-3).all()

    (raw,) = benchmark["batches"](source, target, 1)
    made = benchmark["device_views"](raw, CROP)()
    for name, old in (("source_image", images), ("student_view", noisy)):
        assert np.moveaxis(np.asarray(made[name]), -1, 1).shape == old.shape
        assert abs(float(made[name].mean()) - old.mean()) < 1


def test_original_images_and_labels_move_together(benchmark):
    """The image shows its label as a grey value."""
    from PIL import Image

    blocks = np.arange(12, dtype=np.uint8).reshape(3, 4).repeat(20, 0).repeat(30, 1)
    image = Image.fromarray(np.stack([blocks * 20] * 3, -1))
    for seed in range(8):
        made, label = benchmark["original_source"](
            image, Image.fromarray(blocks), (40, 90), np.random.default_rng(seed)
        )
        shown, label = np.asarray(made)[..., 0] / 20, np.asarray(label)
        inside = label != 255
        assert inside.mean() > 0.3
        assert (np.abs(shown - label)[inside] < 0.5).mean() > 0.9


def test_table_tells_the_ratio_and_the_sum(benchmark):
    seconds = {"decode": (0.6, 0.3), "host": (1.6, 0.4), "views": (0.8, 2.0)}
    table = benchmark["table"](seconds)
    assert "host core-seconds: 4.0 times fewer" in table
    assert "2.400 core-seconds per step, 1.5 times the original way's" in table
    assert "25.0" in table  # images a second: 10 in 0.4 s


def test_medians_leave_the_first_time_out(benchmark):
    calls = []
    works = {"host": (lambda: calls.append("old"), lambda: calls.append("new"))}
    seconds = benchmark["measure"](works, repeats=3, steps=2)
    assert calls == ["old", "old", "new", "new"] * 4
    assert set(seconds) == {"host"} and all(0 <= value < 1 for value in seconds["host"])


def test_command(benchmark, capsys):
    sizes = {f"--{name}-size": size for name, size in SIZES.items()} | {"--crop": CROP}
    flags = [f"{flag}={height}x{width}" for flag, (height, width) in sizes.items()]
    benchmark["main"]([*flags, "--repeats", "1", "--steps", "1"])
    printed = capsys.readouterr().out
    assert "PNG files 52x95 of" in printed
    assert "times fewer than the original way" in printed
    for bad in ("10", "axb"):
        with pytest.raises(SystemExit) as ended:
            benchmark["main"](["--crop", bad])
        assert ended.value.code == 2
