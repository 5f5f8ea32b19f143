"""The units of ESPNetv2: dilated pyramids to encode, pooled pyramids to decode.

Reference: Mehta et al., "ESPNetv2: A Light-weight, Power Efficient, and General Purpose
Convolutional Neural Network", CVPR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from crossview.nn.resampling import (
    Shape,
    aligned_bilinear_weights,
    cell_mean_weights,
    halved,
    padded,
    resampled,
    strided_shape,
)

PYRAMID_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)
"""Sizes, relative to its input, at which a PyramidPool looks."""

_BRANCHES = 4
_MIN_PYRAMID_CELLS = 5


@keras.saving.register_keras_serializable("crossview")
class PaddedConv2D(keras.layers.Layer):
    """A convolution without bias that pads kernel_size // 2 zeros on every side.

    Two differences to keras.layers.Conv2D: with strides its padding is symmetric (as in the
    published networks, which come from PyTorch), and groups are computed as one dense convolution
    with a block-diagonal kernel (or a depth-wise one), where Keras compiles a grouped one by XLA,
    which is slow on a CPU.

    Args:
        filters: Number of output channels, a multiple of groups.
        kernel_size: Rows and columns of the kernel, odd.
        strides: Step between outputs, in rows and columns.
        groups: Number of groups; each sees its share of the input channels only.

    Call arguments:
        features: (batch, rows, cols, channels); channels a multiple of groups.

    Output shape:
        (batch, ceil(rows / strides), ceil(cols / strides), filters)
    """

    def __init__(
        self,
        filters: int,
        *,
        kernel_size: int = 1,
        strides: int = 1,
        groups: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if filters < 1 or groups < 1 or filters % groups:
            raise ValueError(f"filters must be a multiple of groups, got {filters} and {groups}.")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}.")
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.groups = groups

    def build(self, input_shape: Shape) -> None:
        """Makes the kernel, (rows, cols, channels / groups, filters)."""
        channels = input_shape[-1]
        if channels is None or channels % self.groups:
            raise ValueError(f"{channels} input channels are no multiple of {self.groups} groups.")
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, channels // self.groups, self.filters),
            initializer="he_uniform",
        )

    def call(self, features: Any) -> Any:
        """The convolved features."""
        framed = padded(features, self.kernel_size // 2)
        if self.groups == self.filters == features.shape[-1] > 1:
            depthwise_kernel = ops.swapaxes(self.kernel, 2, 3)
            return ops.depthwise_conv(framed, depthwise_kernel, self.strides, "valid")
        return ops.conv(framed, self._dense_kernel(), self.strides, "valid")

    def _dense_kernel(self) -> Any:
        if self.groups == 1:
            return self.kernel
        size, _, channels, _ = self.kernel.shape
        per_group = self.filters // self.groups
        blocks = ops.reshape(self.kernel, (size, size, 1, channels, self.groups, per_group))
        same_group = np.eye(self.groups).reshape(1, 1, self.groups, 1, self.groups, 1)
        dense = blocks * ops.cast(same_group, self.kernel.dtype)
        return ops.reshape(dense, (size, size, self.groups * channels, self.filters))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The spatial size divided by strides, rounded up."""
        return strided_shape(input_shape, self.strides, self.filters)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "groups": self.groups,
        }


