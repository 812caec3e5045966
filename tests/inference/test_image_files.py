"""Images are found wherever they lie, and read whatever their pixel format."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dasac_jax.errors import UserError
from dasac_jax.inference.image_files import find_images, read_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
GREY = RGB[..., 0]
GREY_RGB = np.repeat(GREY[..., None], 3, axis=-1)


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
    with pytest.raises(UserError, match=r"no images in .*; 1 are left out as results .*out/labels"):
        find_images([results[0]], outside=results)
    with pytest.raises(UserError, match=r"image .*out/labels/a\.png lies where results"):
        find_images([tmp_path / "a.png", results[0] / "a.png"], outside=results)


def test_links_are_followed_but_not_in_circles(tmp_path):
    picture(tmp_path / "store" / "ulm" / "2.png")
    picture(tmp_path / "in" / "1.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "ulm" / "back").symlink_to(tmp_path / "store")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    found = ["1", "linked/ulm/2"]
    assert names(find_images([tmp_path / "in"])) == found
    assert names(find_images([f"{tmp_path}/in/**"])) == found
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


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("RGB", RGB),
        ("L", np.asarray(Image.fromarray(RGB).convert("L").convert("RGB"))),
        ("RGBA", RGB),
        ("LA", np.asarray(Image.fromarray(RGB).convert("L").convert("RGB"))),
        ("1", np.asarray(Image.fromarray(RGB).convert("1").convert("RGB"))),
    ],
)
def test_formats_without_loss(tmp_path, mode, expected):
    image = read_image(picture(tmp_path / "a.png", mode))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


def test_palette(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "p.png")
    expected = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)[indices]
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), expected)


def test_transparency_is_dropped(tmp_path):
    alpha = np.zeros((6, 9, 1), np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], -1)).save(tmp_path / "t.png")
    np.testing.assert_array_equal(read_image(tmp_path / "t.png"), RGB)


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, GREY.shape)
    Image.fromarray((GREY.astype(np.uint16) << 8) + noise.astype(np.uint16)).save(
        tmp_path / "grey.png"
    )
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), GREY_RGB)


def test_sixteen_bit_colour(tmp_path):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    values = (RGB.astype(">u2") << 8) + np.random.default_rng(2).integers(0, 256, RGB.shape)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", RGB.shape[1], RGB.shape[0], 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "colour.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    np.testing.assert_array_equal(read_image(tmp_path / "colour.png"), RGB)


def test_jpeg_in_grey_and_print_colours(tmp_path):
    for mode in ("L", "CMYK"):
        smooth = Image.new("RGB", (16, 16), (200, 100, 50)).convert(mode)
        smooth.save(tmp_path / "a.jpg", quality=95)
        image = read_image(tmp_path / "a.jpg").astype(int)
        expected = np.asarray(smooth.convert("RGB")).astype(int)
        assert image.shape == (16, 16, 3) and np.abs(image - expected).max() < 6


def test_a_cameras_orientation_is_followed(tmp_path):
    notes = Image.Exif()
    notes[0x0112] = 6  # the camera was held upright: turn by 90 degrees to look at it
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=notes)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(RGB, -1))


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    whole = picture(tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "float.tif")
    for name, words in {
        "empty.png": "is empty",
        "text.png": "cannot read image",
        "cut.png": "cannot read image",
        "gone.png": "cannot read image",
        "float.tif": "pixel format F",
    }.items():
        with pytest.raises(UserError, match=words) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
