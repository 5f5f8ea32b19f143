"""Options that several commands share: a place, a positive number, what an option needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from crossview.tiles import GeoBounds

PLACES = ("box", "around", "points", "area", "place")
"""Options that name a place."""

PLACE_OPTIONS = (*PLACES, "radius_m", "geocoder_url")
"""Parameters that place_options gives a command."""

PLACE = "A place: --box, --around or --points with --radius-m, --area, or --place"

PLACE_NEEDS: Mapping[str, tuple[str, ...]] = {
    "around": ("radius_m",),
    "points": ("radius_m",),
    "radius_m": ("around", "points"),
    "geocoder_url": ("place",),
}
"""What options of a place need (see require_needed)."""

_ANY = click.Path(exists=True, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def positive(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """A click callback: finite and above 0, where it is given."""
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"expected a positive number, got {value}.", param=parameter)
    return value


def place_options(function: Callable[..., None]) -> Callable[..., None]:
    """A place on the command line, which bounds_of turns into a box."""
    options = [
        click.option("--box", type=float, nargs=4, metavar="WEST SOUTH EAST NORTH",
                     help="A box, degrees."),
        click.option("--around", type=float, nargs=2, metavar="LAT LON",
                     help="Middle of a square."),
        click.option("--points", type=_ANY, help="CSV, GPX, GeoJSON or photos."),
        click.option("--radius-m", type=float, callback=positive,
                     help="Around the place, or around all points."),
        click.option("--area", type=_FILE, help="Box of the polygons in a GeoJSON."),
        click.option("--place", help="Box of a named place, found by Nominatim."),
        click.option("--geocoder-url", help="A Nominatim of your own."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def bounds_of(place: Mapping[str, Any]) -> GeoBounds | None:
    """The box of the one place that is named (see place_options); None where there is none.

    Args:
        place: Values of the options by name; `timeout_s` too, of commands that have it.
    """
    import numpy as np

    from data_tools import areas, openstreetmap
    from data_tools.points import Points, read_points

    given = [name for name in PLACES if place[name] is not None]
    if len(given) > 1:
        raise click.UsageError(f"{PLACE}: one of them.")
    if not given:
        return None
    (chosen,) = given
    value = place[chosen]
    if chosen == "box":
        return areas.Area.of_box(*value).bounds
    if chosen == "area":
        return areas.read_area(value).bounds
    if chosen == "place":
        patience = {"timeout_s": place["timeout_s"]} if "timeout_s" in place else {}
        return openstreetmap.named_area(value, url=place["geocoder_url"], **patience).bounds
    if chosen == "around":
        points = Points(np.array([value[0]]), np.array([value[1]]), ("",))
    else:
        points = read_points(value)
    return areas.Area.around(points, place["radius_m"]).bounds


def require_needed(needs: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse options of the present command that do nothing as they are given.

    Args:
        needs: By name of an option, others, one of which it needs.

    Raises:
        click.UsageError: One is given, and none of those that it needs.
    """
    context = click.get_current_context()
    written = {option.name: option.opts[0] for option in context.command.params}
    for name, wanted in needs.items():
        if _is_given(context, name) and not any(_is_given(context, other) for other in wanted):
            others = " or ".join(written[other] for other in wanted if other in written)
            raise click.UsageError(f"{written[name]} needs {others}: without it, it does nothing.")


def require_not_beside(idle: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse options of the present command that do nothing beside others.

    Args:
        idle: By name of an option, the others.

    Raises:
        click.UsageError: One is given with one of those.
    """
    context = click.get_current_context()
    written = {option.name: option.opts[0] for option in context.command.params}
    for name, others in idle.items():
        beside = [other for other in others if _is_given(context, other)]
        if _is_given(context, name) and beside:
            raise click.UsageError(f"{written[name]} does nothing beside {written[beside[0]]}.")


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE
