"""A camera and a brush: polygons in metres become a map of parts, which a look turns into colour.

World axes: X to the right, Y up from the ground, Z ahead, camera above the origin. Everything is
drawn far to near (painter's algorithm) at twice the final resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dasac_jax.data.labels import CLASSES

# Cityscapes label ids by name; the last four belong to no class that is trained.
LABEL = {entry.name: entry.label_id for entry in CLASSES}
LABEL |= {"ego vehicle": 1, "static": 4, "dynamic": 5, "parking": 9}

SUPERSAMPLING = 2
_NEAR_M = 1.0

MATERIALS = (
    "sky", "road", "marking", "sidewalk", "curb", "terrain", "plaster", "brick", "concrete",
    "glass", "trim", "roof", "door", "wall", "fence", "metal", "housing", "lamp", "sign", "leaf",
    "trunk", "skin", "cloth", "trousers", "paint", "coach", "tram", "cargo", "tyre", "headlight",
    "taillight", "cycle", "bonnet", "bin",
)  # fmt: skip
MATERIAL_INDEX = {name: index for index, name in enumerate(MATERIALS)}


@dataclass(frozen=True)
class Camera:
    """A pinhole camera looking along Z; lengths in pixels of the supersampled picture."""

    height_m: float
    focal: float
    centre_x: float
    horizon_y: float
    size: tuple[int, int]  # rows, columns

    def project(self, points: np.ndarray) -> list[tuple[float, float]]:
        """(N, 3) metres with Z > 0 to N pixel positions (x, y)."""
        scale = self.focal / points[:, 2]
        x = self.centre_x + points[:, 0] * scale
        y = self.horizon_y + (self.height_m - points[:, 1]) * scale
        return list(zip(x.tolist(), y.tolist(), strict=True))


@dataclass(frozen=True)
class Scene:
    """What was drawn: which part covers each pixel, and what each part is made of.

    `part` (2H, 2W) indexes the tables `material`, `light` (1 = fully lit), `tint` in [0, 1) (which
    of the material's colours), `plane` (P, 3). The inverse depth of a pixel is affine in its
    position: plane · (1, x - centre_x, y - horizon_y). `labels` (H, W) uint8 are Cityscapes label
    ids; `shadow` (2H, 2W) in [0, 1] darkens ground only.
    """

    camera: Camera
    part: np.ndarray
    labels: np.ndarray
    shadow: np.ndarray
    material: np.ndarray
    light: np.ndarray
    tint: np.ndarray
    plane: np.ndarray


class Brush:
    """Draws parts and labels of one scene."""

    def __init__(self, camera: Camera) -> None:
        rows, columns = camera.size
        self.camera = camera
        self._images = [Image.new(mode, (columns, rows)) for mode in ("I", "L", "L")]
        self._images[1].paste(LABEL["sky"], (0, 0, columns, rows))
        self._part, self._label, self._shadow = (ImageDraw.Draw(i) for i in self._images)
        self._rows: list[tuple[int, float, float]] = []
        self._planes: list[tuple[float, float, float]] = []
        self.mix("sky", (0.0, 0.0, 0.0))  # part 0: what nothing covers

    def facing(self, depth: float) -> tuple[float, float, float]:
        """The plane across the view at `depth` metres."""
        return (1.0 / depth, 0.0, 0.0)

    def beside(self, x: float) -> tuple[float, float, float]:
        """The upright plane along the view at `x` metres to the right."""
        return (0.0, 1.0 / (self.camera.focal * x), 0.0)

    def ground(self) -> tuple[float, float, float]:
        """The plane Y = 0."""
        return (0.0, 0.0, 1.0 / (self.camera.focal * self.camera.height_m))

    def mix(
        self, material: str, plane: Sequence[float], light: float = 1.0, tint: float = 0.0
    ) -> int:
        """A new part of one material, light, colour and plane; returns its index."""
        self._rows.append((MATERIAL_INDEX[material], light, tint))
        self._planes.append(tuple(plane))
        return len(self._rows) - 1

    def polygon(self, points: Iterable, part: int | None, label: int | None) -> None:
        """A flat polygon of (N, 3) metres; None leaves the parts or the labels as they are."""
        outline = self._outline(points)
        if outline:
            if part is not None:
                self._part.polygon(outline, fill=part)
            if label is not None:
                self._label.polygon(outline, fill=label)

    def ellipse(
        self, centre: Sequence[float], radii: Sequence[float], part: int | None, label: int | None
    ) -> None:
        """An ellipse facing the camera: centre (X, Y, Z) and radii (x, y) in metres."""
        if centre[2] < _NEAR_M:
            return
        ((x, y),) = self.camera.project(np.asarray([centre], float))
        scale = self.camera.focal / centre[2]
        # Less than two supersampled pixels across would come and go between image and labels.
        rx, ry = max(radii[0] * scale, 1.0), max(radii[1] * scale, 1.0)
        box = (x - rx, y - ry, x + rx, y + ry)
        if part is not None:
            self._part.ellipse(box, fill=part)
        if label is not None:
            self._label.ellipse(box, fill=label)

    def ring(
        self, centre: Sequence[float], radii: Sequence[float], width: float, part: int, label: int
    ) -> None:
        """Like an ellipse whose inside shows what lies behind but carries the label."""
        if centre[2] < _NEAR_M:
            return
        self.ellipse(centre, radii, None, label)
        ((x, y),) = self.camera.project(np.asarray([centre], float))
        scale = self.camera.focal / centre[2]
        rx, ry = max(radii[0] * scale, 1.0), max(radii[1] * scale, 1.0)
        thickness = max(2, round(width * scale))
        self._part.ellipse((x - rx, y - ry, x + rx, y + ry), outline=part, width=thickness)

    def bar(
        self, start: Sequence[float], end: Sequence[float], width: float, part: int | None,
        label: int | None,
    ) -> None:  # fmt: skip
        """A straight bar `width` metres wide between two points, at least two pixels thick."""
        ends = np.asarray([start, end], float)
        if ends[:, 2].min() < _NEAR_M:
            return
        outline = self.camera.project(ends)
        thickness = max(2, round(width * self.camera.focal / ends[:, 2].mean()))
        if part is not None:
            self._part.line(outline, fill=part, width=thickness)
        if label is not None:
            self._label.line(outline, fill=label, width=thickness)

    def shade(self, points: Iterable, darkness: float) -> None:
        """A shadow polygon on the ground."""
        outline = self._outline(points)
        if outline:
            self._shadow.polygon(outline, fill=round(255 * darkness))

    def screen(self, outline: Sequence[tuple[float, float]], part: int, label: int) -> None:
        """A polygon in shares of the picture's width and height."""
        rows, columns = self.camera.size
        scaled = [(x * columns, y * rows) for x, y in outline]
        self._part.polygon(scaled, fill=part)
        self._label.polygon(scaled, fill=label)

    def finish(self) -> Scene:
        """The drawn scene; labels are taken at every second pixel, so they keep hard edges."""
        part, label, shadow = self._images
        blurred = shadow.filter(ImageFilter.GaussianBlur(self.camera.size[1] / 250))
        rows = np.asarray(self._rows)
        return Scene(
            camera=self.camera,
            part=np.asarray(part),
            labels=np.asarray(label)[::SUPERSAMPLING, ::SUPERSAMPLING].copy(),
            shadow=np.asarray(blurred, np.float32) / 255,
            material=rows[:, 0].astype(np.int32),
            light=rows[:, 1].astype(np.float32),
            tint=rows[:, 2].astype(np.float32),
            plane=np.asarray(self._planes, np.float32),
        )

    def _outline(self, points: Iterable) -> list[tuple[float, float]]:
        clipped = _clip_near(np.asarray(points, float))
        return self.camera.project(clipped) if len(clipped) >= 3 else []


def _clip_near(points: np.ndarray) -> np.ndarray:
    """Cuts the part of a polygon off that lies behind the near plane."""
    if points[:, 2].min() >= _NEAR_M:
        return points
    kept = []
    for here, there in zip(points, np.roll(points, -1, axis=0), strict=True):
        if here[2] >= _NEAR_M:
            kept.append(here)
        if (here[2] < _NEAR_M) != (there[2] < _NEAR_M):
            share = (_NEAR_M - here[2]) / (there[2] - here[2])
            kept.append(here + share * (there - here))
    return np.asarray(kept).reshape(-1, 3)
