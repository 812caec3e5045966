"""Vehicles: outlines in metres, extruded, with windows, wheels and lamps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dasac_jax.data.demo.draw import LABEL, Brush

Rng = np.random.Generator

# Side outlines (metres forward, metres up), from the lower rear edge over the roof to the front,
# with the material of the strip that starts at each point.
_SEDAN = (
    (-2.2, 0.3, "paint"), (-2.25, 0.8, "paint"), (-2.1, 1.0, "paint"), (-1.6, 1.02, "glass"),
    (-1.0, 1.42, "paint"), (0.3, 1.45, "glass"), (1.0, 1.0, "paint"), (2.0, 0.85, "paint"),
    (2.2, 0.65, "paint"), (2.2, 0.3, "paint"),
)  # fmt: skip
_HATCHBACK = (
    (-1.85, 0.3, "paint"), (-1.95, 0.95, "glass"), (-1.6, 1.45, "paint"), (0.3, 1.52, "glass"),
    (1.05, 1.02, "paint"), (1.85, 0.85, "paint"), (2.0, 0.6, "paint"), (2.0, 0.3, "paint"),
)  # fmt: skip
_VAN = (
    (-2.4, 0.35, "paint"), (-2.45, 1.1, "glass"), (-2.3, 1.8, "paint"), (0.9, 1.9, "glass"),
    (1.7, 1.15, "paint"), (2.3, 1.0, "paint"), (2.45, 0.7, "paint"), (2.45, 0.35, "paint"),
)  # fmt: skip
_CIRCLE = [(math.cos(k * math.pi / 7), math.sin(k * math.pi / 7)) for k in range(14)]
_CARS = ((_SEDAN, 1.8), (_HATCHBACK, 1.75), (_VAN, 1.95))


def _box(length: float, low: float, high: float, material: str, window: float | None) -> tuple:
    """The outline of a bus or tram (with front and rear windows above `window`) or a cargo box."""
    half = length / 2
    if window is None:
        return ((-half, low, material), (-half, high, material), (half, high, material),
                (half, low, material))  # fmt: skip
    return (
        (-half, low, material), (-half, window, "glass"), (-half, high - 0.4, material),
        (-half, high, material), (half, high, material), (half, high - 0.4, "glass"),
        (half, window, material), (half, low, material),
    )  # fmt: skip


class _Body:
    """Converts a vehicle's own (forward, up, across) metres to world coordinates."""

    def __init__(self, x: float, z: float, yaw: float, width: float) -> None:
        self.x, self.z, self.half = x, z, width / 2
        self.sine, self.cosine = math.sin(yaw), math.cos(yaw)

    def points(self, outline: Sequence, across: Sequence[float]) -> list[tuple]:
        """`outline` of (forward, up), `across` in half widths; cabins narrow towards the top."""
        taper = 0.3 if self.half < 1.1 else 0.0
        result = []
        for (forward, up), side in zip(outline, across, strict=True):
            offset = side * self.half * (1 - taper * min(max(up - 1, 0), 0.6))
            result.append((
                self.x + forward * self.sine + offset * self.cosine,
                up,
                self.z + forward * self.cosine - offset * self.sine,
            ))  # fmt: skip
        return result

    def shows(
        self, point: tuple[float, float], direction: tuple[float, float, float], height: float
    ) -> bool:
        """Whether the eye, `height` metres up, sees a face.

        `point` on it is (forward, up) metres, its normal (forward, up, across).
        """
        (forward, up), (ahead, upward, aside) = point, direction
        offset = aside * self.half
        x = self.x + forward * self.sine + offset * self.cosine
        z = self.z + forward * self.cosine - offset * self.sine
        normal_x = ahead * self.sine + aside * self.cosine
        normal_z = ahead * self.cosine - aside * self.sine
        return (height - up) * upward - x * normal_x - z * normal_z > 0


