"""Training: chunks have the gradient of the whole, and what was killed goes on as if it was not."""

import csv
import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from pytest import approx

from crossview import atomic
from crossview.errors import DatasetError, FolderBusyError, WeightsError
from crossview.nn.encoders import encoder, load_encoder
from crossview.nn.losses import contrastive_loss
from crossview.nn.trainer import PairTrainer, Stretched, numbers
from crossview.training import BEST_FOLDER, LOG_FILE, Options, train

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (8, 16, 3)


class Twins(keras.Model):
    """Two branches without anything that mixes the images of a batch."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.ground, self.overhead = self.branch(1, dropout), self.branch(5, dropout)

    @staticmethod
    def branch(seed, dropout):
        first, second = (keras.initializers.GlorotUniform(seed + k) for k in range(2))
        image = keras.Input(SIZE)
        features = layers.Rescaling(1 / 255)(image)
        features = layers.Conv2D(4, 3, kernel_initializer=first)(features)
        features = layers.Dropout(dropout, seed=seed)(layers.Flatten()(features))
        numbers = layers.Dense(6, kernel_initializer=second)(features)
        return keras.Model(image, layers.UnitNormalization()(numbers))

    def build(self, shape):
        self.built = True

    def call(self, inputs, training=None):
        return {side: getattr(self, side)(inputs[side], training=training) for side in inputs}


class Pairs(keras.utils.PyDataset):
    """Noise that differs by epoch and batch."""

    epoch = 0

    def __init__(self, size=SIZE, count=3):
        super().__init__(workers=2)
        self.size, self.count = size, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng([self.epoch, index])
        images = rng.integers(0, 256, (2, 8, *self.size)).astype(np.uint8)
        position_m = rng.normal(0, 30, (8, 2)).astype(np.float32)
        return {"ground": images[0], "overhead": images[1]}, {"position_m": position_m}


class Pointers(Twins):
    """Twins that also say where in its tile a camera is."""

    def __init__(self):
        super().__init__()
        self.point = layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(9))
        self.point.build((None, 6))

    def call(self, inputs, training=None):
        described = {side: getattr(self, side)(inputs[side]) for side in ("ground", "overhead")}
        return {**described, "offset": self.point(described["ground"] + described["overhead"])}


def vigor_batch():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (3, 8, *SIZE)).astype(np.uint8)
    names = ("ground", "overhead", "semipositive")
    offsets = rng.uniform(-0.5, 0.5, (2, 8, 2)).astype(np.float32)
    return dict(zip(names, images, strict=True)), {
        "offset": offsets[0], "semipositive_offset": 2 * offsets[1],
    }  # fmt: skip


def test_terms_of_vigor_are_added_to_the_contrast():
    """Against their formulas in NumPy."""
    images, facts = vigor_batch()
    encoder = Pointers()
    trainer = PairTrainer(encoder, contrastive_loss("triplet"))
    trainer.compile(optimizer=keras.optimizers.SGD(0.0))
    alone = PairTrainer(encoder, contrastive_loss("triplet"))
    alone.compile(optimizer=keras.optimizers.SGD(0.0))
    added = trainer.step(images, facts) - alone.step(
        {side: images[side] for side in ("ground", "overhead")}, {}
    )
    said = {name: np.asarray(each) for name, each in encoder(images).items()}
    other = np.asarray(encoder.overhead(images["semipositive"]))
    pointing = ((said["offset"] - facts["offset"]) ** 2).sum(axis=1).mean() / 100

    def iou(offset):
        shared = np.prod(1 - np.abs(offset) / 2, axis=1)
        return shared / (2 - shared)

    quotient = (other * said["ground"]).sum(axis=1) / (said["overhead"] * said["ground"]).sum(
        axis=1
    )
    ratio = iou(facts["semipositive_offset"]) / iou(facts["offset"])
    assert added == approx(pointing + ((quotient - ratio) ** 2).mean() / 10, rel=1e-3)


def test_pairs_without_a_ground_image_say_nothing_of_offsets_and_overlaps():
    """Whatever stands in their places."""
    found = []
    for stand_in in (40, 255):
        images, facts = vigor_batch()
        has_ground = np.array([True, False, True, True, False, True, True, True])
        images["ground"][~has_ground] = stand_in
        facts["offset"][~has_ground] = stand_in
        facts["has_ground"] = has_ground
        trainer = PairTrainer(Pointers(), contrastive_loss("triplet"))
        trainer.compile(optimizer=keras.optimizers.SGD(0.0))
        found.append(trainer.step(images, facts))
    assert found[0] == approx(found[1], rel=1e-6)


@pytest.mark.parametrize("num_chunks", [2, 4])
def test_terms_of_vigor_in_chunks_are_those_of_the_whole(num_chunks):
    weights = []
    for count in (1, num_chunks):
        images, facts = vigor_batch()
        encoder = Pointers()
        trainer = PairTrainer(encoder, contrastive_loss("triplet"), num_chunks=count)
        accumulate = {"gradient_accumulation_steps": count} if count > 1 else {}
        trainer.compile(optimizer=keras.optimizers.SGD(0.1, **accumulate))
        before = [numbers(each) for each in encoder.trainable_variables]
        trainer.step(images, facts)
        weights.append(
            [
                numbers(each) - old
                for each, old in zip(encoder.trainable_variables, before, strict=True)
            ]
        )
    for whole, chunked in zip(*weights, strict=True):
        assert np.abs(whole).max() > 0
        assert chunked == approx(whole, rel=1e-3, abs=1e-3 * float(np.abs(whole).max()))


def losses(num_chunks, loss="infonce", *, steps=6, dropout=0.0):
    """Of some steps with a falling learning rate, weight decay and clipped gradients."""
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, 10)
    optimizer = keras.optimizers.AdamW(
        Stretched(schedule, num_chunks) if num_chunks > 1 else schedule,
        weight_decay=0.01,
        global_clipnorm=1.0,
        gradient_accumulation_steps=num_chunks if num_chunks > 1 else None,
    )
    trainer = PairTrainer(Twins(dropout), contrastive_loss(loss), num_chunks=num_chunks)
    trainer.compile(optimizer=optimizer)
    pairs = Pairs(count=steps)
    return [trainer.step(*pairs[k]) for k in range(steps)], trainer


@pytest.mark.parametrize("loss", ["triplet", "neighbour", "infonce"])
def test_chunks_learn_what_the_whole_batch_learns(loss):
    whole, one = losses(1, loss)
    for num_chunks in (2, 4):
        found, other = losses(num_chunks, loss)
        assert found == approx(whole, abs=2e-6)
        for a, b in zip(one.trainable_variables, other.trainable_variables, strict=True):
            np.testing.assert_allclose(numbers(a), numbers(b), atol=2e-5)
    assert len(set(whole)) == len(whole)


def test_a_chunk_draws_the_same_dropout_both_times():
    """Else the descriptors of a chunk with gradients would not be those beside the other chunks."""
    trainer = losses(4, steps=1, dropout=0.5)[1]
    described, seen = [], []
    describe, learn = trainer._describer.predict_on_batch, trainer.train_on_batch
    trainer._describer.predict_on_batch = lambda chunk: (
        described.append(describe(chunk)) or described[-1]
    )

    def step(chunk, facts):
        before = [numbers(v) for v in trainer.non_trainable_variables]
        again = trainer._describer.predict_on_batch(chunk)
        described.pop()
        seen.append(again["ground"])
        for variable, value in zip(trainer.non_trainable_variables, before, strict=True):
            variable.assign(value)
        return learn(chunk, facts)

    trainer.train_on_batch = step
    trainer.step(*Pairs()[1])
    assert len(seen) == len(described) == 4
    for first, second in zip(described, seen, strict=True):
        # weights change with the last chunk only
        np.testing.assert_allclose(first["ground"], second, atol=1e-6)
    assert not np.allclose(described[0]["ground"], described[1]["ground"], atol=1e-2)


def test_a_batch_that_does_not_divide_is_refused():
    trainer = losses(4, steps=1)[1]
    images, facts = Pairs()[0]
    images = {side: image[:6] for side, image in images.items()}
    with pytest.raises(ValueError, match="6 pairs does not divide into 4 chunks"):
        trainer.step(images, {"position_m": facts["position_m"][:6]})


# ------------------------------------------------------------------- whole trainings


def tiny():
    keras.utils.set_random_seed(3)
    return encoder("tiny", width=4, num_heads=2, ground_px=(16, 32), overhead_px=(16, 32))


def trained(folder, *, epochs=4, stop_before=None, values=(), **options):
    """A short training; perhaps killed before an epoch. What validation says is given."""

    def before_epoch(epoch, _):
        if epoch == stop_before:
            raise KeyboardInterrupt

    given = iter(values)
    validate = (lambda _: {"recall_1": next(given)}) if values else None
    return train(
        tiny(),
        Pairs((16, 32, 3)),
        contrastive_loss("infonce", smoothing=0.1),
        folder,
        options=Options(epochs=epochs, **options),
        validate=validate,
        before_epoch=before_epoch,
    )


def test_a_training_without_a_batch_or_a_finite_loss_stops(tmp_path):
    with pytest.raises(DatasetError, match="Epoch 0 has no batch"):
        train(
            tiny(), Pairs((16, 32, 3), 0), contrastive_loss("infonce"), tmp_path / "none",
            options=Options(epochs=1),
        )  # fmt: skip
    alone = contrastive_loss("neighbour", within_m=0.001)
    with pytest.raises(DatasetError, match=r"no batch of epoch 0 is .*--sampler neighbours"):
        train(tiny(), Pairs((16, 32, 3)), alone, tmp_path / "far", options=Options(epochs=1))
    with pytest.raises(ArithmeticError, match="Lower the learning rate"):
        trained(tmp_path / "inf", epochs=3, learning_rate=1e30, clip_norm=1e30)
    assert not (tmp_path / "none" / BEST_FOLDER).exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_resumes_too(tmp_path, precision):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(precision)
        whole = trained(tmp_path / "whole", epochs=2)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed", epochs=2, stop_before=1)
        resumed = trained(tmp_path / "killed", epochs=2)
    finally:
        keras.config.set_dtype_policy(before)
    assert [r["loss"] for r in resumed] == approx([r["loss"] for r in whole], abs=1e-6)


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path, chunks):
    whole = trained(tmp_path / "whole", num_chunks=chunks)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", stop_before=2, num_chunks=chunks)
    resumed = trained(tmp_path / "killed", num_chunks=chunks)
    assert [r["epoch"] for r in resumed] == [0, 1, 2, 3]
    assert [r["loss"] for r in resumed] == approx([r["loss"] for r in whole], abs=1e-6)
    assert whole[0]["loss"] != approx(whole[1]["loss"], abs=1e-3)
    ends = [load_encoder(tmp_path / name / BEST_FOLDER) for name in ("whole", "killed")]
    for a, b in zip(*(end.weights for end in ends), strict=True):
        np.testing.assert_allclose(numbers(a), numbers(b), atol=1e-6)


def test_averaged_batches_take_fewer_steps(tmp_path):
    """Two equal batches averaged are one."""

    class Same(Pairs):
        def __getitem__(self, index):
            return super().__getitem__(0)

    def run(name, count, accumulate):
        pairs = Same((16, 32, 3), count)
        options = Options(epochs=1, accumulate=accumulate)
        return train(
            tiny(), pairs, contrastive_loss("triplet"), tmp_path / name, options=options
        ), load_encoder(tmp_path / name / BEST_FOLDER)

    (one, first), (two, second) = run("one", 3, 1), run("two", 6, 2)
    assert len(one) == len(two) == 1
    of_both = zip(first.trainable_weights, second.trainable_weights, strict=True)
    for a, b in of_both:
        np.testing.assert_allclose(numbers(a), numbers(b), atol=1e-4)


def test_the_best_validation_is_kept_and_patience_ends(tmp_path):
    values = (0.1, 0.5, 0.3, 0.2, 0.9, 0.9)
    records = trained(tmp_path, epochs=6, values=values, patience=2)
    assert [r["recall_1"] for r in records] == [0.1, 0.5, 0.3, 0.2]
    with (tmp_path / LOG_FILE).open() as file:
        assert [float(row["recall_1"]) for row in csv.DictReader(file)] == [0.1, 0.5, 0.3, 0.2]
    text = (tmp_path / BEST_FOLDER / "model.json").read_text()
    assert '"recall_1": 0.5' in text and '"epoch": 1' in text


def test_validations_are_as_rare_as_wanted(tmp_path):
    records = trained(tmp_path, epochs=5, values=(0.1, 0.2, 0.3), validate_every=2)
    assert [r.get("recall_1") for r in records] == [None, 0.1, None, 0.2, 0.3]


def test_another_training_in_the_same_folder_is_refused(tmp_path):
    trained(tmp_path, epochs=1)
    with pytest.raises(WeightsError, match="other options \\(learning_rate\\)"):
        trained(tmp_path, epochs=1, learning_rate=0.1)


def test_a_folder_in_which_somebody_trains_is_refused(tmp_path):
    with atomic.alone(tmp_path), pytest.raises(FolderBusyError):
        trained(tmp_path, epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_events_for_tensorboard_are_written(tmp_path):
    tf = pytest.importorskip("tensorflow")
    trained(tmp_path, epochs=2)
    (events,) = (tmp_path / "tensorboard").iterdir()
    seen = [
        (value.tag, event.step)
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    assert seen == [("loss", 0), ("loss", 1)]


@pytest.mark.slow
def test_all_of_this_holds_on_jax():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    if keras.backend.backend() == "jax":
        pytest.skip("this is it")
    tests = "chunks_learn or goes_on or same_dropout or averaged"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", tests, __file__],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout
