"""What a camera could see in a town: walls, crowns and ground, on a plane, in metres."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.features import MapFeatures
from crossview.frames import LocalFrame
from crossview.legends import BUILDING, CROSSVIEW, Mark
from crossview.synthetic.buildings import add_buildings
from crossview.synthetic.furniture import add_barriers, add_trees
from crossview.synthetic.ground import Layer, ground_mesh
from crossview.synthetic.mesh import Mesh, MeshBuilder
from crossview.synthetic.palette import CLASSES
from crossview.tags import Tags, length_m

if TYPE_CHECKING:
    from shapely import Polygon
    from shapely.geometry.base import BaseGeometry

BUILDING_HEIGHT_M = 8.0
TREE_HEIGHT_M = 8.0
CROWN_DIAMETER_M = 5.0
SIDEWALK_WIDTH_M = 2.0
"""What is usual, where a map does not tell."""

MARGIN_M = 50.0
"""By which the ground's triangles reach beyond everything that stands on it."""

_GROUND_OF_AREA = {
    # class of the crossview legend: layer of the scene; everything else is terrain
    "road": "roads",
    "parking": "roads",
    "path": "sidewalks",
    "water": "water",
    "stream": "water",
}
_BARRIERS = {
    # class of the crossview legend: what it looks like, and its usual height in metres
    "fence": ("fence", 1.2),
    "hedge": ("vegetation", 1.5),
    "wall": ("wall", 1.8),
}


def _nothing() -> BaseGeometry:
    from shapely import Polygon

    return Polygon()


@dataclass(frozen=True)
class Building:
    """Walls around a footprint, up to one height."""

    footprint: Polygon
    height_m: float

    def __post_init__(self) -> None:
        if self.footprint.geom_type != "Polygon" or self.footprint.is_empty:
            raise ValueError(
                f"A building stands on a polygon, got a {self.footprint.geom_type}. Split a "
                "multipolygon into one building per part."
            )
        if not 0 < self.height_m < np.inf:
            raise ValueError(f"height_m must be positive metres, got {self.height_m}.")


@dataclass(frozen=True)
class Tree:
    """A trunk and an ellipsoid of leaves above it."""

    x_m: float
    y_m: float
    height_m: float = TREE_HEIGHT_M
    crown_radius_m: float = CROWN_DIAMETER_M / 2

    def __post_init__(self) -> None:
        if not (0 < self.height_m < np.inf and 0 < self.crown_radius_m < np.inf):
            raise ValueError(f"A tree has a positive height and crown in metres, got {self}.")


@dataclass(frozen=True)
class Barrier:
    """A fence, a wall or a hedge along a line.

    Args:
        line: Polyline in local metres.
        height_m: Of its top.
        class_name: What it looks like: "fence", "wall", "vegetation" or another class.
    """

    line: BaseGeometry
    height_m: float
    class_name: str = "fence"

    def __post_init__(self) -> None:
        if not 0 < self.height_m < np.inf:
            raise ValueError(f"height_m must be positive metres, got {self.height_m}.")
        if self.class_name not in CLASSES:
            raise ValueError(
                f"class_name is {self.class_name!r}; expected one of {', '.join(CLASSES)}."
            )


