"""Pictures of galleries: where tiles look like a query, which they are, and what networks see.

After Xia et al., "Geographically Local Representation Learning with a Spatial Prior for Visual
Localization", ECCV Workshops 2020: similarity of all tiles at three zooms with the prior's circle
and the truth, and the activations of a local and a global model beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from crossview import drawing, photos
from crossview.cell_owners import owners
from crossview.errors import GalleryError, PhotoError
from crossview.frames import Pose
from crossview.gallery import Disc, Gallery, Ranking
from crossview.grids import Bounds, MapGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from crossview.photos import Panorama, Photo
    from crossview.preprocessing import Preprocessing

ZOOMS_M = (200.0, 50.0)
"""Half the sides of the closer looks."""

COLORMAP = "Reds"
_LOWEST_PERCENTILE = 20.0
"""Tiles that look less like the query than this share of them are all white."""

_RASTER_CELLS = 600
_DOT_SHARE, _SMALLEST_DOT_SHARE = 0.85, 0.012
"""Diameter of a dot as a share of the distance between tiles, and of the picture."""

_MARGIN_SHARE = 0.04
_PRIOR_COLOR, _HIT_COLOR, _MISS_COLOR = "#1146c4", "#00a04a", "#b0b0b0"
_PANEL_INCHES = 2.1
_OVERLAY_COLORMAP = "inferno"
_OVERLAY_PERCENTILES = (2.0, 99.5)
_OVERLAY_OPACITY = 0.7


class Activated(Protocol):
    """An encoder whose features can be looked at, such as nn.encoders.SiameseEncoder."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What it looks at."""

    def activations(self, side: str, images: np.ndarray) -> np.ndarray:
        """(batch, rows, cols, channels) of "ground" or "overhead" images."""


def similarity_scatter(
    gallery: Gallery,
    similarity: np.ndarray,
    ax: Axes,
    *,
    view: Bounds | None = None,
    prior: Disc | None = None,
    truth: Pose | None = None,
    title: str = "",
) -> Axes:
    """A dot at the middle of every tile, the redder the more it looks like the query.

    A dashed circle is the prior, a cross-hair the truth, a ring the best tile inside the prior.

    Args:
        gallery: Its tiles.
        similarity: Of the query to every tile, (N,): gallery.similarity(query).
        ax: Where to draw.
        view: What is shown; by default all tiles.
        prior: The rough place.
        truth: Where the query was taken.
        title: Above the picture.
    """
    from matplotlib.collections import EllipseCollection

    view = view or _around_all(gallery)
    rows = gallery.strips.rows_in_box(view)
    spacing_m = _spacing_m(gallery.positions_m[rows])
    smallest_m = _SMALLEST_DOT_SHARE * (view.east_m - view.west_m)
    diameter_m = np.full(len(rows), max(_DOT_SHARE * spacing_m, smallest_m))
    order = np.argsort(similarity[rows], kind="stable")  # the reddest on top
    dots = EllipseCollection(
        diameter_m,
        diameter_m,
        np.zeros(len(rows)),
        units="xy",
        offsets=gallery.positions_m[rows[order]],
        offset_transform=ax.transData,
        cmap=COLORMAP,
        edgecolors="#999999",
        linewidths=0.2,
    )
    dots.set_array(similarity[rows[order]])
    dots.set_clim(*_color_limits(similarity))
    ax.add_collection(dots, autolim=False)
    return _finished(gallery, similarity, ax, view, prior=prior, truth=truth, title=title)


def similarity_raster(
    gallery: Gallery,
    similarity: np.ndarray,
    ax: Axes,
    *,
    view: Bounds | None = None,
    prior: Disc | None = None,
    truth: Pose | None = None,
    title: str = "",
) -> Axes:
    """As similarity_scatter, every place coloured by the tile that it belongs to.

    Grey places have no tile.
    """
    view = view or _around_all(gallery)
    cell_m = max(view.east_m - view.west_m, view.north_m - view.south_m) / _RASTER_CELLS
    cells = MapGrid(
        gallery.frame,
        view.west_m,
        view.north_m,
        cell_m,
        math.ceil((view.north_m - view.south_m) / cell_m),
        math.ceil((view.east_m - view.west_m) / cell_m),
    )
    half_m = gallery.footprint_m / 2
    rows = gallery.strips.rows_in_box(
        Bounds(
            view.west_m - half_m, view.south_m - half_m, view.east_m + half_m, view.north_m + half_m
        )
    )
    owner = owners(gallery.positions_m[rows], gallery.footprint_m, cells)
    values = np.ma.masked_array(np.append(similarity[rows], 0.0)[owner], mask=owner < 0)
    image = ax.imshow(values, extent=drawing.extent(cells), origin="upper", cmap=COLORMAP)
    image.set_clim(*_color_limits(similarity))
    ax.set_facecolor(drawing.UNSEEN_COLOR)
    return _finished(gallery, similarity, ax, view, prior=prior, truth=truth, title=title)


