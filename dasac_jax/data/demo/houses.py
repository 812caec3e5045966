"""What stands along and behind a street: houses, walls, fences, hedges, the skyline."""

from __future__ import annotations

import numpy as np

from dasac_jax.data.demo import things
from dasac_jax.data.demo.draw import LABEL, Brush

Rng = np.random.Generator
_STYLES = ("plaster", "brick", "concrete")


def house(
    brush: Brush, rng: Rng, *, x: float, z0: float, z1: float, floors: int, style: int
) -> None:
    """A house whose front stands at `x` from z0 to z1 metres; its near gable shows in gaps."""
    label, material, tint = LABEL["building"], _STYLES[style], rng.random()
    storey = rng.uniform(2.9, 3.6)
    top, outer = floors * storey + rng.uniform(0.4, 1.2), x + np.sign(x) * rng.uniform(8, 14)
    lit = brush.side_light(x)
    z0 = max(z0, 1.0)
    if brush.sun * x > 0:  # its shadow falls into the street
        reach = x - np.sign(x) * min(0.8 * top, 14.0)
        brush.shadow([(x, 0, z0), (x, 0, z1), (reach, 0, z1 + 2), (reach, 0, z0 + 2)], 0.7)
    roof = rng.random() < (0.7, 0.6, 0.05)[style]
    if z0 > 1.5:
        gable = brush.add_part(material, brush.facing_plane(z0), light=0.72, tint=tint)
        outline = [(x, 0, z0), (outer, 0, z0), (outer, top, z0), (x, top, z0)]
        if roof:
            outline.insert(3, ((x + outer) / 2, top + 3.2, z0))
        brush.polygon(outline, gable, label)
        _gable_windows(brush, rng, (x, outer), z0, floors, storey)
    if roof:
        across = brush.facing_plane((z0 + z1) / 2)
        tiles = brush.add_part("roof", across, light=lit, tint=rng.random())
        ridge, height = (x + outer) / 2, top + 3.2
        brush.polygon([(x, top, z0), (ridge, height, z0), (ridge, height, z1), (x, top, z1)],
                      tiles, label)  # fmt: skip
    plane = brush.side_plane(x)
    front = brush.add_part(material, plane, light=lit, tint=tint)
    brush.polygon([(x, 0, z0), (x, 0, z1), (x, top, z1), (x, top, z0)], front, label)
    _windows(brush, rng, x, z0, z1, floors, storey, lit, modern=style == 2)


def _windows(
    brush: Brush, rng: Rng, x: float, z0: float, z1: float, floors: int, storey: float,
    lit: float, *, modern: bool,
) -> None:  # fmt: skip
    label, plane = LABEL["building"], brush.side_plane(x)
    panes = [
        brush.add_part("glass", plane, light=lit * shade, tint=tint)
        for shade, tint in ((0.7, 0.0), (0.9, 0.4), (1.15, 0.8))
    ]
    trim = brush.add_part("trim", plane, light=lit, tint=rng.random())
    door = brush.add_part("door", plane, light=lit, tint=rng.random())
    count = max(2, round((z1 - z0) / (2.2 if modern else rng.uniform(2.6, 3.4))))
    edges = np.linspace(z0 + 0.3, z1 - 0.3, count + 1)
    inset = (0.12 if modern else 0.26) * (edges[1] - edges[0])
    left, floor = np.meshgrid(edges[:-1], np.arange(floors))
    a, b = (left + inset).ravel(), (left + edges[1] - edges[0] - inset).ravel()
    low = (floor * storey + (0.5 if modern else 0.95)).ravel()
    high = ((floor + 1) * storey - (0.35 if modern else 0.55)).ravel()
    parts = rng.choice(panes, a.size).tolist()
    ground = floor.ravel() == 0
    if not modern and rng.random() < 0.35:  # shops
        a[ground], b[ground] = a[ground] - 0.6 * inset, b[ground] + 0.6 * inset
        low[ground] = 0.35
        sign = brush.add_part("cloth", plane, light=lit, tint=rng.random())
        board = [(z, up) for up in (storey - 0.45, storey - 0.05) for z in (z0, z1)]
        brush.polygon([(x, board[i][1], board[i][0]) for i in (0, 1, 3, 2)], sign, label)
    entrance = int(rng.integers(count))
    low[entrance], high[entrance], parts[entrance] = 0.0, 2.3, door
    if not modern:
        frame = _upright(x, a - 0.12, b + 0.12, low - 0.14, high + 0.1)
        brush.polygons(frame, [trim] * a.size, label)
    brush.polygons(_upright(x, a, b, low, high), parts, label)


