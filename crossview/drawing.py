"""What the pictures share: maps below and around, room and a legend beside the axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from crossview import map_style
from crossview.errors import FrameMismatchError
from crossview.frames import LocalFrame
from crossview.grids import Bounds, MapGrid
from crossview.rasters import MapRaster, SatelliteTile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Background: TypeAlias = MapRaster | SatelliteTile | Callable[[MapGrid], MapRaster]
"""A map, an image, or a map source, which is asked for what a picture shows."""

SMALL, TINY = 8, 6.5  # points
UNSEEN_COLOR = "#d9d9d9"


class Look(NamedTuple):
    """Of a pose; the truth is larger and lies below, so that both are seen where they agree."""

    color: str
    marker: str
    size: float
    zorder: float


ESTIMATE = Look("#1146c4", "o", 1.0, 6)
TRUTH = Look("#00703c", "D", 1.4, 5)

GAP_INCHES = 0.12
"""Between axes and what stands beside them."""

_COLUMN_INCHES, _MAX_COLUMN_SHARE = 2.0, 0.6
"""Width of the column beside axes, and how much of their place it may take."""

_MAX_ROW_SHARE = 0.6

_ATTRIBUTION_CHARACTERS = 70
_SCALE_BAR_SHARE = 0.25
_MAX_PICTURE_CELLS = 1500
_QUIET = 0.45
"""How far the colours of a map go towards white below an answer."""


def draw_background(
    background: Background, ax: Axes, bounds: Bounds, like: MapGrid, attribution: str
) -> str:
    """Draw what lies below an answer.

    Args:
        background: In the frame of the answer.
        ax: Where to draw.
        bounds: What a map source is asked for.
        like: The answer's cells; a map source is asked for as fine ones if that is not too many.
        attribution: Who must be named, where that is known already.

    Returns:
        Who must be named.

    Raises:
        FrameMismatchError: The background is in another frame.
    """
    if callable(background):
        background = background(picture_grid(bounds, like))
    require_frame(background.grid.frame, like.frame)
    if isinstance(background, MapRaster):
        colors = map_style.picture(background)
        colors = colors + _QUIET * (1 - colors)
    else:
        colors = background.rgb / 255
        colors[~background.covered] = 1.0
    ax.imshow(colors, extent=extent(background.grid), origin="upper")
    return attribution or getattr(background, "attribution", "")


def finish_map(ax: Axes, bounds: Bounds, attribution: str) -> None:
    """North up, metres on the axes, a scale bar and the sources."""
    from matplotlib.font_manager import FontProperties
    from mpl_toolkits.axes_grid1.anchored_artists import (  # type: ignore[import-untyped]
        AnchoredSizeBar,
    )

    ax.set(
        xlim=(bounds.west_m, bounds.east_m),
        ylim=(bounds.south_m, bounds.north_m),
        aspect="equal",
        xlabel="east (m)",
        ylabel="north (m)",
    )
    length_m = round_length_m(_SCALE_BAR_SHARE * (bounds.east_m - bounds.west_m))
    bar = AnchoredSizeBar(
        ax.transData,
        length_m,
        f"{length_m:g} m",
        "lower left",
        size_vertical=0.006 * (bounds.north_m - bounds.south_m),
        label_top=True,
        borderpad=0.6,
        sep=2,
        fontproperties=FontProperties(size=SMALL),
    )
    bar.patch.set(alpha=0.8, linewidth=0)
    bar.size_bar.get_children()[0].set_facecolor("black")
    bar.set_zorder(7)
    ax.add_artist(bar)
    ax.text(
        0.995,
        0.005,
        textwrap.fill(attribution, _ATTRIBUTION_CHARACTERS),
        transform=ax.transAxes,
        in_layout=False,
        ha="right",
        va="bottom",
        fontsize=TINY,
        path_effects=halo("white", 2),
        zorder=7,
    )


def round_length_m(length_m: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(length_m))
    return max(step * power for step in (1, 2, 5) if step * power <= length_m * (1 + 1e-9))


def extent(grid: MapGrid) -> tuple[float, float, float, float]:
    """Outer edges as imshow wants them: left, right, bottom, top."""
    bounds = grid.bounds
    return bounds.west_m, bounds.east_m, bounds.south_m, bounds.north_m


def picture_grid(bounds: Bounds, like: MapGrid) -> MapGrid:
    """Cells for the whole picture, as fine as a window's where that is not too many."""
    side_m = max(bounds.east_m - bounds.west_m, bounds.north_m - bounds.south_m)
    cell_m = max(like.cell_m, side_m / _MAX_PICTURE_CELLS)
    height = math.ceil((bounds.north_m - bounds.south_m) / cell_m)
    width = math.ceil((bounds.east_m - bounds.west_m) / cell_m)
    return MapGrid(like.frame, bounds.west_m, bounds.north_m, cell_m, height, width)


