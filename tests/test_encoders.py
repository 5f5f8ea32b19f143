"""Encoders: descriptors of length 1, folders that come back, and the published shapes."""

import json

import keras
import numpy as np
import pytest

from crossview.errors import WeightsError
from crossview.nn.encoders import encoder, load_encoder, save_encoder
from crossview.photos import Panorama

# Keras's variables know the array protocol of NumPy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def small(**options):
    return encoder(
        "tiny", width=4, num_heads=2, ground_px=(16, 64), overhead_px=(16, 64), **options
    )


def drawn(made, *, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    rules = made.preprocessing
    return {
        name: rng.integers(0, 256, (batch, *size, 3), dtype=np.uint8)
        for name, size in (("ground", rules.ground_px), ("overhead", rules.overhead_px))
    }


@pytest.fixture(scope="module")
def tiny():
    keras.utils.set_random_seed(0)
    return small()


def test_descriptors_have_length_1(tiny):
    for described in tiny(drawn(tiny)).values():
        assert described.shape == (3, tiny.descriptor_size) == (3, 4 * 6 * 2)
        np.testing.assert_allclose(np.linalg.norm(described, axis=1), 1.0, atol=1e-6)


def test_a_folder_comes_back_with_the_same_descriptors(tiny, tmp_path):
    path = save_encoder(tiny, tmp_path / "model", training={"dataset": "made up"}, scale=12.5)
    content = json.loads(path.read_text())
    assert content["kind"] == "retrieval"
    assert content["training"] == {"dataset": "made up"}
    loaded = load_encoder(tmp_path / "model")
    assert (loaded.scale, loaded.preprocessing) == (12.5, tiny.preprocessing)
    assert loaded.fingerprint == tiny.fingerprint == content["fingerprint"]
    images = drawn(tiny)
    for name, described in loaded(images).items():
        np.testing.assert_array_equal(described, tiny(images)[name])


def test_a_folder_that_is_written_again_holds_one_encoder(tiny, tmp_path):
    keras.utils.set_random_seed(1)
    save_encoder(small(), tmp_path)
    save_encoder(tiny, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert load_encoder(tmp_path).fingerprint == tiny.fingerprint


def test_a_fingerprint_knows_weights_and_options(tiny):
    others = [small(), small(elevation_deg=(-30.0, 30.0))]
    for other in others:
        other.set_weights(tiny.get_weights())
    assert others[0].fingerprint == tiny.fingerprint
    assert others[1].fingerprint != tiny.fingerprint
    others[0].weights[0].assign(others[0].weights[0] + 1e-6)
    assert others[0].fingerprint != tiny.fingerprint


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "no encoder"),
        (lambda folder: (folder / "model.json").write_text("{"), "no description"),
        (lambda folder: weights_of(folder).unlink(), "missing"),
        (lambda folder: weights_of(folder).write_bytes(b"HDF"), "damaged"),
        (lambda folder: edit(folder, kind="columns"), "'columns'"),
        (lambda folder: edit(folder, architecture="huge"), "huge"),
        (lambda folder: edit(folder, fingerprint="0"), "fingerprint"),
    ],
)
def test_damaged_folders_are_refused(tiny, tmp_path, damage, message):
    save_encoder(tiny, tmp_path)
    damage(tmp_path)
    with pytest.raises(WeightsError, match=message):
        load_encoder(tmp_path)


def weights_of(folder):
    return next(folder.glob("*.weights.h5"))


def edit(folder, **values):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_keras_saves_and_loads_an_encoder(tiny, tmp_path):
    tiny.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    assert loaded.fingerprint == tiny.fingerprint


def test_unknown_architectures_and_options_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="tiny"):
        encoder("huge")
    with pytest.raises(ValueError, match=r"no option depth.*width"):
        encoder("tiny", depth=3)


def test_headings_are_described_as_panoramas_of_that_heading(tiny):
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    described = tiny.describe(Panorama(image, 40.0), headings_deg=[0.0, 40.0])
    np.testing.assert_allclose(described[0], tiny.describe(Panorama(image)), atol=1e-6)
    np.testing.assert_allclose(described[1], tiny.describe(Panorama(image, 40.0)), atol=1e-6)
    assert np.abs(described[0] - described[1]).max() > 1e-3


def test_tiles_of_any_size_are_described(tiny):
    tiles = [np.full((side, side, 3), 7 * side, np.uint8) for side in (20, 33)]
    described = tiny.describe_tiles(tiles)
    assert described.shape == (2, tiny.descriptor_size)
    assert described.dtype == np.float32
