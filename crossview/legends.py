"""Legends: which OpenStreetMap tags make which map class, as data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

from crossview.tags import Tags, is_visible, strip_width_m

Kind = Literal["area", "line", "point"]
Shape = Literal["fill", "outline", "line", "strip", "point"]

BUILDING = "building"
"""The class of every legend whose polygons have walls and a height."""

CHANNELS = ("areas", "ways", "points")
"""The channels of a map raster, in order."""


@dataclass(frozen=True)
class Mark:
    """What one feature leaves on a map raster.

    Args:
        name: Class.
        shape: "fill" (the polygon), "outline" (its rings, one cell wide), "line" (one cell
            wide), "strip" (a line as wide as the thing is) or "point" (one cell).
        width_m: Width of a strip.
    """

    name: str
    shape: Shape
    width_m: float = 0.0


@dataclass(frozen=True)
class Legend:
    """The classes of a map raster and the tags that make them.

    A class has a channel, its list, and an id in it: index + 1, where 0 is void. Where features
    of several classes share a cell of a channel, the first class of the list wins.

    Args:
        legend_id: Name, kept in rasters and models.
        areas: Classes of channel 0.
        ways: Classes of channel 1.
        points: Classes of channel 2.
        marks: (kind, tags) -> what the feature leaves; nothing for a feature that no class wants
            or that is not to be seen (underground, on another floor).
        is_area: Whether the tags make an area of a *closed* way. A relation is always one.
        fills_edges: How polygons fill cells. False: a cell belongs to a polygon that holds its
            centre. True: corners move to the centres of their cells, and the cells that edges
            cross belong to the polygon too (which makes it half a cell larger on every side).
    """

    legend_id: str
    areas: tuple[str, ...]
    ways: tuple[str, ...]
    points: tuple[str, ...]
    marks: Callable[[Kind, Tags], tuple[Mark, ...]] = field(repr=False, compare=False)
    is_area: Callable[[Tags], bool] = field(repr=False, compare=False)
    fills_edges: bool = False

    @property
    def names(self) -> frozenset[str]:
        """Every class."""
        return frozenset(self.areas + self.ways + self.points)

    def classify(self, kind: Kind, tags: Tags) -> tuple[str, ...]:
        """Names of the classes that a feature has, at most one per channel."""
        return tuple(mark.name for mark in self.marks(kind, tags))

    def find(self, name: str) -> tuple[int, int]:
        """Channel (0 areas, 1 ways, 2 points) and id of a class.

        Raises:
            ValueError: The legend has no such class.
        """
        for channel, names in enumerate((self.areas, self.ways, self.points)):
            if name in names:
                return channel, names.index(name) + 1
        raise ValueError(
            f"Legend {self.legend_id!r} has no class {name!r}. It has areas "
            f"{', '.join(self.areas)}; ways {', '.join(self.ways)}; points "
            f"{', '.join(self.points)}."
        )


def legend(legend_id: str) -> Legend:
    """A legend by its name.

    Raises:
        ValueError: There is none of that name.
    """
    if legend_id not in LEGENDS:
        raise ValueError(f"No legend is called {legend_id!r}. There are: {', '.join(LEGENDS)}.")
    return LEGENDS[legend_id]


# The legend of OrienterNet (Sarlin et al., CVPR 2023): a feature has one label, key=value of the
# first key of a list; a class takes the labels that *start* with one of its patterns.

_ORIENTERNET_AREAS: Mapping[str, tuple[str, ...]] = {
    "building": ("building",),
    "parking": ("amenity=parking",),  # and parking_space, parking_entrance
    "playground": ("leisure=playground", "leisure=pitch"),
    "grass": (
        "landuse=grass",
        "landuse=meadow",
        "landuse=flowerbed",
        "landcover=grass",
        "natural=grassland",
    ),
    "park": ("leisure=park", "leisure=garden", "leisure=dog_park"),
    "forest": ("landuse=forest", "natural=wood"),
    "water": ("natural=water", "waterway"),
}

_ORIENTERNET_WAYS: Mapping[str, tuple[str, ...]] = {
    "fence": ("barrier=fence", "barrier=yes"),
    "wall": ("barrier=wall", "barrier=retaining_wall"),
    "hedge": ("barrier=hedge",),
    "kerb": ("barrier=kerb",),
    "building_outline": ("building",),
    "cycleway": ("highway=cycleway",),
    "path": tuple(f"highway={v}" for v in ("pedestrian", "footway", "steps", "path", "corridor")),
    "road": (  # without living_street, with services
        *(f"highway={v}" for v in ("motorway", "trunk", "primary", "secondary", "tertiary")),
        *(f"highway={v}" for v in ("service", "construction", "track", "unclassified")),
        "highway=residential",
        "highway=*_link",
    ),
    "busway": ("highway=busway",),
    "tree_row": ("natural=tree_row",),
}

_ORIENTERNET_POINTS: Mapping[str, tuple[str, ...]] = {
    "tree": ("natural=tree",),
    "stone": ("natural=stone", "barrier=block"),
    "crossing": ("highway=crossing",),
    "lamp": ("highway=street_lamp",),
    "traffic_signal": ("highway=traffic_signals",),
    "bus_stop": ("highway=bus_stop",),
    "stop_sign": ("highway=stop",),
    "junction": ("highway=motorway_junction",),
    "bus_stop_position": ("public_transport=stop_position",),
    "gate": tuple(f"barrier={v}" for v in ("gate", "lift_gate", "swing_gate", "cycle_barrier")),
    "bollard": ("barrier=bollard",),
    "shop": ("shop", "amenity=bank", "amenity=post_office"),
    "restaurant": ("amenity=restaurant", "amenity=fast_food"),
    "bar": ("amenity=cafe", "amenity=bar", "amenity=pub", "amenity=biergarten"),
    "pharmacy": ("amenity=pharmacy",),
    "fuel": ("amenity=fuel",),
    "bicycle_parking": ("amenity=bicycle_parking", "amenity=bicycle_rental"),
    "charging_station": ("amenity=charging_station",),
    "parking_entrance": ("amenity=parking_entrance",),
    "atm": ("amenity=atm",),
    "toilets": ("amenity=toilets",),
    "vending_machine": ("amenity=vending_machine",),
    "fountain": ("amenity=fountain",),
    "waste_basket": ("amenity=waste_basket", "amenity=waste_disposal"),
    "bench": ("amenity=bench",),
    "post_box": ("amenity=post_box",),
    "artwork": ("tourism=artwork",),
    "recycling": ("amenity=recycling",),
    "give_way": ("highway=give_way",),
    "clock": ("amenity=clock",),
    "fire_hydrant": ("emergency=fire_hydrant",),
    "pole": ("man_made=flagpole", "man_made=utility_pole"),
    "street_cabinet": ("man_made=street_cabinet",),
}

_ORIENTERNET_LABEL_KEYS: Mapping[str, tuple[str, ...]] = {
    "point": (
        *("amenity", "natural", "highway", "barrier", "shop", "tourism"),
        *("public_transport", "emergency", "man_made"),
    ),
    "line": ("highway", "barrier", "natural"),
    "area": (
        *("amenity", "landcover", "leisure", "shop", "highway", "tourism", "natural"),
        *("waterway", "landuse"),
    ),
}

_ORIENTERNET_AREA_KEYS = (
    *("area", "building", "amenity", "indoor", "landuse", "landcover", "leisure"),
    *("public_transport", "shop"),
)

_ORIENTERNET_ORDER: Mapping[str, tuple[Mapping[str, tuple[str, ...]], ...]] = {
    "area": (_ORIENTERNET_AREAS, _ORIENTERNET_WAYS, _ORIENTERNET_POINTS),
    "line": (_ORIENTERNET_WAYS, _ORIENTERNET_POINTS),
    "point": (_ORIENTERNET_POINTS, _ORIENTERNET_WAYS),
}

_ORIENTERNET_SHAPES: Mapping[str, Shape] = {"area": "fill", "line": "line", "point": "point"}


def _orienternet_marks(kind: Kind, tags: Tags) -> tuple[Mark, ...]:
    is_relation = tags.get("type") == "multipolygon"
    if not is_relation and not _orienternet_is_visible(tags):  # relations escape the filter
        return ()
    label = _orienternet_label(kind, tags)
    name = None if label is None else _orienternet_class(kind, label)
    if name is None:
        return ()
    mark = Mark(name, _ORIENTERNET_SHAPES[kind])
    return (mark, Mark("building_outline", "outline")) if name == BUILDING else (mark,)


def _orienternet_is_area(tags: Tags) -> bool:
    if tags.get("area") == "no":
        return False
    return any(tags.get(key, "no") != "no" for key in _ORIENTERNET_AREA_KEYS) or tags.get(
        "natural"
    ) in ("wood", "grassland", "water")


def _orienternet_is_visible(tags: Tags) -> bool:
    if "level" in tags:
        # American maps call the ground floor 1
        levels = _orienternet_levels(tags["level"])
        if 0 not in levels and 1 not in levels:
            return False
    layers = _orienternet_levels(tags.get("layer", ""))
    if layers and max(layers) < 0:
        return False
    return tags.get("location") != "underground" and tags.get("parking") != "underground"


def _orienternet_levels(text: str) -> list[float]:
    """Numbers of a list; none at all where one of them is not a number ("0-2" is not)."""
    try:
        return [float(part) for part in text.replace(",", ";").replace(" ", "").split(";")]
    except ValueError:
        return []


def _orienternet_label(kind: Kind, tags: Tags) -> str | None:
    if kind == "area":
        if "building" in tags:
            return "building"  # the value changes nothing, not even "no"
        if "area:highway" in tags:
            return f"highway={tags['area:highway']}"
    for key in _ORIENTERNET_LABEL_KEYS[kind]:
        if key in tags and not (kind == "point" and "disused" in tags[key]):
            return f"{key}={tags[key]}"
    return None


@functools.lru_cache(maxsize=4096)
def _orienternet_class(kind: str, label: str) -> str | None:
    for table in _ORIENTERNET_ORDER[kind]:
        for name, patterns in table.items():
            if any(fnmatchcase(label, pattern + "*") for pattern in patterns):
                return name
    return None


# Our legend: a feature may have one class in every channel; values match exactly, "*" is any
# value but "no" that no other class names.


@dataclass(frozen=True)
class _Rule:
    """A class, the tags that make it, and its shape for each kind of feature that may have it."""

    name: str
    tags: tuple[str, ...]
    area: Shape | None = None
    line: Shape | None = None
    point: Shape | None = None


def _values(key: str, values: str) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for value in values.split())


_ROADS = (
    "motorway trunk primary secondary tertiary unclassified residential living_street service "
    "road track busway bus_guideway motorway_link trunk_link primary_link secondary_link "
    "tertiary_link"
)
_PATHS = "pedestrian footway path steps cycleway bridleway platform"
_ROOFS = (*_values("building", "roof carport"), "building:part=roof")
"""Roofs without walls."""

_CROSSVIEW_AREAS = (
    _Rule("building", ("building=*", "building:part=*"), area="fill"),
    _Rule("roof", _ROOFS, area="fill"),
    _Rule(
        "road",
        _values("highway", _ROADS) + _values("area:highway", _ROADS),
        area="fill",
        line="strip",
    ),
    _Rule(
        "path",
        (
            *_values("highway", _PATHS),
            *_values("area:highway", _PATHS),
            *("place=square", "railway=platform", "public_transport=platform", "man_made=pier"),
        ),
        area="fill",
        line="strip",
    ),
    _Rule("rail", _values("railway", "rail tram light_rail narrow_gauge subway"), line="strip"),
    _Rule("parking", _values("amenity", "parking parking_space"), area="fill"),
    _Rule("pitch", _values("leisure", "pitch playground track"), area="fill"),
    _Rule(
        "water",
        (
            *_values("natural", "water bay"),
            *_values("landuse", "reservoir basin"),
            *_values("waterway", "riverbank dock"),
            *_values("leisure", "swimming_pool marina"),
            *_values("amenity", "fountain swimming_pool"),
        ),
        area="fill",
    ),
    _Rule("stream", _values("waterway", "river stream canal ditch drain"), line="strip"),
    _Rule(
        "trees",
        (*_values("natural", "wood scrub"), *_values("landuse", "forest orchard")),
        area="fill",
    ),
    _Rule(
        "grass",
        (
            *_values("landuse", "grass meadow flowerbed village_green recreation_ground"),
            *_values("natural", "grassland heath"),
            "landcover=grass",
        ),
        area="fill",
    ),
    _Rule(
        "park",
        (
            *_values("leisure", "park garden dog_park golf_course nature_reserve"),
            "landuse=cemetery",
            "amenity=grave_yard",
        ),
        area="fill",
    ),
    _Rule(
        "field", _values("landuse", "farmland farmyard vineyard allotments greenfield"), area="fill"
    ),
    _Rule("bare", _values("natural", "sand beach bare_rock scree shingle"), area="fill"),
)

_CROSSVIEW_WAYS = (
    _Rule("building_outline", ("building=*", "building:part=*"), area="outline"),
    _Rule("roof_outline", _ROOFS, area="outline"),
    _Rule(
        "wall",
        (*_values("barrier", "wall city_wall retaining_wall"), "historic=citywalls"),
        area="outline",
        line="line",
    ),
    _Rule(
        "fence",
        _values("barrier", "fence yes handrail guard_rail jersey_barrier"),
        area="outline",
        line="line",
    ),
    _Rule("hedge", ("barrier=hedge",), area="outline", line="line"),
    _Rule("kerb", ("barrier=kerb",), area="outline", line="line"),
    _Rule("tree_row", ("natural=tree_row",), line="line"),
    _Rule("rail_axis", _values("railway", "rail tram light_rail narrow_gauge subway"), line="line"),
    _Rule("road_axis", _values("highway", _ROADS), line="line"),
    _Rule("path_axis", _values("highway", _PATHS), line="line"),
    _Rule("stream_axis", _values("waterway", "river stream canal ditch drain"), line="line"),
)

_CROSSVIEW_POINTS = (
    _Rule("tree", ("natural=tree",), point="point"),
    _Rule("lamp", ("highway=street_lamp",), point="point"),
    _Rule("traffic_signal", ("highway=traffic_signals",), point="point"),
    _Rule("sign", ("traffic_sign=*", *_values("highway", "stop give_way")), point="point"),
    _Rule(
        "pole",
        (*_values("man_made", "flagpole utility_pole pole mast"), *_values("power", "pole tower")),
        point="point",
    ),
    _Rule("bollard", _values("barrier", "bollard block"), point="point"),
    _Rule(
        "gate",
        _values("barrier", "gate lift_gate swing_gate cycle_barrier entrance"),
        point="point",
    ),
    _Rule("crossing", ("highway=crossing",), point="point"),
    _Rule("bus_stop", ("highway=bus_stop",), point="point"),
    _Rule("shelter", ("amenity=shelter",), point="point", area="point"),
    _Rule("bench", ("amenity=bench",), point="point"),
    _Rule("waste_basket", _values("amenity", "waste_basket waste_disposal"), point="point"),
    _Rule("recycling", ("amenity=recycling",), point="point", area="point"),
    _Rule("post_box", ("amenity=post_box",), point="point"),
    _Rule("fire_hydrant", ("emergency=fire_hydrant",), point="point"),
    _Rule("street_cabinet", ("man_made=street_cabinet",), point="point"),
    _Rule("advertising", ("advertising=*",), point="point"),
    _Rule("fountain", ("amenity=fountain",), point="point", area="point"),
    _Rule(
        "artwork",
        ("tourism=artwork", *_values("historic", "memorial monument")),
        point="point",
        area="point",
    ),
    _Rule(
        "bicycle_parking",
        _values("amenity", "bicycle_parking bicycle_rental"),
        point="point",
        area="point",
    ),
    _Rule("charging_station", ("amenity=charging_station",), point="point", area="point"),
    _Rule("parking_entrance", ("amenity=parking_entrance",), point="point"),
    _Rule("subway_entrance", ("railway=subway_entrance",), point="point"),
    _Rule("vending_machine", _values("amenity", "vending_machine atm telephone"), point="point"),
    _Rule(
        "restaurant",
        _values("amenity", "restaurant fast_food cafe bar pub biergarten ice_cream"),
        point="point",
        area="point",
    ),
    _Rule("bank", _values("amenity", "bank post_office"), point="point", area="point"),
    _Rule("pharmacy", ("amenity=pharmacy",), point="point", area="point"),
    _Rule("fuel", ("amenity=fuel",), point="point", area="point"),
    _Rule("shop", ("shop=*",), point="point", area="point"),
    _Rule("entrance", ("entrance=*",), point="point"),
)

_CROSSVIEW_CHANNELS = (_CROSSVIEW_AREAS, _CROSSVIEW_WAYS, _CROSSVIEW_POINTS)

_AREA_KEYS = (
    *("building", "building:part", "area:highway", "amenity", "landuse", "landcover", "leisure"),
    *("natural", "water", "shop", "tourism", "office", "public_transport", "man_made", "indoor"),
    *("historic", "place", "power", "aeroway", "parking", "craft", "military"),
)
"""Keys that make an area of a closed way."""

_LINEAR_TAGS = frozenset(
    (
        *_values("natural", "tree_row cliff ridge arete valley coastline"),
        *_values("leisure", "track slipway"),
        *_values("man_made", "pipeline embankment cutline dyke groyne breakwater"),
        *_values("historic", "citywalls"),
        *_values("power", "line minor_line cable"),
        *_values("aeroway", "runway taxiway"),
    )
)
"""Tags with one of those keys that do not."""

_AREA_TAGS = frozenset(
    (
        *_values("waterway", "riverbank dock boatyard"),
        *_values("railway", "station platform"),
        *_values("highway", "platform rest_area services elevator"),
    )
)
"""Tags with another key that do."""


def _crossview_marks(kind: Kind, tags: Tags) -> tuple[Mark, ...]:
    if not is_visible(tags):
        return ()
    marks = []
    for channel in range(len(CHANNELS)):
        rule = _crossview_rule(channel, kind, tags)
        if rule is not None:
            shape: Shape = getattr(rule, kind)
            width_m = strip_width_m(tags) if shape == "strip" else 0.0
            marks.append(Mark(rule.name, shape, width_m))
    return tuple(marks)


def _crossview_is_area(tags: Tags) -> bool:
    if "area" in tags:
        return tags["area"] != "no"
    if not _AREA_TAGS.isdisjoint(f"{key}={value}" for key, value in tags.items()):
        return True
    if "highway" in tags and "building" not in tags:
        return False  # a roundabout, or the loop of a path: its inside is not road
    return any(
        tags.get(key, "no") != "no" and f"{key}={tags[key]}" not in _LINEAR_TAGS
        for key in _AREA_KEYS
    )


def _crossview_rule(channel: int, kind: Kind, tags: Tags) -> _Rule | None:
    """The first rule of a channel that takes one of the tags."""
    exact, by_key = _crossview_index(channel, kind)
    found = [
        exact.get((key, value), by_key.get(key) if value != "no" else None)
        for key, value in tags.items()
        if key in by_key or (key, value) in exact
    ]
    order = min((position for position in found if position is not None), default=None)
    return None if order is None else _CROSSVIEW_CHANNELS[channel][order]


@functools.lru_cache(maxsize=16)
def _crossview_index(
    channel: int, kind: str
) -> tuple[Mapping[tuple[str, str], int], Mapping[str, int]]:
    """Position of the rule that wants a tag, and of the one that wants a key with any value."""
    exact: dict[tuple[str, str], int] = {}
    by_key: dict[str, int] = {}
    for position, rule in enumerate(_CROSSVIEW_CHANNELS[channel]):
        for key, value in (tag.split("=") for tag in rule.tags):
            if getattr(rule, kind) is None:
                continue
            if value == "*":
                by_key.setdefault(key, position)
            else:
                exact.setdefault((key, value), position)
    return exact, by_key


def _rule_names(rules: tuple[_Rule, ...]) -> tuple[str, ...]:
    return tuple(rule.name for rule in rules)


ORIENTERNET = Legend(
    "orienternet",
    areas=tuple(_ORIENTERNET_AREAS),
    ways=tuple(_ORIENTERNET_WAYS),
    points=tuple(_ORIENTERNET_POINTS),
    marks=_orienternet_marks,
    is_area=_orienternet_is_area,
    fills_edges=True,
)
"""The classes of OrienterNet, with its prefix matching and its gaps, for its checkpoints.

Lines are GDAL's, not OpenCV's: where a line passes between two cells they choose differently, in
two to six of a hundred cells of a line and one of a thousand of the areas, by one cell. Untagged
multipolygons and outer ways that repeat a relation are read as `osm.read_osm` says, with holes.
"""

CROSSVIEW = Legend(
    "crossview",
    areas=_rule_names(_CROSSVIEW_AREAS),
    ways=_rule_names(_CROSSVIEW_WAYS),
    points=_rule_names(_CROSSVIEW_POINTS),
    marks=_crossview_marks,
    is_area=_crossview_is_area,
)
"""Ours: exact values, living streets, roads as wide as they are."""

LEGENDS: Mapping[str, Legend] = MappingProxyType(
    {"orienternet": ORIENTERNET, "crossview": CROSSVIEW}
)

MAP_KEYS = frozenset(
    {key for keys in _ORIENTERNET_LABEL_KEYS.values() for key in keys}
    | {tag.split("=")[0] for rules in _CROSSVIEW_CHANNELS for rule in rules for tag in rule.tags}
)
"""Keys that can give a feature a class in some legend; a feature without any is not read."""
