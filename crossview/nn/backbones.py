"""Trunks: from an image to a map of features, on a plane or on the cylinder of a panorama.

All take RGB in 0..255 and normalise it themselves.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from crossview.nn.resampling import Shape

IMAGENET_MEAN_RGB = (123.675, 116.28, 103.53)
IMAGENET_STD_RGB = (58.395, 57.12, 57.375)
"""Of the pixels in 0..255."""

VGG_MEAN_RGB = (123.6, 116.779, 103.939)
"""As SAFA and its followers subtract it; Keras has 123.68."""

VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each block."""

STEM_KERNEL = 5
STAGE_WIDTHS = (2, 4, 6)
"""Channels of the stages of a small trunk, as multiples of its stem's."""

# by the end of the name, then by its start; the other networks of keras.applications normalise
_SCALED_TO_ONE = ("MobileNet", "MobileNetV2", "NASNet", "Xception", "Inception")
_NORMALISED_INSIDE = ("EfficientNet", "MobileNetV3", "ConvNeXt")

_CIRCULAR = ("VGG", "ResNet", "MobileNet", "EfficientNet", "DenseNet", "ConvNeXt")
_PROBE_PX = 256


class DepthwiseFast(keras.layers.Conv2D):
    """A convolution that computes one group for each channel as the depth-wise one that it is.

    Arguments and weights are those of keras.layers.Conv2D, which TensorFlow runs sixty times as
    slowly on a CPU if it has groups.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """The convolution, without bias and activation."""
        return self._convolved(inputs, kernel, self.padding)

    def _convolved(self, inputs: Any, kernel: Any, padding: str) -> Any:
        if self.groups == self.filters == inputs.shape[-1] > 1 and len(set(self.strides)) == 1:
            return ops.depthwise_conv(
                inputs,
                ops.swapaxes(kernel, 2, 3),
                self.strides[0],
                padding,
                dilation_rate=self.dilation_rate,
            )
        return ops.conv(inputs, kernel, self.strides, padding, dilation_rate=self.dilation_rate)


@keras.saving.register_keras_serializable("crossview")
class FastConv2D(DepthwiseFast):
    """A DepthwiseFast on the plane."""


@keras.saving.register_keras_serializable("crossview")
class CircularConv2D(DepthwiseFast):
    """A convolution of the same size whose columns go around; rows beyond the border are zero.

    Arguments, weights and strides are those of keras.layers.Conv2D with padding "same", which it
    equals but for the first and last columns: features of a panorama that is rolled are rolled.

    Call arguments:
        features: (batch, rows, cols, channels); rows and cols that are not known count as
            multiples of the strides.
    """

    def __init__(self, filters: int, kernel_size: Any, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, **{"padding": "same", **kwargs})
        _require_same(self)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """The convolution, without bias and activation."""
        framed = padded_around(inputs, self.kernel_size, self.strides, self.dilation_rate)
        return self._convolved(framed, kernel, "valid")


@keras.saving.register_keras_serializable("crossview")
class CircularDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """A depth-wise convolution whose columns go around, else as CircularConv2D.

    Arguments and weights are those of keras.layers.DepthwiseConv2D with padding "same".
    """

    def __init__(self, kernel_size: Any, **kwargs: Any) -> None:
        super().__init__(kernel_size, **{"padding": "same", **kwargs})
        _require_same(self)

    def call(self, inputs: Any) -> Any:
        """The convolved features."""
        framed = padded_around(inputs, self.kernel_size, self.strides, self.dilation_rate)
        outputs = ops.depthwise_conv(
            framed, self.kernel, self.strides, "valid", dilation_rate=self.dilation_rate
        )
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)


@keras.saving.register_keras_serializable("crossview")
class CircularPadding2D(keras.layers.ZeroPadding2D):
    """Zeros above and below, columns from the other side left and right.

    Arguments are those of keras.layers.ZeroPadding2D.
    """

    def call(self, inputs: Any) -> Any:
        """The framed features."""
        return _framed(inputs, *self.padding)


@keras.saving.register_keras_serializable("crossview")
class LiveNormalization(keras.layers.Normalization):
    """A normalisation that goes by its weights as they are, not as they were when it was built.

    Arguments and weights are those of keras.layers.Normalization.
    """

    def call(self, inputs: Any) -> Any:
        """The normalised features."""
        if self.input_mean is not None:
            return super().call(inputs)
        shape = [size if axis in self._keep_axis else 1 for axis, size in enumerate(inputs.shape)]
        mean, variance = (
            ops.reshape(ops.cast(each, inputs.dtype), shape)
            for each in (self.adapt_mean, self.adapt_variance)
        )
        return (inputs - mean) / ops.maximum(ops.sqrt(variance), keras.config.epsilon())


@keras.saving.register_keras_serializable("crossview")
class BgrCentered(keras.layers.Layer):
    """RGB in 0..255 as VGG16 was trained on it: blue first, less the mean of ImageNet.

    Args:
        mean_rgb: What is subtracted.

    Call arguments:
        image: (batch, rows, cols, 3); the output has the same shape.
    """

    def __init__(self, mean_rgb: Any = VGG_MEAN_RGB, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean_rgb = tuple(float(mean) for mean in mean_rgb)

    def call(self, image: Any) -> Any:
        """The centred image."""
        return ops.flip(image - ops.cast(self.mean_rgb, image.dtype), axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {**super().get_config(), "mean_rgb": list(self.mean_rgb)}


def padded_around(
    features: Any,
    kernel_size: tuple[int, int],
    strides: tuple[int, int],
    dilation_rate: tuple[int, int] = (1, 1),
) -> Any:
    """Features framed as for padding "same": columns from the other side, rows of zeros.

    Args:
        features: (batch, rows, cols, channels)
        kernel_size: Rows and columns of what comes next.
        strides: Its steps.
        dilation_rate: Distance between its taps.
    """
    rows, cols = (
        _same_padding(*sizes)
        for sizes in zip(features.shape[1:3], kernel_size, strides, dilation_rate, strict=True)
    )
    return _framed(features, rows, cols)


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


def vgg16(
    image: Any,
    *,
    last: str = "block5_conv3",
    dropout: float = 0.0,
    circular: bool = False,
    weights: str | None = None,
) -> Any:
    """Features of VGG16's convolutions, without a pooling after the last one.

    Poolings round up, where Keras's VGG16 rounds down: 616 columns become 39.

    Args:
        image: (batch, rows, cols, 3), RGB in 0..255.
        last: Name of the last convolution, as in keras.applications.
        dropout: Share of the outputs of the convolutions of blocks 4 and 5 that training drops.
        circular: Whether columns go around.
        weights: None, "imagenet" or a path, as keras.applications.VGG16 takes them.

    Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015; dropout as in SAFA.
    """
    features = BgrCentered(name="centred")(image)
    layers = []
    for block, (filters, num_convolutions) in enumerate(VGG16_BLOCKS, start=1):
        if block > 1:
            features = keras.layers.MaxPooling2D(2, padding="same", name=f"block{block - 1}_pool")(
                features
            )
        for i in range(1, num_convolutions + 1):
            name = f"block{block}_conv{i}"
            layer = conv_2d(filters, 3, activation="relu", circular=circular, name=name)
            layers.append(layer)
            features = layer(features)
            if dropout and block >= 4:
                features = keras.layers.Dropout(dropout, name=f"{name}_drop")(features)
            if name == last:
                _copy_weights(layers, keras.applications.VGG16, weights)
                return features
    raise ValueError(f"VGG16 has no convolution {last!r}.")


def application(
    name: str, *, stride: int, size_px: Shape = (None, None), weights: str | None, circular: bool
) -> keras.Model:
    """A network of keras.applications up to the last layer of a stride, with its normalisation.

    Args:
        name: Of the network, such as "ResNet50".
        stride: Pixels of the image for each cell of the features, a power of two.
        size_px: Rows and columns of the image if they are known.
        weights: None, "imagenet" or a path, as keras.applications takes them.
        circular: Whether columns go around.

    Returns:
        From RGB in 0..255, (batch, rows, cols, 3), to (batch, rows / stride, cols / stride, any).
    """
    make = _make_of(name)
    if circular and not name.startswith(_CIRCULAR):
        raise ValueError(
            f"The columns of {name} cannot go around: choose one of {', '.join(_CIRCULAR)}, or "
            "circular=False."
        )
    index = _last_operation(name, stride)
    whole = make(include_top=False, weights=None, input_shape=(*size_px, 3))
    if weights is not None:
        _start_from(whole, make(include_top=False, weights=weights, input_shape=(*size_px, 3)))
    cut = keras.Model(whole.input, whole.operations[index].output)
    exchange = _circular_twin if circular else _fast_twin
    trunk = keras.models.clone_model(cut, clone_function=exchange, recursive=True)
    trunk.set_weights(cut.get_weights())
    image = keras.Input((*size_px, 3), name="image")
    return keras.Model(image, trunk(_normalised_for(name, image)), name=name.lower())


def imagenet_normalised(image: Any) -> Any:
    """RGB in 0..255 by the mean and standard deviation of ImageNet."""
    scale = [1.0 / std for std in IMAGENET_STD_RGB]
    offset = [-mean / std for mean, std in zip(IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, strict=True)]
    return keras.layers.Rescaling(scale, offset)(image)


def _make_of(name: str) -> Callable[..., keras.Model]:
    names = [each for each in dir(keras.applications) if each[0].isupper()]
    if name not in names:
        raise ValueError(f"keras.applications has no {name!r}; it has {', '.join(names)}.")
    return getattr(keras.applications, name)


@functools.cache
def _last_operation(name: str, stride: int) -> int:
    """Index of the last one of a stride through which everything goes that comes later."""
    whole = _make_of(name)(include_top=False, weights=None, input_shape=(_PROBE_PX, _PROBE_PX, 3))
    operations = whole.operations  # in an order in which each has what it needs
    index_of = {operation.name: i for i, operation in enumerate(operations)}
    last_user = dict.fromkeys(range(len(operations)), 0)
    for i, operation in enumerate(operations):
        for tensor in keras.tree.flatten(operation.input):
            last_user[index_of[tensor._keras_history.operation.name]] = i
    strides: dict[int, int] = {}
    needed = 0  # the last one that needs something from before
    for i, operation in enumerate(operations):
        shape = operation.output.shape
        # a padding is of the next convolution; sizes are not exact where networks do not pad
        is_padding = isinstance(operation, keras.layers.ZeroPadding2D)
        if len(shape) == 4 and needed <= i and not is_padding:
            strides[1 << round(math.log2(_PROBE_PX / shape[1]))] = i
        needed = max(needed, last_user[i])
    if stride not in strides:
        raise ValueError(
            f"{name} has no features of stride {stride}; it has {', '.join(map(str, strides))}."
        )
    return strides[stride]


def _normalised_for(name: str, image: Any) -> Any:
    if name.startswith(_NORMALISED_INSIDE):
        return image
    if name.startswith("DenseNet"):
        return imagenet_normalised(image)
    if name.startswith(_SCALED_TO_ONE) or (name.startswith("ResNet") and name.endswith("V2")):
        return keras.layers.Rescaling(1 / 127.5, -1.0)(image)
    return BgrCentered((123.68, 116.779, 103.939))(image)


def _circular_twin(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A layer of the same arguments whose columns go around."""
    config = layer.get_config()
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        twin = CircularDepthwiseConv2D if layer.padding == "same" else type(layer)
    elif isinstance(layer, keras.layers.Conv2D):
        twin = CircularConv2D if layer.padding == "same" else FastConv2D
    elif isinstance(layer, keras.layers.ZeroPadding2D):
        twin = CircularPadding2D
    else:
        return _fast_twin(layer)
    return twin.from_config(config)


