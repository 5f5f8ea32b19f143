"""Reading vector tiles (Mapbox Vector Tiles in a PMTiles archive) as map features, made whole."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from crossview import tags as osm_tags
from crossview import tiles
from crossview.errors import MapError
from crossview.features import Feature, MapFeatures, bounds_text, feature_table, repaired
from crossview.legends import BUILDING, CROSSVIEW, LEGENDS, MAP_KEYS, Kind
from crossview.tiles import GeoBounds
from data_tools import pmtiles
from data_tools.pmtiles import Archive

MAX_TILES = 4096
"""Read at once. A town has a hundred, and far more is a question of memory."""

TILE_UNITS = 4096
"""Side of a tile in the integers of its coordinates, as nearly all generators have it."""

SNAP_UNITS = 1.5
"""Two tiles cut an edge at places that differ by rounding: one unit each, 0.43 m at 44 deg N."""

SHARED_SEAM = 0.5
"""Share of a seam that two pieces without ids have in common if they are one thing."""

MASK_LAYER = "mask"
"""Layer of what lies beyond the border along which an extract was cut out."""

BUILDING_LAYERS = ("building", "buildings")
"""Layers whose features need not say that they are buildings."""

_KINDS: tuple[Kind | None, ...] = (None, "point", "line", "area")
_DIMENSIONS = {"point": 0, "line": 1, "area": 2}
_MIN_PLACES = {"point": 1, "line": 2, "area": 4}
_NO_TAGS = ("pmap:", "name:")
"""Beginnings of fields that are no tags of OpenStreetMap, or names in other languages."""

_MOVE_TO, _LINE_TO, _CLOSE_PATH = 1, 2, 7
_MAX_ID = 2**63 - 1


@dataclass(frozen=True, eq=False)
class _Piece:
    """What one tile has of a feature.

    Args:
        feature_id: The tile's id of it; 0 where it has none.
        layer: Name of the layer.
        kind: "area", "line" or "point".
        tags: Keys and values of OpenStreetMap.
        tile: Column and row.
        geometry: In units of the whole zoom, x east and y south.
    """

    feature_id: int
    layer: str
    kind: Kind
    tags: tuple[tuple[str, str], ...]
    tile: tuple[int, int]
    geometry: Any

    @property
    def thing(self) -> tuple[Any, ...]:
        """What pieces of one thing have in common."""
        return (self.layer, self.feature_id) if self.feature_id else (self.layer, self.tags)


def read_vector_tiles(path: str | Path, bounds: GeoBounds | None = None) -> MapFeatures:
    """The features of vector tiles whose fields are keys of OpenStreetMap, as Protomaps' have them.

    A layer of buildings need not say that they are buildings. Every tile is cut to its square, and
    areas that tiles cut are put together again: two pieces that meet on a tile edge are one thing
    if they have one id or, without ids, the same tags and half of the edge in common. Lines and
    points stay as the tiles have them. Positions are as coarse as the tiles of the largest zoom.

    The features have `osm_type` "tile" and the tiles' own ids. `surveyed` are the classes that
    occur and that all legends know: basemaps leave out many. A layer `mask` is what is unmapped.

    Args:
        path: A PMTiles archive.
        bounds: Read only the tiles that this box touches; default, all.

    Raises:
        MapError: The file is missing, broken or empty, or has too many tiles there.
        MapOutsideError: The archive does not reach the box.
    """
    archive = pmtiles.open_archive(path)
    if archive.tile_type != "mvt":
        raise MapError(f"{path} holds {archive.tile_type} tiles; expected vector tiles (mvt).")
    with pmtiles.explained(archive.path):
        pieces = list(_pieces_of(archive, archive.extent if bounds is None else bounds))
        skipped: Counter[str] = Counter()
        features = _features(
            [p for p in pieces if p.layer != MASK_LAYER], archive.max_zoom, skipped
        )
        unmapped = _union([p.geometry for p in pieces if p.layer == MASK_LAYER], archive.max_zoom)
    if bounds is None and not features:
        raise MapError(
            f"{path} holds no map feature in its largest zoom, {archive.max_zoom}. Expected layers "
            "whose fields are keys of OpenStreetMap: building, highway, landuse, ..."
        )
    whole = MapFeatures(
        feature_table(features),
        archive.extent,
        str(path),
        surveyed=occurring_classes(features),
        skipped=MappingProxyType(dict(+skipped)),
        attribution=archive.attribution,
        unmapped=unmapped,
    )
    return whole if bounds is None else whole.within(bounds)


def occurring_classes(features: Iterable[Feature]) -> frozenset[str]:
    """The classes that some feature has and that every legend knows."""
    occurring = {
        name
        for kind, tags in {(feature.kind, tuple(feature.tags.items())) for feature in features}
        for name in CROSSVIEW.classify(kind, dict(tags))  # type: ignore[arg-type]
    }
    return frozenset(occurring).intersection(*(legend.names for legend in LEGENDS.values()))


def _pieces_of(archive: Archive, bounds: GeoBounds) -> Iterator[_Piece]:
    with archive.path.open("rb") as file:
        for column, row in _tiles_of(archive, bounds):
            tile = pmtiles.read_tile(file, archive, archive.max_zoom, column, row)
            yield from _pieces(tile or b"", column, row)


def _tiles_of(archive: Archive, bounds: GeoBounds) -> list[tuple[int, int]]:
    """Column and row of the tiles that touch what a box and an archive share."""
    sides = np.array([archive.extent, bounds], dtype=float)
    (west, south), (east, north) = sides[:, :2].max(axis=0), sides[:, 2:].min(axis=0)
    if west >= east or south >= north:
        return []
    columns, rows = tiles.tile([north, south], [west, east], archive.max_zoom)
    (left, right), (top, bottom) = columns.tolist(), rows.tolist()
    number = (right - left + 1) * (bottom - top + 1)
    if number > MAX_TILES:
        raise MapError(
            f"{archive.path} has {number:,} tiles of zoom {archive.max_zoom} in "
            f"{bounds_text(bounds)}, and up to {MAX_TILES:,} are read at once. Name a smaller area."
        )
    return [(column, row) for row in range(top, bottom + 1) for column in range(left, right + 1)]


# ------------------------------------------------------------------ one tile


def _pieces(tile: bytes, column: int, row: int) -> Iterator[_Piece]:
    for field, layer in _messages(memoryview(tile)):
        if field == 3:
            yield from _layer_pieces(layer, column, row)


def _layer_pieces(content: memoryview, column: int, row: int) -> Iterator[_Piece]:
    layer = _layer(content)
    pairs = _integers([feature.get(2, b"") for feature in layer.features])
    commands = _integers([feature.get(4, b"") for feature in layer.features])
    by_kind: dict[Kind, list[tuple[int, Any, Any]]] = {"area": [], "line": [], "point": []}
    for feature, tagged, drawn in zip(layer.features, pairs, commands, strict=True):
        kind = _KINDS[feature.get(3, 0)]
        tags = layer.tags(tagged)
        if kind is not None and (layer.name == MASK_LAYER or not MAP_KEYS.isdisjoint(tags)):
            paths = [path for path in _paths(drawn) if len(path) >= _MIN_PLACES[kind]]
            if paths:
                by_kind[kind].append((feature.get(1, 0) & _MAX_ID, tuple(tags.items()), paths))
    corner = np.array([column, row]) * TILE_UNITS
    for kind, found in by_kind.items():
        drawings = _moved(_cut_to_tile(_drawn(kind, [paths for *_, paths in found]), kind), corner)
        for (feature_id, tags_of_it, _), geometry in zip(found, drawings, strict=True):
            if not geometry.is_empty:
                yield _Piece(feature_id, layer.name, kind, tags_of_it, (column, row), geometry)


@dataclass(frozen=True)
class _Layer:
    """A layer by the numbers of the specification (Vector Tile 2.1)."""

    name: str
    features: list[dict[int, Any]]
    keys: list[str]
    values: list[str]

    def tags(self, pairs: Sequence[int]) -> dict[str, str]:
        """The tags of a feature, by the positions of its keys and values."""
        named = zip(*[iter(pairs)] * 2, strict=True)
        fields = {self.keys[key]: self.values[value] for key, value in named}
        tags = {key: text for key, text in fields.items() if text and not key.startswith(_NO_TAGS)}
        is_said = BUILDING in tags or f"{BUILDING}:part" in tags
        if self.name in BUILDING_LAYERS and not is_said:
            tags[BUILDING] = "yes"
        return tags


def _layer(content: memoryview) -> _Layer:
    layer = _Layer("", [], [], [])
    units = TILE_UNITS
    for field, value in _messages(content):
        if field == 1:
            layer = replace(layer, name=str(value, "utf-8"))
        elif field == 2:
            layer.features.append(dict(_messages(value)))
        elif field == 3:
            layer.keys.append(str(value, "utf-8"))
        elif field == 4:
            layer.values.append(_value(value))
        elif field == 5:
            units = value
    if units != TILE_UNITS:
        raise ValueError(f"tiles of {units} units; expected {TILE_UNITS}")
    return layer


def _messages(content: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of every field of a protocol buffer: an integer, or a view of bytes."""
    i = 0
    while i < len(content):
        key, i = _varint(content, i)
        wire = key & 7
        if wire == 0:
            value, i = _varint(content, i)
            yield key >> 3, value
            continue
        if wire == 2:
            length, i = _varint(content, i)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if i + length > len(content):
            raise ValueError("a field that is cut off")
        yield key >> 3, content[i : i + length]
        i += length


