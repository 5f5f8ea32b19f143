"""A drive: one posterior per frame from photos and odometry, live, in hindsight, or rigidly.

A drive is an iterable of frames (query, motion), where the motion leads from the frame before to
this one and None means that it is not known (a gap in the odometry). The prior is what is known
at the first frame, so the first frame's motion is not used and may be None.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from crossview import angles
from crossview.errors import ImpossibleEvidenceError, MapOutsideError
from crossview.frames import Motion, Pose
from crossview.grids import PoseGrid
from crossview.posterior import Posterior

Drive: TypeAlias = Iterable[tuple[Any, Motion | None]]
"""Frames in order of time: (query, motion since the frame before)."""

Match: TypeAlias = Callable[[Any, PoseGrid, Posterior], npt.ArrayLike]
"""(query, grid, posterior) to a log-likelihood that broadcasts to the grid: Localizer.match."""

_GAP_SIGMAS = 2.0
"""Standard deviations in max_gap_m: 86 % of a normal distribution in the plane lie within two."""

_NO_EVIDENCE = np.zeros((1, 1, 1), np.float32)
_NO_EVIDENCE.flags.writeable = False

_log = logging.getLogger(__name__)


def odometry(
    forward_m: float,
    right_m: float = 0.0,
    turn_deg: float = 0.0,
    *,
    distance_noise: float = 0.05,
    heading_noise_deg: float = 1.0,
    floor_m: float = 0.2,
) -> Motion:
    """A measured motion with the noise that wheels and cheap gyroscopes have.

    Args:
        forward_m: Distance along the heading before the turn.
        right_m: Distance to the right of it.
        turn_deg: Change of heading, clockwise.
        distance_noise: Standard deviation of the displacement, as a share of its length.
        heading_noise_deg: Standard deviation of the turn. It also moves the end of the
            displacement sideways.
        floor_m: What is added however short the way. Noise is per frame: a standing car that is
            filmed for long needs a smaller floor, or fewer frames.
    """
    if not all(0 <= noise < math.inf for noise in (distance_noise, heading_noise_deg, floor_m)):
        raise ValueError(
            f"Noise must be 0 or more and finite, got distance_noise {distance_noise} (a share), "
            f"heading_noise_deg {heading_noise_deg} and floor_m {floor_m}."
        )
    per_metre = math.hypot(distance_noise, math.radians(heading_noise_deg))
    sigma_m = math.hypot(floor_m, per_metre * math.hypot(forward_m, right_m))
    return Motion(forward_m, right_m, turn_deg, sigma_m=sigma_m, sigma_deg=heading_noise_deg)


@dataclass(frozen=True, eq=False)
class Step:
    """One frame of a drive, after it was looked at.

    Args:
        posterior: Given this frame and all before it; its grid follows the car.
        evidence: What this frame added: its tempered log-likelihood, broadcasts to the posterior's
            grid, read-only; zeros, (1, 1, 1), where it added nothing.
        motion: That led here, as it was used: None for a gap, or an odometry not to be believed.
    """

    posterior: Posterior
    evidence: np.ndarray
    motion: Motion | None


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where a whole trajectory lies that odometry gave the shape of.

    Args:
        posterior: The pose of the first frame, given all frames.
        motions: From the first frame to every frame, without noise.
    """

    posterior: Posterior
    motions: tuple[Motion, ...]

    @property
    def poses(self) -> list[Pose]:
        """The most probable placement: the pose of every frame."""
        start = self.posterior.mode()
        return [start.moved(motion) for motion in self.motions]


