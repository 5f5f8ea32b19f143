"""Changing the size of feature maps: halved, resized with aligned corners, averaged by cells.

Sizes must be known when a network is traced: the weights of each output row and column are
constants of the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

Shape = tuple[int | None, ...]
"""Of a tensor; None where a size is not known yet."""


@keras.saving.register_keras_serializable("crossview")
class HalvedImage(keras.layers.Layer):
    """Averages 3 x 3 pixels around every second one, with zeros beyond the border.

    Call arguments:
        image: (batch, rows, cols, channels)

    Output shape:
        (batch, ceil(rows / 2), ceil(cols / 2), channels)
    """

    def call(self, image: Any) -> Any:
        """The image at half the resolution."""
        return halved(image)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Half the size of the image, rounded up."""
        return strided_shape(input_shape, 2, input_shape[-1])


@keras.saving.register_keras_serializable("crossview")
class AlignedResize(keras.layers.Layer):
    """Resizes features bilinearly to another tensor's size, with aligned corners.

    The centres of the corner cells of both grids coincide, as the published weights expect. (Not
    the corner-origin rule of our rasters: it holds inside this network only.)

    Call arguments:
        inputs: [features, like], of shapes (batch, rows, cols, channels) and
            (batch, new rows, new cols, any), with sizes known when it is traced.

    Output shape:
        (batch, new rows, new cols, channels)
    """

    def call(self, inputs: list[Any]) -> Any:
        """The resized features."""
        features, like = inputs
        return resampled(features, like.shape[1:3], aligned_bilinear_weights)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """The size of the second input with the channels of the first."""
        features_shape, like_shape = input_shape
        return (*like_shape[:-1], features_shape[-1])


def strided_shape(shape: Shape, strides: int, channels: int | None) -> Shape:
    """The shape of every strides-th row and column, the first one kept."""
    batch, rows, cols, _ = shape
    return (
        batch,
        None if rows is None else -(-rows // strides),
        None if cols is None else -(-cols // strides),
        channels,
    )


def padded(features: Any, padding_px: int) -> Any:
    """Features with so many zeros on every side."""
    if padding_px == 0:
        return features
    border = (padding_px, padding_px)
    return ops.pad(features, ((0, 0), border, border, (0, 0)))


def halved(features: Any) -> Any:
    """Means of 3 x 3 cells around every second one; cells beyond the border count as zero."""
    return ops.average_pool(padded(features, 1), 3, 2, "valid")


def resampled(
    features: Any,
    size: Any,
    weights_of: Callable[[int, int], npt.NDArray[np.float32]],
) -> Any:
    """Features at another size.

    Args:
        features: (batch, rows, cols, channels)
        size: Its (rows, cols).
        weights_of: From (num_out, num_in) to the weights of one axis, (num_out, num_in); those
            of each output sum to 1.
    """
    rows, cols = features.shape[1:3]
    if None in (rows, cols, *size):
        raise ValueError(
            f"Sizes must be known when the network is traced, got {rows} x {cols} to be resized to "
            f"{size[0]} x {size[1]}. Make one keras.Model for each size of image, with "
            "keras.Input((rows, cols, 3))."
        )
    # Fewest cells in between: enlarge the columns first, reduce the rows first.
    for axis in (2, 1) if size[0] > rows else (1, 2):
        num_in, num_out = (rows, size[0]) if axis == 1 else (cols, size[1])
        if num_in != num_out:
            features = _mixed(features, weights_of(num_out, num_in), axis)
    return features


def aligned_bilinear_weights(num_out: int, num_in: int) -> npt.NDArray[np.float32]:
    """(out, in) weights of a linear interpolation in which the first and last centres coincide."""
    steps = np.arange(num_out) * (num_in - 1)
    lower = steps // max(num_out - 1, 1)
    fraction = steps / max(num_out - 1, 1) - lower
    weights = np.zeros((num_out, num_in))
    weights[np.arange(num_out), lower] += 1.0 - fraction
    weights[np.arange(num_out), np.minimum(lower + 1, num_in - 1)] += fraction
    return weights.astype(np.float32)


def cell_mean_weights(num_out: int, num_in: int) -> npt.NDArray[np.float32]:
    """(out, in) weights of the mean of all cells that an output cell touches, however little."""
    edges = np.arange(num_out + 1) * num_in
    first = (edges[:-1] // num_out)[:, None]
    end = (-(-edges[1:] // num_out))[:, None]
    inside = (np.arange(num_in) >= first) & (np.arange(num_in) < end)
    return (inside / (end - first)).astype(np.float32)


def _mixed(features: Any, weights: npt.NDArray[np.float32], axis: int) -> Any:
    """Weighted means along rows (axis 1) or columns (axis 2); weights are (out, in)."""
    used = weights != 0
    if used.sum(axis=1).max() > 2:
        return _mixed_densely(features, weights, axis)
    shape = tuple(-1 if k == axis else 1 for k in range(4))
    lower = used.argmax(axis=1)
    upper = weights.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
    share = np.where(upper > lower, weights[np.arange(len(upper)), upper], 0.0)
    share = ops.cast(share.reshape(shape), features.dtype)
    at_lower = ops.take(features, lower, axis=axis)
    at_upper = ops.take(features, upper, axis=axis)
    return at_lower + (at_upper - at_lower) * share


def _mixed_densely(features: Any, weights: npt.NDArray[np.float32], axis: int) -> Any:
    matrix = ops.cast(weights, features.dtype)
    if axis == 2:
        return ops.matmul(matrix, features)
    rows, cols, channels = features.shape[1:]
    flat = ops.matmul(matrix, ops.reshape(features, (-1, rows, cols * channels)))
    return ops.reshape(flat, (-1, len(weights), cols, channels))
