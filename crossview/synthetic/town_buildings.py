"""Buildings of a grown town: footprints of rectangles, and tags with the gaps of real maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossview.synthetic.lots import LEVEL_M, Front
from crossview.synthetic.plan import Dice

Roofs = tuple[tuple[str, float], ...]
"""Values of roof:shape and how often they are built."""

_HOUSE: Roofs = (
    ("gabled", 0.58),
    ("hipped", 0.22),
    ("flat", 0.08),
    ("pyramidal", 0.07),
    ("skillion", 0.05),
)
_ROW: Roofs = (("gabled", 0.72), ("flat", 0.2), ("hipped", 0.08))
_TENEMENT: Roofs = (("gabled", 0.42), ("flat", 0.38), ("hipped", 0.2))
_BOX: Roofs = (("flat", 0.84), ("gabled", 0.1), ("skillion", 0.06))
_HALL: Roofs = (("flat", 0.55), ("gabled", 0.35), ("skillion", 0.1))
_SHED: Roofs = (("flat", 0.45), ("gabled", 0.35), ("skillion", 0.2))
_ROOFS: Mapping[str, Roofs] = {
    "house": _HOUSE,
    "detached": _HOUSE,
    "semidetached_house": _HOUSE,
    "terrace": _ROW,
    "apartments": _TENEMENT,
    "retail": _BOX,
    "office": _BOX,
    "commercial": _BOX,
    "school": _BOX,
    "industrial": _HALL,
    "warehouse": _HALL,
    "church": (("gabled", 1.0),),
    "garage": _SHED,
    "shed": _SHED,
}
_RISE_PER_DEPTH = (0.25, 0.5)
_WALL_COLOURS = ("white", "beige", "#d9c7a0", "#c8b8a6", "#b5651d", "#a9a9a9", "lightgrey", "brown")
_ROOF_COLOURS = ("#8b3a2b", "#a0522d", "red", "#5a5a5a", "darkgrey", "#4b3621", "maroon")


@dataclass(frozen=True)
class Footprint:
    """A ring and the convex parts that it is the union of.

    Args:
        ring: Counter-clockwise.
        parts: Rectangles.
        depth_m: Of the main part, which its roof spans.
        along: Unit direction of the main part's front.
    """

    ring: tuple[complex, ...]
    parts: tuple[tuple[complex, ...], ...]
    depth_m: float
    along: complex


def rectangle(front: Front, s_m: float, near_m: float, width_m: float, depth_m: float) -> Footprint:
    """A box at s_m along a front and near_m behind it."""
    ring = tuple(front.rectangle(s_m, near_m, width_m, depth_m))
    return Footprint(ring, (ring,), depth_m, (ring[1] - ring[0]) / width_m)


def with_wing(main: Footprint, s_m: float, width_m: float, depth_m: float) -> Footprint:
    """A main box with a wing behind it: an L where the wing is at an end, else a T.

    Args:
        main: A rectangle on the front.
        s_m: From the main box's first corner to the wing, along the front.
        width_m: Of the wing, along the front.
        depth_m: Of the wing.
    """
    a, b, c, d = main.ring
    start, stop = d + s_m * main.along, d + (s_m + width_m) * main.along
    away = depth_m * 1j * main.along
    wing = (start, stop, stop + away, start + away)
    is_left, is_right = s_m < 0.01, abs(d + s_m * main.along + width_m * main.along - c) < 0.01
    ring = [a, b]
    ring += [] if is_right else [c, stop]
    ring += [wing[2], wing[3]]
    ring += [] if is_left else [start, d]
    return Footprint(tuple(ring), (*main.parts, wing), main.depth_m, main.along)


def with_two_wings(main: Footprint, width_m: float, depth_m: float) -> Footprint:
    """A main box with a wing behind each end: a U."""
    a, b, c, d = main.ring
    step, away = width_m * main.along, depth_m * 1j * main.along
    left = (d, d + step, d + step + away, d + away)
    right = (c - step, c, c + away, c - step + away)
    ring = (a, b, c + away, c - step + away, c - step, d + step, d + step + away, d + away)
    return Footprint(ring, (*main.parts, left, right), main.depth_m, main.along)


class BuildingMaker:
    """Draws the tags of buildings; how much of the truth they tell differs from town to town."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._tells_levels = dice.between(0.4, 0.75)
        self._tells_height = dice.between(0.1, 0.45)
        self._tells_roof = dice.between(0.3, 0.7)
        self._tells_colour = dice.between(0.0, 0.15)
        self._tells_kind = dice.between(0.5, 0.95)

    def tags(
        self, kind: str, levels: int, footprint: Footprint | None, extra: Mapping[str, str] = {}
    ) -> dict[str, str]:
        """The tags of one building.

        Args:
            kind: Value of `building` that is true; the map may say "yes".
            levels: Full storeys below the roof.
            footprint: Its shape; None for one around a court.
            extra: Tags to add.
        """
        dice = self._dice
        tags = {"building": kind if dice.chance(self._tells_kind) else "yes"}
        shape = self._roof(kind, footprint)
        depth_m = 10.0 if footprint is None else footprint.depth_m
        rise_m = 0.0 if shape == "flat" else depth_m * dice.between(*_RISE_PER_DEPTH) / 2
        if dice.chance(self._tells_levels):
            tags["building:levels"] = str(levels)
        if dice.chance(self._tells_height):
            parapet_m = dice.between(0.2, 0.9)
            tags["height"] = f"{levels * LEVEL_M + parapet_m + rise_m:.1f}"
        if dice.chance(self._tells_roof):
            tags |= self._roof_tags(shape, rise_m, footprint)
        if dice.chance(self._tells_colour):
            tags["building:colour"] = dice.pick(_WALL_COLOURS)
        if dice.chance(self._tells_colour):
            tags["roof:colour"] = dice.pick(_ROOF_COLOURS)
        return tags | dict(extra)

    def _roof(self, kind: str, footprint: Footprint | None) -> str:
        shape = self._dice.weighted(_ROOFS.get(kind, _BOX))
        is_plain = footprint is not None and len(footprint.parts) == 1
        return "gabled" if shape in ("pyramidal", "skillion") and not is_plain else shape

    def _roof_tags(self, shape: str, rise_m: float, footprint: Footprint | None) -> dict[str, str]:
        dice = self._dice
        tags = {"roof:shape": shape}
        if shape == "flat":
            return tags
        told = dice.between(0.0, 1.0)
        if told < 0.3:
            tags["roof:height"] = f"{rise_m:.1f}"
        elif told < 0.65:
            tags["roof:levels"] = "1" if rise_m < 4.0 else "2"
        if footprint is None:
            return tags
        if shape == "gabled" and dice.chance(0.3):
            tags["roof:orientation"] = "along" if dice.chance(0.8) else "across"
        if shape == "skillion":
            # the direction in which the roof falls, by compass point: from the front to the back
            tags["roof:direction"] = _compass(1j * footprint.along)
        return tags


def _compass(step: complex) -> str:
    """The nearest of the eight points of the compass."""
    diagonal = 0.5**0.5
    points: Sequence[tuple[str, complex]] = (
        ("N", 1j),
        ("NE", complex(diagonal, diagonal)),
        ("E", 1 + 0j),
        ("SE", complex(diagonal, -diagonal)),
        ("S", -1j),
        ("SW", complex(-diagonal, -diagonal)),
        ("W", -1 + 0j),
        ("NW", complex(-diagonal, diagonal)),
    )
    return min(points, key=lambda point: abs(point[1] - step))[0]
