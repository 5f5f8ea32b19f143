"""The polar transform as a layer, for networks that take square tiles or feature maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from crossview.nn.resampling import Shape
from crossview.polar import PolarTable, polar_grid

_MAX_TERMS = 4
"""Terms of a sum that are added one after the other."""


@keras.saving.register_keras_serializable("crossview")
class PolarTransform(keras.layers.Layer):
    """Square, north-up tiles as polar tiles (see polar.polar_grid), bilinear.

    Forward and backward are gathers from tables that are computed once. Left to the backend, the
    gradient would be a scatter, which took 1 to 6 times as long on two cores.

    Args:
        height: Rows of the polar tiles.
        width: Columns of them, 360 degrees.
        heading_deg: Azimuth of the centre column.
        convention: "crossview" or "safa".

    Call arguments:
        tile: (batch, size, size, channels) of numbers; the size must be known when it is traced.

    Output shape:
        (batch, height, width, channels)

    Reference:
        Shi et al., Spatial-Aware Feature Aggregation, NeurIPS 2019.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        heading_deg: float = 0.0,
        convention: str = "crossview",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        polar_grid(height, width, 2, heading_deg=heading_deg, convention=convention)  # checks
        self.height, self.width = height, width
        self.heading_deg, self.convention = heading_deg, convention

    def build(self, input_shape: Shape) -> None:
        """Compute both tables for tiles of this size."""
        rows, cols = input_shape[1:3]
        if rows is None or rows != cols:
            raise ValueError(
                "PolarTransform takes square tiles of a known size, (batch, size, size, channels), "
                f"got {tuple(input_shape)}. Use keras.Input((size, size, channels))."
            )
        table = PolarTable.of(
            self.height,
            self.width,
            rows,
            heading_deg=self.heading_deg,
            convention=self.convention,
        )
        order = np.argsort(table.place)
        self._taps = _Taps(table.pixels[order].astype(np.int32), table.weights[order])
        self._spread = _transposed(self._taps, rows * rows)

    def call(self, tile: Any) -> Any:
        """The polar tiles."""
        _, size, _, channels = tile.shape
        flat = ops.reshape(ops.cast(tile, self.compute_dtype), (-1, size * size, channels))
        polar = _mixed(flat, self._taps, self._spread)
        return ops.reshape(polar, (-1, self.height, self.width, channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The size of the polar tiles with the channels of the tiles."""
        return (input_shape[0], self.height, self.width, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        options = ("height", "width", "heading_deg", "convention")
        return super().get_config() | {name: getattr(self, name) for name in options}


class _Taps(NamedTuple):
    """Weighted sums of some items each.

    Args:
        item: (sums, taps) int32.
        weight: (sums, taps) float64.
    """

    item: np.ndarray
    weight: np.ndarray

    def __call__(self, items: Any) -> Any:
        """(batch, items, channels) -> (batch, sums, channels)."""
        weight = ops.cast(self.weight.astype(np.float32)[..., None], items.dtype)
        steps = range(self.item.shape[1])
        return sum(ops.take(items, self.item[:, k], axis=1) * weight[:, k] for k in steps)


def _transposed(taps: _Taps, num_items: int) -> list[list[_Taps]]:
    """Gathers that do what the transpose of taps does, one after the other, level by level.

    An item near the centre is in thousands of sums and one near the rim in few or none: sums of up
    to _MAX_TERMS terms are added up to larger ones until one is left for each item.

    Returns:
        For each level, groups of sums of equally many terms, to be concatenated and followed by a
        zero. The last level picks the sum of each item, (num_items, 1), or the zero.
    """
    num_taps = taps.item.shape[1]
    used = np.flatnonzero(taps.weight.ravel())
    owner, weight = taps.item.ravel()[used], taps.weight.ravel()[used]
    order = np.argsort(owner, kind="stable")
    owner, weight, item = owner[order], weight[order], (used // num_taps)[order]
    levels: list[list[_Taps]] = []
    while True:
        _, first, count = np.unique(owner, return_index=True, return_counts=True)
        if levels and count.max() == 1:
            break
        rank = np.arange(len(owner)) - np.repeat(first, count)
        start = np.flatnonzero(rank % _MAX_TERMS == 0)
        size = np.diff(np.append(start, len(owner)))
        order = np.argsort(size, kind="stable")
        groups = []
        for terms in np.unique(size):
            at = start[size == terms][:, None] + np.arange(terms)
            groups.append(_Taps(item[at].astype(np.int32), weight[at]))
        levels.append(groups)
        owner, item = owner[start], np.empty(len(start), np.int64)
        item[order] = np.arange(len(start))
        weight = np.ones(len(start))
    # what no tap looks at has the zero after the last sum
    place = np.full((num_items, 1), len(owner), np.int32)
    place[owner, 0] = item
    return [*levels, [_Taps(place, np.ones((num_items, 1)))]]


def _mixed(items: Any, taps: _Taps, transposed: list[list[_Taps]]) -> Any:
    """taps(items), with its gradient by the transpose."""

    @ops.custom_gradient
    def mixed(items: Any) -> tuple[Any, Any]:
        def gradient(*args: Any, upstream: Any = None) -> Any:
            sums = ops.cast(args[0] if upstream is None else upstream, "float32")
            for groups in transposed:
                zero = ops.zeros_like(sums[:, :1])
                parts = [group(sums) for group in groups]
                sums = ops.concatenate([*parts, zero], axis=1)
            return ops.cast(sums[:, :-1], items.dtype)

        return taps(items), gradient

    return mixed(items)