@dataclass(frozen=True)
class Tracker:
    """Follows a car through a drive.

    Between two frames the car moves as odometry says, or, with kidnap_probability, is anywhere on
    the grid with any heading. The grid keeps its size and follows the car by whole cells, so it
    must be large enough for what is not yet known: prior.onto(PoseGrid(prior.grid.map.padded(50),
    matcher.num_headings)) lets the car go 50 m before its heading is known. What leaves the grid is
    charged to log_evidence, and comes back by kidnapping only.

    Neighbouring frames see the same facades. A frame's evidence, and its chance of a kidnapping,
    count in proportion to the way since the one before, min(1, distance / correlation_m), so that
    a street counts the same however often it is filmed; standing and turning on the spot add
    nothing. The first frame and one after a gap count in full.

    A frame whose evidence excludes every pose, or that is off the map, adds nothing, with a
    warning in the log. Without kidnapping the former raises, and so does a first frame off the map.

    Args:
        match: Log-likelihood of a query on a grid: Localizer.match, or alike.
        kidnap_probability: Per frame that counts in full, in [0, 1). At 0 wrong odometry is final,
            and what is less probable than float32 can say (1e-45 of the peak) is lost.
        correlation_m: Way over which the evidence becomes independent; 0 counts every frame in
            full. Fit it (with evidence_scale) on drives whose poses are known.
        evidence_scale: Factor of all evidence of a drive, beyond the matcher's own scale.
        max_gap_m: How far the car may go between two frames. A gap spreads the position normally
            with half of it as the standard deviation per axis (86 % within max_gap_m) and forgets
            the heading; a motion that is longer is not believed, and is a gap.
    """

    match: Match
    kidnap_probability: float = 1e-3
    correlation_m: float = 5.0
    evidence_scale: float = 1.0
    max_gap_m: float = 50.0

    def __post_init__(self) -> None:
        if not 0 <= self.kidnap_probability < 1:
            raise ValueError(
                f"kidnap_probability must be in [0, 1), got {self.kidnap_probability}; it is per "
                "frame, and 0 believes odometry for ever."
            )
        if not 0 <= self.correlation_m < math.inf:
            raise ValueError(
                f"correlation_m must be 0 or more and finite, got {self.correlation_m}. Use 0 to "
                "count every frame in full."
            )
        for name in ("evidence_scale", "max_gap_m"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}.")

    def weight(self, motion: Motion | None) -> float:
        """The factor of the log-likelihood of a frame that this motion led to."""
        return self.evidence_scale * self._share_new(motion)

    # -------------------------------------------------------------- drives

    def filtered(self, drive: Drive, prior: Posterior) -> Iterator[Step]:
        """Every frame as soon as it is there, given it and the frames before.

        Args:
            drive: Frames, taken one at a time.
            prior: What is known at the first frame.

        Raises:
            ImpossibleEvidenceError: A frame excludes every pose, and kidnap_probability is 0.
            MapOutsideError: The first frame is off the map.
        """
        posterior = prior
        motion: Motion | None
        for index, (query, told) in enumerate(drive):
            if index == 0:
                motion, predicted = Motion(), prior
                weight = self.evidence_scale
            else:
                motion, predicted = self._followed(posterior, told, index)
                weight = self.weight(motion)
            evidence = self._evidence(query, predicted, weight, index)
            posterior, evidence = self._updated(predicted, evidence, index)
            yield Step(posterior, evidence, motion)

    def smoothed(self, drive: Drive, prior: Posterior) -> list[Posterior]:
        """Every frame given the whole drive; keeps one volume per frame.

        Raises:
            ImpossibleEvidenceError: As filtered.
        """
        return self.hindsight(self.filtered(drive, prior))

    def lagged(self, drive: Drive, prior: Posterior, *, lag: int) -> Iterator[Posterior]:
        """Every frame given the frames before it and at least `lag` after it, where there are any.

        Keeps at most 4 * lag volumes: frames are looked back at in blocks of 2 * lag, which costs
        two looks per frame for any lag, and answers come `lag` at a time.
        """
        if lag < 1:
            raise ValueError(f"lag must be 1 frame or more, got {lag}. Use filtered for none.")
        return self._in_blocks(self.filtered(drive, prior), lag)

    def hindsight(self, steps: Iterable[Step]) -> list[Posterior]:
        """Filtered frames, each given all of them: the backward half of forward-backward.

        The way back is the exact adjoint of Posterior.moved and of kidnapping. What later frames
        say is read from the posteriors (smoothed over predicted, as in Rauch, Tung and Striebel,
        1965), so that the frames' evidence need not be kept. All get the log_evidence of the last.

        Args:
            steps: What filtered gave, from a tracker with the same settings.
        """
        kept = [(step.posterior, step.motion) for step in steps]
        if not kept:
            return []
        later, motion = kept.pop()
        smoothed, log_evidence = [later], later.log_evidence
        while kept:
            earlier, motion_before = kept.pop()  # one volume per frame, not two
            news = Posterior.flat(later.grid).update(
                _log_ratio(later, self._predicted(earlier, motion))
            )
            told = earlier.update(self._told_before(news, motion, earlier.grid).log_mass)
            later = dataclasses.replace(told, log_evidence=log_evidence)
            smoothed.append(later)
            motion = motion_before
        return smoothed[::-1]

    # ------------------------------------------------------------- private

    def _in_blocks(self, steps: Iterable[Step], lag: int) -> Iterator[Posterior]:
        held: list[Step] = []
        for step in steps:
            held.append(dataclasses.replace(step, evidence=_NO_EVIDENCE))
            if len(held) == 2 * lag:
                yield from self.hindsight(held)[:lag]
                del held[:lag]
        yield from self.hindsight(held)

    def _followed(
        self, posterior: Posterior, motion: Motion | None, index: int
    ) -> tuple[Motion | None, Posterior]:
        """The motion that can be believed, and the prediction after it."""
        if motion and math.hypot(motion.forward_m, motion.right_m) > self.max_gap_m:
            _log.warning(
                "Frame %d: %s is longer than max_gap_m, %.0f; taken for a gap.",
                index,
                motion,
                self.max_gap_m,
            )
            motion = None
        try:
            return motion, self._predicted(posterior, motion)
        except ImpossibleEvidenceError:
            _log.warning("Frame %d: %s leads off the grid; taken for a gap.", index, motion)
            return None, self._predicted(posterior, None)

    def _share_new(self, motion: Motion | None) -> float:
        """How much of a frame the one before did not see, in [0, 1]."""
        if motion is None:
            return 1.0
        distance_m = math.hypot(motion.forward_m, motion.right_m)
        return 1.0 if distance_m >= self.correlation_m else distance_m / self.correlation_m

    def _predicted(self, posterior: Posterior, motion: Motion | None) -> Posterior:
        carried = self._lost(posterior) if motion is None else posterior.moved(motion)
        return self._or_kidnapped(posterior, carried, motion)

    def _told_before(self, news: Posterior, motion: Motion | None, grid: PoseGrid) -> Posterior:
        """Adjoint of _predicted: what was learned after a motion, as it was before, on its grid."""
        try:
            carried = self._lost(news) if motion is None else _moved_back(news, motion, grid)
        except ImpossibleEvidenceError:
            if self.kidnap_probability == 0:
                raise
            return Posterior.flat(grid)
        return self._or_kidnapped(news, carried, motion)

    def _or_kidnapped(
        self, before: Posterior, carried: Posterior, motion: Motion | None
    ) -> Posterior:
        """What was carried along, mixed with every pose of the grid alike.

        Being flat, kidnapping is its own adjoint: the grids before and after have one size.
        """
        probability = self.kidnap_probability * self._share_new(motion)
        if probability == 0:
            return carried
        log_held = math.log1p(-probability) + carried.log_evidence - before.log_evidence
        log_kidnapped = math.log(probability)
        log_total = float(np.logaddexp(log_held, log_kidnapped))
        log_mass = np.logaddexp(
            carried.log_mass + np.float32(log_held - log_total),
            np.float32(log_kidnapped - log_total - math.log(carried.log_mass.size)),
        )
        return Posterior(carried.grid, log_mass, before.log_evidence + log_total)

    def _lost(self, posterior: Posterior) -> Posterior:
        """After a gap: positions spread, headings forgotten. Its own adjoint."""
        grid = posterior.grid
        spread = Motion(sigma_m=self.max_gap_m / _GAP_SIGMAS)
        return posterior.onto(PoseGrid(grid.map, 1)).moved(spread).onto(grid)

    def _evidence(self, query: Any, predicted: Posterior, weight: float, index: int) -> np.ndarray:
        if weight == 0:
            return _NO_EVIDENCE  # 0 * -inf is not a number, and matching costs
        try:
            log_likelihood = self.match(query, predicted.grid, predicted)
        except MapOutsideError as error:
            if index == 0:
                raise
            _log.warning("Frame %d is off the map and adds nothing: %s", index, error)
            return _NO_EVIDENCE
        evidence = np.asarray(np.asarray(log_likelihood) * weight)
        evidence.flags.writeable = False
        return evidence

    def _updated(
        self, predicted: Posterior, evidence: np.ndarray, index: int
    ) -> tuple[Posterior, np.ndarray]:
        """The posterior, and the evidence that it came to contain."""
        try:
            return predicted.update(evidence), evidence
        except ImpossibleEvidenceError as error:
            if self.kidnap_probability == 0:
                raise
            _log.warning("Frame %d adds nothing: %s", index, error)
            return predicted, _NO_EVIDENCE


