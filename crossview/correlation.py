"""Correlation of many small templates with one map under quarter turns, by pruned transforms."""

import math
import queue
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np

QUADRANTS = (0, 1, 2, 3)

Window = tuple[int, int, int, int]
"""Cells of a map: row_start, row_stop, col_start, col_stop."""

Visit = Callable[[int, np.ndarray], None]
"""Takes a first row and sums (quadrants, templates, rows, cols) from that row on."""

# Sizes of what is worked on at once, found by trial: about what the processor's caches hold.
_COLUMNS_BYTES = 2**21
_ROWS_BYTES = 2**22
_TRANSPOSED_COLS = 128


@dataclass(frozen=True, eq=False)
class TurnedSpectra:
    """Spectra of a map around a window, turned by quarter turns.

    A quadrant's frame is the map turned counter-clockwise by as many quarter turns; the window's
    first row and column there are row 0 and column 0 of the transformed array, and what lies
    before them is wrapped to its end.

    Attributes:
        parts: (2, columns of half a spectrum, rows, quadrants, channels) float32, real parts and
            imaginary parts.
        quadrants: Which quarter turns.
        fft_size: Rows, and columns, of the transformed array.
        side: The longer side of the window.
        reach: Templates have no say beyond so many cells from their own.
    """

    parts: np.ndarray
    quadrants: tuple[int, ...]
    fft_size: int
    side: int
    reach: int

    def of(self, quadrants: tuple[int, ...]) -> "TurnedSpectra":
        """The same for some of the quadrants."""
        if quadrants == self.quadrants:
            return self
        chosen = [self.quadrants.index(quadrant) for quadrant in quadrants]
        parts = np.ascontiguousarray(self.parts[:, :, :, chosen])
        return TurnedSpectra(parts, quadrants, self.fft_size, self.side, self.reach)


def turned_spectra(values: np.ndarray, window: Window, *, reach: int) -> TurnedSpectra:
    """Spectra for all quadrants of the map that templates see from inside of a window.

    The size of the transforms is the smallest fast one at which nothing wraps onto what is read:
    outside of the map all is zero, and zeros may wrap.

    Args:
        values: The whole map, (rows, cols, channels) float32.
        window: Where templates are centred.
        reach: Cells from a template's own beyond which it is zero.
    """
    from scipy.fft import next_fast_len

    row_start, row_stop, col_start, col_stop = window
    height, width = row_stop - row_start, col_stop - col_start
    top, bottom = min(reach, row_start), min(reach, values.shape[0] - row_stop)
    left, right = min(reach, col_start), min(reach, values.shape[1] - col_stop)
    longest = max(height + max(top, bottom), width + max(left, right))
    # from inside of the window nothing on the map is farther away than that
    reach = min(reach, longest - 1)
    fft_size = next_fast_len(longest + reach, real=True)

    region = values[row_start - top : row_stop + bottom, col_start - left : col_stop + right]
    # a quarter turn counter-clockwise makes the right margin the upper one and the upper the left
    margins = ((top, left), (right, top), (bottom, right), (left, bottom))
    num_columns, channels = fft_size // 2 + 1, values.shape[2]
    parts = np.empty((2, num_columns, fft_size, len(QUADRANTS), channels), dtype=np.float32)
    for pair in (QUADRANTS[:2], QUADRANTS[2:]):  # two at a time, to save memory
        frames = np.zeros((fft_size, fft_size, len(pair), channels), dtype=np.float32)
        for index, quadrant in enumerate(pair):
            _wrap(np.rot90(region, quadrant), margins[quadrant], out=frames[:, :, index])
        _transform(frames, out=parts[:, :, :, pair[0] : pair[-1] + 1])
    parts.setflags(write=False)
    return TurnedSpectra(parts, QUADRANTS, fft_size, max(height, width), reach)


def _wrap(region: np.ndarray, margin: tuple[int, int], *, out: np.ndarray) -> None:
    """Put a region on a torus: its first rows and columns, the margin, at the far end."""
    (rows, cols), (above, before), (height, width) = region.shape[:2], margin, out.shape[:2]
    for to_rows, from_rows in (
        (slice(0, rows - above), slice(above, rows)),
        (slice(height - above, height), slice(0, above)),
    ):
        out[to_rows, : cols - before] = region[from_rows, before:]
        out[to_rows, width - before :] = region[from_rows, :before]


