"""Reading building footprints (GeoJSON, GeoPackage, ...) as map features."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import tags as osm_tags
from crossview.errors import MapError
from crossview.features import Feature, MapFeatures, feature_table, repaired
from crossview.legends import BUILDING
from crossview.tiles import GeoBounds

if TYPE_CHECKING:
    import geopandas

HEIGHT_COLUMNS = ("height", "hauteur", "building:height", "height_m")
"""Columns that hold a height in metres; of several, the first that a row fills."""

GEOJSON_SUFFIXES = (".geojson", ".json")

LEVELS_COLUMNS = ("building:levels", "levels", "num_floors")
"""Columns that hold a number of storeys of 3 m, where no height is known."""

_log = logging.getLogger(__name__)


_BUILDING_LAYERS = ("building", "buildings")


def read_footprints(
    path: str | Path,
    *,
    crs: str | None = None,
    layer: str | None = None,
    height_columns: Sequence[str] = HEIGHT_COLUMNS,
    levels_columns: Sequence[str] = LEVELS_COLUMNS,
) -> MapFeatures:
    """Building footprints from any file that geopandas reads.

    Args:
        path: The file. Every polygon in it is a building; other geometries are left out. A column
            `building` is kept as its tag.
        crs: The file's coordinate system, such as "EPSG:2154", where it does not say. Where both
            say, this argument wins.
        layer: Which layer, where there are several.
        height_columns: Columns with heights in metres (or lengths as OSM writes them), best
            first; the case of their names does not matter.
        levels_columns: Columns with numbers of storeys, 3 m each, best first.

    Returns:
        Features with `surveyed` = {"building"}: a map of footprints does not know of roads. The
        extent is the box around them. Crossing rings are repaired. The attribution is what a
        GeoJSON file says of itself in a member `attribution`, else empty.

    Raises:
        MapError: The file is missing, broken, without polygons, or not where it claims to be.
    """
    import shapely

    path = Path(path)
    frame = _in_degrees(_read(path, layer), crs, path)
    skipped: Counter[str] = Counter()
    is_polygon = shapely.get_dimensions(frame.geometry.to_numpy()) == 2
    skipped["features that are not polygons"] += int((~is_polygon).sum())
    frame = frame[is_polygon].reset_index(drop=True)
    features = _features(frame, _heights_m(frame, height_columns, levels_columns))
    skipped["collapsed areas"] += len(frame) - len(features)
    skipped = +skipped  # without the zeros
    if not features:
        raise MapError(
            f"{path} holds no polygon, and a map of footprints is made of them: "
            f"{sum(skipped.values())} other features."
        )
    if skipped:
        _log.warning("%s: left out: %s.", path, dict(skipped))
    table = feature_table(features)
    return MapFeatures(
        table,
        GeoBounds(*(float(side) for side in table.total_bounds)),
        str(path),
        surveyed=frozenset({BUILDING}),
        skipped=MappingProxyType(dict(skipped)),
        attribution=_attribution(path),
    )


def _features(frame: geopandas.GeoDataFrame, height_m: np.ndarray) -> list[Feature]:
    import shapely

    polygons = repaired(shapely.force_2d(frame.geometry.to_numpy()))
    values = _column(frame, BUILDING) or [None] * len(frame)
    kinds = [text if text not in ("", "no") else "yes" for text in map(_text, values)]
    return [
        Feature("footprint", i, "area", {BUILDING: kinds[i]}, polygon, float(height_m[i]))
        for i, polygon in enumerate(polygons)
        if not polygon.is_empty
    ]


def _read(path: Path, layer: str | None) -> geopandas.GeoDataFrame:
    import geopandas
    import pyogrio
    import shapely

    if not path.is_file():
        raise MapError(f"There is no map file {path}.")
    try:
        frame = geopandas.read_file(path, layer=layer or _building_layer(path))
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise MapError(
            f"{path} cannot be read as building footprints ({error}). Expected GeoJSON, a "
            "GeoPackage or another vector file that GDAL knows; OpenStreetMap files end in .osm, "
            ".osm.gz, .osm.bz2 or .pbf."
        ) from error
    except (ValueError, shapely.errors.ShapelyError) as error:
        raise MapError(f"{path} holds geometries that cannot be read ({error}).") from error
    if not isinstance(frame, geopandas.GeoDataFrame) or len(frame) == 0:
        raise MapError(f"{path} holds no features with a geometry.")
    return frame[~(frame.geometry.isna() | frame.geometry.is_empty)].reset_index(drop=True)


def _attribution(path: Path) -> str:
    """The text of a GeoJSON file's own member `attribution`; empty where there is none."""
    if path.suffix.lower() not in GEOJSON_SUFFIXES:
        return ""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return ""  # GDAL reads more than standard JSON
    attribution = content.get("attribution") if isinstance(content, dict) else None
    return attribution if isinstance(attribution, str) else ""


