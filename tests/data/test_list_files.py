"""Lists as other programs and systems write them; what a line means is what exists."""

import pytest

from dasac_jax.data.list_files import read, read_pairs
from dasac_jax.errors import UserError

PAIRS = (("img/a.png", "ids/a.png"), ("img/b.png", "ids/b.png"))
SPACED = (("my photos/street 1.png", "my photos/street 1 ids.png"),)
FILES = {path for pair in (*PAIRS, *SPACED) for path in pair}


def pairs(tmp_path, content, files=FILES, **options):
    """The pairs of a list of this content, text or bytes, where only `files` are there."""
    listed = tmp_path / "list.txt"
    listed.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_pairs(listed, tmp_path, files.__contains__, **options)


@pytest.mark.parametrize(
    "content",
    [
        "img/a.png ids/a.png\nimg/b.png ids/b.png",
        "img/a.png ids/a.png\r\n\r\nimg/b.png ids/b.png\r\n",
        "img/a.png ids/a.png\rimg/b.png ids/b.png\r",
        "\ufeffimg/a.png ids/a.png\nimg/b.png ids/b.png\n",
        "img/a.png ids/a.png\r\nimg/b.png ids/b.png\r\n".encode("utf-16"),
        "img/a.png\tids/a.png\nimg/b.png \t ids/b.png\n",
        "img/a.png,ids/a.png\nimg/b.png, ids/b.png\n",
        "img/a.png;ids/a.png\nimg/b.png;ids/b.png\n",
        '"img/a.png","ids/a.png"\n"img/b.png" "ids/b.png"\n',
        "img\\a.png ids\\a.png\nimg\\b.png ids\\b.png\n",
        "/img/a.png /ids/a.png\n./img/b.png .//ids/../ids/b.png\n",
        "# image label\nimg/a.png ids/a.png\n  # more\nimg/b.png ids/b.png # the last\n",
    ],
)
def test_all_common_ways_to_write_a_list(tmp_path, content):
    assert pairs(tmp_path, content) == PAIRS


@pytest.mark.parametrize(
    "content",
    [
        '"my photos/street 1.png" "my photos/street 1 ids.png"',
        "my photos/street 1.png\tmy photos/street 1 ids.png",
        "my photos/street 1.png,my photos/street 1 ids.png",
        "my photos/street 1.png my photos/street 1 ids.png",
    ],
)
def test_paths_with_spaces(tmp_path, content):
    assert pairs(tmp_path, content) == SPACED
    alone = pairs(tmp_path, content.replace("\t", " "), labelled=False)
    assert alone == ((SPACED[0][0], None),)


def test_characters_of_lists_in_file_names(tmp_path):
    files = {"a,b.png", "#1.png", 'say "a".png', "c;d e.png", "x\\y.png", "7 #8.png"}
    content = 'a,b.png\n#1.png\n"say ""a"".png"\nc;d e.png\nx\\y.png\n7 #8.png\n'
    assert {image for image, _ in pairs(tmp_path, content, files)} == files


def test_absolute_paths_below_the_root_become_relative(tmp_path):
    (tmp_path / "outside.png").touch()
    assert pairs(tmp_path, f"{tmp_path}/img/a.png {tmp_path}/ids/a.png") == PAIRS[:1]
    listed = tmp_path / "list.txt"
    listed.write_text(f"{tmp_path}/outside.png\n")
    with pytest.raises(UserError, match=r"line 1: /.*outside\.png lies outside of .*root"):
        read_pairs(listed, tmp_path / "root", FILES.__contains__)


def test_what_is_not_there_is_handed_on_as_it_is_written(tmp_path):
    assert pairs(tmp_path, "./img/c.png /ids/c.png\n") == (("img/c.png", "ids/c.png"),)
    (line,) = read_lines(tmp_path, "img/c.png ids/c.png")
    assert (line.number, line.image_found) == (1, False)


def read_lines(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    return list(read(tmp_path / "list.txt", lambda path: path if path in FILES else None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("img/a.png x y z\n", r"list\.txt, line 1: `image` or `image label` expected.*in quotes"),
        ("img/a.png\n./img/a.png\n", r"line 2: img/a\.png is listed in line 1 already"),
        ("# nothing\n\n", r"list\.txt is empty"),
        (b"\xff\xfe\x00", r"cannot read list file .*save it as UTF-8"),
        ("stra\xdfe.png\n".encode("latin-1"), r"cannot read list file .*save it as UTF-8"),
        ("a.png\n".encode("utf-16-le"), r"cannot read list file .*save it as UTF-8"),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        pairs(tmp_path, content)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read list file .*gone\.txt"):
        read_pairs(tmp_path / "gone.txt", tmp_path, FILES.__contains__)
