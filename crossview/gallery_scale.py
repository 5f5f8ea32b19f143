"""The one number that makes a gallery's similarities log-likelihoods, by maximum likelihood.

How much more likely a query is at its true pose than at any place is what Gallery.log_likelihood
says there: scale * similarity, less the log-mean-exp over the gallery. The mean of that over
held-out queries is concave in the scale, so there is one best.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar

from crossview import angles
from crossview.cell_owners import log_mean_exp
from crossview.errors import GalleryError, ManifestError, PhotoError
from crossview.frames import GeoPose, Pose
from crossview.gallery import Gallery, knows_any_heading, takes_headings
from crossview.pairs import TRAIN, VAL, splits_of

if TYPE_CHECKING:
    from crossview.manifest import Manifest

SCALES = (0.1, 1000.0)
"""Where the scale is searched."""

_AT_BOUND = 1.05  # so near an end of SCALES nothing was found

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScaleFit:
    """A fitted scale and what it was fitted on.

    Args:
        scale: What similarities are multiplied with.
        log_ratio_nats: Mean log of how much more likely queries are at their true poses than at
            any place; at most the log of the number of tiles (times headings).
        num_queries: That took part.
        num_outside: That no tile holds; they did not.
    """

    scale: float
    log_ratio_nats: float
    num_queries: int
    num_outside: int


def fit_scale(gallery: Gallery, queries: Iterable[tuple[Any, Pose]]) -> ScaleFit:
    """Fit the scale on queries that the encoder was not trained on.

    One query more counts as lost: at its true pose it is as similar as any tile on average. So a
    few queries that are all easy do not ask for certainty.

    Args:
        gallery: With an encoder, or queries are descriptors.
        queries: Each with its true pose in the gallery's frame; without a heading all count alike.
            About 33 MB of memory for a thousand queries and each heading bin.

    Raises:
        GalleryError: No query is where a tile is, or queries look like their tiles no more than
            like any.
    """
    at_truth, anywhere, num_outside = [], [], 0
    for query, pose in queries:
        row = gallery.owner_of(pose.x_m, pose.y_m)
        if row is None:
            num_outside += 1
            continue
        descriptors = gallery.described(query)
        similarity = descriptors @ gallery.descriptors[row].astype(np.float32)
        if pose.heading_deg is not None:
            similarity = similarity[[angles.bin_of(pose.heading_deg, len(similarity))]]
        at_truth.append(similarity.astype(float))
        anywhere.append(gallery.reference_similarity(descriptors).ravel())
    if not at_truth:
        raise GalleryError(
            f"None of {num_outside} queries was taken where the {gallery.title} has a tile. Check "
            "that both are about the same place."
            if num_outside
            else "There are no queries, and a scale is fitted on some: none could be read."
        )

    anything, mean = np.stack(anywhere), np.mean(anywhere, axis=1)

    def log_ratios(scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Of the queries, and of each if it were lost."""
        level = log_mean_exp(np.float32(scale) * anything, axis=1)
        true = np.array([log_mean_exp(scale * similarity) for similarity in at_truth])
        return true - level, scale * mean - level

    def loss(log_scale: float) -> float:
        found, lost = log_ratios(np.exp(log_scale))
        return -float(found.sum() + lost.mean())

    scale = float(np.exp(minimize_scalar(loss, bounds=np.log(SCALES), method="bounded").x))
    log_ratio_nats = float(log_ratios(scale)[0].mean())
    if log_ratio_nats <= 0 or scale < SCALES[0] * _AT_BOUND:
        raise GalleryError(
            f"{len(at_truth)} queries look like their own tiles no more than like any "
            f"({log_ratio_nats:.2f} nats), so no scale makes these similarities probabilities. "
            "Check that the views belong to this gallery's region, and train the encoder."
        )
    if scale > SCALES[1] / _AT_BOUND:
        _log.warning(
            "The scale, %.4g, is where its search ends: there are too few queries, or they are all "
            "easy.", scale,
        )  # fmt: skip
    return ScaleFit(scale, log_ratio_nats, len(at_truth), num_outside)


def held_out_queries(
    manifest: Manifest, gallery: Gallery, *, split: str | None = None, region: str | None = None
) -> Iterator[tuple[np.ndarray, Pose]]:
    """Views of a dataset with known positions, described, with their poses.

    Where the gallery has one descriptor for a query, it is that of the true heading: as if a
    compass told. Views without a heading are then left out and counted in the log. Of an encoder
    that sees nothing of headings it is the only one, and of one that was trained for any heading
    that of a heading which is drawn, as nobody will tell. A view that cannot be read is named and
    left out.

    Args:
        manifest: The dataset.
        gallery: With an encoder.
        split: Only views of this one; it must be one that the encoder was not trained on. By
            default val, where there is one, else what is not of train.
        region: Only views of this one, which must be the gallery's; may be left out where views are
            of one region only.

    Raises:
        GalleryError: There is no encoder, no such split or no such view, or views are of several
            regions and none is given.
    """
    if gallery.encoder is None:
        raise GalleryError("Queries are described by an encoder: Gallery.load(folder, encoder).")
    views = manifest.views
    splits = splits_of(views)
    if split is not None and split not in splits:
        raise GalleryError(
            f"{manifest.name} has no views of split {split!r}; it has "
            f"{', '.join(map(repr, splits)) or 'no splits'}."
        )
    if split is None and VAL in splits:
        split = VAL
    of_split = views["split"] != TRAIN if split is None else views["split"] == split
    wanted = views["lat_deg"].notna() & of_split
    regions = sorted(set(views["region"][wanted]))
    if region is None and len(regions) > 1:
        raise GalleryError(
            f"The views are of the regions {', '.join(regions)}, and a gallery is of one. Give it "
            "(--region)."
        )
    if region is not None:
        manifest.frame(region)  # refuses what is none
        wanted &= views["region"] == region
    encoder = gallery.encoder
    is_any = knows_any_heading(encoder) and takes_headings(encoder)
    if gallery.num_headings == 1 and takes_headings(encoder) and not is_any:
        is_headless = wanted & views["heading_deg"].isna()
        wanted &= ~is_headless
        if num_headless := int(is_headless.sum()):
            _log.warning(
                "%d views without a heading are left out, such as %s. A gallery with several "
                "headings (--headings 16) takes them.",
                num_headless, views["view_id"][is_headless].iloc[0],
            )  # fmt: skip
    if not wanted.any():
        raise GalleryError(
            f"{manifest.name} has no views that are queries"
            + "".join(
                f" of {what} {name!r}"
                for what, name in (("split", split), ("region", region))
                if name is not None
            )
            + ": a query has a position, and a heading where the gallery has one only."
        )
    rng = np.random.default_rng(0)
    columns = ["view_id", "kind", "lat_deg", "lon_deg", "heading_deg"]
    for view_id, kind, lat, lon, heading in views.loc[wanted, columns].itertuples(index=False):
        read: Callable[[str], Any] = manifest.photo if kind == "photo" else manifest.panorama
        known = None if np.isnan(heading) else float(heading)
        pose = gallery.frame.pose(GeoPose(float(lat), float(lon), known))
        try:
            query = read(view_id)
        except (PhotoError, ManifestError) as error:
            _log.warning("Left out: %s", error)
            continue
        told_deg = rng.uniform(0.0, angles.FULL_TURN_DEG) if is_any else known
        heading_deg = told_deg if gallery.num_headings == 1 else None
        yield gallery.described(query, heading_deg=heading_deg), pose
