"""What a query shows by azimuth and elevation, and what a map says of it, drawn."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossview import columns as column_views
from crossview import drawing
from crossview.angles import FULL_TURN_DEG
from crossview.columns import ELEVATION_STEP_DEG, GROUPS, HIGHEST_DEG, LOWEST_DEG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from crossview.columns import ColumnView

GROUP_COLORS = {
    "road": "#a9adbb",
    "walk": "#e3d3a4",
    "wall": "#c08f6c",
    "plant": "#86b972",
    "sky": "#cfe3f3",
    "mover": "#e07a9b",
    "other": "#6d6875",
}
"""Of columns.GROUPS; roads, buildings and trees are about as on maps."""

_LOOKS = (
    (drawing.ESTIMATE.color, "solid"),
    (drawing.TRUTH.color, (0, (4, 1.6))),
    ("#a4133c", (0, (1.5, 1.2))),
    ("#4a148c", (0, (6, 1.5, 1.5, 1.5))),
)
_HATCH_COLOR = "#b4b4b4"
_MARGIN_DEG = 3.0
_ALL_AROUND_DEG = 340.0
"""What sees more than this is shown as a full turn."""

_SIDES = {-180: "behind", -90: "left", 0: "ahead", 90: "right", 180: "behind"}
_LABEL_CHARACTERS = 26

_STRIP_INCHES, _STRIP_GAP_INCHES, _TICKS_INCHES = 0.17, 0.07, 0.65
_BAR_WIDTH_INCHES, _BAR_INCHES = 1.3, 0.1
_FIT_COLORS = "RdBu"
_LEAST_FIT_NATS = 0.5


def columns(
    view: ColumnView,
    ax: Axes,
    *,
    poses: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    explained: Mapping[str, np.ndarray] | None = None,
) -> Axes:
    """What a query's columns show, and where the map puts walls and skylines in them.

    Colour is the most probable group of classes, paler where it is less sure. Straight ahead is in
    the middle, azimuth grows to the right as in a panorama. Two lines per pose say where the first
    wall should meet level ground (none where there is no wall), and where the sky should begin.
    What a photo does not see is cut off. Strips below show which columns fit.

    Args:
        view: The columns of a photo, a panorama or a rig.
        ax: Where to draw; a column at its right is used for the legend.
        poses: By name, the range of the first wall in metres and the skyline in degrees,
            (azimuths,) each, as raycast.look_around gives them for a pose of the query.
        explained: By name, how well each column fits a pose, (azimuths,): the natural log of how
            much more probable it is there than at a place unknown, which is
            evidence.log_ratio[k, codes_of(range_m, skyline_deg)[k]] (see column_evidence).

    Raises:
        ValueError: The view sees nothing, or arrays are not one number per azimuth.
    """
    poses, explained = poses or {}, explained or {}
    shown = _shown(view)
    beside = drawing.beside(ax)
    handles = _draw_groups(view, ax, shown)
    looks = dict(zip(dict.fromkeys((*poses, *explained)), itertools.cycle(_LOOKS), strict=False))
    for name, (ranges_m, skylines_deg) in poses.items():
        range_m = _per_azimuth(ranges_m, f"The ranges of {name!r}")
        skyline_deg = _per_azimuth(skylines_deg, f"The skyline of {name!r}")
        lines = {"wall foot": _foot_deg(range_m, view.height_m), "skyline": skyline_deg}
        handles.append(_draw_pose(name, lines, ax, looks[name]))
    ax.axhline(0, color="#333333", lw=0.6, ls=(0, (1, 3)), zorder=2)
    ax.set(
        xlim=(shown.left_deg, shown.right_deg),
        ylim=(shown.lowest_deg, shown.highest_deg),
        aspect="equal",
        ylabel="elevation (°)",
    )
    lowest = _draw_strips(explained, ax, looks) if explained else ax
    _name_azimuths(lowest, shown)
    drawing.legend(ax, handles, beside, title="most probable group\n(paler: less sure)")
    return ax


class _Shown(NamedTuple):
    """The part of a view that is drawn, relative to the heading."""

    left_deg: float
    right_deg: float
    lowest_deg: float
    highest_deg: float

    def bins(self, num_azimuths: int) -> tuple[np.ndarray, ...]:
        """Which bins are drawn, as an index of arrays in order."""
        azimuth_deg = _relative_deg(num_azimuths)
        elevation_deg = column_views.elevations_deg()
        return np.ix_(
            (self.left_deg <= azimuth_deg) & (azimuth_deg <= self.right_deg),
            (self.lowest_deg <= elevation_deg) & (elevation_deg <= self.highest_deg),
        )


def _shown(view: ColumnView) -> _Shown:
    """What is seen, and a margin; all around where nearly all is seen."""
    if not view.seen.any():
        raise ValueError("The view sees nothing: no bin of it is seen. Check masks and camera.")
    azimuth_deg = _relative_deg(view.num_azimuths)[:-1]
    in_order = np.roll(view.seen, view.num_azimuths // 2, axis=0)
    seen_deg = azimuth_deg[in_order.any(axis=1)]
    half_deg = FULL_TURN_DEG / view.num_azimuths / 2
    left_deg, right_deg = seen_deg.min() - half_deg, seen_deg.max() + half_deg
    if right_deg - left_deg > _ALL_AROUND_DEG:
        left_deg, right_deg = -180.0, 180.0
    else:
        left_deg = max(left_deg - _MARGIN_DEG, -180.0)
        right_deg = min(right_deg + _MARGIN_DEG, 180.0)
    elevation_deg = column_views.elevations_deg()[view.seen.any(axis=0)]
    lowest_deg = max(elevation_deg.min() - ELEVATION_STEP_DEG / 2 - _MARGIN_DEG, LOWEST_DEG)
    highest_deg = min(elevation_deg.max() + ELEVATION_STEP_DEG / 2 + _MARGIN_DEG, HIGHEST_DEG)
    return _Shown(float(left_deg), float(right_deg), float(lowest_deg), float(highest_deg))


def _relative_deg(num_azimuths: int) -> np.ndarray:
    """Azimuths of the bins from behind by the left to behind again, (azimuths + 1,)."""
    first = -(num_azimuths // 2)
    return np.arange(first, first + num_azimuths + 1) * (FULL_TURN_DEG / num_azimuths)


def _in_order(values: np.ndarray) -> np.ndarray:
    """Values by azimuth, axis 0, from behind by the left to behind again, where one repeats."""
    turned = np.roll(values, values.shape[0] // 2, axis=0)
    return np.concatenate([turned, turned[:1]])


def _width_deg(num_azimuths: int) -> tuple[float, float]:
    """Outer edges of the bins in order."""
    azimuth_deg = _relative_deg(num_azimuths)
    half_deg = FULL_TURN_DEG / num_azimuths / 2
    return float(azimuth_deg[0] - half_deg), float(azimuth_deg[-1] + half_deg)


def _draw_groups(view: ColumnView, ax: Axes, shown: _Shown) -> list[Any]:
    """The panorama, and legend entries for what occurs in it."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    probability, seen = _in_order(view.probability), _in_order(view.seen)
    dominant = probability.argmax(axis=2)
    colors = np.array([to_rgb(GROUP_COLORS[name]) for name in GROUPS], np.float32)
    opacity = probability.max(axis=2)[..., None]
    paled = 1 - opacity + opacity * colors[dominant]
    picture = np.concatenate([paled, seen[..., None]], axis=2)
    ax.imshow(
        np.clip(picture, 0, 1).swapaxes(0, 1),
        extent=(*_width_deg(view.num_azimuths), LOWEST_DEG, HIGHEST_DEG),
        origin="lower",
        interpolation="nearest",
    )
    hatched: dict[str, Any] = {
        "facecolor": drawing.UNSEEN_COLOR,
        "edgecolor": _HATCH_COLOR,
        "hatch": "////",
    }
    ax.patch.set(**hatched, linewidth=0)
    occurring = np.bincount(dominant[seen], minlength=len(GROUPS)) > 0
    handles = [
        Patch(facecolor=GROUP_COLORS[name], edgecolor="#888888", linewidth=0.5, label=name)
        for name, occurs in zip(GROUPS, occurring, strict=True)
        if occurs
    ]
    if not seen[shown.bins(view.num_azimuths)].all():
        handles.append(Patch(**hatched, linewidth=0, label="not seen"))
    return handles