def vehicle(
    brush: Brush, label: int, outline: Sequence, body: _Body, tint: float, light: float
) -> None:
    """An extruded outline with windows, wheels and lamps."""
    plane = brush.facing_plane(max(body.z, 1.5))
    level = brush.camera.height_m
    dark = brush.add_part("tyre", plane, light=0.5)
    points = [(forward, up) for forward, up, _ in outline]
    low = points[0][1]
    _vehicle_shadow(brush, points, body)
    strips = []
    for (a, b), (_, _, material) in zip(pairwise(points), outline[:-1], strict=True):
        middle, rise = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2), (a[1] - b[1], b[0] - a[0])
        if body.shows(middle, (*rise, 0), level):
            away = math.hypot(body.x + middle[0] * body.sine, body.z + middle[0] * body.cosine)
            strips.append((away, (a, a, b, b), material, rise[1] / math.hypot(*rise)))
    for end, _ in (points[0], points[-1]):  # the gap and the tyres below the bumpers
        for left, right, bottom in (
            (-0.85, 0.85, 0.4 * low),
            (-0.92, -0.7, 0.02),
            (0.7, 0.92, 0.02),
        ):
            corners = [(end * 0.92, bottom)] * 2 + [(end * 0.92, low + 0.1)] * 2
            brush.polygon(body.points(corners, (left, right, right, left)), dark, label)
    for _, quad, material, upward in sorted(strips, key=lambda strip: -strip[0]):
        part = brush.add_part(material, plane, light=light * (0.78 + 0.3 * upward), tint=tint)
        brush.polygon(body.points(quad, (-1, 1, 1, -1)), part, label)
    for side in (-1, 1):
        if body.shows((0, 0), (0, 0, side), level):
            _vehicle_side(brush, label, outline, body, side, tint, light)
    _vehicle_lamps(brush, label, points, body)


def _vehicle_shadow(brush: Brush, points: Sequence, body: _Body) -> None:
    back, front = points[0][0] - 0.2, points[-1][0] + 0.2
    corners = [(back, 0.0), (back, 0.0), (front, 0.0), (front, 0.0)]
    brush.shadow(body.points(corners, (-1.15, 1.15, 1.15, -1.15)), 0.75)


def _vehicle_side(
    brush: Brush, label: int, outline: Sequence, body: _Body, side: int, tint: float, light: float
) -> None:
    plane = brush.facing_plane(max(body.z, 1.5))
    points = [(forward, up) for forward, up, _ in outline]
    material = outline[0][2]
    flank = brush.add_part(material, plane, light=0.85 * light, tint=tint)
    glass = brush.add_part("glass", plane, light=0.8 * light)
    dark = brush.add_part("tyre", plane, light=0.7)
    hub = brush.add_part("metal", plane, light=0.9)
    brush.polygon(body.points(points, [side] * len(points)), flank, label)
    sill = brush.add_part(material, plane, light=0.55 * light, tint=tint)
    low, back, front = points[0][1], points[0][0], points[-1][0]
    band = ((back, low), (front, low), (front, low + 0.14), (back, low + 0.14))
    brush.polygon(body.points(band, [side] * 4), sill, label)
    top = max(up for _, up in points)
    length = points[-1][0] - points[0][0]
    if material == "paint":
        belt = [p for p in points if p[1] > 0.97 * (0.66 * top)]
        middle = np.mean(belt, axis=0)
        window = (middle + 0.78 * (np.asarray(belt) - middle)).tolist()
        brush.polygon(body.points(window, [side] * len(window)), glass, label)
        pillar = middle[0] + 0.1
        post = ((pillar, 0.6 * top), (pillar + 0.12, 0.6 * top), (pillar + 0.06, 0.98 * top),
                (pillar - 0.06, 0.98 * top))  # fmt: skip
        brush.polygon(body.points(post, [side] * 4), flank, label)
    elif material in ("coach", "tram"):
        count = max(3, round(length / 1.6))
        edges = np.linspace(points[0][0] + 0.2, points[-1][0] - 0.2, count + 1)
        for a, b in zip(edges[:-1] + 0.08, edges[1:] - 0.08, strict=True):
            pane = ((a, 0.45 * top), (b, 0.45 * top), (b, 0.83 * top), (a, 0.83 * top))
            brush.polygon(body.points(pane, [side] * 4), glass, label)
    if material == "tram":
        return
    radius = 0.32 if material == "paint" else 0.48
    for forward in (points[0][0] + 0.19 * length, points[-1][0] - 0.19 * length):
        for part, size in ((sill, 1.2 * radius), (dark, radius), (hub, 0.55 * radius)):
            # The wheel arch ends where the body does.
            bottom = low if part == sill else 0.0
            disc = [(forward + size * c, max(radius + size * s, bottom)) for c, s in _CIRCLE]
            brush.polygon(body.points(disc, [side * 1.01] * len(disc)), part, label)


