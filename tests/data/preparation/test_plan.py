import pytest

from dasac_jax.data.preparation.plan import (
    PLANS,
    plan_cityscapes,
    plan_gta5,
    plan_synthia,
    ranges,
)
from dasac_jax.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def frames(city, count, kind):
    return [f"{city}/{city}_{i:06d}_000019_{kind}.png" for i in range(count)]


def cityscapes(folder, test=True):
    touch(folder / "leftImg8bit/train", *frames("ulm", 2, "leftImg8bit"))
    touch(folder / "leftImg8bit/val", *frames("bonn", 1, "leftImg8bit"))
    touch(folder / "gtFine/train", *frames("ulm", 2, "gtFine_labelIds"))
    touch(folder / "gtFine/train", *frames("ulm", 2, "gtFine_instanceIds"))
    touch(folder / "gtFine/val", *frames("bonn", 1, "gtFine_labelIds"))
    if test:
        touch(folder / "leftImg8bit/test", *frames("mainz", 1, "leftImg8bit"))
        touch(folder / "gtFine/test", *frames("mainz", 1, "gtFine_labelIds"))


def places(plan):
    return [(o.image_place, o.label_place) for o in plan.originals]


def test_cityscapes_keeps_names_and_leaves_out_the_labels_of_test(tmp_path):
    cityscapes(tmp_path)
    plan = plan_cityscapes(tmp_path)
    left, truth = "cityscapes/leftImg8bit", "cityscapes/gtFine2"
    assert places(plan) == [
        (
            f"{left}/train/ulm/ulm_{i:06d}_000019_leftImg8bit.png",
            f"{truth}/train/ulm/ulm_{i:06d}_000019_gtFine_labelIds.png",
        )
        for i in range(2)
    ] + [
        (
            f"{left}/val/bonn/bonn_000000_000019_leftImg8bit.png",
            f"{truth}/val/bonn/bonn_000000_000019_gtFine_labelIds.png",
        ),
        (f"{left}/test/mainz/mainz_000000_000019_leftImg8bit.png", None),
    ]
    assert plan.originals[0].label == (
        tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"
    )
    assert plan.label_size is None
    assert plan.notes[0] == "train: 2975 images were published, 2 are here"


def test_cityscapes_archives_unpacked_into_folders_of_their_own(tmp_path):
    cityscapes(tmp_path)
    for folder, archive in (("leftImg8bit", "leftImg8bit_trainvaltest"),
                            ("gtFine", "gtFine_trainvaltest")):  # fmt: skip
        (tmp_path / archive).mkdir()
        (tmp_path / folder).rename(tmp_path / archive / folder)
    assert len(plan_cityscapes(tmp_path).originals) == 4


