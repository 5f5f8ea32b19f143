"""Training batches: each pair at most once, none silently dropped, neighbours together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossview.sampling import EARTH_RADIUS_M, NeighbourBatches, RandomBatches, chord_m, sphere_m


def scattered(num_pairs, seed=0, side_m=1000.0):
    return np.random.default_rng(seed).uniform(0, side_m, (num_pairs, 2))


def haversine_m(lat_deg, lon_deg, other_lat_deg, other_lon_deg):
    """The great-circle distance, of degrees, on the mean sphere."""
    lat, lon = np.radians(lat_deg), np.radians(lon_deg)
    other_lat, other_lon = np.radians(other_lat_deg), np.radians(other_lon_deg)
    square = (
        np.sin((other_lat - lat) / 2) ** 2
        + np.cos(lat) * np.cos(other_lat) * np.sin((other_lon - lon) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(square))


# What holds for every epoch


def require_partition(sampler, num_pairs, batch_size, *, number=3):
    """Batches and left_out hold each pair once; returns the batches."""
    batches, left_out = sampler.epoch(number), sampler.left_out(number)
    assert sorted(np.concatenate([*batches, left_out])) == list(range(num_pairs))
    assert all(2 <= len(batch) <= batch_size for batch in batches)
    return batches


@st.composite
def samplers(draw):
    """(sampler, position_m, ids, excluding_within_m), with few or many that exclude each other."""
    num_pairs = draw(st.integers(8, 90))
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    # half of them share their place with another
    position_m = scattered(num_pairs, seed, side_m=draw(st.sampled_from([10.0, 300.0])))
    position_m[: num_pairs // 2] = position_m[-(num_pairs // 2) :]
    ids = draw(st.sampled_from([None, 2, 10, 100]))
    if ids is not None:
        ids = rng.integers(-1, ids, (num_pairs, draw(st.integers(1, 3))))
    within_m = draw(st.sampled_from([None, 1.0, 40.0]))
    batch_size = draw(st.integers(2, 8))
    options = {"seed": seed, "excluding": ids, "excluding_within_m": within_m}
    options |= draw(st.sampled_from([{"radius_m": 0.5}, {"radius_m": 60.0}, {"num_neighbours": 9}]))
    options["num_companions"] = draw(st.sampled_from([None, 1, 3]))
    options["num_nearest"] = draw(st.sampled_from([0, 2]))
    return NeighbourBatches(position_m, batch_size, **options), ids


@given(samplers())
def test_each_pair_is_in_one_batch_at_most_and_told_if_in_none(drawn):
    sampler, _ = drawn
    require_partition(sampler, len(sampler.position_m), sampler.batch_size)


def may_share(sampler, ids, first, second):
    apart_m = np.hypot(*(sampler.position_m[first] - sampler.position_m[second]))
    if sampler.excluding_within_m is not None and apart_m < sampler.excluding_within_m:
        return False
    return ids is None or not (set(ids[first]) & set(ids[second])) - {-1}


@given(samplers())
def test_no_batch_holds_two_that_exclude_each_other(drawn):
    sampler, ids = drawn
    for batch in sampler.epoch(0):
        for k, first in enumerate(batch):
            assert all(may_share(sampler, ids, first, second) for second in batch[k + 1 :])


@given(samplers())
def test_what_is_left_out_has_no_place_anywhere(drawn):
    sampler, ids = drawn
    left_out = sampler.left_out(0)
    has_room = [batch for batch in sampler.epoch(0) if len(batch) < sampler.batch_size]
    for pair in left_out:
        others = [*has_room, *(np.array([other]) for other in left_out if other != pair)]
        assert not any(
            all(may_share(sampler, ids, pair, other) for other in batch) for batch in others
        )


@pytest.mark.parametrize(
    "sampler",
    [
        RandomBatches(103, 10, seed=5),
        NeighbourBatches(scattered(103), 10, radius_m=150, seed=5),
        NeighbourBatches(scattered(103), 10, num_neighbours=20, num_companions=4, seed=5),
    ],
)
def test_all_batches_but_the_last_are_full_where_nothing_excludes(sampler):
    batches = require_partition(sampler, 103, 10)
    assert [len(batch) for batch in batches] == [10] * 10 + [3]


@pytest.mark.parametrize(
    "sampler",
    [RandomBatches(200, 10, seed=5), NeighbourBatches(scattered(200), 10, radius_m=150, seed=5)],
)
def test_epochs_depend_on_seed_and_number_alone(sampler):
    ahead = [sampler.epoch(number) for number in (7, 8)]
    assert all(np.array_equal(a, b) for a, b in zip(ahead[0], sampler.epoch(7), strict=True))
    assert {tuple(sorted(batch)) for batch in ahead[0]} != {
        tuple(sorted(batch)) for batch in ahead[1]
    }


def test_another_seed_is_another_epoch():
    one, other = (RandomBatches(200, 10, seed=seed).epoch(0) for seed in (0, 1))
    assert not np.array_equal(one, other)


# Neighbours


def clustered(sizes, seed=0):
    """Clusters of 10 m that are far apart, shuffled: (position_m, cluster of each)."""
    rng = np.random.default_rng(seed)
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng.uniform(0, 10, (len(cluster), 2)) + 1000.0 * cluster[:, None], cluster


def test_neighbourhoods_of_a_batchs_size_are_the_batches():
    position_m, cluster = clustered([8] * 12)
    for batch in NeighbourBatches(position_m, 8, radius_m=20).epoch(0):
        assert len(set(cluster[batch])) == 1


def test_too_small_neighbourhoods_are_put_beside_what_is_near():
    position_m, cluster = clustered([4] * 20)
    batches = NeighbourBatches(position_m, 8, radius_m=20).epoch(0)
    # clusters lie on a line, so that every batch is two whole ones side by side
    assert [np.ptp(cluster[batch]) for batch in batches] == [1] * 10


def test_companions_of_a_centre_are_its_neighbours_and_no_more_than_asked_for():
    position_m, cluster = clustered([2] * 40)
    sampler = NeighbourBatches(position_m, 10, radius_m=20, num_companions=1)
    for batch in sampler.epoch(0):
        assert (np.bincount(cluster[batch])[np.unique(cluster[batch])] == 2).all()
    position_m, cluster = clustered([30] * 40)
    sampler = NeighbourBatches(position_m, 12, radius_m=20, num_companions=3)
    first = sampler.epoch(0)[0]
    assert [len(set(cluster[first[k : k + 4]])) for k in (0, 4, 8)] == [1, 1, 1]


def test_the_nearest_come_first_and_others_are_drawn():
    position_m = np.stack([np.arange(100.0), np.zeros(100)], axis=1)
    sampler = NeighbourBatches(position_m, 20, radius_m=30, num_companions=19, num_nearest=4)
    # of the first batch of an epoch, where nothing is placed yet
    drawn = set()
    for number in range(20):
        batches = [b for b in sampler.epoch(number) if {1, 2} <= set(abs(b[1:5] - b[0]))]
        drawn |= {tuple(sorted(batch - batch[0])) for batch in batches}
    assert len(drawn) > 3


def test_neighbours_are_nearest_first_without_the_pair_itself():
    position_m = np.array([[0.0, 0], [3, 4], [0, 0], [0, 6], [60, 0]])  # 2 is where 0 is
    within = NeighbourBatches(position_m, 2, radius_m=6)
    assert list(within.neighbours(0)) == [2, 1, 3]
    assert list(NeighbourBatches(position_m, 2, num_neighbours=2).neighbours(0)) == [2, 1]
    assert list(NeighbourBatches(position_m, 2, num_neighbours=99).neighbours(4))[-1] in {0, 2, 3}


def test_pairs_as_far_apart_as_the_exclusion_may_share_a_batch():
    position_m = np.array([[0.0, 0], [3, 4], [6, 8], [9, 12]])
    options = {"radius_m": 50, "excluding_within_m": 5.0}
    assert [len(batch) for batch in NeighbourBatches(position_m, 4, **options).epoch(0)] == [4]
    options["excluding_within_m"] = 5.001
    assert [len(b) for b in NeighbourBatches(position_m, 4, **options).epoch(0)] == [2, 2]


# On the globe


@pytest.mark.parametrize(
    ("lat_deg", "lon_deg"),
    [((40, 41), (-75, -73)), ((69, 70), (19, 22)), ((-17, -16), (179, 181)), ((88, 90), (0, 360))],
    ids=["New York", "Tromso", "antimeridian", "pole"],
)
def test_neighbours_on_the_globe_are_those_of_the_haversine_in_radians(lat_deg, lon_deg):
    rng = np.random.default_rng(1)
    lat, lon = rng.uniform(*lat_deg, 200), rng.uniform(*lon_deg, 200)
    lon = (lon + 180) % 360 - 180
    apart_m = haversine_m(lat[0], lon[0], lat, lon)
    order = np.argsort(apart_m)[1:]
    nearest = NeighbourBatches.of_lat_lon(lat, lon, 8, num_neighbours=20)
    assert list(nearest.neighbours(0)) == list(order[:20])
    radius_m = apart_m[order[30]] + 1.0
    within = NeighbourBatches.of_lat_lon(lat, lon, 8, radius_m=radius_m)
    assert list(within.neighbours(0)) == [k for k in order if apart_m[k] <= radius_m]


def test_a_long_radius_is_along_the_surface():
    # a quarter of the globe is sqrt(2) radii straight through it
    assert chord_m(EARTH_RADIUS_M * np.pi / 2) == pytest.approx(np.sqrt(2) * EARTH_RADIUS_M)
    assert chord_m(1e9) == pytest.approx(2 * EARTH_RADIUS_M)
    assert np.allclose(sphere_m(0, 90), [0, EARTH_RADIUS_M, 0], atol=1e-6)


def test_batches_on_the_globe_are_of_one_city():
    rng = np.random.default_rng(0)
    city = rng.permutation(np.repeat(np.arange(6), 16))
    lat = np.array([40.7, 47.6, 37.8, 41.9, -35.3, 51.8])[city] + rng.uniform(0, 1e-3, 96)
    lon = np.array([-74.0, -122.3, -122.4, -87.6, 149.1, -1.3])[city] + rng.uniform(0, 1e-3, 96)
    sampler = NeighbourBatches.of_lat_lon(lat, lon, 16, radius_m=200)
    assert all(len(set(city[batch])) == 1 for batch in sampler.epoch(2))


# Look-alikes


def unit_rows(num_rows, width, seed):
    values = np.random.default_rng(seed).normal(size=(num_rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_look_alikes_are_the_most_similar_overhead_images_of_others():
    overhead, ground = unit_rows(60, 8, 0), unit_rows(60, 8, 1)
    ids = (np.arange(60) // 3)[:, None]
    sampler = NeighbourBatches(scattered(60), 6, radius_m=100, excluding=ids)
    similar = sampler.with_similar(overhead, ground, num_neighbours=10)
    for k in range(60):
        order = np.argsort(-(overhead.astype(np.float64) @ ground[k]))
        expected = [j for j in order if ids[j] != ids[k]][:10]
        assert list(similar.neighbours(k)) == expected
    require_partition(similar, 60, 6)


def test_look_alikes_share_batches():
    group = np.random.default_rng(0).permutation(np.repeat(np.arange(8), 8))
    overhead = np.eye(8, dtype=np.float32)[group]
    sampler = NeighbourBatches(scattered(64), 8, radius_m=100)
    similar = sampler.with_similar(overhead, num_neighbours=7, num_companions=7)
    assert all(len(set(group[batch])) == 1 for batch in similar.epoch(0))
    assert len(set(group[sampler.epoch(0)[0]])) > 1


def test_look_alikes_that_are_all_excluded_are_none():
    sampler = NeighbourBatches(scattered(6), 2, radius_m=100, excluding=np.zeros((6, 1), int))
    similar = sampler.with_similar(unit_rows(6, 4, 0), num_neighbours=3)
    assert len(similar.neighbours(0)) == 0
    assert similar.epoch(0) == [] and list(similar.left_out(0)) == list(range(6))


# Few that may be together


def test_batches_stay_small_where_only_few_may_share_one():
    ids = np.arange(1000) % 5
    batches = require_partition(RandomBatches(1000, 32, excluding=ids[:, None]), 1000, 32)
    assert np.mean([len(batch) for batch in batches]) > 4.9


def test_ids_that_are_all_missing_exclude_nothing():
    assert len(RandomBatches(6, 6, excluding=np.full((6, 2), -1)).epoch(0)[0]) == 6


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomBatches(5, 6), "between 2 and the 5 pairs of the dataset, got 6"),
        (lambda: RandomBatches(5, 1), "got 1"),
        (lambda: RandomBatches(5, 2, excluding=np.zeros((4, 1), int)), "4 rows for 5 pairs"),
        (lambda: NeighbourBatches(np.zeros((5, 4)), 2, radius_m=1), r"got shape \(5, 4\)"),
        (lambda: NeighbourBatches([[0, 0], [0, np.nan]], 2, radius_m=1), "that of pair 1 is not"),
        (lambda: NeighbourBatches(scattered(5), 2), "either radius_m or num_neighbours"),
        (lambda: NeighbourBatches(scattered(5), 2, radius_m=-1), "radius_m must be positive"),
        (lambda: NeighbourBatches.of_lat_lon([99, 0], [0, 0], 2, radius_m=1), "Latitudes"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_descriptors_of_another_dataset_or_of_a_diverged_network_are_refused():
    sampler = NeighbourBatches(scattered(6), 2, radius_m=100)
    with pytest.raises(ValueError, match="5 descriptors of 6 pairs"):
        sampler.with_similar(unit_rows(5, 4, 0))
    with pytest.raises(ValueError, match="has training diverged"):
        sampler.with_similar(np.full((6, 4), np.nan, np.float32))
