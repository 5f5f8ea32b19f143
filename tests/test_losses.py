"""Contrastive losses: golden numbers of the published formulas, masks and half precision."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from crossview.nn.losses import (
    LOSSES,
    Negatives,
    contrastive_loss,
    distances_m,
    footprint_iou,
    gaussian_weights,
    hardest,
    info_nce,
    iou_loss,
    negatives,
    offset_loss,
    soft_margin_triplet,
    square_iou,
    squared_distances,
)

# Keras's variables know the array protocol of NumPy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

REPOSITORY = Path(__file__).resolve().parents[1]
ON_ANOTHER_BACKEND = (
    "(golden and float32) or literal or half or (training and infonce) or without_negatives"
)
POSITION_M = np.stack([[0.0, 10.0, 40.0, 200.0], np.zeros(4)], axis=1)

# Values of the published formulas in float64 for the descriptors of golden_descriptors.
GOLDEN = [
    ("triplet", {"count_diagonal": True}, 4.011826900520346),
    ("triplet", {}, 3.780777840333699),
    ("triplet", {"beyond_m": 25, "mask": "inside", "count_diagonal": True}, 4.9528217167235535),
    ("neighbour", {"form": "squared"}, 0.006210104777854157),
    ("neighbour", {"within_m": 50, "beyond_m": 5, "sigma_m": 10}, 0.006208021506191683),
    ("infonce", {}, 5.627724064256832),
    ("infonce", {"smoothing": 0.1}, 6.19941999742602),
]


def golden_descriptors():
    """(overhead, ground), (4, 5) float64 each."""
    row, col = np.arange(4)[:, None], np.arange(5)[None]
    return unit(np.sin(3 * row + col + 1)), unit(np.cos(2 * row + col + 0.5))


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def random_batch(num_pairs=7, seed=0):
    """(overhead, ground, position_m, has_ground) with two empty ground images."""
    rng = np.random.default_rng(seed)
    overhead, ground = unit(rng.normal(size=(2, num_pairs, 6)))
    position_m = rng.uniform(0, 120, (num_pairs, 2))
    has_ground = np.arange(num_pairs) % 4 != 2
    return overhead, ground, position_m, has_ground


def value(tensor):
    return float(ops.convert_to_numpy(tensor))


# The published values


@pytest.mark.parametrize(("name", "options", "expected"), GOLDEN)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_golden_numbers(name, options, expected, dtype):
    overhead, ground = (one.astype(dtype) for one in golden_descriptors())
    loss = contrastive_loss(name, **options)
    assert value(loss(ground, overhead, POSITION_M)) == pytest.approx(expected, rel=1e-6, abs=0)


def test_either_direction_of_the_golden_triplets():
    distances = squared_distances(*golden_descriptors())
    every, none = np.ones((4, 4)) - np.eye(4), np.zeros((4, 4))
    both = [
        2 * value(soft_margin_triplet(distances, candidates, count_diagonal=True))
        for candidates in (Negatives(every, none), Negatives(none, every))
    ]
    # a direction without negatives still counts its diagonal, 4 ln 2 undivided
    diagonal = 4 * np.log(2)
    assert np.allclose(np.array(both) - diagonal, [4.433552980266476, 3.590100820774176], atol=2e-6)


def test_a_batch_of_places_far_apart_has_no_negatives_among_neighbours():
    loss = contrastive_loss("neighbour", within_m=50)
    position_m = np.array([[0.0, 0.0], [60.0, 0.0], [0.0, 60.0]])
    assert not any(np.asarray(each).any() for each in loss.candidates(3, position_m))
    nearer_m = position_m * 0.8
    expected = [[0, 1, 1], [1, 0, 0], [1, 0, 0]]  # 48 m apart, and 68 m
    assert np.asarray(loss.candidates(3, nearer_m).of_ground).tolist() == expected


def literal_neighbour_loss(overhead, ground, position_m, has_ground, *, within_m, weight):
    """Xia et al. (2020), pair by pair; an empty slot is no query and no negative ground image."""
    sums, counts = [0.0, 0.0], [0, 0]
    for i in range(len(ground)):
        for j in range(len(ground)):
            apart_m = np.hypot(*(position_m[i] - position_m[j]))
            if i == j or apart_m > within_m:
                continue
            distance = 2 - 2 * overhead[i] @ ground[j]
            if has_ground[j]:
                own = 2 - 2 * overhead[j] @ ground[j]
                sums[0] += weight(apart_m) * np.log1p(np.exp(10 * (own - distance)))
                counts[0] += 1
            if has_ground[i] and has_ground[j]:
                own = 2 - 2 * overhead[i] @ ground[i]
                sums[1] += weight(apart_m) * np.log1p(np.exp(10 * (own - distance)))
                counts[1] += 1
    return 0.5 * sum(total / (count + 0.001) for total, count in zip(sums, counts, strict=True))


@pytest.mark.parametrize(
    ("form", "weight"),
    [
        ("metres", lambda apart_m: 1 - np.exp(-(apart_m**2) / (2 * 25**2))),
        ("squared", lambda apart_m: 1 - np.exp(-(apart_m**4) / 1250)),
    ],
)
def test_neighbours_with_empty_ground_images_are_those_of_the_literal_loops(form, weight):
    overhead, ground, position_m, has_ground = random_batch()
    loss = contrastive_loss("neighbour", within_m=60, form=form)
    expected = literal_neighbour_loss(
        overhead, ground, position_m, has_ground, within_m=60, weight=weight
    )
    got = value(loss(ground, overhead, position_m, has_ground))
    assert got == pytest.approx(expected, rel=2e-6)


def test_what_stands_for_an_empty_ground_image_does_not_matter():
    overhead, ground, position_m, has_ground = random_batch()
    zeroed = np.where(has_ground[:, None], ground, 0.0)
    for name in LOSSES:
        loss = contrastive_loss(name)
        values = [value(loss(one, overhead, position_m, has_ground)) for one in (ground, zeroed)]
        assert values[0] == values[1], name


def test_masks_of_an_empty_slot():
    of_ground, of_overhead = negatives(3, has_ground=np.array([True, False, True]))
    # its overhead image is a negative of other ground images; nothing else of it is left
    assert np.array_equal(of_ground, [[0, 0, 1], [1, 0, 1], [1, 0, 0]])
    assert np.array_equal(of_overhead, [[0, 0, 1], [0, 0, 0], [1, 0, 0]])


def test_gaussian_weights_in_metres():
    weights = gaussian_weights(np.array([0.0, 5, 10, 20]), 10.0)
    assert np.allclose(weights, [0, 0.1175, 0.3935, 0.8647], atol=5e-5)


def test_gaussian_weights_of_squared_distances():
    weights = gaussian_weights(np.array([1.0, 3, 5, 7, 10]), 25.0, form="squared")
    assert np.allclose(weights, [0.0008, 0.0627, 0.3935, 0.8535, 0.9997], atol=5e-5)


def test_a_mask_inside_adds_ln_2_for_each_masked_pair():
    distances = squared_distances(*golden_descriptors())
    candidates = negatives(4, distance_m=distances_m(POSITION_M, POSITION_M), beyond_m=25)
    inside = value(soft_margin_triplet(distances, candidates, mask="inside"))
    outside = value(soft_margin_triplet(distances, candidates))
    assert inside - outside == pytest.approx(2 * np.log(2) / 10, rel=1e-5)


def test_the_counted_diagonal_adds_ln_2_by_one_less_than_the_pairs():
    overhead, ground, *_ = random_batch()
    distances = squared_distances(overhead, ground)
    counted = value(soft_margin_triplet(distances, count_diagonal=True))
    assert counted - value(soft_margin_triplet(distances)) == pytest.approx(np.log(2) / 6, rel=1e-5)


# InfoNCE


def literal_info_nce(similarity, is_negative, weights, *, scale, smoothing, decoupled):
    """Mean cross entropy of finding each row's partner on the diagonal."""
    nats = []
    for i, row in enumerate(scale * similarity):
        offered = [j for j in range(len(row)) if is_negative[i, j] and weights[i, j] > 0]
        if not offered:
            continue
        total = sum(weights[i, j] * np.exp(row[j]) for j in offered)
        total += 0 if decoupled else np.exp(row[i])
        spread = smoothing / (len(offered) + 1)
        target = dict.fromkeys(offered, spread) | {i: 1 - smoothing + spread}
        nats.append(sum(share * (np.log(total) - row[j]) for j, share in target.items()))
    return np.mean(nats)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("decoupled", [False, True])
