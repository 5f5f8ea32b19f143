"""Exhaustive voting: how well a bird's-eye view fits a map at every position and heading."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from crossview.birdseye import BirdsEye, Turntable
from crossview.correlation import (
    QUADRANTS,
    Correlator,
    TemplateStack,
    TurnedSpectra,
    Window,
    turned_spectra,
)
from crossview.errors import GridMismatchError, VolumeTooLargeError
from crossview.grids import MAX_VOLUME_BYTES

FULLY_SEEN = 1 - 1e-4
"""A template's cell counts as valid above this share of its turned mask (OrienterNet's rule)."""

_MAX_BATCH = 16
_MIN_BATCH = 4
_BATCH_BYTES = 2**27


@dataclass(frozen=True, eq=False)
class Votes:
    """Scores of a bird's-eye view at every pose of a window.

    Attributes:
        scores: (rows, cols, headings) float32, sums over channels and cells of the turned view
            times the map: not divided by anything. Bins that were not asked for are -inf.
        counts: (headings,) how many cells of the turned view are seen whole, wherever the map
            ends; 0 in bins that were not asked for.
    """

    scores: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Vote:
    """One pose and its score: the centre of cell (row, col), looking along a heading bin."""

    score: float
    row: int
    col: int
    heading: int


@dataclass(frozen=True, eq=False)
class VoteSummary:
    """What a volume of scaled scores says, without the volume.

    Attributes:
        log_sum: (rows, cols) float32, the log of the sum over headings of exp(scaled score).
        best_score: (rows, cols) float32, the largest scaled score over headings.
        best_heading: (rows, cols) int32, a bin that has it.
        top: The poses with the largest scaled scores, best first, among equals by row, then
            column, then heading.
        log_total: The log of the sum of exp(scaled score) over all poses.
        counts: As in Votes.
    """

    log_sum: np.ndarray
    best_score: np.ndarray
    best_heading: np.ndarray
    top: tuple[Vote, ...]
    log_total: float
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class VotingMap:
    """A map to vote on, which keeps its spectra from one query to the next.

    Spectra belong to a window and to how far a view reaches. They are made when a view asks for
    them and kept until another window or reach comes. No answer depends on what was asked before.

    Attributes:
        values: (rows, cols, channels) float32, row 0 north and column 0 west.
        cell_m: Side of a square cell in metres.
    """

    values: np.ndarray
    cell_m: float
    _kept: dict[tuple[Window, int], TurnedSpectra] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float32)
        if values.ndim != 3 or values.size == 0:
            raise GridMismatchError(
                f"A map to vote on is (rows, cols, channels), none of them 0; "
                f"got an array of shape {values.shape}."
            )
        if not np.isfinite(values).all():
            raise ValueError(
                "A map to vote on has values that are not finite. Give cells without knowledge "
                "the value 0; exclude places in the posterior."
            )
        if not (math.isfinite(self.cell_m) and self.cell_m > 0):
            raise ValueError(f"cell_m must be a positive number of metres; got {self.cell_m}.")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "cell_m", float(self.cell_m))

    def spectra(self, window: Window, *, reach: int) -> TurnedSpectra:
        """Spectra for views that reach so many cells from the poses in a window."""
        kept = self._kept.get((window, reach))
        if kept is None:
            self._kept.clear()  # first, so that only one is ever held
            kept = turned_spectra(self.values, window, reach=reach)
            self._kept[window, reach] = kept
        return kept


def vote(
    view: BirdsEye,
    on: VotingMap | npt.ArrayLike,
    *,
    num_headings: int,
    window: Window | None = None,
    headings: npt.ArrayLike | None = None,
    workers: int = 1,
    max_bytes: int = MAX_VOLUME_BYTES,
) -> Votes:
    """Scores of a bird's-eye view at every position and heading.

    The score of (row, col, k) is the sum, over channels and cells, of the map times the view
    turned clockwise by k * 360 / num_headings about its camera, with the camera at the centre of
    map cell (row, col). The view is sampled bilinearly; what it did not see, and what lies outside
    of the map, counts as zero. Every pose is computed, exactly but for the rounding of float32.

    Args:
        view: What was observed; its channels are the map's.
        on: A map, or only its values, (rows, cols, channels), in cells of the view's size.
        num_headings: Heading bins, a multiple of 4; bin 0 looks north.
        window: Positions to try, (row_start, row_stop, col_start, col_stop) of the map; all of
            them if None. The map around the window takes part in the scores.
        headings: Indices of the bins to try; all of them if None.
        workers: Threads. The answer does not depend on them.
        max_bytes: The largest volume that is made.

    Raises:
        GridMismatchError: Channels, cell sizes or the window do not fit.
        VolumeTooLargeError: The volume would be larger than max_bytes.
    """
    search = _Search(
        view, on, num_headings=num_headings, window=window, headings=headings, workers=workers
    )
    rows, cols = search.frame_shape(0)
    volume_bytes = rows * cols * num_headings * np.dtype(np.float32).itemsize
    if volume_bytes > max_bytes:
        raise VolumeTooLargeError(
            f"{rows} x {cols} x {num_headings} scores take {volume_bytes / 1e6:.0f} MB and the "
            f"limit is {max_bytes / 1e6:.0f} MB. Use vote_streaming, vote in a window, "
            "or raise max_bytes."
        )
    scores = np.empty((rows, cols, num_headings), dtype=np.float32)
    scores[:, :, ~search.wanted] = -np.inf
    frames = [np.rot90(scores, quadrant) for quadrant in QUADRANTS]

    def store(quadrant: int, bins: np.ndarray, row: int, planes: np.ndarray) -> None:
        first, last = int(bins[0]), int(bins[-1])
        index = slice(first, last + 1) if last - first < len(bins) else bins
        frames[quadrant][row : row + planes.shape[1], :, index] = planes.transpose(1, 2, 0)

    counts = search.run(store)
    scores.setflags(write=False)
    return Votes(scores, counts)


def vote_streaming(
    view: BirdsEye,
    on: VotingMap | npt.ArrayLike,
    *,
    num_headings: int,
    window: Window | None = None,
    headings: npt.ArrayLike | None = None,
    scale: float = 1.0,
    top_k: int = 1,
    workers: int = 1,
) -> VoteSummary:
    """The scores of `vote`, reduced as they are made: memory does not grow with the headings.

    Args:
        view: As in vote.
        on: As in vote.
        num_headings: As in vote.
        window: As in vote; rows and columns of the summary are the window's.
        headings: As in vote; the other bins take no part in any reduction.
        scale: Turns a score into a log-likelihood; all reductions are of scale times score.
        top_k: How many of the best poses to name.
        workers: As in vote.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number; got {scale}.")
    if int(top_k) != top_k or top_k < 0:
        raise ValueError(f"top_k must be a whole number, 0 or more; got {top_k}.")
    search = _Search(
        view,
        on,
        num_headings=num_headings,
        window=window,
        headings=headings,
        workers=workers,
        scale=scale,
    )
    volume_shape = (*search.frame_shape(0), num_headings)
    reductions = [
        _FrameReduction(search.frame_shape(q), _TopPoses(int(top_k), q, volume_shape))
        for q in QUADRANTS
    ]

    def reduce(quadrant: int, bins: np.ndarray, row: int, planes: np.ndarray) -> None:
        reductions[quadrant].add(bins, row, planes)

    counts = search.run(reduce)
    return _merged(reductions, counts, int(top_k))


