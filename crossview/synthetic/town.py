"""A made-up town of about 400 x 400 m: as OpenStreetMap XML, and places in it to stand at."""

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
from crossview.synthetic.lots import FILLERS, Drawing, plant_along_streets
from crossview.synthetic.plan import Area, Dice, Plan, Point, Street, Tags, distance_to_line_m
from crossview.synthetic.streets import BLOCKS_PER_SIDE, Block, StreetNetwork

ANCHOR_LAT_DEG = 50.0
ANCHOR_LON_DEG = 8.0
"""Where the town is said to lie; in truth there are fields."""

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
    """

    plan: Plan
    frame: LocalFrame

    @classmethod
    def from_seed(
        cls, seed: int, *, lat_deg: float = ANCHOR_LAT_DEG, lon_deg: float = ANCHOR_LON_DEG
    ) -> Town:
        """The town of a seed; the same one on every machine.

        Bent streets of different widths with lanes between them, on the blocks rows of houses,
        gardens, courts, offices, a church and parks with a pond. No building overlaps another
        (row houses share walls) or a carriageway.

        Args:
            seed: A whole number from 0.
            lat_deg: Latitude of the middle.
            lon_deg: Longitude of the middle.
        """
        return cls(_town_plan(Dice(seed)), LocalFrame(lat_deg, lon_deg))

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
        radius_m: float = 140.0,
    ) -> tuple[Pose, ...]:
        """Places on the centre lines of streets, looking along or oblique to them.

        Args:
            count: How many.
            seed: Of the draw.
            clearance_m: Least distance to any wall.
            heading_spread_deg: The heading is that of the street, one way or the other, plus a
                uniform draw of up to this.
            radius_m: Farthest from the middle of the town.

        Raises:
            ValueError: The town has no such place, or too few to find them by chance.
        """
        dice = Dice(seed)
        rings = [ring for area in self.plan.buildings for ring in (area.outer, *area.inner)]
        walls = [(*ring, ring[0]) for ring in rings]
        poses: list[Pose] = []
        for _ in range(count * _MAX_DRAWS_PER_VIEWPOINT):
            if len(poses) == count:
                break
            pose = _pose_on_street(dice, self.plan.streets, heading_spread_deg)
            position = complex(pose.x_m, pose.y_m)
            if abs(position) <= radius_m and all(
                distance_to_line_m(position, wall) >= clearance_m for wall in walls
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


def _pose_on_street(dice: Dice, streets: Sequence[Street], heading_spread_deg: float) -> Pose:
    """A uniform draw from all centre lines."""
    segments = [
        (complex(*start), complex(*end))
        for street in streets
        for start, end in itertools.pairwise(street.line)
    ]
    left_m = dice.between(0.0, math.fsum(abs(end - start) for start, end in segments))
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
