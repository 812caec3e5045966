"""scripts/download.py: what it lists, fetches, verifies, refuses and takes from a folder."""

import hashlib
import io
import os
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dasac_jax.errors import UserError
from dasac_jax.interop.downloads import download
from dasac_jax.interop.downloads.fetch import RetryPolicy
from dasac_jax.interop.published import KINDS, PUBLISHED, Published

ROOT = Path(__file__).parents[3]
SOON = RetryPolicy(timeout=5, attempts=2, pause=0.001)
FINAL, OTHER, IMAGENET, SHARES = (
    b"PK" + np.random.default_rng(seed).bytes(300_000) for seed in range(4)
)


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def files(server):
    """Four published files of a server on this machine."""
    url = server.add
    return (
        Published(
            "net.pth", url("models/net.pth", IMAGENET), "imagenet", ("gta_r101", "gta_fcn"),
            ("deeplabv2_a", "fcn_b"),
            sha256=hashlib.sha256(IMAGENET).hexdigest()[:8],
        ),
        Published(
            "a/final.pth", url("data/a/final.pth", FINAL), "final", ("gta_r101",), ("deeplabv2_a",),
            md5=md5(FINAL), size="300 KiB", val=1.0,
        ),
        Published(
            "b/final.pth", url("data/b/final.pth", OTHER), "final", ("gta_fcn",), ("fcn_b",),
            md5=md5(OTHER),
        ),
        Published(
            "shares.data", url("data/shares.data", SHARES), "weights", ("gta_r101",),
            ("deeplabv2_a",),
        ),
    )  # fmt: skip


@pytest.fixture
def command(files, tmp_path, capsys):
    """Runs the command on these files; gives the exit code, stdout and stderr."""

    def run(*arguments, files=files, output=tmp_path / "out"):
        screen = io.StringIO()
        code = download.main(
            [*map(str, arguments), "--output", str(output)],
            files=files,
            console=Console(file=screen, width=160),
            policy=SOON,
        )
        return code, screen.getvalue(), capsys.readouterr().err

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def row(text, name):
    return next(line for line in text.splitlines() if line.startswith(name)).split()


def test_everything_is_fetched_and_verified(command, out):
    code, text, errors = command("all")
    assert (code, errors) == (0, "")
    assert tree(out) == ["a/final.pth", "b/final.pth", "net.pth", "shares.data"]
    assert (out / "a/final.pth").read_bytes() == FINAL
    assert (out / "shares.data").read_bytes() == SHARES
    assert "a/final.pth: 0.3 MiB, verified" in text and "net.pth: 0.3 MiB, verified" in text
    assert "shares.data: 0.3 MiB, unverified: no checksum is published" in text


def test_what_is_there_is_not_fetched_again(command, server):
    command("all")
    before = len(server.requests)
    code, text, _ = command("all")
    assert code == 0 and len(server.requests) == before
    assert "a/final.pth: is there already, verified" in text
    assert "shares.data: is there already, unverified" in text


@pytest.mark.parametrize(
    "names, expected",
    [
        (["gta_fcn"], ["b/final.pth", "net.pth"]),
        (["final"], ["a/final.pth", "b/final.pth"]),
        (["b/final.pth", "net.pth", "b/final.pth"], ["b/final.pth", "net.pth"]),
    ],
)
def test_recipes_kinds_and_names_choose(command, out, names, expected):
    assert command(*names)[0] == 0
    assert tree(out) == expected


def test_published_recipes_get_four_files_and_kinds_all():
    for file in PUBLISHED:
        for recipe in file.recipes:
            assert [f.kind for f in download.select([recipe], PUBLISHED)] == list(KINDS)
        assert file in download.select([file.kind], PUBLISHED)
    assert download.select(["all"], PUBLISHED) == list(PUBLISHED)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gta_r10"], "'gta_r10'; did you mean gta_r101?"),
        (["final.pth", "list"], "no published file, recipe or kind is called"),
        (["--convert"], "say what to fetch"),
        (["list", "--from", "."], "say what to fetch"),
        (["all", "--from", ".", "--mirror", "http://h"], "not allowed with"),
        (["all", "--speed", "3"], "unrecognized arguments: --speed"),
        (["all", "--mirror", "ftp://host"], "only URLs that begin with http"),
        (["net.pth", "--from", "nowhere"], "net.pth: --from: there is no folder nowhere"),
    ],
)
def test_mistakes_are_one_line_and_code_2(command, server, arguments, message):
    code, _, errors = command(*arguments)
    assert code == 2 and message in errors
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert not server.requests


@pytest.mark.parametrize("name, fault", [("a/final.pth", "MD5 is"), ("net.pth", "SHA-256 begins")])
def test_wrong_bytes_never_get_the_name(command, server, files, out, name, fault):
    for path in server.files:
        server.files[path] = b"PK something else"
    code, _, errors = command(name)
    assert code == 2 and errors.count("\n") == 1
    assert f"error: {name}: refused: its {fault}" in errors
    assert tree(out) == [f"{name}.bad"] and f"kept as {out / name}.bad" in errors
    assert len(server.requests) == 1
    # The next attempt starts anew.
    server.files |= {"data/a/final.pth": FINAL, "models/net.pth": IMAGENET}
    assert command(name)[0] == 0
    assert tree(out) == [name, f"{name}.bad"]