VisitQuadrant = Callable[[int, np.ndarray, int, np.ndarray], None]
"""Takes a quadrant, heading bins, a first row and their scores (bins, rows, cols) from there on.

Rows and columns are the quadrant's frame: the window turned counter-clockwise by its quarter turns.
"""


class _Search:
    """One question to the engine, checked and cut into parts.

    The headings of all quadrants are those of the first one on a map that is turned by quarter
    turns, exactly: one template serves four bins.
    """

    def __init__(
        self,
        view: BirdsEye,
        on: VotingMap | npt.ArrayLike,
        *,
        num_headings: int,
        window: Window | None,
        headings: npt.ArrayLike | None,
        workers: int,
        scale: float = 1.0,
    ) -> None:
        self.map = on if isinstance(on, VotingMap) else VotingMap(np.asarray(on), view.cell_m)
        if self.map.values.shape[2] != view.num_channels:
            raise GridMismatchError(
                f"The view has {view.num_channels} channels and the map "
                f"{self.map.values.shape[2]}. Both need the same channels in the same order."
            )
        if not math.isclose(self.map.cell_m, view.cell_m, rel_tol=1e-6):
            raise GridMismatchError(
                f"The view has cells of {view.cell_m} m and the map of {self.map.cell_m} m. "
                "Draw both with one cell size."
            )
        if int(workers) != workers or workers < 1:
            raise ValueError(f"workers is a number of threads, at least 1; got {workers}.")
        self.workers = int(workers)
        self.window = _checked_window(window, self.map.values.shape)
        self.wanted = _wanted_bins(num_headings, headings)
        self.num_base = num_headings // len(QUADRANTS)
        self.turntable = Turntable(view)
        self.scale = np.float32(scale)

    def frame_shape(self, quadrant: int) -> tuple[int, int]:
        """(rows, cols) of the window in a quadrant's frame."""
        row_start, row_stop, col_start, col_stop = self.window
        height, width = row_stop - row_start, col_stop - col_start
        return (height, width) if quadrant % 2 == 0 else (width, height)

    def run(self, visit: VisitQuadrant) -> np.ndarray:
        """Show all wanted scores to a visitor, some bins and rows of a frame at a time.

        Only one thread at a time is in a row of a frame, and bins come to it in one order.

        Returns:
            (headings,) how many cells are seen whole.
        """
        counts = np.zeros(len(self.wanted), dtype=np.int64)
        spectra = self.map.spectra(self.window, reach=self.turntable.reach_cells)
        for quadrants, bases in self._groups():
            chosen = spectra.of(quadrants)
            size = _batch_size(chosen)
            with Correlator(chosen, workers=self.workers) as correlator:
                for start in range(0, len(bases), size):
                    batch = bases[start : start + size]
                    stack, valid = self._templates(batch)
                    for quadrant in quadrants:
                        counts[batch + quadrant * self.num_base] = valid
                    correlator.correlate(
                        stack.within(chosen.reach), self._by_quadrant(quadrants, batch, visit)
                    )
        counts.setflags(write=False)
        return counts

    def _groups(self) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """First-quadrant bins, together where they are wanted in the same quadrants."""
        wanted = self.wanted.reshape(len(QUADRANTS), self.num_base)
        patterns, group = np.unique(wanted, axis=1, return_inverse=True)
        for index, pattern in enumerate(patterns.T):
            if pattern.any():
                quadrants = tuple(int(quadrant) for quadrant in np.flatnonzero(pattern))
                yield quadrants, np.flatnonzero(group.ravel() == index)

    def _templates(self, bases: np.ndarray) -> tuple[TemplateStack, np.ndarray]:
        """Turned views of some first-quadrant bins, and how many of their cells are valid."""
        headings_deg = bases * (360.0 / len(self.wanted))
        box = self.turntable.extent(headings_deg[0])
        for heading_deg in headings_deg[1:]:
            box |= self.turntable.extent(heading_deg)
        rows, cols = box.shape
        channels = self.map.values.shape[2]
        canvas = np.zeros((rows * cols, channels, len(bases)), dtype=np.float32)
        valid = np.zeros(len(bases), dtype=np.int64)
        for index, heading_deg in enumerate(headings_deg):
            cells, samples = self.turntable.sample(heading_deg, box)
            canvas[cells, :, index] = self.scale * samples[:, :channels]
            valid[index] = np.count_nonzero(samples[:, channels] > FULLY_SEEN)
        values = canvas.reshape(rows, cols, channels, len(bases))
        return TemplateStack(values, box.row_start, box.col_start), valid

    def _by_quadrant(
        self, quadrants: tuple[int, ...], bases: np.ndarray, visit: VisitQuadrant
    ) -> Callable[[int, np.ndarray], None]:
        """A visitor of sums that hands each quadrant's on, without what pads its frame."""

        def split(row: int, sums: np.ndarray) -> None:
            for quadrant, planes in zip(quadrants, sums, strict=True):
                rows, cols = self.frame_shape(quadrant)
                if row < rows:
                    bins = bases + quadrant * self.num_base
                    visit(quadrant, bins, row, planes[:, : rows - row, :cols])

        return split