def _varint(content: memoryview, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[i]
        i += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, i
        shift += 7


def _integers(parts: Sequence[bytes | memoryview]) -> list[list[int]]:
    """The variable-length integers in every part, all decoded at once."""
    joined = b"".join(parts)
    if not joined:
        return [[] for _ in parts]
    values = pmtiles.varints(joined).tolist()
    ends = np.cumsum(np.frombuffer(joined, np.uint8) < 0x80)
    stops = [0, *ends[np.cumsum([len(part) for part in parts]) - 1].tolist()]
    # an empty first part has no last byte
    return [
        values[a:b] if len(part) else []
        for part, a, b in zip(parts, stops, stops[1:], strict=False)
    ]


def _value(content: memoryview) -> str:
    """A value as OSM would write it."""
    for field, value in _messages(content):
        if field == 1:
            return str(value, "utf-8")
        if field in (2, 3):
            number = np.frombuffer(value, "<f4" if field == 2 else "<f8")[0]
            return f"{number:g}"
        if field == 6:
            return str(_unsigned(value))
        if field == 7:
            return "yes" if value else "no"
        return str(value if value < 2**63 else value - 2**64)
    return ""


def _unsigned(value: int) -> int:
    """A zigzag integer with its sign."""
    return (value >> 1) ^ -(value & 1)


def _paths(commands: Sequence[int]) -> list[list[tuple[int, int]]]:
    paths: list[list[tuple[int, int]]] = []
    x = y = i = 0
    while i < len(commands):
        command, count = commands[i] & 7, commands[i] >> 3
        i += 1
        if command == _CLOSE_PATH:
            paths[-1].append(paths[-1][0])
            continue
        if command not in (_MOVE_TO, _LINE_TO):
            raise ValueError(f"a geometry with command {command}")
        for _ in range(count):
            x += _unsigned(commands[i])
            y += _unsigned(commands[i + 1])
            i += 2
            if command == _MOVE_TO:
                paths.append([(x, y)])
            else:
                paths[-1].append((x, y))
    return paths


def _doubled_area(ring: Sequence[tuple[int, int]]) -> int:
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairwise(ring))


