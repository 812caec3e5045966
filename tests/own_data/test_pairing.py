"""Which label belongs to which image, and which files are found."""

import pytest

from dasac_jax.errors import UserError
from dasac_jax.own_data import pairing, places


def files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def pair(root, images="images", labels="labels", endings=()):
    found = places.find([str(root / images)], places.IMAGE_SUFFIXES, "--source-images")
    label_files = places.find([str(root / labels)], places.LABEL_SUFFIXES, "--source-labels")
    return pairing.pair(found, label_files, endings, "--source-labels")


def names(paths):
    return [tuple(p.name for p in x) if isinstance(x, tuple) else x.name for x in paths]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("0001.png", "0001.png"),
        ("0001TP_006690.png", "0001TP_006690_L.png"),
        ("ulm_000000_000019_leftImg8bit.png", "ulm_000000_000019_gtFine_labelIds.png"),
        ("GOPR0475_frame_000041_rgb_anon.png", "GOPR0475_frame_000041_gt_labelIds.png"),
        ("a b.JPG", "a b_mask.PNG"),
        ("12_sat.jpg", "12_mask.png"),
        ("0a-7c.jpg", "0a-7c_train_id.png"),
        ("rgb_00012.jpg", "classgt_00012.png"),
        ("image12.jpg", "mask12.tif"),
        ("v1.2-x.jpg", "v1.2-x.gt.png"),
    ],
)
def test_endings_and_beginnings_as_people_have_them(tmp_path, image, label):
    files(tmp_path, f"images/{image}", f"labels/{label}", "images/other.png", "labels/more_1.png")
    found = pair(tmp_path)
    assert names(found.pairs) == [(image, label)]
    assert names(found.images_alone) == ["other.png"]
    assert names(found.labels_alone) == ["more_1.png"]


def test_a_number_more_is_no_ending(tmp_path):
    files(tmp_path, "images/frame_1.png", "labels/frame_1_2.png")
    with pytest.raises(UserError, match=r"no pairs: .* frame_1\.png, the first label frame_1_2"):
        pair(tmp_path)


def test_folders_decide_between_equal_names_and_frames_are_in_order(tmp_path):
    for place in ("images/fog/2", "labels/fog/2", "images/night/1", "labels/night/1"):
        files(tmp_path, f"{place}/10.png", f"{place}/9.png")
    found = pair(tmp_path)
    assert [image.parts[-3:] for image, _ in found.pairs] == [
        ("fog", "2", "9.png"), ("fog", "2", "10.png"),
        ("night", "1", "9.png"), ("night", "1", "10.png"),
    ]  # fmt: skip
    assert all(image.parts[-3:] == label.parts[-3:] for image, label in found.pairs)


def test_images_and_labels_may_lie_in_one_folder(tmp_path):
    files(tmp_path, "a/1.jpg", "a/1_ids.png", "a/2.jpg", "a/2.png", "a/3.png", "a/3_mask.png")
    found = pair(tmp_path, "a", "a")
    expected = [("1.jpg", "1_ids.png"), ("2.jpg", "2.png"), ("3.png", "3_mask.png")]
    assert names(found.pairs) == expected
    assert found.images_alone == found.labels_alone == ()


def test_of_several_labels_the_data_sets_own_is_taken(tmp_path):
    kinds = ("_labelIds", "_labelTrainIds", "_labelColor")
    files(tmp_path, "images/a_rgb_anon.png", *(f"labels/a_gt{kind}.png" for kind in kinds))
    found = pair(tmp_path)
    assert names(found.pairs) == [("a_rgb_anon.png", "a_gt_labelIds.png")]
    assert found.labels_alone == () and "labels are *_gt_labelIds, not " in found.notes[0]
    found = pair(tmp_path, endings=("_gt_labelTrainIds",))
    assert names(found.pairs) == [("a_rgb_anon.png", "a_gt_labelTrainIds.png")]
    by_pattern = pair(tmp_path, labels="labels/*Color.png")
    assert names(by_pattern.pairs) == [("a_rgb_anon.png", "a_gt_labelColor.png")]


def test_two_that_fit_are_refused(tmp_path):
    files(tmp_path, "images/a.png", "labels/a_one.png", "labels/a_two.png")
    with pytest.raises(UserError, match=r"several labels fit image a\.png: a_one\.png, a_two\.png"):
        pair(tmp_path)
    files(tmp_path / "x", "images/a.png", "labels/1/a.png", "labels/2/a.png")
    with pytest.raises(UserError, match=r"two labels fit image .*labels/1/a\.png and .*2/a\.png"):
        pair(tmp_path / "x")
    files(tmp_path / "y", "images/1/a.png", "images/2/a.png", "labels/a.png")
    with pytest.raises(UserError, match=r"two images fit label .*images/1/a\.png and .*2/a\.png"):
        pair(tmp_path / "y")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ((), "there is no file or folder"),
        (("labels/a.json", "labels/b.json"), "only 2 .json: polygons have to be drawn"),
        (("labels/a.jpg",), "only 1 .jpg: JPEG does not keep label values"),
        (("labels/.a.png", "labels/x.txt"), "only 1 .txt|only 1 .png"),
    ],
)
def test_nothing_found_says_what_is_there(tmp_path, made, words):
    files(tmp_path, "images/a.png", *made)
    with pytest.raises(UserError, match=words) as caught:
        pair(tmp_path)
    assert str(caught.value).startswith("--source-labels: ")
