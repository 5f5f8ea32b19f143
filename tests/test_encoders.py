"""Encoders: the published networks, descriptors of length 1, and folders that come back."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from fakes import literal_networks
from keras import ops
from scipy import special

from crossview.errors import WeightsError
from crossview.nn import architectures
from crossview.nn.encoders import encoder, load_encoder, save_encoder
from crossview.nn.losses import contrastive_loss
from crossview.nn.trainer import PairTrainer
from crossview.photos import Panorama

# Keras's variables know the array protocol of NumPy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


TESTS = Path(__file__).parent


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


def test_an_encoder_that_is_older_than_an_option_is_still_itself(tiny, tmp_path, monkeypatch):
    save_encoder(tiny, tmp_path)

    def newer(preprocessing, *, width=16, num_heads=8, newest=0):
        return architectures.tiny(preprocessing, width=width, num_heads=num_heads)

    monkeypatch.setitem(
        architectures.ARCHITECTURES,
        "tiny",
        replace(architectures.ARCHITECTURES["tiny"], make=newer),
    )
    assert "newest" in small().options
    assert load_encoder(tmp_path).fingerprint == tiny.fingerprint


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


# ------------------------------------------------------------------------- published networks

# ground and overhead sizes, places of both heads, parameters of both heads
SAFA_SHAPES = [
    ({}, (80, 80), (52_160, 52_160)),
    ({"overhead_px": (256, 256), "polar": None}, (80, 64), (52_160, 33_536)),
    (
        {"ground_px": (154, 231), "overhead_px": (256, 256), "polar": None, "fov_deg": 60.0},
        (40, 64),
        (13_280, 33_536),
    ),
    (
        {"ground_px": (320, 640), "overhead_px": (320, 320), "polar": None},
        (200, 100),
        (322_400, 81_200),
    ),
]
VGG16_PARAMETERS = 14_714_688


@pytest.mark.parametrize(("options", "places", "parameters"), SAFA_SHAPES)
def test_safa_has_the_published_shapes(options, places, parameters):
    made = encoder("safa", **options)
    for branch, num_places, count in zip(
        (made.ground, made.overhead), places, parameters, strict=True
    ):
        head = branch.get_layer("spatial")
        assert head.weights1.shape == (num_places, num_places // 2, 8)
        assert head.count_params() == count
        assert branch.count_params() == VGG16_PARAMETERS + count
        assert branch.output_shape == (None, 4096)
    if not options:
        assert made.count_params() == 29_533_696


def test_safa_drops_the_outputs_of_six_convolutions():
    layers = encoder("safa", dropout=0.2).ground.layers
    drops = [i for i, layer in enumerate(layers) if isinstance(layer, keras.layers.Dropout)]
    assert {layers[i].rate for i in drops} == {0.2}
    assert [layers[i - 1].name for i in drops] == [
        f"block{block}_conv{i}" for block in (4, 5) for i in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("size", "reduce"),
    [
        ((36, 52), "mean"),
        ((36, 52), "max"),
        pytest.param((112, 616), "mean", marks=pytest.mark.slow),
    ],
)
def test_safa_is_its_literal_construction(size, reduce):
    """Odd sizes after every pooling; weights drawn by name, far from 0 in the head."""
    made = encoder("safa", ground_px=size, overhead_px=size, channel_reduce=reduce)
    literal_networks.give(made)
    images = drawn(made, batch=1)
    for name, described in made.predict_on_batch(images).items():
        literal = literal_networks.safa(images[name][0], name, reduce=getattr(np, reduce))
        np.testing.assert_allclose(described[0], literal, atol=1e-5)


def test_activations_are_the_features_that_the_head_takes(tiny):
    described = tiny(drawn(tiny))
    for side, images in drawn(tiny).items():
        features = tiny.activations(side, images)
        head = next(each for each in getattr(tiny, side).layers if len(each.output.shape) == 2)
        sums = ops.convert_to_numpy(head(ops.convert_to_tensor(features)))
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        np.testing.assert_allclose(sums / lengths, described[side], atol=1e-5)


def test_vigor_is_safa_with_the_max_and_says_where_the_camera_stood():
    made = encoder("vigor", ground_px=(36, 52), overhead_px=(52, 52))
    literal_networks.give(made)
    kernel1 = literal_networks.drawn("offset/1/kernel", (8192, 512))
    kernel2 = literal_networks.drawn("offset/2/kernel", (512, 2))
    for layer, kernel in ((made.offset.hidden, kernel1), (made.offset.offset, kernel2)):
        layer.set_weights([kernel, np.full(kernel.shape[1], 0.3)])
    images = drawn(made, batch=1)
    literal = {
        name: literal_networks.safa_sums(images[name][0], name, reduce=np.max) for name in images
    }
    found = made.predict_on_batch(images)
    for name, sums in literal.items():
        np.testing.assert_allclose(found[name][0], sums / np.linalg.norm(sums), atol=1e-5)
    both = np.concatenate([literal["overhead"], literal["ground"]])
    offset = np.maximum(both @ kernel1 + 0.3, 0) @ kernel2 + 0.3
    np.testing.assert_allclose(found["offset"][0], offset, rtol=1e-4)


def test_dsm_is_its_literal_construction():
    """A field of view of 270 degrees: 12 of 16 columns, in the middle of the descriptor."""
    made = encoder("dsm", ground_px=(64, 96), overhead_px=(64, 128), fov_deg=270.0)
    literal_networks.give(made)
    images = drawn(made, batch=1)
    found = made.predict_on_batch(images)
    assert (made.map_shape, made.seen_columns) == ((2, 16, 16), slice(2, 14))
    for name in ("ground", "overhead"):
        literal = literal_networks.dsm(images[name][0], name, circular=name == "overhead")
        columns = made.seen_columns if name == "ground" else slice(None)
        seen = found[name].reshape(made.map_shape)[:, columns]
        np.testing.assert_allclose(seen, literal, atol=1e-5)
    unseen = np.delete(found["ground"].reshape(made.map_shape), made.seen_columns, axis=1)
    assert (unseen == 0).all()


@pytest.mark.parametrize(("fov_deg", "columns"), [(360.0, 64), (180.0, 32), (90.0, 16), (70.0, 13)])
def test_dsm_has_the_published_shapes(fov_deg, columns):
    made = encoder("dsm", fov_deg=fov_deg, frozen_blocks=3)
    assert made.preprocessing.ground_px == (128, int(fov_deg / 360 * 512))
    assert made.map_shape == (4, 64, 16)
    assert made.seen_columns.stop - made.seen_columns.start == columns
    assert made.descriptor_size == 4096
    frozen = {layer.name for layer in made.ground.layers if layer.weights and not layer.trainable}
    assert frozen == {f"block{b}_conv{i}" for b, i in ((1, 1), (1, 2), (2, 1), (2, 2))} | {
        f"block3_conv{i}" for i in (1, 2, 3)
    }


@pytest.mark.parametrize("fov_deg", [360.0, 180.0])
def test_dsm_finds_where_a_query_looks(fov_deg):
    """The ground image is the overhead image, turned and cut; the branches have equal weights."""
    keras.utils.set_random_seed(0)
    size = (32, int(fov_deg / 360 * 256))
    made = encoder("dsm", ground_px=size, overhead_px=(32, 256), fov_deg=fov_deg)
    made.ground.set_weights(made.overhead.get_weights())
    overhead = np.random.default_rng(0).integers(0, 256, (3, 32, 256, 3), dtype=np.uint8)
    headings_deg = np.array([0.0, 90.0, 292.5])
    first = (256 - size[1]) // 2
    ground = np.stack(
        [
            np.roll(tile, -round(heading / 360 * 256), axis=1)[:, first : first + size[1]]
            for tile, heading in zip(overhead, headings_deg, strict=True)
        ]
    )
    described = made.predict_on_batch({"ground": ground, "overhead": overhead})
    found = made.headings_deg(described["overhead"], described["ground"])
    np.testing.assert_allclose(np.diag(found), headings_deg)
    alike = np.asarray(made.similarities(described["overhead"], described["ground"]))
    np.testing.assert_array_equal(alike.argmax(axis=0), [0, 1, 2])
    # what a gallery sees: a query turned to its heading is nearest there
    turned = made.describe(Panorama(np.zeros((8, 16, 3), np.uint8)), [0.0, 90.0])
    maps = turned.reshape(2, *made.map_shape)
    np.testing.assert_array_equal(maps[1], np.roll(maps[0], made.map_shape[1] // 4, axis=1))


def test_dsm_needs_columns_of_azimuth():
    with pytest.raises(ValueError, match="polar"):
        encoder("dsm", polar=None)


@pytest.mark.slow
def test_convnext_shares_one_network_between_images_of_two_sizes():
    made = encoder("convnext", size="Tiny", ground_px=(64, 128), overhead_px=(96, 96))
    # as Keras counts it without its classifier
    assert made.count_params() == made.ground.count_params() == 27_820_128
    assert [w.path for w in made.ground.weights] == [w.path for w in made.overhead.weights]
    for described in made.predict_on_batch(drawn(made, batch=1)).values():
        assert described.shape == (1, 768)
        np.testing.assert_allclose(np.linalg.norm(described), 1.0, atol=1e-5)


# ------------------------------------------------------------------ trunks of keras.applications


def with_trunk(**options):
    sizes = {"ground_px": (32, 64), "overhead_px": (32, 64)}
    return encoder("trunk", **{"trunk": "MobileNet", "stride": 8, **sizes, **options})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "options", "size"),
    [
        ("spe", {"num_heads": 2}, 512),
        ("gem", None, 256),
        ("average", None, 256),
        ("netvlad", {"num_clusters": 3}, 768),
        ("mixvpr", {"num_channels": 10, "num_rows": 3}, 30),
    ],
)
def test_a_trunk_has_any_head(head, options, size):
    made = with_trunk(head=head, head_options=options, shared=True)
    assert made.ground is made.overhead
    for described in made.predict_on_batch(drawn(made, batch=2)).values():
        assert described.shape == (2, size)
        np.testing.assert_allclose(np.linalg.norm(described, axis=1), 1.0, atol=1e-5)


@pytest.mark.slow
def test_trunks_share_weights_or_do_not():
    apart = with_trunk()
    assert apart.count_params() == 2 * apart.ground.count_params()
    together = with_trunk(shared=True, circular=False, overhead_px=(48, 48), polar=None)
    assert together.count_params() == together.ground.count_params() == apart.ground.count_params()
    shapes = {side: together.activations(side, x).shape for side, x in drawn(together).items()}
    assert shapes == {"ground": (3, 4, 8, 256), "overhead": (3, 6, 6, 256)}


def test_imagenet_weights_come_through_keras_applications(tmp_path, monkeypatch):
    """The download host is asked for by keras.applications; here a file of ours answers."""
    theirs = keras.applications.VGG16(include_top=False, weights=None)
    path = tmp_path / "vgg16.weights.h5"
    theirs.save_weights(path)
    asked = []
    monkeypatch.setattr(
        "keras.src.applications.vgg16.file_utils.get_file",
        lambda name, origin, **_: asked.append(origin) or str(path),
    )
    made = encoder("safa", ground_px=(32, 64), overhead_px=(32, 64), weights="imagenet")
    assert len(asked) == 2
    assert all("vgg16" in origin and "notop" in origin for origin in asked)
    for branch in (made.ground, made.overhead):
        for name in ("block1_conv1", "block5_conv3"):
            for ours, expected in zip(
                branch.get_layer(name).get_weights(),
                theirs.get_layer(name).get_weights(),
                strict=True,
            ):
                np.testing.assert_array_equal(ours, expected)
    assert "weights" not in made.options


@pytest.mark.slow
def test_a_normalisation_with_weights_is_that_of_keras_and_is_stored(tmp_path, monkeypatch):
    """EfficientNet's is followed by a factor only where ImageNet's weights are asked for."""
    theirs = keras.applications.EfficientNetB0(include_top=False, weights=None)
    (layer,) = (each for each in theirs.layers if isinstance(each, keras.layers.Normalization))
    layer.set_weights(
        [np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)]
    )
    path = tmp_path / "efficientnet.weights.h5"
    theirs.save_weights(path)
    monkeypatch.setattr(
        "keras.src.applications.efficientnet.file_utils.get_file", lambda *_, **__: str(path)
    )
    whole = keras.applications.EfficientNetB0(include_top=False, weights="imagenet")
    cut = keras.Model(whole.input, whole.get_layer("block3a_expand_activation").output)
    for circular in (False, True):
        made = with_trunk(trunk="EfficientNetB0", stride=4, circular=circular, weights="imagenet")
        images = drawn(made, batch=2)
        found = made.activations("ground", images["ground"])
        if not circular:
            expected = cut.predict_on_batch(images["ground"])
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        save_encoder(made, tmp_path / str(circular))
        again = load_encoder(tmp_path / str(circular))
        np.testing.assert_array_equal(again.activations("ground", images["ground"]), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "vlad"}, "netvlad"),
        ({"shared": True, "polar": None}, "circular=False"),
        ({"shared": True, "head": "spe", "overhead_px": (64, 64)}, "equal sizes"),
        ({"trunk": "ResNet9"}, "ResNet50"),
    ],
)
def test_trunks_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        with_trunk(**options)


def test_tiny_has_no_weights_of_imagenet():
    with pytest.raises(ValueError, match="leave weights out"):
        encoder("tiny", weights="imagenet")


def test_a_narrow_view_says_nothing_of_headings():
    made = small(fov_deg=90.0)
    assert made.preprocessing.ground_px == (16, 64)
    with pytest.raises(ValueError, match="dsm"):
        made.describe(Panorama(np.zeros((8, 16, 3), np.uint8)), headings_deg=[0.0])


# --------------------------------------------------------------------- precision and training


def test_half_precision_describes_nearly_the_same_in_float32():
    before = keras.config.dtype_policy()
    made = small()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        half = small()
    finally:
        keras.config.set_dtype_policy(before)
    half.set_weights(made.get_weights())
    images = drawn(made)
    expected = made.predict_on_batch(images)
    for name, described in half.predict_on_batch(images).items():
        assert described.dtype == np.float32
        assert ((described * expected[name]).sum(axis=1) > 0.999).all()
    assert half.ground.layers[2].compute_dtype == "bfloat16"


def trained(made, *, steps):
    """Losses of so many steps with one batch."""
    contrast = contrastive_loss("infonce", temperature=0.1)
    contrast.build((None, made.descriptor_size))
    model = PairTrainer(made, contrast)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    images = drawn(made, batch=6)
    return [model.step(images, {}) for _ in range(steps)]


@pytest.mark.slow
def test_training_tells_pairs_apart():
    keras.utils.set_random_seed(0)
    losses = trained(small(), steps=20)
    assert losses[0] == pytest.approx(np.log(6), abs=0.5)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_dsm_trains_at_the_best_heading_what_is_not_frozen():
    keras.utils.set_random_seed(0)
    sizes = {"ground_px": (16, 32), "overhead_px": (16, 64), "fov_deg": 180.0}
    assert all(layer.trainable for layer in encoder("dsm", **sizes).ground.layers)
    made = encoder("dsm", **sizes, dropout=0.0, frozen_blocks=3)
    before = made.get_weights()
    described = made.predict_on_batch(drawn(made, batch=6))
    alike = np.asarray(made.similarities(described["overhead"], described["ground"]))
    partners = np.diag(alike)
    nats = [special.logsumexp(10 * alike, axis=axis) - 10 * partners for axis in (0, 1)]
    assert trained(made, steps=1) == pytest.approx([np.mean(nats)], rel=1e-4)
    for weight, old in zip(made.weights, before, strict=True):
        is_frozen = weight.path.startswith(("block1_", "block2_", "block3_"))
        assert np.array_equal(ops.convert_to_numpy(weight), old) == is_frozen, weight.path


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_another_backend_agrees(backend):
    """Literal constructions, headings, precision and training, under another backend."""
    if backend == keras.backend.backend():
        pytest.skip("this is the backend of the session")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    chosen = "size0 or dsm_is_its or finds_where_a or half or trains_at"
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-k", chosen],
        cwd=TESTS.parent,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_a_folder_is_the_same_encoder_on_another_backend(tiny, tmp_path, backend):
    if backend == keras.backend.backend():
        pytest.skip("this is the backend of the session")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    save_encoder(tiny, tmp_path)
    images = drawn(tiny)["ground"]
    np.save(tmp_path / "images.npy", images)
    code = """
import sys
import numpy as np
from crossview.nn.encoders import load_encoder
made = load_encoder(sys.argv[1])
np.save(f"{sys.argv[1]}/found.npy", made.ground_descriptors(np.load(f"{sys.argv[1]}/images.npy")))
print(made.fingerprint)
"""
    finished = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=TESTS.parent,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.split()[-1] == tiny.fingerprint
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, tiny.ground_descriptors(images), atol=1e-5)
