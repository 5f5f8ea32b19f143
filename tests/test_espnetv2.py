"""ESPNetv2 with given weights computes what the published code computes, on every backend."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from fakes.espnetv2_weights import drawn_image, drawn_tensor
from fakes.torch_files import state_dict, write_zip
from PIL import Image, ImageOps

from crossview.errors import UnsafePickleError, WeightsError
from crossview.nn.checkpoints.espnetv2 import (
    assign_published,
    load_espnetv2,
    published_tensors,
)
from crossview.nn.segmentation import CITYSCAPES_CLASSES, espnetv2

# Keras's variables know the array protocol of NumPy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TESTS = Path(__file__).parent

# Logits of the published code in float64 (PyTorch 2.13) with the weights of drawn_tensor at scale
# 0.5 for drawn_image(64, 96), by row and column.
PUBLISHED_LOGITS = {
    (0, 0): [
        *(0.84718, 0.67873, 1.15756, -0.45685, -0.85506, -0.14335, -0.63207, 0.42488, 0.74752),
        *(-0.16949, 0.06944, -0.67442, 0.18151, -0.35872, 0.17193, 0.51142, 0.77465, 0.35648),
        *(1.12219, -0.81146),
    ],
    (13, 71): [
        *(0.38383, -0.66639, -4.18521, -5.42449, -0.49474, 6.17848, -6.28958, -1.85172, 5.6389),
        *(2.06833, 11.88672, 2.12288, 2.32372, 2.45403, 6.57862, 4.46455, 5.91647, 1.07138),
        *(-8.59756, 5.11097),
    ],
    (63, 95): [
        *(0.45179, 0.83203, -1.15261, -2.81792, 0.68602, 1.18499, -1.4938, 0.33108, 1.01951),
        *(1.20858, 1.17412, -0.21296, 0.02316, 0.06236, 2.36851, 1.36509, 0.20168, 0.48212),
        *(-1.31486, -0.67888),
    ],
}
PUBLISHED_MEAN, PUBLISHED_STD = 1.12153, 4.72165

# Pixels of each class by the published code, with the published weights, on photos turned upright
# and resized to 1024 x 512 by Pillow's bilinear filter.
PUBLISHED_PIXELS = {
    "paris front": {
        "road": 88061,
        "sidewalk": 25854,
        "building": 356656,
        "fence": 3020,
        "pole": 1309,
        "traffic sign": 8,
        "sky": 34757,
        "person": 3227,
        "car": 9745,
        "bus": 179,
        "train": 1393,
        "motorcycle": 23,
        "bicycle": 56,
    },
    "paris side": {
        "road": 4997,
        "sidewalk": 15438,
        "building": 499777,
        "wall": 23,
        "fence": 10,
        "pole": 429,
        "traffic sign": 1,
        "sky": 9,
        "person": 728,
        "car": 25,
        "train": 2851,
    },
    "vancouver": {
        "road": 181525,
        "sidewalk": 13231,
        "building": 261586,
        "pole": 1,
        "traffic light": 332,
        "traffic sign": 4369,
        "vegetation": 5431,
        "sky": 3332,
        "person": 27126,
        "car": 7359,
        "truck": 18738,
        "train": 124,
        "motorcycle": 1134,
    },
}


def drawn_network(scale=0.5):
    network = espnetv2(scale=scale)
    arrays = {
        tensor.name: drawn_tensor(tensor.name, tensor.shape)
        for tensor in published_tensors(network)
    }
    assign_published(network, arrays, source="drawn")
    return network


def sized(network, rows, cols):
    image = keras.Input((rows, cols, 3))
    return keras.Model(image, network(image))


def logits_of_drawn_network():
    return sized(drawn_network(), 64, 96).predict_on_batch(drawn_image(64, 96))


@pytest.fixture(scope="module")
def drawn_logits():
    return logits_of_drawn_network()


def test_logits_are_those_of_the_published_code(drawn_logits):
    for (row, col), expected in PUBLISHED_LOGITS.items():
        np.testing.assert_allclose(drawn_logits[0, row, col], expected, atol=2e-4)
    assert drawn_logits.mean() == pytest.approx(PUBLISHED_MEAN, abs=1e-4)
    assert drawn_logits.std() == pytest.approx(PUBLISHED_STD, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_another_backend_computes_the_same_logits(tmp_path, drawn_logits, backend):
    if backend == keras.backend.backend():
        pytest.skip("this is the backend of the session")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    # all weights are given: drawing others first takes JAX a compilation for each
    code = """