def _upright(
    x: float, a: np.ndarray, b: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """(M, 4, 3) upright rectangles along the street, from a to b metres ahead."""
    corners = ((a, low), (b, low), (b, high), (a, high))
    return np.stack([np.stack([0 * z + x, y, z], 1) for z, y in corners], 1)


def _gable_windows(
    brush: Brush, rng: Rng, span: tuple[float, float], z: float, floors: int, storey: float
) -> None:
    """A few windows in the wall across the street."""
    near, far = span
    pane = brush.add_part("glass", brush.facing_plane(z), light=0.75, tint=rng.random())
    columns = near + (far - near) * np.array([0.2, 0.5, 0.8])[: int(rng.integers(0, 4))]
    for floor in range(floors):
        low, high = floor * storey + 1.0, (floor + 1) * storey - 0.6
        for x in columns:
            quad = [(x - 0.5, low, z), (x + 0.5, low, z), (x + 0.5, high, z), (x - 0.5, high, z)]
            brush.polygon(quad, pane, LABEL["building"])


def boundary(brush: Brush, rng: Rng, kind: str, x: float, z0: float, z1: float) -> None:
    """A wall, fence or hedge along the street."""
    plane, lit = brush.side_plane(x), brush.side_light(x)
    if kind == "hedge":
        for z in np.arange(z1, z0, -1.6):
            if z > 2:
                things.foliage(brush, rng, (x, 0.7, z), (1.2, 0.8), rng.random())
        return
    height = rng.uniform(1.6, 3.2) if kind == "wall" else rng.uniform(1.1, 1.9)
    panel = [(x, 0, z0), (x, 0, z1), (x, height, z1), (x, height, z0)]
    part = brush.add_part(kind, plane, light=lit, tint=rng.random())
    if kind == "wall":
        brush.polygon(panel, part, LABEL["wall"])
        cap = brush.add_part("curb", plane, light=lit)
        brush.polygon([(x, height, z0), (x, height, z1), (x, height - 0.18, z1),
                       (x, height - 0.18, z0)], cap, LABEL["wall"])  # fmt: skip
        return
    brush.polygon(panel, None, LABEL["fence"])
    spacing = rng.uniform(0.35, 0.6)
    for z in np.arange(z1, z0, -spacing):
        wide = 0.5 * spacing
        brush.polygon([(x, 0, z), (x, 0, z - wide), (x, height, z - wide), (x, height, z)],
                      part, LABEL["fence"])  # fmt: skip
    for low in (0.25, height - 0.25):
        rail = [(x, low, z0), (x, low, z1), (x, low + 0.14, z1), (x, low + 0.14, z0)]
        brush.polygon(rail, part, LABEL["fence"])


def backdrop(brush: Brush, rng: Rng, end: float) -> None:
    """The skyline behind the end of the street: distant blocks and trees."""
    x, depth = -1.6 * end, end + 25
    while x < 1.6 * end:
        wide = rng.uniform(8, 30)
        if rng.random() < 0.55:
            part = brush.add_part(_STYLES[int(rng.integers(3))], brush.facing_plane(depth),
                             light=rng.uniform(0.75, 1.0), tint=rng.random())  # fmt: skip
            high = rng.uniform(5, 24)
            brush.polygon([(x, 0, depth), (x + wide, 0, depth), (x + wide, high, depth),
                           (x, high, depth)], part, LABEL["building"])  # fmt: skip
            pane = brush.add_part("glass", brush.facing_plane(depth), light=0.9, tint=rng.random())
            if abs(x) < 45:
                for low in np.arange(1.5, high - 2, 3.4):
                    brush.bar((x + 1, low + 0.8, depth), (x + wide - 1, low + 0.8, depth), 1.3,
                              pane, LABEL["building"])  # fmt: skip
        else:
            radius = wide / 2
            things.foliage(brush, rng, (x + radius, 0.3 * radius, depth), (radius, 0.7 * radius),
                          rng.random())  # fmt: skip
        x += 0.8 * wide
