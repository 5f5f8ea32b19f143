"""Where posts and trees of a map stand, and trees that are invented for its woods and parks."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import angles
from crossview.synthetic.mesh import turned
from crossview.synthetic.survey_rows import Row
from crossview.synthetic.things import Building, Carriageway, Post, Tree
from crossview.tags import Tags

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

MAX_SCATTERED_TREES = 100_000
"""Trees that are invented for woods and parks; of more, all areas get fewer."""


class Places:
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

    def posts(self, wanted: Sequence[tuple[str, Row]], notes: Counter[str]) -> tuple[Post, ...]:
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
        self, mapped: Sequence[Tree], woods: Sequence[tuple[float, Row]], notes: Counter[str]
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

    def _scattered(self, row: Row, spacing_m: float) -> Iterator[Tree]:
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
