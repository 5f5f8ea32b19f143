"""Buildings as the tags of a map tell of them: parts, heights, roofs, materials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.frames import GeoPose, LocalFrame
from crossview.synthetic.roofs import Roof, fits
from crossview.synthetic.survey_rows import Row, polygons_of
from crossview.synthetic.things import Building
from crossview.tags import STOREY_HEIGHT_M, height_of_levels_m, length_m

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

BUILDING_HEIGHT_M = 8.0
"""Where neither the map nor storeys tell."""

STOREYS = (1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7)
"""Storeys of the buildings of a town, one of which is drawn for each; ours."""

_SHED_M2 = 40.0
"""Smaller buildings are sheds and garages of one storey."""

LEAST_FOOTPRINT_M2 = 0.5
"""Smaller ones are slips of the mouse."""

_ROOF_SHAPES: Mapping[str, str] = MappingProxyType(
    {
        value: shape
        for shape, values in {
            "flat": "flat",
            "gabled": "gabled round gambrel saltbox double_saltbox",
            "hipped": "hipped half-hipped side_hipped mansard hipped-and-gabled",
            "pyramidal": "pyramidal cone dome onion",
            "skillion": "skillion lean_to",
        }.items()
        for value in values.split()
    }
)
"""Values of roof:shape, and the shape that stands for them."""

_ROOF_PITCH = {"gabled": 0.7, "hipped": 0.7, "pyramidal": 0.7, "skillion": 0.25}
"""Rise per metre where the height of a roof is not known: 35 degrees, and 14."""

_MAX_ROOF_SHARE = 0.4
"""Of a building's height, where the height of its roof is not known."""

_COMPASS = (
    *("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE"),
    *("S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW"),
)

# How often a material is met with, by the kind of building; ours, by looking at cities.
_WALLS: tuple[tuple[frozenset[str], Mapping[str, int]], ...] = tuple(
    (frozenset(kinds.split()), shares)
    for kinds, shares in (
        (
            "house detached semidetached_house terrace bungalow farm cabin hut static_caravan",
            {"plaster": 5, "brick": 4, "timber": 1},
        ),
        (
            "office commercial government hospital university train_station hotel",
            {"glass": 4, "concrete": 3, "stone": 2, "brick": 2},
        ),
        (
            "industrial warehouse hangar shed barn farm_auxiliary garage garages carport service",
            {"sheet": 5, "brick": 3, "concrete": 2},
        ),
        ("church cathedral chapel mosque temple synagogue castle tower", {"stone": 6, "brick": 3}),
        ("greenhouse", {"glass": 1}),
    )
)
_OTHER_WALLS = {"plaster": 6, "brick": 4, "stone": 1, "concrete": 2}
_STATED_WALLS = {
    "brick": "brick",
    "clinker": "brick",
    "concrete": "concrete",
    "glass": "glass",
    "mirror": "glass",
    "stone": "stone",
    "sandstone": "stone",
    "limestone": "stone",
    "wood": "timber",
    "timber_framing": "plaster",
    "metal": "sheet",
    "steel": "sheet",
    "plaster": "plaster",
    "cement_block": "concrete",
}
_STATED_ROOFS = {
    "roof_tiles": "tiles",
    "tile": "tiles",
    "slate": "slate",
    "eternit": "slate",
    "metal": "roof_metal",
    "copper": "roof_metal",
    "gravel": "roof_gravel",
    "tar_paper": "roof_gravel",
    "concrete": "roof_gravel",
    "grass": "grass",
    "glass": "glass",
}
_FLAT_ROOFS = {"roof_gravel": 5, "roof_metal": 1}
_STEEP_ROOFS = {"tiles": 6, "slate": 3, "roof_metal": 1}


