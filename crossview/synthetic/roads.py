"""What the streets of a grown town are like: hierarchy, widths, sidewalks, parking, tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from crossview.synthetic.plan import Dice, Tags
from crossview.tags import strip_width_m

VERGE_M = 0.7
"""Least distance from a carriageway to the lots, where there is no sidewalk."""

DRIVABLE = ("secondary", "tertiary", "residential", "living_street", "service")
"""Kinds with a carriageway, the most important first."""

_MAXSPEED = {"secondary": "50", "tertiary": "50", "residential": "30", "service": ""}
_PARKING_SHARE = {"secondary": 0.35, "tertiary": 0.4, "residential": 0.5}
_PARKING_LANE_M = 2.0
_ONEWAY_BELOW_M = 6.3


@dataclass(frozen=True)
class Road:
    """What a street is like along its whole length.

    Args:
        highway: Value of its main tag.
        width_m: Of the carriageway, kerb to kerb.
        sidewalk_m: Of each sidewalk, or 0.
        tags: All others than the name.
        wants_oneway: Narrow, and a street that other streets go around.
    """

    highway: str
    width_m: float
    sidewalk_m: float
    tags: Tags
    wants_oneway: bool = False

    @property
    def is_drivable(self) -> bool:
        """Whether cars use it."""
        return self.highway in DRIVABLE

    @property
    def half_m(self) -> float:
        """From the centre line to the lots."""
        return self.width_m / 2 + max(self.sidewalk_m, VERGE_M)

    @property
    def rank(self) -> int:
        """0 for the most important kind."""
        return DRIVABLE.index(self.highway) if self.is_drivable else len(DRIVABLE)


class RoadMaker:
    """Draws roads of a kind; a town keeps its habits, such as mapping surfaces or lamps."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._maps_width = dice.between(0.3, 0.9)
        self._maps_parking = dice.between(0.4, 1.0)

    def road(self, highway: str) -> Road:
        """One more road."""
        dice = self._dice
        if highway not in DRIVABLE:
            return self._path(highway)
        width_m, sidewalk_m = self._profile(highway)
        tags = {"highway": highway, "surface": self._surface(highway)}
        has_parking = dice.chance(_PARKING_SHARE.get(highway, 0.0))
        if has_parking:
            width_m += 2 * _PARKING_LANE_M if highway != "residential" else _PARKING_LANE_M
            side = "both" if highway != "residential" else dice.pick(("left", "right"))
            if dice.chance(self._maps_parking):
                tags |= {f"parking:{side}": "lane", f"parking:{side}:orientation": "parallel"}
        if highway not in ("living_street", "service"):
            tags["lanes"] = "2" if width_m >= 5.5 else "1"
        if _MAXSPEED.get(highway) and dice.chance(0.8):
            tags["maxspeed"] = _MAXSPEED[highway]
        if highway == "secondary" and dice.chance(0.5):
            tags["cycleway:both"] = "lane"
        # a reader that guesses wider would put lamps and trees onto the carriageway
        if dice.chance(self._maps_width) or strip_width_m(tags) > width_m:
            tags["width"] = f"{width_m:g}"
        if sidewalk_m:
            tags["sidewalk"] = "both"
            tags["sidewalk:both:width"] = f"{sidewalk_m:g}"
        else:
            tags["sidewalk"] = "no"
        if dice.chance(0.6):
            tags["lit"] = "yes"
        if highway == "service":
            tags["service"] = "alley"
        is_narrow = highway == "residential" and width_m - 2.0 * has_parking < _ONEWAY_BELOW_M
        return Road(highway, width_m, sidewalk_m, tags, is_narrow and dice.chance(0.35))

    def _path(self, highway: str) -> Road:
        dice = self._dice
        width_m = {"pedestrian": dice.pick((4.0, 5.0, 6.0)), "cycleway": 2.5}.get(highway, 2.0)
        tags = {"highway": highway, "width": f"{width_m:g}"}
        surfaces = {"pedestrian": ("paving_stones", "sett"), "cycleway": ("asphalt",)}
        tags["surface"] = dice.pick(surfaces.get(highway, ("paving_stones", "asphalt", "gravel")))
        return Road(highway, width_m, 0.0, tags)

    def _profile(self, highway: str) -> tuple[float, float]:
        """Width of the carriageway without parking, and of each sidewalk."""
        options: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
            "secondary": ((7.5, 8.0, 9.0, 10.0), (3.5, 4.0, 4.5)),
            "tertiary": ((6.5, 7.0, 7.5, 8.0), (2.5, 3.0, 3.5, 4.0)),
            "residential": ((5.0, 5.5, 6.0, 6.5), (1.5, 2.0, 2.5, 3.0)),
            "living_street": ((4.5, 5.0, 6.0), (0.0,)),
            "service": ((3.5, 4.0), (0.0,)),
        }
        widths_m, sidewalks_m = options[highway]
        return self._dice.pick(widths_m), self._dice.pick(sidewalks_m)

    def _surface(self, highway: str) -> str:
        if highway == "living_street":
            return self._dice.pick(("paving_stones", "sett", "asphalt"))
        return "sett" if highway == "residential" and self._dice.chance(0.12) else "asphalt"