def _building_layer(path: Path) -> str:
    """The one layer of polygons of a file, or the one that is named for buildings.

    Raises:
        MapError: There are several, and none of them says that it holds buildings.
    """
    import pyogrio

    layers = pyogrio.list_layers(path)
    names = [str(name) for name, kind in layers if kind is None or "Polygon" in str(kind)]
    names = names or [str(name) for name, _ in layers]
    named = [name for name in names if name.lower() in _BUILDING_LAYERS]
    if len(named or names) != 1:
        raise MapError(
            f"{path} has several layers of polygons ({', '.join(names)}) and none of them is named "
            "building or buildings. Name the one with the footprints: layer=, or --map-layer on "
            "the command line."
        )
    return (named or names)[0]


def _in_degrees(
    frame: geopandas.GeoDataFrame, crs: str | None, path: Path
) -> geopandas.GeoDataFrame:
    import pyproj

    if crs is not None:
        try:
            frame = frame.set_crs(crs, allow_override=True)
        except pyproj.exceptions.CRSError as error:
            raise MapError(f"crs={crs!r} is not a coordinate system that PROJ knows.") from error
    if frame.crs is None:
        raise MapError(
            f"{path} does not name its coordinate system. Name it with crs, for example "
            "crs='EPSG:2154' (--map-crs on the command line)."
        )
    located = frame
    if not frame.crs.is_geographic or _are_degrees(frame):
        located = frame.to_crs("EPSG:4326")
    if not _are_degrees(located):
        raise MapError(
            f"{path} says that it is in {frame.crs.name}, where its coordinates (such as "
            f"{_first_position(frame)}) do not exist. Name the right system with crs, for example "
            "crs='EPSG:2154' (--map-crs on the command line)."
        )
    return located


def _are_degrees(frame: geopandas.GeoDataFrame) -> bool:
    west, south, east, north = frame.total_bounds
    return bool(west >= -180 and south >= -90 and east <= 180 and north <= 90)


def _first_position(frame: geopandas.GeoDataFrame) -> tuple[float, float]:
    import shapely

    x, y = shapely.get_coordinates(frame.geometry.to_numpy())[0]
    return round(float(x), 3), round(float(y), 3)


def _heights_m(
    frame: geopandas.GeoDataFrame, height_columns: Sequence[str], levels_columns: Sequence[str]
) -> np.ndarray:
    """Height of each row from the best column that it fills; NaN where it fills none."""
    readers = [(name, osm_tags.length_m) for name in height_columns]
    readers += [(name, osm_tags.height_of_levels_m) for name in levels_columns]
    height_m = np.full(len(frame), np.nan)
    for name, read in readers:
        values = _column(frame, name)
        if values is not None:
            in_column = [osm_tags.plausible_height_m(read(_text(value))) for value in values]
            height_m = np.where(np.isnan(height_m), in_column, height_m)
    return height_m


def _column(frame: geopandas.GeoDataFrame, name: str) -> list[Any] | None:
    """Values of a column, whatever the case of its name; None where there is none."""
    for column in frame.columns:
        if str(column).lower() == name.lower() and column != frame.geometry.name:
            return list(frame[column])
    return None


def _text(value: Any) -> str:
    """A cell as text; empty where nothing is known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()
