"""All knowledge about a pose: one distribution, and the only place where evidence is combined."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from crossview import angles, atomic, overlaps
from crossview.errors import (
    FrameMismatchError,
    GridMismatchError,
    ImpossibleEvidenceError,
    OutOfRegionError,
)
from crossview.frames import LocalFrame, Motion, Pose
from crossview.grids import MAX_VOLUME_BYTES, MapGrid, PoseGrid

FORMAT_VERSION = 1

_BLOCK_CELLS = 200_000
"""Cells that are turned to float64 at a time."""

_DIRECTIONS_PER_CELL = 2
"""How densely an arc is filled that a motion of unknown direction sweeps."""

_FEWEST_DIRECTIONS = 16
"""That stand for a whole circle, however small it is."""

_SHARE_NOISE = 1e-9
"""Rounding of the share of a cell that windows leave."""

_SAME_LATTICE = 1e-9
"""Share of a cell up to which two grids' corners count as the same."""

_SMALL_SIGMA = 0.7
"""Cells below which a Gaussian is not sampled."""


class Resolution(Protocol):
    """Anything that says how finely it tells poses apart: every matcher does."""

    @property
    def cell_m(self) -> float:
        """Side of a cell."""

    @property
    def num_headings(self) -> int:
        """Heading bins."""


