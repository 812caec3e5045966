"""The table of published files is complete, and files are recognised by sum and name."""

import hashlib
import re
import runpy
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop import published
from dasac_jax.interop.published import PUBLISHED, Published, digests, identify
from dasac_jax.models import ARCHITECTURES

CONFIGS = Path(__file__).parents[2] / "configs"
ALL_RECIPES = {path.stem for path in CONFIGS.glob("*_*.py")}
TRANSFORMERS = {name for name in ALL_RECIPES if "dinov2" in name}
OTHER_DATA = {"custom_example", "camvid_dusk", "camvid_dusk_r101"}
RECIPES = sorted(ALL_RECIPES - TRANSFORMERS - OTHER_DATA)
PAPERS = [file for file in PUBLISHED if file.kind != "dinov2"]
CONTENT = b"PK some weights"
MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()
MINE = (
    Published("net_a/final.pth", "http://h/net_a/final.pth", "final", ("r",), (), md5=MD5, val=1.0),
    Published("net_b/final.pth", "http://h/net_b/final.pth", "final", ("s",), (), md5="0" * 32),
    Published("net-x.pth", "http://h/net-x.pth", "imagenet", ("r",), (), sha256=SHA256[:8]),
    Published("shares.data", "http://h/shares.data", "weights", ("r",), ()),
)


