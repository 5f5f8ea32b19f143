"""Trunks and heads of encoders: the layer contract, columns that go around, and their formulas."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from fakes import layer_contract
from scipy import special

from crossview.nn import aggregation, backbones
from crossview.nn.aggregation import GeM, MixVPR, NetVLAD, OffsetHead, SpatialEmbeddings, UnitLength
from crossview.nn.backbones import (
    BgrCentered,
    CircularConv2D,
    CircularDepthwiseConv2D,
    CircularPadding2D,
    FastConv2D,
)

# Keras's variables know the array protocol of NumPy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TESTS = Path(__file__).parent

# a layer, the shape or shapes of its input, the shape of its output, whether always float32
CONTRACT = {
    "CircularConv2D": (lambda: CircularConv2D(6, 3, strides=2), (2, 5, 7, 4), (2, 3, 4, 6), False),
    "CircularConv2D, a group each": (
        lambda: CircularConv2D(4, 5, groups=4), (2, 5, 6, 4), (2, 5, 6, 4), False
    ),
    "CircularDepthwiseConv2D": (
        lambda: CircularDepthwiseConv2D(3, strides=2), (2, 5, 6, 4), (2, 3, 3, 4), False
    ),
    "CircularPadding2D": (
        lambda: CircularPadding2D(((0, 1), (2, 3))), (2, 3, 4, 5), (2, 4, 9, 5), False
    ),
    "FastConv2D": (lambda: FastConv2D(4, 3, groups=4), (2, 5, 6, 4), (2, 3, 4, 4), False),
    "BgrCentered": (BgrCentered, (2, 3, 4, 3), (2, 3, 4, 3), False),
    "UnitLength": (UnitLength, (2, 5), (2, 5), True),
    "SpatialEmbeddings": (lambda: SpatialEmbeddings(3, "max"), (2, 3, 4, 5), (2, 15), True),
    "GeM": (GeM, (2, 3, 4, 5), (2, 5), True),
    "average": (aggregation.average, (2, 3, 4, 5), (2, 5), True),
    "NetVLAD": (lambda: NetVLAD(3), (2, 3, 4, 5), (2, 15), True),
    "MixVPR": (lambda: MixVPR(6, 2, depth=2, hidden_ratio=2.0), (2, 3, 4, 5), (2, 12), True),
    "OffsetHead": (lambda: OffsetHead(64), [(2, 6), (2, 4)], (2, 2), True),
}  # fmt: skip


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", CONTRACT)
def test_a_layer_keeps_the_contract(name, policy, tmp_path):
    make, input_shape, output_shape, is_float32 = CONTRACT[name]
    dtype = "float32" if is_float32 or policy == "float32" else "bfloat16"
    layer_contract.check(make, input_shape, output_shape, tmp_path, dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_layers_keep_the_contract_on_another_backend(backend):
    if backend == keras.backend.backend():
        pytest.skip("this is the backend of the session")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-k", "keeps_the_contract"],
        cwd=TESTS.parent,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-3000:]


def output(layer, features):
    return keras.ops.convert_to_numpy(layer(features))


def drawn(shape, seed=0):
    return layer_contract.drawn(shape, seed)


# ------------------------------------------------------------------------ columns that go around


@pytest.mark.parametrize("cols", [7, 8])
@pytest.mark.parametrize(("kernel_size", "strides"), [(3, 1), (3, 2), (5, 2), ((1, 4), 1), (2, 2)])
def test_a_circular_convolution_is_an_ordinary_one_of_columns_on_both_sides(
    kernel_size, strides, cols
):
    """Three times the image beside itself, convolved by Keras; the middle third is ours."""
    features = drawn((1, 6, cols, 4))
    ours = CircularConv2D(5, kernel_size, strides=strides)
    made = output(ours, features)
    theirs = keras.layers.Conv2D(5, kernel_size, strides=strides, padding="same")
    # an even number of whole turns before it keeps the phase of the strides
    framed = np.concatenate([features] * 5, axis=2)
    theirs.build(framed.shape)
    theirs.set_weights(ours.get_weights())
    # where strides do not divide the turn, padding moves with the whole width: cut by hand
    reach = theirs.kernel_size[1]
    total = max((-(-cols // strides) - 1) * strides + reach - cols, 0)
    window = framed[:, :, 2 * cols - total // 2 : 3 * cols + total - total // 2]
    rows_total = max((-(-6 // strides) - 1) * strides + theirs.kernel_size[0] - 6, 0)
    window = np.pad(
        window, ((0, 0), (rows_total // 2, rows_total - rows_total // 2), (0, 0), (0, 0))
    )
    theirs.padding = "valid"
    np.testing.assert_allclose(made, output(theirs, window), atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        CircularConv2D(4, 3, strides=2),
        CircularConv2D(4, 7, groups=4),
        CircularDepthwiseConv2D(5, strides=2),
        CircularDepthwiseConv2D(3, dilation_rate=2),
    ],
)
def test_rolled_images_have_rolled_features(layer):
    features = drawn((1, 6, 12, 4))
    made = output(layer, features)
    stride = 12 // made.shape[2]
    rolled = output(layer, np.roll(features, 4, axis=2))
    np.testing.assert_allclose(rolled, np.roll(made, 4 // stride, axis=2), atol=1e-5)


def test_a_group_for_each_channel_is_computed_as_keras_does():
    features = drawn((1, 9, 8, 4))
    ours, theirs = (
        FastConv2D(4, 3, groups=4, strides=2),
        keras.layers.Conv2D(4, 3, groups=4, strides=2),
    )
    made = output(ours, features)
    theirs.build(features.shape)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(made, output(theirs, features), atol=1e-5)


def test_padding_of_other_kinds_is_refused():
    with pytest.raises(ValueError, match="'valid'"):
        CircularConv2D(4, 3, padding="valid")
    with pytest.raises(ValueError, match="same"):
        CircularDepthwiseConv2D(3, padding="valid")


# ------------------------------------------------------------------------------------- trunks


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("VGG19", "vgg19"),
        ("ResNet101", "resnet"),
        ("ResNet50V2", "resnet_v2"),
        ("MobileNet", "mobilenet"),
        ("MobileNetV2", "mobilenet_v2"),
        ("MobileNetV3Small", "mobilenet_v3"),
        ("EfficientNetB0", "efficientnet"),
        ("EfficientNetV2S", "efficientnet_v2"),
        ("DenseNet121", "densenet"),
        ("ConvNeXtTiny", "convnext"),
        ("InceptionV3", "inception_v3"),
        ("InceptionResNetV2", "inception_resnet_v2"),
        ("Xception", "xception"),
    ],
)
def test_colours_are_normalised_as_keras_normalises_them(name, module):
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3)).astype(np.float32)
    symbolic = keras.Input((4, 5, 3))
    ours = keras.Model(symbolic, backbones._normalised_for(name, symbolic) + 0.0)
    theirs = getattr(keras.applications, module).preprocess_input(image.copy())
    np.testing.assert_allclose(ours.predict_on_batch(image), theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "stride", "channels"),
    [("MobileNet", 16, 512), ("VGG16", 8, 512), ("VGG16", 32, 512)],
)
def test_a_trunk_is_cut_where_everything_goes_through(name, stride, channels):
    made = backbones.application(
        name, stride=stride, size_px=(64, 96), weights=None, circular=False
    )
    assert made.output_shape == (None, 64 // stride, 96 // stride, channels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stride", "channels"),
    [
        ("ResNet50V2", 16, 1024),
        ("MobileNetV2", 16, 576),
        ("DenseNet121", 16, 512),
        ("EfficientNetV2B0", 16, 672),
        ("MobileNetV3Small", 8, 96),
        ("ConvNeXtTiny", 32, 768),
    ],
)
def test_a_circular_trunk_rolls_its_features_with_the_image(name, stride, channels):
    made = backbones.application(
        name, stride=stride, size_px=(64, 128), weights=None, circular=True
    )
    assert made.output_shape == (None, 64 // stride, 128 // stride, channels)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 128, 3)).astype(np.float32)
    features = made.predict_on_batch(image)
    rolled = made.predict_on_batch(np.roll(image, 64, axis=2))
    expected = np.roll(features, 64 // stride, axis=2)
    np.testing.assert_allclose(rolled, expected, atol=1e-4 * np.abs(features).max())


def loud(rng, shape):
    """Weights that keep features alive: He's for kernels, near 1 for everything else."""
    if len(shape) < 4:
        return rng.uniform(0.5, 1.5, shape)
    is_depthwise = shape[-1] == 1
    num_inputs = np.prod(shape[:2]) * (1 if is_depthwise else shape[2])
    return rng.standard_normal(shape) * np.sqrt(2 / num_inputs)


