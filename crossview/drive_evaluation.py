"""A drive with known poses and a made-up odometry, tracked from a rough prior."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import tracking
from crossview.evaluation import PoseResult, pose_result
from crossview.evidence import on_open_ground
from crossview.frames import LocalFrame, Motion, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import Localizer, ObservingMatcher
from crossview.pose_queries import Query
from crossview.pose_trials import PriorRule, drawn_prior
from crossview.rasters import MapRaster

if TYPE_CHECKING:
    from crossview.manifest import Manifest

DRIVE_MARGIN_M = 15.0
"""How much wider than its first disc the grid of a drive is."""


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