def _vehicle_lamps(brush: Brush, label: int, points: Sequence, body: _Body) -> None:
    """Head or tail lamps and the number plate on the end that is seen."""
    plane = brush.facing_plane(max(body.z, 1.5))
    for (end, _), material, sign in ((points[0], "taillight", -1), (points[-1], "headlight", 1)):
        forward = end + 0.06 * sign
        if not body.shows((forward, 0), (sign, 0, 0), brush.camera.height_m):
            continue
        lamp, plate = brush.add_part(material, plane), brush.add_part("trim", plane, tint=0.9)
        for a, b in ((-0.95, -0.62), (0.62, 0.95)):
            quad = body.points([(forward, 0.66)] * 2 + [(forward, 0.84)] * 2, (a, b, b, a))
            brush.polygon(quad, lamp, label)
        quad = body.points([(forward, 0.5)] * 2 + [(forward, 0.62)] * 2, (-0.28, 0.28, 0.28, -0.28))
        brush.polygon(quad, plate, label)


def car(brush: Brush, rng: Rng, x: float, z: float, yaw: float = 0.0) -> None:
    """A saloon, hatchback or van."""
    outline, width = _CARS[rng.choice(3, p=(0.4, 0.42, 0.18))]
    light = rng.uniform(0.85, 1.05)
    vehicle(brush, LABEL["car"], outline, _Body(x, z, yaw, width), rng.random(), light)


def bus(brush: Brush, rng: Rng, x: float, z: float, yaw: float = 0.0) -> None:
    """A city bus."""
    outline = _box(rng.uniform(9, 12), 0.3, 3.1, "coach", 1.25)
    vehicle(brush, LABEL["bus"], outline, _Body(x, z, yaw, 2.5), rng.random(), 1.0)


def tram(brush: Brush, rng: Rng, x: float, z: float, yaw: float = 0.0) -> None:
    """A tram, longer and taller than a bus."""
    half = rng.uniform(20, 28) / 2
    rear = ((0.25, "tram"), (1.15, "trim"), (1.4, "glass"), (2.9, "trim"), (3.2, "tram"))
    front = ((3.7, "trim"), (3.2, "glass"), (2.9, "trim"), (1.4, "tram"), (1.15, "tram"))
    outline = (
        *((-half, up, material) for up, material in rear),
        (0.8 - half, 3.7, "trim"),
        *((half - 0.8 * (up == 3.7), up, material) for up, material in front),
        (half, 0.25, "tram"),
    )
    vehicle(brush, LABEL["train"], outline, _Body(x, z, yaw, 2.5), rng.random(), 1.0)


def truck(brush: Brush, rng: Rng, x: float, z: float, yaw: float = 0.0) -> None:
    """A lorry: a cab and a cargo box, the farther of the two first."""
    forward = np.array([math.sin(yaw), math.cos(yaw)])
    length, tint = rng.uniform(4.5, 7), rng.random()
    cab = (_box(2.2, 0.4, 2.6, "paint", 1.4), length / 2 + 1.2, 2.3)
    cargo = (_box(length, 0.7, rng.uniform(2.9, 3.5), "cargo", None), 0.0, 2.5)
    for outline, offset, width in sorted((cab, cargo), key=lambda part: -part[1] * forward[1]):
        px, pz = np.array([x, z]) + offset * forward
        vehicle(brush, LABEL["truck"], outline, _Body(px, pz, yaw, width), tint, 1.0)
