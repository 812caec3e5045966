"""What the tests of prediction share: the known network, a checkpoint of it, and a folder."""

from __future__ import annotations

import pytest
from predictions import ReadsGreen, picture, save

from dasac_jax import models


@pytest.fixture(autouse=True)
def architecture(monkeypatch):
    monkeypatch.setitem(models.ARCHITECTURES, "reads_green", ReadsGreen)


@pytest.fixture
def trained(tmp_path):
    return save(tmp_path / "trained")


@pytest.fixture
def folder(tmp_path):
    """Five images of two sizes in two folders."""
    for i in range(5):
        city, size = ("aachen", (40, 32)) if i < 3 else ("bonn", (48, 36))
        picture(tmp_path / "in" / city / f"{city}_00000{i}_000019_leftImg8bit.png", i, size)
    return tmp_path / "in"