@dataclass(frozen=True)
class Mode:
    """A peak of a posterior.

    Args:
        pose: The most probable pose of the peak, at its cell's centre.
        mass: Probability of the poses around it.
    """

    pose: Pose
    mass: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """A distribution over poses, and how well it predicted the evidence so far.

    Args:
        grid: The poses.
        log_mass: Natural log of the probability of every cell and bin, (rows, cols, headings)
            float32; sums to one; -inf is impossible.
        log_evidence: Natural log of the probability of all evidence so far (up to each source's
            constant), by which posteriors on different windows compete.
    """

    grid: PoseGrid
    log_mass: np.ndarray
    log_evidence: float = 0.0

    def __post_init__(self) -> None:
        log_mass = _owned(self.log_mass)
        if log_mass.shape != self.grid.shape:
            raise GridMismatchError(
                f"log_mass has shape {log_mass.shape} and its grid {self.grid.shape}."
            )
        total = _log_sum_exp(log_mass, "log_mass")
        if abs(total) > 1e-3:
            raise ValueError(
                f"log_mass sums to {math.exp(min(total, 700)):.6g}, not to one. "
                "Start from Posterior.flat(grid) and update it."
            )
        log_mass.flags.writeable = False
        object.__setattr__(self, "log_mass", log_mass)
        object.__setattr__(self, "log_evidence", float(self.log_evidence))

    # ---------------------------------------------------------------- make

    @classmethod
    def flat(cls, grid: PoseGrid, *, max_bytes: int = MAX_VOLUME_BYTES) -> Posterior:
        """Every pose equally probable.

        Raises:
            VolumeTooLargeError: The volume would be larger than max_bytes.
        """
        grid.require_memory(max_bytes)
        log_mass = np.full(grid.shape, -math.log(math.prod(grid.shape)), np.float32)
        return cls(grid, log_mass)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Posterior:
        """Inverse of save.

        Raises:
            ValueError: The file is not one that save wrote.
        """
        with Path(path).open("rb") as file:
            try:
                archive = np.load(file, allow_pickle=False)
                header = json.loads(str(archive["header"]))
                version = header["format_version"]
                log_mass = archive["log_mass"]
                frame = LocalFrame(header["lat_deg"], header["lon_deg"])
                height, width, num_headings = log_mass.shape
                cells = MapGrid(
                    frame, header["west_m"], header["north_m"], header["cell_m"], height, width
                )
                log_evidence = float(header["log_evidence"])
            except Exception as error:
                raise ValueError(
                    f"{path} is not a saved posterior ({type(error).__name__}: {error}). "
                    "Write one with Posterior.save."
                ) from error
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {version!r} and this version of crossview reads "
                f"{FORMAT_VERSION}."
            )
        return cls(PoseGrid(cells, num_headings), log_mass, log_evidence)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file that holds no pickle; an interrupted write leaves nothing behind."""
        cells = self.grid.map
        header = {
            "format_version": FORMAT_VERSION,
            "lat_deg": cells.frame.lat_deg,
            "lon_deg": cells.frame.lon_deg,
            "west_m": cells.west_m,
            "north_m": cells.north_m,
            "cell_m": cells.cell_m,
            "log_evidence": self.log_evidence,
        }
        with atomic.replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, header=json.dumps(header), log_mass=self.log_mass)

    # ------------------------------------------------------------- combine

    def update(self, log_likelihood: npt.ArrayLike) -> Posterior:
        """The distribution after one more piece of knowledge.

        Args:
            log_likelihood: Natural log of the likelihood of every pose, up to a constant; any
                shape that broadcasts to (rows, cols, headings). -inf excludes.

        Raises:
            GridMismatchError: The shape does not broadcast.
            ImpossibleEvidenceError: No pose is left.
        """
        log_likelihood = np.asarray(log_likelihood)
        if not _broadcasts(log_likelihood.shape, self.grid.shape):
            raise GridMismatchError(
                f"A log-likelihood of shape {log_likelihood.shape} does not broadcast to the "
                f"grid's {self.grid.shape}. Evaluate the evidence on posterior.grid."
            )
        peak = float(np.max(log_likelihood, initial=-np.inf))
        if math.isnan(peak) or peak == math.inf:
            raise ValueError(
                "The log-likelihood holds NaN or +inf. NaN is a bug of its source; a cell that the "
                "source knows nothing about gets its mean log-likelihood (0 for ratios)."
            )
        if peak == -math.inf:
            raise ImpossibleEvidenceError(
                "The evidence excludes every pose of the grid. Check that it and the prior are "
                "about the same place, or widen the prior."
            )
        joint_peak = max(
            float(np.max(mass.astype(float) + likelihood))
            for mass, likelihood in self._blocks_with(log_likelihood)
        )
        if joint_peak == -math.inf:
            raise ImpossibleEvidenceError(
                "The evidence excludes every pose that was still possible. Check that it and the "
                "prior are about the same place, or widen the prior."
            )
        # a large common offset would cost float32 its digits
        with np.errstate(over="ignore"):  # what is too small for float32 is impossible
            joint = np.concatenate(
                [
                    (mass.astype(float) + likelihood - joint_peak).astype(np.float32)
                    for mass, likelihood in self._blocks_with(log_likelihood)
                ]
            )
        log_sum = _log_sum_exp(joint, "log-likelihood")
        joint -= np.float32(log_sum)
        return Posterior(self.grid, _frozen(joint), self.log_evidence + joint_peak + log_sum)

    def moved(self, motion: Motion) -> Posterior:
        """The distribution after a motion, on a grid that follows the camera by whole cells.

        The displacement is in the camera's frame before the turn, so every heading bin moves its
        own way; what is left of it after the grid's own shift moves the mass. What falls off the
        grid is charged to log_evidence. Without headings (one bin) the displacement could be in
        any direction, and becomes a ring.

        Raises:
            ImpossibleEvidenceError: All mass would leave the grid.
        """
        if motion == Motion():
            return self
        known = self.grid.num_headings > 1
        right, down = self._displacements(motion)
        peak = float(self.log_mass.max())
        weight = self.heading()
        shift_cols = round(float(weight @ right.mean(axis=1))) if known else 0
        shift_rows = round(float(weight @ down.mean(axis=1))) if known else 0
        moved = np.stack(
            [
                _spread(
                    np.exp(self.log_mass[:, :, k] - np.float32(peak)),
                    down[k] - shift_rows,
                    right[k] - shift_cols,
                )
                for k in range(self.grid.num_headings)
            ],
            axis=2,
        )
        for axis in (0, 1):
            moved = _blurred(moved, motion.sigma_m / self.grid.map.cell_m, axis, mode="constant")
        if known:
            moved = _turned(moved, motion.turn_deg, motion.sigma_deg)
        grid = PoseGrid(
            self.grid.map.shifted(rows=shift_rows, cols=shift_cols), self.grid.num_headings
        )
        if not moved.any():
            raise ImpossibleEvidenceError(
                f"{motion} leads off the grid, {self.grid.map.bounds}: nothing is left. "
                "Check its units, or start from a larger grid."
            )
        return self._from_mass(grid, moved, peak)

    def onto(self, grid: PoseGrid, *, max_bytes: int = MAX_VOLUME_BYTES) -> Posterior:
        """The distribution on another grid of the same frame: a window, or other cells or bins.

        Mass is uniform inside a cell and a bin and goes by overlap in x, y and heading. The mass
        outside of the grid is charged to log_evidence.

        Raises:
            FrameMismatchError: The grid is in another frame.
            ImpossibleEvidenceError: None of the mass is inside.
            VolumeTooLargeError: The volume would be larger than max_bytes.
        """
        source, target = self.grid.map, grid.map
        if source.frame != target.frame:
            raise FrameMismatchError(
                f"The posterior is anchored at {source.frame} and the grid at {target.frame}. "
                "Build both from one LocalFrame."
            )
        grid.require_memory(max_bytes)
        if grid == self.grid:
            return self
        offset = self._whole_cells_to(grid)
        if offset is not None:
            return self._cropped(grid, *offset)
        rows = overlaps.overlap_shares(
            (target.north_m - source.north_m) / target.cell_m,
            source.cell_m / target.cell_m,
            source.height,
            target.height,
        )
        cols = overlaps.overlap_shares(
            (source.west_m - target.west_m) / target.cell_m,
            source.cell_m / target.cell_m,
            source.width,
            target.width,
        )
        touched_rows, touched_cols = overlaps.touched(rows), overlaps.touched(cols)
        inside = self.log_mass[touched_rows, touched_cols]
        peak = float(np.max(inside, initial=-np.inf))
        self._require_possible(peak, target)
        mass = np.exp(inside.astype(float) - peak)
        mass = overlaps.along_rows(rows[:, touched_rows], mass)
        mass = overlaps.along_rows(cols[:, touched_cols], mass.swapaxes(0, 1)).swapaxes(0, 1)
        if self.grid.num_headings > 1:
            mass = angles.resample_bins(mass, grid.num_headings)
        return self._from_mass(grid, mass, peak)

    # ---------------------------------------------------------------- read

    def mode(self) -> Pose:
        """The most probable pose, at its cell's centre; no heading where there is one bin."""
        index = np.unravel_index(int(np.argmax(self.log_mass)), self.grid.shape)
        return self.grid.pose_at(*(int(i) for i in index))

    def peak(self, *, radius_m: float = 1.5, turn_deg: float = 5.0) -> Pose:
        """The mean of what is close around the mode: finer than a cell, not pulled by far modes.

        Args:
            radius_m: How far from the mode cells take part.
            turn_deg: How far from it headings do.
        """
        mode = self.mode()
        near = _distance_m(self.grid.map, mode.x_m, mode.y_m) <= radius_m
        rows, cols = np.nonzero(near)
        if mode.heading_deg is None:
            bins = np.zeros(1, int)
        else:
            turns_deg = angles.difference_deg(self.grid.headings_deg, mode.heading_deg)
            bins = np.flatnonzero(np.abs(turns_deg) <= turn_deg)
        mass = np.exp(self.log_mass[near][:, bins].astype(float))
        mass /= mass.sum()
        x_m, y_m = self.grid.map.to_xy(cols + 0.5, rows + 0.5)
        heading_deg = None
        if mode.heading_deg is not None:
            mean_turn_deg = float(mass.sum(axis=0) @ turns_deg[bins])
            heading_deg = mode.heading_deg + mean_turn_deg
        by_cell = mass.sum(axis=1)
        return Pose(float(by_cell @ x_m), float(by_cell @ y_m), heading_deg)

    def mean(self) -> Pose:
        """The mean position, and the circular mean of the heading."""
        x_m, y_m = self.grid.map.centers()
        position = self.position()
        heading_deg = None
        if self.grid.num_headings > 1:
            heading_deg = float(angles.circular_mean_deg(self.grid.headings_deg, self.heading()))
        total = position.sum()
        return Pose(
            float(position.sum(axis=0) @ x_m / total),
            float(position.sum(axis=1) @ y_m / total),
            heading_deg,
        )

    def position_covariance_m2(self) -> np.ndarray:
        """Covariance of (x_m, y_m), (2, 2); mass is uniform inside a cell."""
        x_m, y_m = self.grid.map.centers()
        mean = self.mean()
        position = self.position()
        dx, dy = x_m - mean.x_m, y_m - mean.y_m
        variance_x = position.sum(axis=0) @ dx**2
        variance_y = position.sum(axis=1) @ dy**2
        covariance = dy @ position @ dx
        within_cell = self.grid.map.cell_m**2 / 12
        return np.array(
            [[variance_x + within_cell, covariance], [covariance, variance_y + within_cell]]
        )

    def heading_std_deg(self) -> float | None:
        """Root mean square turn from the mean heading; None where there is one bin."""
        mean_deg = self.mean().heading_deg
        if mean_deg is None:
            return None
        turn_deg = angles.difference_deg(self.grid.headings_deg, mean_deg)
        bin_deg = angles.FULL_TURN_DEG / self.grid.num_headings
        return math.sqrt(float(self.heading() @ turn_deg**2) + bin_deg**2 / 12)

    def entropy_nats(self) -> float:
        """Entropy over cells and bins: 0 for one certain pose, log(size) for a flat one."""
        total = 0.0
        for block in _blocks(self.log_mass):
            log_mass = block[np.isfinite(block)].astype(float)
            total -= float(np.sum(np.exp(log_mass) * log_mass))
        return total

    def position(self) -> np.ndarray:
        """Probability of every cell, whatever the heading, (rows, cols) float64, read-only."""
        return self._position

    def heading(self) -> np.ndarray:
        """Probability of every bin, wherever the camera is, (headings,) float64, read-only."""
        return self._heading

    def region(self, mass: float) -> np.ndarray:
        """The smallest set of cells with at least this probability, (rows, cols) bool."""
        if not 0 < mass <= 1:
            raise ValueError(f"mass must be in (0, 1], got {mass}.")
        position = self.position()
        order = np.argsort(position, axis=None, kind="stable")[::-1]
        cumulative = np.cumsum(position.ravel()[order])
        count = int(np.searchsorted(cumulative, mass * cumulative[-1] * (1 - 1e-12))) + 1
        region = np.zeros(position.size, dtype=bool)
        region[order[:count]] = True
        return region.reshape(position.shape)

    def log_density(self, pose: Pose) -> float:
        """Natural log of the probability density at a pose, per square metre and degree.

        -inf outside of the grid. Where the pose or the grid has no heading, that of the position,
        spread over all headings.
        """
        cell_m2 = self.grid.map.cell_m**2
        try:
            row, col = self.grid.map.cell_of(pose.x_m, pose.y_m)
        except OutOfRegionError:
            return -math.inf
        if pose.heading_deg is None or self.grid.num_headings == 1:
            log_mass = np.logaddexp.reduce(self.log_mass[row, col].astype(float))
            return float(log_mass) - math.log(cell_m2 * angles.FULL_TURN_DEG)
        k = int(angles.bin_of(pose.heading_deg, self.grid.num_headings))
        bin_deg = angles.FULL_TURN_DEG / self.grid.num_headings
        return float(self.log_mass[row, col, k]) - math.log(cell_m2 * bin_deg)

    def probability_within(self, radius_m: float, x_m: float, y_m: float) -> float:
        """Probability that the camera stands within a distance of a place (by cell centres)."""
        return float(self.position()[_distance_m(self.grid.map, x_m, y_m) <= radius_m].sum())

    def modes(self, count: int, *, radius_m: float = 5.0, turn_deg: float = 30.0) -> list[Mode]:
        """Up to `count` peaks, highest first.

        A peak takes the mass within radius_m and turn_deg of it that no higher peak took, so two
        opposite headings at one place are two modes.
        """
        remaining = self.log_mass.copy()
        num_headings = self.grid.num_headings
        turns_deg = angles.difference_deg(self.grid.headings_deg, 0.0)
        found: list[Mode] = []
        while len(found) < count:
            row, col, k = np.unravel_index(int(np.argmax(remaining)), remaining.shape)
            if remaining[row, col, k] == -np.inf:
                break
            pose = self.grid.pose_at(int(row), int(col), int(k))
            near = _distance_m(self.grid.map, pose.x_m, pose.y_m) <= radius_m
            bins = np.flatnonzero(np.abs(turns_deg) <= turn_deg)
            bins = (bins + k) % num_headings
            rows, cols = np.nonzero(near)
            taken = np.ix_(np.arange(rows.size), bins)
            around = remaining[rows, cols][taken]
            found.append(Mode(pose, float(np.exp(around.astype(float)).sum())))
            remaining[rows[:, None], cols[:, None], bins[None, :]] = -np.inf
        return found

    def sample(self, count: int, rng: np.random.Generator) -> list[Pose]:
        """Random poses, uniform inside their cell and bin."""
        mass = np.exp(self.log_mass.astype(float)).ravel()
        index = rng.choice(mass.size, size=count, p=mass / mass.sum())
        row, col, k = np.unravel_index(index, self.grid.shape)
        within = rng.random((3, count))
        x_m, y_m = self.grid.map.to_xy(col + within[0], row + within[1])
        if self.grid.num_headings == 1:
            return [Pose(float(x), float(y)) for x, y in zip(x_m, y_m, strict=True)]
        bin_deg = angles.FULL_TURN_DEG / self.grid.num_headings
        heading_deg = (k + within[2] - 0.5) * bin_deg
        return [
            Pose(float(x), float(y), float(h))
            for x, y, h in zip(x_m, y_m, heading_deg, strict=True)
        ]

    # -------------------------------------------------------------- search

    def windows(self, max_windows: int, radius_m: float, like: Resolution) -> list[PoseGrid]:
        """Squares of +-radius_m worth a closer look, best first, not overlapping.

        Each takes the most probability that the ones before it left. They lie on the frame's
        lattice of like.cell_m and do not reach outside of this grid by more than a cell.

        Args:
            max_windows: Number of windows at most; fewer where no probability is left.
            radius_m: Half the side of a window.
            like: Cell size and number of headings wanted: a matcher.
        """
        if 2 * radius_m < like.cell_m:
            raise ValueError(
                f"A window of +-{radius_m} m is smaller than a cell of {like.cell_m} m. Give a "
                "larger radius_m."
            )
        cells = self.grid.map
        corners = overlaps.heaviest_squares(
            self.position(), side=max(1, round(2 * radius_m / cells.cell_m)), count=max_windows
        )
        return [
            PoseGrid(overlaps.on_lattice(cells, like.cell_m, corner), like.num_headings)
            for corner in corners
        ]

    def log_mass_outside(self, windows: Sequence[PoseGrid]) -> float:
        """What no window holds, on the scale of log_evidence; -inf where they hold everything."""
        outside = np.ones(self.grid.map.shape)
        for window in windows:
            outside -= overlaps.share_inside(self.grid.map, window.map)
        outside[outside < _SHARE_NOISE] = 0.0
        mass = float(np.sum(self.position() * outside))
        return self.log_evidence + math.log(mass) if mass > 0 else -math.inf

    # ------------------------------------------------------------- private

    @functools.cached_property
    def _position(self) -> np.ndarray:
        blocks = [np.exp(block.astype(float)).sum(axis=2) for block in _blocks(self.log_mass)]
        return _frozen(np.concatenate(blocks))

    @functools.cached_property
    def _heading(self) -> np.ndarray:
        blocks = [np.exp(block.astype(float)).sum(axis=(0, 1)) for block in _blocks(self.log_mass)]
        return _frozen(np.sum(blocks, axis=0))

    def _blocks_with(self, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Slabs of rows of log_mass, each with the values that belong to it."""
        values = np.broadcast_to(values, self.grid.shape)
        return zip(_blocks(self.log_mass), _blocks(values), strict=True)

    def _require_possible(self, log_inside: float, window: MapGrid) -> None:
        if log_inside == -math.inf:
            raise ImpossibleEvidenceError(
                f"None of the probability lies inside {window.bounds}; the posterior covers "
                f"{self.grid.map.bounds}. Check that map, window and prior are about the same "
                "place."
            )

    def _whole_cells_to(self, grid: PoseGrid) -> tuple[int, int] | None:
        """(row, col) of another grid's corner in this one; None unless all cells coincide."""
        source, target = self.grid.map, grid.map
        if grid.num_headings != self.grid.num_headings or source.cell_m != target.cell_m:
            return None
        col, row = (float(p) for p in source.to_pixel(target.west_m, target.north_m))
        if abs(row - round(row)) > _SAME_LATTICE or abs(col - round(col)) > _SAME_LATTICE:
            return None
        return round(row), round(col)

    def _cropped(self, grid: PoseGrid, row: int, col: int) -> Posterior:
        """The same cells on a window: no mass goes through exp, so nothing underflows."""
        log_mass = np.full(grid.shape, -np.inf, np.float32)
        height, width, _ = self.grid.shape
        rows = slice(max(row, 0), min(row + grid.map.height, height))
        cols = slice(max(col, 0), min(col + grid.map.width, width))
        if rows.start < rows.stop and cols.start < cols.stop:
            log_mass[rows.start - row : rows.stop - row, cols.start - col : cols.stop - col] = (
                self.log_mass[rows, cols]
            )
        log_inside = _log_sum_exp(log_mass, "log_mass")
        self._require_possible(log_inside, grid.map)
        return Posterior(grid, log_mass - log_inside, self.log_evidence + min(log_inside, 0.0))

    def _displacements(self, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
        """Cells to the east and to the south for every heading bin, (headings, directions) each.

        A bin is as wide as its share of the circle: where a displacement sweeps more than a cell
        across it, several directions stand for it. One bin is the whole circle.
        """
        num_headings = self.grid.num_headings
        reach_cells = math.hypot(motion.forward_m, motion.right_m) / self.grid.map.cell_m
        arc_cells = 2 * math.pi * reach_cells / num_headings
        fewest = _FEWEST_DIRECTIONS if num_headings == 1 else 1
        num_directions = max(fewest, math.ceil(_DIRECTIONS_PER_CELL * arc_cells - 1))
        within = (np.arange(num_directions) + 0.5) / num_directions - 0.5
        bin_deg = angles.FULL_TURN_DEG / num_headings
        ahead_x, ahead_y = angles.forward(self.grid.headings_deg[:, None] + bin_deg * within)
        east_m = motion.forward_m * ahead_x + motion.right_m * ahead_y
        north_m = motion.forward_m * ahead_y - motion.right_m * ahead_x
        return east_m / self.grid.map.cell_m, -north_m / self.grid.map.cell_m

    def _from_mass(self, grid: PoseGrid, mass: np.ndarray, log_scale: float) -> Posterior:
        """Normalise mass that was divided by exp(log_scale); what is missing becomes evidence.

        The array is used up. One bin is spread over all bins of the grid.
        """
        total = float(mass.sum(dtype=float))
        with np.errstate(divide="ignore"):
            log_mass = np.log(mass, out=mass)
        log_mass -= math.log(total)
        if log_mass.shape[2] == 1 < grid.num_headings:
            log_mass = np.repeat(
                log_mass.astype(np.float32) - np.float32(math.log(grid.num_headings)),
                grid.num_headings,
                axis=2,
            )
        # spreading float32 masses can gain their rounding; it is no evidence
        log_inside = min(math.log(total) + log_scale, 0.0)
        return Posterior(grid, _frozen(log_mass), self.log_evidence + log_inside)


def _spread(values: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The mean of (rows, cols) values shifted by several displacements; what leaves is lost."""
    spread = np.zeros_like(values)
    for rows, cols in zip(down, right, strict=True):
        row, col = math.floor(rows), math.floor(cols)
        for row_share, to_row in ((row + 1 - rows, row), (rows - row, row + 1)):
            for col_share, to_col in ((col + 1 - cols, col), (cols - col, col + 1)):
                share = np.float32(row_share * col_share / down.size)
                if share:
                    _add_shifted(spread, share * values, to_row, to_col)
    return spread


def _add_shifted(total: np.ndarray, values: np.ndarray, down: int, right: int) -> None:
    """Add values moved by whole cells; what leaves is lost."""
    height, width = total.shape
    if abs(down) >= height or abs(right) >= width:
        return
    to = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    source = (
        slice(max(-down, 0), height + min(-down, 0)),
        slice(max(-right, 0), width + min(-right, 0)),
    )
    total[to] += values[source]


def _blurred(mass: np.ndarray, sigma: float, axis: int, *, mode: str) -> np.ndarray:
    """Mass convolved with a normal distribution of this many cells along one axis."""
    if sigma == 0:
        return mass
    if sigma < _SMALL_SIGMA:
        # a sampled Gaussian of a fraction of a cell is one spike; three taps keep its variance
        kernel = np.array([sigma**2 / 2, 1 - sigma**2, sigma**2 / 2])
        return ndimage.convolve1d(mass, kernel, axis=axis, mode=mode, cval=0.0)
    return ndimage.gaussian_filter1d(mass, sigma, axis=axis, mode=mode, cval=0.0, truncate=5.0)


def _turned(mass: np.ndarray, turn_deg: float, sigma_deg: float) -> np.ndarray:
    """Mass with its headings turned clockwise and blurred around the circle."""
    bin_deg = angles.FULL_TURN_DEG / mass.shape[2]
    whole = math.floor(turn_deg / bin_deg)
    part = turn_deg / bin_deg - whole
    turned = (1 - part) * np.roll(mass, whole, axis=2)
    if part:
        turned += part * np.roll(mass, whole + 1, axis=2)
    return _blurred(turned, sigma_deg / bin_deg, 2, mode="wrap")


def _distance_m(cells: MapGrid, x_m: float, y_m: float) -> np.ndarray:
    """Distance of the cells' centres from a place, (rows, cols)."""
    center_x, center_y = cells.centers()
    return np.hypot(center_x[None, :] - x_m, center_y[:, None] - y_m)


def _owned(values: np.ndarray) -> np.ndarray:
    """A float32 array that nobody else can write to; our own read-only ones are not copied."""
    is_ours = values.dtype == np.float32 and values.base is None and not values.flags.writeable
    return values if is_ours else np.array(values, dtype=np.float32)


def _frozen(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _blocks(volume: np.ndarray) -> Iterator[np.ndarray]:
    """The volume in slabs of rows, so that float64 copies stay small."""
    rows = max(1, _BLOCK_CELLS // max(1, math.prod(volume.shape[1:])))
    for start in range(0, volume.shape[0], rows):
        yield volume[start : start + rows]


def _log_sum_exp(volume: np.ndarray, name: str) -> float:
    """Natural log of the sum of the exponentials, float64."""
    peak = float(np.max(volume))
    if math.isnan(peak) or peak == math.inf:
        raise ValueError(f"The {name} holds NaN or +inf, which is a bug of its source.")
    if peak == -math.inf:
        return -math.inf
    total = sum(float(np.exp(block.astype(float) - peak).sum()) for block in _blocks(volume))
    return peak + math.log(total)