def test_a_plane_trunk_computes_what_keras_computes(tmp_path):
    """Weights from a file that keras.applications reads; features of the whole network, cut."""
    theirs = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(64, 96, 3))
    rng = np.random.default_rng(0)
    theirs.set_weights([loud(rng, w.shape) for w in theirs.get_weights()])
    path = str(tmp_path / "trunk.weights.h5")
    theirs.save_weights(path)
    ours = backbones.application(
        "MobileNet", stride=32, size_px=(64, 96), weights=path, circular=False
    )
    image = rng.integers(0, 256, (1, 64, 96, 3)).astype(np.float32)
    expected = theirs.predict_on_batch(keras.applications.mobilenet.preprocess_input(image.copy()))
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(ours.predict_on_batch(image), expected, rtol=1e-4, atol=1e-5)


def test_impossible_trunks_are_refused():
    with pytest.raises(ValueError, match="MobileNetV2"):
        backbones.application("MobileNetV9", stride=16, weights=None, circular=False)
    with pytest.raises(ValueError, match="stride 12; it has 1, 2, 4, 8"):
        backbones.application("VGG16", stride=12, weights=None, circular=False)
    with pytest.raises(ValueError, match="circular=False"):
        backbones.application("Xception", stride=16, weights=None, circular=True)
    with pytest.raises(ValueError, match="block9"):
        backbones.vgg16(keras.Input((16, 16, 3)), last="block9_conv1")


