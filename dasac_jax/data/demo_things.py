"""Things that stand or move in a street: people, cycles, trees, poles, signs.

Every function draws one thing at (x, z) metres with a brush and draws its variety from `rng`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dasac_jax.data.demo_draw import LABEL, Brush

Rng = np.random.Generator


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
    if rng.random() < 0.7:  # the others turn their backs
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
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    reach = 0.9 * radius
    brush.shade(np.stack([x - brush.sun + reach * np.cos(angles), 0 * angles,
                          z + reach * np.sin(angles)], 1), 0.35 + 0.3 * abs(brush.sun))  # fmt: skip
    trunk = brush.mix("trunk", plane, tint=rng.random())
    brush.bar((x, 0, z), (x, crown, z), 0.04 * height, trunk, label)
    leaves(brush, rng, (x, crown, z), (radius, radius * rng.uniform(0.8, 1.2)), tint)


def leaves(
    brush: Brush, rng: Rng, centre: Sequence[float], radii: Sequence[float], tint: float
) -> None:
    """A heap of blobs, dark below and light above."""
    plane, label = brush.facing(centre[2]), LABEL["vegetation"]
    shades = [brush.mix("leaf", plane, light=s, tint=tint) for s in np.linspace(0.55, 1.1, 6)]
    # Far crowns are a few pixels: they need fewer blobs.
    count = int(np.clip(brush.camera.focal * radii[0] / centre[2] / 3, 9, 40))
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count)) * 0.85
    dx, dy = reach * np.cos(angle), reach * np.sin(angle)
    order = np.argsort(dy + 0.5 * rng.random(count))
    dx, dy = dx[order], dy[order]
    size = rng.uniform(0.2, 0.42, count) * (1.25 if count < 20 else 1)
    step = np.clip((dy + 1) * 3 + rng.uniform(-1, 1, count), 0, 5).astype(int)
    places = np.asarray(centre) + np.stack([dx * radii[0], dy * radii[1], 0 * dx], 1)
    brush.blobs(places, np.outer(size, radii), [shades[index] for index in step], label)


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
