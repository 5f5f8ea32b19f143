"""Heads: from a map of features to one descriptor. They compute in float32 whatever the policy."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from crossview.nn.resampling import Shape

CHANNEL_REDUCTIONS = ("mean", "max")

_LEAST_SQUARED_NORM = 1e-12


def normalised(features: Any, axis: Any = -1) -> Any:
    """Features divided by their length over an axis, float32; the least length is 1e-6."""
    features = ops.cast(features, "float32")
    squared = ops.sum(ops.square(features), axis=axis, keepdims=True)
    return features * ops.rsqrt(ops.maximum(squared, _LEAST_SQUARED_NORM))


@keras.saving.register_keras_serializable("crossview")
class UnitLength(keras.layers.Layer):
    """Descriptors of length 1, float32.

    Call arguments:
        descriptors: (batch, channels)

    Output shape:
        (batch, channels)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, descriptors: Any) -> Any:
        """The normalised descriptors."""
        return normalised(descriptors)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape


@keras.saving.register_keras_serializable("crossview")
class SpatialEmbeddings(keras.layers.Layer):
    """Sums of the features under learned masks of places (SPE, "spatial-aware position embedding").

    The channels are reduced to one number for each place; two affine layers without activation
    turn it into a mask of all places, for each head. Masks may be negative.

    Args:
        num_heads: Masks.
        channel_reduce: "mean" as the published code of SAFA, or "max" as its paper and VIGOR.

    Call arguments:
        features: (batch, rows, cols, channels), rows and cols known when it is traced.

    Output shape:
        (batch, num_heads * channels), heads first; not normalised.

    Reference: Shi et al., "Spatial-Aware Feature Aggregation for Cross-View Image based
    Geo-Localization", NeurIPS 2019.
    """

    def __init__(self, num_heads: int = 8, channel_reduce: str = "mean", **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if num_heads < 1:
            raise ValueError(f"num_heads must be 1 or more, got {num_heads}.")
        if channel_reduce not in CHANNEL_REDUCTIONS:
            raise ValueError(
                f"channel_reduce is one of {', '.join(CHANNEL_REDUCTIONS)}, got {channel_reduce!r}."
            )
        self.num_heads = num_heads
        self.channel_reduce = channel_reduce

    def build(self, input_shape: Shape) -> None:
        """Makes the two layers, (places, hidden, heads) and (hidden, places, heads)."""
        num_places = _num_places(input_shape)
        num_hidden = num_places // 2
        if num_hidden < 1:
            raise ValueError(f"Embeddings of places need 2 places or more, got {input_shape}.")
        weights = {"initializer": keras.initializers.TruncatedNormal(0.0, 0.005)}
        biases = {"initializer": keras.initializers.Constant(0.1)}
        inward = (num_places, num_hidden, self.num_heads)
        self.weights1 = self.add_weight(name="weights1", shape=inward, **weights)
        self.biases1 = self.add_weight(name="biases1", shape=(1, *inward[1:]), **biases)
        outward = (num_hidden, num_places, self.num_heads)
        self.weights2 = self.add_weight(name="weights2", shape=outward, **weights)
        self.biases2 = self.add_weight(name="biases2", shape=(1, *outward[1:]), **biases)

    def call(self, features: Any) -> Any:
        """The masked sums, one after the other."""
        rows, cols, channels = features.shape[1:]
        places = ops.reshape(features, (-1, rows * cols, channels))
        masks = self.masks(features)
        sums = ops.einsum("bic,bid->bdc", places, masks)
        return ops.reshape(sums, (-1, self.num_heads * channels))

    def masks(self, features: Any) -> Any:
        """What each head looks at, (batch, rows * cols, heads)."""
        reduce = {"mean": ops.mean, "max": ops.max}[self.channel_reduce]
        rows, cols = features.shape[1:3]
        strength = ops.reshape(reduce(features, axis=-1), (-1, rows * cols))
        hidden = ops.einsum("bi,ijd->bjd", strength, self.weights1) + self.biases1
        return ops.einsum("bjd,jid->bid", hidden, self.weights2) + self.biases2

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """One descriptor."""
        return (input_shape[0], self.num_heads * _num_channels(input_shape))

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "channel_reduce": self.channel_reduce,
        }


def _num_places(shape: Shape) -> int:
    rows, cols = shape[1:3]
    if rows is None or cols is None:
        raise ValueError(
            f"A head needs to know how many rows and columns the features have, got {shape}. Make "
            "the input with keras.Input((rows, cols, channels))."
        )
    return rows * cols


def _num_channels(shape: Shape) -> int:
    channels = shape[-1]
    if channels is None:
        raise ValueError(f"The number of channels must be known, got {shape}.")
    return channels
