"""The appearance of the two domains: how the parts of a scene become a picture.

The game has flat shading in clean, saturated colours. The real domain has other colours of every
material, textures, haze that grows with depth, uneven light, blur and sensor noise; its `strength`
scales all of these together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from dasac_jax.data.demo.draw import MATERIALS, SUPERSAMPLING, Scene

SHIFT = 0.25  # strength of the real appearance; 0 keeps the game's colours, 1 is extreme

# Colours of each material: (game, real). A part's tint selects one of them; both domains have the
# same number of colours, because the strength interpolates between them.
_COLOURS = {
    "sky": ("6fa8e8 8fc0f0 f0b880", "c9d2dc dde0e2 a9b7c8"),
    "road": ("6e727c 64666e 787a80", "55524e 4b4a4a 625d57"),
    "marking": ("f4f2e6 f0d060", "b9b5aa b8b2a2"),
    "sidewalk": ("a8a4a0 b4a898 989ca4", "7d7770 8a8074 6c6a6c"),
    "curb": ("c8c6c2", "8d8a84"),
    "terrain": ("84b048 a0a850 b09a68", "5d6a3a 77734a 7c6a4e"),
    "plaster": ("e8d8b0 d8b890 c0d0d8 e0a888 d8d8d0", "b4a78c a58e72 9aa09c a9826a a8a49c"),
    "brick": ("c06848 a85840 d09070", "7c4f40 6d4a42 8f6a58"),
    "concrete": ("b8bcc4 98a4b4 d0ccc4 8890a0", "86857f 76797c 989288 686a6e"),
    "glass": ("4878a8 385878 88b0d0", "2f3840 3f4a54 66727c"),
    "trim": ("f0ece4 d8d0c4 e8e8e8", "b0a99e 9c958a bcb8b2"),
    "roof": ("b05038 806058 606470", "6f4236 5a4a44 48484c"),
    "door": ("7a4a2a 2a5a4a 8a2a2a", "4c3627 2c3c36 552c2a"),
    "wall": ("b0a898 c8b8a0 a07860", "75706a 857a6c 6c5548"),
    "fence": ("a07848 d8d8d8 486048", "6a543c 8e8c88 3e4a3e"),
    "metal": ("80868c 5a6068 a8acb0", "55585a 3e4244 76787a"),
    "housing": ("282c30", "23241f"),
    "lamp": ("ff3020 ffb020 30e060", "d8402c d89838 3cb868"),
    "sign": ("e02828 e83030 2858d8 f0c828", "a83030 b03836 304f9a c09a34"),
    "leaf": ("58a038 6ab048 408838 88a838", "44582c 52602f 364a2c 646338"),
    "trunk": ("7a5a3c 6a5a4c", "4a3e32 453f39"),
    "skin": ("e8b890 c08860 885838", "b38a70 93694f 64463a"),
    "cloth": ("d03838 3858c0 e0e0e0 303438 e0b030 48a060 8848a0",
              "7c3436 37466e a5a39f 26282b 9c8140 43624c 594262"),
    "trousers": ("304878 282c34 88785c 585c64", "2e3a50 232528 62584a 424448"),
    "paint": ("d02830 2858c8 f0f0f0 303438 b8bcc4 e8b020 389058",
              "80262a 2e4272 c4c4c0 26282b 86898c 96792e 33503e"),
    "coach": ("e8c030 e87830 e8e8e8 3878c8", "b09038 98603a b6b4ae 3d5c86"),
    "tram": ("d03038 b02838 30a070", "8c2f2e 78282e 33684e"),
    "cargo": ("f0f0ec 4878c0 d07030 90a0a8", "b8b6b0 42587c 8f5a38 727a7e"),
    "tyre": ("282a2e", "1f1f1f"),
    "headlight": ("fffbe8", "d2d0c4"),
    "taillight": ("e82020", "a02522"),
    "cycle": ("2858c8 d03030 282c30 d0d4d8", "34466e 803030 26282a 8c8e90"),
    "bonnet": ("303848 902830", "24272b 24272b"),
    "bin": ("408058 707880", "374f42 4b4f52"),
}  # fmt: skip

# Amplitudes of the real domain's patterns on a material: grain, stains, bricks, clumps of leaves.
_TEXTURE = {
    "road": (0.30, 0.30, 0, 0), "marking": (0.35, 0.35, 0, 0), "sidewalk": (0.22, 0.25, 0.35, 0),
    "curb": (0.25, 0.2, 0, 0), "terrain": (0.35, 0.3, 0, 0.35), "plaster": (0.10, 0.35, 0, 0),
    "brick": (0.18, 0.2, 0.6, 0), "concrete": (0.15, 0.35, 0.1, 0), "roof": (0.2, 0.2, 0.4, 0),
    "wall": (0.25, 0.35, 0.5, 0), "fence": (0.25, 0.25, 0, 0), "leaf": (0.45, 0.1, 0, 0.6),
    "trunk": (0.25, 0.3, 0, 0), "glass": (0.05, 0.7, 0, 0.2), "cloth": (0.12, 0.35, 0, 0),
    "trousers": (0.12, 0.3, 0, 0), "paint": (0.03, 0.35, 0, 0), "coach": (0.03, 0.3, 0, 0),
    "tram": (0.03, 0.3, 0, 0), "cargo": (0.05, 0.3, 0, 0), "sky": (0, 0, 0, 0),
}  # fmt: skip
_AMPLITUDE = np.array([_TEXTURE.get(name, (0, 0, 0, 0)) for name in MATERIALS], np.float32)
_TILE = 256  # a power of two


def game_picture(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """(H, W, 3) uint8: flat shading, clean colours, hard shadows."""
    image = _flat(scene, 0.0) * _shadowed(scene, _Surface.of(scene), 0.5)
    image = _sky(rng, scene, image, 0.0)
    return _to_bytes(image * np.float32(rng.uniform(0.92, 1.06)))


def real_picture(rng: np.random.Generator, scene: Scene, strength: float = SHIFT) -> np.ndarray:
    """(H, W, 3) uint8: duller colours, textures, haze, vignette, blur and noise."""
    surface = _Surface.of(scene)
    image = _flat(scene, strength) * _shadowed(scene, surface, 0.5)
    image = _sky(rng, scene, image, strength)
    image *= _texture(rng, scene, surface, strength)[..., None]
    image = _haze_and_vignette(rng, scene, surface, image, strength)
    return _sensor(rng, image, strength)


@dataclass(frozen=True)
class _Surface:
    """What each final pixel shows: (H, W) part, material, depth (m), and positions on the surface.

    `u`, `v` are metres along the surface, whichever way it faces; `ground` is true on level ones.
    """

    part: np.ndarray
    material: np.ndarray
    ground: np.ndarray
    depth: np.ndarray
    u: np.ndarray
    v: np.ndarray

    @classmethod
    def of(cls, scene: Scene) -> _Surface:
        part = scene.part[::SUPERSAMPLING, ::SUPERSAMPLING]
        rows, columns = part.shape
        x = np.arange(columns, dtype=np.float32)[None] * SUPERSAMPLING - scene.camera.centre_x
        y = np.arange(rows, dtype=np.float32)[:, None] * SUPERSAMPLING - scene.camera.horizon_y
        a, b, c = (column[part] for column in scene.plane.T)
        depth = 1 / np.maximum(a + b * x + c * y, 1 / 300)
        scale = depth / scene.camera.focal
        ground = c > 0
        return cls(
            part=part,
            material=scene.material[part],
            ground=ground,
            depth=depth,
            u=np.where(b != 0, depth, x * scale),
            v=np.where(ground, depth, y * scale),
        )


def _flat(scene: Scene, strength: float) -> np.ndarray:
    """(H, W, 3) in [0, 1]: each part in one colour times its light, antialiased."""
    palette = _palette(strength)
    sizes = np.array([len(colours) for colours in palette])
    starts = np.cumsum(sizes) - sizes
    chosen = np.minimum((scene.tint * sizes[scene.material]).astype(int), sizes[scene.material] - 1)
    table = np.concatenate(palette)[starts[scene.material] + chosen]
    shade = 0.9 + 0.2 * ((scene.tint * 7919) % 1)  # parts of the same colour differ a little
    table = _to_bytes(table * (scene.light * shade)[:, None])
    picture = Image.fromarray(np.take(table, scene.part, axis=0)).reduce(SUPERSAMPLING)
    return np.asarray(picture, np.float32) / 255


def _palette(strength: float) -> list[np.ndarray]:
    """The (K, 3) colours in [0, 1] of each material, between the game's and the real ones."""

    def parse(text: str) -> np.ndarray:
        return np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in text.split()]) / 255

    mixed = []
    for name in MATERIALS:
        game, real = (parse(text) for text in _COLOURS[name])
        mixed.append(np.clip(game + strength * (real - game), 0.02, 1))
    return mixed


