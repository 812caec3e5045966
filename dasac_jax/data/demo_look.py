"""The two looks: how the parts of one scene turn into a picture.

The game's look is flat shading in clean, saturated colours. The real look moves the colours of
every material, adds textures, haze that grows with depth, uneven light, blur and sensor noise. Its
`strength` scales all of these together.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from dasac_jax.data.demo_draw import MATERIAL_INDEX, MATERIALS, SUPERSAMPLING, Scene

SHIFT = 1.0  # strength of the real look; 0 keeps the game's colours and adds nothing

# Colours per material: (game, real). A part's tint picks one of a material's colours; both looks
# have as many, so that strength can move one into the other.
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
    "coach": ("e8c030 d84830 e8e8e8 3878c8", "b09038 953d30 b6b4ae 3d5c86"),
    "tram": ("d83030 e8d8a0 30a070", "92302c b0a47e 33684e"),
    "cargo": ("f0f0ec 4878c0 d07030 90a0a8", "b8b6b0 42587c 8f5a38 727a7e"),
    "tyre": ("282a2e", "1f1f1f"),
    "headlight": ("fffbe8", "d2d0c4"),
    "taillight": ("e82020", "a02522"),
    "cycle": ("2858c8 d03030 282c30 d0d4d8", "34466e 803030 26282a 8c8e90"),
    "bonnet": ("303848 902830", "24272b 24272b"),
    "bin": ("408058 707880", "374f42 4b4f52"),
}  # fmt: skip

# How strongly the real look's patterns show on a material: grain, stains, bricks, clumps of leaves.
_TEXTURE = {
    "road": (0.30, 0.30, 0, 0), "marking": (0.35, 0.35, 0, 0), "sidewalk": (0.22, 0.25, 0.35, 0),
    "curb": (0.25, 0.2, 0, 0), "terrain": (0.35, 0.3, 0, 0.35), "plaster": (0.10, 0.35, 0, 0),
    "brick": (0.18, 0.2, 0.6, 0), "concrete": (0.15, 0.35, 0.1, 0), "roof": (0.2, 0.2, 0.4, 0),
    "wall": (0.25, 0.35, 0.5, 0), "fence": (0.25, 0.25, 0, 0), "leaf": (0.45, 0.1, 0, 0.6),
    "trunk": (0.4, 0.2, 0, 0), "glass": (0.05, 0.7, 0, 0.2), "cloth": (0.12, 0.35, 0, 0),
    "trousers": (0.12, 0.3, 0, 0), "paint": (0.03, 0.35, 0, 0.1), "coach": (0.03, 0.3, 0, 0),
    "tram": (0.03, 0.3, 0, 0), "cargo": (0.05, 0.3, 0, 0), "sky": (0, 0, 0, 0),
}  # fmt: skip
_TILE = 256


def game_look(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """(H, W, 3) uint8: flat shading, clean colours, hard shadows."""
    colours = _linear_table(scene, 0.0)
    image = _shrink(colours[scene.part] * _shadowed(scene, 0.55)[..., None])
    image = _sky(image, scene, rng, 0.0)
    return _to_bytes(image * rng.uniform(0.92, 1.06))


def real_look(
    rng: np.random.Generator, scene: Scene, strength: float = SHIFT
) -> np.ndarray:
    """(H, W, 3) uint8: duller colours, textures, haze, vignette, blur and noise."""
    colours = _linear_table(scene, strength)
    image = _shrink(colours[scene.part] * _shadowed(scene, 0.5)[..., None])
    image = _sky(image, scene, rng, strength)
    part, inverse, x, y = _native(scene)
    image = image * _texture(rng, scene, part, inverse, strength)[..., None]
    haze = 1 - np.exp(-strength * rng.uniform(0.002, 0.007) / np.maximum(inverse, 1 / 200))
    veil = np.array([0.72, 0.75, 0.78]) * rng.uniform(0.85, 1.1)
    image += (haze * (scene.material[part] != 0))[..., None] * (veil - image)
    image *= 1 - 0.35 * strength * ((x**2 + y**2) / (x**2 + y**2).max())[..., None]
    cast = 1 + strength * (rng.normal(0, 0.05, 3) + np.array([0.02, 0.0, -0.05]))
    exposure = 1 + strength * rng.uniform(-0.3, 0.05)
    image = np.clip(image * cast * exposure, 0, None)
    radius = strength * rng.uniform(0.2, 0.7) * min(image.shape[:2]) / 192
    picture = Image.fromarray(_to_bytes(image)).filter(ImageFilter.GaussianBlur(radius))
    image = np.asarray(picture, np.float32) / 255
    level = strength * rng.uniform(0.015, 0.04)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * level
    return _to_bytes(image + noise * (0.6 + np.sqrt(image)))


def _palette(strength: float) -> list[np.ndarray]:
    """Per material (K, 3) colours in [0, 1] between the game's and the real ones."""

    def parse(text: str) -> np.ndarray:
        return np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in text.split()]) / 255

    mixed = []
    for name in MATERIALS:
        game, real = (parse(text) for text in _COLOURS[name])
        mixed.append(np.clip(game + strength * (real - game), 0.02, 1))
    return mixed