def test_info_nce_is_that_of_the_literal_loops(smoothing, decoupled):
    overhead, ground, position_m, has_ground = random_batch(9)
    similarity = overhead @ ground.T
    candidates = negatives(
        9, distance_m=distances_m(position_m, position_m), beyond_m=40, has_ground=has_ground
    )
    weights = np.random.default_rng(3).uniform(0, 1, (9, 9))
    weights[0, 5] = 0
    of_ground, of_overhead = (np.array(one) for one in candidates)
    options = {"scale": 8.0, "smoothing": smoothing, "decoupled": decoupled}
    expected = 0.5 * (
        literal_info_nce(similarity.T, of_ground.T, weights.T, **options)
        + literal_info_nce(similarity, of_overhead, weights, **options)
    )
    got = value(info_nce(similarity, candidates, weights=weights, **options))
    assert got == pytest.approx(expected, rel=1e-5)


def test_the_temperature_is_learned_and_can_be_fixed():
    assert contrastive_loss("infonce", learn_temperature=False).trainable_variables == []
    loss = contrastive_loss("infonce", temperature=0.5)
    (log_scale,) = loss.trainable_variables
    assert value(log_scale) == pytest.approx(np.log(2))
    overhead, ground, *_ = random_batch()
    before = value(loss(ground, overhead))
    log_scale.assign(3.0)
    assert value(loss(ground, overhead)) != pytest.approx(before, rel=0.01)


