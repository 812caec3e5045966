"""Draw one random street: its layout and everything in it, from far to near."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from dasac_jax.data.demo import things, vehicles
from dasac_jax.data.demo.draw import LABEL, SUPERSAMPLING, Brush, Camera, Scene
from dasac_jax.data.demo.houses import backdrop, boundary, house

Rng = np.random.Generator


@dataclass(frozen=True)
class Content:
    """The content of a domain: its camera, and how many things of each kind its scenes hold."""

    camera_height_m: float
    horizon: float  # share of the picture's height
    bonnet: float  # share of pictures with the own car's bonnet
    people: float  # mean number on the pavements
    parked: float  # share of parking places taken
    traffic: float  # share of places in the lanes taken
    parked_cycles: float  # mean number
    riders: float  # mean number of bicycles being ridden
    motorcycles: float
    trucks: float
    buses: float
    trams: float
    sun: tuple[float, float, float]  # from the left, hidden, from the right
    trees: float  # share of places for a street tree taken
    sides: tuple[float, float, float]  # closed rows of houses, detached houses, open country
    styles: tuple[float, float, float]  # plaster, brick, concrete fronts


GAME = Content(
    camera_height_m=1.55, horizon=0.46, bonnet=0.15, people=4.5, parked=0.4, traffic=0.5,
    parked_cycles=0.7, riders=0.35, motorcycles=0.35, trucks=0.3, buses=0.22, trams=0.13,
    sun=(0.35, 0.3, 0.35), trees=0.4, sides=(0.5, 0.25, 0.25), styles=(0.3, 0.25, 0.45),
)  # fmt: skip
REAL = Content(
    camera_height_m=1.3, horizon=0.42, bonnet=1.0, people=11.0, parked=0.62, traffic=0.55,
    parked_cycles=1.8, riders=0.65, motorcycles=0.32, trucks=0.2, buses=0.16, trams=0.15,
    sun=(0.25, 0.5, 0.25), trees=0.6, sides=(0.6, 0.22, 0.18), styles=(0.6, 0.3, 0.1),
)  # fmt: skip


@dataclass(frozen=True)
class _Side:
    """One side of the street; x positions are signed metres."""

    sign: int
    kind: int  # 0 closed rows of houses, 1 detached houses, 2 open country
    kerb: float
    parking: float  # width of the parking lane, or 0
    path: float  # where the pavement ends
    front: float  # where the fronts stand

    def across(self, metres: float) -> float:
        """The x position `metres` outwards from the kerb."""
        return self.kerb + self.sign * metres


def draw_scene(rng: Rng, content: Content, height: int, width: int) -> Scene:
    """Draw a random street of `content` for a picture of height x width pixels."""
    rows, columns = SUPERSAMPLING * height, SUPERSAMPLING * width
    camera = Camera(
        height_m=content.camera_height_m * rng.uniform(0.92, 1.1),
        focal=rng.uniform(0.85, 1.0) * max(columns, 1.6 * rows),
        centre_x=columns * (0.5 + np.clip(rng.normal(0, 0.06), -0.14, 0.14)),
        horizon_y=rows * (content.horizon + np.clip(rng.normal(0, 0.02), -0.05, 0.05)),
        size=(rows, columns),
    )
    brush = Brush(camera, sun=int(rng.choice((-1, 0, 1), p=content.sun)))
    end = rng.uniform(60, 140)
    crossing = rng.uniform(11, 38) if rng.random() < 0.45 else None
    lanes_left = 1 if rng.random() < 0.6 else 2
    sides = (
        _side(rng, content, -1, 1.7 + 3.3 * lanes_left),
        _side(rng, content, 1, rng.choice((1.9, 5.2), p=(0.7, 0.3))),
    )
    backdrop(brush, rng, end)
    _draw_ground(brush, rng, sides, end, crossing, lanes_left)
    for side in sides:
        _draw_frontage(brush, rng, content, side, end, crossing)
    placed: list[tuple[float, Callable]] = []
    for side in sides:
        _place_furniture(rng, content, side, end, crossing, placed)
    _place_traffic(rng, content, sides, end, crossing, lanes_left, placed)
    for _, draw in sorted(placed, key=lambda item: -item[0]):
        draw(brush, rng)
    if rng.random() < content.bonnet:
        _draw_bonnet(brush, rng)
    return brush.finish()


def _side(rng: Rng, content: Content, sign: int, lane_edge: float) -> _Side:
    kind = int(rng.choice(3, p=content.sides))
    parking = 2.3 if rng.random() < (0.75, 0.5, 0.15)[kind] else 0.0
    kerb = lane_edge + parking
    path = kerb + rng.uniform(2.2, 4.8)
    front = path + (rng.uniform(0, 1.0), rng.uniform(2.5, 6), rng.uniform(4, 10))[kind]
    return _Side(sign, kind, sign * kerb, parking, sign * path, sign * front)


def _strip(brush: Brush, x0: float, x1: float, z0: float, z1: float, part: int, label: int) -> None:
    """A rectangle on the ground, from x0 to x1 and from z0 to z1 metres."""
    brush.polygon([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], part, label)


def _draw_ground(
    brush: Brush, rng: Rng, sides: tuple[_Side, _Side], end: float, crossing: float | None,
    lanes_left: int,
) -> None:  # fmt: skip
    plane = brush.ground_plane()
    parts = {name: brush.add_part(name, plane, tint=rng.random())
             for name in ("road", "marking", "sidewalk", "curb", "terrain")}  # fmt: skip
    white = brush.add_part("marking", plane)
    for side in sides:
        paved = side.kind == 0
        name = "sidewalk" if paved else "terrain"
        _strip(brush, 0, side.sign * 300, 1, 400, parts[name], LABEL[name])
        _strip(brush, 0, side.path, 1, end + 30, parts["sidewalk"], LABEL["sidewalk"])
    if crossing is not None:
        _strip(brush, -200, 200, crossing - 3, crossing + 12, parts["sidewalk"], LABEL["sidewalk"])
        _strip(brush, -200, 200, crossing, crossing + 9, parts["road"], LABEL["road"])
    left, right = sides
    for side in sides:
        _strip(brush, side.kerb, side.across(0.2), 1, end + 30, parts["curb"], LABEL["sidewalk"])
    _strip(brush, left.kerb, right.kerb, 1, end + 30, parts["road"], LABEL["road"])
    if crossing is not None:
        _strip(brush, -200, 200, crossing + 0.2, crossing + 8.8, parts["road"], LABEL["road"])
        if rng.random() < 0.7:
            for x in np.arange(left.kerb + 0.5, right.kerb - 0.6, 1.1):
                _strip(brush, x, x + 0.55, crossing - 3.4, crossing - 0.4, white, LABEL["road"])
    for lane in range(-lanes_left, 2):
        x = 1.65 + 3.3 * (lane - 1) if lane < 1 else 1.75
        solid = lane in (-lanes_left, 1)
        if x <= left.kerb + 0.3 or x >= right.kerb - 0.1:
            continue
        for z in np.arange(rng.uniform(1, 5), end, 6.0):
            if crossing is None or not crossing - 5 < z < crossing + 10:
                _strip(brush, x - 0.07, x + 0.07, z, z + (6.0 if solid else 3.0),
                       parts["marking"], LABEL["road"])  # fmt: skip


def _draw_frontage(
    brush: Brush, rng: Rng, content: Content, side: _Side, end: float, crossing: float | None
) -> None:
    """Houses with the trees between and behind them, far to near, then walls, fences and hedges."""
    row: list[tuple[float, Callable]] = []
    z, style = rng.uniform(-6, 2), int(rng.choice(3, p=content.styles))
    while z < end:
        length = rng.uniform(8, 20)
        if rng.random() < 0.4:
            style = int(rng.choice(3, p=content.styles))
        blocked = crossing is not None and z < crossing + 13 and z + length > crossing - 4
        if blocked:
            z = crossing + 13
            continue
        if side.kind < 2 or rng.random() < 0.15:
            floors = int(rng.integers(2, 7) if side.kind == 0 else rng.integers(1, 4))
            setback = side.front + side.sign * rng.uniform(0, (0.3, 3.0, 12.0)[side.kind])
            row.append((z + length, partial(house, x=setback, z0=z, z1=z + length, floors=floors,
                                            style=style)))  # fmt: skip
        gap = (0.0 if rng.random() < 0.85 else 5.0, rng.uniform(3, 10), rng.uniform(2, 12))
        for _ in range((0, 2, 3)[side.kind]):
            tz = z + length + rng.uniform(0, gap[side.kind])
            tx = side.front + side.sign * rng.uniform(1, (2, 9, 25)[side.kind])
            size = rng.uniform(4, 11)
            if crossing is None or abs(tz - crossing - 4) > 7:
                row.append((tz, partial(things.tree, x=tx, z=tz, height=size)))
        z += length + gap[side.kind]
    for z, draw in sorted(row, key=lambda item: -item[0]):
        if z > 2.5:
            draw(brush, rng)
    kind = rng.choice(("none", "wall", "fence", "hedge"), p=((0.8, 0.1, 0.1, 0.0),
                      (0.2, 0.25, 0.3, 0.25), (0.3, 0.2, 0.35, 0.15))[side.kind])  # fmt: skip
    if kind != "none":
        x = side.path + side.sign * (0.1 if side.kind == 0 else 0.5)
        start, stop = rng.uniform(-5, 25), rng.uniform(35, end)
        spans = [(start, stop)]
        if crossing is not None:
            spans = [(start, min(stop, crossing - 3)), (max(start, crossing + 12), stop)]
        for z0, z1 in reversed(spans):
            if z1 - z0 > 2:
                boundary(brush, rng, str(kind), x, max(z0, 1.2), z1)


def _place_furniture(
    rng: Rng, content: Content, side: _Side, end: float, crossing: float | None,
    placed: list[tuple[float, Callable]],
) -> None:  # fmt: skip
    """Parked cars and everything on the pavement.

    Everything is drawn in the order of its near end, so that a long vehicle hides what stands
    beside it on the pavement.
    """

    def put(z: float, draw: Callable, x: float, length: float = 0.0, **options) -> None:
        if z < end and (crossing is None or not crossing - 1 < z < crossing + 10):
            placed.append((z - length / 2, partial(draw, x=x, z=z, **options)))

    walk = abs(side.path - side.kerb)
    if side.parking:
        yaw = 0.0 if side.sign > 0 or rng.random() < 0.5 else math.pi
        for z in np.arange(rng.uniform(1, 6), end, 5.8):
            if rng.random() < content.parked:
                put(z + rng.uniform(-0.4, 0.4), vehicles.car, side.across(-1.15), 4.2, yaw=yaw)
    for z in np.arange(rng.uniform(4, 18), end, rng.uniform(16, 26)):
        put(z, things.lamp_post, side.across(0.5))
    for z in np.arange(rng.uniform(4, 14), end, rng.uniform(8, 13)):
        if rng.random() < content.trees:
            put(z, things.tree, side.across(0.8), height=rng.uniform(4.5, 9))
    for _ in range(rng.poisson(content.people / 2)):
        put(4 + 32 * rng.random() ** 1.8, things.person, side.across(rng.uniform(0.6, walk)))
    for _ in range(rng.poisson(content.parked_cycles / 2)):
        z, count = rng.uniform(4.5, 22), rng.integers(1, 4)
        for index in range(count):
            put(z + 0.7 * index, things.cycle, side.across(0.9 + rng.uniform(-0.1, 0.1)),
                motor=False, ridden=False, sideways=bool(rng.random() < 0.8))  # fmt: skip
    for _ in range(rng.poisson(1.1)):
        put(5.5 + 30 * rng.random() ** 1.4, things.sign, side.across(rng.uniform(0.3, 0.7)))
    if rng.random() < 0.3:
        put(rng.uniform(6, 25), things.litter_bin, side.across(0.9))
    if crossing is not None and rng.random() < 0.8:
        placed.append((crossing - 2, partial(
            things.traffic_light, x=side.across(0.5), z=crossing - 2)))  # fmt: skip
    elif rng.random() < 0.15:
        put(rng.uniform(8, 35), things.traffic_light, side.across(0.5))


def _place_traffic(
    rng: Rng, content: Content, sides: tuple[_Side, _Side], end: float, crossing: float | None,
    lanes_left: int, placed: list[tuple[float, Callable]],
) -> None:  # fmt: skip
    """Traffic: each lane a queue with gaps; large vehicles and two-wheelers are rare."""
    lanes = [(0.1, 0.0, rng.uniform(9, 16))]
    lanes += [(-3.3 * (index + 1), math.pi, rng.uniform(5, 14)) for index in range(lanes_left)]
    if sides[1].kerb - sides[1].parking > 4:
        lanes.append((3.4, 0.0, rng.uniform(6, 14)))
    rates = ((vehicles.truck, content.trucks), (vehicles.bus, content.buses),
             (vehicles.tram, content.trams))  # fmt: skip
    large = [draw for draw, rate in rates if rng.random() < rate]
    for x, yaw, z in lanes:
        while z < end:
            kind, length = vehicles.car, 4.5
            if large and rng.random() < 0.5:
                kind = large.pop()
                length = 25.0 if kind is vehicles.tram else 11.0
                z += length / 2
            if length > 5 or rng.random() < content.traffic:
                draw = partial(kind, x=x + rng.uniform(-0.25, 0.25), z=z, yaw=yaw)
                placed.append((z - length / 2, draw))
                if kind is vehicles.tram:
                    placed.append((math.inf, partial(_draw_rails, x=x, end=end)))
            z += length / 2 + rng.uniform(6, 16)
    for _ in range(rng.poisson(content.riders)):
        _place_two_wheeler(rng, sides, placed, motor=False)
    for _ in range(rng.poisson(content.motorcycles)):
        _place_two_wheeler(rng, sides, placed, motor=True)
    if crossing is not None:
        for direction in (1, -1):
            for _ in range(rng.poisson(0.5)):
                x, z = rng.uniform(-14, 14), crossing + (2.2 if direction > 0 else 6.2)
                draw = partial(vehicles.car, x=x, z=z, yaw=direction * math.pi / 2)
                placed.append((z - 0.9, draw))
        for _ in range(rng.poisson(content.people / 6)):
            x, z = rng.uniform(sides[0].kerb, sides[1].kerb), crossing - rng.uniform(1, 3)
            placed.append((z, partial(things.person, x=x, z=z)))


def _draw_rails(brush: Brush, rng: Rng, x: float, end: float) -> None:
    rail = brush.add_part("metal", brush.ground_plane(), light=0.75, tint=rng.random())
    for side in (-0.72, 0.72):
        _strip(brush, x + side - 0.06, x + side + 0.06, 1, end, rail, LABEL["road"])


def _place_two_wheeler(
    rng: Rng, sides: tuple[_Side, _Side], placed: list[tuple[float, Callable]], *, motor: bool
) -> None:
    side = sides[int(rng.integers(2))]
    x = side.across(-side.parking - rng.uniform(0.3, 1.2))
    ridden, z = bool(rng.random() < (0.7 if motor else 1.0)), 4.5 + 20 * rng.random() ** 1.4
    placed.append((z, partial(things.cycle, x=x, z=z, motor=motor, ridden=ridden,
                              sideways=bool(rng.random() < 0.45))))  # fmt: skip


def _draw_bonnet(brush: Brush, rng: Rng) -> None:
    """The front of the own car along the lower edge."""
    part = brush.add_part("bonnet", brush.facing_plane(1.5), tint=rng.random())
    across = np.linspace(-0.05, 1.05, 25)
    top = 0.93 + 0.09 * np.abs(2 * across - 1) ** 2.5
    outline = [*zip(across, top, strict=True), (1.05, 1.1), (-0.05, 1.1)]
    brush.screen_polygon(outline, part, LABEL["ego vehicle"])
