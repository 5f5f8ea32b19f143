"""Reading OpenStreetMap files (XML and PBF) as map features."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import tags as osm_tags
from crossview.errors import MapError
from crossview.features import Feature, MapFeatures, feature_table, repaired
from crossview.legends import CROSSVIEW, MAP_KEYS
from crossview.tiles import GeoBounds

if TYPE_CHECKING:
    import geopandas

ATTRIBUTION = "© OpenStreetMap contributors"
"""Must be shown where maps made of it are (ODbL)."""

MADE_UP_GENERATOR = "crossview.synthetic"
"""What the files of made-up towns say made them."""

SUFFIXES = (".osm", ".osm.gz", ".osm.bz2", ".pbf")

MAX_EXTENT_FEATURE_DEG = 0.005
"""Features larger than this (about 500 m) stick out of extracts and say nothing of their extent."""

_WAYS_AT_ONCE = 100_000

_Position = tuple[float, float]

_log = logging.getLogger(__name__)


def read_osm(path: str | Path, bounds: GeoBounds | None = None) -> MapFeatures:
    """The features of an OpenStreetMap file: .osm, .osm.gz, .osm.bz2 or .pbf.

    Only features with a key that some legend uses are kept. A closed way is an area or a line by
    the rules of the `crossview` legend. A multipolygon relation is an area by the even-odd rule,
    whatever roles its members claim; one without tags of its own takes those of its outer ways
    (as maps until 2017 meant it). Outer ways that only repeat the relation's tags are left out:
    they would fill its holes.

    Tolerated, counted in `skipped` and logged: ways that refer to nodes outside of the file (a
    line is cut at the gap, an area dropped), relations whose rings do not close, things that
    collapse to nothing. Crossing rings are repaired. Nodes may come after ways, and ids may be
    negative.

    The extent is the one that the file's header states, else the box around all features smaller
    than 500 m.

    Args:
        path: The file.
        bounds: Keep what reaches into this box, as MapFeatures.within. Of a file that states its
            extent, no more than that is held in memory, beside the places of all nodes.

    Raises:
        MapError: The file is missing, broken or empty.
        MapOutsideError: The file does not reach the box.
    """
    path = Path(path)
    if not path.is_file():
        raise MapError(f"There is no map file {path}.")
    with _explained(path), _no_garbage_collection():
        relations = _multipolygons(path)
        members = {ref for relation in relations for ref in relation.members}
        stated_extent = _stated_extent(path)
        # an extent that is not stated depends on everything
        points, ways = _points_and_ways(path, members, bounds if stated_extent else None)
        _find_late_nodes(path, ways)
    skipped: Counter[str] = Counter()
    with _no_garbage_collection():
        features = _area_and_line_features(ways, relations, skipped) + points
    if not features and not (bounds and stated_extent):
        raise MapError(
            f"{path} holds no map feature (no building, road, water, ...). Export the area again, "
            "with its ways and nodes."
        )
    if skipped:
        counts = ", ".join(f"{number} {what}" for what, number in skipped.items())
        _log.warning("%s: left out, or cut: %s.", path, counts)
    table = feature_table(features)
    whole = MapFeatures(
        table,
        stated_extent or extent_of(table),
        str(path),
        skipped=MappingProxyType(dict(skipped)),
        attribution=_attribution(path),
    )
    return whole if bounds is None else whole.within(bounds)


def extent_of(table: geopandas.GeoDataFrame) -> GeoBounds:
    """The box around all features smaller than 500 m, of files that do not state their extent."""
    bounds = table.bounds.to_numpy()
    size_deg = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
    is_small = size_deg <= max(MAX_EXTENT_FEATURE_DEG, size_deg.min())
    west, south = bounds[is_small, :2].min(axis=0)
    east, north = bounds[is_small, 2:].max(axis=0)
    return GeoBounds(float(west), float(south), float(east), float(north))


@dataclass
class _Way:
    """A way while it is being put together.

    Args:
        osm_id: Its id.
        tags: Its tags.
        is_closed: Whether it ends at the node where it starts.
        line: All its nodes in degrees; None where one is not known or there are less than two.
        positions: (longitude, latitude) of its nodes where there is no line; None where a node is
            not known.
        refs: Ids of its nodes; empty where nobody needs them.
    """

    osm_id: int
    tags: dict[str, str]
    is_closed: bool
    line: Any
    positions: list[_Position | None]
    refs: list[int]

    @property
    def is_complete(self) -> bool:
        return None not in self.positions

    @property
    def is_feature(self) -> bool:
        return not MAP_KEYS.isdisjoint(self.tags)

    @property
    def known_positions(self) -> list[_Position]:
        if self.line is not None:
            return list(self.line.coords)
        return [position for position in self.positions if position is not None]


@dataclass
class _Relation:
    """A multipolygon relation: its tags, and the role of each member way."""

    osm_id: int
    tags: dict[str, str]
    members: dict[int, str]


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # whatever libosmium has to say
        raise MapError(
            f"{path} cannot be read as OpenStreetMap data ({error}). Expected a complete file "
            f"whose name ends in {', '.join(SUFFIXES)}; if it was downloaded, download it again."
        ) from error


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A fifth of the time would go into looking for cycles among tags, which have none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _multipolygons(path: Path) -> list[_Relation]:
    import osmium

    relations = []
    relation: Any
    for relation in osmium.FileProcessor(str(path), osmium.osm.RELATION):
        tags = dict(relation.tags)
        if not relation.deleted and tags.get("type") == "multipolygon":
            members = {m.ref: m.role for m in relation.members if m.type == "w"}
            relations.append(_Relation(relation.id, tags, members))
    return relations


def _points_and_ways(
    path: Path, members: set[int], bounds: GeoBounds | None
) -> tuple[list[Feature], dict[int, _Way]]:
    """Points, and the ways that are features (in the box) or members of relations."""
    import osmium
    import shapely

    points: list[Feature] = []
    places: list[_Position] = []
    ways: dict[int, _Way] = {}
    waiting: list[_Way] = []
    of_interest = osmium.filter.KeyFilter(*MAP_KEYS)
    of_interest.enable_for(osmium.osm.NODE)
    processor = osmium.FileProcessor(str(path), osmium.osm.NODE | osmium.osm.WAY)
    factory = osmium.geom.WKBFactory()
    west, south, east, north = bounds or (-180.0, -90.0, 180.0, 90.0)
    element: Any
    for element in processor.with_locations("flex_mem").with_filter(of_interest):
        if element.deleted:
            continue
        if element.is_node():
            location = element.location
            if not location.valid():
                continue
            place = location.lon, location.lat
            if west <= place[0] <= east and south <= place[1] <= north:
                places.append(place)
                points.append(Feature("node", element.id, "point", dict(element.tags), None))
            continue
        tags = dict(element.tags)
        if element.id in members or not MAP_KEYS.isdisjoint(tags):
            waiting.append(_way(element, tags, factory, needs_refs=element.id in members))
        if len(waiting) >= _WAYS_AT_ONCE:
            ways |= _located(waiting, members, bounds)
            waiting = []
    ways |= _located(waiting, members, bounds)
    located: Any = shapely.points(np.array(places).reshape(-1, 2))
    for feature, point in zip(points, located, strict=True):
        feature.geometry = point
    return points, ways


def _located(ways: Sequence[_Way], members: set[int], bounds: GeoBounds | None) -> dict[int, _Way]:
    """The ways with their lines decoded, without those that are of no use in the box."""
    import shapely

    whole = [way for way in ways if way.line is not None]
    lines = shapely.from_wkb([bytes.fromhex(way.line) for way in whole])
    reaches = np.ones(len(whole), bool)
    if bounds is not None:
        # a closed way around the box is an area that reaches into it
        low_lon, low_lat, high_lon, high_lat = shapely.bounds(lines).reshape(-1, 4).T
        west, south, east, north = bounds
        reaches = (low_lon <= east) & (high_lon >= west) & (low_lat <= north) & (high_lat >= south)
    useless = set()
    for way, line, is_near in zip(whole, lines, reaches.tolist(), strict=True):
        way.line = line
        if not is_near and way.osm_id not in members:
            useless.add(way.osm_id)
    return {way.osm_id: way for way in ways if way.osm_id not in useless}


def _way(way: Any, tags: dict[str, str], factory: Any, *, needs_refs: bool) -> _Way:
    """A way whose line is written as text: thousands of them are read at once."""
    import osmium

    positions: list[_Position | None] = []
    line = None
    try:
        line = factory.create_linestring(way, osmium.geom.use_nodes.ALL)
    except (osmium.InvalidLocationError, RuntimeError):  # a node is not known, or there is but one
        positions = [(n.lon, n.lat) if n.location.valid() else None for n in way.nodes]
        needs_refs = True
    is_closed = way.is_closed() and len(way.nodes) >= 4
    refs = [node.ref for node in way.nodes] if needs_refs else []
    return _Way(way.id, tags, is_closed, line, positions, refs)


def _find_late_nodes(path: Path, ways: Mapping[int, _Way]) -> None:
    """Fill in what the streaming reader misses: nodes after the ways, and with negative ids."""
    import osmium
    import shapely

    incomplete = [way for way in ways.values() if not way.is_complete]
    if not incomplete:
        return
    wanted = {ref for way in incomplete for ref in way.refs}
    found: dict[int, _Position] = {}
    node: Any
    for node in osmium.FileProcessor(str(path), osmium.osm.NODE):
        if node.id in wanted and node.location.valid():
            found[node.id] = (node.lon, node.lat)
    for way in incomplete:
        positions = [found.get(ref) for ref in way.refs]
        if None in positions or len(positions) < 2:
            way.positions = positions
        else:
            way.line, way.positions = shapely.LineString(positions), []  # type: ignore[arg-type]


def _stated_extent(path: Path) -> GeoBounds | None:
    import osmium

    with osmium.io.Reader(str(path), osmium.osm.NOTHING) as reader:
        box = reader.header().box()
    if not box.valid():
        return None
    low, high = box.bottom_left, box.top_right
    return GeoBounds(low.lon, low.lat, high.lon, high.lat)


def _attribution(path: Path) -> str:
    """Whose data it is: OpenStreetMap's, unless we made the town up."""
    import osmium

    with osmium.io.Reader(str(path), osmium.osm.NOTHING) as reader:
        is_made_up = reader.header().get("generator") == MADE_UP_GENERATOR
    return "" if is_made_up else ATTRIBUTION