def aligned(
    steps: Iterable[Step], prior: Posterior, *, outlier_probability: float = 1e-3
) -> Alignment:
    """Where the whole trajectory lies, if its shape is exactly what odometry says.

    Sums the evidence of all frames over one rigid placement. Right where odometry is much better
    than the map, as over a few hundred metres with a good gyroscope; wrong where it drifts by
    more than the evidence is sharp, which no number here tells: then smooth. Interpolates
    likelihoods linearly between cells and bins; where a frame's grid does not reach, its mean
    likelihood counts, so the grid of the filter must be large enough for all placements.

    Args:
        steps: What Tracker.filtered gave, taken one at a time; evidence is tempered already.
        prior: What is known of the first frame's pose, on the grid of placements wanted. A bin of
            heading is an arc at the far end: where frames lie within 100 m of the first, bins of
            a degree (num_headings=360) are 1.7 m wide there. prior.onto(grid) makes them.
        outlier_probability: That a frame's evidence is meaningless; keeps one bad frame from
            excluding a placement.

    Raises:
        ValueError: The prior has no headings, or the odometry has a gap.
        ImpossibleEvidenceError: The prior and the evidence exclude each other.
    """
    if prior.grid.num_headings == 1:
        raise ValueError(
            "The prior has one bin of heading and a rigid placement needs its heading. Use "
            "prior.onto(PoseGrid(prior.grid.map, num_headings))."
        )
    if not 0 <= outlier_probability < 1:
        raise ValueError(f"outlier_probability must be in [0, 1), got {outlier_probability}.")
    start = pose = Pose(0.0, 0.0, 0.0)
    posterior, motions = prior, []
    for index, step in enumerate(steps):
        if step.motion is None:
            raise ValueError(
                f"Frame {index} follows a gap in the odometry, across which nothing is rigid. "
                "Align the parts of the drive before and after it, or use Tracker.smoothed."
            )
        pose = pose.moved(step.motion)
        motions.append(start.motion_to(pose))
        if step.evidence.size > 1:
            ratio = _placed_ratio(step, motions[-1], prior.grid)
            with np.errstate(divide="ignore"):
                placed = np.log((1 - outlier_probability) * ratio + outlier_probability)
            posterior = posterior.update(placed)
    return Alignment(posterior, tuple(motions))


