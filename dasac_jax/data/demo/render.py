"""Render the demo's data: two small domains of driving scenes in real sets' folders and formats.

The source, "game", has the folders of GTA5 and palette labels of Cityscapes ids. The target,
"cityscapes", differs from it in appearance and content, as real pictures differ from rendered ones.
Every picture is a function of (seed, domain, split, number) alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dasac_jax.data.demo.appearance import SHIFT, game_picture, real_picture
from dasac_jax.data.demo.scene import GAME, REAL, draw_scene
from dasac_jax.data.labels import CLASSES
from dasac_jax.errors import UserError
from dasac_jax.files import CITYSCAPES_IMAGE, cityscapes_label, replacing
from dasac_jax.runtime import stop_requests

MARKER = "demo.json"
_UNFINISHED = "demo.unfinished.json"
_SPLITS = ("source", "train", "val", "test")
_CITIES = {
    "train": ("ahornstadt", "lindenau"),
    "val": ("birkenfurt", "seeberg"),
    "test": ("eichtal", "weidenheim"),
}
_MINIMUM = (48, 96)
_POLL_SECONDS = 0.05  # between two checks whether the renderers have ended


def render(
    root: str | os.PathLike,
    *,
    seed: int = 0,
    height: int = 192,
    width: int = 384,
    num_source: int = 320,
    num_train: int = 200,
    num_val: int = 60,
    num_test: int = 20,
    workers: int = 2,
    shift: float = SHIFT,
) -> None:
    """Render the pictures of both domains that do not exist yet under `root`.

    Writes game/{images,labels}/%05d.png, cityscapes/leftImg8bit/{train,val,test}/<city>/ and
    cityscapes/gtFine/{train,val}/<city>/ (test has no labels), and last `demo.json`, the
    parameters. shift: strength of the target's appearance. Raises UserError when `root` holds a
    demo with other parameters or other data, or when a parameter is out of range.
    """
    parameters = {
        "version": 1, "seed": seed, "height": height, "width": width, "num_source": num_source,
        "num_train": num_train, "num_val": num_val, "num_test": num_test, "shift": shift,
    }  # fmt: skip
    _check(parameters)
    root = Path(root)
    finished = _claim(root, parameters)
    missing = [item for item in _items(parameters) if not _complete(root, item)]
    if missing:
        if workers > 1 and len(missing) > 8:
            _render_in_processes(root, workers)
        else:
            render_share(root, 0, 1)
    if not finished:
        for leftover in root.rglob(".*.png.*.tmp"):  # of a rendering that was killed
            leftover.unlink(missing_ok=True)
        os.replace(root / _UNFINISHED, root / MARKER)


def render_share(root: str | os.PathLike, share: int, shares: int) -> None:
    """Render every missing picture whose position is `share` modulo `shares`.

    The parameters are read from the folder, which `render` has prepared.
    """
    root = Path(root)
    marker = root / _UNFINISHED if (root / _UNFINISHED).exists() else root / MARKER
    parameters = json.loads(marker.read_text())
    for item in _items(parameters)[int(share) :: int(shares)]:
        if not _complete(root, item):
            _render_item(root, parameters, item)


def picture(
    split: str, index: int, *, seed: int, height: int, width: int, shift: float = SHIFT
) -> tuple[np.ndarray, np.ndarray]:
    """Picture `index` of "source", "train", "val" or "test".

    Returns the image (H, W, 3) uint8 and its Cityscapes label ids (H, W) uint8.
    """
    # Separate random streams give the same scenes under another appearance.
    streams = np.random.SeedSequence((seed, _SPLITS.index(split), index)).spawn(2)
    scene_rng, appearance_rng = (np.random.default_rng(stream) for stream in streams)
    if split == "source":
        scene = draw_scene(scene_rng, GAME, height, width)
        return game_picture(appearance_rng, scene), scene.labels
    scene = draw_scene(scene_rng, REAL, height, width)
    return real_picture(appearance_rng, scene, shift), scene.labels


def contact_sheet(
    root: str | os.PathLike, path: str | os.PathLike, pairs: int = 3, margin: int = 6
) -> None:
    """Write a picture of `pairs` rows: source image, its labels, target image, its labels."""
    root = Path(root)
    images = sorted((root / "game/images").glob("*.png"))
    targets = sorted((root / "cityscapes/leftImg8bit/val").rglob("*.png"))
    if min(len(images), len(targets)) < pairs:
        raise UserError(f"{root} holds fewer than {pairs} pictures per domain: render it first")
    palette = _palette().reshape(-1, 3)
    rows = []
    for source, target in zip(images[:pairs], targets[:pairs], strict=True):
        labels = root / "game/labels" / source.name
        truth = _target_label(target)
        rows.append([
            np.asarray(Image.open(source)), palette[np.asarray(Image.open(labels))],
            np.asarray(Image.open(target)), palette[np.asarray(Image.open(truth))],
        ])  # fmt: skip
    height, width, _ = rows[0][0].shape
    sheet = np.full(
        (pairs * (height + margin) + margin, 4 * (width + margin) + margin, 3), 255, np.uint8
    )
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            y, x = margin + row * (height + margin), margin + column * (width + margin)
            sheet[y : y + height, x : x + width] = tile
    _write(Image.fromarray(sheet), Path(path))


def _check(parameters: dict) -> None:
    for key, low in (("height", _MINIMUM[0]), ("width", _MINIMUM[1]), ("seed", 0),
                     *((f"num_{split}", 0) for split in _SPLITS), ("shift", 0)):  # fmt: skip
        if parameters[key] < low:
            raise UserError(f"demo data: {key} is {parameters[key]}, it must be at least {low}")


def _claim(root: Path, parameters: dict) -> bool:
    """Mark `root` as a demo of these parameters. Returns whether it was finished before."""
    for name in (MARKER, _UNFINISHED):
        marker = root / name
        if not marker.exists():
            continue
        try:
            found = json.loads(marker.read_text())
        except ValueError as error:
            raise UserError(f"{marker} is not readable JSON ({error}): delete {root}") from error
        differing = [
            f"{key} is {found.get(key)!r} there, {value!r} asked for"
            for key, value in parameters.items()
            if found.get(key) != value
        ]
        if differing:
            raise UserError(
                f"{root} holds demo data with other parameters ({'; '.join(differing)}): "
                "delete it or choose another folder"
            )
        return name == MARKER
    for name in ("game", "cityscapes"):
        if (root / name).exists():
            raise UserError(
                f"{root / name} exists but is no demo data ({MARKER} is missing): "
                "choose an empty folder for the demo"
            )
    root.mkdir(parents=True, exist_ok=True)
    _write_text(root / _UNFINISHED, json.dumps(parameters, indent=2) + "\n")
    return False


def _items(parameters: dict) -> list[tuple[str, int]]:
    return [(split, k) for split in _SPLITS for k in range(parameters[f"num_{split}"])]


def _paths(root: Path, split: str, index: int) -> tuple[Path, Path | None]:
    """Image and label file of one picture."""
    if split == "source":
        name = f"{index + 1:05d}.png"
        return root / "game/images" / name, root / "game/labels" / name
    city = _CITIES[split][index % 2]
    name = f"{city}_{index // 2:06d}_000019{CITYSCAPES_IMAGE}.png"
    image = root / "cityscapes/leftImg8bit" / split / city / name
    return image, None if split == "test" else _target_label(image)


def _target_label(image: Path) -> Path:
    split, city = image.parts[-3:-1]
    name = cityscapes_label(image.name)
    return image.parents[3] / "gtFine" / split / city / name


def _complete(root: Path, item: tuple[str, int]) -> bool:
    return all(path is None or path.exists() for path in _paths(root, *item))


def _render_item(root: Path, parameters: dict, item: tuple[str, int]) -> None:
    chosen = {key: parameters[key] for key in ("seed", "height", "width", "shift")}
    pixels, labels = picture(*item, **chosen)
    image_path, label_path = _paths(root, *item)
    _write(Image.fromarray(pixels), image_path)
    if label_path is not None:
        label = Image.fromarray(labels)
        if item[0] == "source":
            label = Image.frombytes("P", label.size, labels.tobytes())
            label.putpalette(_palette().tobytes())
        _write(label, label_path)


def _palette() -> np.ndarray:
    """(256, 3) uint8: the Cityscapes colour of every label id."""
    palette = np.zeros((256, 3), np.uint8)
    for entry in CLASSES:
        palette[entry.label_id] = entry.color
    palette[5], palette[9] = (111, 74, 0), (250, 170, 160)  # dynamic, parking
    return palette


def _render_in_processes(root: Path, workers: int) -> None:
    """Render in `workers` new Python processes, each with a share of the pictures.

    Forking beside JAX's threads can deadlock, and multiprocessing's spawn would import the main
    program, and so JAX, into every worker.
    """
    package = str(Path(__file__).resolve().parents[3])  # the folder that holds dasac_jax
    inherited = os.environ.get("PYTHONPATH")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, (package, inherited))))
    # Signals reach all processes of a terminal. Only the parent handles them, and ends the workers.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "from dasac_jax.data.demo import render; render.render_share(*sys.argv[1:])"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(root), str(share), str(workers)], env=environment
        )
        for share in range(workers)
    ]
    try:
        while any(child.poll() is None for child in children):
            stop_requests.check()
            time.sleep(_POLL_SECONDS)
        failed = [child.returncode for child in children if child.returncode != 0]
    finally:
        for child in children:
            child.kill()
            child.wait()
    if failed:
        # A signal to all processes ends the workers that it reached before they could ignore it.
        stop_requests.check()
        raise RuntimeError(f"{len(failed)} of {workers} demo renderers failed, see above")


def _write(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        image.save(unfinished, format="PNG", compress_level=3)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(text)
