"""What values of OpenStreetMap tags mean: metres, storeys, floors, and whether a thing is seen."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType

Tags = Mapping[str, str]

LANE_WIDTH_M = 3.25
"""Width of a traffic lane where only their number is known (urban streets have 3.0 to 3.5 m)."""

STOREY_HEIGHT_M = 3.0
"""Height of a storey where only their number is known, as in OSM's Simple 3D Buildings."""

MAX_HEIGHT_M = 1000.0
"""No building is taller (828 m is the record): a larger number is in another unit."""

MAX_STRIP_WIDTH_M = 200.0
MAX_LANES = 20
MAX_LEVELS = 250

DEFAULT_WIDTHS_M: Mapping[str, float] = MappingProxyType(
    {
        "highway": 5.0,
        "highway=motorway": 11.0,  # one carriageway
        "highway=trunk": 9.0,
        "highway=primary": 9.0,
        "highway=secondary": 8.0,
        "highway=tertiary": 7.0,
        "highway=unclassified": 6.0,
        "highway=residential": 6.0,
        "highway=living_street": 5.0,
        "highway=road": 6.0,
        "highway=service": 4.0,
        "highway=track": 3.0,
        "highway=busway": 4.0,
        "highway=pedestrian": 5.0,
        "highway=footway": 2.0,
        "highway=path": 1.5,
        "highway=cycleway": 2.0,
        "highway=bridleway": 2.0,
        "highway=steps": 2.0,
        "railway": 3.0,  # sleepers are 2.6 m long
        "waterway": 3.0,
        "waterway=river": 12.0,
        "waterway=canal": 8.0,
        "waterway=ditch": 1.0,
        "waterway=drain": 1.0,
        "public_transport": 3.0,  # platforms
        "man_made": 3.0,  # piers
    }
)
"""Width of what is mapped as a line and says neither width nor lanes: typical values, ours."""

_HEIGHT_KEYS = ("height", "building:height", "est_height")
_HEIGHT_TELLING = frozenset((*_HEIGHT_KEYS, "building:levels"))
"""Without one of these the height is not known: a roof alone does not tell."""

_OPEN_TUNNELS = ("no", "building_passage", "avalanche_protector")
"""Tunnels that are seen from the street."""

_METRIC = re.compile(r"(?P<value>\d+(?:[.,]\d*)?|[.,]\d+)\s*(?:m|meters?|metres?)?")
_IMPERIAL = re.compile(
    r"(?P<feet>\d+(?:[.,]\d*)?)\s*(?:'|′|ft|feet|foot)\s*"
    r"(?:(?P<inches>\d+(?:\.\d*)?)\s*(?:\"|''|″|in))?"
)
_FLOORS = re.compile(r"(?P<low>-?\d+(?:\.\d+)?)(?:-(?P<high>-?\d+(?:\.\d+)?))?")


def length_m(text: str | None) -> float:
    """A length as OSM writes it, in metres: `12`, `12 m`, `12,5`, `40'`, `40 ft`, `5'10"`.

    A number without a unit is in metres and a comma is a decimal comma. NaN where the text is
    absent, negative or not a length.
    """
    if text is None:
        return math.nan
    cleaned = text.strip().lower()
    metric = _METRIC.fullmatch(cleaned)
    if metric:
        return float(metric["value"].replace(",", "."))
    imperial = _IMPERIAL.fullmatch(cleaned)
    if imperial:
        feet = float(imperial["feet"].replace(",", "."))
        return 0.3048 * feet + 0.0254 * float(imperial["inches"] or 0)
    return math.nan