def _linear_table(scene: Scene, strength: float) -> np.ndarray:
    """(P, 3) colour of every part, light included."""
    palette = _palette(strength)
    table = np.empty((len(scene.material), 3), np.float32)
    for index, (material, tint, light) in enumerate(
        zip(scene.material, scene.tint, scene.light, strict=True)
    ):
        colours = palette[material]
        shade = (tint * 7919) % 1.0  # parts of one colour still differ a little
        colour = colours[min(int(tint * len(colours)), len(colours) - 1)]
        table[index] = colour * light * (0.9 + 0.2 * shade)
    return table


def _shadowed(scene: Scene, depth: float) -> np.ndarray:
    ground = scene.plane[:, 2] > 0
    return 1 - depth * scene.shadow * ground[scene.part]


def _shrink(image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape[0] // SUPERSAMPLING, image.shape[1] // SUPERSAMPLING
    return image.reshape(rows, SUPERSAMPLING, columns, SUPERSAMPLING, 3).mean((1, 3))


def _native(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Part, inverse depth (1/m) and position from the principal point (px) of each final pixel."""
    part = scene.part[::SUPERSAMPLING, ::SUPERSAMPLING]
    rows, columns = part.shape
    x = (np.arange(columns, dtype=np.float32) * SUPERSAMPLING - scene.camera.centre_x)[None, :]
    y = (np.arange(rows, dtype=np.float32) * SUPERSAMPLING - scene.camera.horizon_y)[:, None]
    plane = scene.plane[part]
    return part, plane[..., 0] + plane[..., 1] * x + plane[..., 2] * y, x, y


def _tile(rng: np.random.Generator, coarse: int) -> np.ndarray:
    """A tileable smooth noise picture in [-1, 1]."""
    cells = rng.random((coarse, coarse), dtype=np.float32)
    image = Image.fromarray(np.pad(cells, 2, mode="wrap"))
    step = _TILE // coarse
    grown = image.resize(((coarse + 4) * step,) * 2, Image.Resampling.BICUBIC)
    return np.asarray(grown)[2 * step : 2 * step + _TILE, 2 * step : 2 * step + _TILE] * 2 - 1


def _texture(
    rng: np.random.Generator, scene: Scene, part: np.ndarray, inverse: np.ndarray, strength: float
) -> np.ndarray:
    """(H, W) factor around 1: grain, stains, bricks and leaf clumps fixed to the surfaces."""
    _, _, x, y = _native(scene)
    depth = 1 / np.maximum(inverse, 1 / 300)
    beside = (scene.plane[:, 1] != 0)[part]
    ground = (scene.plane[:, 2] > 0)[part]
    scale = depth / scene.camera.focal
    u = np.where(beside, depth, x * scale)
    v = np.where(ground, depth, y * scale)
    amplitude = np.zeros((len(MATERIALS), 4), np.float32)
    for name, values in _TEXTURE.items():
        amplitude[MATERIAL_INDEX[name]] = values
    grain, stain, brick, clump = np.moveaxis(amplitude[scene.material[part]], -1, 0)
    shift = scene.tint[part] * 997

    def look_up(tile: np.ndarray, per_metre: float) -> np.ndarray:
        rows = ((v + shift) * per_metre).astype(np.int64) % _TILE
        columns = ((u + shift) * per_metre).astype(np.int64) % _TILE
        return tile[rows, columns]

    fine, broad = _tile(rng, 128), _tile(rng, 32)
    course = np.floor(v / 0.3)
    joints = ((v / 0.3) % 1 < 0.22) | ((u / 0.7 + 0.5 * course) % 1 < 0.14)
    near = np.clip(1.2 - depth / 40, 0.15, 1)  # bricks and grain blur out with distance
    pattern = (
        grain * near * look_up(fine, 30)
        + stain * look_up(broad, 9)
        - brick * near * (joints - 0.3)
        + clump * look_up(fine, 9)
    )
    return np.clip(1 + strength * pattern, 0.2, 2.2)


def _sky(
    image: np.ndarray, scene: Scene, rng: np.random.Generator, strength: float
) -> np.ndarray:
    """Paints the sky: lighter towards the horizon, with clouds."""
    part = scene.part[::SUPERSAMPLING, ::SUPERSAMPLING]
    rows, columns = part.shape
    up = np.linspace(1, 0, rows)[:, None] ** 1.2
    tops = _palette(strength)[0]
    top = tops[int(rng.choice(len(tops), p=(0.5, 0.35, 0.15)))]
    colour = top + (1 - up)[..., None] * (np.array([0.93, 0.95, 0.97]) - top)
    tile = _tile(rng, 8) + 0.5 * _tile(rng, 32)
    across = (np.arange(columns) * _TILE // columns) % _TILE
    cloud = tile[(np.arange(rows) * 2 * _TILE // rows) % _TILE][:, across]
    cover = np.clip((cloud - 0.1) * (4 if strength < 0.5 else 1.5), 0, 1)[..., None]
    colour = colour + 0.7 * cover * (0.97 - colour)
    sky = _coverage(scene)[..., None]
    return image * (1 - sky) + sky * colour


def _coverage(scene: Scene) -> np.ndarray:
    """(H, W) share of each final pixel that is sky."""
    rows, columns = (size // SUPERSAMPLING for size in scene.part.shape)
    blocks = (scene.part == 0).reshape(rows, SUPERSAMPLING, columns, SUPERSAMPLING)
    return blocks.mean((1, 3), dtype=np.float32)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
