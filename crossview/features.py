"""Map features in one table, whatever file they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.errors import MapError, MapOutsideError
from crossview.tiles import GeoBounds

if TYPE_CHECKING:
    import geopandas

COLUMNS = ("osm_type", "osm_id", "kind", "tags", "height_m", "min_height_m", "geometry")

WHOLLY_UNMAPPED = 0.999999
"""Share of a box from which on nothing of it is mapped, for the rounding of borders."""


@dataclass(frozen=True, eq=False)
class MapFeatures:
    """What a map file holds, whatever its format.

    Args:
        table: A GeoDataFrame in EPSG:4326 with the columns `osm_type` ("node", "way" or "relation";
            "footprint", "tile" or "overture" for what has no identity in OpenStreetMap), `osm_id`,
            `kind` ("area", "line" or "point"), `tags` (dict), `height_m` (NaN where not known),
            `min_height_m` (of the underside; 0 on the ground) and `geometry`. Areas are valid
            polygons with their holes.
        extent: The box that the file maps completely, but for `unmapped`.
        source: Where it came from, for messages.
        surveyed: Classes whose absence means absence; None for all that a legend has.
        skipped: What could not be used, and how often.
        attribution: Who must be named where maps made of it are shown; empty where nobody is known.
        unmapped: Polygon or MultiPolygon in degrees, the part of the extent that is not mapped (of
            a city that was cut out along its border); None where there is none.
    """

    table: geopandas.GeoDataFrame
    extent: GeoBounds
    source: str
    surveyed: frozenset[str] | None = None
    skipped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    attribution: str = ""
    unmapped: Any = None

    def __post_init__(self) -> None:
        missing = [name for name in COLUMNS if name not in self.table.columns]
        if missing:
            raise ValueError(
                f"The table of {self.source} lacks {', '.join(missing)}; expected the columns "
                f"{', '.join(COLUMNS)}."
            )
        if self.table.crs is None or self.table.crs.to_epsg() != 4326:
            raise ValueError(
                f"The table of {self.source} is in {self.table.crs}; expected EPSG:4326, longitude "
                "first. Convert it with to_crs."
            )

    def within(self, bounds: GeoBounds) -> MapFeatures:
        """What reaches into a box, whole; the extent is what the box and the map share.

        Raises:
            MapOutsideError: The map does not reach the box.
            MapError: Nothing in the box is mapped.
        """
        import shapely

        sides = np.array([self.extent, bounds], dtype=float)
        extent = GeoBounds(*sides[:, :2].max(axis=0).tolist(), *sides[:, 2:].min(axis=0).tolist())
        if extent.west >= extent.east or extent.south >= extent.north:
            raise MapOutsideError(
                f"The map {self.source} covers {bounds_text(self.extent)}, and the area "
                f"{bounds_text(bounds)} lies outside of it. Use a map of the place, or check that "
                "latitude and longitude are not swapped."
            )
        unmapped, box = self.unmapped, shapely.box(*extent)
        if unmapped is not None:
            unmapped = shapely.intersection(unmapped, box)
            if unmapped.area >= WHOLLY_UNMAPPED * box.area:
                raise MapOutsideError(
                    f"The map {self.source} does not cover {bounds_text(extent)}: it says that it "
                    "was cut out along a border, and the area lies beyond. Use a map of the place."
                )
            unmapped = unmapped if unmapped.area > 0 else None
        table = self.table[shapely.intersects(self.table.geometry, box)]
        if table.empty:
            raise MapError(f"Nothing is mapped in {bounds_text(extent)} of {self.source}.")
        return replace(self, table=table.reset_index(drop=True), extent=extent, unmapped=unmapped)


def bounds_text(bounds: GeoBounds) -> str:
    """A box in words, as messages name it."""
    west, south, east, north = (float(side) for side in bounds)
    return f"latitude {south:.5f}..{north:.5f}, longitude {west:.5f}..{east:.5f}"


@dataclass
class Feature:
    """A row of the table while it is being put together; fields as there."""

    osm_type: str
    osm_id: int
    kind: str
    tags: dict[str, str]
    geometry: Any
    height_m: float = np.nan
    min_height_m: float = 0.0


def feature_table(features: Sequence[Feature]) -> geopandas.GeoDataFrame:
    """The rows as a table in EPSG:4326."""
    import geopandas

    columns = {name: [getattr(feature, name) for feature in features] for name in COLUMNS}
    return geopandas.GeoDataFrame(columns, crs="EPSG:4326")


def repaired(polygons: Any) -> np.ndarray:
    """Valid polygons; the lines and points that collapsed parts leave are dropped."""
    import shapely

    polygons = np.array(polygons, dtype=object)
    is_invalid = ~shapely.is_valid(polygons)
    polygons[is_invalid] = shapely.make_valid(
        polygons[is_invalid], method="structure", keep_collapsed=False
    )
    polygons[shapely.get_dimensions(polygons) != 2] = shapely.Polygon()
    return polygons
