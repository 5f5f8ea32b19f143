"""Measuring a matcher on a dataset with known poses, from the rough priors that users have."""

from __future__ import annotations

import itertools
import logging
import math
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from crossview import tracking
from crossview.errors import ManifestError
from crossview.evaluation import PoseResult, pose_result, pose_summary
from crossview.evidence import DEFAULT_COMPASS_SIGMA_DEG, on_open_ground, prior_within
from crossview.frames import LocalFrame, Motion, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import WINDOW_MARGIN_M, Localization, Localizer, Matcher
from crossview.manifest_schema import STEEP_PITCH_DEG
from crossview.observations import ObservationStore
from crossview.photos import Panorama, Photo, Rig
from crossview.posterior import Posterior
from crossview.rasters import MapRaster
from crossview.semantic import SemanticMatcher

if TYPE_CHECKING:
    from crossview.manifest import Manifest
    from crossview.vectors import VectorMap

DRIVE_HEADINGS = 128
"""Heading bins of a drive: half as many as of a single place are enough, and twice as quick."""

DRIVE_MARGIN_M = 15.0
"""How much wider than its first disc the grid of a drive is."""

_log = logging.getLogger(__name__)


class ObservingMatcher(Matcher, Protocol):
    """A matcher that can look at a query once and compare it often."""

    def observe(self, query: Any) -> Any:
        """What log_likelihood takes in place of the query."""


@dataclass(frozen=True)
class PriorRule:
    """How rough the prior of a trial is.

    Args:
        radius_m: Radius of the disc that surely holds the camera.
        shift_m: The disc's centre is off the truth by up to this, uniformly, per axis.
        compass_sigma_deg: Standard deviation of a compass; None searches all headings. The
            compass reads the truth plus an error drawn from this.
        seed: Of the draws. A query's draw depends on its own name only, not on the others.
        enclosed: How probable a place in a closed courtyard or a building is, as a share of one in
            the open (see evidence.reachable); 1 if nothing is known of that.
    """

    radius_m: float = 25.0
    shift_m: float = 15.0
    compass_sigma_deg: float | None = None
    seed: int = 0
    enclosed: float = 1.0

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


@dataclass(frozen=True, eq=False)
class Query:
    """A rig or a photo of a dataset, not yet read.

    Args:
        name: Of its station or view.
        station: Of its station.
        region: Whose frame the truth is in.
        truth: Its pose.
        read: Reads the images.
    """

    name: str
    station: str
    region: str
    truth: Pose
    read: Callable[[], Panorama | Photo | Rig]


def queries(
    manifest: Manifest,
    *,
    single: bool = False,
    stations: Collection[str] | None = None,
    cameras: Collection[str] | None = None,
    max_pitch_deg: float = STEEP_PITCH_DEG,
) -> list[Query]:
    """Everything in a dataset that has a pose: its stations, or each of their photos on its own.

    Args:
        manifest: The dataset.
        single: Each photo on its own. Views that look steeply up or down are none then.
        stations: Only these; None for all.
        cameras: Only single photos of these; None for all.
        max_pitch_deg: Rigs leave out views that look higher or lower; 90 keeps all.
    """
    camera_of = dict(zip(manifest.views["view_id"], manifest.views["camera_id"], strict=True))
    read_view = {"panorama": manifest.panorama, "photo": manifest.photo}
    kinds = dict(zip(manifest.views["view_id"], manifest.views["kind"], strict=True))
    limit_deg = min(max_pitch_deg, STEEP_PITCH_DEG) if single else max_pitch_deg
    found = []
    for station in manifest.stations(max_pitch_deg=limit_deg):
        if stations is not None and station.station_id not in stations:
            continue
        place = station.station_id, station.region
        is_alone = len(station.view_ids) == 1
        if not single and not is_alone and station.truth is not None:
            read = _reader(manifest.rig, station.station_id, max_pitch_deg=limit_deg)
            found.append(Query(station.station_id, *place, station.truth, read))
        for view_id in station.view_ids if single or is_alone else ():
            truth = manifest.pose(view_id)
            if truth is not None and (cameras is None or camera_of[view_id] in cameras):
                name = view_id if single else station.station_id
                read = _reader(read_view[kinds[view_id]], view_id)
                found.append(Query(name, *place, truth, read))
    return found