def _drawn(kind: Kind, features: Sequence[Sequence[Sequence[tuple[int, int]]]]) -> np.ndarray:
    """What the paths of each feature draw, in units of the tile: points, lines or polygons."""
    import shapely

    if not features:
        return np.empty(0, dtype=object)
    paths = [path for feature in features for path in feature]
    owner = np.repeat(np.arange(len(features)), [len(feature) for feature in features])
    places = np.array([place for path in paths for place in path], dtype=float)
    path_of_place = np.repeat(np.arange(len(paths)), [len(path) for path in paths])
    points: Any
    lines: Any
    if kind == "point":
        points = shapely.points(places)
        return _singles(shapely.multipoints(points, indices=owner))
    if kind == "line":
        lines = shapely.linestrings(places, indices=path_of_place)
        return _singles(shapely.multilinestrings(lines, indices=owner))
    # y grows south, so the outer rings of version 2 are positive by the shoelace formula
    is_outer = np.array([_doubled_area(ring) > 0 for ring in paths])
    is_outer[np.flatnonzero(np.diff(owner, prepend=-1))] = True
    rings: Any = shapely.linearrings(places, indices=path_of_place)
    polygons: Any = shapely.polygons(rings, indices=np.cumsum(is_outer) - 1)
    return repaired(_singles(shapely.multipolygons(polygons, indices=owner[is_outer])))