# Which pairs are negatives


def test_overlapping_footprints_are_no_negatives_of_triplets_and_of_info_nce():
    overhead, ground = golden_descriptors()
    is_negative = 1.0 - np.eye(4)
    # squares of 60 m at 0, 10, 40 and 200 m: those 10, 30 and 40 m apart overlap by 5/7, 1/3, 1/5
    for first, second in ((0, 1), (1, 2)):
        is_negative[first, second] = is_negative[second, first] = 0
    masks = Negatives(is_negative, is_negative)
    triplets = value(soft_margin_triplet(squared_distances(overhead, ground), masks))
    nats = value(info_nce(overhead @ ground.T, masks))
    options = {"footprint_m": 60.0, "max_overlap": 0.25}
    assert value(contrastive_loss("triplet", **options)(ground, overhead, POSITION_M)) == (
        pytest.approx(triplets, rel=1e-6)
    )
    assert value(contrastive_loss("infonce", **options)(ground, overhead, POSITION_M)) == (
        pytest.approx(nats, rel=1e-6)
    )


def test_distances_are_from_overhead_to_ground_images_where_both_are_given():
    overhead, ground = golden_descriptors()
    at_ground_m = POSITION_M + np.array([20.0, 0.0])
    # overhead 0 is 30 m from ground 1 and overhead 1 is 10 m from ground 0: radii see a direction
    candidates = negatives(
        4, distance_m=abs(POSITION_M[:, None, 0] - at_ground_m[None, :, 0]), within_m=25
    )
    expected = value(soft_margin_triplet(squared_distances(overhead, ground), candidates))
    loss = contrastive_loss("triplet", within_m=25)
    got = value(loss(ground, overhead, POSITION_M, None, at_ground_m))
    assert got == pytest.approx(expected, rel=1e-6)
    assert got != pytest.approx(value(loss(ground, overhead, POSITION_M)), rel=1e-3)


