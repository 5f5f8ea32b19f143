"""Bird's-eye views: what a camera knows about the ground around it, drawn as the map looks."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossview.errors import GridMismatchError

REDUCTIONS = ("mean", "sum")
_ROUNDING_CELLS = 1e-6


@dataclass(frozen=True, eq=False)
class BirdsEye:
    """Evidence about the ground around one camera, as a raster at heading 0.

    Row 0 is farthest ahead and column 0 leftmost, so the camera looks up the array, as it would
    on a north-up map if its heading were 0. The camera stands at the centre of the cell
    (camera_row, camera_col), which may lie outside of the array: a view that holds only what is
    ahead has its camera one row below the last one, at camera_row == rows. Turning the view
    means turning it about that centre.

    Attributes:
        values: (rows, cols, channels) float32, zero wherever nothing was seen.
        seen: (rows, cols) bool, the cells that the camera has an opinion on.
        cell_m: Side of a square cell in metres.
        camera_row: Row of the cell at whose centre the camera stands.
        camera_col: Column of that cell.
    """

    values: np.ndarray
    seen: np.ndarray
    cell_m: float
    camera_row: int
    camera_col: int

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float32)
        seen = np.array(self.seen)
        if values.ndim != 3 or values.size == 0:
            raise GridMismatchError(
                f"The values of a bird's-eye view are (rows, cols, channels), none of them 0; "
                f"got an array of shape {values.shape}."
            )
        if seen.dtype != np.bool_ or seen.shape != values.shape[:2]:
            raise GridMismatchError(
                f"`seen` must be a bool array of shape {values.shape[:2]}, one per cell of the "
                f"values; got {seen.dtype} of shape {seen.shape}."
            )
        _require_cell_size(self.cell_m)
        values[~seen] = 0.0
        if not np.isfinite(values).all():
            raise ValueError(
                "A bird's-eye view has values that are not finite in cells that were seen. "
                "Mark those cells as not seen."
            )
        values.setflags(write=False)
        seen.setflags(write=False)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "seen", seen)
        object.__setattr__(self, "cell_m", float(self.cell_m))
        object.__setattr__(self, "camera_row", _whole(self.camera_row, "camera_row"))
        object.__setattr__(self, "camera_col", _whole(self.camera_col, "camera_col"))

    @property
    def num_channels(self) -> int:
        """Channels of the values."""
        return int(self.values.shape[2])

    @property
    def reach_cells(self) -> int:
        """How many cells away from the camera's own a turned view may still have weight.

        A seen cell spreads, bilinearly, over the open square of two cells around its centre. No
        corner of such a square lies farther from the camera than this many whole cells, so a map
        padded by them holds all that any heading reads. 0 where nothing was seen.
        """
        rows, cols = np.nonzero(self.seen)
        if rows.size == 0:
            return 0
        # the square is open: a corner exactly on a cell's centre gives that cell no weight
        corner = np.hypot(
            np.abs(rows - self.camera_row) + 1.0, np.abs(cols - self.camera_col) + 1.0
        )
        return math.ceil(float(corner.max())) - 1

    @property
    def reach_m(self) -> float:
        """`reach_cells` in metres: the margin of map that voting needs around a window."""
        return self.reach_cells * self.cell_m


@dataclass(frozen=True, eq=False)
class Template:
    """A bird's-eye view turned to a heading and sampled on the cells of a north-up map.

    Attributes:
        values: (rows, cols, channels) float32, bilinear, zero outside of what was seen.
        seen_share: (rows, cols) float32, the turned mask: 1 where all four cells that a sample
            mixes were seen.
        first_row: Rows from the camera's cell to row 0, southwards; never positive.
        first_col: Columns from the camera's cell to column 0, eastwards; never positive.
    """

    values: np.ndarray
    seen_share: np.ndarray
    first_row: int
    first_col: int


@dataclass(frozen=True)
class Extent:
    """A box of map cells around the camera's own, which it always holds.

    Rows grow to the south and columns to the east; the camera's cell is row 0, column 0.
    """

    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.row_stop - self.row_start, self.col_stop - self.col_start

    def __or__(self, other: "Extent") -> "Extent":
        """The smallest box that holds both."""
        return Extent(
            min(self.row_start, other.row_start),
            max(self.row_stop, other.row_stop),
            min(self.col_start, other.col_start),
            max(self.col_stop, other.col_stop),
        )


class Turntable:
    """A bird's-eye view that is to be turned to many headings.

    Args:
        birdseye: The view.
    """

    def __init__(self, birdseye: BirdsEye) -> None:
        self.birdseye = birdseye
        self.reach_cells = birdseye.reach_cells
        rows, cols, channels = birdseye.values.shape
        # one empty cell before and two after, so that the four taps of any position exist
        source = np.zeros((rows + 3, cols + 3, channels + 1), dtype=np.float32)
        source[1:-2, 1:-2, :channels] = birdseye.values
        source[1:-2, 1:-2, channels] = birdseye.seen
        self._source = source.reshape(-1, channels + 1)
        self._stride = cols + 3
        seen = source[:, :, channels] > 0
        pair = seen[:-1] | seen[1:]
        self._has_weight = np.zeros(source.shape[:2], dtype=bool)
        self._has_weight[:-1, :-1] = pair[:, :-1] | pair[:, 1:]
        self._outline = _outline(birdseye)

    def extent(self, heading_deg: float) -> Extent:
        """The box outside of which the view, turned to a heading, has no weight."""
        sin, cos = _sin_cos(heading_deg)
        down, right = self._outline
        south = down * cos + right * sin
        east = right * cos - down * sin
        reach = self.reach_cells
        return Extent(
            max(math.ceil(south.min() - _ROUNDING_CELLS), -reach),
            min(math.floor(south.max() + _ROUNDING_CELLS), reach) + 1,
            max(math.ceil(east.min() - _ROUNDING_CELLS), -reach),
            min(math.floor(east.max() + _ROUNDING_CELLS), reach) + 1,
        )

    def sample(self, heading_deg: float, extent: Extent) -> tuple[np.ndarray, np.ndarray]:
        """The view turned clockwise by a heading, at the centres of the cells of a box.

        Only cells where something seen has weight are answered; all others are zero.

        Returns:
            cells: (n,) positions in the box, row * cols + col, ascending.
            samples: (n, channels + 1) float32; the last channel is the turned mask.
        """
        from scipy.sparse import csr_array

        rows, cols = self.birdseye.seen.shape
        south = np.arange(extent.row_start, extent.row_stop, dtype=float)[:, None]
        east = np.arange(extent.col_start, extent.col_stop, dtype=float)[None, :]
        sin, cos = _sin_cos(heading_deg)
        # forward = east sin - south cos and right = east cos + south sin; row 0 is far ahead
        row = self.birdseye.camera_row + south * cos - east * sin
        col = self.birdseye.camera_col + east * cos + south * sin
        cells = np.flatnonzero((row > -1) & (row < rows) & (col > -1) & (col < cols))
        row, col = row.ravel()[cells], col.ravel()[cells]
        above, left = np.floor(row), np.floor(col)
        tap = ((above + 1) * self._stride + left + 1).astype(np.int32)
        weighty = np.flatnonzero(self._has_weight.ravel()[tap])
        cells, tap = cells[weighty], tap[weighty]
        lower, righter = (row - above)[weighty], (col - left)[weighty]
        taps = np.stack([tap, tap + 1, tap + self._stride, tap + self._stride + 1], axis=1)
        upper, lefter = 1 - lower, 1 - righter
        weights = np.stack(
            [upper * lefter, upper * righter, lower * lefter, lower * righter], axis=1
        )
        bilinear = csr_array(
            (
                weights.astype(np.float32).ravel(),
                taps.ravel(),
                np.arange(0, taps.size + 1, 4, dtype=np.int32),
            ),
            shape=(len(cells), len(self._source)),
        )
        return cells, bilinear @ self._source


def template(birdseye: BirdsEye, heading_deg: float) -> Template:
    """A bird's-eye view turned clockwise by a heading, on the cells of a north-up map."""
    turntable = Turntable(birdseye)
    extent = turntable.extent(heading_deg)
    cells, samples = turntable.sample(heading_deg, extent)
    canvas = np.zeros((*extent.shape, birdseye.num_channels + 1), dtype=np.float32)
    canvas.reshape(-1, canvas.shape[2])[cells] = samples
    canvas.setflags(write=False)
    return Template(canvas[..., :-1], canvas[..., -1], extent.row_start, extent.col_start)


