"""The polar transform as a layer: the same as for files, its gradient, and Keras's contract."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from crossview.nn.polar import PolarTransform
from crossview.polar import CONVENTIONS, polar_tile

# Keras's variables know the array protocol of NumPy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def polar_of(layer, tiles):
    return ops.convert_to_numpy(layer(tiles))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_layer_computes_what_files_get(convention):
    options = {"heading_deg": 20.0, "convention": convention}
    layer = PolarTransform(9, 30, **options)
    tiles = drawn(2, 33, 33, 4)
    expected = [polar_tile(tile.astype(float), 9, 30, **options) for tile in tiles]
    np.testing.assert_allclose(polar_of(layer, tiles), expected, atol=1e-6)


def test_bytes_become_numbers_and_are_not_rounded():
    tiles = (255 * drawn(1, 20, 20, 3)).astype(np.uint8)
    found = polar_of(PolarTransform(9, 30), tiles)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], polar_tile(tiles[0].astype(float), 9, 30), atol=1e-4)
    assert np.abs(found - np.rint(found)).max() > 0.4


class PolarOfATile(keras.Model):
    """A tile that is learned: a step of gradient descent of rate 1 is its gradient."""

    def __init__(self, tile, layer):
        super().__init__()
        self.tile = self.add_weight(shape=tile.shape, initializer="zeros")
        self.tile.assign(tile)
        self.polar = layer

    def call(self, factor):
        return ops.sum(ops.sin(3 * self.polar(self.tile)) * factor, axis=(1, 2, 3))


@pytest.mark.parametrize("size_px", [5, 40])
def test_its_gradient_is_that_of_finite_differences(size_px):
    """Of far fewer and of far more pixels than the polar tile has."""
    layer = PolarTransform(11, 36, heading_deg=5)
    tile, factor = drawn(1, size_px, size_px, 2), drawn(1, 11, 36, 2, seed=1)

    def loss(tile):
        polar = polar_tile(tile[0], 11, 36, heading_deg=5)
        return (np.sin(3 * polar) * factor[0]).sum()

    expected, exact = np.zeros_like(tile), tile.astype(float)
    for at in np.ndindex(tile.shape):
        step = np.zeros(tile.shape)
        step[at] = 1e-5
        expected[at] = (loss(exact + step) - loss(exact - step)) / 2e-5
    model = PolarOfATile(tile, layer)
    model.compile(keras.optimizers.SGD(1.0), loss=lambda _, value: value)
    model.train_on_batch(factor, np.zeros(1))
    found = tile - ops.convert_to_numpy(model.tile)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_model_survives_saving_with_shapes_known_before(tmp_path):
    tiles = keras.Input((24, 24, 3))
    layer = PolarTransform(8, 32, heading_deg=90.0, convention="safa")
    assert layer.compute_output_shape((None, 24, 24, 3)) == (None, 8, 32, 3)
    model = keras.Model(tiles, keras.layers.Conv2D(2, 3)(layer(tiles)))
    assert model.output_shape == (None, 6, 30, 2)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict_on_batch(drawn(2, 24, 24, 3)), model.predict_on_batch(drawn(2, 24, 24, 3))
    )
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    assert config["registered_name"] == "crossview>PolarTransform"


def test_it_has_no_weights_and_keeps_the_precision_that_it_is_given():
    layer = PolarTransform(8, 32, dtype="mixed_bfloat16")
    found = layer(drawn(1, 24, 24, 3))
    assert layer.weights == []
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    exact = polar_tile(drawn(1, 24, 24, 3)[0], 8, 32)
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.cast(found, "float32"))[0], exact, atol=0.02
    )


def test_what_is_not_square_or_of_unknown_size_is_refused():
    for shape in ((24, 20, 3), (None, None, 3)):
        with pytest.raises(ValueError, match=r"keras\.Input\(\(size, size, channels\)\)"):
            PolarTransform(8, 32)(keras.Input(shape))
    with pytest.raises(ValueError, match="'polar'"):
        PolarTransform(8, 32, convention="polar")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_another_backend_computes_the_same(backend):
    if backend == keras.backend.backend():
        pytest.skip("this is the backend of the session")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-k", "not another_backend"],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