def _area_and_line_features(
    ways: Mapping[int, _Way], relations: Iterable[_Relation], skipped: Counter[str]
) -> list[Feature]:
    areas, lines = [], []
    replaced: set[int] = set()
    for relation in relations:
        area = _relation_area(relation, ways, skipped)
        if area is not None:
            areas.append(area)
            replaced.update(_repeated_ways(relation, area.tags, ways))
    rings = []
    for way in ways.values():
        if not way.is_feature or way.osm_id in replaced:
            continue
        skipped["ways with missing nodes"] += not way.is_complete
        if not (way.is_closed and CROSSVIEW.is_area(way.tags)):
            line = _line(way, skipped)
            lines += [] if line is None else [line]
        elif way.is_complete:
            rings.append(way)
    areas += _ring_areas(rings)
    for area, polygon in zip(areas, repaired([a.geometry for a in areas]), strict=True):
        area.geometry = polygon
        area.height_m = osm_tags.height_m(area.tags)
        area.min_height_m = osm_tags.min_height_m(area.tags)
    remaining = [area for area in areas if not area.geometry.is_empty]
    skipped["collapsed areas"] += len(areas) - len(remaining)
    for what in [what for what, number in skipped.items() if not number]:
        del skipped[what]
    return remaining + lines


def _line(way: _Way, skipped: Counter[str]) -> Feature | None:
    import shapely

    if way.line is not None and way.line.length > 0:
        return Feature("way", way.osm_id, "line", way.tags, way.line)
    runs = [run for run in _runs(way.positions) if len(set(run)) >= 2]
    if not runs:
        skipped["ways of less than two places"] += way.is_complete
        return None
    lines = [shapely.LineString(run) for run in runs]
    geometry = lines[0] if len(lines) == 1 else shapely.MultiLineString(lines)
    return Feature("way", way.osm_id, "line", way.tags, geometry)


