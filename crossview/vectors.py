"""Maps made of features: drawn on any grid, and asked for their buildings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import geopackages, legends, osm
from crossview.errors import MapError, MapOutsideError, OutOfRegionError
from crossview.features import MapFeatures, bounds_text, repaired
from crossview.footprints import read_footprints
from crossview.frames import MAX_DISTANCE_M, LocalFrame
from crossview.grids import MapGrid
from crossview.legends import BUILDING, CHANNELS, Legend
from crossview.rasters import MapRaster, known_classes
from crossview.tiles import GeoBounds

if TYPE_CHECKING:
    import geopandas

MAX_FRAMES = 4
"""Frames for which a map keeps its features in metres."""

_Shape = list[dict[str, Any]]
"""The parts of a drawing, as GeoJSON in pixels."""

_REGION_CORNERS = 256
_REGION_SHRINK = 0.9999
"""The region's polygon stays inside of the circle that a frame allows, rounding included."""


@dataclass(frozen=True, eq=False)
class _Drawings:
    """What the features leave on a raster, one row per mark: which feature, and as what."""

    feature: np.ndarray
    channel: np.ndarray
    class_id: np.ndarray
    shape: np.ndarray
    width_m: np.ndarray
    is_building: np.ndarray

    def only(self, kept: np.ndarray) -> _Drawings:
        """Some of the rows."""
        return _Drawings(**{name: values[kept] for name, values in vars(self).items()})


@dataclass(frozen=True, eq=False)
class _LocalMap:
    """The drawings in the metres of one frame, an index of where they are, and what is unmapped."""

    drawings: _Drawings
    geometry: np.ndarray
    tree: Any
    unmapped: Any


