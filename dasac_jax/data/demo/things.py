"""Things that stand or move in a street: people, cycles, trees, poles, signs.

Every function draws one thing at (x, z) metres with a brush and draws its variety from `rng`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dasac_jax.data.demo.draw import LABEL, Brush

Rng = np.random.Generator


def _skin_and_clothes(brush: Brush, rng: Rng, plane: Sequence[float]) -> tuple[int, ...]:
    """The parts coat, sleeve, legs, skin and hair of one person."""
    coat = rng.random()
    return (
        brush.add_part("cloth", plane, light=rng.uniform(0.85, 1.05), tint=coat),
        brush.add_part("cloth", plane, light=0.72, tint=coat),
        brush.add_part("trousers", plane, light=rng.uniform(0.8, 1.0), tint=rng.random()),
        brush.add_part("skin", plane, tint=rng.random()),
        brush.add_part("tyre", plane, light=rng.uniform(0.6, 1.4), tint=rng.random()),
    )


def _contact_shadow(brush: Brush, x: float, z: float, reach: float) -> None:
    corners = ((-reach, -0.3), (reach, -0.3), (reach, 0.3), (-reach, 0.3))
    brush.shadow([(x + dx, 0, z + dz) for dx, dz in corners], 0.5)


def person(brush: Brush, rng: Rng, x: float, z: float) -> None:
    """Someone walking or standing."""
    label, size = LABEL["person"], rng.uniform(0.88, 1.05)
    coat, sleeve, legs, skin, hair = _skin_and_clothes(brush, rng, brush.facing_plane(z))
    stride, swing = rng.uniform(0.04, 0.3), rng.uniform(-0.2, 0.2)

    def at(dx: float, y: float) -> tuple[float, float, float]:
        return (x + dx * size, y * size, z)

    _contact_shadow(brush, x, z, 0.4)
    brush.bar(at(-0.08, 0.85), at(-stride, 0.02), 0.16, legs, label)
    brush.bar(at(0.08, 0.85), at(stride, 0.02), 0.16, legs, label)
    brush.bar(at(-0.2, 1.38), at(-0.27 - swing / 2, 0.85), 0.11, sleeve, label)
    brush.bar(at(0.2, 1.38), at(0.27 - swing / 2, 0.85), 0.11, sleeve, label)
    torso = ((-0.2, 0.8), (-0.24, 1.38), (-0.1, 1.5), (0.1, 1.5), (0.24, 1.38), (0.2, 0.8))
    brush.polygon([at(*p) for p in torso], coat, label)
    brush.ellipse(at(0, 1.66), (0.12, 0.15), hair, label)
    if rng.random() < 0.7:  # the others turn their backs
        brush.ellipse(at(0, 1.62), (0.1, 0.12), skin, label)


def _rider(brush: Brush, rng: Rng, x: float, z: float, sideways: bool) -> None:
    """Someone sitting on a cycle, leaning forward to the handlebar."""
    label = LABEL["rider"]
    coat, sleeve, legs, skin, hair = _skin_and_clothes(brush, rng, brush.facing_plane(z))

    def limb(a: tuple, b: tuple, width: float, part: int) -> None:
        brush.bar((x + a[0], a[1], z), (x + b[0], b[1], z), width, part, label)

    if sideways:
        hip, knee, shoulder = (-0.24, 0.98), (0.14, 0.78), (0.1, 1.46)
        limb(hip, (0.02, 0.62), 0.16, legs)
        limb(hip, knee, 0.19, legs)
        limb(knee, (0.02, 0.32), 0.15, legs)
        back = ((-0.36, 1.0), (-0.12, 0.9), (0.2, 1.38), (0.12, 1.54), (-0.06, 1.5), (-0.28, 1.2))
        brush.polygon([(x + dx, y, z) for dx, y in back], coat, label)
        limb(shoulder, (0.4, 1.06), 0.11, sleeve)
        head = 0.2
    else:
        for side in (-1, 1):
            limb((0.12 * side, 0.95), (0.2 * side, 0.62), 0.18, legs)
            limb((0.2 * side, 0.66), (0.14 * side, 0.25), 0.15, legs)
            limb((0.21 * side, 1.42), (0.32 * side, 1.06), 0.11, sleeve)
        torso = ((-0.19, 0.88), (-0.25, 1.4), (-0.1, 1.53), (0.1, 1.53), (0.25, 1.4), (0.19, 0.88))
        brush.polygon([(x + dx, y, z) for dx, y in torso], coat, label)
        head = 0.0
    brush.ellipse((x + head, 1.68, z), (0.13, 0.15), hair, label)
    if sideways:
        brush.ellipse((x + head + 0.04, 1.65, z), (0.09, 0.11), skin, label)


def cycle(
    brush: Brush, rng: Rng, x: float, z: float, *, motor: bool, ridden: bool, sideways: bool
) -> None:
    """A bicycle or motorcycle, seen from the side or from behind, with or without its rider."""
    tint = rng.random()
    _contact_shadow(brush, x, z, 0.85 if sideways else 0.4)
    if not sideways:
        _cycle_from_behind(brush, x, z, motor, tint)
    elif motor:
        _motorcycle(brush, x, z, tint)
    else:
        _bicycle(brush, x, z, tint)
    if ridden:
        _rider(brush, rng, x, z, sideways)


def _cycle_from_behind(brush: Brush, x: float, z: float, motor: bool, tint: float) -> None:
    label, plane = LABEL["motorcycle" if motor else "bicycle"], brush.facing_plane(z)
    frame = brush.add_part("paint" if motor else "cycle", plane, tint=tint)
    tyre = brush.add_part("tyre", plane, light=0.8)
    brush.ellipse((x, 0.33, z), (0.11 if motor else 0.05, 0.33), tyre, label)
    brush.bar((x, 0.4, z), (x, 1.0, z), 0.34 if motor else 0.08, frame, label)
    brush.bar((x - 0.32, 1.04, z), (x + 0.32, 1.04, z), 0.07, tyre, label)
    if motor:
        brush.bar((x, 0.92, z), (x, 1.0, z), 0.3, tyre, label)
        brush.ellipse((x, 0.76, z), (0.09, 0.06), brush.add_part("taillight", plane), label)


def _bicycle(brush: Brush, x: float, z: float, tint: float) -> None:
    label, plane = LABEL["bicycle"], brush.facing_plane(z)
    frame = brush.add_part("cycle", plane, tint=tint)
    tyre = brush.add_part("tyre", plane, light=0.8)
    for side in (-1, 1):
        brush.ring((x + side * 0.52, 0.34, z), (0.34, 0.34), 0.06, tyre, label)
    joints = [(x - 0.52, 0.34, z), (x - 0.2, 0.85, z), (x + 0.4, 0.88, z), (x + 0.52, 0.34, z),
              (x - 0.02, 0.34, z)]  # fmt: skip
    brush.polygon(joints, None, label)
    for a, b in ((0, 1), (1, 2), (2, 3), (1, 4), (4, 2), (0, 4)):
        brush.bar(joints[a], joints[b], 0.07, frame, label)
    brush.bar((x + 0.4, 0.88, z), (x + 0.34, 1.05, z), 0.06, tyre, label)
    brush.bar((x - 0.36, 0.93, z), (x - 0.1, 0.93, z), 0.08, tyre, label)


def _motorcycle(brush: Brush, x: float, z: float, tint: float) -> None:
    label, plane = LABEL["motorcycle"], brush.facing_plane(z)
    paint = brush.add_part("paint", plane, tint=tint)
    tyre = brush.add_part("tyre", plane, light=0.8)
    metal = brush.add_part("metal", plane, tint=0.9)
    hull = ((-0.7, 0.5), (-0.75, 0.85), (0.4, 1.0), (0.65, 0.5), (0.3, 0.22), (-0.3, 0.22))
    brush.polygon([(x + dx, y, z) for dx, y in hull], None, label)
    for side in (-1, 1):
        brush.ring((x + side * 0.68, 0.32, z), (0.32, 0.32), 0.13, tyre, label)
        brush.ellipse((x + side * 0.68, 0.32, z), (0.1, 0.1), metal, label)
    brush.bar((x + 0.68, 0.32, z), (x + 0.4, 1.0, z), 0.09, metal, label)
    brush.bar((x - 0.75, 0.3, z), (x + 0.05, 0.26, z), 0.1, metal, label)
    brush.ellipse((x + 0.02, 0.46, z), (0.28, 0.22), tyre, label)
    brush.bar((x - 0.7, 0.72, z), (x - 0.05, 0.62, z), 0.16, paint, label)
    brush.ellipse((x + 0.16, 0.8, z), (0.32, 0.16), paint, label)
    brush.bar((x - 0.7, 0.86, z), (x - 0.08, 0.82, z), 0.12, tyre, label)
    brush.bar((x + 0.42, 0.98, z), (x + 0.26, 1.08, z), 0.07, tyre, label)
    brush.ellipse((x + 0.5, 0.86, z), (0.09, 0.1), brush.add_part("headlight", plane), label)


def tree(brush: Brush, rng: Rng, x: float, z: float, height: float) -> None:
    """A trunk (vegetation too, as Cityscapes has it) under a crown of leaves."""
    label, plane = LABEL["vegetation"], brush.facing_plane(z)
    radius, tint = height * rng.uniform(0.28, 0.4), rng.random()
    crown = height - radius * rng.uniform(0.9, 1.2)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    reach = 0.9 * radius
    brush.shadow(np.stack([x - brush.sun + reach * np.cos(angles), 0 * angles,
                          z + reach * np.sin(angles)], 1), 0.35 + 0.3 * abs(brush.sun))  # fmt: skip
    trunk = brush.add_part("trunk", plane, tint=rng.random())
    brush.bar((x, 0, z), (x, crown, z), 0.04 * height, trunk, label)
    foliage(brush, rng, (x, crown, z), (radius, radius * rng.uniform(0.8, 1.2)), tint)


def foliage(
    brush: Brush, rng: Rng, centre: Sequence[float], radii: Sequence[float], tint: float
) -> None:
    """A crown or hedge of ellipses, dark below and light above."""
    plane, label = brush.facing_plane(centre[2]), LABEL["vegetation"]
    shades = [brush.add_part("leaf", plane, light=s, tint=tint) for s in np.linspace(0.55, 1.1, 6)]
    angle, reach = rng.uniform(0, 2 * np.pi, 40), np.sqrt(rng.random(40)) * 0.85
    size, jitter = rng.uniform(0.2, 0.42, 40), rng.random(40)
    # Far crowns are a few pixels and need fewer blobs; the random numbers used stay the same.
    count = int(np.clip(brush.camera.focal * radii[0] / centre[2] / 3, 9, 40))
    dx, dy = reach[:count] * np.cos(angle[:count]), reach[:count] * np.sin(angle[:count])
    order = np.argsort(dy + 0.5 * jitter[:count])
    dx, dy = dx[order], dy[order]
    size = size[:count] * (1.25 if count < 20 else 1)
    step = np.clip((dy + 1) * 3 + 2 * jitter[order] - 1, 0, 5).astype(int)
    places = np.asarray(centre) + np.stack([dx * radii[0], dy * radii[1], 0 * dx], 1)
    brush.ellipses(places, np.outer(size, radii), [shades[index] for index in step], label)


def lamp_post(brush: Brush, rng: Rng, x: float, z: float) -> None:
    """A street lamp with its arm over the road."""
    plane = brush.facing_plane(z)
    part = brush.add_part("metal", plane, light=rng.uniform(0.7, 1.0), tint=rng.random())
    height, arm = rng.uniform(5.5, 8), -math.copysign(rng.uniform(1.0, 2.2), x)
    brush.bar((x, 0, z), (x, height, z), 0.2, part, LABEL["pole"])
    brush.bar((x, height, z), (x + arm, height + 0.25, z), 0.1, part, LABEL["pole"])
    brush.bar((x + 0.7 * arm, height + 0.18, z), (x + arm, height + 0.2, z), 0.2, part,
              LABEL["pole"])  # fmt: skip


def traffic_light(brush: Brush, rng: Rng, x: float, z: float) -> None:
    """A pole with one or two signal heads."""
    plane, inward = brush.facing_plane(z), -math.copysign(1.0, x)
    part = brush.add_part("metal", plane, light=0.7, tint=rng.random())
    heads = [(x, 2.9)]
    if rng.random() < 0.6:
        reach = rng.uniform(2.0, 3.6)
        brush.bar((x, 5.4, z), (x + inward * reach, 5.4, z), 0.12, part, LABEL["pole"])
        heads.append((x + inward * reach, 5.0))
    brush.bar((x, 0, z), (x, 5.5 if len(heads) > 1 else 3.4, z), 0.18, part, LABEL["pole"])
    housing, phase = brush.add_part("housing", plane), int(rng.integers(3))
    for hx, hy in heads:
        box = [(hx - 0.26, hy - 0.62, z), (hx + 0.26, hy - 0.62, z), (hx + 0.26, hy + 0.62, z),
               (hx - 0.26, hy + 0.62, z)]  # fmt: skip
        brush.polygon(box, housing, LABEL["traffic light"])
        for index in range(3):
            lit = 1.0 if index == phase else 0.35
            lamp = brush.add_part("lamp", plane, light=lit, tint=index / 3)
            brush.ellipse((hx, hy + 0.38 * (1 - index), z), (0.15, 0.15), lamp, None)


def sign(brush: Brush, rng: Rng, x: float, z: float) -> None:
    """A traffic sign on its pole: round, triangular or square."""
    plane, tint = brush.facing_plane(z), rng.random()
    brush.bar((x, 0, z), (x, 2.7, z), 0.1, brush.add_part("metal", plane, tint=0.5), LABEL["pole"])
    rim, face = brush.add_part("sign", plane, tint=tint), brush.add_part("trim", plane, tint=0.9)
    y, label, shape = 2.5, LABEL["traffic sign"], rng.integers(3)
    if shape == 0:
        brush.ellipse((x, y, z), (0.46, 0.46), rim, label)
        brush.ellipse((x, y, z), (0.31, 0.31), face if tint < 0.5 else rim, label)
        return
    corners = ((-0.5, -0.4), (0.5, -0.4), (0.0, 0.5)) if shape == 1 else (
        (-0.44, -0.44), (0.44, -0.44), (0.44, 0.44), (-0.44, 0.44))  # fmt: skip
    brush.polygon([(x + a, y + b, z) for a, b in corners], rim, label)
    brush.polygon([(x + 0.55 * a, y + 0.55 * b - 0.03, z) for a, b in corners], face, label)


def litter_bin(brush: Brush, rng: Rng, x: float, z: float) -> None:
    """A litter bin, whose label "static" is ignored in training."""
    part = brush.add_part("bin", brush.facing_plane(z), tint=rng.random())
    corners = ((-0.3, 0), (0.3, 0), (0.34, 1.05), (-0.34, 1.05))
    brush.polygon([(x + a, y, z) for a, y in corners], part, LABEL["static"])
