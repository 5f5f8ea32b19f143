"""From what rays hit to a picture: light, shadows and patterns for one appearance."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from crossview.synthetic import substances
from crossview.synthetic.appearance import Appearance
from crossview.synthetic.light import SHADOWS_FROM_DEG, SUN, Light
from crossview.synthetic.materials import MATERIALS
from crossview.synthetic.tracing import Fan, Index, Picture, kernels

_NEAR_SHADOW = (0.25, 256)
_FAR_SHADOW = (1.0, 160)
"""Cells in metres, and their number along a side, of the two maps of shadows around a camera.
Movers are drawn into the near one only."""

_MAP_MARGIN_M = 4.0
_LAMP_CELLS = 256
_NOISE_SEED = 20
_NUM_TONES = 4096
_HAZE_UP_M = 400.0
"""Air above the ground, in metres at the ground's density; a satellite is not sent into fog."""

_HAZE_SHARE = 1 / 40
"""Of the visibility: the most air that a satellite sees through."""

# Linear colours of leaves: of the least and the most coloured tree
_LEAVES = {
    "spring": ((0.10, 0.20, 0.035), (0.17, 0.26, 0.05)),
    "summer": ((0.045, 0.105, 0.025), (0.095, 0.165, 0.035)),
    "autumn": ((0.12, 0.15, 0.03), (0.42, 0.15, 0.02)),
    "winter": ((0.13, 0.10, 0.08), (0.17, 0.14, 0.11)),
}
_GRASS = {
    "spring": (0.085, 0.18, 0.04),
    "summer": (0.10, 0.155, 0.045),
    "autumn": (0.145, 0.15, 0.055),
    "winter": (0.16, 0.15, 0.085),
}
_SODIUM, _WINDOW = (1.0, 0.62, 0.25), (1.0, 0.72, 0.38)
_BARE = 0.75
_GREENS = {"grass": 1.0, "hedge": 0.5, "soil": 0.4}
"""What changes with the season, and how strongly."""


class Shadows(NamedTuple):
    """Where the sun and lamps do and do not shine.

    Args:
        lean: How far from the sun's direction's foot shadows fall per metre of height, (2,).
        cells: Metres of the cells of two maps, fine and coarse, (2,).
        corners: West and north of both, (2, 2).
        tops: Highest points on the sun's rays through the cells' centres, two of (rows, columns)
            float64; 0 where nothing casts a shadow.
        lamps: Light of lamps on the ground, cells of 1 m, (rows, columns) float32.
        lamp_corner: West and north of it, (2,).
    """

    lean: np.ndarray
    cells: np.ndarray
    corners: np.ndarray
    tops: tuple[np.ndarray, np.ndarray]
    lamps: np.ndarray
    lamp_corner: np.ndarray


class Look(NamedTuple):
    """The rest of what the kernels need to know.

    Args:
        noise: A pyramid of noise, float32.
        seed: Of the colours of things.
        paint: As of Appearance; also texture, snow and wetness.
        texture: See there.
        snow: See there.
        wetness: See there.
        bareness: Of broad-leaved trees, 0 to 1.
        colors: Linear: light under a lamp, of a lit window, leaves of the least and of the most
            coloured tree, (4, 3).
        pixel: Radians, or metres per metre.
        fog_m: Metres of air along a level or vertical line of sight that ends nowhere.
        shops: Whether shop fronts are drawn.
    """

    noise: np.ndarray
    seed: int
    paint: float
    texture: float
    snow: float
    wetness: float
    bareness: float
    colors: np.ndarray
    pixel: float
    fog_m: float
    shops: bool