def require_frame(background: LocalFrame, answer: LocalFrame) -> None:
    """Raise a FrameMismatchError where a background is anchored elsewhere."""
    if background != answer:
        raise FrameMismatchError(
            f"The background is anchored at {background} and the answer at {answer}. "
            "Build both from one LocalFrame."
        )


def beside(ax: Axes) -> Any:
    """Room at the right of the axes: inches to the right of and above their upper right corner.

    The axes give up a part of their place in the figure, with or without a layout engine.
    """
    figure = ax.figure
    width_inches = figure.dpi_scale_trans.inverted().transform_bbox(figure.bbox).width
    place = ax.get_subplotspec()
    if place is None:
        box = ax.get_position(original=True)
        share = min(_COLUMN_INCHES / (width_inches * box.width), _MAX_COLUMN_SHARE)
        ax.set_position((box.x0, box.y0, (1 - share) * box.width, box.height))
    else:
        width = place.get_position(figure).width  # type: ignore[arg-type]
        if figure.get_layout_engine() is not None:
            # which uses the margins of the figure too
            width /= figure.subplotpars.right - figure.subplotpars.left
        share = min(_COLUMN_INCHES / (width_inches * width), _MAX_COLUMN_SHARE)
        halves = place.subgridspec(1, 2, width_ratios=(1 - share, share), wspace=0)
        ax.set_subplotspec(halves[0])
        figure.add_subplot(halves[1]).set_axis_off()
    return inches_from(ax, 1, 1)


def below(ax: Axes, inches: float) -> Any:
    """Room below the axes: their own width, 0 to 1, and inches above their lower edge.

    As beside; call it after that.
    """
    from matplotlib.transforms import blended_transform_factory

    figure = ax.figure
    height_inches = figure.dpi_scale_trans.inverted().transform_bbox(figure.bbox).height
    place = ax.get_subplotspec()
    if place is None:
        box = ax.get_position(original=True)
        share = min(inches / (height_inches * box.height), _MAX_ROW_SHARE)
        bottom = box.y0 + share * box.height
        ax.set_position((box.x0, bottom, box.width, (1 - share) * box.height))
    else:
        height = place.get_position(figure).height  # type: ignore[arg-type]
        if figure.get_layout_engine() is not None:
            height /= figure.subplotpars.top - figure.subplotpars.bottom
        share = min(inches / (height_inches * height), _MAX_ROW_SHARE)
        halves = place.subgridspec(2, 1, height_ratios=(1 - share, share), hspace=0)
        ax.set_subplotspec(halves[0])
        figure.add_subplot(halves[1]).set_axis_off()
    return blended_transform_factory(ax.transAxes, inches_from(ax, 0, 0))


def inches_from(ax: Axes, across: float, up: float) -> Any:
    """Inches to the right of and above a place in the axes, which is (1, 1) at the upper right."""
    from matplotlib.transforms import ScaledTranslation

    place = ScaledTranslation(across, up, ax.transAxes)  # type: ignore[arg-type]
    return ax.figure.dpi_scale_trans + place


def legend_beside(ax: Axes, handles: Sequence[Any]) -> None:
    """A legend in a column beside the axes, which make room for it."""
    legend(ax, handles, beside(ax))


def legend(
    ax: Axes, handles: Sequence[Any], beside: Any, *, top_inches: float = 0, title: str = ""
) -> None:
    """A legend in room that `beside` made, so many inches above the axes' upper edge."""
    legend = ax.legend(
        handles=handles,
        title=title,
        loc="upper left",
        bbox_to_anchor=(GAP_INCHES, top_inches),
        bbox_transform=beside,
        borderaxespad=0,
        fontsize=SMALL,
        title_fontproperties={"size": SMALL, "weight": "bold"},
        frameon=False,
        alignment="left",
        handlelength=1.6,
    )
    legend.set_in_layout(False)  # its room is reserved


def halo(color: str, width: float) -> list[Any]:
    """Path effects that set a line or a text off against what is below; width in points."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=width, foreground=color)]
