"""Measuring a matcher on a dataset with known poses, from the rough priors that users have."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.birdseye import BirdsEye
from crossview.errors import ManifestError
from crossview.evaluation import PoseResult, pose_result
from crossview.evidence import DEFAULT_COMPASS_SIGMA_DEG, prior_within
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.localizer import WINDOW_MARGIN_M, Localization, Localizer
from crossview.photos import Panorama, Photo, Rig
from crossview.posterior import Posterior
from crossview.rasters import MapRaster
from crossview.semantic import SemanticMatcher

if TYPE_CHECKING:
    from crossview.manifest import Manifest
    from crossview.vectors import VectorMap

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PriorRule:
    """How rough the prior of a trial is.

    Args:
        radius_m: Radius of the disc that surely holds the camera.
        shift_m: The disc's centre is off the truth by up to this, uniformly, per axis.
        compass_sigma_deg: Standard deviation of a compass; None searches all headings. The
            compass reads the truth plus an error drawn from this.
        seed: Of the draws. A query's draw depends on its own name only, not on the others.
    """

    radius_m: float = 25.0
    shift_m: float = 15.0
    compass_sigma_deg: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            not 0 < self.radius_m < math.inf
            or not 0 <= self.shift_m * math.sqrt(2) <= self.radius_m
        ):
            raise ValueError(
                f"A disc of {self.radius_m} m whose centre is up to {self.shift_m} m off per axis "
                "may not hold the camera. Give a positive radius_m of at least 1.42 times shift_m."
            )
        if self.compass_sigma_deg is not None and not 0 < self.compass_sigma_deg < math.inf:
            raise ValueError(f"compass_sigma_deg must be positive, got {self.compass_sigma_deg}.")


@dataclass(frozen=True)
class Trial:
    """One query of a dataset, what is known about it, and the answer.

    Args:
        name: Station or view.
        truth: Where the camera stood, in the region's frame.
        prior: What the localizer was told.
        localization: What it answered.
        result: How good that is.
    """

    name: str
    truth: Pose
    prior: Posterior
    localization: Localization
    result: PoseResult


@dataclass(frozen=True)
class Query:
    """A rig or a photo of a dataset, not yet read.

    Args:
        name: Of its station or view.
        region: Whose frame the truth is in.
        truth: Its pose.
        read: Reads the images.
    """

    name: str
    region: str
    truth: Pose
    read: Callable[[], Panorama | Photo | Rig]


def queries(manifest: Manifest, *, single: bool = False) -> list[Query]:
    """Everything in a dataset that has a pose: its stations, or each of their photos on its own.

    Views that look steeply up or down are no queries, as in Manifest.rig.
    """
    read_view = {"panorama": manifest.panorama, "photo": manifest.photo}
    kinds = dict(zip(manifest.views["view_id"], manifest.views["kind"], strict=True))
    found = []
    for station in manifest.stations():
        is_alone = len(station.view_ids) == 1
        if not single and not is_alone and station.truth is not None:
            read = _reader(manifest.rig, station.station_id)
            found.append(Query(station.station_id, station.region, station.truth, read))
        for view_id in station.view_ids if single or is_alone else ():
            truth = manifest.pose(view_id)
            if truth is not None:
                name = view_id if single else station.station_id
                read = _reader(read_view[kinds[view_id]], view_id)
                found.append(Query(name, station.region, truth, read))
    return found


def map_sources(manifest: Manifest) -> dict[str, VectorMap]:
    """The vector map of every region of a dataset, by name.

    Raises:
        ManifestError: A region has no map.
    """
    from crossview.vectors import VectorMap

    sources = {}
    for region in manifest.regions["name"]:
        files = manifest.map_files(region)
        if not files:
            raise ManifestError(
                f"Region {region!r} of {manifest.name} has no map. Add one to maps.csv."
            )
        if len(files) > 1:
            _log.warning("Region %s has %d maps; %s is used.", region, len(files), files[0].path)
        # an empty list means "not stated", and the map's own kind then decides
        sources[region] = VectorMap.read(files[0].path, surveyed=files[0].surveyed or None)
    return sources


def drawn_prior(
    rule: PriorRule, query: Query, frame: LocalFrame, matcher: SemanticMatcher
) -> Posterior:
    """The rough idea of one query: a shifted disc, and perhaps a compass with an error."""
    rng = np.random.default_rng([rule.seed, zlib.crc32(query.name.encode())])
    shift_x_m, shift_y_m = rng.uniform(-rule.shift_m, rule.shift_m, size=2)
    heading_deg = None
    if rule.compass_sigma_deg is not None and query.truth.heading_deg is not None:
        heading_deg = query.truth.heading_deg + rng.normal(0.0, rule.compass_sigma_deg)
    return prior_within(
        frame,
        query.truth.x_m + shift_x_m,
        query.truth.y_m + shift_y_m,
        radius_m=rule.radius_m,
        like=matcher,
        heading_deg=heading_deg,
        compass_sigma_deg=rule.compass_sigma_deg or DEFAULT_COMPASS_SIGMA_DEG,
    )


def trials(
    manifest: Manifest,
    matcher: SemanticMatcher,
    maps: Mapping[str, Callable[[MapGrid], MapRaster]],
    rule: PriorRule,
    *,
    single: bool = False,
) -> Iterator[Trial]:
    """Localize every query of a dataset from its own rough prior, one at a time.

    Args:
        manifest: The dataset.
        matcher: What is measured.
        maps: The map of every region, by name.
        rule: How rough the priors are.
        single: Every photo on its own instead of rigs.
    """
    for query in queries(manifest, single=single):
        yield trial(
            query,
            matcher.observe(query.read()),
            manifest.frame(query.region),
            matcher,
            maps[query.region],
            rule=rule,
        )


def trial(
    query: Query,
    view: BirdsEye,
    frame: LocalFrame,
    matcher: SemanticMatcher,
    maps: Callable[[MapGrid], MapRaster],
    *,
    rule: PriorRule,
) -> Trial:
    """Localize what matcher.observe made of one query."""
    localizer = Localizer(
        maps=maps, matcher=matcher, window_radius_m=rule.radius_m + WINDOW_MARGIN_M
    )
    prior = drawn_prior(rule, query, frame, matcher)
    localization = localizer.localize(view, prior)
    result = pose_result(localization.best, query.truth)
    return Trial(query.name, query.truth, prior, localization, result)


def _reader(read: Callable[[str], Any], name: str) -> Callable[[], Panorama | Photo | Rig]:
    return lambda: read(name)