def photo_rgb(
    indices: Sequence[Index], fan: Fan, picture: Picture, appearance: Appearance, *,
    pixel_rad: float, shape: tuple[int, int], wraps: bool,
) -> np.ndarray:  # fmt: skip
    """The picture of what a camera's rays hit, (rows, cols, 3) uint8.

    Args:
        indices: What the rays were cast into.
        fan: The rays.
        picture: What they hit.
        appearance: The moment.
        pixel_rad: What a pixel sees, radians.
        shape: Rows and columns of the image.
        wraps: Whether the last column is beside the first.
    """
    x_m, y_m = fan.eyes[0, :2].tolist()
    light = Light.of(appearance)
    shadows = _shadows(
        indices, appearance, light, [(x_m, y_m, *_NEAR_SHADOW), (x_m, y_m, *_FAR_SHADOW)]
    )
    linear = _linear(picture)
    _kernels().shade_fan(
        fan, picture, _substances(appearance), light, shadows,
        _look(appearance, light, pixel_rad, fog_m=60.0), linear,
    )  # fmt: skip
    return _developed(linear.reshape(*shape, 3), appearance, light, wraps=wraps)


def map_rgb(
    indices: Sequence[Index], lean: np.ndarray, view: np.ndarray, picture: Picture,
    appearance: Appearance,
) -> np.ndarray:  # fmt: skip
    """The picture of what parallel rays hit, (rows, cols, 3) uint8.

    Args:
        indices: What the rays were cast into.
        lean: As of tracing.drape, (2,).
        view: West, north and cell of the map, (3,).
        picture: What they hit.
        appearance: The moment.
    """
    rows, cols = picture.along.shape
    west, north, cell_m = view.tolist()
    light = Light.of(appearance)
    half_m = max(rows, cols) * cell_m / 2 + _MAP_MARGIN_M
    middle = west + cols * cell_m / 2, north - rows * cell_m / 2
    # sunbeams that end on a roof would go on to the ground beyond the map
    reach_m = 30.0 * float(np.abs(_sun_lean(appearance)).max())
    shadow_m = max(cell_m, 0.25)
    fine = *middle, shadow_m, int(np.ceil(2 * half_m / shadow_m))
    coarse = *middle, 1.0, int(np.ceil(2 * (half_m + reach_m)))
    shadows = _shadows(indices, appearance, light, [fine, coarse])
    linear = _linear(picture)
    air_m = min(_HAZE_UP_M, appearance.visibility_m * _HAZE_SHARE)
    _kernels().shade_draped(
        lean, view, picture, _substances(appearance), light, shadows,
        _look(appearance, light, cell_m, fog_m=air_m), linear,
    )  # fmt: skip
    return _developed(linear, appearance, light, wraps=False)


@functools.cache
def _kernels() -> Any:
    kernels()  # says what to install where the compiler is missing
    from crossview.synthetic import shade_kernels

    return shade_kernels


def _sun_lean(appearance: Appearance) -> np.ndarray:
    """East and north displacement of shadows per metre of height."""
    elevation = np.deg2rad(max(appearance.sun_elevation_deg, SHADOWS_FROM_DEG))
    azimuth = np.deg2rad(appearance.sun_azimuth_deg)
    return -np.array([np.sin(azimuth), np.cos(azimuth)]) / np.tan(elevation)


def _shadows(
    indices: Sequence[Index],
    appearance: Appearance,
    light: Light,
    maps: Sequence[tuple[float, float, float, int]],
) -> Shadows:
    """Maps of shadows: middle x and y, cell, and number of cells along a side, fine one first."""
    lean = _sun_lean(appearance)
    casts = light.colors[SUN].max() > 1e-3 and appearance.sun_elevation_deg >= SHADOWS_FROM_DEG
    corners = np.array([[x - n * cell / 2, y + n * cell / 2] for x, y, cell, n in maps])
    tops = []
    for k, ((_, _, cell, size), corner) in enumerate(zip(maps, corners, strict=True)):
        view, picture = np.array([*corner, cell]), _scratch(k, size if casts else 2)
        picture.along[:] = 0.0
        for index in indices[: 1 if k else None] if casts else ():
            kernels().drape(lean, view, index.things, 0, picture)
        tops.append(picture.along)
    lamps, lamp_corner = np.zeros((2, 2), np.float32), np.zeros(2)
    if light.night > 0:
        x, y, _, _ = maps[0]
        lamps = np.zeros((_LAMP_CELLS, _LAMP_CELLS), np.float32)
        lamp_corner = np.array([x - _LAMP_CELLS / 2, y + _LAMP_CELLS / 2])
        for index in indices:
            _kernels().light_lamps(index.lamps_m, lamp_corner, lamps)
    cells = np.array([cell for _, _, cell, _ in maps])
    return Shadows(lean, cells, corners, (tops[0], tops[1]), lamps, lamp_corner)