class _FrameReduction:
    """Running reductions of one quadrant's scaled scores, in its frame."""

    def __init__(self, shape: tuple[int, int], top: _TopPoses) -> None:
        self.best = np.full(shape, -np.inf, dtype=np.float32)
        self.total = np.zeros(shape, dtype=np.float32)  # of exp(score - best)
        self.heading = np.zeros(shape, dtype=np.int32)
        self.top = top

    def add(self, bins: np.ndarray, row: int, planes: np.ndarray) -> None:
        """Take in scores (bins, rows, cols) from a row on; the array is used up."""
        rows = slice(row, row + planes.shape[1])
        best, total, heading = self.best[rows], self.total[rows], self.heading[rows]
        largest, winner = _largest_plane(planes)
        np.copyto(heading, bins[winner], where=largest > best)
        before = best.copy()
        np.maximum(best, largest, out=best)
        self.top.add(bins, row, planes, bound=largest.max())
        total *= np.exp(before - best)
        planes -= best
        total += np.exp(planes, out=planes).sum(axis=0)


def _largest_plane(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest of up to 256 planes in every cell and its index, the first one among equals.

    A tournament of neighbours, on whole planes: several times as fast as argmax over the first
    axis.
    """
    largest, index = planes, np.zeros(planes.shape, dtype=np.uint8)
    step = 1
    while len(largest) > 1:
        paired = len(largest) // 2 * 2
        first, second = largest[:paired:2], largest[1:paired:2]
        # bits of the index; those of a second one are above all of a first, so the larger counts
        chosen = (second > first).view(np.uint8) * (index[1:paired:2] + np.uint8(step))
        chosen = np.maximum(index[:paired:2], chosen)
        winners = np.maximum(first, second)
        if paired < len(largest):
            winners = np.concatenate([winners, largest[paired:]])
            chosen = np.concatenate([chosen, index[paired:]])
        largest, index = winners, chosen
        step *= 2
    return largest[0], index[0]


class _TopPoses:
    """The largest of many scores of one quadrant, and where they are on the window.

    Among equals those count that come first by row, column and heading of the window. Which
    threads add, and in which order, makes no difference.
    """

    def __init__(self, top_k: int, quadrant: int, volume_shape: tuple[int, int, int]) -> None:
        self.top_k = top_k
        self.scores = np.empty(0, dtype=np.float32)
        self.places = np.empty(0, dtype=np.int64)  # flat indices into (rows, cols, headings)
        self._quadrant = quadrant
        self._volume_shape = volume_shape
        self._floor = np.float32(-np.inf)
        self._lock = threading.Lock()

    def add(self, bins: np.ndarray, row: int, planes: np.ndarray, *, bound: np.float32) -> None:
        """Take in scores (bins, rows, cols) from a row on, none of them above a bound."""
        if not self.top_k or bound < self._floor:
            return
        index = np.flatnonzero(planes >= self._floor)
        scores = planes.ravel()[index]
        if len(scores) > self.top_k:
            kept = scores >= np.partition(scores, -self.top_k)[-self.top_k]
            index, scores = index[kept], scores[kept]
        plane, plane_row, col = np.unravel_index(index, planes.shape)
        place = _from_frame(plane_row + row, col, self._quadrant, self._volume_shape)
        places = np.ravel_multi_index((*place, bins[plane]), self._volume_shape)
        scores, places = _first_of_equals(scores, places, self.top_k)
        with self._lock:
            scores = np.concatenate([self.scores, scores])
            places = np.concatenate([self.places, places])
            order = np.lexsort((places, -scores))[: self.top_k]
            self.scores, self.places = scores[order], places[order]
            if len(order) == self.top_k:
                self._floor = self.scores[-1]


def _first_of_equals(
    scores: np.ndarray, places: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """At most so many: fewer than that exceed the least score, of which the first places stay."""
    if len(scores) <= count:
        return scores, places
    least = scores.min()
    above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    room = count - len(above)
    first = equal[np.argpartition(places[equal], room - 1)[:room]]
    kept = np.concatenate([above, first])
    return scores[kept], places[kept]


def _merged(frames: list[_FrameReduction], counts: np.ndarray, top_k: int) -> VoteSummary:
    """The summary of all quadrants, on the window."""
    best, total, heading = (
        np.stack([np.rot90(getattr(frames[quadrant], name), -quadrant) for quadrant in QUADRANTS])
        for name in ("best", "total", "heading")
    )
    best_score, leader = _largest_plane(best)
    best -= best_score
    log_sum = best_score + np.log((total * np.exp(best)).sum(axis=0))
    best_heading = np.take_along_axis(heading, leader[None], axis=0)[0]
    peak = float(log_sum.max())
    return VoteSummary(
        log_sum=_read_only(log_sum),
        best_score=_read_only(best_score),
        best_heading=_read_only(best_heading),
        top=_top_votes(frames, (*best_score.shape, len(counts)), top_k),
        log_total=peak + math.log(np.exp(log_sum.astype(float) - peak).sum()),
        counts=counts,
    )


def _top_votes(
    frames: list[_FrameReduction], volume_shape: tuple[int, ...], top_k: int
) -> tuple[Vote, ...]:
    """The best poses of all quadrants; among equals the first in (row, col, heading)."""
    votes = []
    for frame in frames:
        places = np.stack(np.unravel_index(frame.top.places, volume_shape), axis=1)
        for score, place in zip(frame.top.scores.tolist(), places.tolist(), strict=True):
            votes.append(Vote(score, *place))
    votes.sort(key=lambda vote: (-vote.score, vote.row, vote.col, vote.heading))
    return tuple(votes[:top_k])


def _from_frame(
    row: np.ndarray, col: np.ndarray, quadrant: int, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The window's (row, col) of cells of a quadrant's frame; shape is the window's."""
    last_row, last_col = shape[0] - 1, shape[1] - 1
    return (
        (row, col),
        (col, last_col - row),
        (last_row - row, last_col - col),
        (last_row - col, row),
    )[quadrant]


def _checked_window(window: Window | None, shape: tuple[int, ...]) -> Window:
    if window is None:
        return 0, shape[0], 0, shape[1]
    if len(window) != 4 or any(int(edge) != edge for edge in window):
        raise GridMismatchError(
            "A window is four whole numbers, (row_start, row_stop, col_start, col_stop); "
            f"got {tuple(window)}."
        )
    row_start, row_stop, col_start, col_stop = (int(edge) for edge in window)
    if not (0 <= row_start < row_stop <= shape[0] and 0 <= col_start < col_stop <= shape[1]):
        raise GridMismatchError(
            f"The window (row_start, row_stop, col_start, col_stop) = {tuple(window)} does not lie "
            f"in a map of {shape[0]} rows and {shape[1]} columns. Cut it to the map."
        )
    return row_start, row_stop, col_start, col_stop


def _wanted_bins(num_headings: int, headings: npt.ArrayLike | None) -> np.ndarray:
    """(headings,) bool."""
    if int(num_headings) != num_headings or num_headings < 4 or num_headings % 4:
        raise ValueError(
            f"num_headings must be a multiple of 4, so that quadrants hold whole bins; "
            f"got {num_headings}. For a grid without headings vote on many and sum over them."
        )
    if headings is None:
        return np.ones(num_headings, dtype=bool)
    bins = np.asarray(headings)
    if bins.ndim != 1 or bins.size == 0 or not np.issubdtype(bins.dtype, np.integer):
        raise ValueError(
            f"headings are indices of the bins to try, a 1-D array of at least one integer; "
            f"got {bins.dtype} of shape {bins.shape}. From a mask: numpy.flatnonzero(mask)."
        )
    if bins.min() < 0 or bins.max() >= num_headings:
        raise ValueError(
            f"headings are bin indices in 0..{num_headings - 1}; "
            f"got {bins.min()}..{bins.max()}. Degrees become bins with angles.bin_of."
        )
    wanted = np.zeros(num_headings, dtype=bool)
    wanted[bins] = True
    return wanted


def _batch_size(spectra: TurnedSpectra) -> int:
    """How many templates at once: enough to multiply matrices, not so many as to fill memory."""
    _, columns, _, quadrants, _ = spectra.parts.shape
    per_template = spectra.side * columns * quadrants * np.dtype(np.complex64).itemsize
    return int(np.clip(_BATCH_BYTES // per_template, _MIN_BATCH, _MAX_BATCH))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
