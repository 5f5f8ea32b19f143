"""Imagery from above, wherever it lies: tiles of a pyramid or one raster file, cut onto grids."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from crossview import rasters, tiles
from crossview.errors import MapError, MapOutsideError
from crossview.grids import MapGrid
from crossview.rasters import SatelliteTile
from crossview.tiles import EARTH_RADIUS_M, TileId
from data_tools import pmtiles
from data_tools.tile_store import TileStore

if TYPE_CHECKING:
    import rasterio

TILE_FORMATS = ("PNG", "JPEG", "WEBP")
CACHED_TILES = 256
"""Decoded tiles that are kept for the next crop: 64 MB of 256 pixels."""

EDGE_PX = 3
"""Pixels around a grid that its outermost cells may need, besides those that they cover."""

_EDGE_POINTS = 17
_PNG_START = b"\x89PNG"
_LOSSLESS_WEBP = b"VP8L"
_VECTOR_FORMATS = ("pbf", "mvt", "application/vnd.mapbox-vector-tile")


@dataclass(frozen=True)
class Origin:
    """Where imagery comes from, and what must be said of it.

    Args:
        provider: Name of the provider, or of the file.
        attribution: Who must be named beside the image.
        terms_url: Where the terms of use are.
        date: When it was taken, as the source says it; "" where it does not.
    """

    provider: str
    attribution: str = ""
    terms_url: str = ""
    date: str = ""


class Imagery(Protocol):
    """Anything that can show the ground on a grid."""

    origin: Origin

    def on(self, grid: MapGrid) -> SatelliteTile:
        """The imagery on a grid; nothing is covered where there is none."""


class TileSource(Protocol):
    """Where the bytes of tiles are."""

    def get(self, tile: TileId) -> bytes | None:
        """A tile as the server sent it, or None where there is none."""


# ---------------------------------------------------------------- a raster file


class FileImagery:
    """A GeoTIFF, COG, VRT or anything else that GDAL reads.

    Args:
        path: The file; its tags say where it comes from.

    Raises:
        MapError: It cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.origin = _origin_of_file(self.path)

    def on(self, grid: MapGrid) -> SatelliteTile:
        """The image on a grid (see rasters.read_geotiff)."""
        origin = self.origin
        try:
            return rasters.read_geotiff(
                self.path, grid, attribution=origin.attribution, date=origin.date or None
            )
        except MapOutsideError:
            return _nothing(grid, origin)


def _origin_of_file(path: Path) -> Origin:
    import rasterio
    from rasterio.errors import RasterioError

    if not path.is_file():
        raise MapError(f"There is no file {path}.")
    try:
        with rasterio.open(path) as source:
            tags = source.tags()
    except RasterioError as error:
        raise MapError(f"{path} cannot be read as an image ({error}).") from error
    return Origin(
        provider=tags.get("PROVIDER", path.name),
        attribution=tags.get("ATTRIBUTION", tags.get("TIFFTAG_COPYRIGHT", "")),
        terms_url=tags.get("TERMS_URL", ""),
        date=tags.get("DATE", ""),
    )


# ---------------------------------------------------------------- tiles