# -------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize(("reduce", "literal"), [("mean", np.mean), ("max", np.max)])
def test_embeddings_of_places_are_their_formula(reduce, literal):
    head, features = SpatialEmbeddings(2, reduce), drawn((2, 2, 3, 4))
    head.build(features.shape)
    weights = [drawn(w.shape, seed) for seed, w in enumerate(head.get_weights())]
    head.set_weights(weights)
    w1, b1, w2, b2 = weights
    assert [w.shape for w in weights] == [(6, 3, 2), (1, 3, 2), (3, 6, 2), (1, 6, 2)]
    places = features.reshape(2, 6, 4)
    expected = np.zeros((2, 2, 4))
    for b, d, c in np.ndindex(2, 2, 4):
        v = literal(places[b], axis=1)
        hidden = [sum(v[i] * w1[i, j, d] for i in range(6)) + b1[0, j, d] for j in range(3)]
        for i in range(6):
            mask = sum(hidden[j] * w2[j, i, d] for j in range(3)) + b2[0, i, d]
            expected[b, d, c] += places[b, i, c] * mask
    np.testing.assert_allclose(output(head, features), expected.reshape(2, 8), atol=1e-4)


def test_embeddings_start_as_published():
    keras.utils.set_random_seed(0)
    head = SpatialEmbeddings(8)
    head.build((None, 4, 20, 512))
    w1, b1, w2, b2 = head.get_weights()
    for weights in (w1, w2):
        assert abs(weights.mean()) < 2e-4
        # of a normal distribution cut at two of its deviations
        assert weights.std() == pytest.approx(0.005 * 0.8796, rel=0.05)
        assert np.abs(weights).max() <= 0.01 + 1e-6
    assert (b1 == np.float32(0.1)).all()
    assert (b2 == np.float32(0.1)).all()


