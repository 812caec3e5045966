"""Every file that the authors and torchvision published for the six recipes, with its checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from dasac_jax.errors import UserError

_AUTHORS = (
    "https://download.visinf.informatik.tu-darmstadt.de/data/2021-cvpr-araslanov-da-sac/{path}"
)
_TORCHVISION = "https://download.pytorch.org/models/{path}"
_DINOV2 = "https://huggingface.co/{path}"
_ARCHES = {"r101": "deeplabv2_resnet101", "vgg16": "deeplabv2_vgg16_bn", "fcn": "fcn_vgg16_bn"}
_FOLDERS = {"r101": "resnet101", "vgg16": "vgg16", "fcn": "vgg16fcn"}
_SOURCES = {"gta": "GTA5", "synthia": "SYNTHIA"}
# The sizes as published, rounded; they depend on the network and the kind only.
_SIZES = {
    ("r101", "baseline"): "336 MiB",
    ("r101", "final"): "504 MiB",
    ("vgg16", "baseline"): "226 MiB",
    ("vgg16", "final"): "339 MiB",
    ("fcn", "baseline"): "1.1 GiB",
    ("fcn", "final"): "1.6 GiB",
}
_CHUNK = 1 << 20

Kind = Literal["imagenet", "baseline", "final", "weights", "dinov2"]
KINDS: tuple[Kind, ...] = ("imagenet", "baseline", "final", "weights", "dinov2")


@dataclass(frozen=True)
class Published:
    """One published file.

    name: unique, and the path below a folder of downloads. recipes: the recipes that need it.
    arches: its network; VGG's ImageNet weights fit two. source: the labelled data set it was
    trained on. md5 and sha256: the published checksum (of SHA-256 the first digits); at most one
    is given. size: as published, rounded. val, test: the published mIoU in %.
    """

    name: str
    url: str
    kind: Kind
    recipes: tuple[str, ...]
    arches: tuple[str, ...]
    source: str | None = None
    md5: str | None = None
    sha256: str | None = None
    size: str | None = None
    val: float | None = None
    test: float | None = None

    @property
    def path(self) -> str:
        """The URL's path, which is the same on mirrors: "models/resnet101-5d3b4d8f.pth"."""
        return urlsplit(self.url).path.lstrip("/")

    @property
    def basename(self) -> str:
        """The file's own name, which several published files may share."""
        return PurePosixPath(self.name).name

    @property
    def checked(self) -> bool:
        """Whether a checksum is published."""
        return bool(self.md5 or self.sha256)

    @property
    def checksum(self) -> str:
        """The checksum as text: "MD5 59c1…", "SHA-256 5d3b4d8f…" or "none published"."""
        if self.md5:
            return f"MD5 {self.md5}"
        return f"SHA-256 {self.sha256}…" if self.sha256 else "none published"

    @property
    def checkpoints(self) -> dict[str, str]:
        """{name of the converted checkpoint: network}; the recipes use these names in `init`."""
        if self.kind == "dinov2":
            return {self.arches[0]: self.arches[0]}
        if self.kind != "imagenet":
            return {f"{self.recipes[0]}_{self.kind}": arch for arch in self.arches}
        stem = self.basename.rsplit("-", 1)[0]
        # The two networks on VGG name their layers differently.
        return {
            f"{stem}_fcn_imagenet" if arch.startswith("fcn") else f"{stem}_imagenet": arch
            for arch in self.arches
        }

    @property
    def description(self) -> str:
        """A short description, as in "gta_r101 final"."""
        if self.kind == "imagenet":
            return f"ImageNet {self.basename.rsplit('-', 1)[0]}"
        if self.kind == "dinov2":
            return f"DINOv2 {self.arches[0]}"
        return f"{self.recipes[0]} {self.kind}"

    def matches(self, sums: Digests) -> bool | None:
        """Whether a file of these checksums is this one; None where no checksum is published."""
        if self.md5:
            return sums.md5 == self.md5
        return sums.sha256.startswith(self.sha256) if self.sha256 else None


def _imagenet(basename: str, networks: Sequence[str], size: str) -> Published:
    recipes = tuple(f"{source}_{network}" for network in networks for source in _SOURCES)
    return Published(
        basename,
        _TORCHVISION.format(path=basename),
        "imagenet",
        recipes,
        tuple(_ARCHES[network] for network in networks),
        sha256=basename.removesuffix(".pth").rsplit("-", 1)[1],
        size=size,
    )


def _snapshot(
    recipe: str, basename: str, md5: str, val: float, test: float | None = None
) -> Published:
    source, network = recipe.split("_")
    kind: Kind = "final" if basename.startswith("final") else "baseline"
    return Published(
        name := f"{_FOLDERS[network]}_{source}/{basename}",
        _AUTHORS.format(path=f"snapshots/baselines/{name}"),
        kind,
        (recipe,),
        (_ARCHES[network],),
        _SOURCES[source],
        md5=md5,
        size=_SIZES[network, kind],
        val=val,
        test=test,
    )


def _weights(recipe: str) -> Published:
    source, network = recipe.split("_")
    name = f"cs_weights_{_FOLDERS[network]}_{source}.data"
    url = _AUTHORS.format(path=f"cs_weights/{name}")
    return Published(name, url, "weights", (recipe,), (_ARCHES[network],), _SOURCES[source])


