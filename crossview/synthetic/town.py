"""A made-up town: as OpenStreetMap XML, with places in it to stand at."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossview import angles
from crossview.frames import LocalFrame, Pose
from crossview.osm import MADE_UP_GENERATOR
from crossview.synthetic.cells import Buckets
from crossview.synthetic.growth import PATTERNS, check_size_m, grown_plan
from crossview.synthetic.lots import FILLERS, Drawing, plant_along_streets
from crossview.synthetic.plan import (
    Area,
    Dice,
    Place,
    Plan,
    Point,
    Street,
    Tags,
    distance_to_line_m,
)
from crossview.synthetic.streets import BLOCKS_PER_SIDE, Block, StreetNetwork

ANCHOR_LAT_DEG = 50.0
ANCHOR_LON_DEG = 8.0
"""Where the town is said to lie; in truth there are fields."""

LATTICE = "lattice"
LATTICE_SIZE_M = 370.0
DEFAULT_SIZE_M = 700.0
"""Of the towns of other patterns."""

_VIEWPOINT_RADIUS_M = 140.0
_LANDMARK_BLOCKS = ("park",) * 2 + ("court",) * 3 + ("offices",) * 4 + ("church",)
_SPLIT_ABOVE_M = 78.0
_BOUNDS_MARGIN_M = 10.0
_MAX_DRAWS_PER_VIEWPOINT = 1000


@dataclass(frozen=True)
class Town:
    """A made-up town.

    Args:
        plan: What stands where, in the frame's metres.
        frame: The frame; its anchor is the middle of the town.
        size_m: Side of the square that the town about fills.
    """

    plan: Plan
    frame: LocalFrame
    size_m: float = LATTICE_SIZE_M

    @classmethod
    def from_seed(
        cls,
        seed: int,
        *,
        pattern: str = LATTICE,
        size_m: float | None = None,
        lat_deg: float = ANCHOR_LAT_DEG,
        lon_deg: float = ANCHOR_LON_DEG,
    ) -> Town:
        """The town of a seed; the same one on every machine.

        Streets of different widths, and blocks between them: rows of houses, gardens, courts,
        offices, a church, parks with a pond. No building overlaps another (row houses share
        walls) or a carriageway.

        The "lattice" is a small town of bent streets. The other patterns are of any size and hold
        much more: a hierarchy of streets with dead ends, one-way streets and roundabouts,
        footways, squares, often a river with bridges; slabs and towers, industry, schools,
        allotments, cemeteries, pitches, car parks; roofs, fences, lamps, crossings, stops; tags
        with the gaps that real maps have.

        Args:
            seed: A whole number from 0.
            pattern: "lattice"; "grid", two families of parallel streets; "organic", curved
                streets around a market place; "mixed", an organic core and districts of grids.
            size_m: Side of the square that the town fills, before that is bent or turned; 300 to
                2500, default 700. A lattice has its own.
            lat_deg: Latitude of the middle.
            lon_deg: Longitude of the middle.

        Raises:
            ValueError: There is no such pattern, or no town of that size.
        """
        frame = LocalFrame(lat_deg, lon_deg)
        if pattern == LATTICE:
            if size_m is not None:
                raise ValueError(
                    f"size_m is {size_m}, but a lattice is always {LATTICE_SIZE_M:.0f} m wide. "
                    f"Leave it out, or choose the pattern {', '.join(PATTERNS)}."
                )
            return cls(_town_plan(Dice(seed)), frame)
        if pattern not in PATTERNS:
            raise ValueError(
                f"No street pattern is called {pattern!r}. There are: "
                f"{', '.join((LATTICE, *PATTERNS))}."
            )
        side_m = check_size_m(DEFAULT_SIZE_M if size_m is None else size_m)
        return cls(grown_plan(Dice(seed), pattern, side_m), frame, side_m)

    def to_osm_xml(self) -> bytes:
        """The town as an OSM file: what an export of a real one would hold.

        Streets that meet and walls that are shared share nodes; the building around a court is
        a multipolygon relation. Node, way and relation ids each count from 1, as the id spaces
        of OpenStreetMap are independent. Coordinates have 7 decimals (1 cm).
        """
        return _Document(self).to_xml()

    def write(self, path: Path | str) -> None:
        """Write the OSM file."""
        Path(path).write_bytes(self.to_osm_xml())

    def viewpoints(
        self,
        count: int,
        *,
        seed: int,
        clearance_m: float = 4.0,
        heading_spread_deg: float = 30.0,
        radius_m: float | None = None,
    ) -> tuple[Pose, ...]:
        """Places on the centre lines of streets, looking along or oblique to them.

        Args:
            count: How many.
            seed: Of the draw.
            clearance_m: Least distance to any wall.
            heading_spread_deg: The heading is that of the street, one way or the other, plus a
                uniform draw of up to this.
            radius_m: Farthest from the middle of the town; default, 140 m for a lattice, and as
                much more as another town is larger.

        Raises:
            ValueError: The town has no such place, or too few to find them by chance.
        """
        if radius_m is None:
            radius_m = _VIEWPOINT_RADIUS_M * self.size_m / LATTICE_SIZE_M
        dice = Dice(seed)
        walls: Buckets[tuple[Point, ...]] = Buckets()
        for area in self.plan.buildings:
            for ring in (area.outer, *area.inner):
                walls.add((*ring, ring[0]), [complex(*point) for point in ring], clearance_m)
        segments = _segments(self.plan.streets)
        total_m = math.fsum(abs(end - start) for start, end in segments)
        poses: list[Pose] = []
        for _ in range(count * _MAX_DRAWS_PER_VIEWPOINT):
            if len(poses) == count:
                break
            pose = _pose_on_street(dice, segments, total_m, heading_spread_deg)
            position = complex(pose.x_m, pose.y_m)
            if abs(position) <= radius_m and all(
                distance_to_line_m(position, wall) >= clearance_m for wall in walls.at(position)
            ):
                poses.append(pose)
        if len(poses) < count:
            raise ValueError(
                f"Found {len(poses)} of {count} places on streets {clearance_m} m from all walls "
                f"and within {radius_m} m of the middle. Lower clearance_m or raise radius_m."
            )
        return tuple(poses)


def _town_plan(dice: Dice) -> Plan:
    network = StreetNetwork(dice)
    drawing = Drawing()
    for kind, block in _blocks(network, dice):
        # blocks lie apart, so that each is filled without a look at the others
        block_drawing = Drawing()
        FILLERS[kind](block_drawing, dice, block)
        drawing.extend(block_drawing)
    streets = network.streets()
    plant_along_streets(drawing, dice, streets)
    return Plan(
        streets=streets,
        buildings=tuple(drawing.buildings),
        areas=tuple(drawing.areas),
        lines=tuple(drawing.lines),
        places=tuple(drawing.places),
    )


def _blocks(network: StreetNetwork, dice: Dice) -> list[tuple[str, Block]]:
    """What every block is for; long blocks of houses are split by a lane."""
    sides = range(BLOCKS_PER_SIDE)
    lattice = dice.shuffled([network.block(i, j) for i in sides for j in sides])
    blocks = list(zip(_LANDMARK_BLOCKS, lattice, strict=False))
    for block in lattice[len(_LANDMARK_BLOCKS) :]:
        if block.longest_edge_m > _SPLIT_ABOVE_M and dice.chance(0.6):
            blocks += [(_houses(dice), half) for half in network.split(block, dice)]
        else:
            blocks.append((_houses(dice), block))
    return blocks


def _houses(dice: Dice) -> str:
    return "rows" if dice.chance(0.55) else "gardens"


def _segments(streets: Sequence[Street]) -> list[tuple[complex, complex]]:
    return [
        (complex(*start), complex(*end))
        for street in streets
        for start, end in itertools.pairwise(street.line)
    ]


def _pose_on_street(
    dice: Dice,
    segments: Sequence[tuple[complex, complex]],
    total_m: float,
    heading_spread_deg: float,
) -> Pose:
    """A uniform draw from all centre lines, total_m long."""
    left_m = dice.between(0.0, total_m)
    for start, end in segments:
        length_m = abs(end - start)
        if left_m <= length_m:
            break
        left_m -= length_m
    along = (end - start) / length_m
    position = start + min(left_m, length_m) * along
    heading_deg = float(angles.heading_of(along.real, along.imag))
    heading_deg += 180.0 if dice.chance(0.5) else 0.0
    heading_deg += dice.between(-heading_spread_deg, heading_spread_deg)
    return Pose(position.real, position.imag, heading_deg)


class _Document:
    """Nodes, ways and relations of a town, in the order of their ids."""

    def __init__(self, town: Town) -> None:
        self._frame = town.frame
        self._points: list[Point] = []
        self._node_tags: list[Tags] = []
        self._shared: dict[Point, int] = {}
        self._ways: list[tuple[list[int], Tags]] = []
        self._relations: list[tuple[list[tuple[int, str]], Tags]] = []
        for street in town.plan.streets:
            self._add_way(street.line, street.tags)
        for line in town.plan.lines:
            self._add_way(line.line, line.tags)
        for area in (*town.plan.buildings, *town.plan.areas):
            self._add_area(area)
        for mark in town.plan.marks:
            self._mark(mark)
        for place in town.plan.places:
            self._add_node(place.point, place.tags)

    def to_xml(self) -> bytes:
        lines = [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<osm version="0.6" generator="{MADE_UP_GENERATOR}">',
            self._bounds(),
            *self._node_lines(),
            *self._way_lines(),
            *self._relation_lines(),
            "</osm>",
        ]
        return ("\n".join(lines) + "\n").encode()

    def _add_node(self, point: Point, tags: Tags) -> int:
        self._points.append(point)
        self._node_tags.append(tags)
        return len(self._points)

    def _mark(self, mark: Place) -> None:
        """Give tags to a node of the ways."""
        if mark.point not in self._shared:
            raise RuntimeError(f"{mark} is on no way of the town.")
        node = self._shared[mark.point]
        self._node_tags[node - 1] = {**self._node_tags[node - 1], **mark.tags}

    def _add_way(self, points: Iterable[Point], tags: Tags) -> int:
        nodes = []
        for point in points:
            if point not in self._shared:
                self._shared[point] = self._add_node(point, {})
            nodes.append(self._shared[point])
        self._ways.append((nodes, tags))
        return len(self._ways)

    def _add_area(self, area: Area) -> None:
        if not area.inner:
            self._add_way((*area.outer, area.outer[0]), area.tags)
            return
        members = [(self._add_way((*area.outer, area.outer[0]), {}), "outer")]
        members += [(self._add_way((*ring, ring[0]), {}), "inner") for ring in area.inner]
        self._relations.append((members, {"type": "multipolygon", **area.tags}))

    def _bounds(self) -> str:
        x_m, y_m = np.array(self._points).T
        lat_deg, lon_deg = self._frame.to_geodetic(
            np.array([x_m.min() - _BOUNDS_MARGIN_M, x_m.max() + _BOUNDS_MARGIN_M]),
            np.array([y_m.min() - _BOUNDS_MARGIN_M, y_m.max() + _BOUNDS_MARGIN_M]),
        )
        south, north = lat_deg
        west, east = lon_deg
        return (
            f' <bounds minlat="{south:.7f}" minlon="{west:.7f}"'
            f' maxlat="{north:.7f}" maxlon="{east:.7f}"/>'
        )

    def _node_lines(self) -> Iterator[str]:
        lat_deg, lon_deg = self._frame.to_geodetic(*np.array(self._points).T)
        for k, tags in enumerate(self._node_tags):
            place = f'lat="{lat_deg[k]:.7f}" lon="{lon_deg[k]:.7f}"'
            yield from _element("node", f'id="{k + 1}" version="1" {place}', _tag_lines(tags))

    def _way_lines(self) -> Iterator[str]:
        for k, (nodes, tags) in enumerate(self._ways):
            content = [f'  <nd ref="{node}"/>' for node in nodes] + _tag_lines(tags)
            yield from _element("way", f'id="{k + 1}" version="1"', content)

    def _relation_lines(self) -> Iterator[str]:
        for k, (members, tags) in enumerate(self._relations):
            content = [
                f'  <member type="way" ref="{way}" role="{role}"/>' for way, role in members
            ] + _tag_lines(tags)
            yield from _element("relation", f'id="{k + 1}" version="1"', content)


def _element(name: str, attributes: str, content: Sequence[str]) -> Iterator[str]:
    if not content:
        yield f" <{name} {attributes}/>"
        return
    yield f" <{name} {attributes}>"
    yield from content
    yield f" </{name}>"


def _tag_lines(tags: Tags) -> list[str]:
    return [
        f'  <tag k="{html.escape(key)}" v="{html.escape(value)}"/>' for key, value in tags.items()
    ]