def similarity_zooms(
    gallery: Gallery,
    query: Any,
    figure: Figure,
    *,
    prior: Disc | None = None,
    truth: Pose | None = None,
    zooms_m: Sequence[float] = ZOOMS_M,
) -> Figure:
    """Scatter above and raster below, of all tiles and closer around the truth.

    Args:
        gallery: Its tiles.
        query: What the encoder describes, or its descriptors.
        figure: An empty figure; about 12 x 8 inches.
        prior: The rough place.
        truth: Where the query was taken; without it the closer looks are around the best tile.
        zooms_m: Half the sides of the closer looks.
    """
    similarity = gallery.similarity(query)
    x_m, y_m = (truth.x_m, truth.y_m) if truth else _best_place(gallery, similarity, prior)
    views = [_around_all(gallery)]
    views += [Bounds(x_m - r, y_m - r, x_m + r, y_m + r) for r in zooms_m]
    titles = [f"all {gallery.num_tiles:,} tiles", *(f"± {r:g} m" for r in zooms_m)]
    axes = figure.subplots(2, len(views), squeeze=False)
    for ax, below, view, title in zip(*axes, views, titles, strict=True):
        similarity_scatter(
            gallery, similarity, ax, view=view, prior=prior, truth=truth, title=title
        )
        similarity_raster(gallery, similarity, below, view=view, prior=prior, truth=truth)
    bar = figure.colorbar(
        axes[1, 0].images[0], ax=axes, location="right", shrink=0.5, aspect=30, extend="min"
    )
    bar.set_label("similarity of query and tile (cosine)", fontsize=drawing.SMALL)
    handles = {
        label: h
        for ax in axes.flat
        for h, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=4, fontsize=drawing.SMALL,
        frameon=False,
    )  # fmt: skip
    return figure


def retrieval_strip(
    image: np.ndarray, gallery: Gallery, ranking: Ranking, *, truth: Pose | None = None
) -> Figure:
    """A query and the tiles most like it, best first; those that hold the truth are framed green.

    Args:
        image: (rows, cols, 3) uint8 RGB, as it is shown.
        gallery: Knows where its images are.
        ranking: gallery.search(query, 5).
        truth: Where the query was taken: then the distance of each tile's middle is given too.
    """
    from matplotlib.figure import Figure

    aspect = image.shape[1] / image.shape[0]
    widths = [min(aspect, 2.0), *(1.0 for _ in ranking.rows)]
    figure = Figure((_PANEL_INCHES * sum(widths), 1.3 * _PANEL_INCHES), layout="constrained")
    first, *others = np.atleast_1d(
        figure.subplots(1, len(widths), gridspec_kw={"width_ratios": widths})
    )
    first.imshow(image)
    first.set_title("query", fontsize=drawing.SMALL)
    for rank, (ax, row, similarity) in enumerate(
        zip(others, ranking.rows.tolist(), ranking.similarity, strict=True), 1
    ):
        _show_tile(gallery, row, ax)
        label = f"{rank}: {similarity:.3f}"
        if truth is not None:
            east_m, north_m = gallery.positions_m[row] - (truth.x_m, truth.y_m)
            label += f", {math.hypot(east_m, north_m):.0f} m off"
            is_hit = max(abs(east_m), abs(north_m)) <= gallery.footprint_m / 2
            for spine in ax.spines.values():
                spine.set(color=_HIT_COLOR if is_hit else _MISS_COLOR, lw=5 if is_hit else 1)
        ax.set_title(label, fontsize=drawing.SMALL)
    for ax in (first, *others):
        ax.set(xticks=[], yticks=[])
    figure.supxlabel(gallery.attribution, fontsize=drawing.TINY)
    return figure


