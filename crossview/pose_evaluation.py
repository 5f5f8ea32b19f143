"""Measuring a matcher on a dataset with known poses, from the rough priors that users have."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import tracking
from crossview.camera_noise import CameraNoise
from crossview.drive_evaluation import DriveTrial, drive_trial, drives, with_odometry
from crossview.errors import ManifestError
from crossview.evaluation import PoseResult, coverage_interval, pose_summary
from crossview.grids import MapGrid
from crossview.localizer import ObservingMatcher
from crossview.observations import ObservationStore
from crossview.photos import Panorama, Photo, Rig
from crossview.pose_queries import Query, map_sources, queries, stations_of, without_heights
from crossview.pose_trials import PriorRule, Trial, trial, wrong_statement
from crossview.rasters import MapRaster
from crossview.semantic import SemanticMatcher
from crossview.statements import Statement, statement_summary

if TYPE_CHECKING:
    from crossview.manifest import Manifest

DRIVE_HEADINGS = 128
"""Heading bins of a drive: half as many as of a single place are enough, and twice as quick."""


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
        wrong_place: Whether every query is also searched in a disc that does not hold it.
        camera_error: Errors are drawn from this and put on what single photos state of their
            cameras; None leaves them as they are. The matcher's own noise says what it knows of it.
    """

    manifest: Manifest
    matcher: ObservingMatcher
    stations: str | None = None
    single: bool = False
    cameras: tuple[str, ...] | None = None
    heights: bool = True
    max_pitch_deg: float = 90.0
    cache: Path | None = None
    wrong_place: bool = False
    camera_error: CameraNoise | None = None

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

    def column_matcher(self) -> SemanticMatcher:
        """The matcher of what is asked of columns only.

        Raises:
            ValueError: It is another one.
        """
        if not isinstance(self.matcher, SemanticMatcher):
            raise ValueError(
                "Views are drawn, shifted and remembered as columns, and "
                f"{type(self.matcher).__name__} looks at none. Give a SemanticMatcher."
            )
        return self.matcher

    def views(self) -> Iterator[tuple[Query, Any]]:
        """Every query and what the matcher makes of it, one at a time."""
        from tqdm import tqdm

        observe: Callable[[Any], Any] = self.matcher.observe
        if self.cache is not None:
            observe = ObservationStore(self.cache).observer(self.column_matcher())
        for query in tqdm(self.queries(), unit="query", delay=2, disable=None):
            yield query, observe(self._image(query))

    def _image(self, query: Query) -> Panorama | Photo | Rig:
        image = query.read()
        if self.camera_error is None or not isinstance(image, Photo):
            return image
        rng = np.random.default_rng(zlib.crc32(query.name.encode()))
        return self.camera_error.misstated(image, rng)

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
            asked = query, view, frame, self.matcher, maps[query.region]
            for rule in rules:
                answer = trial(*asked, rule=rule)
                if self.wrong_place:
                    answer = replace(answer, wrong_place=wrong_statement(*asked, rule=rule))
                yield rule, answer

    def places(self, rules: Sequence[PriorRule]) -> dict[str, Any]:
        """Figures of single places: `summary`, and `queries` by seed and name.

        With wrong places `summary` has `wrong_place`: statements.statement_summary of discs that
        do not hold the camera, and how many those are (n).
        """
        results: dict[int, dict[str, PoseResult]] = {rule.seed: {} for rule in rules}
        wrong: dict[int, dict[str, Statement]] = {rule.seed: {} for rule in rules}
        # posteriors are large: only what they were worth is kept
        for rule, answer in self.trials(rules):
            results[rule.seed][answer.name] = answer.result
            if answer.wrong_place is not None:
                wrong[rule.seed][answer.name] = answer.wrong_place
        report: dict[str, Any] = {
            "summary": self._summary(list(results.values())),
            "prior": self._setting(rules),
            "queries": {seed: _told(found) for seed, found in results.items()},
        }
        if self.wrong_place:
            stated = [one for found in wrong.values() for one in found.values()]
            report["summary"]["wrong_place"] = {"n": len(stated), **statement_summary(stated)}
            report["wrong_place"] = {seed: _told(found) for seed, found in wrong.items()}
        return report

    def drive_trials(self, rules: Sequence[PriorRule]) -> Iterator[tuple[PriorRule, DriveTrial]]:
        """Track every drive of the dataset with the prior and the odometry of every rule."""
        maps = self.maps()
        seen = dict(self.views())
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
        filtered: dict[int, dict[str, PoseResult]] = {rule.seed: {} for rule in rules}
        smoothed: dict[int, dict[str, PoseResult]] = {rule.seed: {} for rule in rules}
        for rule, answer in self.drive_trials(rules):
            filtered[rule.seed] |= zip(answer.names, answer.filtered, strict=True)
            smoothed[rule.seed] |= zip(answer.names, answer.smoothed, strict=True)
        return {
            "summary": {
                **self._summary(list(filtered.values())),
                "smoothed": self._summary(list(smoothed.values())),
            },
            # a drive is never elsewhere: its disc surely holds the first frame
            "prior": {k: v for k, v in self._setting(rules).items() if k != "outside"},
            "queries": {
                seed: {
                    name: _told({"filtered": result, "smoothed": smoothed[seed][name]})
                    for name, result in found.items()
                }
                for seed, found in filtered.items()
            },
        }

    def _summary(self, by_seed: Sequence[Mapping[str, PoseResult]]) -> dict[str, Any]:
        """Figures of results by name, over seeds, with the intervals of coverages.

        Seeds ask the same places again, and photos of a station see the same map: an interval is
        that of as many independent answers as there are stations, of which the mean share is
        covered. Neighbouring stations share houses too, so it is rather too narrow.
        """
        summary = _over_seeds([pose_summary(results.values()) for results in by_seed])
        # seeds have as many queries, but not as many answers
        pooled = pose_summary(result for results in by_seed for result in results.values())
        if "selective_accuracy_5m" in pooled:
            summary["selective_accuracy_5m"] = pooled["selective_accuracy_5m"]
        stations = {query.station for query in self.queries() if query.name in by_seed[0]}
        return _with_intervals(summary, len(stations))

    def _setting(self, rules: Sequence[PriorRule]) -> dict[str, Any]:
        noise = getattr(self.matcher, "noise", None)
        return {
            **vars(rules[0]),
            "seed": [rule.seed for rule in rules],
            "single": self.single,
            "cameras": self.cameras,
            "heights": self.heights,
            "max_pitch_deg": self.max_pitch_deg,
            "stations": self.stations,
            "camera_noise": None if noise is None else asdict(noise),
            "camera_error": None if self.camera_error is None else asdict(self.camera_error),
        }


def finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures with None for what JSON cannot say."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def _told(results: Mapping[str, PoseResult | Statement]) -> dict[str, dict[str, Any]]:
    return {name: finite(asdict(result)) for name, result in results.items()}


def _with_intervals(figures: Mapping[str, Any], num_stations: int) -> dict[str, Any]:
    """Figures with the 90 % interval beside every coverage, given so many independent places."""
    told: dict[str, Any] = {}
    for name, value in figures.items():
        told[name] = value
        if name == "n":
            told["num_stations"] = num_stations
        if name.startswith("coverage_"):
            interval = coverage_interval(value * num_stations, num_stations)
            told[f"{name}_interval"] = [*interval]
    return told


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
