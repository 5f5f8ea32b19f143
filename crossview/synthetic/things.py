"""What stands in a town, and the streets to drive on, one by one, in local metres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossview.synthetic.fixtures import POSTS
from crossview.synthetic.materials import MATERIALS
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.roofs import FLAT, Roof, fits

if TYPE_CHECKING:
    from shapely import LineString, Polygon
    from shapely.geometry.base import BaseGeometry

TREE_HEIGHT_M = 8.0
CROWN_DIAMETER_M = 5.0
"""What is usual, where a map does not tell."""


@dataclass(frozen=True)
class Building:
    """Walls around a footprint, up to one height, and a roof.

    Args:
        footprint: A polygon, in local metres.
        height_m: Of the highest point above the ground, the roof's.
        base_m: Of the underside above the ground, of a part that does not stand on it.
        roof: What covers it; its height is part of `height_m`.
        wall_material: One of materials.MATERIALS.
        roof_material: One of materials.MATERIALS.
    """

    footprint: Polygon
    height_m: float
    base_m: float = 0.0
    roof: Roof = FLAT
    wall_material: str = "plaster"
    roof_material: str = "roof_gravel"

    def __post_init__(self) -> None:
        if self.footprint.geom_type != "Polygon" or self.footprint.is_empty:
            raise ValueError(
                f"A building stands on a polygon, got a {self.footprint.geom_type}. Split a "
                "multipolygon into one building per part."
            )
        if not 0 < self.height_m < np.inf:
            raise ValueError(f"height_m must be positive metres, got {self.height_m}.")
        if not 0 <= self.base_m <= self.height_m - self.roof.height_m:
            raise ValueError(
                f"A building of {self.height_m} m from {self.base_m} m has no room for a roof of "
                f"{self.roof.height_m} m."
            )
        if not fits(self.footprint, self.roof):
            raise ValueError(
                f"A {self.roof.shape} roof does not fit this footprint; see roofs.fits. Use a flat "
                "roof."
            )
        for material in (self.wall_material, self.roof_material):
            if material not in MATERIALS:
                raise ValueError(
                    f"{material!r} is no material; expected one of {', '.join(MATERIALS)}."
                )


@dataclass(frozen=True)
class Tree:
    """A trunk and an ellipsoid of leaves above it.

    Args:
        x_m: East.
        y_m: North.
        height_m: Of the top.
        crown_radius_m: In the plane.
        leaves: "leaves" or "needles".
    """

    x_m: float
    y_m: float
    height_m: float = TREE_HEIGHT_M
    crown_radius_m: float = CROWN_DIAMETER_M / 2
    leaves: str = "leaves"

    def __post_init__(self) -> None:
        if not (0 < self.height_m < np.inf and 0 < self.crown_radius_m < np.inf):
            raise ValueError(f"A tree has a positive height and crown in metres, got {self}.")
        if self.leaves not in ("leaves", "needles"):
            raise ValueError(f'leaves is {self.leaves!r}; expected "leaves" or "needles".')


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
class Post:
    """Something slim that stands upright.

    Args:
        kind: A name in fixtures.POSTS: "lamp", "signal", "sign", "pole" or "bollard".
        x_m: East.
        y_m: North.
        facing_deg: Where its face or arm points, clockwise from the frame's north.
    """

    kind: str
    x_m: float
    y_m: float
    facing_deg: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in POSTS:
            raise ValueError(f"kind is {self.kind!r}; expected one of {', '.join(POSTS)}.")


@dataclass(frozen=True)
class Carriageway:
    """A street to drive on.

    Args:
        line: Its centre line; one-way streets run along it.
        width_m: From kerb to kerb.
        lanes: How many, both ways together.
        is_oneway: Driven along the line only.
        sidewalks_m: Width of the sidewalk on the left and on the right; 0 where there is none.
        parking: Whether cars park at the left and at the right kerb; None where not known.
        highway: What kind of street, as OpenStreetMap names it.
    """

    line: LineString
    width_m: float
    lanes: int = 2
    is_oneway: bool = False
    sidewalks_m: tuple[float, float] = (0.0, 0.0)
    parking: tuple[bool | None, bool | None] = (None, None)
    highway: str = "residential"


@dataclass(frozen=True)
class Bay:
    """Room for a parked car: the middle, where it heads, its length and width."""

    x_m: float
    y_m: float
    heading_deg: float
    length_m: float = 5.0
    width_m: float = 2.5