def stations_of(manifest: Manifest, text: str) -> list[str]:
    """Stations by name or by range of numbers, such as "482-494,500", in the table's order.

    Raises:
        ManifestError: A part of the text names no station.
    """
    known = [station.station_id for station in manifest.stations(max_pitch_deg=90.0)]
    wanted: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)-(\d+)", part)
        found = {part} & set(known)
        if not found and match is not None:
            first, last = int(match[1]), int(match[2])
            found = {name for name in known if name.isdecimal() and first <= int(name) <= last}
        if not found:
            raise ManifestError(
                f"{part!r} names no station of {manifest.name}. It has {', '.join(known[:8])}"
                f"{' ...' if len(known) > 8 else ''}; ranges are like 482-494."
            )
        wanted |= found
    return [name for name in known if name in wanted]


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


def without_heights(maps: Callable[[MapGrid], MapRaster]) -> Callable[[MapGrid], MapRaster]:
    """The same map as if nobody had measured its buildings."""
    return lambda grid: maps(grid).without_heights()


def drawn_prior(
    rule: PriorRule, query: Query, frame: LocalFrame, matcher: ObservingMatcher
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


def trial(
    query: Query,
    view: Any,
    frame: LocalFrame,
    matcher: ObservingMatcher,
    maps: Callable[[MapGrid], MapRaster],
    *,
    rule: PriorRule,
) -> Trial:
    """Localize what matcher.observe made of one query."""
    localizer = Localizer(
        maps=maps, matcher=matcher, window_radius_m=rule.radius_m + WINDOW_MARGIN_M
    )
    prior = drawn_prior(rule, query, frame, matcher)
    prior = on_open_ground(prior, maps, enclosed=rule.enclosed)
    localization = localizer.localize(view, prior)
    result = pose_result(localization.best, query.truth)
    return Trial(query.name, query.truth, prior, localization, result)


@dataclass(frozen=True, eq=False)
class DriveFrame:
    """A frame of a drive with a known pose.

    Args:
        query: The rig or photo.
        view: What matcher.observe made of it.
        motion: What the odometry says since the frame before; None at the first.
    """

    query: Query
    view: Any
    motion: Motion | None


def drives(manifest: Manifest, found: Sequence[Query]) -> list[list[Query]]:
    """Queries in the order in which they were driven, one list for each drive of two or more."""
    stations = {s.station_id: s for s in manifest.stations(max_pitch_deg=90.0)}
    by_sequence: dict[str, list[Query]] = {}
    for query in found:
        by_sequence.setdefault(stations[query.station].sequence_id, []).append(query)
    ordered = (
        sorted(members, key=lambda query: stations[query.station].order)
        for sequence, members in by_sequence.items()
        if sequence
    )
    return [members for members in ordered if len(members) > 1]


def with_odometry(
    drive: Sequence[tuple[Query, Any]],
    *,
    seed: int,
    distance_noise: float = 0.05,
    heading_noise_deg: float = 1.0,
) -> list[DriveFrame]:
    """A drive with the odometry of a car that measures badly, made from the true poses.

    Args:
        drive: Queries and what matcher.observe made of them, in the order of time.
        seed: Of the noise.
        distance_noise: Standard deviation of every step's length, as a share of it; its direction
            is off by the heading noise.
        heading_noise_deg: Standard deviation of every turn.
    """
    rng = np.random.default_rng([seed, zlib.crc32(drive[0][0].name.encode())])
    frames = [DriveFrame(*drive[0], None)]
    for (before, _), (query, view) in itertools.pairwise(drive):
        true = before.truth.motion_to(query.truth)
        factor = 1.0 + rng.normal(0.0, distance_noise)
        aside_rad = np.deg2rad(rng.normal(0.0, heading_noise_deg))
        forward_m = factor * (true.forward_m * np.cos(aside_rad) - true.right_m * np.sin(aside_rad))
        right_m = factor * (true.right_m * np.cos(aside_rad) + true.forward_m * np.sin(aside_rad))
        motion = tracking.odometry(
            float(forward_m),
            float(right_m),
            true.turn_deg + float(rng.normal(0.0, heading_noise_deg)),
            distance_noise=distance_noise,
            heading_noise_deg=heading_noise_deg,
        )
        frames.append(DriveFrame(query, view, motion))
    return frames


@dataclass(frozen=True, eq=False)
class DriveTrial:
    """A drive that was tracked, and how good that is.

    Args:
        names: Of its queries.
        truths: Their poses.
        filtered: Results of every frame, given the frames up to it.
        smoothed: Given all frames.
        estimates: Most probable poses, filtered and smoothed.
    """

    names: tuple[str, ...]
    truths: tuple[Pose, ...]
    filtered: tuple[PoseResult, ...]
    smoothed: tuple[PoseResult, ...]
    estimates: tuple[tuple[Pose, Pose], ...]


def drive_trial(
    frames: Sequence[DriveFrame],
    frame: LocalFrame,
    matcher: ObservingMatcher,
    maps: Callable[[MapGrid], MapRaster],
    *,
    rule: PriorRule,
    tracker: Callable[[tracking.Match], tracking.Tracker] = tracking.Tracker,
) -> DriveTrial:
    """Track a drive from a rough prior at its first frame.

    Args:
        frames: In the order of time.
        frame: Of the truths.
        matcher: What compares a frame with the map.
        maps: Cuts the map.
        rule: How rough the prior of the first frame is.
        tracker: Makes a tracker of what matches a frame.
    """
    prior = drawn_prior(rule, frames[0].query, frame, matcher)
    prior = on_open_ground(prior, maps, enclosed=rule.enclosed)
    # the heading is represented from the start, and the car may leave the disc
    cells = prior.grid.map.padded(DRIVE_MARGIN_M)
    prior = prior.onto(PoseGrid(cells, matcher.num_headings))
    localizer = Localizer(maps=maps, matcher=matcher)
    track = tracker(localizer.match)
    steps = list(track.filtered([(one.view, one.motion) for one in frames], prior))
    smoothed = track.hindsight(steps)
    truths = tuple(one.query.truth for one in frames)
    return DriveTrial(
        tuple(one.query.name for one in frames),
        truths,
        tuple(pose_result(s.posterior, t) for s, t in zip(steps, truths, strict=True)),
        tuple(pose_result(p, t) for p, t in zip(smoothed, truths, strict=True)),
        tuple((s.posterior.peak(), p.peak()) for s, p in zip(steps, smoothed, strict=True)),
    )


@dataclass(frozen=True)
class Evaluation:
    """A dataset, a matcher, and what is made harder.

    Args:
        manifest: The dataset.
        matcher: What is measured.
        stations: Only these (see stations_of); None for all.
        single: Every photo on its own instead of rigs.
        cameras: Only single photos of these cameras; None for all.
        heights: Whether the map's building heights are used.
        max_pitch_deg: Rigs leave out cameras that look higher or lower.
        cache: Folder that remembers views, for matchers that look at columns.
    """

    manifest: Manifest
    matcher: ObservingMatcher
    stations: str | None = None
    single: bool = False
    cameras: tuple[str, ...] | None = None
    heights: bool = True
    max_pitch_deg: float = 90.0
    cache: Path | None = None

    def queries(self) -> list[Query]:
        """What is asked."""
        chosen = None if self.stations is None else stations_of(self.manifest, self.stations)
        found = queries(
            self.manifest,
            single=self.single,
            stations=chosen,
            cameras=self.cameras,
            max_pitch_deg=self.max_pitch_deg,
        )
        if not found:
            raise ManifestError(
                f"{self.manifest.name} has no query with a known pose for stations "
                f"{self.stations or 'all'} and cameras {self.cameras or 'all'}; its cameras are "
                f"{', '.join(self.manifest.cameras['camera_id'])}."
            )
        return found

    def views(self) -> Iterator[tuple[Query, Any]]:
        """Every query and what the matcher makes of it, one at a time."""
        from tqdm import tqdm

        observe: Callable[[Any], Any] = self.matcher.observe
        if self.cache is not None:
            if not isinstance(self.matcher, SemanticMatcher):
                raise ValueError(
                    "Only the views of the column matcher are remembered. Leave out the cache, or "
                    "use --matcher semantic."
                )
            observe = ObservationStore(self.cache).observer(self.matcher)
        for query in tqdm(self.queries(), unit="query", delay=2, disable=None):
            yield query, observe(query.read())

    def maps(self) -> dict[str, Callable[[MapGrid], MapRaster]]:
        """The map of every region, with or without heights."""
        sources = map_sources(self.manifest)
        return {
            region: source if self.heights else without_heights(source)
            for region, source in sources.items()
        }

    def trials(self, rules: Sequence[PriorRule]) -> Iterator[tuple[PriorRule, Trial]]:
        """Localize every query from the rough prior of every rule, one at a time."""
        maps = self.maps()
        for query, view in self.views():
            frame = self.manifest.frame(query.region)
            for rule in rules:
                answer = trial(query, view, frame, self.matcher, maps[query.region], rule=rule)
                yield rule, answer

    def places(self, rules: Sequence[PriorRule]) -> dict[str, Any]:
        """Figures of single places: `summary`, and `queries` by name and seed."""
        results: dict[int, dict[str, PoseResult]] = {rule.seed: {} for rule in rules}
        # posteriors are large: only what they were worth is kept
        for rule, answer in self.trials(rules):
            results[rule.seed][answer.name] = answer.result
        summaries = [pose_summary(found.values()) for found in results.values()]
        return {
            "summary": _over_seeds(summaries),
            "prior": self._setting(rules),
            "queries": {
                seed: {name: finite(vars(result)) for name, result in found.items()}
                for seed, found in results.items()
            },
        }

    def drive_trials(self, rules: Sequence[PriorRule]) -> Iterator[tuple[PriorRule, DriveTrial]]:
        """Track every drive of the dataset with the prior and the odometry of every rule."""
        maps = self.maps()
        seen = dict(zip(*_unzipped(self.views()), strict=True))
        found = drives(self.manifest, list(seen))
        if not found:
            raise ManifestError(
                f"{self.manifest.name} has no drive among these stations: views of a drive share a "
                "sequence_id, and there must be two of them."
            )
        for rule, drive in itertools.product(rules, found):
            frames = with_odometry([(query, seen[query]) for query in drive], seed=rule.seed)
            region = drive[0].region
            yield (
                rule,
                drive_trial(
                    frames,
                    self.manifest.frame(region),
                    self.matcher,
                    maps[region],
                    rule=rule,
                    tracker=self.tracker,
                ),
            )

    def tracker(self, match: tracking.Match) -> tracking.Tracker:
        """A tracker with what the matcher's model says of drives."""
        model = getattr(self.matcher, "model", None)
        if model is None:
            return tracking.Tracker(match)
        return tracking.Tracker(match, correlation_m=model.calibration.correlation_m)

    def drives(self, rules: Sequence[PriorRule]) -> dict[str, Any]:
        """Figures of drives: `summary` of the filter with `smoothed`, and every frame."""
        filtered: dict[int, list[PoseResult]] = {rule.seed: [] for rule in rules}
        smoothed: dict[int, list[PoseResult]] = {rule.seed: [] for rule in rules}
        frames: dict[int, dict[str, Any]] = {rule.seed: {} for rule in rules}
        for rule, answer in self.drive_trials(rules):
            filtered[rule.seed].extend(answer.filtered)
            smoothed[rule.seed].extend(answer.smoothed)
            both = zip(answer.names, answer.filtered, answer.smoothed, strict=True)
            frames[rule.seed] |= {
                name: {"filtered": finite(vars(one)), "smoothed": finite(vars(two))}
                for name, one, two in both
            }
        return {
            "summary": {
                **_over_seeds([pose_summary(found) for found in filtered.values()]),
                "smoothed": _over_seeds([pose_summary(found) for found in smoothed.values()]),
            },
            "prior": self._setting(rules),
            "queries": frames,
        }

    def _setting(self, rules: Sequence[PriorRule]) -> dict[str, Any]:
        return {
            **vars(rules[0]),
            "seed": [rule.seed for rule in rules],
            "single": self.single,
            "cameras": self.cameras,
            "heights": self.heights,
            "max_pitch_deg": self.max_pitch_deg,
            "stations": self.stations,
        }


def finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures with None for what JSON cannot say."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def _over_seeds(summaries: Sequence[Mapping[str, float | int | None]]) -> dict[str, Any]:
    """One summary as it is; of several, the mean and the range of every figure."""
    if len(summaries) == 1:
        return finite(summaries[0])
    mean: dict[str, Any] = {}
    ranges: dict[str, Any] = {}
    for name in summaries[0]:
        values = [summary[name] for summary in summaries]
        known = [float(value) for value in values if value is not None and math.isfinite(value)]
        complete = len(known) == len(values)
        mean[name] = float(np.mean(known)) if complete else None
        ranges[name] = [min(known), max(known)] if complete else None
    return {**mean, "n": summaries[0]["n"], "num_seeds": len(summaries), "range": ranges}


def _unzipped(pairs: Iterable[tuple[Query, Any]]) -> tuple[list[Query], list[Any]]:
    listed = list(pairs)
    return [query for query, _ in listed], [view for _, view in listed]


def _reader(
    read: Callable[..., Any], name: str, **options: float
) -> Callable[[], Panorama | Photo | Rig]:
    return lambda: read(name, **options)