def _runs(positions: Sequence[_Position | None]) -> Iterator[list[_Position]]:
    """Stretches without a gap: a line is never drawn across a missing node."""
    run: list[_Position] = []
    for position in positions:
        if position is None:
            yield run
            run = []
        else:
            run.append(position)
    yield run


def _ring_areas(ways: Sequence[_Way]) -> list[Feature]:
    """Areas of closed, complete ways."""
    import shapely

    if not ways:
        return []
    coordinates, owner = shapely.get_coordinates([way.line for way in ways], return_index=True)
    polygons: Any = shapely.polygons(shapely.linearrings(coordinates, indices=owner))
    return [
        Feature("way", way.osm_id, "area", way.tags, polygon)
        for way, polygon in zip(ways, polygons, strict=True)
    ]


def _relation_area(
    relation: _Relation, ways: Mapping[int, _Way], skipped: Counter[str]
) -> Feature | None:
    tags = relation.tags
    if MAP_KEYS.isdisjoint(tags):
        tags = {**_tags_of_outer_ways(relation, ways), **tags}
        if MAP_KEYS.isdisjoint(tags):
            return None
    members = [ways[ref] for ref in relation.members if ref in ways]
    rings, all_closed = _rings([way for way in members if way.is_complete])
    all_there = len(members) == len(relation.members) and all(way.is_complete for way in members)
    skipped["relations with open rings or missing members"] += not (all_closed and all_there)
    if not rings:
        skipped["collapsed areas"] += all_closed and all_there
        return None
    return Feature("relation", relation.osm_id, "area", tags, _even_odd(rings))


