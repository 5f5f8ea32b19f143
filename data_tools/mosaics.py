"""Tiles joined into one Cloud Optimized GeoTIFF, block by block."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import atomic
from crossview.tiles import EARTH_RADIUS_M, TileId
from data_tools.areas import TileCover
from data_tools.imagery import Origin, TileImagery, decoded_tile, is_lossless

if TYPE_CHECKING:
    import rasterio

CACHE_MEGABYTES = 128
"""What GDAL may keep in memory, whatever the area's size."""

JPEG_QUALITY = 95
"""Of a mosaic of tiles that were lossy already; the store keeps their own bytes."""

MAX_EMPTY_TILES = 1_000_000
"""Between the tiles of one mosaic: overviews are made of them too."""

_GTIFF_BLOCK_STEP_PX = 16
_TILES_TAG = "TILES"


@dataclass(frozen=True)
class Mosaic:
    """What was written.

    Args:
        path: The file; None where too few tiles were there, and nothing was written.
        width_px: Columns.
        height_px: Rows.
        num_tiles: That were there.
        num_missing: Tiles of the cover that were not; they are transparent.
        is_lossless: Whether every pixel is that of its tile.
    """

    path: Path | None
    width_px: int
    height_px: int
    num_tiles: int
    num_missing: int
    is_lossless: bool


def write_mosaic(
    imagery: TileImagery,
    cover: TileCover,
    path: str | Path,
    *,
    min_tiles: int = 1,
    progress: Callable[[int], None] = lambda num_tiles: None,  # noqa: ARG005
) -> Mosaic:
    """Join tiles into a COG in EPSG:3857: red, green, blue, and alpha 0 where there is no tile.

    Pixels are those of the tiles where all of these are lossless (PNG, lossless WebP), else JPEG
    of quality JPEG_QUALITY. The tags PROVIDER, ATTRIBUTION, TERMS_URL, DATE and ZOOM say where they
    come from, TILES how many they are. The file appears whole or not at all, and memory does not
    grow with the area.

    Args:
        imagery: The tiles.
        cover: Which of them, at the imagery's zoom; not on both sides of the antimeridian.
        path: The file to write.
        min_tiles: Write nothing where fewer are there; a mosaic of none is never written.
        progress: Called with the number of tiles after each row of them.

    Raises:
        ValueError: The tiles lie too far apart (see require_dense).
    """
    import rasterio
    import rasterio.shutil

    require_dense(cover)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES),
        tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder,
    ):
        draft = Path(folder) / "draft.tif"
        with _draft(draft, imagery, cover) as target:
            num_tiles, lossless = _write_tiles(target, imagery, cover, progress)
            target.update_tags(**_tags(imagery.origin, cover.zoom), **{_TILES_TAG: num_tiles})
            height_px, width_px = target.shape
        is_enough = num_tiles >= max(1, min_tiles)
        if is_enough:
            with atomic.replacing(path) as temporary:
                rasterio.shutil.copy(draft, temporary, driver="COG", **_compression(lossless))
    missing = cover.num_tiles - num_tiles
    return Mosaic(path if is_enough else None, width_px, height_px, num_tiles, missing, lossless)


def num_tiles_of(path: str | Path) -> int:
    """How many tiles a mosaic of ours was made of; 0 of anything else, or where there is none."""
    import rasterio
    from rasterio.errors import RasterioError

    if not Path(path).is_file():
        return 0
    try:
        with rasterio.open(path) as source:
            return int(source.tags().get(_TILES_TAG, 0))
    except (RasterioError, ValueError):
        return 0


def require_dense(cover: TileCover) -> None:
    """Refuse tiles so far apart that their mosaic would be all but empty.

    Raises:
        ValueError: They are, as those of points in two cities.
    """
    left, right, top, bottom = _window(cover)
    num_empty = (right - left) * (bottom - top) - cover.num_tiles
    if num_empty > max(MAX_EMPTY_TILES, 20 * cover.num_tiles):
        raise ValueError(
            f"A mosaic of {cover.num_tiles:,} tiles would have {num_empty:,} empty ones between "
            "them. Make one for each town, or crops (--crop-m)."
        )


@contextlib.contextmanager
def _draft(
    path: Path, imagery: TileImagery, cover: TileCover
) -> Iterator[rasterio.io.DatasetWriter]:
    """A GeoTIFF whose blocks are the tiles: a COG can only be made of a whole file."""
    import rasterio
    from affine import Affine
    from rasterio.enums import ColorInterp

    side = imagery.tile_px
    left, right, top, bottom = _window(cover)
    world_m = 2 * math.pi * EARTH_RADIUS_M
    tile_m = world_m / 2**cover.zoom
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": 4,
        "dtype": "uint8",
        "width": (right - left) * side,
        "height": (bottom - top) * side,
        "crs": "EPSG:3857",
        "transform": Affine(
            tile_m / side, 0, left * tile_m - world_m / 2,
            0, -tile_m / side, world_m / 2 - top * tile_m,
        ),
        "compress": "deflate",
        "zlevel": 1,
        "photometric": "RGB",
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
    }  # fmt: skip
    if side % _GTIFF_BLOCK_STEP_PX == 0:
        profile |= {"tiled": True, "blockxsize": side, "blockysize": side}
    with rasterio.open(path, "w", **profile) as target:
        target.colorinterp = (
            ColorInterp.red,
            ColorInterp.green,
            ColorInterp.blue,
            ColorInterp.alpha,
        )
        yield target


def _write_tiles(
    target: rasterio.io.DatasetWriter,
    imagery: TileImagery,
    cover: TileCover,
    progress: Callable[[int], None],
) -> tuple[int, bool]:
    """How many tiles there were, and whether all were lossless."""
    from rasterio.windows import Window

    side = imagery.tile_px
    left, _, top, _ = _window(cover)
    num_tiles, lossless = 0, True
    for row, first, last in zip(cover.row, cover.first, cover.last, strict=True):
        for column in range(first, last + 1):
            body = imagery.source.get(TileId(cover.zoom, column, int(row)))
            if body is None:
                continue
            window = Window((column - left) * side, (row - top) * side, side, side)
            target.write(np.moveaxis(decoded_tile(body, side), -1, 0), window=window)
            num_tiles += 1
            lossless &= is_lossless(body)
        progress(int(last - first + 1))
    return num_tiles, lossless


def _window(cover: TileCover) -> tuple[int, int, int, int]:
    """Columns and rows of tiles, left to right and top to bottom; the ends are not included."""
    return (
        int(cover.first.min()),
        int(cover.last.max()) + 1,
        int(cover.row.min()),
        int(cover.row.max()) + 1,
    )


def _tags(origin: Origin, zoom: int) -> dict[str, str]:
    tags = {
        "PROVIDER": origin.provider,
        "ATTRIBUTION": origin.attribution,
        "TIFFTAG_COPYRIGHT": origin.attribution,
        "TERMS_URL": origin.terms_url,
        "DATE": origin.date,
        "ZOOM": str(zoom),
        "AREA_OR_POINT": "Area",
    }
    return {name: value for name, value in tags.items() if value}


def _compression(lossless: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bigtiff": "IF_SAFER",
        "overview_resampling": "average",
        "sparse_ok": True,
        "num_threads": "ALL_CPUS",
    }
    if lossless:
        return {**options, "compress": "deflate", "predictor": "yes"}
    return {**options, "compress": "jpeg", "quality": JPEG_QUALITY}