def _dinov2(name: str, arch: str, recipes: Sequence[str], size: str) -> Published:
    file = f"facebook/{name}/resolve/main/model.safetensors"
    url = _DINOV2.format(path=file)
    return Published(file, url, "dinov2", tuple(recipes), (arch,), size=size)


PUBLISHED: tuple[Published, ...] = (
    _imagenet("resnet101-5d3b4d8f.pth", ("r101",), "171 MiB"),
    _imagenet("vgg16_bn-6c64b313.pth", ("vgg16", "fcn"), "528 MiB"),
    _dinov2("dinov2-small", "dinov2_vits14", ["custom_dinov2_s"], "84 MiB"),
    _dinov2("dinov2-base", "dinov2_vitb14", ["gta_dinov2_b", "synthia_dinov2_b"], "330 MiB"),
    _dinov2("dinov2-large", "dinov2_vitl14", ["gta_dinov2_l", "synthia_dinov2_l"], "1.1 GiB"),
    _snapshot("gta_r101", "baseline_abn_e040.pth", "9fe17301faf87b03279257fb408c11fc", 40.8),
    _snapshot("gta_r101", "final_e136.pth", "59c166645f3b36bd0482c4ff25b5a32f", 53.8, 55.7),
    _snapshot("gta_vgg16", "baseline_abn_e115.pth", "d4ffcfb09775562108d1b6d32ddef755", 37.1),
    _snapshot("gta_vgg16", "final_e184.pth", "0accb8f76c001659dd3e6d5d2b6d5881", 49.8, 51.0),
    _snapshot("gta_fcn", "baseline_abn_e040.pth", "aa2e940894e2147e8ef1804fbc4bae53", 36.7),
    _snapshot("gta_fcn", "final_e112.pth", "e69f8ba2c455f6c1c4a3d7e97a6f729b", 49.9, 50.4),
    _snapshot("synthia_r101", "baseline_abn_e090.pth", "b343113cd805bb7b5c7ca7f8104d1a83", 36.3),
    _snapshot("synthia_r101", "final_e164.pth", "a76828ca805d1853bbcc98b7813db742", 52.6, 52.7),
    _snapshot("synthia_vgg16", "baseline_abn_e070.pth", "3af2456f236113ce6e074cae9c05b24e", 34.4),
    _snapshot("synthia_vgg16", "final_e164.pth", "c5b313772703790aaba24d071135fdb7", 49.1, 48.3),
    _snapshot("synthia_fcn", "baseline_abn_e040.pth", "5f457311faaed83675b06ad1209e4b3a", 31.6),
    _snapshot("synthia_fcn", "final_e098.pth", "efb742e1304c8b628f5d1536988845cc", 46.8, 45.8),
    *(_weights(f"{source}_{network}") for source in _SOURCES for network in _ARCHES),
)


@dataclass(frozen=True)
class Digests:
    """A file's checksums in lower-case hex digits, and its size in bytes."""

    md5: str
    sha256: str
    size: int


def digests(path: Path | str) -> Digests:
    """MD5, SHA-256 and size of a file, read once in pieces. Raises UserError if unreadable."""
    # MD5 serves here to recognise files, not for security, so that systems that forbid it for
    # security allow it.
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    try:
        with open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                md5.update(chunk)
                sha256.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return Digests(md5.hexdigest(), sha256.hexdigest(), size)


@dataclass(frozen=True)
class Identity:
    """Which of the published files a file is.

    verdict: "known" (its checksum is a published one), "unchecked" (its name is a published one
    without a published checksum), "wrong" (its name is a published one, its checksum is not) or
    "unknown". files: the published file, or those that share the name.
    """

    verdict: Literal["known", "unchecked", "wrong", "unknown"]
    sums: Digests
    files: tuple[Published, ...] = ()

    @property
    def text(self) -> str:
        """The verdict as a sentence for users."""
        sums = f"MD5 {self.sums.md5}, SHA-256 {self.sums.sha256}"
        if self.verdict == "known":
            file = self.files[0]
            score = f", mIoU {file.val}" if file.val else ""
            return f"{sums}: the published file {file.name} ({file.description}{score})"
        if self.verdict == "unchecked":
            return f"{sums}: named as a published file for which no checksum is published"
        if self.verdict == "wrong":
            expected = " or ".join(file.checksum for file in self.files)
            return f"{sums}: named as a published file, whose checksum is {expected}: NOT that file"
        return f"{sums}: none of the published files"


def identify(path: Path | str, files: Sequence[Published] = PUBLISHED) -> Identity:
    """Recognise a published file by its checksums, whatever it is called; else by its name.

    Where several published files share the name, the folder that the file lies in decides. Raises
    UserError if the file cannot be read.
    """
    path = Path(path)
    sums = digests(path)
    known = tuple(file for file in files if file.matches(sums))
    if known:
        return Identity("known", sums, known)
    named = tuple(file for file in files if file.basename == path.name)
    placed = tuple(file for file in named if path.absolute().as_posix().endswith("/" + file.name))
    named = placed or named
    if not named:
        return Identity("unknown", sums)
    checked = any(file.checked for file in named)
    return Identity("wrong" if checked else "unchecked", sums, named)