def test_cityscapes_images_without_label_are_taken_along_and_noted(tmp_path):
    cityscapes(tmp_path)
    (tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png").unlink()
    (tmp_path / "leftImg8bit/val/bonn/bonn_000000_000019_leftImg8bit.png").unlink()
    plan = plan_cityscapes(tmp_path)
    assert [o.label_place is not None for o in plan.originals] == [True, False, False]
    assert "1 train: images without label: ulm_000001_000019_leftImg8bit.png" in plan.notes
    assert any("labels without image, left out: bonn_000000" in note for note in plan.notes)


def test_gta5_missing_numbers_are_listed(tmp_path):
    there = [1, 2, 3, 5, 9, 10]
    touch(tmp_path, *[f"images/{n:05d}.png" for n in there])
    touch(tmp_path, *[f"labels/{n:05d}.png" for n in there])
    plan = plan_gta5(tmp_path)
    assert [o.image.name for o in plan.originals] == [f"{n:05d}.png" for n in there]
    assert places(plan)[0] == ("game/images/00001.png", "game/labels_cs/00001.png")
    assert plan.notes == (
        "24960 of 24966 numbers are missing: 00004, 00006 to 00008, 00011 to 24966",
    )
    assert plan.label_size == (1052, 1914)


def test_gta5_parts_unpacked_side_by_side(tmp_path):
    touch(tmp_path, "01_images/images/00001.png", "01_labels/labels/00001.png")
    touch(tmp_path, "02_images/02501.png", "02_labels/02501.png")
    plan = plan_gta5(tmp_path)
    assert [o.image for o in plan.originals] == [
        tmp_path / "01_images/images/00001.png",
        tmp_path / "02_images/02501.png",
    ]
    assert [o.label for o in plan.originals] == [
        tmp_path / "01_labels/labels/00001.png",
        tmp_path / "02_labels/02501.png",
    ]


def test_gta5_what_has_no_partner_or_another_name_is_left_out_and_noted(tmp_path):
    touch(tmp_path, "images/00001.png", "images/00002.png", "images/0003.png")
    touch(tmp_path, "labels/00001.png", "labels/00004.png", "labels/._00001.png")
    touch(tmp_path, "images/00005.jpg", "images/deeper/00006.png")
    plan = plan_gta5(tmp_path)
    assert places(plan) == [("game/images/00001.png", "game/labels_cs/00001.png")]
    assert plan.notes == (
        "24963 of 24966 numbers are missing: 00003, 00005 to 24966",
        "1 images without label, left out: 00002",
        "1 labels without image, left out: 00004",
        "3 files not called by 5 digits and .png, left out: 00005.jpg, 00006.png, 0003.png",
    )


def test_suffixes_in_capitals_and_linked_folders(tmp_path):
    touch(
        tmp_path,
        "images/00001.PNG",
        "labels/00001.png",
        "store/ulm/ulm_000000_000019_leftImg8bit.PNG",
    )
    assert places(plan_gta5(tmp_path)) == [("game/images/00001.png", "game/labels_cs/00001.png")]
    cityscapes(tmp_path, test=False)
    (tmp_path / "leftImg8bit/val/linked").symlink_to(tmp_path / "store/ulm")
    touch(tmp_path, "gtFine/val/linked/ulm_000000_000019_gtFine_labelIds.png")
    touch(tmp_path, "leftImg8bit/val/7.jpg")
    plan = plan_cityscapes(tmp_path)
    assert places(plan)[-1] == (
        "cityscapes/leftImg8bit/val/linked/ulm_000000_000019_leftImg8bit.png",
        "cityscapes/gtFine2/val/linked/ulm_000000_000019_gtFine_labelIds.png",
    )
    assert any("1 picture is left out, not called val/<city>/" in note for note in plan.notes)
    (tmp_path / "leftImg8bit/val/mounted").symlink_to("nowhere")
    with pytest.raises(UserError, match="val/mounted is a link to nowhere"):
        plan_cityscapes(tmp_path)


def test_gta5_a_number_that_is_there_twice(tmp_path):
    touch(tmp_path, "images/00001.png", "01_images/images/00001.png", "labels/00001.png")
    with pytest.raises(UserError, match=r"00001\.png is there twice: .*images.* and .*01_images"):
        plan_gta5(tmp_path)


@pytest.mark.parametrize("below", ["", "RAND_CITYSCAPES"])
def test_synthia(tmp_path, below):
    touch(tmp_path / below, "RGB/0000000.png", "GT/LABELS/0000000.png", "GT/COLOR/0000000.png")
    plan = plan_synthia(tmp_path)
    assert places(plan) == [("synthia/RGB/0000000.png", "synthia/labels_cs/0000000.png")]
    assert plan.originals[0].label == tmp_path / below / "GT/LABELS/0000000.png"
    assert plan.notes == ("9399 of 9400 numbers are missing: 0000001 to 0009399",)


@pytest.mark.parametrize("name", PLANS)
def test_folders_that_are_not_the_right_ones(tmp_path, name):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        PLANS[name](tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no folder \w+, which .* it is empty"):
        PLANS[name](tmp_path)
    touch(tmp_path, "holiday.jpg")
    with pytest.raises(UserError, match=r"has no folder .*: it holds holiday\.jpg"):
        PLANS[name](tmp_path)


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("cityscapes", "leftImg8bit_trainvaltest.zip"),
        ("gta5", "01_images.zip"),
        ("synthia", "SYNTHIA_RAND_CITYSCAPES.rar"),
    ],
)
def test_archives_still_packed(tmp_path, name, archive):
    touch(tmp_path, archive)
    with pytest.raises(UserError, match=rf"unpack {archive} there first"):
        PLANS[name](tmp_path)


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("cityscapes", ["leftImg8bit", "gtFine"]),
        ("gta5", ["images", "labels"]),
        ("synthia", ["RGB", "GT/LABELS"]),
    ],
)
def test_empty_folders(tmp_path, name, folders):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{folders[0]} "):
        PLANS[name](tmp_path)


def test_ranges():
    assert ranges([], 3) == ""
    assert ranges([0, 1, 2, 5, 7, 8], 3) == "000 to 002, 005, 007 to 008"
    assert ranges(range(0, 300, 2), 1).endswith("196, 198 and 50 more")
