"""Made-up tiles: a pattern on the ground that every pixel of every zoom can be computed from."""

import io
import math

import numpy as np
from PIL import Image

from crossview import tiles

WORLD_M = 2 * math.pi * tiles.EARTH_RADIUS_M
TILE_PX = 256


def noise_tile(tile, *, seed=0):
    """(rows, cols, 3) uint8 that no other tile has."""
    rng = np.random.default_rng([seed, *tile])
    return rng.integers(0, 256, (TILE_PX, TILE_PX, 3), dtype=np.uint8)


def position_tile(tile):
    """(rows, cols, 3) uint8: a pattern that shows where on the globe a pixel is."""
    zoom, x, y = tile
    centers = (np.arange(TILE_PX) + 0.5) / TILE_PX
    lat_deg, _ = tiles.geodetic(0 * centers, y + centers, zoom)
    _, lon_deg = tiles.geodetic(x + centers, 0 * centers, zoom)
    colors = position_colors(*np.meshgrid(lat_deg, lon_deg, indexing="ij"))
    return colors.round().astype(np.uint8)


def position_colors(lat_deg, lon_deg):
    """What position_tile shows at places, before rounding: waves of 0.0004 degrees, some 40 m.

    They are oblique, so that rounding differs from pixel to pixel and averages out.
    """
    across, up = (np.deg2rad(angle / 0.0004 * 360.0) for angle in (lon_deg, lat_deg))
    phases = np.stack([across + 0.37 * up, up - 0.37 * across, across + up], axis=-1)
    return 127.5 + 120 * np.sin(phases)


def encoded(pixels, suffix="PNG", **options):
    """Bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix, **options)
    return buffer.getvalue()


class Tiles:
    """A TileSource in memory.

    Args:
        make: From a tile to its pixels.
        without: Tiles that it does not have.
        encode: From pixels to bytes.
    """

    def __init__(self, make, *, without=(), encode=encoded):
        self.make, self.without, self.encode = make, set(without), encode
        self.asked = []

    def get(self, tile):
        self.asked.append(tile)
        return None if tile in self.without else self.encode(self.make(tile))