def activation_overlay(
    image: np.ndarray, activation: np.ndarray, ax: Axes, *, title: str = ""
) -> Axes:
    """Where a network looks: bright where its features are strong, over the image in grey.

    Args:
        image: (rows, cols, 3) uint8 RGB.
        activation: (rows, cols) of any resolution over the same view, or (rows, cols, channels):
            then the length of each place's features. Colours span its own 2nd to 99.5th percentile,
            as those of different networks have no common unit.
        ax: Where to draw.
        title: Above the picture.
    """
    from matplotlib import colormaps

    activation = np.asarray(activation, dtype=float)
    if activation.ndim == 3:
        activation = np.linalg.norm(activation, axis=2)
    if activation.ndim != 2 or not np.isfinite(activation).all():
        raise ValueError(
            "Activations are (rows, cols) or (rows, cols, channels) of finite numbers, got "
            f"{activation.shape}."
        )
    extent = (0, image.shape[1], image.shape[0], 0)
    ax.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=extent)
    low, high = np.percentile(activation, _OVERLAY_PERCENTILES)
    strength = np.clip((activation - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    colors = colormaps[_OVERLAY_COLORMAP](strength)
    colors[..., 3] = _OVERLAY_OPACITY * strength  # what is weak leaves the image as it is
    ax.imshow(colors, extent=extent, interpolation="bilinear")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=drawing.SMALL)
    return ax


def activation_overlays(
    images: Mapping[str, np.ndarray],
    activations: Mapping[str, Mapping[str, np.ndarray]],
    figure: Figure,
) -> Figure:
    """Several networks beside each other on the same images, one image a row.

    Args:
        images: By name, such as "ground" and "overhead", (rows, cols, 3) uint8 RGB.
        activations: By network, such as "local" and "global", by image: see activation_overlay.
        figure: An empty figure.
    """
    axes = figure.subplots(
        len(images),
        1 + len(activations),
        squeeze=False,
        gridspec_kw={"height_ratios": [i.shape[0] / i.shape[1] for i in images.values()]},
    )
    for (name, image), (first, *others) in zip(images.items(), axes, strict=True):
        first.imshow(image)
        first.set(xticks=[], yticks=[])
        first.set_title(name, fontsize=drawing.SMALL)
        for ax, (network, by_image) in zip(others, activations.items(), strict=True):
            activation_overlay(image, by_image[name], ax, title=network)
    return figure


def encoder_overlays(
    encoders: Mapping[str, Activated], query: Panorama | Photo, tile: np.ndarray, figure: Figure
) -> Figure:
    """Where encoders look in a query and a tile, beside each other: see activation_overlays.

    Args:
        encoders: By name, such as "local" and "global"; all of one preprocessing.
        query: What was photographed.
        tile: (side, side, 3) uint8 RGB, north-up.
        figure: An empty figure; about 12 x 3 inches for two encoders of panoramas.

    Raises:
        ValueError: They look at different images.
    """
    rules = [each.preprocessing for each in encoders.values()]
    if any(other != rules[0] for other in rules):
        raise ValueError(
            "Encoders are compared on the same images, but the preprocessing of "
            f"{', '.join(encoders)} differs. Draw them one by one."
        )
    images = {"ground": rules[0].ground(query), "overhead": rules[0].overhead(tile)}
    activations = {
        name: {side: each.activations(side, image[None])[0] for side, image in images.items()}
        for name, each in encoders.items()
    }
    return activation_overlays(images, activations, figure)


# ------------------------------------------------------------------ private


def _finished(
    gallery: Gallery,
    similarity: np.ndarray,
    ax: Axes,
    view: Bounds,
    *,
    prior: Disc | None,
    truth: Pose | None,
    title: str,
) -> Axes:
    from matplotlib.patches import Circle

    if prior is not None:
        ax.add_patch(
            Circle(
                (prior.x_m, prior.y_m), prior.radius_m, fill=False, color=_PRIOR_COLOR, ls="--",
                lw=1.2, label=f"prior, {prior.radius_m:g} m",
            )
        )  # fmt: skip
    ax.plot(
        *_best_place(gallery, similarity, prior), linestyle="none", marker="o", markersize=9,
        markerfacecolor="none", markeredgecolor=drawing.ESTIMATE.color, markeredgewidth=1.6,
        label="best tile" if prior is None else "best tile in the prior",
    )  # fmt: skip
    if truth is not None:
        ax.plot(
            truth.x_m, truth.y_m, linestyle="none", marker="+", markersize=16,
            markeredgewidth=1.6, color=drawing.TRUTH.color, label="truth",
        )  # fmt: skip
    drawing.finish_map(ax, view, gallery.attribution)
    ax.tick_params(labelsize=drawing.TINY)
    ax.set_title(title, loc="left", fontsize=drawing.SMALL)
    return ax


def _best_place(
    gallery: Gallery, similarity: np.ndarray, prior: Disc | None
) -> tuple[float, float]:
    rows = np.arange(gallery.num_tiles) if prior is None else gallery.rows_inside(prior)
    x_m, y_m = gallery.positions_m[rows[np.argmax(similarity[rows])]]
    return float(x_m), float(y_m)


def _around_all(gallery: Gallery) -> Bounds:
    (west_m, south_m), (east_m, north_m) = gallery.positions_m.min(0), gallery.positions_m.max(0)
    margin_m = gallery.footprint_m / 2 + _MARGIN_SHARE * max(east_m - west_m, north_m - south_m)
    return Bounds(
        float(west_m - margin_m), float(south_m - margin_m),
        float(east_m + margin_m), float(north_m + margin_m),
    )  # fmt: skip


def _color_limits(similarity: np.ndarray) -> tuple[float, float]:
    return float(np.percentile(similarity, _LOWEST_PERCENTILE)), float(similarity.max())


def _spacing_m(positions_m: np.ndarray) -> float:
    """How far apart neighbours usually are."""
    from scipy.spatial import cKDTree

    if len(positions_m) < 2:
        return 1.0
    distance_m, _ = cKDTree(positions_m).query(positions_m, k=2)
    return max(float(np.median(distance_m[:, 1])), 1.0)


def _show_tile(gallery: Gallery, row: int, ax: Axes) -> None:
    try:
        ax.imshow(photos.read_pixels(gallery.image_path(row)))
    except (GalleryError, PhotoError):
        ax.text(0.5, 0.5, "no image", ha="center", va="center", transform=ax.transAxes)
