"""Rasters: maps and imagery as cells of a MapGrid, and reading imagery from GeoTIFF files."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import legends
from crossview.errors import GridMismatchError, MapError, MapOutsideError
from crossview.grids import MapGrid, place_of
from crossview.legends import Legend
from crossview.tiles import GeoBounds

if TYPE_CHECKING:
    import rasterio

RESAMPLINGS = ("bilinear", "nearest")

STRETCH_PERCENTILES = (2.0, 98.0)
"""Share of a file's values that become black and white where they do not fit 8 bits."""

POSITION_TOLERANCE_PX = 0.01
"""How far interpolating the map projection may be off: GDAL's default is an eighth of a pixel."""

_SAMPLE_SIDE_PX = 1024
"""A file's values are judged on at most this many rows and columns."""


@dataclass(frozen=True, eq=False)
class MapRaster:
    """A map drawn on a grid: up to three classes per cell.

    Args:
        grid: The cells.
        classes: (rows, cols, 3) uint8, channels areas, ways and points; a class is its index in
            the legend's list + 1, and 0 is void. Read-only, like the other arrays.
        legend_id: Which classes those are.
        covered: (rows, cols) bool, whether the map knows the cell at all. Elsewhere void is not
            "nothing there".
        surveyed: Classes whose absence in a covered cell means that there is nothing. A map of
            buildings only has `{"building"}`.
        building_height_m: (rows, cols) float32, NaN where a building's height is not known and 0
            where no building stands.
    """

    grid: MapGrid
    classes: np.ndarray
    legend_id: str
    covered: np.ndarray
    surveyed: frozenset[str]
    building_height_m: np.ndarray

    def __post_init__(self) -> None:
        legend = legends.legend(self.legend_id)
        _require(self.classes, (*self.grid.shape, 3), np.uint8, "classes")
        _require(self.covered, self.grid.shape, np.bool_, "covered")
        _require(self.building_height_m, self.grid.shape, np.float32, "building_height_m")
        for channel, names in enumerate((legend.areas, legend.ways, legend.points)):
            largest = int(self.classes[..., channel].max())
            if largest > len(names):
                raise ValueError(
                    f"Channel {legends.CHANNELS[channel]!r} holds class {largest}, and legend "
                    f"{self.legend_id!r} has {len(names)} there. Was it drawn with another legend?"
                )
        object.__setattr__(self, "surveyed", known_classes(legend, self.surveyed))
        if np.any(self.building_height_m < 0) or np.any(np.isinf(self.building_height_m)):
            raise ValueError("building_height_m must be finite and 0 or more, or NaN.")
        for name in ("classes", "covered", "building_height_m"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    @property
    def legend(self) -> Legend:
        """What the classes are."""
        return legends.legend(self.legend_id)

    def class_mask(self, name: str) -> np.ndarray:
        """Where a class is, (rows, cols) bool.

        Raises:
            ValueError: The legend has no such class.
        """
        channel, class_id = self.legend.find(name)
        return self.classes[..., channel] == class_id

    def knows(self, name: str) -> np.ndarray:
        """Where the map says whether there is such a class, (rows, cols) bool.

        In cells that it does not cover, and where nobody looked for the class, void is not
        "nothing there".
        """
        return self.covered & (self.class_mask(name) | (name in self.surveyed))

    def cut(self, grid: MapGrid) -> MapRaster:
        """The part of the map on a smaller grid of the same cells.

        Raises:
            GridMismatchError: The grid is not made of cells of this map.
        """
        row, col = place_of(grid, self.grid)
        part = slice(row, row + grid.height), slice(col, col + grid.width)
        return replace(
            self,
            grid=grid,
            classes=self.classes[part],
            covered=self.covered[part],
            building_height_m=self.building_height_m[part],
        )

    def coarsened(self, parts: int) -> MapRaster:
        """The map in cells of `parts` times the side.

        A cell is a building where at least half of it is, of the greatest height in it; else it has
        the classes next to its centre. It is covered where all of it is.
        """
        height, width = (size // parts for size in self.grid.shape)
        grid = replace(self.grid, cell_m=self.grid.cell_m * parts, height=height, width=width)

        def blocks(image: np.ndarray) -> np.ndarray:
            """(rows, cols, parts * parts) of the cells that become one."""
            cut = image[: height * parts, : width * parts]
            cut = cut.reshape(height, parts, width, parts).swapaxes(1, 2)
            return cut.reshape(height, width, parts * parts)

        is_building = blocks(self.class_mask(legends.BUILDING)).mean(axis=2) >= 0.5
        classes = self.classes[parts // 2 :: parts, parts // 2 :: parts][:height, :width].copy()
        channel, building = self.legend.find(legends.BUILDING)
        areas = classes[..., channel]
        areas[(areas == building) & ~is_building] = 0
        areas[is_building] = building
        top_m = blocks(self.building_height_m).max(axis=2)
        return replace(
            self,
            grid=grid,
            classes=classes,
            covered=np.asarray(blocks(self.covered).all(axis=2)),
            building_height_m=np.where(is_building, top_m, 0).astype(np.float32),
        )

    def without_heights(self) -> MapRaster:
        """The same map, as if nobody had measured its buildings."""
        height_m = np.where(self.building_height_m == 0, 0.0, np.nan).astype(np.float32)
        return replace(self, building_height_m=height_m)


@dataclass(frozen=True, eq=False)
class SatelliteTile:
    """An image of the ground from above, on a grid.

    Args:
        grid: The cells.
        rgb: (rows, cols, 3) uint8, 0 where not covered. Read-only, like covered.
        covered: (rows, cols) bool, where the image shows anything.
        attribution: Who must be named beside it.
        date: When it was taken, as its source says it.
    """

    grid: MapGrid
    rgb: np.ndarray
    covered: np.ndarray
    attribution: str = ""
    date: str | None = None

    def __post_init__(self) -> None:
        _require(self.rgb, (*self.grid.shape, 3), np.uint8, "rgb")
        _require(self.covered, self.grid.shape, np.bool_, "covered")
        for name in ("rgb", "covered"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))


def known_classes(legend: Legend, names: frozenset[str]) -> frozenset[str]:
    """The names, after a check that the legend has them all."""
    unknown = frozenset(names) - legend.names
    if unknown:
        raise ValueError(
            f"surveyed names {', '.join(sorted(unknown))}, which legend {legend.legend_id!r} "
            f"does not have. It has: {', '.join(sorted(legend.names))}."
        )
    return frozenset(names)


def read_geotiff(
    path: str | Path,
    grid: MapGrid,
    *,
    resampling: str = "bilinear",
    value_range: tuple[float, float] | None = None,
    crs: str | None = None,
    attribution: str = "",
    date: str | None = None,
) -> SatelliteTile:
    """An orthophoto or satellite image, warped onto a grid.

    A file in the frame's own system on the same cells comes back unchanged. One band becomes
    grey and a palette its colours. Values of more than 8 bits are stretched linearly so that
    `value_range` becomes 0..255; the default is the 2nd to 98th percentile of the *file's* valid
    pixels, so that every window of one file is stretched alike. 8-bit values are kept.

    Args:
        path: GeoTIFF, or anything else that GDAL reads.
        grid: Where the image is wanted.
        resampling: "bilinear" (which also averages where the file is finer than the grid) or
            "nearest".
        value_range: Darkest and brightest value where the file has more than 8 bits.
        crs: The file's coordinate system, such as "EPSG:2154", where it does not say.
        attribution: Who must be named beside the image.
        date: When it was taken.

    Returns:
        The tile. covered is False outside of the file and where nodata, an alpha band or a mask
        says so, and where a value is not a finite number.

    Raises:
        MapError: The file is missing, broken or without a place on the ground.
        MapOutsideError: It does not overlap the grid.
    """
    with _open(path) as source:
        _require_place(source, crs, path)
        return tile_of(
            source,
            grid,
            resampling=resampling,
            value_range=value_range,
            crs=crs,
            attribution=attribution,
            date=date,
        )


def tile_of(
    source: rasterio.DatasetReader,
    grid: MapGrid,
    *,
    resampling: str = "bilinear",
    value_range: tuple[float, float] | None = None,
    crs: str | rasterio.CRS | None = None,
    attribution: str = "",
    date: str | None = None,
) -> SatelliteTile:
    """An open image, warped onto a grid, as read_geotiff does it.

    Raises:
        MapOutsideError: It does not overlap the grid.
    """
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    if resampling not in RESAMPLINGS:
        raise ValueError(f"resampling must be one of {RESAMPLINGS}, got {resampling!r}.")
    bands = _colour_bands(source)
    palette = _palette(source, bands)
    method = "nearest" if palette is not None else resampling
    with WarpedVRT(
        source,
        src_crs=crs or source.crs,
        crs=rasterio.CRS.from_wkt(grid.frame.crs.to_wkt()),
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling[method],
        tolerance=POSITION_TOLERANCE_PX,
        add_alpha=_alpha_band(source) is None,
    ) as warped:
        values = np.moveaxis(warped.read(bands), 0, -1)
        covered = warped.read(_alpha_band(source) or warped.count) > 0
        covered &= np.isfinite(values).all(axis=-1)
    if not covered.any():
        raise MapOutsideError(
            f"{source.name} covers {_geographic_bounds(source, crs)} and the grid {grid.bounds} of "
            f"{grid.frame} lies outside of it. Choose an image of the place, or check that "
            "latitude and longitude are not swapped."
        )
    rgb = _eight_bits(values, source, bands, value_range) if palette is None else palette[values]
    rgb = np.broadcast_to(rgb.reshape(*grid.shape, -1), (*grid.shape, 3))
    return SatelliteTile(grid, np.where(covered[..., None], rgb, 0), covered, attribution, date)


def _require(array: Any, shape: tuple[int, ...], dtype: type[np.generic], name: str) -> None:
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
        got = (
            f"{array.shape} {array.dtype}"
            if isinstance(array, np.ndarray)
            else type(array).__name__
        )
        raise GridMismatchError(
            f"{name} must be an array of shape {shape} and dtype {np.dtype(dtype)} to lie on its "
            f"grid, got {got}."
        )


def _read_only(array: np.ndarray) -> np.ndarray:
    """The array itself where nobody can write to it, else a copy that nobody can."""
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[rasterio.DatasetReader]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    if not Path(path).is_file():
        raise MapError(f"There is no file {path}.")
    try:
        with warnings.catch_warnings():
            # said better, and as an error, by _require_place
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                yield source
    except RasterioError as error:
        raise MapError(
            f"{path} cannot be read as an image with a place on the ground ({error}). Expected a "
            "complete GeoTIFF, or another raster that GDAL knows."
        ) from error


def _require_place(source: rasterio.DatasetReader, crs: str | None, path: str | Path) -> None:
    if source.transform.is_identity:
        raise MapError(
            f"{path} does not say where it lies: it has no geotransform. Expected a GeoTIFF, or an "
            "image with a world file beside it."
        )
    if crs is None and source.crs is None:
        raise MapError(
            f"{path} does not name its coordinate system. Name it with crs, for example "
            "crs='EPSG:25832'."
        )


def _colour_bands(source: rasterio.DatasetReader) -> list[int]:
    """Numbers of the red, green and blue band, or of the one grey band."""
    from rasterio.enums import ColorInterp

    meanings = source.colorinterp
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in meanings for colour in colours):
        return [meanings.index(colour) + 1 for colour in colours]
    bands = [i + 1 for i, meaning in enumerate(meanings) if meaning != ColorInterp.alpha]
    return bands[:3] if len(bands) >= 3 else bands[:1]


def _palette(source: rasterio.DatasetReader, bands: list[int]) -> np.ndarray | None:
    """Colours of the values, (256, 3) uint8, where the file has such a table."""
    from rasterio.enums import ColorInterp

    if source.colorinterp[bands[0] - 1] != ColorInterp.palette or source.dtypes[0] != "uint8":
        return None
    table = np.zeros((256, 3), np.uint8)
    for value, colour in source.colormap(bands[0]).items():
        table[value] = colour[:3]
    return table


def _alpha_band(source: rasterio.DatasetReader) -> int | None:
    """Number of the alpha band, which need not be the last; None where there is none."""
    from rasterio.enums import ColorInterp

    meanings = source.colorinterp
    return meanings.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in meanings else None


def _eight_bits(
    values: np.ndarray,
    source: rasterio.DatasetReader,
    bands: list[int],
    value_range: tuple[float, float] | None,
) -> np.ndarray:
    if values.dtype == np.uint8 and value_range is None:
        return values
    low, high = _value_range(source, bands) if value_range is None else value_range
    scaled = (values.astype(float) - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8)


def _value_range(source: rasterio.DatasetReader, bands: list[int]) -> tuple[float, float]:
    shrink = max(1.0, max(source.shape) / _SAMPLE_SIDE_PX)
    rows, cols = (max(1, round(side / shrink)) for side in source.shape)
    sample = source.read(bands, out_shape=(len(bands), rows, cols), masked=True).compressed()
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(sample, STRETCH_PERCENTILES)
    return float(low), float(high)


def _geographic_bounds(source: rasterio.DatasetReader, crs: str | rasterio.CRS | None) -> GeoBounds:
    from rasterio.warp import transform

    rows, cols = source.shape
    corners = np.meshgrid(np.linspace(0, cols, 3), np.linspace(0, rows, 3))
    col, row = (position.ravel() for position in corners)
    a, b, c, d, e, f = source.transform[:6]
    lon_deg, lat_deg = transform(
        crs or source.crs, "EPSG:4326", a * col + b * row + c, d * col + e * row + f
    )
    return GeoBounds(min(lon_deg), min(lat_deg), max(lon_deg), max(lat_deg))
