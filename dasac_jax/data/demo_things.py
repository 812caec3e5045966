"""Things that stand or move in a street: vehicles, people, cycles, trees, poles.

Every function draws one thing at (x, z) metres with a brush and draws its variety from `rng`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dasac_jax.data.demo_draw import LABEL, Brush

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
    """Turns a vehicle's own (forward, up, across) metres into the world's."""

    def __init__(self, x: float, z: float, yaw: float, width: float) -> None:
        self.place = np.array([x, 0.0, z])
        self.forward = np.array([math.sin(yaw), 0.0, math.cos(yaw)])
        self.across = np.array([math.cos(yaw), 0.0, -math.sin(yaw)])
        self.half = width / 2

    def points(self, outline: Sequence, across: Sequence[float]) -> np.ndarray:
        """`outline` of (forward, up), `across` in half widths; cabins narrow towards the top."""
        result = []
        for (forward, up), side in zip(outline, across, strict=True):
            narrow = 1.0 - 0.22 * max(0.0, min(up, 1.6) - 1.0) * (self.half < 1.1)
            result.append(
                self.place
                + forward * self.forward
                + side * self.half * narrow * self.across
                + np.array([0.0, up, 0.0])
            )
        return np.asarray(result)

    def faces(self, middle: np.ndarray, normal: np.ndarray, height: float) -> bool:
        """Whether a face is seen from the camera."""
        return bool((np.array([0.0, height, 0.0]) - middle) @ normal > 0)


def vehicle(
    brush: Brush, label: int, outline: Sequence, body: _Body, tint: float, light: float
) -> None:
    """An extruded outline with windows, wheels and lamps."""
    plane = brush.facing(max(body.place[2], 1.5))
    level = brush.camera.height_m
    dark = brush.mix("tyre", plane, light=0.5)
    points = [(forward, up) for forward, up, _ in outline]
    low = points[0][1]
    _shadow(brush, points, body)
    strips = []
    for (a, b), (_, _, material) in zip(pairwise(points), outline[:-1], strict=True):
        quad = body.points((a, a, b, b), (-1, 1, 1, -1))
        normal = -(b[1] - a[1]) * body.forward + np.array([0.0, b[0] - a[0], 0.0])
        if body.faces(quad.mean(0), normal, level):
            upward = normal[1] / np.linalg.norm(normal)
            strips.append((np.linalg.norm(quad.mean(0)), quad, material, upward))
    ends = [s for s in (-1, 1) if body.faces(
        body.place + s * body.half * body.across, s * body.across, level)]  # fmt: skip
    for forward, _ in (points[0], points[-1]):  # below the bumpers
        brush.polygon(
            body.points([(forward * 0.9, 0.08)] * 2 + [(forward * 0.9, low + 0.1)] * 2,
                        (-0.95, 0.95, 0.95, -0.95)), dark, label)  # fmt: skip
    for _, quad, material, upward in sorted(strips, key=lambda strip: -strip[0]):
        shade = light * (0.78 + 0.3 * upward)
        brush.polygon(quad, brush.mix(material, plane, light=shade, tint=tint), label)
    for side in ends:
        _vehicle_side(brush, label, outline, body, side, tint, light)
    _lamps(brush, label, points, body)


def _shadow(brush: Brush, points: Sequence, body: _Body) -> None:
    back, front = points[0][0] - 0.2, points[-1][0] + 0.2
    corners = [(back, 0.0), (back, 0.0), (front, 0.0), (front, 0.0)]
    brush.shade(body.points(corners, (-1.15, 1.15, 1.15, -1.15)), 0.75)


def _vehicle_side(
    brush: Brush, label: int, outline: Sequence, body: _Body, side: int, tint: float, light: float
) -> None:
    plane = brush.facing(max(body.place[2], 1.5))
    points = [(forward, up) for forward, up, _ in outline]
    material = outline[0][2]
    flank = brush.mix(material, plane, light=0.85 * light, tint=tint)
    glass = brush.mix("glass", plane, light=0.8 * light)
    dark = brush.mix("tyre", plane, light=0.7)
    hub = brush.mix("metal", plane, light=0.9)
    brush.polygon(body.points(points, [side] * len(points)), flank, label)
    top = max(up for _, up in points)
    length = points[-1][0] - points[0][0]
    if material == "paint":
        belt = [p for p in points if p[1] > 0.97 * (0.66 * top)]
        middle = np.mean(belt, axis=0)
        window = [tuple(middle + 0.78 * (np.asarray(p) - middle)) for p in belt]
        brush.polygon(body.points(window, [side] * len(window)), glass, label)
    elif material in ("coach", "tram"):
        count = max(3, round(length / 1.6))
        edges = np.linspace(points[0][0] + 0.2, points[-1][0] - 0.2, count + 1)
        for a, b in zip(edges[:-1] + 0.08, edges[1:] - 0.08, strict=True):
            pane = ((a, 0.45 * top), (b, 0.45 * top), (b, 0.83 * top), (a, 0.83 * top))
            brush.polygon(body.points(pane, [side] * 4), glass, label)
    if material == "tram":
        return
    radius = 0.32 if material == "paint" else 0.48
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for forward in (points[0][0] + 0.19 * length, points[-1][0] - 0.19 * length):
        for part, size in ((dark, radius), (hub, 0.55 * radius)):
            disc = [(forward + size * math.cos(t), radius + size * math.sin(t)) for t in angles]
            brush.polygon(body.points(disc, [side * 1.01] * len(disc)), part, label)


def _lamps(brush: Brush, label: int, points: Sequence, body: _Body) -> None:
    """Head or tail lamps and the number plate on the end that is seen."""
    plane = brush.facing(max(body.place[2], 1.5))
    for (end, _), material, sign in ((points[0], "taillight", -1), (points[-1], "headlight", 1)):
        forward = end + 0.06 * sign
        centre = body.place + forward * body.forward
        if not body.faces(centre, sign * body.forward, brush.camera.height_m):
            continue
        lamp, plate = brush.mix(material, plane), brush.mix("trim", plane, tint=0.9)
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
    outline = _box(rng.uniform(20, 28), 0.25, 3.6, "tram", 1.3)
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


def person(
    brush: Brush, rng: Rng, x: float, z: float, label: int | None = None, lift: float = 0.0
) -> None:
    """Someone walking or standing; `lift` raises the feet (a rider's pedals)."""
    label = LABEL["person"] if label is None else label
    plane, size = brush.facing(z), rng.uniform(0.88, 1.05)
    coat = brush.mix("cloth", plane, light=rng.uniform(0.8, 1.05), tint=rng.random())
    sleeve = brush.mix("cloth", plane, light=0.75, tint=rng.random())
    legs = brush.mix("trousers", plane, light=rng.uniform(0.8, 1.0), tint=rng.random())
    skin = brush.mix("skin", plane, tint=rng.random())
    hair = brush.mix("tyre", plane, light=rng.uniform(0.6, 1.4), tint=rng.random())
    stride, swing = rng.uniform(0.04, 0.3), rng.uniform(-0.2, 0.2)

    def at(dx: float, y: float) -> tuple[float, float, float]:
        return (x + dx, lift + y * size, z)

    if lift == 0.0:
        brush.shade([(x - 0.4, 0, z - 0.25), (x + 0.4, 0, z - 0.25), (x + 0.4, 0, z + 0.25),
                     (x - 0.4, 0, z + 0.25)], 0.5)  # fmt: skip
    brush.bar(at(-0.08, 0.85), at(-stride, 0.02), 0.16, legs, label)
    brush.bar(at(0.08, 0.85), at(stride, 0.02), 0.16, legs, label)
    brush.bar(at(-0.2, 1.38), at(-0.27 - swing / 2, 0.85), 0.11, sleeve, label)
    brush.bar(at(0.2, 1.38), at(0.27 - swing / 2, 0.85), 0.11, sleeve, label)
    torso = ((-0.2, 0.8), (-0.24, 1.38), (-0.1, 1.5), (0.1, 1.5), (0.24, 1.38), (0.2, 0.8))
    brush.polygon([at(*p) for p in torso], coat, label)
    brush.ellipse(at(0, 1.66), (0.12, 0.15), hair, label)
    brush.ellipse(at(0, 1.62), (0.1, 0.12), skin, label)


def cycle(
    brush: Brush, rng: Rng, x: float, z: float, *, motor: bool, ridden: bool, sideways: bool
) -> None:
    """A bicycle or motorcycle, seen from the side or from behind, with or without its rider."""
    label = LABEL["motorcycle" if motor else "bicycle"]
    plane = brush.facing(z)
    frame = brush.mix("paint" if motor else "cycle", plane, tint=rng.random())
    tyre = brush.mix("tyre", plane, light=0.8)
    radius, reach = (0.31, 0.68) if motor else (0.34, 0.52)
    brush.shade([(x - 0.8, 0, z - 0.3), (x + 0.8, 0, z - 0.3), (x + 0.8, 0, z + 0.3),
                 (x - 0.8, 0, z + 0.3)], 0.45)  # fmt: skip
    if sideways:
        for side in (-1, 1):
            width = 0.13 if motor else 0.06
            brush.ring((x + side * reach, radius, z), (radius, radius), width, tyre, label)
        joints = [(x - reach, radius, z), (x - 0.2, 0.85, z), (x + 0.4, 0.88, z),
                  (x + reach, radius, z), (x - 0.02, radius, z)]  # fmt: skip
        brush.polygon(joints, frame if motor else None, label)
        for a, b in ((0, 1), (1, 2), (2, 3), (1, 4), (4, 2), (0, 4)):
            brush.bar(joints[a], joints[b], 0.07, frame, label)
        brush.bar((x + 0.4, 0.88, z), (x + 0.32, 1.05, z), 0.06, tyre, label)
        brush.bar((x - 0.38, 0.93, z), (x - 0.1, 0.93, z), 0.12 if motor else 0.08, tyre, label)
    else:
        brush.ellipse((x, radius, z), (0.1 if motor else 0.05, radius), tyre, label)
        brush.bar((x, 0.4, z), (x, 1.0, z), 0.3 if motor else 0.08, frame, label)
        brush.bar((x - 0.3, 1.02, z), (x + 0.3, 1.02, z), 0.06, tyre, label)
        if motor:
            brush.ellipse((x, 0.75, z), (0.07, 0.06), brush.mix("taillight", plane), label)
    if ridden:
        person(brush, rng, x - 0.1 * sideways, z, LABEL["rider"], lift=0.28)


def tree(brush: Brush, rng: Rng, x: float, z: float, height: float) -> None:
    """A trunk (vegetation too, as Cityscapes has it) under a crown of leafy blobs."""
    label, plane = LABEL["vegetation"], brush.facing(z)
    radius, tint = height * rng.uniform(0.28, 0.4), rng.random()
    crown = height - radius * rng.uniform(0.9, 1.2)
    brush.shade([(x - radius, 0, z - radius), (x + radius, 0, z - radius),
                 (x + radius, 0, z + radius), (x - radius, 0, z + radius)], 0.35)  # fmt: skip
    trunk = brush.mix("trunk", plane, tint=rng.random())
    brush.bar((x, 0, z), (x, crown, z), 0.04 * height, trunk, label)
    leaves(brush, rng, (x, crown, z), (radius, radius * rng.uniform(0.8, 1.2)), tint)


def leaves(
    brush: Brush, rng: Rng, centre: Sequence[float], radii: Sequence[float], tint: float
) -> None:
    """A heap of blobs, dark below and light above."""
    plane, label = brush.facing(centre[2]), LABEL["vegetation"]
    shades = [brush.mix("leaf", plane, light=s, tint=tint) for s in np.linspace(0.55, 1.1, 6)]
    angle, reach = rng.uniform(0, 2 * np.pi, 34), np.sqrt(rng.random(34)) * 0.85
    dx, dy = reach * np.cos(angle), reach * np.sin(angle)
    for index in np.argsort(dy + 0.5 * rng.random(34)):
        shade = shades[int(np.clip((dy[index] + 1) * 3 + rng.uniform(-1, 1), 0, 5))]
        size = rng.uniform(0.2, 0.42)
        place = (centre[0] + dx[index] * radii[0], centre[1] + dy[index] * radii[1], centre[2])
        brush.ellipse(place, (size * radii[0], size * radii[1]), shade, label)


def lamp_post(brush: Brush, rng: Rng, x: float, z: float) -> None:
    """A street lamp with its arm over the road."""
    part = brush.mix("metal", brush.facing(z), light=rng.uniform(0.7, 1.0), tint=rng.random())
    height, arm = rng.uniform(5.5, 8), -math.copysign(rng.uniform(1.0, 2.2), x)
    brush.bar((x, 0, z), (x, height, z), 0.16, part, LABEL["pole"])
    brush.bar((x, height, z), (x + arm, height + 0.25, z), 0.1, part, LABEL["pole"])
    brush.bar((x + 0.7 * arm, height + 0.18, z), (x + arm, height + 0.2, z), 0.2, part,
              LABEL["pole"])  # fmt: skip


def traffic_light(brush: Brush, rng: Rng, x: float, z: float) -> None:
    """A pole with one or two signal heads."""
    plane, inward = brush.facing(z), -math.copysign(1.0, x)
    part = brush.mix("metal", plane, light=0.7, tint=rng.random())
    heads = [(x, 2.9)]
    if rng.random() < 0.6:
        reach = rng.uniform(2.0, 3.6)
        brush.bar((x, 5.4, z), (x + inward * reach, 5.4, z), 0.12, part, LABEL["pole"])
        heads.append((x + inward * reach, 5.0))
    brush.bar((x, 0, z), (x, 5.5 if len(heads) > 1 else 3.4, z), 0.15, part, LABEL["pole"])
    housing, phase = brush.mix("housing", plane), int(rng.integers(3))
    for hx, hy in heads:
        box = [(hx - 0.22, hy - 0.55, z), (hx + 0.22, hy - 0.55, z), (hx + 0.22, hy + 0.55, z),
               (hx - 0.22, hy + 0.55, z)]  # fmt: skip
        brush.polygon(box, housing, LABEL["traffic light"])
        for index in range(3):
            lit = 1.0 if index == phase else 0.35
            lamp = brush.mix("lamp", plane, light=lit, tint=index / 3)
            brush.ellipse((hx, hy + 0.33 * (1 - index), z), (0.13, 0.13), lamp, None)


def sign(brush: Brush, rng: Rng, x: float, z: float) -> None:
    """A traffic sign on its pole: round, triangular or square."""
    plane, tint = brush.facing(z), rng.random()
    brush.bar((x, 0, z), (x, 2.7, z), 0.08, brush.mix("metal", plane, tint=0.5), LABEL["pole"])
    rim, face = brush.mix("sign", plane, tint=tint), brush.mix("trim", plane, tint=0.9)
    y, label, shape = 2.5, LABEL["traffic sign"], rng.integers(3)
    if shape == 0:
        brush.ellipse((x, y, z), (0.42, 0.42), rim, label)
        brush.ellipse((x, y, z), (0.28, 0.28), face if tint < 0.5 else rim, label)
        return
    corners = ((-0.45, -0.35), (0.45, -0.35), (0.0, 0.45)) if shape == 1 else (
        (-0.4, -0.4), (0.4, -0.4), (0.4, 0.4), (-0.4, 0.4))  # fmt: skip
    brush.polygon([(x + a, y + b, z) for a, b in corners], rim, label)
    brush.polygon([(x + 0.55 * a, y + 0.55 * b - 0.03, z) for a, b in corners], face, label)


def litter_bin(brush: Brush, rng: Rng, x: float, z: float) -> None:
    """A dustbin: static, so ignored in training."""
    part = brush.mix("bin", brush.facing(z), tint=rng.random())
    corners = ((-0.3, 0), (0.3, 0), (0.34, 1.05), (-0.34, 1.05))
    brush.polygon([(x + a, y, z) for a, y in corners], part, LABEL["static"])
