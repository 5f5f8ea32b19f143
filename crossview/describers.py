"""What makes descriptors of images, and descriptors of many images, whatever their number."""

from __future__ import annotations

import logging
import tempfile
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossview import console
from crossview.errors import ManifestError, PhotoError, TileError
from crossview.preprocessing import Preprocessing

BATCH_SIZE = 64
"""Images that are described at a time."""

MAX_DESCRIPTOR_BYTES = 256 * 2**20
"""Descriptors of all images that are held in memory; more go to a temporary file."""

_LEAST_CONTRAST = 0.1
"""Length of standardised grey levels; that of a single pixel that differs by one is 0.3."""

logger = logging.getLogger(__name__)


class Describer(typing.Protocol):
    """What makes descriptors of prepared images: an encoder, or a baseline."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What it looks at."""

    def ground_descriptors(self, images: np.ndarray) -> np.ndarray:
        """(batch, D) of (batch, rows, cols, 3)."""

    def overhead_descriptors(self, images: np.ndarray) -> np.ndarray:
        """(batch, D) of (batch, rows, cols, 3)."""


@typing.runtime_checkable
class Pointer(Describer, typing.Protocol):
    """A describer that also says where in a tile a camera is, such as nn.encoders.OffsetEncoder."""

    def offsets(self, ground: np.ndarray, overhead: np.ndarray) -> np.ndarray:
        """(batch, 2) south and west of the tiles' middles, in half tiles."""


@typing.runtime_checkable
class Orienting(typing.Protocol):
    """A describer that finds where a query looks, such as nn.encoders.OrientedEncoder.

    Its descriptors are maps of azimuth, so that it can be asked for headings at any field of view.
    """

    def similarities(self, overhead: np.ndarray, ground: np.ndarray) -> Any:
        """(overhead, ground) of descriptors, each pair at the heading that fits best."""

    def headings_deg(self, overhead: np.ndarray, ground: np.ndarray) -> np.ndarray:
        """(overhead, ground), where the middles of queries look that were described at 0."""


@dataclass(frozen=True)
class PixelCorrelation:
    """A baseline that has learned nothing: the correlation of grey levels in the same places.

    Args:
        preprocessing: Of equal ground and overhead sizes, polar.
    """

    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if self.preprocessing.ground_px != self.preprocessing.overhead_px:
            raise ValueError(
                "Pixels are compared in the same places: ground and overhead images have one size."
            )

    def ground_descriptors(self, images: np.ndarray) -> np.ndarray:
        """Standardised grey levels, (batch, rows * cols) float32 of length 1."""
        grey = images.mean(axis=3, dtype=np.float32).reshape(len(images), -1)
        grey -= grey.mean(axis=1, keepdims=True)
        length = np.linalg.norm(grey, axis=1, keepdims=True)
        # an image of one grey correlates with none but another such
        return np.where(
            length < _LEAST_CONTRAST,
            np.float32(grey.shape[1] ** -0.5),
            grey / np.maximum(length, _LEAST_CONTRAST),
        )

    overhead_descriptors = ground_descriptors


def aligned(describer: Orienting, queries: np.ndarray, tiles: np.ndarray) -> Iterator[np.ndarray]:
    """(queries of a block, tiles) float32, each at the heading that fits best; in order."""
    for start in console.progress(
        range(0, len(queries), BATCH_SIZE), total=None, unit=" blocks aligned"
    ):
        block = queries[start : start + BATCH_SIZE]
        alike = np.empty((len(block), len(tiles)), np.float32)
        for first in range(0, len(tiles), BATCH_SIZE):
            cols = slice(first, first + BATCH_SIZE)
            alike[:, cols] = np.asarray(describer.similarities(tiles[cols], block)).T
        yield alike


def described(
    image: Callable[[int], np.ndarray],
    describe: Callable[[np.ndarray], np.ndarray],
    numbers: Sequence[int],
    unit: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Those numbers of images that can be read, and their descriptors; the others are named."""
    read: list[int] = []
    block: list[np.ndarray] = []
    with tempfile.TemporaryFile() as file:
        rows = _Rows(file, len(numbers))
        for number in console.progress(numbers, total=len(numbers), unit=f" {unit}"):
            try:
                block.append(image(number))
            except (PhotoError, ManifestError) as error:
                # a view says in which row of its table the image is that cannot be read
                cause = error.__cause__ if isinstance(error, ManifestError) else error
                if not isinstance(error, TileError) and not isinstance(cause, PhotoError):
                    raise
                logger.warning("Left out: %s", error)
                continue
            read.append(number)
            if len(block) == BATCH_SIZE:
                rows.add(_padded(describe, block))
                block = []
        if block:
            rows.add(_padded(describe, block))
        return np.array(read, dtype=int), rows.whole()


class _Rows:
    """Descriptors as they come, float32, in memory or, where they are many, in a file.

    Args:
        file: A temporary one; what is mapped to it outlives its closing.
        most: Rows that may come.
    """

    def __init__(self, file: typing.IO[bytes], most: int) -> None:
        self._file, self._most, self._num_rows = file, most, 0
        self._blocks: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Put rows, (rows, D), behind the others."""
        block = np.ascontiguousarray(block, np.float32)
        self._num_rows += len(block)
        if self._most * block[0].nbytes > MAX_DESCRIPTOR_BYTES:
            # written, not mapped: a full disk is an error, not the end of the process
            self._file.write(block.data)
            self._blocks = [block]
        else:
            self._blocks.append(block)

    def whole(self) -> np.ndarray:
        """All rows, (rows, D); nothing can be added any more."""
        if not self._blocks:
            return np.empty((0, 1), np.float32)
        shape = self._num_rows, self._blocks[0].shape[1]
        if sum(map(len, self._blocks)) == self._num_rows:
            return np.concatenate(self._blocks)
        self._file.flush()
        return np.memmap(self._file, np.float32, "r", shape=shape)


def _padded(
    describe: Callable[[np.ndarray], np.ndarray], images: Sequence[np.ndarray]
) -> np.ndarray:
    """Descriptors of a batch that is filled up, so that networks see one size only."""
    missing = BATCH_SIZE - len(images)
    return describe(np.stack([*images, *[images[-1]] * missing]))[: len(images)]
