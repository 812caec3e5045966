"""The command scripts/download.py: what is chosen, listed and converted, and how it ends."""

import hashlib
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop.downloads import download
from dasac_jax.interop.published import KINDS, PUBLISHED

ROOT = Path(__file__).parents[3]
FINAL, OTHER, IMAGENET, SHARES = (
    b"PK" + np.random.default_rng(seed).bytes(300_000) for seed in range(4)
)


def md5(content):
    return hashlib.md5(content).hexdigest()


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def row(text, name):
    return next(line for line in text.splitlines() if line.startswith(name)).split()


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


def test_published_recipes_get_their_files_and_kinds_all():
    for file in PUBLISHED:
        for recipe in file.recipes:
            kinds = [f.kind for f in download.select([recipe], PUBLISHED)]
            assert kinds == (["dinov2"] if "dinov2" in recipe else [*KINDS[:4]])
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
