"""Heads: from a map of features to one descriptor. They compute in float32 whatever the policy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from crossview.nn.resampling import Shape

CHANNEL_REDUCTIONS = ("mean", "max")

_LEAST_SQUARED_NORM = 1e-12
_LEAST_FEATURE = 1e-6


def normalised(features: Any, axis: Any = -1) -> Any:
    """Features divided by their length over an axis, float32; the least length is 1e-6."""
    features = ops.cast(features, "float32")
    squared = ops.sum(ops.square(features), axis=axis, keepdims=True)
    return features * ops.rsqrt(ops.maximum(squared, _LEAST_SQUARED_NORM))


@keras.saving.register_keras_serializable("crossview")
class UnitLength(keras.layers.Layer):
    """Descriptors of length 1, float32, however small they come; zeros stay zeros.

    Call arguments:
        descriptors: (batch, channels)

    Output shape:
        (batch, channels)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, descriptors: Any) -> Any:
        """The normalised descriptors."""
        descriptors = ops.cast(descriptors, "float32")
        largest = ops.max(ops.abs(descriptors), axis=-1, keepdims=True)
        # a network that begins may shrink its features below what squares of float32 can tell
        return normalised(descriptors / ops.stop_gradient(ops.where(largest > 0, largest, 1.0)))

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