def test_the_generalised_mean_is_the_mean_for_1_and_the_max_for_many():
    features = np.abs(drawn((2, 3, 4, 5)))
    np.testing.assert_allclose(output(GeM(1.0), features), features.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(output(GeM(99.0), features), features.max((1, 2)), rtol=0.03)
    cubes = np.cbrt((features**3).mean((1, 2)))
    np.testing.assert_allclose(output(GeM(), features), cubes, rtol=1e-5)


def test_netvlad_sums_residuals_by_soft_assignment():
    head, features = NetVLAD(3), drawn((2, 2, 3, 4))
    head.build(features.shape)
    centers = drawn((3, 4), 5)
    head.start_from(centers, sharpness=1.5)
    places = features.reshape(2, 6, 4)
    places = places / np.linalg.norm(places, axis=-1, keepdims=True)
    expected = np.zeros((2, 3, 4))
    for b in range(2):
        for x in places[b]:
            shares = special.softmax([-1.5 * ((x - c) ** 2).sum() for c in centers])
            for k in range(3):
                expected[b, k] += shares[k] * (x - centers[k])
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(output(head, features), expected.reshape(2, 12), atol=1e-5)


def test_mixvpr_mixes_places_then_projects_channels_and_rows():
    head, features = MixVPR(6, 2, depth=1), drawn((2, 2, 3, 4))
    head.build(features.shape)
    weights = {w.path: drawn(w.shape, seed) for seed, w in enumerate(head.weights)}
    for w in head.weights:
        w.assign(weights[w.path])
    gamma, beta, w1, b1, w2, b2, wc, bc, wr, br = (
        weights[w.path]
        for layer in (
            head.norms[0], head.inward[0], head.outward[0], head.across_channels, head.across_places
        )
        for w in layer.weights
    )  # fmt: skip
    expected = np.zeros((2, 6, 2))
    for b in range(2):
        maps = features[b].reshape(6, 4).T  # channels, places
        mean, std = maps.mean(1, keepdims=True), np.sqrt(maps.var(1, keepdims=True) + 1e-5)
        hidden = np.maximum(((maps - mean) / std * gamma + beta) @ w1 + b1, 0)
        maps = maps + hidden @ w2 + b2
        channels = maps.T @ wc + bc  # places, 6
        expected[b] = channels.T @ wr + br
    np.testing.assert_allclose(output(head, features), expected.reshape(2, 12), atol=1e-4)


@pytest.mark.parametrize("size", [1e-20, 1e-7, 1.0, 1e18])
def test_a_descriptor_of_any_size_gets_length_1(size):
    drawn = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    expected = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    np.testing.assert_allclose(output(UnitLength(), drawn * np.float32(size)), expected, atol=1e-6)


def test_an_empty_descriptor_stays_finite():
    np.testing.assert_array_equal(output(UnitLength(), np.zeros((1, 4), np.float32)), 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpatialEmbeddings(0), "num_heads"),
        (lambda: SpatialEmbeddings(8, "min"), "mean, max"),
        (lambda: SpatialEmbeddings()(keras.Input((1, 1, 3))), "2 places"),
        (lambda: SpatialEmbeddings()(keras.Input((None, 1, 3))), "keras.Input"),
        (lambda: GeM(0.0), "power"),
        (lambda: NetVLAD(0), "num_clusters"),
        (lambda: MixVPR(0), "num_channels"),
        (lambda: OffsetHead(0), "num_hidden"),
    ],
)
def test_impossible_heads_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
