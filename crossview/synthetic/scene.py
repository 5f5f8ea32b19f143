"""What a camera could see in a town: walls, crowns and ground, on a plane, in metres."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from crossview.features import MapFeatures
from crossview.frames import LocalFrame
from crossview.synthetic.fixtures import add_barriers, add_benches, add_posts, add_trees
from crossview.synthetic.ground import Layer, ground_mesh
from crossview.synthetic.mesh import Mesh, MeshBuilder
from crossview.synthetic.solids import add_buildings
from crossview.synthetic.survey import in_words, surveyed
from crossview.synthetic.survey_buildings import STOREYS
from crossview.synthetic.things import Barrier, Bay, Building, Carriageway, Post, Tree

if TYPE_CHECKING:
    from shapely import LineString
    from shapely.geometry.base import BaseGeometry

MARGIN_M = 50.0
"""By which the ground's triangles reach beyond everything that stands on it."""


_MAKING_MESH = threading.Lock()
_log = logging.getLogger(__name__)

__all__ = ("STOREYS", "Barrier", "Bay", "Building", "Carriageway", "Post", "Scene", "Tree")


def _nothing() -> BaseGeometry:
    from shapely import Polygon

    return Polygon()


@dataclass(frozen=True)
class Scene:
    """A town on a plane, in local metres: x east, y north, the ground at height 0.

    Args:
        buildings: What hides everything behind it up to its height.
        trees: Seen as vegetation.
        barriers: Low walls.
        roads: Carriageways and car parks, as one geometry.
        sidewalks: Where people walk; a road on top of it is road.
        water: A road or sidewalk on top of it is a bridge. All other ground is terrain.
        markings: Layers on top of roads, the uppermost first: lane markings, crossings, surfaces.
        pavings: Layers between roads and sidewalks: kerbs, surfaces of paths.
        soils: Layers below water: lawns, sand, pitches, tracks.
        posts: Lamps, lights, signs and poles.
        benches: Where benches stand, (x_m, y_m, facing_deg).
        carriageways: The streets to drive on.
        footways: Centre lines of what is walked on beside sidewalks of streets.
        bays: Room for parked cars.
        crossings_m: Where people cross streets on stripes, (x_m, y_m).
        shops_m: Where shops are, (x_m, y_m).
        notes: What a map said that cannot be, and how often, and what was made of it.
    """

    buildings: tuple[Building, ...] = ()
    trees: tuple[Tree, ...] = ()
    barriers: tuple[Barrier, ...] = ()
    roads: BaseGeometry = field(default_factory=_nothing)
    sidewalks: BaseGeometry = field(default_factory=_nothing)
    water: BaseGeometry = field(default_factory=_nothing)
    markings: tuple[Layer, ...] = ()
    pavings: tuple[Layer, ...] = ()
    soils: tuple[Layer, ...] = ()
    posts: tuple[Post, ...] = ()
    benches: tuple[tuple[float, float, float], ...] = ()
    carriageways: tuple[Carriageway, ...] = ()
    footways: tuple[LineString, ...] = ()
    bays: tuple[Bay, ...] = ()
    crossings_m: tuple[tuple[float, float], ...] = ()
    shops_m: tuple[tuple[float, float], ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        import shapely

        for ground in (self.roads, self.sidewalks, self.water):
            shapely.prepare(ground)

    @classmethod
    def from_features(
        cls, features: MapFeatures, frame: LocalFrame, *, storeys: Sequence[int] = ()
    ) -> Scene:
        """The scene that a map describes, up to 200 m beyond the map's extent.

        What a feature is, and how wide a street is, says the "crossview" legend. What has no
        height gets a usual one; streets have sidewalks unless they say that they have none or are
        of a kind that has none. Bridges lie flat on the ground; what is underground is left out.
        Tags that cannot be true are counted in `notes` and logged, never an error.

        Args:
            features: As crossview.osm reads them.
            frame: Where the metres of the scene are.
            storeys: Numbers of storeys of which one is drawn for each building whose height is not
                known, by its identity, such as STOREYS; what is smaller than 40 m2 has one. Without
                them all these buildings are 8 m high.

        Raises:
            OutOfRegionError: The map's extent reaches farther than the frame serves.
        """
        scene = cls(**surveyed(features, frame, storeys))
        if scene.notes:
            _log.warning("%s: %s.", features.source, in_words(scene.notes))
        return scene

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The ground, the uppermost layer first; what none covers is terrain, bare soil."""
        return (
            *self.markings,
            Layer("road", "asphalt", self.roads),
            *self.pavings,
            Layer("sidewalk", "slabs", self.sidewalks),
            Layer("background", "water", self.water),
            *self.soils,
        )

    @functools.cached_property
    def bounds_m(self) -> tuple[float, float, float, float]:
        """West, south, east and north of everything, grown by 50 m."""
        import shapely

        shapes: list[BaseGeometry] = [building.footprint for building in self.buildings]
        shapes += [barrier.line for barrier in self.barriers]
        shapes += [layer.area for layer in self.layers]
        places = [(tree.x_m, tree.y_m) for tree in self.trees]
        places += [(post.x_m, post.y_m) for post in self.posts]
        places += [(x_m, y_m) for x_m, y_m, _ in self.benches]
        shapes.append(shapely.MultiPoint(places))
        bounds_m = shapely.total_bounds(shapes)
        west, south, east, north = np.nan_to_num(bounds_m).tolist()  # of nothing: a lawn
        return west - MARGIN_M, south - MARGIN_M, east + MARGIN_M, north + MARGIN_M

    @property
    def mesh(self) -> Mesh:
        """Everything that stands still, as triangles and ellipsoids; made once, by one thread.

        The ground fills the rectangle `bounds_m`; instances count from 1.
        """
        if "_mesh" not in vars(self):
            with _MAKING_MESH:
                return self._mesh
        return self._mesh

    @functools.cached_property
    def _mesh(self) -> Mesh:
        builder = MeshBuilder()
        instance = add_buildings(builder, self.buildings, 1, self.shops_m)
        instance = add_trees(builder, self.trees, instance)
        instance = add_barriers(builder, self.barriers, instance)
        instance = add_posts(builder, self.posts, instance)
        add_benches(builder, self.benches, instance)
        ground = ground_mesh(self.layers, self.bounds_m, rest=("terrain", "soil"))
        return Mesh.joined([ground, builder.mesh()])
