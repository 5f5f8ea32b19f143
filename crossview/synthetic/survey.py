"""From the features of a map to what stands there: widths, heights, materials, trees and signs."""

from __future__ import annotations

import logging
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import angles
from crossview.features import MapFeatures, repaired
from crossview.frames import GeoPose, LocalFrame
from crossview.legends import BUILDING, CROSSVIEW, Mark
from crossview.synthetic import markings
from crossview.synthetic.ground import Layer
from crossview.synthetic.mesh import turned
from crossview.synthetic.roofs import Roof, fits
from crossview.synthetic.things import (
    CROWN_DIAMETER_M,
    TREE_HEIGHT_M,
    Barrier,
    Bay,
    Building,
    Carriageway,
    Post,
    Tree,
)
from crossview.tags import (
    LANE_WIDTH_M,
    STOREY_HEIGHT_M,
    Tags,
    height_of_levels_m,
    length_m,
)

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

BUILDING_HEIGHT_M = 8.0
SIDEWALK_WIDTH_M = 2.0
"""What is usual, where a map does not tell."""

STOREYS = (1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7)
"""Storeys of the buildings of a town, one of which is drawn for each; ours."""

_SHED_M2 = 40.0
"""Smaller buildings are sheds and garages of one storey."""

REACH_M = 200.0
"""What lies farther beyond the extent of a map is left out."""

MAX_CORNERS = 2000
"""A footprint with more corners is simplified: no building is that detailed."""

LEAST_FOOTPRINT_M2 = 0.5
"""Smaller ones are slips of the mouse."""

KERB_M = 0.15
MAX_SCATTERED_TREES = 100_000
"""Trees that are invented for woods and parks; of more, all areas get fewer."""

MAX_TREE_M = 60.0
MAX_CROWN_M = 30.0
MAX_BARRIER_M = 20.0
"""Larger trees and barriers are mistakes, and get the usual size."""

TREE_ROW_STEP_M = 8.0
_TREE_SPACING_M = {"trees": 7.0, "park": 16.0}
"""Classes of the crossview legend that get trees, and how far these stand apart."""

_GROUND_OF_AREA = {
    # class of the crossview legend: layer of the scene; everything else is terrain
    "road": "roads",
    "parking": "roads",
    "path": "sidewalks",
    "water": "water",
    "stream": "water",
}
_SOILS = {
    # class of the crossview legend: class and material of the ground
    "rail": ("background", "ballast"),
    "pitch": ("terrain", "court"),
    "bare": ("terrain", "sand"),
    "grass": ("terrain", "grass"),
    "park": ("terrain", "grass"),
}
_BARRIERS = {
    # class of the crossview legend: what it looks like, and its usual height in metres
    "fence": ("fence", 1.2),
    "hedge": ("vegetation", 1.5),
    "wall": ("wall", 1.8),
}
_POSTS = {"lamp": "lamp", "traffic_signal": "signal", "sign": "sign", "bollard": "bollard"}
_SHOPS = frozenset(("restaurant", "bank", "pharmacy", "shop"))
_SURFACES: Mapping[str, str] = MappingProxyType(
    {
        value: material
        for material, values in {
            "asphalt": "asphalt paved chipseal concrete concrete:lanes",
            "slabs": "paving_stones concrete:plates stone bricks brick",
            "sett": "sett cobblestone unhewn_cobblestone",
            "gravel": "gravel fine_gravel compacted pebblestone unpaved",
            "soil": "dirt ground earth mud",
            "grass": "grass grass_paver",
            "sand": "sand",
            "court": "tartan artificial_turf acrylic rubber",
            "timber": "wood",
        }.items()
        for value in values.split()
    }
)
_USUAL_SURFACES = {
    "track": "gravel",
    "path": "gravel",
    "bridleway": "gravel",
    "cycleway": "asphalt",
}
_NO_SIDEWALK = frozenset(
    ("motorway", "motorway_link", "trunk", "trunk_link", "track", "service", "busway")
)
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

