"""Published files: downloaded, verified, refused, and taken from a mirror or a folder."""

import hashlib
import os

import numpy as np
import pytest

from dasac_jax.interop.downloads import download
from dasac_jax.interop.published import PUBLISHED

FINAL, OTHER, IMAGENET, SHARES = (
    b"PK" + np.random.default_rng(seed).bytes(300_000) for seed in range(4)
)


def md5(content):
    return hashlib.md5(content).hexdigest()


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


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
    server.drops = [196_608, 0, 0, 0, 0]
    code, _, errors = command("a/final.pth")
    assert code == 2 and errors.count("\n") == 1 and "goes on at byte 196608" in errors
    assert tree(out) == ["a/final.pth.part", "a/final.pth.part.mark"]
    assert "0.2 MiB of it" in command()[1]
    code, _, _ = command("a/final.pth")
    assert code == 0 and server.requests[-1][1]["Range"] == "bytes=196608-"
    assert tree(out) == ["a/final.pth"]


def test_a_mirror_has_the_same_paths(command, server, files, out):
    for path in list(server.files):
        server.files[f"mirror/{path}"] = server.files.pop(path)
    assert command("all", "--mirror", f"{server.url}/mirror/")[0] == 0
    assert len(tree(out)) == 4
    assert server.requests[0][0] == "mirror/models/net.pth"
    origin = download.Origin(mirror="https://host/m")
    urls = {origin.url(file) for file in PUBLISHED}
    assert len(urls) == len(PUBLISHED) and urls >= {
        "https://host/m/models/resnet101-5d3b4d8f.pth",
        "https://host/m/data/2021-cvpr-araslanov-da-sac/cs_weights/cs_weights_vgg16fcn_synthia.data",
        "https://host/m/facebook/dinov2-large/resolve/main/model.safetensors",
    }


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