def test_one_failure_does_not_keep_the_others(command, server, out):
    del server.files["data/a/final.pth"]
    code, _, errors = command("all")
    assert code == 2 and errors.count("\n") == 1
    assert "error: a/final.pth: http" in errors and "404 Not Found" in errors
    assert tree(out) == ["b/final.pth", "net.pth", "shares.data"]


@pytest.mark.parametrize("content", [b"", b"<html>", b" \n<!DOCTYPE html>"])
def test_even_unchecked_files_are_no_web_pages(command, out, server, tmp_path, content):
    folder = tmp_path / "have"
    folder.mkdir()
    (folder / "shares.data").write_bytes(content)
    code, _, errors = command("shares.data", "--from", folder)
    assert code == 2 and "it is empty or a web page" in errors
    server.files["data/shares.data"] = content
    assert command("shares.data")[0] == 2
    assert not (out / "shares.data").exists()


def test_a_file_that_went_bad_is_moved_and_fetched(command, out):
    command("a/final.pth")
    (out / "a/final.pth").write_bytes(FINAL[:-1])
    code, text, _ = command("a/final.pth")
    assert code == 0 and "what was there is not the published file" in text
    assert (out / "a/final.pth").read_bytes() == FINAL
    assert (out / "a/final.pth.bad").read_bytes() == FINAL[:-1]


def test_an_interrupted_download_goes_on(command, server, out):
    server.drops = [200_000, 0, 0]
    code, _, errors = command("a/final.pth")
    assert code == 2 and "goes on at byte 200000" in errors
    assert tree(out) == ["a/final.pth.part", "a/final.pth.part.mark"]
    assert "0.2 MiB of it" in command()[1]
    code, _, _ = command("a/final.pth")
    assert code == 0 and server.requests[-1][1]["Range"] == "bytes=200000-"
    assert tree(out) == ["a/final.pth"]


def test_what_no_sum_can_check_is_not_pieced_together(command, server):
    server.mark = ""
    for name in ("shares.data", "a/final.pth"):
        server.drops = [200_000]
        assert command(name)[0] == 0
    resumed = [path for path, headers in server.requests if "Range" in headers]
    assert resumed == ["data/a/final.pth"]


def test_pieces_that_do_not_fit_are_replaced(command, server, out):
    (out / "a").mkdir(parents=True)
    (out / "a/final.pth.part").write_bytes(b"PK the beginning of something else")
    code, text, _ = command("a/final.pth")
    assert code == 0 and "once more from the beginning" in text
    assert [("Range" in headers) for _, headers in server.requests] == [True, False]
    assert (out / "a/final.pth").read_bytes() == FINAL


def test_a_mirror_has_the_same_paths(command, server, files, out):
    for path in list(server.files):
        server.files[f"mirror/{path}"] = server.files.pop(path)
    assert command("all", "--mirror", f"{server.url}/mirror/")[0] == 0
    assert len(tree(out)) == 4
    assert server.requests[0][0] == "mirror/models/net.pth"
    origin = download.Origin(mirror="https://host/m")
    assert [origin.url(file) for file in PUBLISHED[:1] + PUBLISHED[-1:]] == [
        "https://host/m/models/resnet101-5d3b4d8f.pth",
        "https://host/m/data/2021-cvpr-araslanov-da-sac/cs_weights/cs_weights_vgg16fcn_synthia.data",
    ]


def test_an_unreachable_host_is_one_line(command):
    code, _, errors = command("net.pth", "--mirror", "http://127.0.0.1:1")
    assert code == 2 and "cannot be reached: Connection refused" in errors
    assert errors.count("\n") == 1


def put(folder, **contents):
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_a_folder_of_downloads_is_searched_by_checksum(command, server, tmp_path, out):
    have = tmp_path / "have"
    put(have, **{
        "final.pth": OTHER, "final (1).pth": FINAL, "deep/er/renamed.pth": IMAGENET,
        "deep/shares.data": SHARES, "a.data": FINAL, "notes.txt": b"", "final.pth.part": FINAL,
    })  # fmt: skip
    code, _, errors = command("all", "--from", have)
    assert (code, errors) == (0, "") and not server.requests
    assert (out / "a/final.pth").read_bytes() == FINAL
    assert (out / "b/final.pth").read_bytes() == OTHER
    assert (out / "net.pth").read_bytes() == IMAGENET
    assert (out / "shares.data").read_bytes() == SHARES
    assert tree(have) == sorted([
        "a.data", "deep/er/renamed.pth", "deep/shares.data", "final (1).pth", "final.pth",
        "final.pth.part", "notes.txt",
    ])  # fmt: skip
    assert os.path.samefile(have / "final.pth", out / "b/final.pth")  # no second gigabyte