_BESIDE_COAST_M = 0.01
_LAND_WEIGHT = 4.0
"""A part of a map is sea if it has this much more coast on the right side than on the wrong one."""

_log = logging.getLogger(__name__)


def surveyed(
    features: MapFeatures, frame: LocalFrame, storeys: Sequence[int] = ()
) -> dict[str, Any]:
    """The fields of the Scene that a map describes; see Scene.from_features."""
    survey = _Survey(frame, tuple(storeys))
    for row in _rows(features, frame, survey.notes):
        for mark in CROSSVIEW.marks(row.kind, row.tags):
            survey.add(mark, row)
        survey.add_unmarked(row)
    fields = survey.fields(_extent(features, frame))
    if fields["notes"]:
        counts = ", ".join(f"{number} {what}" for what, number in fields["notes"].items())
        _log.warning("%s: %s.", features.source, counts)
    return fields


@dataclass(frozen=True, eq=False)
class _Row:
    """A feature in local metres."""

    kind: Any
    tags: Tags
    height_m: float
    base_m: float
    identity: str
    geometry: Any

    def draw(self, what: str) -> float:
        """A number from 0 to 1 that depends on the feature's identity and on what it is for."""
        return zlib.crc32(f"{self.identity} {what}".encode()) / 2**32


def _rows(features: MapFeatures, frame: LocalFrame, notes: Counter[str]) -> Iterator[_Row]:
    import shapely

    def to_local(lon_lat: np.ndarray) -> np.ndarray:
        return np.column_stack(frame.to_local(lon_lat[:, 1], lon_lat[:, 0]))

    table = features.table
    geometry = table.geometry.to_numpy().copy()
    bounds = np.array(shapely.bounds(geometry))
    corners, owner = shapely.get_coordinates(geometry, return_index=True)
    is_place = np.asarray(np.isfinite(bounds).all(axis=1))
    is_place[owner[~np.isfinite(corners).all(axis=1)]] = False
    notes["features without a place left out"] += int((~is_place).sum())
    low, high = np.split(_reach_deg(features), 2)
    is_near = (bounds[:, :2] <= high).all(axis=1) & (bounds[:, 2:] >= low).all(axis=1)
    sticks_out = (bounds[:, :2] < low).any(axis=1) | (bounds[:, 2:] > high).any(axis=1)
    keep = np.flatnonzero(is_place & is_near)
    is_area = np.asarray(table["kind"] == "area")
    cut = np.flatnonzero(is_place & is_near & sticks_out)
    whole = geometry[cut]
    whole[is_area[cut]] = repaired(whole[is_area[cut]])
    geometry[cut] = shapely.intersection(whole, shapely.box(*low, *high))
    geometry[keep] = shapely.transform(geometry[keep], to_local)
    areas = keep[is_area[keep]]
    geometry[areas] = repaired(_simplified(geometry[areas], notes))
    kind, tags = table["kind"].to_numpy(), table["tags"].to_numpy()
    height_m, base_m = table["height_m"].to_numpy(), table["min_height_m"].to_numpy()
    identities = table["osm_type"].astype(str) + table["osm_id"].astype(str)
    for k in keep.tolist():
        if not geometry[k].is_empty:
            yield _Row(kind[k], tags[k], height_m[k], base_m[k], identities.iat[k], geometry[k])


def _reach_deg(features: MapFeatures) -> np.ndarray:
    """West, south, east and north of the extent, grown by REACH_M."""
    west, south, east, north = features.extent
    north_deg = REACH_M / 111_000.0
    east_deg = north_deg / max(math.cos(math.radians(max(abs(south), abs(north)))), 0.01)
    return np.array([west - east_deg, south - north_deg, east + east_deg, north + north_deg])


def _extent(features: MapFeatures, frame: LocalFrame) -> BaseGeometry:
    """The reach of the map in local metres."""
    import shapely

    west, south, east, north = _reach_deg(features)
    lat_deg, lon_deg = np.array([south, south, north, north]), np.array([west, east, east, west])
    return shapely.Polygon(np.column_stack(frame.to_local(lat_deg, lon_deg)))