def _shadowed(scene: Scene, surface: _Surface, depth: float) -> np.ndarray:
    """(H, W, 1) factor that darkens the ground where shadows fall."""
    shadow = scene.shadow[::SUPERSAMPLING, ::SUPERSAMPLING]
    return (1 - depth * shadow * surface.ground)[..., None].astype(np.float32)


def _tile(rng: np.random.Generator, cells: int) -> np.ndarray:
    """A smooth noise picture in [-1, 1] that repeats without a seam."""
    values = rng.random((cells, cells), dtype=np.float32)
    step = _TILE // cells
    grown = Image.fromarray(np.pad(values, 2, mode="wrap")).resize(
        ((cells + 4) * step,) * 2, Image.Resampling.BICUBIC
    )
    return np.asarray(grown)[2 * step : 2 * step + _TILE, 2 * step : 2 * step + _TILE] * 2 - 1


def _texture(
    rng: np.random.Generator, scene: Scene, surface: _Surface, strength: float
) -> np.ndarray:
    """(H, W) factor around 1: grain, stains, bricks and leaf clumps fixed to the surfaces."""
    grain, stain, brick, clump = (_AMPLITUDE[:, k][surface.material] for k in range(4))
    shift = scene.tint[surface.part] * 97
    u, v = surface.u + shift, surface.v + shift

    def look_up(tile: np.ndarray, per_metre: float) -> np.ndarray:
        rows, columns = ((axis * per_metre).astype(np.int32) & (_TILE - 1) for axis in (v, u))
        return tile[rows, columns]

    fine, middle, broad = (_tile(rng, cells) for cells in (128, 64, 16))
    row = v / 0.3
    course = np.floor(row)
    bond = u / 0.7 + 0.5 * course
    joints = (row - course < 0.22) | (bond - np.floor(bond) < 0.14)
    near = np.clip(1.2 - surface.depth / 40, 0.15, 1)  # bricks and grain blur with distance
    pattern = (
        grain * near * look_up(fine, 45)
        + stain * np.clip(1.3 - surface.depth / 70, 0.3, 1) * look_up(broad, 22)
        - brick * near * (joints - np.float32(0.3))
        + clump * look_up(middle, 22)
    )
    return np.clip(1 + strength * pattern, 0.2, 2.2).astype(np.float32)


