"""Figures become PNG files of their size, without a trace of the time or of a version."""

from __future__ import annotations

import io
import subprocess
import sys

from PIL import Image

from dasac_jax.reporting import figures


def drawn():
    figure = figures.create(3, 2, 50, facecolor="#102030")
    figure.subplots().plot([0, 1], [1, 0])
    return figures.png(figure)


def test_a_figure_has_its_size_and_ground():
    with Image.open(io.BytesIO(drawn())) as image:
        assert image.format == "PNG" and image.size == (150, 100)
        assert image.convert("RGB").getpixel((0, 0)) == (16, 32, 48)
        assert "Software" not in image.info


def test_the_same_figure_gives_the_same_bytes():
    assert drawn() == drawn()


def test_no_line_about_fonts_is_among_the_runs_own(tmp_path):
    """Not even the first time, when matplotlib makes its list of them."""
    program = (
        "import logging; logging.basicConfig(level=logging.INFO)\n"
        "from dasac_jax.reporting import training_curves"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"MPLCONFIGDIR": str(tmp_path), "PATH": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert list(tmp_path.glob("fontlist*.json")) and "font" not in ended.stderr