def test_distances_far_from_the_origin_are_exact():
    position_m = np.array([[20_000.0, 40_000.0], [20_003.0, 40_004.0]], np.float32)
    assert np.array_equal(distances_m(position_m, position_m), [[0, 5], [5, 0]])


def test_hardest_negatives_are_each_querys_own():
    distances = np.array([[0.1, 0.5, 0.9], [0.2, 0.3, 0.4], [0.6, 0.1, 0.2]])
    of_ground, of_overhead = hardest(negatives(3), distances, 1)
    assert np.array_equal(of_ground, [[0, 0, 0], [1, 0, 1], [0, 1, 0]])
    assert np.array_equal(of_overhead, [[0, 1, 0], [1, 0, 0], [0, 1, 0]])


def test_more_hard_negatives_than_there_are_are_all():
    distances = squared_distances(*golden_descriptors())
    for few, all_of_them in zip(hardest(negatives(4), distances, 99), negatives(4), strict=True):
        assert np.array_equal(few, all_of_them)


# VIGOR


@pytest.mark.parametrize(
    ("offset_px", "iou"),
    [
        ((0, 0), 1.0),
        ((160, -160), 0.3913),
        ((-320, 0), 0.3333),
        ((320, 320), 0.1429),
        ((700, 0), 0),
    ],
)
def test_overlap_of_two_tiles(offset_px, iou):
    assert value(square_iou(np.array(offset_px, np.float32), 640)) == pytest.approx(iou, abs=5e-5)


def test_footprints_overlap_by_what_is_between_their_centres():
    overlap = footprint_iou(POSITION_M, POSITION_M[:2], 40.0)
    # 10 m apart they share 30 of 50 m
    assert np.allclose(overlap, [[1, 0.6], [0.6, 1], [0, 1 / 7], [0, 0]], atol=1e-6)


def test_iou_loss_by_hand():
    ground = np.array([[1.0, 0.0], [0.0, 1.0]])
    positive = np.array([[0.8, 0.6], [0.6, 0.8]])
    semi_positive = np.array([[0.6, 0.8], [1.0, 0.0]])
    # quotients 0.75 and 0 beside ratios 0.5 and 0.25
    expected = (0.25**2 + 0.25**2) / 2 / 10
    got = value(iou_loss(ground, positive, semi_positive, np.array([0.5, 0.25])))
    assert got == pytest.approx(expected, rel=1e-5)


def test_offset_loss_by_hand():
    got = value(offset_loss(np.array([[0.5, 0.5], [0, 0]]), np.array([[0.2, 0.1], [0, 1.0]])))
    assert got == pytest.approx((0.09 + 0.16 + 1) / 2 / 100, rel=1e-5)


# Numbers


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    # opposite descriptors: gamma times 4 is beyond the exponential of float16
    overhead = ops.cast(np.array([[1.0, 0.0], [-1.0, 0.0]]), dtype)
    ground = ops.cast(np.array([[-1.0, 0.0], [1.0, 0.0]]), dtype)
    loss = contrastive_loss("triplet")(ground, overhead)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert value(loss) == pytest.approx(40.0)


