"""The units of ESPNetv2 keep Keras's contract and compute what their formulas say."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from scipy import special

from crossview.nn.eesp import (
    EESP,
    ConvNorm,
    ConvNormPReLU,
    DilatedDepthwiseConv2D,
    DilatedPyramid,
    GatedConv,
    NormPReLU,
    PaddedConv2D,
    PyramidPool,
    StridedEESP,
)
from crossview.nn.resampling import (
    AlignedResize,
    HalvedImage,
    aligned_bilinear_weights,
    cell_mean_weights,
)
from crossview.nn.segmentation import CITYSCAPES_CLASSES, CityscapesSegmenter, espnetv2

# Keras's variables know the array protocol of NumPy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# a layer, the shape or shapes of its input, the shape of its output
CONTRACT = {
    "PaddedConv2D": (
        lambda: PaddedConv2D(6, kernel_size=3, strides=2, groups=2),
        (2, 5, 7, 4),
        (2, 3, 4, 6),
    ),
    "DilatedDepthwiseConv2D": (
        lambda: DilatedDepthwiseConv2D(dilation_rate=3, strides=2),
        (2, 5, 8, 4),
        (2, 3, 4, 4),
    ),
    "NormPReLU": (NormPReLU, (2, 3, 4, 5), (2, 3, 4, 5)),
    "ConvNorm": (lambda: ConvNorm(6, groups=2), (2, 3, 4, 4), (2, 3, 4, 6)),
    "ConvNormPReLU": (lambda: ConvNormPReLU(6, kernel_size=3), (2, 3, 4, 5), (2, 3, 4, 6)),
    "DilatedPyramid": (
        lambda: DilatedPyramid(32, max_receptive_px=9),
        (2, 9, 8, 4),
        (2, 9, 8, 32),
    ),
    "EESP": (lambda: EESP(max_receptive_px=7), (2, 9, 8, 16), (2, 9, 8, 16)),
    "StridedEESP": (
        lambda: StridedEESP(20, max_receptive_px=13),
        [(2, 9, 8, 4), (2, 5, 4, 3)],
        (2, 5, 4, 20),
    ),
    "HalvedImage": (HalvedImage, (2, 5, 8, 3), (2, 3, 4, 3)),
    "PyramidPool": (lambda: PyramidPool(6, 2, use_bias=True), (2, 12, 16, 4), (2, 12, 16, 6)),
    "GatedConv": (lambda: GatedConv(6), (2, 5, 4, 4), (2, 5, 4, 6)),
    "AlignedResize": (AlignedResize, [(2, 5, 4, 3), (2, 7, 9, 1)], (2, 7, 9, 3)),
}


def drawn(shape, seed=0):
    if isinstance(shape, list):
        return [drawn(one, seed + k) for k, one in enumerate(shape)]
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def output(layer, features):
    return keras.ops.convert_to_numpy(layer(features))


@pytest.mark.parametrize("name", CONTRACT)
def test_a_layer_makes_the_shape_that_it_announces(name):
    make, input_shape, output_shape = CONTRACT[name]
    layer = make()
    made = output(layer, drawn(input_shape))
    assert made.shape == output_shape
    assert made.dtype == np.float32
    assert layer.compute_output_shape(input_shape) == output_shape
    assert np.isfinite(made).all()


@pytest.mark.parametrize("name", CONTRACT)
def test_a_layer_announces_its_channels_for_images_of_unknown_size(name):
    make, input_shape, output_shape = CONTRACT[name]
    shapes = input_shape if isinstance(input_shape, list) else [input_shape]
    unknown = [keras.Input((None, None, shape[-1])) for shape in shapes]
    made = make()(unknown if isinstance(input_shape, list) else unknown[0])
    assert made.shape == (None, None, None, output_shape[-1])


@pytest.mark.parametrize("name", CONTRACT)
def test_a_layer_made_again_from_its_config_computes_the_same(name):
    make, input_shape, _ = CONTRACT[name]
    layer, features = make(), drawn(input_shape)
    expected = output(layer, features)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(layer)
    assert config["registered_name"] == f"crossview>{name}"
    output(again, features)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(output(again, features), expected)


def convolved_by_hand(features, kernel, *, strides=1, dilation=1, groups=1):
    """Straight from the definition, with symmetric zeros around (rows, cols, channels)."""
    size, _, per_group, filters = kernel.shape
    reach = size // 2 * dilation
    framed = np.pad(features, ((reach, reach), (reach, reach), (0, 0)))
    rows, cols, _ = features.shape
    made = np.zeros((-(-rows // strides), -(-cols // strides), filters))
    for row, col, out in np.ndindex(made.shape):
        first = out // (filters // groups) * per_group
        window = framed[
            row * strides : row * strides + 2 * reach + 1 : dilation,
            col * strides : col * strides + 2 * reach + 1 : dilation,
            first : first + per_group,
        ]
        made[row, col, out] = (window * kernel[..., out]).sum()
    return made


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_padded_convolution_is_its_definition(kernel_size, strides, groups):
    layer = PaddedConv2D(4, kernel_size=kernel_size, strides=strides, groups=groups)
    features = drawn((1, 6, 5, 4))
    made = output(layer, features)
    kernel = layer.get_weights()[0]
    assert kernel.shape == (kernel_size, kernel_size, 4 // groups, 4)
    expected = convolved_by_hand(features[0], kernel, strides=strides, groups=groups)
    np.testing.assert_allclose(made[0], expected, atol=1e-5)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_a_dilated_depthwise_convolution_is_its_definition(dilation, strides):
    layer = DilatedDepthwiseConv2D(dilation_rate=dilation, strides=strides)
    features = drawn((1, 9, 8, 3))
    made = output(layer, features)
    kernel = layer.get_weights()[0].transpose(0, 1, 3, 2)
    expected = convolved_by_hand(features[0], kernel, strides=strides, dilation=dilation, groups=3)
    np.testing.assert_allclose(made[0], expected, atol=1e-5)


def test_zeros_beyond_the_border_count_in_a_halved_image():
    halved = output(HalvedImage(), np.full((1, 4, 4, 1), 9.0, np.float32))
    np.testing.assert_allclose(halved[0, :, :, 0], [[4, 6], [6, 9]], rtol=1e-6)


@pytest.mark.parametrize(
    ("max_receptive_px", "rates"),
    [(13, [1, 2, 3, 4]), (9, [1, 2, 3, 4]), (7, [1, 1, 2, 3]), (3, [1, 1, 1, 1])],
)
def test_branches_that_would_see_too_far_see_three_pixels(max_receptive_px, rates):
    pyramid = DilatedPyramid(16, max_receptive_px=max_receptive_px)
    assert [branch.dilation_rate for branch in pyramid.branches] == rates


def test_a_unit_without_a_pyramid_is_a_rectified_shortcut():
    unit = EESP(max_receptive_px=7)
    features = drawn((1, 6, 6, 16))
    unit(features)
    unit.pyramid.expand.norm.gamma.assign(np.zeros(16))
    expected = np.where(features > 0, features, 0.25 * features)
    np.testing.assert_allclose(output(unit, features), expected, atol=1e-6)


def test_a_strided_unit_starts_with_the_averaged_features():
    unit = StridedEESP(20, max_receptive_px=9)
    features, image = drawn([(1, 6, 6, 4), (1, 3, 3, 3)])
    unit([features, image])
    unit.reinforce.norm.gamma.assign(np.zeros(20))
    made = output(unit, [features, image])[..., :4]
    averaged = output(HalvedImage(), features)
    np.testing.assert_allclose(made, np.where(averaged > 0, averaged, 0.25 * averaged), atol=1e-6)


def test_a_gate_of_zero_halves_the_convolved_features():
    layer = GatedConv(4)
    features = drawn((1, 6, 6, 8))
    layer(features)
    layer.gate.kernel.assign(np.zeros(layer.gate.kernel.shape))
    assert layer.convolve.groups == 4
    expected = 0.5 * output(layer.convolve, features)
    np.testing.assert_allclose(output(layer, features), expected, atol=1e-6)


def test_aligned_corners_keep_the_first_and_last_value():
    assert aligned_bilinear_weights(4, 2) @ [0, 3] == pytest.approx([0, 1, 2, 3])
    assert aligned_bilinear_weights(3, 5) @ [0, 1, 2, 3, 4] == pytest.approx([0, 2, 4])
    assert aligned_bilinear_weights(1, 5) @ [7, 1, 2, 3, 4] == pytest.approx([7])
    assert aligned_bilinear_weights(3, 1) @ [7] == pytest.approx([7, 7, 7])


def test_cell_means_take_every_cell_that_is_touched():
    assert cell_mean_weights(2, 4) @ [1, 3, 5, 9] == pytest.approx([2, 7])
    assert cell_mean_weights(2, 3) @ [1, 3, 5] == pytest.approx([2, 4])
    assert cell_mean_weights(3, 2) @ [1, 3] == pytest.approx([1, 2, 3])
    assert cell_mean_weights(2, 7) @ np.arange(7) == pytest.approx([1.5, 4.5])


@pytest.mark.parametrize("size", [(16, 18), (4, 3), (16, 3), (8, 6)])
def test_resizing_is_the_weights_along_rows_and_columns(size):
    features = drawn((2, 8, 6, 3))
    made = output(AlignedResize(), [features, np.zeros((2, *size, 1), np.float32)])
    rows, cols = aligned_bilinear_weights(size[0], 8), aligned_bilinear_weights(size[1], 6)
    expected = np.einsum("ri,cj,bijk->brck", rows, cols, features)
    np.testing.assert_allclose(made, expected, atol=1e-5)


def pooled_by_hand(pool, projected):
    """What the pool joins before it merges, (batch, rows, cols, view and channel)."""
    rows, cols = projected.shape[1:3]
    seen = []
    for scale, view in zip((2.0, 1.5, 1.0, 0.5, 0.1), pool.views, strict=True):
        size = [max(int(np.ceil(side * scale)), 5) for side in (rows, cols)]
        there, back = (aligned_bilinear_weights, cell_mean_weights)[:: 1 if scale > 1 else -1]
        scaled = np.einsum(
            "ri,cj,bijk->brck", there(size[0], rows), there(size[1], cols), projected
        )
        viewed = output(view, scaled.astype(np.float32))
        seen.append(np.einsum("ri,cj,bijk->brck", back(rows, size[0]), back(cols, size[1]), viewed))
    return np.concatenate(seen, axis=-1)


def test_a_pyramid_pool_looks_at_five_sizes_and_merges_channel_by_channel():
    pool = PyramidPool(3, 2)
    features = drawn((1, 12, 64, 4))
    made = output(pool, features)
    joined = pooled_by_hand(pool, output(pool.project, features)).astype(np.float32)
    normalised = output(pool.normalise, joined)
    order = [view * 2 + channel for channel in range(2) for view in range(5)]
    expected = output(pool.expand, output(pool.merge, normalised[..., order]))
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PaddedConv2D(5, groups=2), "filters must be a multiple of groups, got 5 and 2"),
        (lambda: PaddedConv2D(4, kernel_size=2), "kernel_size must be odd, got 2"),
        (
            lambda: PaddedConv2D(4, groups=4)(drawn((1, 4, 4, 6))),
            "6 input channels are no multiple",
        ),
        (lambda: DilatedDepthwiseConv2D(dilation_rate=0), "must be 1 or more, got 0 and 1"),
        (lambda: DilatedPyramid(8, max_receptive_px=9), "multiple of 16, got 8"),
        (lambda: espnetv2(scale=3.0), r"one of 0\.5, 1\.0, 1\.25, 1\.5, 2\.0, got 3\.0"),
        (lambda: espnetv2(num_classes=1), "at least 2, got 1"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_size_that_is_not_known_when_tracing_says_what_to_do():
    resize = AlignedResize()
    with pytest.raises(ValueError, match=r"got None x None.*keras\.Input\(\(rows, cols, 3\)\)"):
        resize.call([keras.Input((None, None, 2)), keras.Input((4, 4, 1))])


# The whole network


@pytest.fixture(scope="module")
def small_network():
    keras.utils.set_random_seed(0)
    return espnetv2(scale=0.5)


@pytest.fixture(scope="module")
def segmenter(small_network):
    return CityscapesSegmenter(small_network, width_px=64)


@pytest.mark.parametrize("size", [(32, 48), (40, 33)])
def test_logits_have_the_size_of_the_image(small_network, size):
    assert output(small_network, drawn((2, *size, 3))).shape == (2, *size, 20)


def test_a_saved_network_comes_back_whole(tmp_path):
    network = espnetv2(scale=0.5, num_classes=3)
    network.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")
    image = drawn((1, 32, 32, 3))
    np.testing.assert_array_equal(output(again, image), output(network, image))


def test_a_training_step_moves_every_trainable_weight():
    keras.utils.set_random_seed(0)
    network = espnetv2(scale=0.5, num_classes=3)
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss_function, run_eagerly=True)  # quicker than compiling one step
    before = [weight.numpy() for weight in network.trainable_weights]
    labels = np.random.default_rng(0).integers(0, 3, (2, 32, 32))
    loss = network.train_on_batch(255 * drawn((2, 32, 32, 3)), labels)
    assert np.isfinite(loss)
    after = [weight.numpy() for weight in network.trainable_weights]
    still = [
        weight.path
        for weight, old, new in zip(network.trainable_weights, before, after, strict=True)
        if np.array_equal(old, new)
    ]
    assert still == []


# The segmenter


def test_there_are_nineteen_classes_in_train_id_order_and_background():
    assert len(set(CITYSCAPES_CLASSES)) == 20
    assert [CITYSCAPES_CLASSES.index(name) for name in ("road", "building", "sky", "car")] == [
        0,
        2,
        10,
        13,
    ]
    assert CITYSCAPES_CLASSES[-1] == "background"


def photo(rows, cols):
    return np.random.default_rng(0).integers(0, 256, (rows, cols, 3), dtype=np.uint8)


def test_probabilities_are_the_softmax_of_the_logits(small_network, segmenter):
    image = photo(32, 64)
    logits = output(small_network, image[None].astype(np.float32))[0]
    probabilities = segmenter(image)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, special.softmax(logits, axis=-1), atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("photo_size", "network_size"),
    [((48, 96), (32, 64)), ((300, 400), (48, 64)), ((96, 48), (128, 64)), ((1, 400), (16, 64))],
)
def test_a_photo_is_seen_at_its_aspect_in_multiples_of_sixteen(segmenter, photo_size, network_size):
    assert segmenter.network_size_px(*photo_size) == network_size


def test_a_photo_of_any_size_gets_probabilities_at_the_networks_size(segmenter):
    assert segmenter(photo(48, 96)).shape == (32, 64, 20)


def test_sizes_can_alternate(segmenter):
    first = segmenter(photo(32, 64))
    segmenter(photo(16, 64))
    np.testing.assert_array_equal(segmenter(photo(32, 64)), first)


@pytest.mark.parametrize(
    "image",
    [photo(8, 8).astype(np.float32), photo(8, 8)[..., 0], photo(8, 8)[..., :2], photo(0, 8)],
    ids=["floats", "grey", "two channels", "no rows"],
)
def test_what_is_no_rgb_photo_is_refused(segmenter, image):
    with pytest.raises(ValueError, match=r"\(rows, cols, 3\) and dtype uint8, got shape"):
        segmenter(image)


def test_a_network_with_other_outputs_is_refused():
    with pytest.raises(ValueError, match="3 outputs, Cityscapes has 20 classes"):
        CityscapesSegmenter(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU()]))


@pytest.mark.parametrize("width_px", [0, 100, -16])
def test_a_width_that_the_strides_do_not_divide_is_refused(small_network, width_px):
    with pytest.raises(ValueError, match=f"multiple of 16, got {width_px}"):
        CityscapesSegmenter(small_network, width_px=width_px)


@pytest.mark.parametrize("missing", ["keras", "tensorflow"])
def test_without_a_backend_one_line_says_what_to_install(missing):
    code = f"""
import os, sys
os.environ["KERAS_BACKEND"] = "tensorflow"
sys.modules[{missing!r}] = None
from crossview.errors import MissingBackendError
try:
    import crossview.nn.segmentation
except MissingBackendError as error:
    sys.exit(str(error))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert "pip install 'crossview[cpu]'" in lines[-1]
    assert sum("crossview[cpu]" in line for line in lines) == 1