def _simplified(polygons: np.ndarray, notes: Counter[str]) -> np.ndarray:
    """Outlines of no more than MAX_CORNERS corners, so far as that can be had for a metre."""
    import shapely

    polygons = polygons.copy()
    for k in np.flatnonzero(shapely.get_num_coordinates(polygons) > MAX_CORNERS):
        simple = polygons[k]
        for tolerance_m in (0.05, 0.2, 0.5, 1.0):
            simple = shapely.simplify(polygons[k], tolerance_m, preserve_topology=False)
            if shapely.get_num_coordinates(simple) <= MAX_CORNERS:
                break
        notes[f"outlines of more than {MAX_CORNERS} corners simplified"] += 1
        polygons[k] = simple
    return polygons


@dataclass
class _Survey:
    """Features sorted by what they look like from the street."""

    frame: LocalFrame
    storeys: tuple[int, ...] = ()
    notes: Counter[str] = field(default_factory=Counter)
    buildings: list[_Row] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)
    ground: dict[str, list[BaseGeometry]] = field(
        default_factory=lambda: {"roads": [], "sidewalks": [], "water": []}
    )
    strips: list[BaseGeometry] = field(default_factory=list)
    surfaces: dict[tuple[str, str], list[BaseGeometry]] = field(default_factory=dict)
    soils: dict[str, list[BaseGeometry]] = field(default_factory=dict)
    carriageways: list[Carriageway] = field(default_factory=list)
    footways: list[Any] = field(default_factory=list)
    car_parks: list[Any] = field(default_factory=list)
    posts: list[tuple[str, _Row]] = field(default_factory=list)
    benches: list[Any] = field(default_factory=list)
    crossings: dict[bool, list[Any]] = field(default_factory=lambda: {True: [], False: []})
    crossing_ways: list[Any] = field(default_factory=list)
    woods: list[tuple[float, _Row]] = field(default_factory=list)
    shops_m: list[tuple[float, float]] = field(default_factory=list)
    coastlines: list[Any] = field(default_factory=list)

    def add(self, mark: Mark, row: _Row) -> None:
        """Add what one feature leaves."""
        if mark.name == BUILDING:
            self.buildings.append(row)
        elif mark.name in _GROUND_OF_AREA:
            self._pave(mark, row)
        elif mark.name in _BARRIERS:
            self._fence(mark.name, row)
        elif mark.name in _POSTS:
            self.posts.append((_POSTS[mark.name], row))
        elif mark.name == "pole":
            self.posts.append(("pole" if "power" in row.tags else "mast", row))
        elif mark.name == "tree":
            self.trees.append(self._tree(row, row.geometry.x, row.geometry.y))
        elif mark.name == "tree_row":
            self._plant_row(row)
        elif mark.name == "bench":
            self.benches.append(row.geometry)
        elif mark.name == "crossing":
            self.crossings[_is_marked(row.tags)].append(row.geometry)
        elif mark.name in _SHOPS:
            middle = row.geometry.centroid
            self.shops_m.append((middle.x, middle.y))
        if mark.name in _SOILS:
            area = row.geometry if mark.shape == "fill" else row.geometry.buffer(mark.width_m / 2)
            self.soils.setdefault(mark.name, []).append(area)
        if mark.name in _TREE_SPACING_M:
            self.woods.append((_TREE_SPACING_M[mark.name], row))

    def add_unmarked(self, row: _Row) -> None:
        """Add what the legend has no class for."""
        if row.kind == "line" and row.tags.get("natural") == "coastline":
            self.coastlines.append(row.geometry)

    def fields(self, extent: BaseGeometry) -> dict[str, Any]:
        """Everything that was added."""
        import shapely

        self.ground["water"] += _sea(self.coastlines, extent)
        self.ground["sidewalks"] += self.strips
        ground = {layer: shapely.union_all(areas) for layer, areas in self.ground.items()}
        roads = ground["roads"]
        shapely.prepare(roads)
        buildings, bays = tuple(self._buildings()), tuple(self._bays())
        crossings_m = self._crossings_m()
        soils = tuple(
            Layer(*_SOILS[name], shapely.union_all(self.soils[name]))
            for name in _SOILS
            if name in self.soils
        )
        solid = [layer.area for layer in soils if layer.material != "grass"]
        places = _Places(
            roads, [ground["sidewalks"], ground["water"], *solid], buildings, self.carriageways
        )
        return {
            "buildings": buildings,
            "trees": places.trees(self.trees, self.woods, self.notes),
            "barriers": self._barriers_beside(roads),
            **ground,
            "markings": self._markings(roads, bays, crossings_m),
            "pavings": self._pavings(roads),
            "soils": soils,
            "posts": places.posts(self.posts, self.notes),
            "benches": tuple((place.x, place.y, 0.0) for place in self.benches),
            "carriageways": tuple(self.carriageways),
            "footways": tuple(self.footways),
            "bays": bays,
            "crossings_m": tuple(map(tuple, crossings_m.tolist())),
            "shops_m": tuple(self.shops_m),
            "notes": {what: number for what, number in sorted(self.notes.items()) if number},
        }

    def _pave(self, mark: Mark, row: _Row) -> None:
        layer = _GROUND_OF_AREA[mark.name]
        is_line = mark.shape != "fill"
        area = row.geometry.buffer(mark.width_m / 2) if is_line else row.geometry
        self.ground[layer].append(area)
        highway = row.tags.get("highway", row.tags.get("area:highway", ""))
        usual = _USUAL_SURFACES.get(highway, "asphalt" if layer == "roads" else "slabs")
        surface = _SURFACES.get(row.tags.get("surface", ""), usual)
        self.surfaces.setdefault((layer, surface), []).append(area)
        if mark.name == "parking":
            self.car_parks += _polygons_of(row.geometry)
        if is_line and mark.name == "path":
            lines = list(_lines_of(row.geometry))
            if row.tags.get("footway") == "crossing" or row.tags.get("path") == "crossing":
                if _is_marked(row.tags):
                    self.crossing_ways += lines
            else:
                self.footways += lines
        if is_line and mark.name == "road":
            self._drive(mark.width_m, row)

    def _drive(self, width_m: float, row: _Row) -> None:
        """A street to drive on, and its sidewalks."""
        sidewalks_m = _sidewalks_m(row.tags)
        for side, sidewalk_m in zip((1, -1), sidewalks_m, strict=True):
            if sidewalk_m and sidewalks_m[0] != sidewalks_m[1]:
                strip = row.geometry.buffer(side * (width_m / 2 + sidewalk_m), single_sided=True)
                self.strips.append(strip)
        if sidewalks_m[0] == sidewalks_m[1] > 0:
            self.strips.append(row.geometry.buffer(width_m / 2 + sidewalks_m[0]))
        oneway = row.tags.get("oneway", "yes" if row.tags.get("junction") == "roundabout" else "no")
        is_oneway = oneway in ("yes", "true", "1", "-1", "reverse")
        lanes = length_m(row.tags.get("lanes"))
        if not 1 <= lanes <= 12:
            lanes = 1 if is_oneway else round(width_m / LANE_WIDTH_M)
        for line in _lines_of(row.geometry):
            street = Carriageway(
                line.reverse() if oneway in ("-1", "reverse") else line,
                width_m,
                max(int(lanes), 1),
                is_oneway,
                sidewalks_m,
                (_parks(row.tags, "left"), _parks(row.tags, "right")),
                row.tags.get("highway", "road"),
            )
            self.carriageways.append(street)

    def _fence(self, name: str, row: _Row) -> None:
        class_name, usual_m = _BARRIERS[name]
        height_m = self._stated(row.tags, "height", MAX_BARRIER_M, usual_m)
        self.barriers += [
            Barrier(line, height_m, class_name) for line in _lines_of(row.geometry) if line.length
        ]

    def _barriers_beside(self, roads: BaseGeometry) -> tuple[Barrier, ...]:
        """Barriers, with gaps where they cross roads: streets are there to be driven on."""
        import shapely

        lines = np.array([barrier.line for barrier in self.barriers], dtype=object)
        crosses = shapely.intersects(roads, lines)
        self.notes["fences, walls and hedges across streets cut"] += int(crosses.sum())
        lines[crosses] = shapely.difference(lines[crosses], roads)
        return tuple(
            replace(barrier, line=part)
            for barrier, line in zip(self.barriers, lines, strict=True)
            for part in _lines_of(line)
        )

    def _tree(self, row: _Row, x_m: float, y_m: float) -> Tree:
        height_m = self._stated(row.tags, "height", MAX_TREE_M, TREE_HEIGHT_M)
        crown_m = self._stated(row.tags, "diameter_crown", MAX_CROWN_M, CROWN_DIAMETER_M)
        return Tree(x_m, y_m, height_m, crown_m / 2, _leaves(row.tags))

    def _plant_row(self, row: _Row) -> None:
        for line in _lines_of(row.geometry):
            for along_m in np.arange(0.0, line.length + 1e-6, TREE_ROW_STEP_M):
                place = line.interpolate(along_m)
                self.trees.append(self._tree(row, place.x, place.y))

    def _stated(self, tags: Tags, key: str, most_m: float, usual_m: float) -> float:
        """What a tag says, if it can be true."""
        stated_m = length_m(tags.get(key))
        if 0 < stated_m <= most_m:
            return stated_m
        if key in tags:
            self.notes[f"values of {key} that cannot be"] += 1
        return usual_m

    def _pavings(self, roads: BaseGeometry) -> tuple[Layer, ...]:
        """Kerbs, and paths of other surfaces than slabs."""
        import shapely

        strips = shapely.union_all(self.strips)
        kerbs = shapely.intersection(shapely.buffer(roads, KERB_M), strips)
        return (Layer("sidewalk", "kerb", kerbs), *self._surfaced("sidewalks", "slabs"))

    def _crossings_m(self) -> np.ndarray:
        """Where there are stripes, (n, 2)."""
        import shapely

        marked, unmarked = (
            shapely.get_coordinates(self.crossings[is_marked]) for is_marked in (True, False)
        )
        return markings.crossing_places(marked, unmarked, self.crossing_ways, self.carriageways)

    def _markings(
        self, roads: BaseGeometry, bays: Sequence[Bay], crossings_m: np.ndarray
    ) -> tuple[Layer, ...]:
        """Paint, and roads of other surfaces than asphalt."""
        import shapely

        paint = [
            *markings.crossing_stripes(crossings_m, self.carriageways, roads),
            *markings.lane_marks(self.carriageways, crossings_m, roads),
            *markings.bay_lines(bays),
        ]
        return (
            Layer("road", "paint", shapely.union_all(paint)),
            *self._surfaced("roads", "asphalt"),
        )

    def _surfaced(self, layer: str, usual: str) -> tuple[Layer, ...]:
        """Areas of unusual materials; where they cross usual ones, the usual one is seen."""
        import shapely

        class_name = {"roads": "road", "sidewalks": "sidewalk"}[layer]
        over = shapely.union_all(self.surfaces.get((layer, usual), []))
        return tuple(
            Layer(class_name, material, shapely.difference(shapely.union_all(areas), over))
            for (of, material), areas in sorted(self.surfaces.items())
            if of == layer and material != usual
        )

    def _bays(self) -> list[Bay]:
        import shapely

        strips = [street.line.buffer(street.width_m / 2) for street in self.carriageways]
        tree = shapely.STRtree(strips)
        bays = []
        for area in self.car_parks:
            near = tree.query(area, predicate="intersects")
            streets = shapely.union_all([strips[k] for k in near])
            bays += markings.parking_bays(area, streets)
        return bays

    def _buildings(self) -> list[Building]:
        """Buildings, and parts in place of what they are part of."""
        import shapely

        outlines = [row for row in self.buildings if row.tags.get("building", "no") != "no"]
        parts = [row for row in self.buildings if row.tags.get("building", "no") == "no"]
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

    def _solids(self, row: _Row, whole: _Row, area: BaseGeometry) -> Iterator[Building]:
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
        for polygon in _polygons_of(area):
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

    def _drawn_height_m(self, row: _Row) -> float:
        if not self.storeys:
            return BUILDING_HEIGHT_M
        drawn = self.storeys[int(row.draw("storeys") * len(self.storeys))]
        return STOREY_HEIGHT_M * (1 if row.geometry.area < _SHED_M2 else drawn)

    def _roof(self, row: _Row, footprint: Any, room_m: float) -> Roof:
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