@dataclass(frozen=True)
class Scene:
    """A town on a plane, in local metres: x east, y north, the ground at height 0.

    Args:
        buildings: What hides everything behind it up to its height.
        trees: Seen as vegetation.
        barriers: Low walls.
        roads: Carriageways, as one geometry.
        sidewalks: Where people walk; a road on top of it is road.
        water: A road or sidewalk on top of it is a bridge. All other ground is terrain.
    """

    buildings: tuple[Building, ...] = ()
    trees: tuple[Tree, ...] = ()
    barriers: tuple[Barrier, ...] = ()
    roads: BaseGeometry = field(default_factory=_nothing)
    sidewalks: BaseGeometry = field(default_factory=_nothing)
    water: BaseGeometry = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        import shapely

        for ground in (self.roads, self.sidewalks, self.water):
            shapely.prepare(ground)

    @functools.cached_property
    def bounds_m(self) -> tuple[float, float, float, float]:
        """West, south, east and north of everything, grown by 50 m."""
        import shapely

        lines = [barrier.line for barrier in self.barriers]
        shapes = [building.footprint for building in self.buildings] + lines
        places = [(tree.x_m, tree.y_m) for tree in self.trees] or [(0.0, 0.0)] * (not shapes)
        shapes += [self.roads, self.sidewalks, self.water, shapely.MultiPoint(places)]
        west, south, east, north = shapely.total_bounds(shapes).tolist()
        return west - MARGIN_M, south - MARGIN_M, east + MARGIN_M, north + MARGIN_M

    @functools.cached_property
    def mesh(self) -> Mesh:
        """Everything as triangles and ellipsoids; the ground fills the rectangle `bounds_m`."""
        builder = MeshBuilder()
        instance = add_buildings(builder, self.buildings, 1)
        instance = add_trees(builder, self.trees, instance)
        add_barriers(builder, self.barriers, instance)
        layers = (
            Layer("road", "asphalt", self.roads),
            Layer("sidewalk", "slabs", self.sidewalks),
            Layer("background", "water", self.water),
        )
        ground = ground_mesh(layers, self.bounds_m, rest=("terrain", "soil"))
        return Mesh.joined([ground, builder.mesh()])

    @classmethod
    def from_features(cls, features: MapFeatures, frame: LocalFrame) -> Scene:
        """The scene that a map describes.

        What a feature is, and how wide a street is, says the "crossview" legend. Buildings,
        trees and barriers without a height get a usual one; streets have sidewalks unless they
        say that they have none.

        Args:
            features: As crossview.osm reads them.
            frame: Where the metres of the scene are.
        """
        import shapely

        def to_local(lon_lat: np.ndarray) -> np.ndarray:
            return np.column_stack(frame.to_local(lon_lat[:, 1], lon_lat[:, 0]))

        table = features.table
        geometries = shapely.transform(table.geometry.to_numpy(), to_local)
        parts = _Parts()
        for kind, feature_tags, height_m, geometry in zip(
            table["kind"], table["tags"], table["height_m"], geometries, strict=True
        ):
            for mark in CROSSVIEW.marks(kind, feature_tags):
                parts.add(mark, feature_tags, height_m, geometry)
        return parts.scene()


@dataclass
class _Parts:
    """Features sorted by what they look like from the street."""

    buildings: list[Building] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)
    ground: dict[str, list[BaseGeometry]] = field(
        default_factory=lambda: {"roads": [], "sidewalks": [], "water": []}
    )

    def add(self, mark: Mark, feature_tags: Tags, height_m: float, geometry: Any) -> None:
        """Add what one feature leaves."""
        if mark.name == BUILDING:
            height_m = _usual(height_m, BUILDING_HEIGHT_M)
            # a repaired outline may hold stray lines beside its polygons
            polygons = (part for part in _parts_of(geometry) if part.geom_type == "Polygon")
            self.buildings += [Building(polygon, height_m) for polygon in polygons]
        elif mark.name in _GROUND_OF_AREA:
            self._pave(mark, feature_tags, geometry)
        elif mark.name in _BARRIERS:
            class_name, usual_m = _BARRIERS[mark.name]
            height_m = _usual(length_m(feature_tags.get("height")), usual_m)
            self.barriers += [Barrier(line, height_m, class_name) for line in _lines_of(geometry)]
        elif mark.name == "tree":
            height_m = _usual(length_m(feature_tags.get("height")), TREE_HEIGHT_M)
            crown_m = _usual(length_m(feature_tags.get("diameter_crown")), CROWN_DIAMETER_M)
            self.trees.append(Tree(geometry.x, geometry.y, height_m, crown_m / 2))

    def scene(self) -> Scene:
        """Everything that was added."""
        import shapely

        return Scene(
            tuple(self.buildings),
            tuple(self.trees),
            tuple(self.barriers),
            **{layer: shapely.union_all(areas) for layer, areas in self.ground.items()},
        )

    def _pave(self, mark: Mark, feature_tags: Tags, geometry: BaseGeometry) -> None:
        if mark.shape == "fill":
            self.ground[_GROUND_OF_AREA[mark.name]].append(geometry)
            return
        half_m = mark.width_m / 2
        self.ground[_GROUND_OF_AREA[mark.name]].append(geometry.buffer(half_m))
        if mark.name == "road" and feature_tags.get("sidewalk") not in ("no", "none"):
            stated_m = length_m(feature_tags.get("sidewalk:both:width"))
            strip_m = half_m + _usual(stated_m, SIDEWALK_WIDTH_M)
            self.ground["sidewalks"].append(geometry.buffer(strip_m))


def _usual(stated_m: float, usual_m: float) -> float:
    """What is stated, if it is (NaN is not)."""
    return stated_m if stated_m > 0 else usual_m


def _parts_of(geometry: Any) -> Iterator[Any]:
    """The polygons or lines of a geometry, one by one."""
    yield from (part for part in getattr(geometry, "geoms", [geometry]) if not part.is_empty)


def _lines_of(geometry: Any) -> Iterator[Any]:
    """The lines of a barrier; of an area (a hedge drawn as a polygon) its rings."""
    is_area = geometry.geom_type in ("Polygon", "MultiPolygon")
    yield from _parts_of(geometry.boundary if is_area else geometry)