import sys
import keras, numpy as np
keras.initializers.VarianceScaling.__call__ = lambda self, shape, dtype=None: np.zeros(shape, dtype)
from test_espnetv2 import logits_of_drawn_network
assert keras.backend.backend() == sys.argv[1]
np.save(sys.argv[2], logits_of_drawn_network())
"""
    subprocess.run(
        [sys.executable, "-c", code, backend, str(tmp_path / "logits.npy")],
        check=True,
        capture_output=True,
        cwd=TESTS,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
    )
    other = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(other, drawn_logits, atol=1e-4)


# The checkpoint


@pytest.fixture(scope="module")
def drawn_arrays():
    return {
        tensor.name: drawn_tensor(tensor.name, tensor.shape)
        for tensor in published_tensors(espnetv2())
    }


def test_the_published_file_has_526_tensors_and_every_weight_takes_one():
    network = espnetv2()
    tensors = list(published_tensors(network))
    assert len({tensor.name for tensor in tensors}) == len(tensors) == 526
    taken = [id(tensor.weight) for tensor in tensors if tensor.weight is not None]
    assert sorted(taken) == sorted(map(id, network.weights))
    left = [tensor.name for tensor in tensors if tensor.weight is None]
    assert sum(name.endswith(".num_batches_tracked") for name in left) == 67
    assert [name for name in left if name.endswith("module_act.weight")] == [
        f"base_net.level{level}_0.eesp.module_act.weight" for level in (2, 3, 4)
    ]
    assert len(left) == 67 + 3


def test_a_file_of_the_published_layout_loads(tmp_path, drawn_arrays):
    write_zip(tmp_path / "weights.pth", state_dict(drawn_arrays))
    network = load_espnetv2(tmp_path / "weights.pth")
    stem = network.get_layer("stem")
    published = drawn_arrays["base_net.level1.conv.weight"]
    # published (filters, channels, rows, cols), ours (rows, cols, channels, filters)
    assert stem.kernel[2, 0, 1, 7] == published[7, 1, 2, 0]
    assert stem.norm.moving_variance[3] == drawn_arrays["base_net.level1.bn.running_var"][3]


def test_tensors_that_do_not_fit_are_listed_and_nothing_is_assigned(drawn_arrays):
    arrays = dict(drawn_arrays)
    arrays["base_net.classifier.weight"] = arrays.pop("bu_br_l2.0.num_batches_tracked")
    arrays["bu_br_l3.1.weight"] = np.zeros(49, np.float32)
    network = espnetv2()
    before = network.get_weights()
    with pytest.raises(WeightsError) as caught:
        assign_published(network, arrays, source="weights.pth")
    assert str(caught.value) == (
        "weights.pth does not hold the 526 tensors of this ESPNetv2. "
        "Missing (1): bu_br_l2.0.num_batches_tracked. "
        "Unexpected (1): base_net.classifier.weight. "
        "Of another shape (1): bu_br_l3.1.weight is (49,), expected (48,). "
        "Pass the published espnetv2_s_2.0_city_1024x512.pth."
    )
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_of_another_scale_are_refused_with_a_short_list(tmp_path):
    arrays = {
        tensor.name: drawn_tensor(tensor.name, tensor.shape)
        for tensor in published_tensors(espnetv2(scale=0.5))
    }
    write_zip(tmp_path / "weights.pth", state_dict(arrays))
    with pytest.raises(WeightsError, match=r"Of another shape \(\d+\): .* and \d+ more") as caught:
        load_espnetv2(tmp_path / "weights.pth")
    assert len(str(caught.value)) < 700


def test_a_corrupt_weights_file_says_what_to_do(tmp_path, drawn_arrays):
    path = tmp_path / "weights.pth"
    write_zip(path, state_dict(drawn_arrays))
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"weights\.pth is damaged.*Download it again"):
        load_espnetv2(path)


def test_a_malicious_weights_file_is_refused_by_name(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    with pytest.raises(UnsafePickleError, match=r"asks for os\.system"):
        load_espnetv2(path)


@pytest.fixture(scope="module")
def published_network(data_dir):
    network = load_espnetv2(data_dir / "weights" / "espnetv2_s_2.0_city_1024x512.pth")
    return sized(network, 512, 1024)


@pytest.mark.parametrize("name", PUBLISHED_PIXELS)
def test_real_photos_get_the_classes_of_the_published_code(data_dir, published_network, name):
    paris = "paris_itowns/images/140616/Paris-140616_0740-{}-00001_0000490.jpg"
    file, turned_deg = {
        "paris front": (paris.format(301), 180),  # these cameras hang upside down
        "paris side": (paris.format(302), 180),
        "vancouver": ("photos_vancouver/query_vancouver_1.JPG", 0),
    }[name]
    photo = ImageOps.exif_transpose(Image.open(data_dir / file)).convert("RGB").rotate(turned_deg)
    image = np.asarray(photo.resize((1024, 512), Image.Resampling.BILINEAR), np.float32)
    labels = published_network.predict_on_batch(image[None])[0].argmax(axis=-1)
    pixels = np.bincount(labels.ravel(), minlength=20)
    expected = [PUBLISHED_PIXELS[name].get(label, 0) for label in CITYSCAPES_CLASSES]
    assert sum(expected) == labels.size
    # JPEG decoders and CPUs round differently: a thousandth of the pixels may change sides
    np.testing.assert_allclose(pixels, expected, atol=labels.size / 1000)


def test_a_damaged_stream_without_checksums_is_refused_or_named(data_dir, tmp_path, caplog):
    """The published file has no checksums, so flipped bytes can leave numbers in range."""
    path = data_dir / "weights" / "espnetv2_s_2.0_city_1024x512.pth"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0x01
    (tmp_path / "flipped.pth").write_bytes(content)
    with caplog.at_level("WARNING"), contextlib.suppress(WeightsError):
        load_espnetv2(tmp_path / "flipped.pth")
        assert "is not the file that the authors published" in caplog.text
    content[middle : middle + 4000] = b"\x7f" * 4000  # 3.4e38 as float32
    (tmp_path / "wild.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        load_espnetv2(tmp_path / "wild.pth")


def test_the_published_file_loads_without_a_warning(data_dir, caplog):
    with caplog.at_level("WARNING"):
        load_espnetv2(data_dir / "weights" / "espnetv2_s_2.0_city_1024x512.pth")
    assert caplog.text == ""