class TileImagery:
    """Tiles of one zoom.

    Args:
        source: Their bytes.
        zoom: Which of its zooms.
        origin: Of the imagery.
        tile_px: Side of a tile.
    """

    def __init__(self, source: TileSource, zoom: int, origin: Origin, tile_px: int = 256) -> None:
        self.source = source
        self.zoom = zoom
        self.origin = origin
        self.tile_px = tile_px
        self._cached = functools.lru_cache(maxsize=CACHED_TILES)(self._decoded)

    def pixels(self, x: int, y: int) -> np.ndarray | None:
        """A tile, (rows, cols, 4) uint8 RGBA, or None where there is none."""
        return self._cached(x, y)

    def on(self, grid: MapGrid) -> SatelliteTile:
        """The tiles on a grid, in true metres; they may lie on both sides of the antimeridian."""
        x, y = (axis * self.tile_px for axis in self._positions(grid))
        margin = self._margin_px(grid)
        left, top = (math.floor(axis.min() - margin) for axis in (x, y))
        right, bottom = (math.ceil(axis.max() + margin) for axis in (x, y))
        image = self._window(left, top, right, bottom)
        if not image[..., 3].any():
            return _nothing(grid, self.origin)
        with self._opened(image, left, top, grid.frame.lon_deg) as (source, crs):
            try:
                return rasters.tile_of(
                    source,
                    grid,
                    crs=crs,
                    attribution=self.origin.attribution,
                    date=self.origin.date or None,
                )
            except MapOutsideError:
                return _nothing(grid, self.origin)

    def _decoded(self, x: int, y: int) -> np.ndarray | None:
        body = self.source.get(TileId(self.zoom, x, y))
        return None if body is None else decoded_tile(body, self.tile_px)

    def _positions(self, grid: MapGrid) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the grid's border in tiles; x counts on beyond the antimeridian."""
        along = np.linspace(0.0, 1.0, _EDGE_POINTS)
        zero, one = np.zeros_like(along), np.ones_like(along)
        col = np.concatenate([along, along, zero, one]) * grid.width
        row = np.concatenate([zero, one, along, along]) * grid.height
        lat_deg, lon_deg = grid.frame.to_geodetic(*grid.to_xy(col, row))
        _, y = tiles.position(lat_deg, np.zeros_like(lat_deg), self.zoom)
        turned_deg = (lon_deg - grid.frame.lon_deg + 180.0) % 360.0 - 180.0 + grid.frame.lon_deg
        return (turned_deg + 180.0) / 360.0 * 2**self.zoom, y

    def _margin_px(self, grid: MapGrid) -> float:
        """Where a cell is larger than a pixel, it averages over as many."""
        across_m, _ = tiles.resolution_m(grid.frame.lat_deg, self.zoom, tile_px=self.tile_px)
        return EDGE_PX * max(1.0, grid.cell_m / float(across_m))

    def _window(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        """Pixels of the whole zoom from left and top on, transparent where there is no tile."""
        side, num_tiles = self.tile_px, 2**self.zoom
        first_x, first_y = left // side, top // side
        last_x, last_y = -(-right // side), -(-bottom // side)
        image = np.zeros(((last_y - first_y) * side, (last_x - first_x) * side, 4), np.uint8)
        for y in range(max(first_y, 0), min(last_y, num_tiles)):
            for x in range(first_x, last_x):
                pixels = self.pixels(x % num_tiles, y)
                if pixels is not None:
                    row, col = (y - first_y) * side, (x - first_x) * side
                    image[row : row + side, col : col + side] = pixels
        row, col = top - first_y * side, left - first_x * side
        return image[row : row + bottom - top, col : col + right - left]

    @contextlib.contextmanager
    def _opened(
        self, image: np.ndarray, left: int, top: int, lon_deg: float
    ) -> Iterator[tuple[rasterio.DatasetReader, rasterio.CRS]]:
        """A window of pixels as a dataset, and its system: Web Mercator with its seam far away."""
        import rasterio
        from affine import Affine
        from rasterio.enums import ColorInterp
        from rasterio.io import MemoryFile

        world_m = 2 * math.pi * EARTH_RADIUS_M
        pixel_m = world_m / 2**self.zoom / self.tile_px
        left_m = left * pixel_m - world_m * (lon_deg + 180.0) / 360.0
        transform = Affine(pixel_m, 0, left_m, 0, -pixel_m, world_m / 2 - top * pixel_m)
        crs = rasterio.CRS.from_string(
            f"+proj=merc +a={EARTH_RADIUS_M!r} +b={EARTH_RADIUS_M!r} +lat_ts=0 +lon_0={lon_deg!r} "
            "+x_0=0 +y_0=0 +k=1 +units=m +nadgrids=@null +no_defs"
        )
        rows, cols, _ = image.shape
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "height": rows,
            "width": cols,
            "count": 4,
            "dtype": "uint8",
            "transform": transform,
            "photometric": "RGB",
            "interleave": "band",
        }
        with MemoryFile() as memory:
            # without the system: GDAL takes 9 ms to write one that is not in its database
            with memory.open(**profile) as target:
                target.colorinterp = (
                    ColorInterp.red,
                    ColorInterp.green,
                    ColorInterp.blue,
                    ColorInterp.alpha,
                )
                target.write(np.moveaxis(image, -1, 0))
            with memory.open() as source:
                yield source, crs


def decoded_tile(body: bytes, tile_px: int) -> np.ndarray:
    """A tile's pixels, (rows, cols, 4) uint8 RGBA.

    Raises:
        MapError: It is no image, or one of another size.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(body), formats=TILE_FORMATS) as image:
            if image.size != (tile_px, tile_px):
                raise MapError(
                    f"A tile has {image.size[0]} x {image.size[1]} pixels, expected {tile_px} x "
                    f"{tile_px}. Say so with --tile-px {image.size[0]}."
                )
            return np.asarray(image.convert("RGBA"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, MapError):
            raise
        raise MapError(f"A tile is no image of {', '.join(TILE_FORMATS)} ({error}).") from error


def is_lossless(body: bytes) -> bool:
    """Whether a tile's format keeps every pixel as its maker had it."""
    return body.startswith(_PNG_START) or _LOSSLESS_WEBP in body[:64]


def _nothing(grid: MapGrid, origin: Origin) -> SatelliteTile:
    return SatelliteTile(
        grid,
        np.zeros((*grid.shape, 3), np.uint8),
        np.zeros(grid.shape, bool),
        origin.attribution,
        origin.date or None,
    )


# ---------------------------------------------------------------- archives of tiles


@contextlib.contextmanager
def open_archive(
    path: str | Path,
    *,
    zoom: int | None = None,
    tile_px: int | None = None,
) -> Iterator[TileImagery]:
    """The tiles of an MBTiles or PMTiles file, read where they lie.

    Args:
        path: The file.
        zoom: Which of its zooms; by default the largest.
        tile_px: Side of a tile; by default 256, or what a store of ours says.

    Raises:
        MapError: It is neither, holds vector tiles, or does not have the zoom.
        StoreError: It is no MBTiles file.
    """
    path = Path(path)
    if path.suffix.lower() == pmtiles.SUFFIX:
        archive = pmtiles.open_archive(path)
        said = Origin(archive.name or path.name, archive.attribution, date=archive.date)
        zooms = archive.min_zoom, archive.max_zoom
        _require_pictures(archive.tile_type, path)
        with path.open("rb") as file:
            zoom = _zoom_within(zooms, zoom, path)
            source = _PmtilesSource(file, archive)
            yield TileImagery(source, zoom, said, tile_px or 256)
        return
    with TileStore(path) as store:
        metadata = store.metadata
        _require_pictures(metadata.get("format", ""), path)
        said = Origin(
            metadata.get("name") or path.name,
            metadata.get("attribution", ""),
            metadata.get("terms_url", ""),
            metadata.get("date", ""),
        )
        zooms = int(metadata.get("minzoom", 0)), int(metadata.get("maxzoom", tiles.MAX_ZOOM))
        zoom = _zoom_within(zooms, zoom, path)
        yield TileImagery(store, zoom, said, tile_px or store.tile_px)


@dataclass(frozen=True, eq=False)
class _PmtilesSource:
    file: BinaryIO
    archive: pmtiles.Archive
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, tile: TileId) -> bytes | None:
        with self.lock, pmtiles.explained(self.archive.path):
            return pmtiles.read_tile(self.file, self.archive, *tile)


def _zoom_within(zooms: tuple[int, int], zoom: int | None, path: Path) -> int:
    zoom = zooms[1] if zoom is None else zoom
    if not zooms[0] <= zoom <= zooms[1]:
        raise MapError(f"{path.name} has the zooms {zooms[0]} to {zooms[1]}, not {zoom}.")
    return zoom


def _require_pictures(tile_format: str, path: Path) -> None:
    if tile_format.lower() in _VECTOR_FORMATS:
        raise MapError(
            f"{path.name} holds vector tiles, and imagery needs pictures. crossview-data osm reads "
            "vector tiles."
        )