def _fast_twin(layer: keras.layers.Layer) -> keras.layers.Layer:
    twin: Any = type(layer)
    if twin is keras.layers.Conv2D:
        twin = FastConv2D
    elif twin is keras.layers.Normalization:
        twin = LiveNormalization
    return twin.from_config(layer.get_config())


def _start_from(network: keras.Model, trained: keras.Model) -> None:
    """Weights of a network that may have a factor behind its normalisation, as EfficientNet's with
    those of ImageNet; what is stored and loaded has none.
    """
    network.set_weights(trained.get_weights())
    for layer, following in itertools.pairwise(trained.layers):
        is_normalised = isinstance(layer, keras.layers.Normalization) and layer.weights
        if is_normalised and isinstance(following, keras.layers.Rescaling):
            variance = network.get_layer(index=trained.layers.index(layer)).adapt_variance
            variance.assign(ops.divide(variance, ops.square(ops.array(following.scale))))


def _copy_weights(layers: list[Any], make: Callable[..., keras.Model], weights: str | None) -> None:
    if weights is not None:
        whole = make(include_top=False, weights=weights)
        for layer in layers:
            layer.set_weights(whole.get_layer(layer.name).get_weights())


def _framed(features: Any, rows: tuple[int, int], cols: tuple[int, int]) -> Any:
    """Rows of zeros above and below, columns from the other side left and right."""
    if any(rows):
        features = ops.pad(features, ((0, 0), rows, (0, 0), (0, 0)))
    before, after = cols
    left = [features[:, :, -before:]] if before else []
    right = [features[:, :, :after]] if after else []
    return ops.concatenate([*left, features, *right], axis=2) if any(cols) else features


def _same_padding(
    size: int | None, kernel_size: int, stride: int, dilation: int
) -> tuple[int, int]:
    """Before and after, as padding "same" divides it: the odd one comes after."""
    reach = (kernel_size - 1) * dilation + 1
    left_over = 0 if size is None else size % stride
    total = max(reach - (left_over or stride), 0)
    return total // 2, total - total // 2


def _require_same(layer: Any) -> None:
    if layer.padding != "same" or layer.data_format != "channels_last":
        raise ValueError(
            f"Columns go around with padding 'same' and channels last, got {layer.padding!r} and "
            f"{layer.data_format!r}."
        )


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