def from_points(
    forward_m: npt.ArrayLike,
    right_m: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    cell_m: float,
    reach_m: float,
    reduce: str = "mean",
) -> BirdsEye:
    """A square bird's-eye view, camera in the middle, of scattered points on the ground.

    The array has an odd number of rows and columns and covers at least `reach_m` in each of the
    four directions. Points beyond its edge are left out; a cell without any point is not seen.

    Args:
        forward_m: (n,) metres ahead of the camera.
        right_m: (n,) metres to its right.
        values: (n, channels).
        cell_m: Side of a cell.
        reach_m: Half the side that the view covers.
        reduce: "mean" or "sum" of the points in a cell, in float64.
    """
    forward_m = np.asarray(forward_m, dtype=float)
    right_m = np.asarray(right_m, dtype=float)
    values = np.asarray(values, dtype=float)
    _require_cell_size(cell_m)
    if not (math.isfinite(reach_m) and reach_m >= 0):
        raise ValueError(f"reach_m must be zero or more metres; got {reach_m}.")
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {REDUCTIONS}; got {reduce!r}.")
    if forward_m.ndim != 1 or right_m.shape != forward_m.shape:
        raise GridMismatchError(
            f"forward_m and right_m must be 1-D and equally long; "
            f"got shapes {forward_m.shape} and {right_m.shape}."
        )
    if values.ndim != 2 or len(values) != len(forward_m) or values.shape[1] == 0:
        raise GridMismatchError(
            f"values must be ({len(forward_m)}, channels), one row per point; "
            f"got shape {values.shape}."
        )
    if not (np.isfinite(forward_m).all() and np.isfinite(right_m).all()):
        raise ValueError("Points must have finite positions. Drop the rays that miss the ground.")

    half = max(0, math.ceil(reach_m / cell_m - 0.5))
    side = 2 * half + 1
    # in float until the far points are gone: a point near the horizon overflows an integer
    row = np.floor(half - forward_m / cell_m + 0.5)
    col = np.floor(half + right_m / cell_m + 0.5)
    inside = (row >= 0) & (row < side) & (col >= 0) & (col < side)
    cell = (row[inside] * side + col[inside]).astype(np.int64)
    count = np.bincount(cell, minlength=side * side)
    total: np.ndarray = np.stack(
        [np.bincount(cell, weights=channel, minlength=side * side) for channel in values[inside].T],
        axis=1,
    )
    if reduce == "mean":
        total = total / np.maximum(count, 1)[:, None]
    return BirdsEye(
        values=total.reshape(side, side, -1),
        seen=(count > 0).reshape(side, side),
        cell_m=cell_m,
        camera_row=half,
        camera_col=half,
    )