class VectorMap:
    """A map source: features that are drawn on whatever grid is asked for.

    A window of a grid is drawn exactly like the same cells of the whole grid. Features farther
    from a frame's anchor than a frame allows are cut off there.

    Args:
        features: What a map file holds.
        legend: Which classes to draw.
        surveyed: Classes whose absence means absence. Default: what the features say (footprints
            know buildings only), else every class of the legend.
        extent: The box that the features map completely, where the caller knows better than the
            file.

    Raises:
        ValueError: The legend does not exist, or does not have a surveyed class.
    """

    def __init__(
        self,
        features: MapFeatures,
        *,
        legend: str | Legend = "crossview",
        surveyed: Iterable[str] | None = None,
        extent: GeoBounds | None = None,
    ) -> None:
        import shapely

        self.legend = legends.legend(legend) if isinstance(legend, str) else legend
        if surveyed is None:
            surveyed = self.legend.names if features.surveyed is None else features.surveyed
        self.surveyed = known_classes(self.legend, frozenset(surveyed))
        self.bounds_geo = features.extent if extent is None else extent
        self.features = features
        self.attribution = features.attribution
        # asked for with every window, and a table is slow to take rows from
        self._height_m = features.table["height_m"].to_numpy(float)
        self._is_part = np.array([_is_part(tags) for tags in features.table["tags"]], bool)
        kind, self._geometry = _of_legend(features, self.legend)
        self._drawings = _drawings(kind, features, self.legend)
        self._tree = shapely.STRtree(self._geometry)
        self._local_maps: dict[LocalFrame, _LocalMap] = {}

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        legend: str | Legend = "crossview",
        crs: str | None = None,
        layer: str | None = None,
        surveyed: Iterable[str] | None = None,
        extent: GeoBounds | None = None,
    ) -> VectorMap:
        """The map in a file: OpenStreetMap by its suffix, a GeoPackage of ours, else footprints.

        Args:
            path: The file.
            legend: Which classes to draw.
            crs: Coordinate system of footprints whose file does not say.
            layer: Which layer of a file with several holds the footprints.
            surveyed: Classes whose absence means absence; see the class.
            extent: The box that the file maps completely; see the class.

        Raises:
            MapError: The file is missing, broken or empty.
        """
        reader = _reader(path)
        if reader is not None:
            if crs is not None or layer is not None:
                raise MapError(
                    f"{path} is OpenStreetMap data or a map of crossview, in degrees and with all "
                    "layers in use: leave out crs and layer (--map-crs, --map-layer)."
                )
            features = reader(path)
        else:
            features = read_footprints(path, crs=crs, layer=layer)
        return cls(features, legend=legend, surveyed=surveyed, extent=extent)

    def __call__(self, grid: MapGrid) -> MapRaster:
        """The map on a grid.

        Raises:
            MapError: The map does not reach the grid.
            OutOfRegionError: The grid leaves the region of its frame.
        """
        import shapely

        covered = self._covered(grid)
        local = self._local_map(grid.frame)
        if local.unmapped is not None and shapely.intersects(local.unmapped, _box(grid)):
            covered &= self._mapped(local.unmapped, grid)
        near = np.sort(local.tree.query(_box(grid, margin_m=grid.cell_m)))
        drawings = local.drawings.only(near)
        geometry, row = _in_pixels(local.geometry[near], grid), np.arange(len(near))
        if self.legend.fills_edges:
            geometry, row = _with_edges(geometry, drawings.shape, row)
        shapes = _shapes(geometry, len(near), row)
        classes = np.zeros((*grid.shape, len(CHANNELS)), np.uint8)
        for channel in range(len(CHANNELS)):
            # the first class of the list wins, so it is drawn last
            order = np.argsort(-drawings.class_id.astype(int), kind="stable")
            order = order[drawings.channel[order] == channel]
            classes[..., channel] = _burned(
                grid, [shapes[i] for i in order.tolist()], drawings.class_id[order], np.uint8
            )
        return MapRaster(
            grid,
            classes,
            self.legend.legend_id,
            covered,
            self.surveyed,
            self._building_height_m(grid, drawings, shapes),
        )

    def buildings(self, grid: MapGrid) -> geopandas.GeoDataFrame:
        """The buildings that touch a grid, whole, in the metres of its frame.

        Returns:
            A GeoDataFrame with `geometry` (polygons with holes), `height_m` (NaN where not
            known), `min_height_m` (0 where the walls stand on the ground), `is_part` (a part of
            another building, mapped for its height), `osm_type` and `osm_id`.
        """
        import geopandas

        local = self._local_map(grid.frame)
        near = np.sort(local.tree.query(_box(grid), predicate="intersects"))
        near = near[local.drawings.is_building[near]]
        rows = self.features.table.iloc[local.drawings.feature[near]]
        columns = {
            name: rows[name].to_numpy()
            for name in ("osm_type", "osm_id", "height_m", "min_height_m")
        }
        return geopandas.GeoDataFrame(
            {**columns, "is_part": [_is_part(tags) for tags in rows["tags"]]},
            geometry=local.geometry[near],
            crs=grid.frame.crs,
        )

    def _covered(self, grid: MapGrid) -> np.ndarray:
        """Which cells have their centre in the map's extent."""
        reach_m = max(math.hypot(x_m, y_m) for x_m in grid.bounds[::2] for y_m in grid.bounds[1::2])
        if reach_m > MAX_DISTANCE_M:
            raise OutOfRegionError(
                f"The grid reaches {reach_m / 1000:.0f} km from the anchor of {grid.frame}, and a "
                f"frame serves {MAX_DISTANCE_M / 1000:.0f} km. Make a LocalFrame near the place."
            )
        x_m, y_m = grid.centers()
        rim_x_m = np.concatenate([x_m, x_m, np.full_like(y_m, x_m[0]), np.full_like(y_m, x_m[-1])])
        rim_y_m = np.concatenate([np.full_like(x_m, y_m[0]), np.full_like(x_m, y_m[-1]), y_m, y_m])
        # latitude and longitude are extreme on the rim, so most grids need no more than that
        if self._holds(grid.frame, rim_x_m, rim_y_m).all():
            return np.ones(grid.shape, bool)
        covered = self._holds(grid.frame, *np.meshgrid(x_m, y_m))
        if not covered.any():
            lat_deg, lon_deg = grid.frame.to_geodetic(rim_x_m, rim_y_m)
            place = GeoBounds(lon_deg.min(), lat_deg.min(), lon_deg.max(), lat_deg.max())
            raise MapOutsideError(
                f"The map {self.features.source} covers {bounds_text(self.bounds_geo)}, and the "
                f"grid {bounds_text(place)} lies outside of it. Use a map of the place, or check "
                "that latitude and longitude are not swapped."
            )
        return covered

    def _mapped(self, unmapped: Any, grid: MapGrid) -> np.ndarray:
        """Which cells do not have their centre in what is unmapped."""
        (shape,) = _shapes(_in_pixels(np.array([unmapped]), grid), 1)
        is_mapped = _burned(grid, [shape], np.ones(1, int), np.uint8) == 0
        if not is_mapped.any():
            raise MapOutsideError(
                f"The map {self.features.source} does not cover the grid: it says that it was cut "
                "out along a border, and the grid lies beyond. Use a map of the place."
            )
        return is_mapped

    def _holds(self, frame: LocalFrame, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
        lat_deg, lon_deg = frame.to_geodetic(x_m, y_m)
        west, south, east, north = self.bounds_geo
        return (lon_deg >= west) & (lon_deg <= east) & (lat_deg >= south) & (lat_deg <= north)

    def _local_map(self, frame: LocalFrame) -> _LocalMap:
        if frame not in self._local_maps:
            while len(self._local_maps) >= MAX_FRAMES:
                del self._local_maps[next(iter(self._local_maps))]
            self._local_maps[frame] = self._made_local(frame)
        return self._local_maps[frame]

    def _made_local(self, frame: LocalFrame) -> _LocalMap:
        import shapely

        geometry, reached = _cut_to_region(self._geometry, self._tree, frame)
        drawings = self._drawings.only(reached[self._drawings.feature])

        def to_local(lon_lat_deg: np.ndarray) -> np.ndarray:
            x_m, y_m = frame.to_local(lon_lat_deg[:, 1], lon_lat_deg[:, 0])
            return np.column_stack([x_m, y_m])

        geometry[reached] = shapely.transform(geometry[reached], to_local)
        shapes = _shaped(geometry[drawings.feature], drawings)
        unmapped = self.features.unmapped
        if unmapped is not None:
            unmapped = shapely.transform(shapely.intersection(unmapped, _region(frame)), to_local)
        return _LocalMap(drawings, shapes, shapely.STRtree(shapes), unmapped)

    def _building_height_m(
        self, grid: MapGrid, drawings: _Drawings, shapes: Sequence[_Shape]
    ) -> np.ndarray:
        """Height of the tallest building in each cell; parts know better than the whole."""
        rows = np.flatnonzero(drawings.is_building)
        feature = drawings.feature[rows]
        height_m, is_part = self._height_m[feature], self._is_part[feature]
        is_known = ~np.isnan(height_m)
        # drawn last wins: a part over a whole, a known height over an unknown, the taller
        order = np.lexsort((np.nan_to_num(height_m), is_known, is_part & is_known))
        rows, height_m = rows[order], height_m[order]
        numbers = np.arange(1, len(rows) + 1)
        burned = _burned(grid, [shapes[i] for i in rows.tolist()], numbers, np.int32)
        return np.concatenate([[0.0], height_m]).astype(np.float32)[burned]


def _burned(
    grid: MapGrid, shapes: Sequence[_Shape], values: np.ndarray, dtype: type[np.generic]
) -> np.ndarray:
    """Cells with the value of the last shape that takes them, else 0."""
    from affine import Affine
    from rasterio import features as rasterio_features

    valued = zip(shapes, values.tolist(), strict=True)
    parts = [(part, value) for shape, value in valued for part in shape]
    if not parts:
        return np.zeros(grid.shape, dtype)
    return rasterio_features.rasterize(
        parts, out_shape=grid.shape, transform=Affine.identity(), dtype=np.dtype(dtype).name
    )


def _reader(path: str | Path) -> Callable[[str | Path], MapFeatures] | None:
    """Who reads a file that needs no options; None for footprints."""
    if str(path).lower().endswith(osm.SUFFIXES):
        return osm.read_osm
    if str(path).lower().endswith(geopackages.SUFFIX) and geopackages.map_facts(path) is not None:
        return geopackages.read_geopackage
    return None


def _of_legend(features: MapFeatures, legend: Legend) -> tuple[np.ndarray, np.ndarray]:
    """Kind and geometry of the features by a legend's own idea of which closed ways are areas."""
    import shapely

    kind = features.table["kind"].to_numpy(object).copy()
    geometry = features.table.geometry.to_numpy().copy()
    is_way = features.table["osm_type"].to_numpy() == "way"
    is_ring = is_way & ((kind == "area") | (shapely.is_closed(geometry) & (kind == "line")))
    for i in np.flatnonzero(is_ring):
        wanted = "area" if legend.is_area(features.table["tags"].iat[i]) else "line"
        if wanted == kind[i]:
            continue
        if wanted == "line":
            kind[i], geometry[i] = wanted, geometry[i].boundary
        elif shapely.get_type_id(geometry[i]) == shapely.GeometryType.LINESTRING:
            polygon = repaired([shapely.Polygon(geometry[i])])[0]
            if not polygon.is_empty:
                kind[i], geometry[i] = wanted, polygon
    return kind, geometry


def _drawings(kind: np.ndarray, features: MapFeatures, legend: Legend) -> _Drawings:
    places = {name: legend.find(name) for name in legend.names}
    rows = [
        (i, *places[mark.name], mark.shape, mark.width_m, mark.name == BUILDING)
        for i, tags in enumerate(features.table["tags"])
        for mark in legend.marks(kind[i], tags)
    ]
    feature, channel, class_id, shape, width_m, is_building = (
        zip(*rows, strict=True) if rows else ((),) * 6
    )
    return _Drawings(
        np.array(feature, int),
        np.array(channel, np.uint8),
        np.array(class_id, np.uint8),
        np.array(shape, object),
        np.array(width_m, float),
        np.array(is_building, bool),
    )


def _cut_to_region(
    geometry: np.ndarray, tree: Any, frame: LocalFrame
) -> tuple[np.ndarray, np.ndarray]:
    """The geometries within the frame's region, and which have anything there, (features,) bool."""
    import shapely

    geometry = geometry.copy()
    region = _region(frame)
    reached = np.zeros(len(geometry), bool)
    reached[tree.query(region, predicate="intersects")] = True
    within = np.zeros(len(geometry), bool)
    within[tree.query(region, predicate="contains")] = True
    for i in np.flatnonzero(reached & ~within):
        geometry[i] = _same_dimension(shapely.intersection(geometry[i], region), geometry[i])
    return geometry, reached


def _region(frame: LocalFrame) -> Any:
    """The circle that a frame serves, as a polygon in degrees."""
    import shapely

    angle_rad = np.linspace(0, 2 * np.pi, _REGION_CORNERS, endpoint=False)
    radius_m = MAX_DISTANCE_M * _REGION_SHRINK
    lat_deg, lon_deg = frame.to_geodetic(radius_m * np.cos(angle_rad), radius_m * np.sin(angle_rad))
    if np.ptp(lon_deg) > 180:
        raise MapError(
            f"{frame} lies less than {MAX_DISTANCE_M / 1000:.0f} km from the 180th meridian or a "
            "pole, where maps are not supported."
        )
    return shapely.Polygon(np.column_stack([lon_deg, lat_deg]))


def _same_dimension(cut: Any, whole: Any) -> Any:
    """The parts of a cut geometry that are what it was cut from: no corner touched is a piece."""
    import shapely

    parts = shapely.get_parts(cut)
    parts = parts[shapely.get_dimensions(parts) == shapely.get_dimensions(whole)]
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _shaped(geometry: np.ndarray, drawings: _Drawings) -> np.ndarray:
    """What is drawn of each geometry."""
    import shapely

    geometry = geometry.copy()
    outline, strip = drawings.shape == "outline", drawings.shape == "strip"
    geometry[outline] = shapely.boundary(geometry[outline])
    geometry[strip] = shapely.buffer(geometry[strip], drawings.width_m[strip] / 2, quad_segs=4)
    point = (drawings.shape == "point") & (shapely.get_dimensions(geometry) > 0)
    geometry[point] = shapely.point_on_surface(geometry[point])
    return geometry


def _shapes(geometry: np.ndarray, number: int, row: np.ndarray | None = None) -> list[_Shape]:
    """Geometries in pixels as rasterio wants them, those of one row together.

    rasterio would ask each geometry for its GeoJSON, which takes longer than the drawing.

    Args:
        geometry: (geometries,) of any kind.
        number: Of rows.
        row: (geometries,) which row each belongs to, ascending; default, each has its own.
    """
    import shapely

    parts, owner = shapely.get_parts(geometry, return_index=True)
    owner = owner if row is None else row[owner]
    owner, parts = owner[~shapely.is_empty(parts)], parts[~shapely.is_empty(parts)]
    is_polygon = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    rings, ring_owner = shapely.get_rings(parts[is_polygon], return_index=True)
    rings_of = _runs(_coordinates(rings), ring_owner, int(is_polygon.sum()))
    polygons = iter({"type": "Polygon", "coordinates": paths} for paths in rings_of)
    lines = (
        {"type": "LineString", "coordinates": path}
        if len(path) > 1
        else {"type": "Point", "coordinates": path[0]}
        for path in _coordinates(parts[~is_polygon])
    )
    return _runs([next(polygons if is_area else lines) for is_area in is_polygon], owner, number)


def _coordinates(geometry: np.ndarray) -> list[Any]:
    """The coordinates of each line, ring or point."""
    import shapely

    places, owner = shapely.get_coordinates(geometry, return_index=True)
    x, y = places.T.tolist()
    return _runs(list(zip(x, y, strict=True)), owner, len(geometry))


def _runs(items: Sequence[Any], owner: np.ndarray, number: int) -> list[Any]:
    """The items of each owner, whose indices ascend."""
    stops = np.cumsum(np.bincount(owner, minlength=number)).tolist()
    return [items[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def _with_edges(
    geometry: np.ndarray, shape: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Polygons with their corners at cell centres, each followed by its rings."""
    import shapely

    geometry = geometry.copy()
    fill = shape == "fill"
    geometry[fill] = shapely.transform(geometry[fill], lambda col_row: np.floor(col_row) + 0.5)
    rings = shapely.boundary(geometry[fill])
    position = np.flatnonzero(fill) + 1
    return np.insert(geometry, position, rings), np.insert(values, position, values[fill])


def _in_pixels(geometry: np.ndarray, grid: MapGrid) -> np.ndarray:
    import shapely

    def to_pixel(xy_m: np.ndarray) -> np.ndarray:
        return np.column_stack(grid.to_pixel(xy_m[:, 0], xy_m[:, 1]))

    return shapely.transform(geometry, to_pixel)


def _box(grid: MapGrid, *, margin_m: float = 0.0) -> Any:
    import shapely

    west_m, south_m, east_m, north_m = grid.bounds
    return shapely.box(west_m - margin_m, south_m - margin_m, east_m + margin_m, north_m + margin_m)


def _is_part(tags: legends.Tags) -> bool:
    return tags.get(BUILDING, "no") == "no"
