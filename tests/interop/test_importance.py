import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dasac_jax.data import sampling
from dasac_jax.data.labels import CLASSES
from dasac_jax.errors import UserError
from dasac_jax.interop import importance, save_torch_file
from dasac_jax.interop.command import main

FILES = Path(__file__).parent / "files"
NAMES = [entry.name for entry in CLASSES]
IMAGES = tuple(
    f"cityscapes/leftImg8bit/train/{frame.split('_')[0]}/{frame}_leftImg8bit.png"
    for frame in ("zurich_000000_000019", "aachen_000000_000019", "aachen_000001_000019")
)
COUNTS = np.zeros((3, 19), np.int64)
COUNTS[:, [0, 1, 13, 16, 18]] = [[60, 15, 0, 1, 6], [30, 5, 0, 0, 2], [10, 0, 7, 0, 0]]


@pytest.fixture
def convert(tmp_path):
    """convert(file, name): code and output of convert_torch_weights.py to tmp_path/name."""

    def run(path, name="run/weights.tsv"):
        text = io.StringIO()
        code = main([str(path), str(tmp_path / name)], Console(file=text, width=300))
        return code, text.getvalue()

    return run


def changed(monkeypatch, change):
    """importance.read of the small file's content after `change`."""
    loaded = {
        name: dict(shares)
        for name, shares in importance.load_torch_file(FILES / "cs_weights_small.data").items()
    }
    change(loaded)
    monkeypatch.setattr(importance, "load_torch_file", lambda path: loaded)
    return importance.read("x.data")


@pytest.mark.parametrize("name", ["cs_weights_small.data", "cs_weights_small_legacy.data"])
def test_the_authors_file_becomes_a_run_s_weights(convert, tmp_path, name):
    code, text = convert(FILES / name)
    assert code == 0 and text.startswith("importance weights of 3 images: ")
    found = sampling.load_weights(tmp_path / "run/weights.tsv", IMAGES, NAMES)
    np.testing.assert_allclose(found, sampling.importance_weights(COUNTS), rtol=1e-14)
    assert found[0, 0] == pytest.approx(0.6) and not found[:, 2].any()
    lines = (tmp_path / "run/weights.tsv").read_text().splitlines()
    assert lines[2].split("\t")[:4] == [
        "aachen_000000_000019_gtFine_labelIds.png",
        "0.3",
        "0.25",
        "0.0",
    ]


def test_weights_of_other_images_are_refused_with_what_is_missing(convert, tmp_path):
    convert(FILES / "cs_weights_small.data")
    path = tmp_path / "run/weights.tsv"
    other = "cityscapes/leftImg8bit/train/ulm/ulm_000007_000019_leftImg8bit.png"
    with pytest.raises(
        UserError, match=r"lack 1 of the 4 .*hold 0 others .first: ulm_000007_000019"
    ):
        sampling.load_weights(path, (*IMAGES, other), NAMES)
    with pytest.raises(UserError, match=r"lack 0 of the 2 .*hold 1 others .first: zurich_000000"):
        sampling.load_weights(path, IMAGES[1:], NAMES)


def test_numbers_of_any_kind_are_read(monkeypatch):
    def change(loaded):
        loaded["zurich_000000_000019_gtFine_labelIds.png"] = {
            0: 0.6, np.int64(1): np.float32(0.75), 16: np.array([1.0]), 18: 0.75
        }  # fmt: skip

    names, shares = changed(monkeypatch, change)
    assert names[2].startswith("zurich")
    assert shares[2, [0, 1, 16, 18]].tolist() == [0.6, 0.75, 1, 0.75]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.popitem(), "shares of class road sum to 0.7, not 1"),
        (lambda x: x["aachen_000001_000019_gtFine_labelIds.png"].update({19: 0.5}), "has 19 for a"),
        (lambda x: x["aachen_000001_000019_gtFine_labelIds.png"].update({"road": 0.5}), "'road'"),
        (lambda x: x["aachen_000001_000019_gtFine_labelIds.png"].update({2: -0.5}), "-0.5 for the"),
        (
            lambda x: x["aachen_000001_000019_gtFine_labelIds.png"].update({2: np.nan}),
            "nan for the",
        ),
        (
            lambda x: x["aachen_000001_000019_gtFine_labelIds.png"].update({2: [1, 0]}),
            "share of cl",
        ),
        (lambda x: x.update({"epoch": {}}), "x.data holds no importance weights"),
        (lambda x: x.clear(), "holds no importance weights"),
    ],
)
def test_other_contents_are_refused(monkeypatch, change, message):
    with pytest.raises(UserError, match=message):
        changed(monkeypatch, change)


def test_a_network_is_no_file_of_weights(convert, tmp_path, capsys):
    save_torch_file(tmp_path / "net.pth", {"conv.weight": np.zeros((2, 2), np.float32)})
    assert convert(tmp_path / "net.pth")[0] == 2
    assert "net.pth holds no importance weights" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert convert(tmp_path / "none.data")[0] == 2
    assert "cannot read" in capsys.readouterr().err


def test_weights_where_a_network_is_expected_say_what_to_do(convert, tmp_path, capsys):
    assert convert(FILES / "cs_weights_small.data", "folder")[0] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds importance weights, no network: give RUN/weights.tsv" in line
    assert not (tmp_path / "folder").exists()


def test_a_file_that_is_there_is_kept(convert, tmp_path, capsys):
    (tmp_path / "weights.tsv").write_text("mine")
    assert convert(FILES / "cs_weights_small.data", "weights.tsv")[0] == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "weights.tsv").read_text() == "mine"
    assert convert(FILES / "cs_weights_small.data", "weights.tsv/weights.tsv")[0] == 2
    assert "cannot write" in capsys.readouterr().err