def _cut_to_tile(geometry: np.ndarray, kind: Kind) -> np.ndarray:
    """What lies in the tile's own square: tiles also hold what is a little outside of it."""
    import shapely

    low_x, low_y, high_x, high_y = shapely.bounds(geometry).T
    sticks_out = (low_x < 0) | (low_y < 0) | (high_x > TILE_UNITS) | (high_y > TILE_UNITS)
    square = shapely.box(0, 0, TILE_UNITS, TILE_UNITS)
    geometry[sticks_out] = shapely.intersection(geometry[sticks_out], square)
    for i in np.flatnonzero(sticks_out):
        geometry[i] = _of_dimension(geometry[i], _DIMENSIONS[kind])
    return geometry


def _of_dimension(geometry: Any, dimension: int) -> Any:
    """The parts that are what they were cut from: a corner that was touched is no piece."""
    import shapely

    parts = shapely.get_parts(geometry)
    return shapely.union_all(parts[shapely.get_dimensions(parts) == dimension])


def _moved(geometries: np.ndarray, by: np.ndarray) -> np.ndarray:
    import shapely

    return shapely.transform(geometries, lambda places: places + by)


def _singles(geometries: Any) -> np.ndarray:
    """Collections of one part as that part."""
    import shapely

    is_single = shapely.get_num_geometries(geometries) == 1
    geometries[is_single] = shapely.get_geometry(geometries[is_single], 0)
    return geometries


# ------------------------------------------------------------------ all tiles


def _features(pieces: Sequence[_Piece], zoom: int, skipped: Counter[str]) -> list[Feature]:
    """Areas put together, then lines, then points, in degrees."""
    import shapely

    areas = [piece for piece in pieces if piece.kind == "area"]
    groups = _wholes(areas)
    whole = [(areas[group[0]], _joined([areas[i].geometry for i in group])) for group in groups]
    for kind in ("line", "point"):
        for piece in pieces:
            if piece.kind == kind:
                is_many = piece.geometry.geom_type == "MultiPoint"
                parts = shapely.get_parts(piece.geometry) if is_many else [piece.geometry]
                whole += [(piece, part) for part in parts]
    skipped["collapsed areas"] += sum(geometry.is_empty for _, geometry in whole)
    whole = [(piece, geometry) for piece, geometry in whole if not geometry.is_empty]
    geometries = np.array([geometry for _, geometry in whole], dtype=object)
    if len(geometries):
        geometries = _in_degrees(geometries, zoom)
        is_area = np.array([piece.kind == "area" for piece, _ in whole])
        geometries[is_area] = repaired(geometries[is_area])
    features = []
    for (piece, _), geometry in zip(whole, geometries, strict=True):
        tags = dict(piece.tags)
        feature = Feature("tile", piece.feature_id, piece.kind, tags, geometry)
        if piece.kind == "area":
            feature.height_m = osm_tags.height_m(tags)
            feature.min_height_m = osm_tags.min_height_m(tags)
        features.append(feature)
    return features