def _foot_deg(range_m: np.ndarray, height_m: float) -> np.ndarray:
    """Elevation at which a wall meets level ground; NaN where there is none."""
    known = np.where(np.isfinite(range_m), range_m, np.nan)
    return np.rad2deg(-np.arctan2(height_m, known))


def _draw_pose(name: str, lines: Mapping[str, np.ndarray], ax: Axes, look: tuple[str, Any]) -> Any:
    color, style = look
    for elevation_deg in lines.values():
        # a bin has one wall, and walls end suddenly
        (line,) = ax.plot(
            _relative_deg(elevation_deg.size),
            _in_order(elevation_deg),
            drawstyle="steps-mid",
            color=color,
            ls=style,
            lw=1.4,
            label=textwrap.fill(f"{name}: {', '.join(lines)}", _LABEL_CHARACTERS),
            path_effects=drawing.halo("white", 2.4),
            zorder=3,
        )
    return line


def _name_azimuths(ax: Axes, shown: _Shown) -> None:
    """Degrees and sides below the lowest axes."""
    span_deg = shown.right_deg - shown.left_deg
    step_deg = next(step for step in (5, 10, 15, 30, 45) if step == 45 or span_deg / step <= 8)
    first = int(np.ceil(shown.left_deg / step_deg)) * step_deg
    ticks = range(first, int(shown.right_deg) + 1, step_deg)
    labels = [f"{tick}\n{_SIDES.get(tick, '')}".replace("-", "\N{MINUS SIGN}") for tick in ticks]
    ax.set_xticks(list(ticks), labels)
    ax.set_xlabel("azimuth, to the right of the heading (°)")