def write(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_table_is_complete():
    kinds = [file.kind for file in PUBLISHED]
    counts = {kind: kinds.count(kind) for kind in published.KINDS}
    assert counts == {"imagenet": 2, "baseline": 6, "final": 6, "weights": 6, "dinov2": 3}
    assert len(RECIPES) == 6
    for recipe in RECIPES:
        mine = [file.kind for file in PUBLISHED if recipe in file.recipes]
        assert sorted(mine) == ["baseline", "final", "imagenet", "weights"]


def test_every_transformer_has_its_encoder():
    files = [file for file in PUBLISHED if file.kind == "dinov2"]
    assert sorted(recipe for file in files for recipe in file.recipes) == sorted(TRANSFORMERS)
    for file in files:
        (arch,) = file.arches
        assert arch in ARCHITECTURES and file.checkpoints == {arch: arch}
        assert file.url == f"https://huggingface.co/{file.name}" and file.size and not file.checked
        assert file.name.endswith("/model.safetensors")
        for recipe in file.recipes:
            config = runpy.run_path(str(CONFIGS / f"{recipe}.py"))["get_config"]()
            assert config.arch == arch and config.init == f"weights/{arch}"
            assert file.name.split("/")[1] in config.init_from


def test_names_urls_sums_and_checkpoints_are_of_one_file_each():
    for values in (
        [file.name for file in PUBLISHED],
        [file.url for file in PUBLISHED],
        [name for file in PUBLISHED for name in file.checkpoints],
        [file.md5 or file.sha256 for file in PAPERS if file.kind != "weights"],
    ):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("file", PAPERS, ids=lambda file: file.name)
def test_an_entry_is_well_formed(file):
    url = urlsplit(file.url)
    assert url.scheme == "https" and not url.query and re.fullmatch(r"[\w./-]+", url.path)
    assert file.url == f"https://{url.hostname}/{file.path}" and file.path.endswith(file.name)
    assert re.fullmatch(r"[\w-]+(/[\w-]+)?\.(pth|data)", file.name)
    expected = "download.pytorch.org" if file.kind == "imagenet" else "darmstadt.de"
    assert url.hostname.endswith(expected)
    sums = {"imagenet": (None, 8), "weights": (None, None)}.get(file.kind, (32, None))
    for digits, length in zip((file.md5, file.sha256), sums, strict=True):
        assert (digits is None) == (length is None)
        assert digits is None or re.fullmatch(rf"[0-9a-f]{{{length}}}", digits)
    assert set(file.arches) <= set(ARCHITECTURES)
    assert len(file.arches) == (2 if file.name == "vgg16_bn-6c64b313.pth" else 1)
    assert tuple(file.checkpoints.values()) == file.arches
    assert set(file.recipes) <= set(RECIPES) and file.recipes
    assert (file.recipes[0] if file.kind != "imagenet" else "ImageNet") in file.description


def test_entries_agree_with_the_configurations():
    for recipe in RECIPES:
        text = (CONFIGS / f"{recipe}.py").read_text(encoding="utf-8")
        final = next(f for f in PUBLISHED if f.recipes == (recipe,) and f.kind == "final")
        baseline = next(f for f in PUBLISHED if f.recipes == (recipe,) and f.kind == "baseline")
        assert f"published at {final.val}" in text and f"baseline {baseline.val}" in text
        assert final.source in text
        imagenet = next(f for f in PUBLISHED if recipe in f.recipes and f.kind == "imagenet")
        config = (CONFIGS.parent / "dasac_jax" / "config.py").read_text(encoding="utf-8") + text
        assert final.arches == baseline.arches and set(final.arches) <= set(imagenet.arches)
        assert f'config.arch = "{final.arches[0]}"' in config
        inits = [f'config.init = "weights/{name}"' for name in imagenet.checkpoints]
        assert any(init in config for init in inits)
        assert imagenet.basename in config


def test_the_documentation_has_the_same_table():
    text = (CONFIGS.parent / "docs" / "downloads.md").read_text(encoding="utf-8")
    for recipe in RECIPES:
        baseline, final = (
            next(f for f in PUBLISHED if f.recipes == (recipe,) and f.kind == kind)
            for kind in ("baseline", "final")
        )
        assert (
            f"| `{recipe}` | {baseline.name} | {baseline.val} "
            f"| {final.name} | {final.val} / {final.test} |" in text
        )


def test_a_file_is_known_by_its_sum_whatever_its_name(tmp_path):
    found = identify(write(tmp_path / "renamed (1).pth"), MINE)
    assert found.verdict == "known" and found.files == (MINE[0], MINE[2])
    assert found.sums == published.Digests(MD5, SHA256, len(CONTENT))
    assert "the published file net_a/final.pth (r final, mIoU 1.0)" in found.text


def test_a_head_of_sha256_is_enough(tmp_path):
    assert identify(write(tmp_path / "a"), MINE[2:]).files == (MINE[2],)
    for head in ("0" + SHA256[:7], SHA256[:7] + "g"):
        other = replace(MINE[2], sha256=head)
        assert identify(write(tmp_path / "a"), [other]).verdict == "unknown"


def test_a_known_name_with_a_wrong_sum_is_said(tmp_path):
    found = identify(write(tmp_path / "net-x.pth", b"other"), MINE)
    assert found.verdict == "wrong" and found.files == (MINE[2],)
    assert f"SHA-256 {SHA256[:8]}…" in found.text and "NOT that file" in found.text


def test_a_shared_name_means_all_unless_the_folder_tells(tmp_path):
    found = identify(write(tmp_path / "final.pth", b"other"), MINE)
    assert found.verdict == "wrong" and found.files == MINE[:2]
    assert f"MD5 {MD5} or MD5 {'0' * 32}" in found.text
    found = identify(write(tmp_path / "net_b" / "final.pth", b"other"), MINE)
    assert found.files == (MINE[1],)
    # The sum counts for more than the place.
    found = identify(write(tmp_path / "net_b" / "final.pth"), MINE)
    assert found.verdict == "known" and found.files[0] is MINE[0]


def test_other_files_are_unknown_and_some_cannot_be_checked(tmp_path):
    found = identify(write(tmp_path / "mine.pth", b"other"), MINE)
    assert found.verdict == "unknown" and "none of the published" in found.text
    found = identify(write(tmp_path / "shares.data", b"other"), MINE)
    assert found.verdict == "unchecked" and "no checksum is published" in found.text


def test_long_files_are_summed_in_pieces(tmp_path):
    content = bytes(range(256)) * 10_000
    sums = digests(write(tmp_path / "long", content))
    assert sums.md5 == hashlib.md5(content).hexdigest()
    assert sums.sha256 == hashlib.sha256(content).hexdigest()
    assert sums.size == len(content)


def test_what_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "missing.pth", tmp_path):
        with pytest.raises(UserError, match=re.escape(str(path))):
            identify(path)