def _union(geometries: Sequence[Any], zoom: int) -> Any:
    import shapely

    return _in_degrees(shapely.union_all(geometries), zoom) if geometries else None


def _in_degrees(geometries: Any, zoom: int) -> Any:
    import shapely

    def to_degrees(units: np.ndarray) -> np.ndarray:
        x, y = units.T / TILE_UNITS
        lat_deg, lon_deg = tiles.geodetic(x, y, zoom)
        return np.column_stack([lon_deg, lat_deg])

    return shapely.transform(geometries, to_degrees)


def _wholes(pieces: Sequence[_Piece]) -> list[list[int]]:
    """Indices of the pieces that make up each thing, in the order of their first pieces."""
    first = list(range(len(pieces)))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    for before, after in _seams(pieces):
        for i, cut in before:
            for j, other_cut in after:
                if _are_one(cut, other_cut, have_ids=pieces[i].feature_id > 0):
                    low, high = sorted((root(i), root(j)))
                    first[high] = low
    groups = defaultdict(list)
    for i in range(len(pieces)):
        groups[root(i)].append(i)
    return list(groups.values())


_Cut = tuple[int, Any]
"""Index of a piece, and where it lies on a tile edge."""


def _seams(pieces: Sequence[_Piece]) -> Iterator[tuple[list[_Cut], list[_Cut]]]:
    """What meets on each tile edge from its two sides, if it may be one thing."""
    import shapely

    sides: dict[Any, tuple[list[_Cut], list[_Cut]]] = defaultdict(lambda: ([], []))
    bounds = shapely.bounds([piece.geometry for piece in pieces]) if pieces else np.empty((0, 4))
    for i, (piece, reach) in enumerate(zip(pieces, bounds, strict=True)):
        corner = np.array(piece.tile) * TILE_UNITS
        west_north_east_south = np.concatenate([corner, corner + TILE_UNITS])
        for side in np.flatnonzero(reach == west_north_east_south).tolist():
            axis, is_after = side % 2, side < 2
            edge = np.array([west_north_east_south[:2]] * 2, dtype=float)
            edge[:, axis] = west_north_east_south[side]
            edge[1, 1 - axis] += TILE_UNITS
            cut = shapely.intersection(piece.geometry, shapely.LineString(edge))
            if cut.length > 0:
                sides[*edge.ravel().tolist(), piece.thing][is_after].append((i, cut))
    return (pair for pair in sides.values() if all(pair))


def _are_one(cut: Any, other_cut: Any, *, have_ids: bool) -> bool:
    """Whether two pieces of one id, or one set of tags, are parts of one thing by their cuts."""
    if have_ids:
        return bool(cut.distance(other_cut) <= SNAP_UNITS)
    shared = cut.intersection(other_cut).length
    return bool(shared >= SHARED_SEAM * min(cut.length, other_cut.length))


def _joined(pieces: Sequence[Any]) -> Any:
    """Pieces as one, without a seam: where tiles differ by rounding, the first one is right."""
    import shapely

    whole, *others = pieces
    for piece in others:
        snapped = repaired([shapely.snap(piece, whole, SNAP_UNITS)])[0]
        whole = shapely.union(whole, snapped)
    return whole
