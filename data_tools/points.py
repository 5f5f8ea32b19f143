"""Places on the globe, out of tables, tracks, GeoJSON and photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import geopandas as gpd

LAT_COLUMNS = ("lat_deg", "lat", "latitude")
LON_COLUMNS = ("lon_deg", "lon", "lng", "long", "longitude")
NAME_COLUMNS = ("view_id", "id", "name", "image", "file", "filename")
"""Columns of a table of points, in any case; the first that is there counts."""

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")

_GPX_LAYERS = {
    "waypoints": "waypoint",
    "route_points": "route point",
    "track_points": "track point",
}
"""Layers, and what one of their features is called."""


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
        ValueError: It cannot be read, has no position, or an impossible one; the message names its
            row, feature or photo.
    """
    path = Path(path)
    if path.is_dir():
        return _points_of_photos(path)
    if path.suffix.lower() == ".csv":
        return _points_of_csv(path)
    if path.suffix.lower() == ".gpx":
        layers = {what: read_vectors(path, layer) for layer, what in _GPX_LAYERS.items()}
        return _points_of_shapes({what: x for what, x in layers.items() if len(x)}, path)
    return _points_of_shapes({"feature": read_vectors(path)}, path)


def _points_of_csv(path: Path) -> Points:
    import csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table ({error}).") from error
    header = [name.strip().lower() for name in lines[0]] if lines else []

    def column(names: Sequence[str]) -> int | None:
        return next((header.index(name) for name in names if name in header), None)

    lat, lon, name = (column(names) for names in (LAT_COLUMNS, LON_COLUMNS, NAME_COLUMNS))
    if lat is None or lon is None:
        raise ValueError(
            f"{path.name} has the columns {', '.join(header) or 'none'}; expected a latitude "
            f"({', '.join(LAT_COLUMNS)}) and a longitude ({', '.join(LON_COLUMNS)}) in degrees."
        )
    found = []
    for row, cells in enumerate(lines[1:], 2):
        # cells that are left out at the end are empty
        given = dict(enumerate(cells))
        texts = given.get(lat, ""), given.get(lon, "")
        if not any(texts):
            continue  # not known
        place = f"{path.name} row {row}"
        try:
            lat_deg, lon_deg = map(float, texts)
        except ValueError:
            raise ValueError(
                f"{place}: {texts[0]!r}, {texts[1]!r} is not a position in degrees, such as "
                "49.2827 and -123.1207."
            ) from None
        found.append(_Place(lat_deg, lon_deg, "" if name is None else given.get(name, ""), place))
    return _points(found, path)


def _points_of_shapes(layers: Mapping[str, gpd.GeoDataFrame], path: Path) -> Points:
    """Places of layers, by what a feature of each is called."""
    import shapely

    found = []
    for what, layer in layers.items():
        names = next((layer[n] for n in layer.columns if n.lower() in NAME_COLUMNS), None)
        names = [""] * len(layer) if names is None else [str(n) if n else "" for n in names]
        for number, shape, name in zip(layer.index + 1, layer.geometry, names, strict=True):
            if shape.geom_type not in ("Polygon", "MultiPolygon"):
                place = f"{path.name} {what} {number}"
                corners = shapely.get_coordinates(shape).tolist()
                found += [_Place(lat_deg, lon_deg, name, place) for lon_deg, lat_deg in corners]
    return _points(found, path)


def _points_of_photos(folder: Path) -> Points:
    from crossview import photos

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    found = []
    for path in paths:
        fix, name = photos.read_fix(path), path.relative_to(folder).as_posix()
        if fix is not None:
            found.append(_Place(fix.lat_deg, fix.lon_deg, name, name))
    return _points(found, folder)


class _Place(NamedTuple):
    """A place, and where in a file it is, for messages."""

    lat_deg: float
    lon_deg: float
    name: str
    where: str


def _points(found: Sequence[_Place], path: Path) -> Points:
    if not found:
        raise ValueError(f"{path} holds no points with a position.")
    lat_deg, lon_deg, names, _ = zip(*found, strict=True)
    positions = np.array(lat_deg), np.array(lon_deg)
    for i in np.flatnonzero(~_is_on_globe(*positions))[:1]:
        try:
            require_places(*(axis[i : i + 1] for axis in positions))
        except ValueError as error:
            raise ValueError(f"{found[i].where}: {error}") from error
    return Points(*positions, names)


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
    wrong = ~_is_on_globe(lat_deg, lon_deg)
    if not wrong.any():
        return
    i = int(np.argmax(wrong))
    message = f"Latitude {lat_deg[i]:g} and longitude {lon_deg[i]:g} are no place on the globe"
    if abs(lat_deg[i]) <= 180 and abs(lon_deg[i]) <= 90:
        message += "; they seem to be swapped (GeoJSON and boxes have longitude first)"
    raise ValueError(f"{message}. Expected degrees, latitude -90 to 90, longitude -180 to 180.")


def _is_on_globe(lat_deg: np.ndarray, lon_deg: np.ndarray) -> np.ndarray:
    return (np.abs(lat_deg) <= 90) & (np.abs(lon_deg) <= 180)
