"""Labels that scripts/prepare_data.py makes of original ones, and those that it refuses."""

import numpy as np
import pytest
from original_sets import (
    IDS,
    PHOTO,
    UNPACK,
    load,
    save,
    save_sixteen_bits,
    unpack_cityscapes,
    unpack_gta5,
    unpack_synthia,
)

from dasac_jax.config import base
from dasac_jax.data import sources


def test_everything_is_prepared_checked_and_read_for_training(run, tmp_path):
    for name, unpack in UNPACK.items():
        assert run(name, unpack(tmp_path / name))[0] == 0
    code, text = run("check")
    assert code == 0, text
    config = base().data
    with config.unlocked():
        config.update(root=str(tmp_path / "data"), source_size=(2, 34), target_size=(2, 34))
        config.update(source_held_out=1, selection_images=1)
        for config.source in ("gta5", "synthia"):
            assert sources.missing(config) == []
            for role in sources.ROLES:
                source = sources.open_source(config, role)
                assert [source[i]["image"].shape for i in range(len(source))]


def test_gta5_labels_by_palette_index(run, tmp_path):
    code, text = run("gta5", unpack_gta5(tmp_path / "gta"))
    assert code == 0
    known = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19), strict=True))
    expected = [[known.get(int(i), 255) for i in row] for row in IDS]
    np.testing.assert_array_equal(load(tmp_path / "data/game/labels_cs/00002.png"), expected)
    assert "gta5: 2 images, 2 labels in" in text
    assert "note: 24964 of 24966 numbers are missing: 00003 to 24966" in text
    assert "images: 2 linked, as in" in text and "labels: 2 written, as in" in text
    assert "2 kept" in run("gta5", tmp_path / "gta")[1]


def test_synthia_labels_of_sixteen_bits(run, tmp_path):
    assert run("synthia", unpack_synthia(tmp_path / "synthia"))[0] == 0
    found = load(tmp_path / "data/synthia/labels_cs/0000001.png")
    expected = [255, 10, 2, 0, 1, 4, 8, 5, 13, 7, 11, 18, 17, 255, 255, 6, 9, 12, 14, 15, 16, 3,
                255]  # fmt: skip
    np.testing.assert_array_equal(found, [expected] * 3)


def synthia_label(folder, number, value):
    """Give a SYNTHIA label a value at its first pixel."""
    samples = np.zeros((3, 23, 3), np.uint16)
    samples[..., 0] = np.arange(23)
    samples[0, 0, 0] = value
    save_sixteen_bits(folder / f"RAND_CITYSCAPES/GT/LABELS/{number:07d}.png", samples)


@pytest.mark.parametrize("value", [23, 256 + 3, 7 * 256])
def test_a_synthia_label_with_an_impossible_id_is_left_out(run, tmp_path, capsys, value):
    """Of 259 the lower byte alone would be road, of 1792 the upper one a sign."""
    synthia_label(unpack_synthia(tmp_path / "synthia"), 1, value)
    assert run("synthia", tmp_path / "synthia")[0] == 2
    error = capsys.readouterr().err.splitlines()[0]
    assert f"0000001.png holds {value}, which is no id of SYNTHIA (0..22)" in error
    assert [p.name for p in (tmp_path / "data/synthia/labels_cs").iterdir()] == ["0000000.png"]


STREET = np.array([[0, 0, 0, 2, 2, 10, 10, 8, 13, 11]], np.uint8).repeat(4, 0)  # as train ids
VOID = np.where(np.arange(10) < 2, 255, STREET).astype(np.uint8)


LABELS = {"gta5": "labels/*", "cityscapes": "gtFine/*/*/*", "synthia": "*/GT/LABELS/*"}


@pytest.mark.parametrize("ids", [STREET, VOID], ids=["no ignored pixel", "ignored pixels"])
@pytest.mark.parametrize("name", ["gta5", "cityscapes", "synthia"])
@pytest.mark.parametrize("flag", [(), ("--dry-run",)])
def test_labels_that_are_train_ids_already_are_refused(run, tmp_path, capsys, name, ids, flag):
    source = UNPACK[name](tmp_path / "source")
    for path in source.glob(LABELS[name]):
        if name == "synthia":
            save_sixteen_bits(path, ids[..., None].astype(np.uint16).repeat(3, 2))
        else:
            save(path, ids)
    assert run(name, source, *flag)[0] == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "look like train ids" in error and "prepared already" in error and "0 (" in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_the_placeholders_of_a_test_split_are_no_labels(run, tmp_path, capsys):
    source = unpack_cityscapes(tmp_path / "cs")
    for path in source.glob("gtFine/**/*.png"):
        save(path, [[0, 1, 3, 0]])
    assert run("cityscapes", source)[0] == 2
    assert "placeholders" in capsys.readouterr().err


def test_a_street_with_few_classes_is_prepared(run, tmp_path):
    """Road, sidewalk and building alone: below 19, but hardly anything is void."""
    source = unpack_gta5(tmp_path / "gta")
    for path in source.glob("labels/*.png"):
        save(path, np.array([[7, 8, 11, 7, 7, 8, 11, 11, 7, 0] * 4]))
        save(path.parents[1] / f"images/{path.name}", PHOTO[:1].repeat(2, 1)[:, :40])
    assert run("gta5", source)[0] == 0


def test_gta5_sizes_that_differ_are_reported(run, tmp_path):
    source = unpack_gta5(tmp_path / "gta")
    save(source / "images/00002.png", np.zeros((174, 319, 3)))
    save(source / "labels/00002.png", np.full((175, 319), 7), palette=True)
    code, text = run("gta5", source)
    assert code == 0
    assert "labels brought to 1914×1052, as their images differ in size: 1: 00002" in text
    assert "(image 319×174, label 319×175)" in text
    assert load(tmp_path / "data/game/labels_cs/00002.png").shape == (1052, 1914)
    code, text = run("check")
    assert code == 0 and "00002 (image 319×174, label 1914×1052)" in text


def test_pairs_of_other_proportions_are_left_out_and_named(run, tmp_path, capsys):
    source = unpack_gta5(tmp_path / "gta")
    save(source / "labels/00002.png", np.zeros((4, 34)), palette=True)
    assert run("gta5", source)[0] == 2
    told = capsys.readouterr().err
    assert "labels/00002.png does not fit" in told and "image 34×2, label 34×4" in told
    assert not (tmp_path / "data/game/images/00002.png").exists()