def height_m(tags: Tags) -> float:
    """Height of a building's top above the ground; NaN where the tags do not tell.

    `height` (which includes the roof), else `building:height` or `est_height`, else
    `building:levels` times 3 m plus the roof as far as it is stated (`roof:height`, or
    `roof:levels` times 3 m).
    """
    if _HEIGHT_TELLING.isdisjoint(tags):
        return math.nan
    for key in _HEIGHT_KEYS:
        stated_m = plausible_height_m(length_m(tags.get(key)))
        if not math.isnan(stated_m):
            return stated_m
    roof_m = length_m(tags.get("roof:height"))
    if math.isnan(roof_m):
        roof_m = height_of_levels_m(tags.get("roof:levels"))
    storeys_m = height_of_levels_m(tags.get("building:levels"))
    return plausible_height_m(storeys_m + (0.0 if math.isnan(roof_m) else roof_m))


def min_height_m(tags: Tags) -> float:
    """Height of a building's (or part's) underside above the ground, 0 where not stated."""
    stated_m = length_m(tags.get("min_height"))
    if math.isnan(stated_m):
        stated_m = height_of_levels_m(tags.get("building:min_level"))
    return stated_m if 0 < stated_m <= MAX_HEIGHT_M else 0.0


def height_of_levels_m(text: str | None) -> float:
    """Height of a number of storeys, 3 m each; NaN where the text is not such a number."""
    return STOREY_HEIGHT_M * _count(text, MAX_LEVELS)


def plausible_height_m(height_m: float) -> float:
    """The height, or NaN where it cannot be one: zero, negative or above 1000 m."""
    return height_m if 0 < height_m <= MAX_HEIGHT_M else math.nan


def strip_width_m(tags: Tags) -> float:
    """Width of a road, path, railway or waterway that is mapped as a line.

    `width`, else `est_width`, else `lanes` times 3.25 m, else the default of its kind.
    """
    for key in ("width", "est_width"):
        stated_m = length_m(tags.get(key))
        if 0 < stated_m <= MAX_STRIP_WIDTH_M:
            return stated_m
    if "highway" in tags:
        lanes = _count(tags.get("lanes"), MAX_LANES)
        if lanes > 0:
            return LANE_WIDTH_M * lanes
    for key in ("highway", "railway", "waterway", "public_transport", "man_made"):
        if key in tags:
            return DEFAULT_WIDTHS_M.get(f"{key}={tags[key]}", DEFAULT_WIDTHS_M[key])
    return DEFAULT_WIDTHS_M["highway"]


def is_visible(tags: Tags) -> bool:
    """Whether a thing can be seen from the street: above ground, outdoors, on the ground floor.

    Floors 0 and 1 both count as the ground floor (American maps call it 1). A layer or level
    that is not a number is no reason to leave a thing out.
    """
    if tags.get("tunnel", "no") not in _OPEN_TUNNELS or tags.get("indoor", "no") != "no":
        return False
    if tags.get("location") in ("underground", "underwater", "indoor"):
        return False
    if tags.get("parking") == "underground":
        return False
    # rivers below bridges are often mapped with layer -1 and still lie in the open
    is_water = "waterway" in tags or tags.get("natural") == "water"
    layers = _floors(tags.get("layer", ""))
    if layers and not is_water and all(high < 0 for _, high in layers):
        return False
    floors = _floors(tags.get("level", ""))
    return not floors or any(low <= 1 and high >= 0 for low, high in floors)


def _floors(text: str) -> list[tuple[float, float]]:
    """Ranges (low, high) of "0;1", "-1-2" or "0.5"; none where one of them is not a number."""
    parts = [part.strip() for part in text.replace(",", ";").split(";") if part.strip()]
    matches = [_FLOORS.fullmatch(part) for part in parts]
    if not all(matches):
        return []
    ends = [(float(m["low"]), float(m["high"] or m["low"])) for m in matches if m]
    return [(min(pair), max(pair)) for pair in ends]


def _count(text: str | None, limit: float) -> float:
    """A number of lanes or storeys; NaN where it is absent or cannot be one."""
    try:
        number = float((text or "").replace(",", "."))
    except ValueError:
        return math.nan
    return number if 0 <= number <= limit else math.nan