def _placed_ratio(step: Step, motion: Motion, grid: PoseGrid) -> np.ndarray:
    """A frame's likelihood over its mean, for every pose of the first frame, on `grid`."""
    seen = step.posterior.grid
    likelihood = np.exp(step.evidence.astype(float) - float(step.evidence.max()))
    likelihood = np.broadcast_to(likelihood / likelihood.mean(), seen.shape)
    x_m, y_m = grid.map.centers()
    ratio = np.empty(grid.shape)
    for k, heading_deg in enumerate(grid.headings_deg):
        corner = Pose(float(x_m[0]), float(y_m[0]), float(heading_deg)).moved(motion)
        col, row = seen.map.to_pixel(corner.x_m, corner.y_m)
        ratio[:, :, k] = ndimage.affine_transform(
            _at_heading(likelihood, corner.heading_deg or 0.0),
            np.full(2, grid.map.cell_m / seen.map.cell_m),
            offset=(row - 0.5, col - 0.5),  # corner origin: the first centre is (0.5, 0.5)
            output_shape=grid.map.shape,
            order=1,
            mode="grid-constant",
            cval=1.0,
        )
    return ratio


def _at_heading(volume: np.ndarray, heading_deg: float) -> np.ndarray:
    """The slice of a (rows, cols, headings) volume between the two bins next to a heading."""
    num_headings = volume.shape[2]
    position = heading_deg * num_headings / angles.FULL_TURN_DEG
    low = math.floor(position)
    share = position - low
    return (1 - share) * volume[:, :, low % num_headings] + share * volume[
        :, :, (low + 1) % num_headings
    ]


def _moved_back(posterior: Posterior, motion: Motion, grid: PoseGrid) -> Posterior:
    """Adjoint of Posterior.moved, for the grid that the motion started from.

    moved shifts, cuts off at its grid, blurs and turns. Blurs and turns are adjoint to themselves
    and to the turn back, so they come first and on the same grid; then the way back, on a grid
    that is large enough to lose nothing.
    """
    turned = posterior.moved(
        Motion(turn_deg=-motion.turn_deg, sigma_m=motion.sigma_m, sigma_deg=motion.sigma_deg)
    )
    cells = posterior.grid.map
    # the grid itself may go as far as the mass does
    margin_m = 2 * (math.hypot(motion.forward_m, motion.right_m) + cells.cell_m)
    wide = PoseGrid(cells.padded(margin_m), grid.num_headings)
    back = Motion(forward_m=-motion.forward_m, right_m=-motion.right_m)
    return turned.onto(wide).moved(back).onto(grid)


def _log_ratio(after: Posterior, before: Posterior) -> np.ndarray:
    """What an update, or several, multiplied the mass by; -inf where there was none."""
    possible = before.log_mass > -np.inf
    ratio = np.full(before.grid.shape, -np.inf, np.float32)
    return np.subtract(after.log_mass, before.log_mass, out=ratio, where=possible)