@keras.saving.register_keras_serializable("crossview")
class DilatedDepthwiseConv2D(keras.layers.Layer):
    """A 3 x 3 depth-wise convolution without bias, dilated and strided, padded symmetrically.

    keras.layers.DepthwiseConv2D cannot do both at once; here a strided one is the dense one of
    which every strides-th row and column is kept.

    Args:
        dilation_rate: Distance between the taps; as many zeros are padded on every side.
        strides: Step between outputs, in rows and columns.

    Call arguments:
        features: (batch, rows, cols, channels)

    Output shape:
        (batch, ceil(rows / strides), ceil(cols / strides), channels)
    """

    def __init__(self, *, dilation_rate: int = 1, strides: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if dilation_rate < 1 or strides < 1:
            raise ValueError(
                f"dilation_rate and strides must be 1 or more, got {dilation_rate} and {strides}."
            )
        self.dilation_rate = dilation_rate
        self.strides = strides

    def build(self, input_shape: Shape) -> None:
        """Makes the kernel, (3, 3, channels, 1)."""
        self.kernel = self.add_weight(
            name="kernel", shape=(3, 3, input_shape[-1], 1), initializer="he_uniform"
        )

    def call(self, features: Any) -> Any:
        """The convolved features."""
        if self.dilation_rate == 1 and self.strides > 1:
            return ops.depthwise_conv(padded(features, 1), self.kernel, self.strides, "valid")
        dense = ops.depthwise_conv(
            features, self.kernel, 1, "same", dilation_rate=self.dilation_rate
        )
        if self.strides == 1:
            return dense
        return ops.max_pool(dense, 1, self.strides, "valid")  # far faster than a strided slice

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The spatial size divided by strides, rounded up."""
        return strided_shape(input_shape, self.strides, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {
            **super().get_config(),
            "dilation_rate": self.dilation_rate,
            "strides": self.strides,
        }


@keras.saving.register_keras_serializable("crossview")
class NormPReLU(keras.layers.Layer):
    """Batch normalisation, then a rectifier with one learned slope per channel.

    Call arguments:
        features: (batch, rows, cols, channels); the output has the same shape.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = _batch_norm()
        self.rectifier = _prelu()

    def build(self, input_shape: Shape) -> None:
        """Makes the statistics and slopes."""
        self.norm.build(input_shape)
        self.rectifier.build(input_shape)

    def call(self, features: Any, training: bool | None = None) -> Any:
        """The normalised and rectified features."""
        return self.rectifier(self.norm(features, training=training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape


@keras.saving.register_keras_serializable("crossview")
class ConvNorm(PaddedConv2D):
    """A PaddedConv2D and batch normalisation; arguments and shapes are PaddedConv2D's."""

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, **kwargs)
        self.norm = _batch_norm()

    def build(self, input_shape: Shape) -> None:
        """Makes the kernel and the statistics."""
        super().build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, features: Any, training: bool | None = None) -> Any:
        """The convolved and normalised features."""
        return self.norm(super().call(features), training=training)


@keras.saving.register_keras_serializable("crossview")
class ConvNormPReLU(ConvNorm):
    """A ConvNorm and a rectifier with one learned slope per channel."""

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, **kwargs)
        self.rectifier = _prelu()

    def build(self, input_shape: Shape) -> None:
        """Makes the kernel, the statistics and the slopes."""
        super().build(input_shape)
        self.rectifier.build(self.compute_output_shape(input_shape))

    def call(self, features: Any, training: bool | None = None) -> Any:
        """The convolved, normalised and rectified features."""
        return self.rectifier(super().call(features, training=training))