@keras.saving.register_keras_serializable("crossview")
class GeM(keras.layers.Layer):
    """The generalised mean of the features, with one learned power: 1 is the mean, large the max.

    Args:
        power: Where the power starts.

    Call arguments:
        features: (batch, rows, cols, channels); what is below 1e-6 counts as that.

    Output shape:
        (batch, channels)

    Reference: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018.
    """

    def __init__(self, power: float = 3.0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if not power > 0:
            raise ValueError(f"power must be above 0, got {power}.")
        self.power = power

    def build(self, input_shape: Shape) -> None:  # noqa: ARG002
        """Makes the power."""
        self.exponent = self.add_weight(
            name="power", shape=(), initializer=keras.initializers.Constant(self.power)
        )

    def call(self, features: Any) -> Any:
        """The generalised means."""
        powers = ops.power(ops.maximum(features, _LEAST_FEATURE), self.exponent)
        return ops.power(ops.mean(powers, axis=(1, 2)), 1.0 / self.exponent)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """One descriptor."""
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable("crossview")
class NetVLAD(keras.layers.Layer):
    """Sums of how features differ from the centres of clusters that they are softly assigned to.

    Features have length 1 first, and so have the sums of every cluster in the end.

    Args:
        num_clusters: Clusters.

    Call arguments:
        features: (batch, rows, cols, channels)

    Output shape:
        (batch, num_clusters * channels), clusters first.

    Reference: Arandjelovic et al., "NetVLAD: CNN Architecture for Weakly Supervised Place
    Recognition", CVPR 2016.
    """

    def __init__(self, num_clusters: int = 64, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if num_clusters < 1:
            raise ValueError(f"num_clusters must be 1 or more, got {num_clusters}.")
        self.num_clusters = num_clusters

    def build(self, input_shape: Shape) -> None:
        """Makes the centres (clusters, channels) and the assignment."""
        channels = _num_channels(input_shape)
        uniform = keras.initializers.RandomUniform(-1.0, 1.0)
        shape = (self.num_clusters, channels)
        self.centers = self.add_weight(name="centers", shape=shape, initializer=uniform)
        self.assignment = self.add_weight(
            name="assignment", shape=(channels, self.num_clusters), initializer="he_normal"
        )
        self.biases = self.add_weight(
            name="biases", shape=(self.num_clusters,), initializer="zeros"
        )

    def start_from(self, centers: npt.NDArray[np.floating], sharpness: float) -> None:
        """Assign by distance, as the paper starts.

        Args:
            centers: (clusters, channels), of clusters of features of length 1.
            sharpness: How fast assignment falls with squared distance.
        """
        self.centers.assign(centers)
        self.assignment.assign(2.0 * sharpness * np.transpose(centers))
        self.biases.assign(-sharpness * np.sum(np.square(centers), axis=1))

    def call(self, features: Any) -> Any:
        """The sums, one cluster after the other."""
        rows, cols, channels = features.shape[1:]
        places = normalised(ops.reshape(features, (-1, rows * cols, channels)))
        shares = ops.softmax(ops.matmul(places, self.assignment) + self.biases, axis=-1)
        sums = ops.einsum("bik,bic->bkc", shares, places)
        sums = sums - ops.sum(shares, axis=1)[:, :, None] * self.centers
        return ops.reshape(normalised(sums), (-1, self.num_clusters * channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """One descriptor."""
        return (input_shape[0], self.num_clusters * _num_channels(input_shape))

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {**super().get_config(), "num_clusters": self.num_clusters}


@keras.saving.register_keras_serializable("crossview")
class MixVPR(keras.layers.Layer):
    """Maps of whole channels, mixed by a few perceptrons over all places, then projected twice.

    Args:
        num_channels: Channels after the first projection.
        num_rows: Numbers for each of them, after the second one.
        depth: Perceptrons, each around which the maps go by a shortcut.
        hidden_ratio: Hidden numbers of a perceptron, as a multiple of the places.

    Call arguments:
        features: (batch, rows, cols, channels), rows and cols known when it is traced.

    Output shape:
        (batch, num_channels * num_rows), channels first.

    Reference: Ali-bey et al., "MixVPR: Feature Mixing for Visual Place Recognition", WACV 2023.
    """

    def __init__(
        self,
        num_channels: int = 512,
        num_rows: int = 4,
        *,
        depth: int = 4,
        hidden_ratio: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if min(num_channels, num_rows) < 1 or depth < 0 or not hidden_ratio > 0:
            raise ValueError(
                "num_channels, num_rows and hidden_ratio are above 0 and depth is not negative, "
                f"got {num_channels}, {num_rows}, {hidden_ratio} and {depth}."
            )
        self.num_channels, self.num_rows = num_channels, num_rows
        self.depth, self.hidden_ratio = depth, hidden_ratio

    def build(self, input_shape: Shape) -> None:
        """Makes the perceptrons and projections."""
        num_places, channels = _num_places(input_shape), _num_channels(input_shape)
        num_hidden = max(int(num_places * self.hidden_ratio), 1)
        dense = functools.partial(keras.layers.Dense, dtype="float32")
        self.norms, self.inward, self.outward = [], [], []
        for _ in range(self.depth):
            self.norms.append(keras.layers.LayerNormalization(epsilon=1e-5, dtype="float32"))
            self.inward.append(dense(num_hidden, activation="relu"))
            self.outward.append(dense(num_places))
        self.across_channels, self.across_places = dense(self.num_channels), dense(self.num_rows)
        maps = (None, channels, num_places)
        for norm, inward, outward in zip(self.norms, self.inward, self.outward, strict=True):
            norm.build(maps)
            inward.build(maps)
            outward.build((None, channels, num_hidden))
        self.across_channels.build((None, num_places, channels))
        self.across_places.build((None, self.num_channels, num_places))

    def call(self, features: Any) -> Any:
        """The projected maps, one channel after the other."""
        rows, cols, channels = features.shape[1:]
        maps = ops.transpose(ops.reshape(features, (-1, rows * cols, channels)), (0, 2, 1))
        for norm, inward, outward in zip(self.norms, self.inward, self.outward, strict=True):
            maps = maps + outward(inward(norm(maps)))
        mixed = self.across_channels(ops.transpose(maps, (0, 2, 1)))
        projected = self.across_places(ops.transpose(mixed, (0, 2, 1)))
        return ops.reshape(projected, (-1, self.num_channels * self.num_rows))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """One descriptor."""
        return (input_shape[0], self.num_channels * self.num_rows)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {
            **super().get_config(),
            "num_channels": self.num_channels,
            "num_rows": self.num_rows,
            "depth": self.depth,
            "hidden_ratio": self.hidden_ratio,
        }


@keras.saving.register_keras_serializable("crossview")
class OffsetHead(keras.layers.Layer):
    """Where in a tile the camera stood, from two descriptors that are not normalised.

    Args:
        num_hidden: Numbers of the hidden layer.

    Call arguments:
        inputs: [overhead, ground], (batch, D) each.

    Output shape:
        (batch, 2), how far the camera is south and west of the tile's middle, in half tiles.

    Reference: Zhu et al., "VIGOR: Cross-View Image Geo-localization beyond One-to-one Retrieval",
    CVPR 2021.
    """

    def __init__(self, num_hidden: int = 512, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if num_hidden < 1:
            raise ValueError(f"num_hidden must be 1 or more, got {num_hidden}.")
        self.num_hidden = num_hidden

    def build(self, input_shape: list[Shape]) -> None:
        """Makes the two layers."""
        both = sum(_num_channels(shape) for shape in input_shape)
        start = {
            "kernel_initializer": keras.initializers.TruncatedNormal(0.0, 0.005),
            "bias_initializer": keras.initializers.Constant(0.1),
            "dtype": "float32",
        }
        self.hidden = keras.layers.Dense(self.num_hidden, activation="relu", **start)
        self.hidden.build((None, both))
        self.offset = keras.layers.Dense(2, **start)
        self.offset.build((None, self.num_hidden))

    def call(self, inputs: list[Any]) -> Any:
        """The offsets."""
        return self.offset(self.hidden(ops.concatenate(inputs, axis=-1)))

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """Two numbers."""
        return (input_shape[0][0], 2)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {**super().get_config(), "num_hidden": self.num_hidden}


def average(**options: Any) -> keras.layers.Layer:
    """The mean of the features, a layer from (batch, rows, cols, channels) to (batch, channels)."""
    return keras.layers.GlobalAveragePooling2D(**{"dtype": "float32", **options})


HEADS: dict[str, Callable[..., keras.layers.Layer]] = {
    "spe": SpatialEmbeddings,
    "gem": GeM,
    "average": average,
    "netvlad": NetVLAD,
    "mixvpr": MixVPR,
}
"""By name, from its options to the layer; descriptors are not normalised yet."""


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