class _Places:
    """Where things can stand: not in buildings or on roads, and woods not on other ground."""

    def __init__(
        self,
        roads: BaseGeometry,
        taken: Sequence[BaseGeometry],
        buildings: Sequence[Building],
        streets: Sequence[Carriageway],
    ) -> None:
        import shapely

        self._roads, self._taken, self._streets = roads, taken, streets
        self._street_tree = shapely.STRtree([street.line for street in streets])
        self._houses = shapely.STRtree([building.footprint for building in buildings])

    def posts(self, wanted: Sequence[tuple[str, _Row]], notes: Counter[str]) -> tuple[Post, ...]:
        """Posts beside the streets: a light or a sign that is mapped on a street, at its kerb."""
        kept = []
        for kind, row in wanted:
            post = self._beside_street(kind, row.geometry.x, row.geometry.y, row.tags)
            if post is None:
                notes["posts in buildings or on streets left out"] += 1
            else:
                kept.append(post)
        return tuple(kept)

    def _beside_street(self, kind: str, x_m: float, y_m: float, tags: Tags) -> Post | None:
        from shapely import Point

        place = Point(x_m, y_m)
        near = self._street_tree.query_nearest(place, max_distance=20.0, all_matches=False)
        if not len(near):
            return Post(kind, x_m, y_m) if self._is_free(x_m, y_m) else None
        street = self._streets[int(near[0])]
        along_m = street.line.project(place)
        start, end = (
            street.line.interpolate(max(along_m - 0.5, 0.0)),
            street.line.interpolate(along_m + 0.5),
        )
        heading_deg = float(angles.heading_of(end.x - start.x, end.y - start.y))
        foot = street.line.interpolate(along_m)
        # positive on the right of the line
        right = turned(np.array([1.0, 0.0]), heading_deg)
        right_m = float(right @ [x_m - foot.x, y_m - foot.y])
        is_backward = "backward" in (tags.get("direction"), tags.get("traffic_signals:direction"))
        sides = [math.copysign(1.0, right_m)]
        if place.distance(street.line) < street.width_m / 2:
            side = -1.0 if is_backward else 1.0
            sides = [side, -side] if abs(right_m) < 0.5 else [sides[0], -sides[0]]
            away_m = street.width_m / 2 + 0.5
            spots = [
                (side, foot.x + side * away_m * right[0], foot.y + side * away_m * right[1])
                for side in sides
            ]
        else:
            spots = [(sides[0], x_m, y_m)]
        for side, east_m, north_m in spots:
            if self._is_free(east_m, north_m):
                # drivers keep to the right, so that on the left they come the other way
                faces_deg = heading_deg + (180.0 if side > 0 else 0.0)
                arm_deg = heading_deg - 90.0 * side
                facing_deg = arm_deg if kind == "lamp" else faces_deg
                return Post(kind, float(east_m), float(north_m), float(facing_deg % 360.0))
        return None

    def _is_free(self, x_m: float, y_m: float) -> bool:
        from shapely import Point, contains_xy

        return not contains_xy(self._roads, x_m, y_m) and not len(
            self._houses.query(Point(x_m, y_m), predicate="intersects")
        )

    def trees(
        self, mapped: Sequence[Tree], woods: Sequence[tuple[float, _Row]], notes: Counter[str]
    ) -> tuple[Tree, ...]:
        """Mapped trees, and invented ones in woods and parks for which none are mapped."""
        import shapely

        places = np.array([(tree.x_m, tree.y_m) for tree in mapped]).reshape(-1, 2)
        points = np.array(shapely.points(places), dtype=object)
        is_free = self._is_open(points, clearance_m=0.0)
        notes["trees in buildings or on streets left out"] += int((~is_free).sum())
        kept = [tree for tree, free in zip(mapped, is_free, strict=True) if free]
        tree_index = shapely.STRtree(points)
        bare = [
            (spacing_m, row)
            for spacing_m, row in woods
            if not len(tree_index.query(row.geometry, predicate="contains"))
        ]
        wanted = sum(row.geometry.area / spacing_m**2 for spacing_m, row in bare)
        thinner = max(1.0, math.sqrt(wanted / MAX_SCATTERED_TREES))
        if thinner > 1:
            notes["trees of woods left out"] += int(wanted - MAX_SCATTERED_TREES)
        for spacing_m, row in bare:
            kept += self._scattered(row, thinner * spacing_m)
        return tuple(kept)

    def _scattered(self, row: _Row, spacing_m: float) -> Iterator[Tree]:
        import shapely

        rng = np.random.default_rng(zlib.crc32(row.identity.encode()))
        west, south, east, north = row.geometry.bounds
        columns, rows = int((east - west) // spacing_m) + 1, int((north - south) // spacing_m) + 1
        col, line = np.meshgrid(np.arange(columns), np.arange(rows))
        jitter = rng.random((2, rows, columns))
        x_m = (west + (col + jitter[0]) * spacing_m).ravel()
        y_m = (south + (line + jitter[1]) * spacing_m).ravel()
        size = rng.random((2, rows * columns))
        shapely.prepare(row.geometry)
        inside = np.flatnonzero(shapely.contains_xy(row.geometry, x_m, y_m))
        inside = inside[self._is_open(shapely.points(x_m[inside], y_m[inside]), clearance_m=1.5)]
        leaves = row.tags.get("leaf_type")
        for k in inside.tolist():
            needles = leaves == "needleleaved" or (leaves == "mixed" and size[0, k] < 0.5)
            height_m, crown_m = 6.0 + 8.0 * size[0, k], 1.6 + 2.0 * size[1, k]
            yield Tree(
                float(x_m[k]), float(y_m[k]), height_m, crown_m, "needles" if needles else "leaves"
            )

    def _is_open(self, points: np.ndarray, *, clearance_m: float) -> np.ndarray:
        """Which points stand clear of buildings and roads; with a clearance, of all but soil."""
        import shapely

        is_open = np.ones(len(points), bool)
        predicate: Any = ("dwithin", clearance_m) if clearance_m else ("intersects", None)
        is_open[self._houses.query(points, predicate=predicate[0], distance=predicate[1])[0]] = (
            False
        )
        for area in [self._roads, *(self._taken if clearance_m else ())]:
            left = np.flatnonzero(is_open)
            shapely.prepare(area)
            is_open[left] = ~shapely.dwithin(area, points[left], clearance_m)
        return is_open


def _sea(coastlines: Sequence[Any], extent: BaseGeometry) -> list[BaseGeometry]:
    """The parts of the extent to the right of coastlines, as OpenStreetMap draws them.

    A coast that ends inside of the extent, where an extract was cut along a border, goes on
    straight to the extent's nearest side. Parts with coasts on both sides are land.
    """
    import shapely

    if not coastlines:
        return []
    coast = shapely.line_merge(shapely.intersection(shapely.union_all(coastlines), extent))
    ends = shapely.get_parts(shapely.boundary(coast))
    border = extent.boundary
    lines = shapely.union_all([coast, border, *shapely.shortest_line(ends, border)])
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(lines)))
    corners, line = shapely.get_coordinates(shapely.get_parts(coastlines), return_index=True)
    along = np.diff(corners, axis=0)
    length_m = np.hypot(*along.T)
    is_edge = (line[1:] == line[:-1]) & (length_m > 0)
    along, length_m, start = along[is_edge], length_m[is_edge], corners[:-1][is_edge]
    right = np.column_stack([along[:, 1], -along[:, 0]]) / length_m[:, None]
    tree, wet_m = shapely.STRtree(faces), np.zeros(len(faces))
    for side in (1.0, -1.0):
        beside = shapely.points(start + along / 2 + side * _BESIDE_COAST_M * right)
        edge, face = tree.query(np.array(beside), predicate="within")
        np.add.at(wet_m, face, np.where(side > 0, 1.0, -_LAND_WEIGHT) * length_m[edge])
    return list(faces[wet_m > 0])