@keras.saving.register_keras_serializable("crossview")
class DilatedPyramid(keras.layers.Layer):
    """Reduce, look at four dilations, fuse, expand: the heart of ESPNetv2's units.

    The four branches see 3, 5, 7 and 9 pixels; those above max_receptive_px see 3. Each branch
    adds the one before it, which takes the gridding out of the dilated ones.

    Args:
        filters: Number of output channels, a multiple of 16: each of four groups has four branches.
        max_receptive_px: The widest view of a branch, in pixels of the input.
        strides: Step between outputs, in rows and columns.

    Call arguments:
        features: (batch, rows, cols, channels); channels a multiple of 4.

    Output shape:
        (batch, ceil(rows / strides), ceil(cols / strides), filters)

    Reference: Mehta et al., CVPR 2019, section 3.1.
    """

    def __init__(
        self, filters: int, *, max_receptive_px: int, strides: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if filters < 1 or filters % _BRANCHES**2:
            raise ValueError(f"filters must be a multiple of {_BRANCHES**2}, got {filters}.")
        self.filters = filters
        self.max_receptive_px = max_receptive_px
        self.strides = strides
        self.reduce = ConvNormPReLU(filters // _BRANCHES, groups=_BRANCHES)
        self.branches = [
            DilatedDepthwiseConv2D(dilation_rate=rate, strides=strides)
            for rate in _dilation_rates(max_receptive_px)
        ]
        self.fuse = NormPReLU()
        self.expand = ConvNorm(filters, groups=_BRANCHES)

    def build(self, input_shape: Shape) -> None:
        """Makes the weights."""
        self.reduce.build(input_shape)
        for branch in self.branches:
            branch.build(self.reduce.compute_output_shape(input_shape))
        self.fuse.build(self.compute_output_shape(input_shape))
        self.expand.build(self.compute_output_shape(input_shape))

    def call(self, features: Any, training: bool | None = None) -> Any:
        """The expanded views, before any shortcut and rectifier."""
        reduced = self.reduce(features, training=training)
        views = [self.branches[0](reduced)]
        for branch in self.branches[1:]:
            views.append(branch(reduced) + views[-1])
        fused = self.fuse(ops.concatenate(views, axis=-1), training=training)
        return self.expand(fused, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The spatial size divided by strides, rounded up."""
        return strided_shape(input_shape, self.strides, self.filters)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "max_receptive_px": self.max_receptive_px,
            "strides": self.strides,
        }


@keras.saving.register_keras_serializable("crossview")
class EESP(keras.layers.Layer):
    """A DilatedPyramid around which the features go by a shortcut.

    Args:
        max_receptive_px: The widest view of a branch, in pixels of the input.

    Call arguments:
        features: (batch, rows, cols, channels), channels a multiple of 16; the output has the same
            shape.

    Reference: Mehta et al., CVPR 2019, section 3.1 ("extremely efficient spatial pyramid").
    """

    def __init__(self, *, max_receptive_px: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_receptive_px = max_receptive_px
        self.rectifier = _prelu()

    def build(self, input_shape: Shape) -> None:
        """Makes the weights."""
        self.pyramid = DilatedPyramid(
            _known_channels(input_shape), max_receptive_px=self.max_receptive_px
        )
        self.pyramid.build(input_shape)
        self.rectifier.build(input_shape)

    def call(self, features: Any, training: bool | None = None) -> Any:
        """The transformed features."""
        return self.rectifier(features + self.pyramid(features, training=training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {**super().get_config(), "max_receptive_px": self.max_receptive_px}


@keras.saving.register_keras_serializable("crossview")
class StridedEESP(keras.layers.Layer):
    """Halves the resolution: averaged features beside a strided DilatedPyramid, plus the image.

    The averaged features keep their channels and the pyramid makes the other ones; a small network
    on the image, averaged to the same size, is added ("input reinforcement").

    Args:
        filters: Number of output channels, more than the features have by a multiple of 16.
        max_receptive_px: The widest view of a branch, in pixels of the features.

    Call arguments:
        inputs: [features, image], of shapes (batch, rows, cols, channels) and
            (batch, ceil(rows / 2), ceil(cols / 2), image channels).

    Output shape:
        (batch, ceil(rows / 2), ceil(cols / 2), filters)

    Reference: Mehta et al., CVPR 2019, section 3.2 ("strided EESP").
    """

    def __init__(self, filters: int, *, max_receptive_px: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.max_receptive_px = max_receptive_px
        self.reinforce = ConvNorm(filters)
        self.rectifier = _prelu()

    def build(self, input_shape: list[Shape]) -> None:
        """Makes the weights."""
        features_shape, image_shape = input_shape
        self.pyramid = DilatedPyramid(
            self.filters - _known_channels(features_shape),
            max_receptive_px=self.max_receptive_px,
            strides=2,
        )
        self.pyramid.build(features_shape)
        self.look = ConvNormPReLU(_known_channels(image_shape), kernel_size=3)
        self.look.build(image_shape)
        self.reinforce.build(image_shape)
        self.rectifier.build(self.compute_output_shape(input_shape))

    def call(self, inputs: list[Any], training: bool | None = None) -> Any:
        """The features at half the resolution."""
        features, image = inputs
        views = self.pyramid(features, training=training)
        joined = ops.concatenate([halved(features), views], axis=-1)
        seen = self.reinforce(self.look(image, training=training), training=training)
        return self.rectifier(joined + seen)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """Half the size of the features, rounded up."""
        return strided_shape(input_shape[0], 2, self.filters)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "max_receptive_px": self.max_receptive_px,
        }


@keras.saving.register_keras_serializable("crossview")
class PyramidPool(keras.layers.Layer):
    """Looks at the features at PYRAMID_SCALES times their size, and merges what it saw.

    The projected features are enlarged or averaged, convolved per channel, brought back to their
    size, and merged channel by channel, then across channels. Sizes are rounded up, and at least 5.

    Args:
        filters: Number of output channels.
        width: Channels at each scale.
        use_bias: Whether the outputs have a bias; without one, normalise them.

    Call arguments:
        features: (batch, rows, cols, channels), with rows and cols known when it is traced.

    Output shape:
        (batch, rows, cols, filters)

    Reference: Mehta et al., CVPR 2019, section 4.3 ("efficient pyramid pooling").
    """

    def __init__(self, filters: int, width: int, *, use_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.width = width
        self.use_bias = use_bias
        self.project = ConvNormPReLU(width)
        self.views = [DilatedDepthwiseConv2D() for _ in PYRAMID_SCALES]
        self.normalise = NormPReLU()
        self.merge = ConvNormPReLU(width, kernel_size=3, groups=width)
        self.expand = keras.layers.Conv2D(filters, 1, use_bias=use_bias)

    def build(self, input_shape: Shape) -> None:
        """Makes the weights."""
        self.project.build(input_shape)
        for view in self.views:
            view.build((*input_shape[:-1], self.width))
        joined_shape = (*input_shape[:-1], self.width * len(PYRAMID_SCALES))
        self.normalise.build(joined_shape)
        self.merge.build(joined_shape)
        self.expand.build((*input_shape[:-1], self.width))

    def call(self, features: Any, training: bool | None = None) -> Any:
        """The pooled features."""
        projected = self.project(features, training=training)
        seen = [
            _seen_at_scale(projected, scale, view)
            for scale, view in zip(PYRAMID_SCALES, self.views, strict=True)
        ]
        joined = self.normalise(ops.concatenate(seen, axis=-1), training=training)
        merged = self.merge(_interleaved(joined, len(seen)), training=training)
        return self.expand(merged)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape with filters channels."""
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "width": self.width,
            "use_bias": self.use_bias,
        }


@keras.saving.register_keras_serializable("crossview")
class GatedConv(keras.layers.Layer):
    """A 3 x 3 convolution in as many groups as fit, times a gate per channel.

    The gate is a sigmoid of the features' mean over the whole image.

    Args:
        filters: Number of output channels.

    Call arguments:
        features: (batch, rows, cols, channels)

    Output shape:
        (batch, rows, cols, filters)
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.gate = PaddedConv2D(filters)

    def build(self, input_shape: Shape) -> None:
        """Makes the weights."""
        self.gate.build(input_shape)
        self.convolve = ConvNormPReLU(
            self.filters, kernel_size=3, groups=math.gcd(_known_channels(input_shape), self.filters)
        )
        self.convolve.build(input_shape)

    def call(self, features: Any, training: bool | None = None) -> Any:
        """The gated features."""
        gate = ops.sigmoid(self.gate(ops.mean(features, axis=(1, 2), keepdims=True)))
        return self.convolve(features, training=training) * gate

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape with filters channels."""
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {**super().get_config(), "filters": self.filters}


def _batch_norm() -> keras.layers.BatchNormalization:
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)


def _prelu() -> keras.layers.PReLU:
    return keras.layers.PReLU(
        shared_axes=(1, 2), alpha_initializer=keras.initializers.Constant(0.25)
    )


def _dilation_rates(max_receptive_px: int) -> list[int]:
    receptive_px = [3 + 2 * k for k in range(_BRANCHES)]
    return sorted((px - 1) // 2 if px <= max_receptive_px else 1 for px in receptive_px)


def _known_channels(shape: Shape) -> int:
    channels = shape[-1]
    if channels is None:
        raise ValueError(f"The number of channels must be known, got shape {shape}.")
    return channels


def _interleaved(features: Any, num_views: int) -> Any:
    """Channels (view, channel) reordered to (channel, view)."""
    rows, cols, channels = features.shape[1:]
    split = ops.reshape(features, (-1, rows, cols, num_views, channels // num_views))
    return ops.reshape(ops.transpose(split, (0, 1, 2, 4, 3)), (-1, rows, cols, channels))


def _seen_at_scale(features: Any, scale: float, view: Callable[[Any], Any]) -> Any:
    size = features.shape[1:3]
    if scale == 1.0:
        return view(features)
    scaled = [max(math.ceil(side * scale), _MIN_PYRAMID_CELLS) for side in size]
    if scale > 1.0:
        enlarged = resampled(features, scaled, aligned_bilinear_weights)
        return resampled(view(enlarged), size, cell_mean_weights)
    reduced = resampled(features, scaled, cell_mean_weights)
    return resampled(view(reduced), size, aligned_bilinear_weights)
