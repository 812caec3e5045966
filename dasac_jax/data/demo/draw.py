"""A camera and a brush, which draw polygons in metres as a map of parts and a map of labels.

`appearance` gives the parts their colours.

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

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres with Z > 0 to pixel positions (..., 2) = (x, y)."""
        scale = self.focal / points[..., 2]
        pixels = np.empty((*scale.shape, 2))
        pixels[..., 0] = self.centre_x + points[..., 0] * scale
        pixels[..., 1] = self.horizon_y + (self.height_m - points[..., 1]) * scale
        return pixels


@dataclass(frozen=True)
class Scene:
    """A drawn scene: the part that covers each pixel, and the material of each part.

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

    def __init__(self, camera: Camera, sun: int = 0) -> None:
        """`sun` is the side that the sun shines from, -1 or 1, or 0 under an overcast sky."""
        rows, columns = camera.size
        self.camera, self.sun = camera, sun
        self._images = [Image.new(mode, (columns, rows)) for mode in ("I", "L", "L")]
        self._images[1].paste(LABEL["sky"], (0, 0, columns, rows))
        self._part, self._label, self._shadow = (ImageDraw.Draw(i) for i in self._images)
        self._shadow_outlines: list[tuple[int, list[float]]] = []
        self._rows: list[tuple[int, float, float]] = []
        self._planes: list[tuple[float, float, float]] = []
        self.add_part("sky", (0.0, 0.0, 0.0))  # part 0: pixels that nothing covers

    def side_light(self, x: float) -> float:
        """How much light falls on an upright surface beside the street."""
        return 0.92 if self.sun == 0 else (1.08 if x * self.sun < 0 else 0.72)

    def facing_plane(self, depth: float) -> tuple[float, float, float]:
        """The plane across the view at `depth` metres."""
        return (1.0 / depth, 0.0, 0.0)

    def side_plane(self, x: float) -> tuple[float, float, float]:
        """The upright plane along the view at `x` metres to the right."""
        return (0.0, 1.0 / (self.camera.focal * x), 0.0)

    def ground_plane(self) -> tuple[float, float, float]:
        """The plane Y = 0."""
        return (0.0, 0.0, 1.0 / (self.camera.focal * self.camera.height_m))

    def add_part(
        self, material: str, plane: Sequence[float], light: float = 1.0, tint: float = 0.0
    ) -> int:
        """A new part of one material, light, colour and plane; returns its index."""
        self._rows.append((MATERIAL_INDEX[material], light, tint))
        self._planes.append(tuple(plane))
        return len(self._rows) - 1

    def polygon(self, points: Iterable, part: int | None, label: int | None) -> None:
        """A flat polygon of (N, 3) metres; None leaves the parts or the labels as they are."""
        self._fill(self._outline(points), part, label)

    def polygons(self, points: np.ndarray, parts: Sequence[int], label: int) -> None:
        """Many polygons of as many corners at once: (M, N, 3) metres and M parts."""
        if points[..., 2].min() < _NEAR_M:
            for corners, part in zip(points, parts, strict=True):
                self.polygon(corners, part, label)
            return
        outlines = self.camera.project(points).reshape(len(points), -1).tolist()
        for outline, part in zip(outlines, parts, strict=True):
            self._fill(outline, part, label)

    def ellipses(
        self, centres: np.ndarray, radii: np.ndarray, parts: Sequence[int], label: int
    ) -> None:
        """Many ellipses facing the camera: (M, 3) metres, radii (M, 2) metres, M parts."""
        if centres[:, 2].min() < _NEAR_M:
            return
        pixels = self.camera.project(centres)
        reach = np.maximum(radii * (self.camera.focal / centres[:, 2:]), 1.0)
        boxes = np.concatenate([pixels - reach, pixels + reach], axis=1).tolist()
        for box, part in zip(boxes, parts, strict=True):
            self._part.ellipse(box, fill=part)
            self._label.ellipse(box, fill=label)

    def ellipse(
        self, centre: Sequence[float], radii: Sequence[float], part: int | None, label: int | None
    ) -> None:
        """An ellipse facing the camera: centre (X, Y, Z) and radii (x, y) in metres."""
        box = self._box(centre, radii)
        if box is None:
            return
        if part is not None:
            self._part.ellipse(box, fill=part)
        if label is not None:
            self._label.ellipse(box, fill=label)

    def ring(
        self, centre: Sequence[float], radii: Sequence[float], width: float, part: int, label: int
    ) -> None:
        """Like an ellipse whose inside shows what lies behind but carries the label."""
        box = self._box(centre, radii)
        if box is None:
            return
        self._label.ellipse(box, fill=label)
        thickness = max(2, round(width * self.camera.focal / centre[2]))
        self._part.ellipse(box, outline=part, width=thickness)

    def bar(
        self, start: Sequence[float], end: Sequence[float], width: float, part: int | None,
        label: int | None,
    ) -> None:  # fmt: skip
        """A straight bar `width` metres wide between two points, at least two pixels thick."""
        if min(start[2], end[2]) < _NEAR_M:
            return
        outline = self._outline((start, end))
        thickness = max(2, round(width * 2 * self.camera.focal / (start[2] + end[2])))
        if part is not None:
            self._part.line(outline, fill=part, width=thickness)
        if label is not None:
            self._label.line(outline, fill=label, width=thickness)

    def shadow(self, points: Iterable, darkness: float) -> None:
        """A shadow polygon on the ground; where several meet the darkest counts."""
        outline = self._outline(points)
        if outline:
            self._shadow_outlines.append((round(255 * darkness), outline))

    def screen_polygon(self, outline: Sequence[tuple[float, float]], part: int, label: int) -> None:
        """A polygon in shares of the picture's width and height."""
        rows, columns = self.camera.size
        scaled = [(x * columns, y * rows) for x, y in outline]
        self._part.polygon(scaled, fill=part)
        self._label.polygon(scaled, fill=label)

    def finish(self) -> Scene:
        """The drawn scene; its labels are every second pixel, because ids cannot be averaged."""
        part, label, shadow = self._images
        for darkness, outline in sorted(self._shadow_outlines, key=lambda entry: entry[0]):
            self._shadow.polygon(outline, fill=darkness)
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

    def _outline(self, points: Iterable) -> list[float]:
        """Flat [x, y, x, y ...] pixels; for four points, plain numbers are faster than arrays."""
        corners = points.tolist() if isinstance(points, np.ndarray) else points
        if min(corner[2] for corner in corners) < _NEAR_M:
            corners = _clip_near(corners)
        eye = self.camera
        outline = []
        for x, y, z in corners:
            scale = eye.focal / z
            outline.append(eye.centre_x + x * scale)
            outline.append(eye.horizon_y + (eye.height_m - y) * scale)
        return outline

    def _fill(self, outline: list[float], part: int | None, label: int | None) -> None:
        if outline and part is not None:
            self._part.polygon(outline, fill=part)
        if outline and label is not None:
            self._label.polygon(outline, fill=label)

    def _box(self, centre: Sequence[float], radii: Sequence[float]) -> tuple | None:
        """The corners around an ellipse, or None behind the near plane."""
        if centre[2] < _NEAR_M:
            return None
        scale = self.camera.focal / centre[2]
        x = self.camera.centre_x + centre[0] * scale
        y = self.camera.horizon_y + (self.camera.height_m - centre[1]) * scale
        # Anything smaller than two supersampled pixels could be missing in the labels.
        rx, ry = max(radii[0] * scale, 1.0), max(radii[1] * scale, 1.0)
        return (x - rx, y - ry, x + rx, y + ry)


def _clip_near(points: Sequence) -> list:
    """Cut off the part of a polygon that lies behind the near plane."""
    kept = []
    for here, there in zip(points, [*points[1:], points[0]], strict=True):
        if here[2] >= _NEAR_M:
            kept.append(here)
        if (here[2] < _NEAR_M) != (there[2] < _NEAR_M):
            share = (_NEAR_M - here[2]) / (there[2] - here[2])
            kept.append([a + share * (b - a) for a, b in zip(here, there, strict=True)])
    return kept