@dataclass(frozen=True)
class BuildingReader:
    """Makes buildings of features.

    Args:
        frame: Where the metres are.
        storeys: Of buildings whose height is not known; see Scene.from_features.
        notes: Takes what cannot be.
    """

    frame: LocalFrame
    storeys: tuple[int, ...]
    notes: Counter[str]

    def buildings(self, rows: Sequence[Row]) -> list[Building]:
        """Buildings, and parts in place of what they are part of."""
        import shapely

        outlines = [row for row in rows if row.tags.get("building", "no") != "no"]
        parts = [row for row in rows if row.tags.get("building", "no") == "no"]
        inside: dict[int, list[int]] = {}
        if outlines and parts:
            tree = shapely.STRtree([row.geometry for row in outlines])
            points = shapely.point_on_surface([row.geometry for row in parts])
            for part, outline in tree.query(points, predicate="within").T.tolist():
                inside.setdefault(outline, []).append(part)
        owner = {part: outline for outline, members in inside.items() for part in members}
        buildings: list[Building] = []
        for k, row in enumerate(outlines):
            area = row.geometry
            if k in inside:
                pieces = shapely.union_all([parts[part].geometry for part in inside[k]])
                # a hair beside a part is a slip, not a wall
                area = shapely.difference(area, pieces).buffer(-0.1).buffer(0.1, join_style="mitre")
            buildings += self._solids(row, row, area)
        for part, row in enumerate(parts):
            whole = outlines[owner[part]] if part in owner else row
            buildings += self._solids(row, whole, row.geometry)
        return buildings

    def _solids(self, row: Row, whole: Row, area: BaseGeometry) -> Iterator[Building]:
        """One building for each polygon of a feature, which may be part of a whole."""
        height_m = _usual(row.height_m, whole.height_m)
        if not height_m > 0:
            height_m = self._drawn_height_m(whole)
        if not row.height_m > 0 and not {"height", "building:levels"}.isdisjoint(row.tags):
            self.notes["heights of buildings that cannot be"] += 1
        base_m = row.base_m if row.base_m > 0 else 0.0
        if base_m >= height_m:
            self.notes["buildings that end below where they begin put on the ground"] += 1
            base_m = 0.0
        for polygon in polygons_of(area):
            if polygon.area < LEAST_FOOTPRINT_M2:
                self.notes[f"buildings of less than {LEAST_FOOTPRINT_M2} m2 left out"] += 1
                continue
            roof = self._roof(row, polygon, height_m - base_m)
            yield Building(
                polygon,
                height_m,
                base_m,
                roof,
                _wall_material(row, whole),
                _roof_material(row, roof),
            )

    def _drawn_height_m(self, row: Row) -> float:
        if not self.storeys:
            return BUILDING_HEIGHT_M
        drawn = self.storeys[int(row.draw("storeys") * len(self.storeys))]
        return STOREY_HEIGHT_M * (1 if row.geometry.area < _SHED_M2 else drawn)

    def _roof(self, row: Row, footprint: Any, room_m: float) -> Roof:
        stated = row.tags.get("roof:shape", "flat")
        if stated not in _ROOF_SHAPES:
            self.notes["roofs of unknown shapes made flat"] += 1
        shape = _ROOF_SHAPES.get(stated, "flat")
        if shape == "flat":
            return Roof()
        height_m = length_m(row.tags.get("roof:height"))
        if not height_m > 0:
            height_m = height_of_levels_m(row.tags.get("roof:levels"))
        if not height_m > 0:
            width_m = _width_m(footprint)
            rise_m = _ROOF_PITCH[shape] * (width_m if shape == "skillion" else width_m / 2)
            height_m = min(rise_m, _MAX_ROOF_SHARE * room_m)
        if height_m > room_m:
            self.notes["roofs higher than their buildings lowered"] += 1
            height_m = room_m
        facing_deg = self._facing_deg(row.tags.get("roof:direction"), footprint)
        is_across = row.tags.get("roof:orientation") == "across"
        roof = Roof(shape, height_m, facing_deg, is_across)
        if fits(footprint, roof):
            return roof
        self.notes[f"{shape} roofs that do not fit their footprints made flat"] += 1
        return Roof()

    def _facing_deg(self, text: str | None, footprint: Any) -> float | None:
        """A direction as OpenStreetMap writes it, clockwise from the frame's north."""
        if text is None:
            return None
        word = text.strip().upper()
        try:
            true_deg = 22.5 * _COMPASS.index(word) if word in _COMPASS else float(word)
        except ValueError:
            true_deg = math.nan
        if not math.isfinite(true_deg):
            self.notes["values of roof:direction that cannot be"] += 1
            return None
        lat_deg, lon_deg = self.frame.to_geodetic(footprint.centroid.x, footprint.centroid.y)
        return self.frame.pose(GeoPose(lat_deg, lon_deg, true_deg % 360.0)).heading_deg


def _wall_material(row: Row, whole: Row) -> str:
    for key in ("building:facade:material", "building:material", "material"):
        stated = row.tags.get(key, whole.tags.get(key, ""))
        if stated in _STATED_WALLS:
            return _STATED_WALLS[stated]
    kind = whole.tags.get("building", "yes")
    shares = next((shares for kinds, shares in _WALLS if kind in kinds), _OTHER_WALLS)
    return _drawn(shares, whole.draw("walls"))


def _roof_material(row: Row, roof: Roof) -> str:
    stated = row.tags.get("roof:material", "")
    if stated in _STATED_ROOFS:
        return _STATED_ROOFS[stated]
    return _drawn(_FLAT_ROOFS if roof.shape == "flat" else _STEEP_ROOFS, row.draw("roof"))


def _drawn(shares: Mapping[str, int], draw: float) -> str:
    """The material at a share of the whole."""
    names = [name for name, share in shares.items() for _ in range(share)]
    return names[int(draw * len(names))]


def _width_m(footprint: Any) -> float:
    """The shorter side of the smallest rectangle around a footprint."""
    import shapely

    ring = shapely.get_coordinates(footprint.minimum_rotated_rectangle)
    return float(np.hypot(*(ring[1:3] - ring[:2]).T).min())


def _usual(stated_m: float, usual_m: float) -> float:
    """What is stated, if it is (NaN is not)."""
    return stated_m if stated_m > 0 else usual_m