def test_a_mixed_precision_policy_leaves_metres_alone():
    overhead, ground = golden_descriptors()
    far_m = POSITION_M + 3000.3  # steps of float16 are 2 m here
    expected = value(contrastive_loss("neighbour")(ground, overhead, far_m))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        got = value(contrastive_loss("neighbour")(ground, overhead, far_m))
    finally:
        keras.config.set_dtype_policy(before)
    assert (
        got
        == expected
        == pytest.approx(
            value(contrastive_loss("neighbour")(ground, overhead, POSITION_M)), rel=1e-4
        )
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_negatives_costs_nothing(name):
    overhead, ground = golden_descriptors()
    loss = contrastive_loss(name)
    assert value(loss(ground[:1], overhead[:1], POSITION_M[:1])) == 0
    assert value(loss(ground, overhead, POSITION_M, np.zeros(4, bool))) == 0


class Embedding(keras.Model):
    """Descriptors of what stands for ground images, beside given overhead ones."""

    def __init__(self, loss):
        super().__init__()
        self.contrast = loss
        self.dense = keras.layers.Dense(6)
        self.dense.build((None, 6))
        self.built = True

    def call(self, inputs):
        raw = self.dense(inputs)
        return raw / ops.norm(raw, axis=-1, keepdims=True)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.contrast(y_pred, y["overhead"], y["position_m"], y["has_ground"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("triplet", {"num_hardest": 4}),
        ("neighbour", {"footprint_m": 30.0}),
        ("infonce", {"decoupled": True, "smoothing": 0.1, "sigma_m": 10.0}),
    ],
)
def test_training_with_batches_of_any_size_lowers_the_loss_and_stays_finite(name, options):
    model = Embedding(contrastive_loss(name, **options))
    model.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    losses = []
    for step in range(30):
        num_pairs = 5 if step == 10 else 12
        overhead, ground, position_m, has_ground = random_batch(num_pairs, seed=1)
        # the second batch has no negative at all
        facts = {
            "overhead": overhead.astype(np.float32),
            "position_m": position_m.astype(np.float32),
            "has_ground": has_ground & (step != 1),
        }
        losses.append(float(model.train_on_batch(ground.astype(np.float32), facts)))
    assert losses[1] == 0 and np.isfinite(losses).all()
    assert losses[-1] < losses[2] - 0.05 * abs(losses[2])
    assert all(np.isfinite(np.array(variable.value)).all() for variable in model.variables)


# The contract of layers


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_survives_saving(name, tmp_path):
    options = {"within_m": 60.0, "num_hardest": 2, "sigma_m": 9.0, "form": "squared"}
    options |= {"footprint_m": 20.0, "max_overlap": 0.3}
    options |= {"smoothing": 0.2} if name == "infonce" else {"gamma": 7.0, "mask": "inside"}
    model = Embedding(contrastive_loss(name, **options))
    for variable in model.contrast.trainable_variables:
        variable.assign(1.25)
    model.save_weights(tmp_path / "model.weights.h5")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(model.contrast)
    )
    other = Embedding(again)
    other.load_weights(tmp_path / "model.weights.h5")
    overhead, ground, position_m, has_ground = random_batch()
    values = [
        value(loss(ground, overhead, position_m, has_ground)) for loss in (model.contrast, again)
    ]
    assert values[0] == values[1] > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hinge", {}, "There is no loss 'hinge'; expected one of triplet, neighbour, infonce"),
        ("neighbour", {"within_m": -5}, "within_m must be positive or None, got -5"),
        ("neighbour", {"form": "cubic"}, "form must be one of metres, squared, got 'cubic'"),
        ("triplet", {"mask": "both"}, "mask must be one of outside, inside, got 'both'"),
        (
            "triplet",
            {"footprint_m": 9, "max_overlap": 1},
            r"max_overlap must be in \[0, 1\), got 1",
        ),
        ("infonce", {"temperature": 0}, "temperature must be positive, got 0"),
        ("infonce", {"smoothing": 1}, r"smoothing must be in \[0, 1\), got 1"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        contrastive_loss(name, **options)


def test_metres_are_asked_for_where_they_are_needed():
    overhead, ground = golden_descriptors()
    with pytest.raises(ValueError, match="NeighbourLoss has options in metres and needs position"):
        contrastive_loss("neighbour")(ground, overhead)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_another_backend_computes_the_same(backend):
    if backend == keras.backend.backend():
        pytest.skip("this is the backend of the session")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-k", ON_ANOTHER_BACKEND],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