def _draw_strips(
    explained: Mapping[str, np.ndarray], ax: Axes, looks: Mapping[str, tuple[str, Any]]
) -> Axes:
    """How well columns fit: one strip per pose below the panorama, of which the last is given."""
    fits = {name: _per_azimuth(fit, f"What {name!r} explains") for name, fit in explained.items()}
    pitch = _STRIP_INCHES + _STRIP_GAP_INCHES
    room = drawing.below(ax, len(fits) * pitch + _TICKS_INCHES)
    every_fit = np.concatenate(list(fits.values()))
    largest = np.abs(every_fit[np.isfinite(every_fit)]).max(initial=_LEAST_FIT_NATS)
    ax.set_xticks([])
    for i, (name, fit) in enumerate(fits.items()):
        strip = ax.inset_axes((0, -(i + 1) * pitch, 1, _STRIP_INCHES), transform=room)
        strip.set_in_layout(False)
        image = strip.imshow(
            _in_order(fit)[None],
            extent=(*_width_deg(fit.size), 0, 1),
            aspect="auto",
            cmap=_FIT_COLORS,
            vmin=-largest,
            vmax=largest,
            interpolation="nearest",
        )
        strip.set(xlim=ax.get_xlim(), ylim=(0, 1), xticks=[])
        strip.set_yticks([0.5], [f"fit, {name}"], fontsize=drawing.SMALL, color=looks[name][0])
        strip.tick_params(axis="y", length=0)
    _draw_fit_bar(image, ax)
    return strip


def _draw_fit_bar(image: Any, ax: Axes) -> None:
    """Beside the strips."""
    place = (
        drawing.GAP_INCHES + 0.1,
        -_STRIP_GAP_INCHES - _BAR_INCHES,
        _BAR_WIDTH_INCHES,
        _BAR_INCHES,
    )
    bar = ax.inset_axes(place, transform=drawing.inches_from(ax, 1, 0))
    bar.set_in_layout(False)
    bar.figure.colorbar(image, cax=bar, orientation="horizontal")
    bar.set_xlabel("fit: log ratio to a\nplace unknown (nats)", fontsize=drawing.SMALL)
    bar.tick_params(labelsize=drawing.TINY)


def _per_azimuth(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"{what}: expected one number per azimuth, (azimuths,), the first ahead; got shape "
            f"{values.shape}. raycast.look_around gives them for one pose."
        )
    return values
