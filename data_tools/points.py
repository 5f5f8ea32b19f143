"""Places on the globe, out of tables, tracks, GeoJSON and photos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import geopandas as gpd

LAT_COLUMNS = ("lat_deg", "lat", "latitude")
LON_COLUMNS = ("lon_deg", "lon", "lng", "long", "longitude")
NAME_COLUMNS = ("view_id", "id", "name", "image", "file", "filename")
"""Columns of a table of points, in any case; the first that is there counts."""

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")

_GPX_LAYERS = ("waypoints", "route_points", "track_points")


@dataclass(frozen=True, eq=False)
class Points:
    """Places on the globe.

    Args:
        lat_deg: (N,) latitudes.
        lon_deg: (N,) longitudes.
        names: (N,) what to call them; "" where the source does not say.
    """

    lat_deg: np.ndarray
    lon_deg: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        lat_deg = np.asarray(self.lat_deg, dtype=float)
        lon_deg = np.asarray(self.lon_deg, dtype=float)
        if lat_deg.size == 0:
            raise ValueError("There are no points with a position.")
        if not lat_deg.shape == lon_deg.shape == (len(self.names),):
            raise ValueError(
                f"Points need as many latitudes as longitudes and names, got {lat_deg.shape}, "
                f"{lon_deg.shape} and {len(self.names)}."
            )
        require_places(lat_deg, lon_deg)
        object.__setattr__(self, "lat_deg", lat_deg)
        object.__setattr__(self, "lon_deg", lon_deg)

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, which: np.ndarray) -> Points:
        """Those where which, (N,) bool, says so."""
        names = tuple(name for name, wanted in zip(self.names, which, strict=True) if wanted)
        return Points(self.lat_deg[which], self.lon_deg[which], names)


def read_points(path: str | Path) -> Points:
    """Places of a CSV, GPX or GeoJSON file, or of the photos of a folder that say theirs (EXIF).

    A CSV has a header with a latitude and a longitude in degrees (LAT_COLUMNS, LON_COLUMNS).
    Of a GPX all waypoints, route and track points count; of lines in a GeoJSON every corner.

    Raises:
        ValueError: It cannot be read, has no position, or has impossible ones.
    """
    path = Path(path)
    if path.is_dir():
        return _points_of_photos(path)
    if path.suffix.lower() == ".csv":
        return _points_of_csv(path)
    if path.suffix.lower() == ".gpx":
        layers = [read_vectors(path, layer) for layer in _GPX_LAYERS]
        return _points_of_shapes((layer for layer in layers if len(layer)), path)
    return _points_of_shapes([read_vectors(path)], path)


def _points_of_csv(path: Path) -> Points:
    import csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table ({error}).") from error

    def column(names: Sequence[str]) -> str | None:
        return next((header[name] for name in names if name in header), None)

    lat, lon, name = (column(names) for names in (LAT_COLUMNS, LON_COLUMNS, NAME_COLUMNS))
    if lat is None or lon is None:
        raise ValueError(
            f"{path.name} has the columns {', '.join(header) or 'none'}; expected a latitude "
            f"({', '.join(LAT_COLUMNS)}) and a longitude ({', '.join(LON_COLUMNS)}) in degrees."
        )
    numbers = []
    for i, row in enumerate(rows, 2):
        if not (row[lat] or row[lon]):
            continue  # not known
        try:
            numbers.append((float(row[lat]), float(row[lon]), row[name] if name else ""))
        except (TypeError, ValueError):
            message = (
                f"{path.name} row {i}: {row[lat]!r}, {row[lon]!r} is not a position in degrees"
            )
            raise ValueError(message + ", such as 49.2827 and -123.1207.") from None
    return _points(numbers, path)


def _points_of_shapes(layers: Iterable[gpd.GeoDataFrame], path: Path) -> Points:
    import shapely

    numbers = []
    for layer in layers:
        names = next((layer[n] for n in layer.columns if n.lower() in NAME_COLUMNS), None)
        names = [""] * len(layer) if names is None else [str(n) if n else "" for n in names]
        for shape, name in zip(layer.geometry, names, strict=True):
            if shape is not None and shape.geom_type not in ("Polygon", "MultiPolygon"):
                corners = shapely.get_coordinates(shape)
                numbers += [(lat_deg, lon_deg, name) for lon_deg, lat_deg in corners]
    return _points(numbers, path)


def _points_of_photos(folder: Path) -> Points:
    from crossview import photos

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    fixes = [(photos.read_fix(path), path) for path in paths]
    numbers = [
        (fix.lat_deg, fix.lon_deg, path.relative_to(folder).as_posix())
        for fix, path in fixes
        if fix is not None
    ]
    return _points(numbers, folder)


def _points(numbers: Sequence[tuple[float, float, str]], path: Path) -> Points:
    if not numbers:
        raise ValueError(f"{path} holds no points with a position.")
    lat_deg, lon_deg, names = zip(*numbers, strict=True)
    try:
        return Points(np.array(lat_deg), np.array(lon_deg), names)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def read_vectors(path: Path, layer: str | None = None) -> gpd.GeoDataFrame:
    """Features in degrees, longitude first, without those that have no geometry."""
    import geopandas as gpd
    from pyogrio.errors import DataSourceError

    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    try:
        table = gpd.read_file(path, layer=layer, columns=list(NAME_COLUMNS))
    except DataSourceError as error:
        raise ValueError(f"{path.name} cannot be read as GeoJSON or GPX ({error}).") from error
    if "geometry" not in table:
        raise ValueError(f"{path.name} holds no geometries.")
    table = table[~(table.geometry.isna() | table.geometry.is_empty)]
    return table if table.crs is None else table.to_crs("EPSG:4326")


def require_places(lat_deg: np.ndarray, lon_deg: np.ndarray) -> None:
    """Refuse numbers that are no latitudes and longitudes; say so where they look swapped."""
    wrong = ~((np.abs(lat_deg) <= 90) & (np.abs(lon_deg) <= 180))
    if not wrong.any():
        return
    i = int(np.argmax(wrong))
    message = f"Latitude {lat_deg[i]:g} and longitude {lon_deg[i]:g} are no place on the globe"
    if abs(lat_deg[i]) <= 180 and abs(lon_deg[i]) <= 90:
        message += "; they seem to be swapped (GeoJSON and boxes have longitude first)"
    raise ValueError(f"{message}. Expected degrees, latitude -90 to 90, longitude -180 to 180.")
