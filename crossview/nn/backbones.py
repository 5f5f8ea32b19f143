"""Trunks: from an image to a map of features, on a plane or on the cylinder of a panorama.

All take RGB in 0..255 and normalise it themselves.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from crossview.nn.resampling import Shape

IMAGENET_MEAN_RGB = (123.675, 116.28, 103.53)
IMAGENET_STD_RGB = (58.395, 57.12, 57.375)
"""Of the pixels in 0..255."""

STEM_KERNEL = 5
STAGE_WIDTHS = (2, 4, 6)
"""Channels of the stages of a small trunk, as multiples of its stem's."""


@keras.saving.register_keras_serializable("crossview")
class CircularConv2D(keras.layers.Conv2D):
    """A convolution of the same size whose columns go around; rows beyond the border are zero.

    Arguments, weights and strides are those of keras.layers.Conv2D with padding "same", which it
    equals but for the first and last columns: features of a panorama that is rolled are rolled.

    Call arguments:
        features: (batch, rows, cols, channels), rows and cols known when it is traced.
    """

    def __init__(self, filters: int, kernel_size: Any, **kwargs: Any) -> None:
        if kwargs.setdefault("padding", "same") != "same":
            raise ValueError(f"A circular convolution pads 'same', got {kwargs['padding']!r}.")
        super().__init__(filters, kernel_size, **kwargs)

    def call(self, inputs: Any) -> Any:
        """The convolved features."""
        framed = padded_around(inputs, self.kernel_size, self.strides, self.dilation_rate)
        outputs = ops.conv(
            framed, self.kernel, self.strides, "valid", dilation_rate=self.dilation_rate
        )
        if self.use_bias:
            outputs = outputs + ops.cast(self.bias, outputs.dtype)
        return self.activation(outputs)


def padded_around(
    features: Any,
    kernel_size: tuple[int, int],
    strides: tuple[int, int],
    dilation_rate: tuple[int, int] = (1, 1),
) -> Any:
    """Features framed as for padding "same": columns from the other side, rows of zeros.

    Args:
        features: (batch, rows, cols, channels), rows and cols known.
        kernel_size: Rows and columns of what comes next.
        strides: Its steps.
        dilation_rate: Distance between its taps.
    """
    (above, below), (before, after) = (
        _same_padding(*sizes)
        for sizes in zip(
            _known_size(features.shape), kernel_size, strides, dilation_rate, strict=True
        )
    )
    return _rolled_around(features, above, below, before, after)


def _rolled_around(features: Any, above: int, below: int, before: int, after: int) -> Any:
    if above or below:
        features = ops.pad(features, ((0, 0), (above, below), (0, 0), (0, 0)))
    if not (before or after):
        return features
    cols = features.shape[2]
    ends = [features[:, :, cols - before :], features, features[:, :, :after]]
    return ops.concatenate(ends[0 if before else 1 :], axis=2)


def _known_size(shape: Shape) -> tuple[int, int]:
    rows, cols = shape[1:3]
    if rows is None or cols is None:
        raise ValueError(
            f"Rows and columns must be known where columns go around, got {shape}. Make the input "
            "with keras.Input((rows, cols, channels))."
        )
    return rows, cols


def _same_padding(size: int, kernel_size: int, stride: int, dilation: int) -> tuple[int, int]:
    """Before and after, as padding "same" divides it: the odd one comes after."""
    reach = (kernel_size - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def conv_2d(filters: int, kernel_size: int, *, circular: bool, **options: Any) -> Any:
    """A convolution of padding "same", on the plane or on the cylinder."""
    layer = CircularConv2D if circular else keras.layers.Conv2D
    return layer(filters, kernel_size, padding="same", **options)


def small_trunk(image: Any, *, width: int, circular: bool) -> Any:
    """Features at stride 16 of a small residual network with batch normalisation.

    A 5 x 5 stem of stride 2, then three residual stages of stride 2.

    Args:
        image: (batch, rows, cols, 3), RGB in 0..255.
        width: Channels of the stem; the stages have 2, 4 and 6 times as many.
        circular: Whether columns go around.

    Returns:
        (batch, rows / 16, cols / 16, 6 width)
    """
    features = imagenet_normalised(image)
    features = _conv_norm(features, width, STEM_KERNEL, strides=2, circular=circular)
    features = keras.layers.ReLU()(features)
    for multiple in STAGE_WIDTHS:
        features = _residual(features, multiple * width, strides=2, circular=circular)
    return features


def imagenet_normalised(image: Any) -> Any:
    """RGB in 0..255 by the mean and standard deviation of ImageNet."""
    scale = [1.0 / std for std in IMAGENET_STD_RGB]
    offset = [-mean / std for mean, std in zip(IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, strict=True)]
    return keras.layers.Rescaling(scale, offset)(image)


def _residual(features: Any, filters: int, *, strides: int, circular: bool) -> Any:
    inner = _conv_norm(features, filters, 3, strides=strides, circular=circular)
    inner = keras.layers.ReLU()(inner)
    inner = _conv_norm(inner, filters, 3, strides=1, circular=circular)
    if strides != 1 or features.shape[-1] != filters:
        features = _conv_norm(features, filters, 1, strides=strides, circular=circular)
    return keras.layers.ReLU()(keras.layers.Add()([features, inner]))


def _conv_norm(
    features: Any, filters: int, kernel_size: int, *, strides: int, circular: bool
) -> Any:
    layer = conv_2d(
        filters,
        kernel_size,
        strides=strides,
        use_bias=False,
        kernel_initializer="he_normal",
        circular=circular,
    )
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(layer(features))
