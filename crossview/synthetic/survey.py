"""From the features of a map to the fields of a scene: streets, ground, barriers, and the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.features import MapFeatures
from crossview.frames import LocalFrame
from crossview.legends import BUILDING, CROSSVIEW, Mark
from crossview.synthetic import markings
from crossview.synthetic.coast import sea
from crossview.synthetic.ground import Layer
from crossview.synthetic.survey_buildings import BuildingReader
from crossview.synthetic.survey_places import Places
from crossview.synthetic.survey_rows import Row, extent_of, lines_of, polygons_of, rows_of
from crossview.synthetic.things import (
    CROWN_DIAMETER_M,
    TREE_HEIGHT_M,
    Barrier,
    Bay,
    Carriageway,
    Tree,
)
from crossview.tags import (
    LANE_WIDTH_M,
    Tags,
    length_m,
)

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

SIDEWALK_WIDTH_M = 2.0
"""What is usual, where a map does not tell."""

KERB_M = 0.15
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


def surveyed(
    features: MapFeatures, frame: LocalFrame, storeys: Sequence[int] = ()
) -> dict[str, Any]:
    """The fields of the Scene that a map describes; see Scene.from_features."""
    survey = _Survey(frame, tuple(storeys))
    for row in rows_of(features, frame, survey.notes):
        for mark in CROSSVIEW.marks(row.kind, row.tags):
            survey.add(mark, row)
        survey.add_unmarked(row)
    return survey.fields(extent_of(features, frame))


def in_words(notes: Mapping[str, int]) -> str:
    """What a map said that cannot be, and how often."""
    return ", ".join(f"{number} {what}" for what, number in notes.items())


@dataclass
class _Survey:
    """Features sorted by what they look like from the street."""

    frame: LocalFrame
    storeys: tuple[int, ...] = ()
    notes: Counter[str] = field(default_factory=Counter)
    buildings: list[Row] = field(default_factory=list)
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
    posts: list[tuple[str, Row]] = field(default_factory=list)
    benches: list[Any] = field(default_factory=list)
    crossings: dict[bool, list[Any]] = field(default_factory=lambda: {True: [], False: []})
    crossing_ways: list[Any] = field(default_factory=list)
    woods: list[tuple[float, Row]] = field(default_factory=list)
    shops_m: list[tuple[float, float]] = field(default_factory=list)
    coastlines: list[Any] = field(default_factory=list)

    def add(self, mark: Mark, row: Row) -> None:
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

    def add_unmarked(self, row: Row) -> None:
        """Add what the legend has no class for."""
        if row.kind == "line" and row.tags.get("natural") == "coastline":
            self.coastlines.append(row.geometry)

    def fields(self, extent: BaseGeometry) -> dict[str, Any]:
        """Everything that was added."""
        import shapely

        self.ground["water"] += sea(self.coastlines, extent)
        self.ground["sidewalks"] += self.strips
        ground = {layer: shapely.union_all(areas) for layer, areas in self.ground.items()}
        roads = ground["roads"]
        shapely.prepare(roads)
        reader = BuildingReader(self.frame, self.storeys, self.notes)
        buildings, bays = tuple(reader.buildings(self.buildings)), tuple(self._bays())
        crossings_m = self._crossings_m()
        soils = tuple(
            Layer(*_SOILS[name], shapely.union_all(self.soils[name]))
            for name in _SOILS
            if name in self.soils
        )
        solid = [layer.area for layer in soils if layer.material != "grass"]
        places = Places(
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

    def _pave(self, mark: Mark, row: Row) -> None:
        layer = _GROUND_OF_AREA[mark.name]
        is_line = mark.shape != "fill"
        area = row.geometry.buffer(mark.width_m / 2) if is_line else row.geometry
        self.ground[layer].append(area)
        highway = row.tags.get("highway", row.tags.get("area:highway", ""))
        usual = _USUAL_SURFACES.get(highway, "asphalt" if layer == "roads" else "slabs")
        surface = _SURFACES.get(row.tags.get("surface", ""), usual)
        self.surfaces.setdefault((layer, surface), []).append(area)
        if mark.name == "parking":
            self.car_parks += polygons_of(row.geometry)
        if is_line and mark.name == "path":
            lines = list(lines_of(row.geometry))
            if row.tags.get("footway") == "crossing" or row.tags.get("path") == "crossing":
                if _is_marked(row.tags):
                    self.crossing_ways += lines
            else:
                self.footways += lines
        if is_line and mark.name == "road":
            self._drive(mark.width_m, row)

    def _drive(self, width_m: float, row: Row) -> None:
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
        for line in lines_of(row.geometry):
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

    def _fence(self, name: str, row: Row) -> None:
        class_name, usual_m = _BARRIERS[name]
        height_m = self._stated(row.tags, "height", MAX_BARRIER_M, usual_m)
        self.barriers += [
            Barrier(line, height_m, class_name) for line in lines_of(row.geometry) if line.length
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
            for part in lines_of(line)
        )

    def _tree(self, row: Row, x_m: float, y_m: float) -> Tree:
        height_m = self._stated(row.tags, "height", MAX_TREE_M, TREE_HEIGHT_M)
        crown_m = self._stated(row.tags, "diameter_crown", MAX_CROWN_M, CROWN_DIAMETER_M)
        return Tree(x_m, y_m, height_m, crown_m / 2, _leaves(row.tags))

    def _plant_row(self, row: Row) -> None:
        for line in lines_of(row.geometry):
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