def _sidewalks_m(tags: Tags) -> tuple[float, float]:
    """Widths of the sidewalks on the left and the right of a street, 0 where there is none."""
    usual = "no" if tags.get("highway") in _NO_SIDEWALK else "both"
    stated = tags.get("sidewalk", usual)
    widths = []
    for side in ("left", "right"):
        own = tags.get(f"sidewalk:{side}", tags.get("sidewalk:both"))
        there = (
            own == "yes" if own in ("yes", "no", "separate") else stated in ("both", "yes", side)
        )
        for key in (f"sidewalk:{side}:width", "sidewalk:both:width"):
            stated_m = length_m(tags.get(key))
            if 0 < stated_m <= 20.0:
                there = True
                break
        else:
            stated_m = SIDEWALK_WIDTH_M
        widths.append(stated_m if there else 0.0)
    return widths[0], widths[1]


def _parks(tags: Tags, side: str) -> bool | None:
    """Whether cars park at a kerb; None where nothing is said."""
    for key in (f"parking:{side}", "parking:both", f"parking:lane:{side}", "parking:lane:both"):
        if key in tags:
            # where bays are mapped on their own, they are areas
            return tags[key] not in ("no", "separate", "no_parking", "no_stopping", "street_side")
    return None


def _is_marked(tags: Tags) -> bool:
    """Whether a crossing has stripes: unless something else is said."""
    stated = tags.get("crossing:markings")
    if stated is not None:
        return stated != "no"
    return tags.get("crossing", "") not in ("unmarked", "no", "informal", "island")


def _leaves(tags: Tags) -> str:
    is_needle = tags.get("leaf_type") == "needleleaved" or tags.get("wood") == "coniferous"
    return "needles" if is_needle else "leaves"


def _wall_material(row: _Row, whole: _Row) -> str:
    for key in ("building:facade:material", "building:material", "material"):
        stated = row.tags.get(key, whole.tags.get(key, ""))
        if stated in _STATED_WALLS:
            return _STATED_WALLS[stated]
    kind = whole.tags.get("building", "yes")
    shares = next((shares for kinds, shares in _WALLS if kind in kinds), _OTHER_WALLS)
    return _drawn(shares, whole.draw("walls"))


def _roof_material(row: _Row, roof: Roof) -> str:
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


def _polygons_of(geometry: Any) -> list[Any]:
    """The polygons of a geometry; a repaired outline may hold stray lines beside them."""
    import shapely

    return [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon"]


def _lines_of(geometry: Any) -> Iterator[Any]:
    """The lines of a feature; of an area (a hedge drawn as a polygon) its rings."""
    import shapely

    is_area = geometry.geom_type in ("Polygon", "MultiPolygon")
    parts = shapely.get_parts(geometry.boundary if is_area else geometry)
    yield from (part for part in parts if part.length > 0)