def _outer_ways(relation: _Relation, ways: Mapping[int, _Way]) -> list[_Way]:
    return [ways[ref] for ref, role in relation.members.items() if role != "inner" and ref in ways]


def _tags_of_outer_ways(relation: _Relation, ways: Mapping[int, _Way]) -> dict[str, str]:
    """What all outer ways that are features agree on."""
    tagged = [set(way.tags.items()) for way in _outer_ways(relation, ways) if way.is_feature]
    return dict(set.intersection(*tagged)) if tagged else {}


def _repeated_ways(
    relation: _Relation, tags: Mapping[str, str], ways: Mapping[int, _Way]
) -> Iterator[int]:
    """Closed outer ways whose own tags only repeat what the relation says."""
    for way in _outer_ways(relation, ways):
        own = {key: value for key, value in way.tags.items() if key in MAP_KEYS}
        if own and way.is_closed and own.items() <= tags.items():
            yield way.osm_id


def _rings(ways: Iterable[_Way]) -> tuple[list[list[_Position]], bool]:
    """Simple closed rings made of ways, and whether every way found its place in one.

    A ring is cut off as soon as the walk returns to a node where it has been. Where more than two
    ends meet in a node any choice will do: by the even-odd rule, all simple rings over the same
    edges bound the same area.
    """
    rings: list[list[_Position]] = []
    open_ways: dict[int, _Way] = {}
    at_node = defaultdict(list)
    for way in ways:
        if way.is_closed:
            rings.append(way.known_positions)
        elif len(way.refs) >= 2:
            open_ways[way.osm_id] = way
            at_node[way.refs[0]].append(way.osm_id)
            at_node[way.refs[-1]].append(way.osm_id)
    all_closed = True
    while open_ways:
        start = next(iter(open_ways.values())).refs[0]
        walked, is_closed = _walk(start, open_ways, at_node)
        rings += walked
        all_closed &= is_closed
    return [simple for ring in rings for simple in _simple_rings(ring)], all_closed


def _walk(
    start: int, open_ways: dict[int, _Way], at_node: Mapping[int, Sequence[int]]
) -> tuple[list[list[_Position]], bool]:
    """Rings on a walk that takes ways until none is left, and whether each way became part of one.

    Where it is stuck, it leaves out the last way and goes on from where that began.
    """
    rings: list[list[_Position]] = []
    all_closed = True
    nodes = [start]
    pieces: list[list[_Position]] = []  # from each node to the next
    while True:
        end = nodes[-1]
        following = next((i for i in at_node[end] if i in open_ways), None)
        if following is not None:
            way = open_ways.pop(following)
            is_forward = way.refs[0] == end
            pieces.append(way.known_positions if is_forward else way.known_positions[::-1])
            nodes.append(way.refs[-1] if is_forward else way.refs[0])
            first = nodes.index(nodes[-1])
            if first < len(pieces):
                rings.append([place for piece in pieces[first:] for place in piece])
                del pieces[first:], nodes[first + 1 :]
        elif pieces:
            all_closed = False
            del pieces[-1], nodes[-1]
        else:
            return rings, all_closed


def _simple_rings(ring: Sequence[_Position]) -> Iterator[list[_Position]]:
    """A closed ring cut where it returns to a place; what goes and comes back is dropped."""
    index: dict[_Position, int] = {}
    walked: list[_Position] = []
    for position in ring:
        if position in index:
            loop = walked[index[position] :]
            del walked[index[position] :]
            for left in loop:
                del index[left]
            if len(loop) >= 3:
                yield [*loop, position]
        index[position] = len(walked)
        walked.append(position)


def _even_odd(rings: Sequence[Sequence[_Position]]) -> Any:
    """The area that lies inside of an odd number of rings."""
    import shapely

    largest, *others = sorted(map(shapely.Polygon, rings), key=lambda polygon: -polygon.area)
    with_holes = shapely.Polygon(largest.exterior, [hole.exterior for hole in others])
    if with_holes.is_valid:
        return with_holes
    side_by_side = shapely.MultiPolygon([largest, *others])
    if side_by_side.is_valid:
        return side_by_side
    area, *polygons = repaired([largest, *others])
    for polygon in polygons:
        area = shapely.symmetric_difference(area, polygon)
    return area