def _transform(frames: np.ndarray, *, out: np.ndarray) -> None:
    """Write half the spectra of (rows, cols, ...) arrays as (2, columns, rows, ...)."""
    from scipy import fft

    along_rows = fft.rfft(frames, axis=1)
    step = max(1, _COLUMNS_BYTES // along_rows[:, 0].nbytes)
    for column in range(0, along_rows.shape[1], step):
        columns = slice(column, column + step)
        spectra = fft.fft(along_rows[:, columns], axis=0).swapaxes(0, 1)
        out[0, columns] = spectra.real
        out[1, columns] = spectra.imag


@dataclass(frozen=True, eq=False)
class TemplateStack:
    """Templates on one canvas.

    Attributes:
        values: (rows, cols, channels, templates) float32.
        first_row: Row 0 of the canvas, counted from the templates' own cell; never positive.
        first_col: Column 0 likewise.
    """

    values: np.ndarray
    first_row: int
    first_col: int

    def within(self, reach: int) -> "TemplateStack":
        """The part of the canvas that lies within so many cells."""
        rows = slice(max(0, -reach - self.first_row), max(0, reach + 1 - self.first_row))
        cols = slice(max(0, -reach - self.first_col), max(0, reach + 1 - self.first_col))
        return TemplateStack(
            self.values[rows, cols],
            max(self.first_row, -reach),
            max(self.first_col, -reach),
        )


class Correlator:
    """Sums over a canvas of template times map, at every cell of a window and in every quadrant.

    Only what is not zero is transformed, and only what is wanted is transformed back: along the
    canvas' rows, then along all columns, there times the map's spectra, back along the columns,
    and back along the window's rows. Columns, and then rows, are taken a few at a time, so that
    what is worked on stays in the processor's cache. The product over channels is a matrix
    product at each frequency: the reason why templates come in stacks.

    Args:
        spectra: Of the map.
        workers: Threads; sums do not depend on them.
    """

    def __init__(self, spectra: TurnedSpectra, *, workers: int = 1) -> None:
        self._spectra = spectra
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None
        self._scratch: dict[str, np.ndarray] = {}

    def __enter__(self) -> "Correlator":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def correlate(self, stack: TemplateStack, visit: Visit) -> None:
        """Show the sums of a stack to a visitor, some rows at a time, each row once.

        The sum at (row, col) of a quadrant's frame is over the canvas' cells (i, j) and channels
        of the template at (i, j) times the turned map at (row + first_row + i,
        col + first_col + j). The frames of a window that is not square are padded to its longer
        side; sums there mean nothing.

        With several workers the visitor is called from several threads, never twice at once for
        the same rows.
        """
        from scipy import fft

        half_spectra = self._multiplied(stack, self._along_rows(stack))
        side, fft_size = self._spectra.side, self._spectra.fft_size
        first_col = stack.first_col + stack.values.shape[1] - 1
        _, _, num_quadrants, num_templates = half_spectra.shape
        step = max(1, _ROWS_BYTES // (8 * fft_size * num_quadrants * num_templates))

        def show(row: int) -> None:
            lines = fft.irfft(half_spectra[row : row + step], n=fft_size, axis=1)
            lines = lines[:, first_col : first_col + side]
            sums = np.empty((num_quadrants, num_templates, len(lines), side), dtype=np.float32)
            for index, line in enumerate(lines):
                for col in range(0, side, _TRANSPOSED_COLS):
                    cols = slice(col, col + _TRANSPOSED_COLS)
                    sums[:, :, index, cols] = line[cols].transpose(1, 2, 0)
            visit(row, sums)

        self._run_all(show, range(0, side, step))

    def _along_rows(self, stack: TemplateStack) -> np.ndarray:
        """Spectra of the canvas' rows, (rows, columns, channels x templates)."""
        from scipy import fft

        rows, cols, channels, templates = stack.values.shape
        fft_size = self._spectra.fft_size
        # a correlation is a convolution with the template turned by half a turn
        turned = stack.values[::-1, ::-1].reshape(rows, cols, channels * templates)
        spectra = self._buffer("rows", (rows, fft_size // 2 + 1, channels * templates))
        step = max(1, _ROWS_BYTES // (8 * fft_size * channels * templates))

        def transform(row: int) -> None:
            spectra[row : row + step] = fft.rfft(turned[row : row + step], n=fft_size, axis=1)

        self._run_all(transform, range(0, rows, step))
        return spectra

    def _multiplied(self, stack: TemplateStack, along_rows: np.ndarray) -> np.ndarray:
        """Spectra along the window's rows of the sums, (side, columns, quadrants, templates)."""
        from scipy import fft

        rows, _, channels, templates = stack.values.shape
        maps, fft_size, side = self._spectra.parts, self._spectra.fft_size, self._spectra.side
        _, num_columns, _, num_quadrants, _ = maps.shape
        first_row = stack.first_row + rows - 1
        products = self._buffer("products", (side, num_columns, num_quadrants, templates))
        step = max(1, _COLUMNS_BYTES // (8 * fft_size * channels * templates))
        spare: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        for _ in range(self._workers):
            spare.put(np.zeros((fft_size, step, channels * templates), dtype=np.complex64))

        def multiply(column: int) -> None:
            columns = slice(column, min(column + step, num_columns))
            width = columns.stop - columns.start
            padded = spare.get()
            padded[:rows, :width] = along_rows[:, columns]
            spectrum = fft.fft(padded[:, :width], axis=0)
            spare.put(padded)
            spectrum = spectrum.view(np.float32).reshape(fft_size, width, channels, 2 * templates)
            # a complex product in real ones: OpenBLAS' complex kernel takes longer, and leaves
            # the vector registers in a state that halves the speed of the transforms after it
            product = np.matmul(maps[0, columns].swapaxes(0, 1), spectrum).view(np.complex64)
            imaginary = np.matmul(maps[1, columns].swapaxes(0, 1), spectrum).view(np.complex64)
            imaginary *= 1j
            product += imaginary
            sums = fft.ifft(product, axis=0, overwrite_x=True)
            products[:, columns] = sums[first_row : first_row + side]

        self._run_all(multiply, range(0, num_columns, step))
        return products

    def _buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Memory that the next stack uses again: fresh pages cost as much as the work on them."""
        size = math.prod(shape)
        if name not in self._scratch or self._scratch[name].size < size:
            self._scratch[name] = np.empty(size, dtype=np.complex64)
        return self._scratch[name][:size].reshape(shape)

    def _run_all(self, work: Callable[[int], None], starts: Iterable[int]) -> None:
        if self._pool is None:
            for start in starts:
                work(start)
        else:
            for _ in self._pool.map(work, starts):
                pass  # the results are None; taking them raises what a thread raised