def _require_cell_size(cell_m: float) -> None:
    if not (math.isfinite(cell_m) and cell_m > 0):
        raise ValueError(f"cell_m must be a positive number of metres; got {cell_m}.")


def _whole(index: int, name: str) -> int:
    if int(index) != index:
        raise ValueError(
            f"The camera stands at the centre of a cell, so {name} is a whole number; got {index}."
        )
    return int(index)


def _sin_cos(heading_deg: float) -> tuple[float, float]:
    """Sine and cosine of a heading, exact at the four cardinal ones."""
    quarter_turns, rest_deg = divmod(float(heading_deg), 90.0)
    sin, cos = math.sin(math.radians(rest_deg)), math.cos(math.radians(rest_deg))
    for _ in range(int(quarter_turns) % 4):
        sin, cos = cos, -sin
    return sin, cos


def _outline(birdseye: BirdsEye) -> tuple[np.ndarray, np.ndarray]:
    """Corners that bound the weight of a view, and the camera: cells down and right of it."""
    down, right = [0.0], [0.0]
    for row in np.flatnonzero(birdseye.seen.any(axis=1)):
        cols = np.flatnonzero(birdseye.seen[row])
        for row_edge in (row - 1, row + 1):
            for col_edge in (cols[0] - 1, cols[-1] + 1):
                down.append(float(row_edge - birdseye.camera_row))
                right.append(float(col_edge - birdseye.camera_col))
    return np.array(down), np.array(right)
