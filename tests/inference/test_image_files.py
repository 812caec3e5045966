"""Images are found wherever they lie, in the order of a sequence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dasac_jax.errors import UserError
from dasac_jax.inference.image_files import find_images

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def picture(path, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RGB).convert(mode).save(path, **options)
    return path


def names(found):
    return [image.name for image in found]


def test_a_folder_is_searched_at_any_depth(tmp_path):
    for name in ("b.png", "a/z.JPG", "a/y.jpeg", "a/deep/x.PNG"):
        picture(tmp_path / "in" / name)
    picture(tmp_path / "in" / ".hidden" / "h.png")
    picture(tmp_path / "in" / "._b.png")
    (tmp_path / "in" / "notes.txt").write_text("none")
    found = find_images([tmp_path / "in"])
    assert names(found) == ["a/deep/x", "a/y", "a/z", "b"]
    assert found[3].path == tmp_path / "in" / "b.png"


def test_the_folder_that_is_written_to_is_left_out(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "out" / "labels" / "a.png")
    results = [tmp_path / "out" / "labels"]
    assert names(find_images([tmp_path], outside=results)) == ["a"]
    assert names(find_images([tmp_path])) == ["a", "out/labels/a"]
    (tmp_path / "linked").symlink_to(tmp_path / "out")
    assert names(find_images([tmp_path], outside=results)) == ["a"]
    with pytest.raises(
        UserError, match=r"no images in .*; 1 picture is left out, results of predictions"
    ):
        find_images([results[0]], outside=results)
    with pytest.raises(UserError, match=r"image .*out/labels/a\.png lies where results"):
        find_images([tmp_path / "a.png", results[0] / "a.png"], outside=results)


def test_results_of_earlier_predictions_are_left_out_of_a_search(tmp_path, caplog):
    for name in ("a.png", "out/labels/a.png", "out/b.png", "labels/c.png"):
        picture(tmp_path / name)
    (tmp_path / "out" / "prediction.json").touch()
    assert names(find_images([tmp_path])) == ["a", "labels/c", "out/b"]
    assert "1 picture is left out, results of predictions" in caplog.text
    assert names(find_images([tmp_path / "out/labels"])) == ["a"]  # who asks for them gets them
    assert names(find_images([f"{tmp_path}/out/*/*.png"])) == ["a"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    picture(tmp_path / "store" / "ulm" / "2.png")
    picture(tmp_path / "in" / "1.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    found = ["1", "linked/ulm/2"]
    assert names(find_images([f"{tmp_path}/in/**"])) == found
    # Python's own `**` would go round two circles in every order, which takes seconds.
    (tmp_path / "store" / "ulm" / "back").symlink_to(tmp_path / "store")
    assert names(find_images([tmp_path / "in"])) == found
    assert names(find_images([f"{tmp_path}/i*"])) == found
    (tmp_path / "in" / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"in/gone is a link to .*nowhere, which is not there"):
        find_images([tmp_path / "in"])


def test_pictures_of_other_kinds_are_counted(tmp_path, caplog):
    for name in ("a.png", "b.webp", "c/d.BMP", ".e.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes.md").touch()
    assert names(find_images([tmp_path])) == ["a"]
    assert "2 pictures are left out, of another kind" in caplog.text
    assert "1 .webp, 1 .bmp" in caplog.text
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"no images in .*; 2 pictures are left out.*b\.webp"):
        find_images([tmp_path])


def test_frames_are_in_natural_order(tmp_path):
    numbered = [f"run_{run}/frame_{i}" for run in (2, 10) for i in (1, 2, 9, 10, 11, 100)]
    paths = [picture(tmp_path / f"{name}.png") for name in numbered]
    assert names(find_images([tmp_path])) == numbered
    assert names(find_images([f"{tmp_path}/*/*.png"])) == numbered
    assert names(find_images(sorted(paths))) == numbered  # as a shell expands a pattern
    assert names(find_images(paths[::-1])) == numbered[::-1]  # anybody's own order


def test_files_and_several_folders_are_named_from_the_folder_they_share(tmp_path):
    one, two = picture(tmp_path / "s" / "one" / "a.png"), picture(tmp_path / "s" / "two" / "a.png")
    assert names(find_images([one])) == ["a"]
    assert names(find_images([one, two])) == ["one/a", "two/a"]
    assert names(find_images([one.parent, two.parent])) == ["one/a", "two/a"]
    assert names(find_images([two, one, two])) == ["two/a", "one/a"]


def test_patterns(tmp_path, monkeypatch):
    for name in ("x/a_1.png", "x/a_2.png", "x/b_1.png", "x/y/a_3.png"):
        picture(tmp_path / name)
    assert names(find_images([str(tmp_path / "x" / "a_*.png")])) == ["a_1", "a_2"]
    assert names(find_images([f"{tmp_path}/**/a_*.png"])) == ["a_1", "a_2", "y/a_3"]
    assert names(find_images([str(tmp_path / "x*")])) == ["a_1", "a_2", "b_1", "y/a_3"]
    monkeypatch.chdir(tmp_path)
    assert names(find_images(["x/b*"])) == ["b_1"]
    picture(tmp_path / "[x].png")
    assert names(find_images(["[x].png"])) == ["[x]"]  # a file before a pattern


def test_lists(tmp_path, monkeypatch):
    picture(tmp_path / "data" / "i" / "a.png")
    picture(tmp_path / "data" / "i" / "with space.png")
    picture(tmp_path / "elsewhere" / "b.png")
    lines = [
        "\ufeffi/a.png labels/a.png", "", "i/with space.png", "./elsewhere/b.png",
        str(tmp_path / "data" / "i" / "a.png"),
    ]  # fmt: skip
    listed = tmp_path / "data" / "list.txt"
    listed.write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    assert names(find_images([listed])) == ["data/i/a", "data/i/with space", "elsewhere/b"]


def test_a_list_of_training_below_the_data_root(tmp_path):
    picture(tmp_path / "my i" / "a.png")
    listed = tmp_path / "lists" / "train.CSV"
    listed.parent.mkdir()
    listed.write_text('"/my i/a.png","labels/a.png"\r\n')
    assert [image.path for image in find_images([listed])] == [tmp_path / "my i" / "a.png"]


def test_a_list_that_names_what_is_not_there(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("\nnowhere.png\n")
    with pytest.raises(UserError, match=r"list\.txt, line 2: .*nowhere\.png"):
        find_images([listed])
    listed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read list file .*list\.txt"):
        find_images([listed])


def test_nothing_found(tmp_path):
    (tmp_path / "notes.md").write_text("")
    (tmp_path / "empty.txt").write_text("\n")
    for given in (tmp_path, tmp_path / "*.png"):
        with pytest.raises(UserError, match=r"no images in .*\.png, \.jpg"):
            find_images([given])
    with pytest.raises(UserError, match=r"list file .*empty\.txt is empty"):
        find_images([tmp_path / "empty.txt"])
    with pytest.raises(UserError, match=r"no image, folder or list .*gone\.png"):
        find_images([tmp_path / "gone.png"])


def test_two_images_of_one_name(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png .*suffix"):
        find_images([tmp_path])