def test_a_folder_without_it_says_so(command, tmp_path, out):
    have = tmp_path / "have"
    put(have, **{"a/final.pth": FINAL[:-1], "shares (1).data": SHARES})
    code, _, errors = command("a/final.pth", "shares.data", "--from", have)
    assert code == 2 and not tree(out)
    assert f"no *.pth file below {have} has MD5 {md5(FINAL)}" in errors
    assert f"no *.data file below {have} has this name" in errors


def test_without_links_files_are_copied(command, tmp_path, out, monkeypatch):
    def refuse(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    put(tmp_path / "have", **{"final.pth": FINAL})
    assert command("a/final.pth", "--from", tmp_path / "have")[0] == 0
    assert (out / "a/final.pth").read_bytes() == FINAL
    assert not os.path.samefile(tmp_path / "have/final.pth", out / "a/final.pth")


def test_an_output_that_cannot_be_written_is_named(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, errors = command("net.pth", output=tmp_path / "file")
    assert code == 2 and errors.startswith(f"error: net.pth: {tmp_path / 'file'}: ")


def test_the_list_tells_name_size_sum_and_state(command, out):
    command("gta_r101")
    (out / "net.pth").write_bytes(b"PK")
    for arguments in ([], ["list"]):
        code, text, errors = command(*arguments)
        assert (code, errors) == (0, "")
        assert row(text, "net.pth")[:6] == ["net.pth", "ImageNet", "net.pth", "0.0", "MiB", "WRONG"]
        assert row(text, "a/final.pth") == [
            "a/final.pth", "gta_r101", "final", "0.3", "MiB", "verified", "MD5", md5(FINAL)
        ]  # fmt: skip
        assert row(text, "b/final.pth") == [
            "b/final.pth", "gta_fcn", "final", "-", "-", "MD5", md5(OTHER)
        ]  # fmt: skip
        assert row(text, "shares.data")[1:] == [
            "gta_r101", "weights", "0.3", "MiB", "there", "none", "published"
        ]  # fmt: skip


def test_all_published_files_are_listed(command):
    code, text, _ = command(files=PUBLISHED)
    assert code == 0
    for file in PUBLISHED:
        line = " ".join(row(text, file.name))
        assert file.checksum in line and file.description in line and (file.size or " - ") in line


@pytest.fixture
def conversions(monkeypatch):
    """What is asked of the converter, which makes empty folders here and refuses b/final.pth."""
    calls = []

    def convert(path, output, arch=None):
        if "b/" in str(path):
            raise UserError("no weights in it")
        output.mkdir(parents=True)
        calls.append((path.name, output.name, arch))

    fake = types.ModuleType("dasac_jax.interop.convert")
    fake.convert = convert
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    return calls


def test_files_are_converted_on_request(command, tmp_path, conversions):
    made = tmp_path / "made"
    code, text, errors = command("gta_r101", "b/final.pth", "--convert", "--checkpoints", made)
    assert code == 2 and errors == "error: b/final.pth: no weights in it\n"
    assert conversions == [
        ("net.pth", "net.pth_imagenet", "deeplabv2_a"),
        ("net.pth", "net.pth_fcn_imagenet", "fcn_b"),
        ("final.pth", "gta_r101_final", "deeplabv2_a"),
    ]
    assert f"a/final.pth: converted to {made / 'gta_r101_final'}" in text
    assert "shares.data: importance weights are no network: not converted" in text
    code, text, _ = command("gta_r101", "--convert", "--checkpoints", made)
    assert code == 0 and len(conversions) == 3
    assert f"{made / 'gta_r101_final'} is there already: not converted again" in text


@pytest.mark.parametrize(
    "name, archs", [("gta_r101", ["deeplabv2_a"]), ("imagenet", ["deeplabv2_a", "fcn_b"])]
)
def test_weights_for_two_networks_serve_those_in_demand(
    command, tmp_path, conversions, name, archs
):
    assert command(name, "--convert", "--checkpoints", tmp_path / "made")[0] == 0
    assert [arch for path, _, arch in conversions if path == "net.pth"] == archs


def test_the_converter_takes_what_it_is_given(command, tmp_path):
    code, _, errors = command("final", "--convert", "--checkpoints", tmp_path / "made")
    assert code == 2 and errors.count("\n") == 2
    assert all(line.startswith("error: ") for line in errors.splitlines())
    assert not (tmp_path / "made").exists()


def test_ctrl_c_keeps_what_has_arrived(command, out, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "fetch", interrupted)
    code, _, errors = command("net.pth")
    assert code == 130 and errors.startswith("stopped; the same command goes on")


def test_the_script_lists(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["download.py", "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / "download.py"), run_name="__main__")
    assert end.value.code == 0
    assert "resnet101_gta/final_e136.pth" in capsys.readouterr().out