def _haze_and_vignette(
    rng: np.random.Generator, scene: Scene, surface: _Surface, image: np.ndarray, strength: float
) -> np.ndarray:
    """Haze that grows with depth, and the lens's darker corners."""
    density = strength * rng.uniform(0.002, 0.007)
    haze = np.where(surface.material == 0, 0, 1 - np.exp(-density * np.minimum(surface.depth, 200)))
    veil = np.array([0.72, 0.75, 0.78], np.float32) * np.float32(rng.uniform(0.85, 1.1))
    image = image + haze[..., None].astype(np.float32) * (veil - image)
    rows, columns = image.shape[:2]
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)[None]
    vignette = 1 - strength * rng.uniform(0.05, 0.3) * (x**2 + y**2) / 2
    return image * vignette[..., None].astype(np.float32)


def _sensor(rng: np.random.Generator, image: np.ndarray, strength: float) -> np.ndarray:
    """Colour cast, exposure, blur and noise; (H, W, 3) uint8."""
    cast = 1 + strength * (rng.normal(0, 0.035, 3) + np.array([0.02, 0.0, -0.05]))
    exposure = 1 + strength * rng.uniform(-0.25, 0.12)
    image = np.clip(image * (cast * exposure).astype(np.float32), 0, None)
    radius = strength * rng.uniform(0.2, 0.7) * min(image.shape[:2]) / 192
    picture = Image.fromarray(_to_bytes(image)).filter(ImageFilter.GaussianBlur(radius))
    image = np.asarray(picture, np.float32) / 255
    level = np.float32(strength * rng.uniform(0.01, 0.03))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * level
    return _to_bytes(image + noise * (0.6 + np.sqrt(image)))


def _sky(rng: np.random.Generator, scene: Scene, image: np.ndarray, strength: float) -> np.ndarray:
    """Paint the sky, which is lighter towards the horizon and has clouds."""
    sky = scene.part == 0
    rows, columns, _ = image.shape
    share = sky.reshape(rows, SUPERSAMPLING, columns, SUPERSAMPLING).mean((1, 3), dtype=np.float32)
    last = int(np.flatnonzero(sky.any(1)).max(initial=0)) // SUPERSAMPLING + 1
    tops = _palette(strength)[0]
    top = tops[int(rng.choice(len(tops), p=(0.5, 0.35, 0.15)))]
    down = np.linspace(0, 1, rows)[:last, None, None] ** 1.2
    colour = top + np.clip(1.6 * down, 0, 1) * (np.array([0.93, 0.95, 0.97]) - top)
    tile = _tile(rng, 8) + 0.5 * _tile(rng, 32)
    across = np.arange(columns) * _TILE // columns
    cloud = tile[(np.arange(last) * 2 * _TILE // rows) % _TILE][:, across]
    crisp = 4 - 2.5 * min(strength, 1)
    cover = np.clip((cloud - 0.1) * crisp, 0, 1)[..., None]
    colour = colour + 0.7 * cover * (0.97 - colour)
    weight = share[:last, :, None]
    image[:last] += weight * (colour - image[:last])
    return image


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