_MEMORY = threading.local()


def _scratch(number: int, size: int) -> Picture:
    """A picture to be used and forgotten: fresh memory costs as much as drawing into it."""
    kept: dict[int, Picture] = _MEMORY.__dict__.setdefault("pictures", {})
    if number not in kept or len(kept[number].along) != size:
        kept[number] = Picture.blank(size, size)
    return kept[number]


def _linear(picture: Picture) -> np.ndarray:
    """Memory for linear colours, likewise."""
    shape = (*picture.along.shape, 3)
    if getattr(_MEMORY, "linear", np.empty(0)).shape != shape:
        _MEMORY.linear = np.empty(shape, np.float32)
    return _MEMORY.linear


def _substances(appearance: Appearance) -> substances.Table:
    """The materials with the season's greens."""
    return _seasonal(appearance.season)


@functools.cache
def _seasonal(season: str) -> substances.Table:
    table = substances.table()
    albedos = table.albedos.copy()
    change = np.array(_GRASS[season]) / np.array(_GRASS["summer"])
    for name, strength in _GREENS.items():
        albedos[MATERIALS.index(name)] *= change**strength
    return table._replace(albedos=albedos)


def _look(appearance: Appearance, light: Light, pixel: float, *, fog_m: float) -> Look:
    low, high = _LEAVES[appearance.season]
    bright = 1.1 / light.gain
    lamp, window = np.array(_SODIUM) * 0.8 * bright, np.array(_WINDOW) * bright
    most = np.array(low) + appearance.paint * (np.array(high) - np.array(low))
    return Look(
        _noise_pyramid(), appearance.world_seed, appearance.paint, appearance.texture,
        appearance.snow, appearance.wetness, _BARE if appearance.season == "winter" else 0.0,
        np.array([lamp, window, low, most]), pixel, fog_m, True,
    )  # fmt: skip


@functools.cache
def _noise_pyramid() -> np.ndarray:
    """Noise of deviation 1 that repeats itself, and its halved copies, level after level."""
    size = _kernels().NOISE_SIZE
    noise = np.random.default_rng(_NOISE_SEED).standard_normal((size, size))
    levels = [noise]
    while len(noise) > 1:
        noise = noise.reshape(len(noise) // 2, 2, len(noise) // 2, 2).mean(axis=(1, 3))
        levels.append(noise)
    return np.concatenate([level.ravel() for level in levels]).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _tones(contrast: float) -> np.ndarray:
    """8-bit levels by the square root of light, 0 to 2: sRGB with soft highlights."""
    value = np.linspace(0, 2, _NUM_TONES) ** 2
    value = 0.18 * (value / 0.18) ** contrast
    # linear up to the knee, then bending to 1
    knee = 0.6
    bent = knee + (1 - knee) * (1 - np.exp(-(value - knee) / (1 - knee)))
    value = np.where(value < knee, value, bent)
    srgb = np.where(value < 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
    return (255 * srgb).astype(np.float32)


def _developed(
    linear: np.ndarray, appearance: Appearance, light: Light, *, wraps: bool
) -> np.ndarray:
    rgb = np.empty(linear.shape, np.uint8)
    _kernels().develop(
        linear,
        light.gain * np.array(appearance.color_cast),
        appearance.saturation,
        appearance.blur,
        appearance.noise_levels,
        appearance.noise_seed,
        _tones(round(appearance.contrast, 3)),
        wraps,
        rgb,
    )
    return rgb if appearance.jpeg_quality is None else _through_jpeg(rgb, appearance.jpeg_quality)


def _through_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """What is left of a picture after it was compressed."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rgb).save(file, format="JPEG", quality=quality)
    with Image.open(file) as image:
        return np.array(image)
