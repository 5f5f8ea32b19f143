"""Galleries: search and likelihoods against literal loops, and bad input by name."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import shapely
from fakes.galleries import (
    FRAME,
    MODEL,
    PREPROCESSING,
    FakeEncoder,
    Query,
    descriptors,
    gallery,
    picture_descriptor,
    pictures,
    places,
)

from crossview.cell_owners import owners
from crossview.errors import FrameMismatchError, GalleryError, MapOutsideError
from crossview.frames import LocalFrame, Pose
from crossview.gallery import Disc, Gallery
from crossview.gallery_files import Model
from crossview.gallery_search import find
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import Localizer
from crossview.posterior import Posterior

QUERY = descriptors(1, seed=7)[0]


def cells(west_m, north_m, cell_m, height, width):
    return MapGrid(FRAME, west_m, north_m, cell_m, height, width)


def ranked(found, rows, query=QUERY):
    """Rows by falling similarity, one by one."""
    return sorted(rows, key=lambda row: (-float(found.descriptors[row] @ query), row))


def log_mean(values):
    return math.log(sum(math.exp(value) for value in values) / len(values))


# ---------------------------------------------------------------- search


def test_tiles_keep_their_place_name_and_descriptor():
    made = gallery()
    for place, name, row in zip(made.positions_m, made.tile_ids, made.descriptors, strict=True):
        np.testing.assert_array_equal(place, places(400)[int(name)])
        np.testing.assert_array_equal(row, descriptors(400)[int(name)])


def test_search_with_a_disc_is_brute_force():
    made = gallery()
    rng = np.random.default_rng(3)
    for x_m, y_m, radius_m in rng.uniform((-1500, -1500, 200), (1500, 1500, 900), (50, 3)):
        inside = np.flatnonzero(np.hypot(*(made.positions_m - (x_m, y_m)).T) <= radius_m).tolist()
        found = made.search(QUERY, 5, prior=Disc(x_m, y_m, radius_m))
        assert found.rows.tolist() == ranked(made, inside)[:5]
        np.testing.assert_allclose(
            found.similarity, made.descriptors[found.rows] @ QUERY, atol=1e-6
        )


def test_search_with_a_polygon_is_brute_force():
    made, area = gallery(), shapely.Polygon([(-900, -700), (1100, -200), (300, 1200)])
    inside = [i for i, place in enumerate(made.positions_m) if area.covers(shapely.Point(place))]
    assert made.search(QUERY, 9, prior=area).rows.tolist() == ranked(made, inside)[:9]


def test_search_without_a_prior_looks_at_all():
    made = gallery()
    expected = ranked(made, range(400))
    assert made.search(QUERY, 7).rows.tolist() == expected[:7]
    many = made.search_many(np.stack([QUERY, made.descriptors[11]]), 7)
    assert many.rows[0].tolist() == expected[:7]
    assert many.rows[1, 0] == 11
    assert len(made.search(QUERY, 1000).rows) == 400


def test_a_raster_of_probabilities_weighs_against_similarity():
    # scale 10: a similarity 0.1 higher is worth a factor e
    rows = np.array([[1.0, 0, 0], [0.9, math.sqrt(1 - 0.81), 0], [0.8, 0.6, 0]], np.float32)
    made = Gallery.of(
        FRAME, [(-50, 50), (50, 50), (50, -50)], rows, footprint_m=64, model=MODEL, scale=10.0
    )
    query = np.array([1.0, 0, 0], np.float32)
    grid = PoseGrid(cells(-100, 100, 100, 2, 2), 1)

    def order(*mass):
        with np.errstate(divide="ignore"):
            log_mass = np.log(np.array(mass, float).reshape(2, 2, 1) / sum(mass))
        found = made.search(query, 3, prior=Posterior(grid, log_mass))
        return [made.tile_ids[row] for row in found.rows], found.similarity.tolist()

    assert order(1, 1, 5, 1)[0] == ["0", "1", "2"]
    assert order(1, 2.8, 0, 1)[0] == ["1", "0", "2"]  # 2.8 > e
    assert order(1, 2.6, 0, 1)[0] == ["0", "1", "2"]  # 2.6 < e
    names, similarity = order(0, 1, 1, 3)
    assert names == ["2", "1"]
    assert similarity == pytest.approx([0.8, 0.9])


def test_a_raster_needs_a_scale():
    prior = Posterior.flat(PoseGrid(cells(-100, 100, 100, 2, 2), 1))
    with pytest.raises(GalleryError, match="scale"):
        replace(gallery(), scale=None).search(QUERY, 1, prior=prior)


def at(x_m, y_m):
    return Gallery.of(
        FRAME, [(x_m, y_m)], descriptors(1), footprint_m=64, model=MODEL, scale=10.0, name="town"
    )


@pytest.mark.parametrize(
    "prior",
    [
        Disc(0, 0, 60),
        shapely.box(-60, -60, 60, 60),
        # cell centres reach 20 m less than the edge
        Posterior.flat(PoseGrid(cells(-60 - 20, 20, 40, 1, 4), 1)),
    ],
    ids=["disc", "polygon", "raster"],
)
def test_no_tile_inside_of_the_prior_says_how_far_the_nearest_is(prior):
    with pytest.raises(MapOutsideError, match=r"'town'.*the nearest is 340 m away"):
        at(400, 0).search(QUERY, 1, prior=prior)


def test_no_tile_on_the_grid_says_how_far_the_nearest_is():
    grid = PoseGrid(cells(-60, 60, 10, 12, 12), 1)
    with pytest.raises(MapOutsideError, match="the nearest is 340 m away"):
        at(0, -400).log_likelihood(QUERY, grid)
    at(91, 0).log_likelihood(QUERY, grid)  # its edge, 32 m from its middle, reaches the grid


def test_of_several_descriptors_the_best_counts():
    made = gallery()
    other = descriptors(1, seed=8)[0]
    similarity = np.maximum(made.descriptors @ QUERY, made.descriptors @ other)
    found = made.search(np.stack([QUERY, other]), 6)
    assert found.rows.tolist() == np.argsort(-similarity)[:6].tolist()
    np.testing.assert_allclose(found.similarity, np.sort(similarity)[::-1][:6], atol=1e-6)


# ---------------------------------------------------------------- likelihood


def literal_owner(made, x_m, y_m):
    """The nearest tile, by the larger offset, that holds a place."""
    half_m = made.footprint_m / 2
    offsets = np.abs(made.positions_m - (x_m, y_m)).max(axis=1)
    return int(np.argmin(offsets)) if offsets.min() <= half_m else None


@pytest.mark.parametrize("cell_m", [7.0, 16.0])
def test_a_cell_has_the_value_of_the_nearest_tile_that_holds_it(cell_m):
    made = gallery(2000)
    grid = PoseGrid(cells(-310.0, 280.0, cell_m, 30, 40), 4)
    found = made.log_likelihood(QUERY, grid)
    assert found.shape == (30, 40, 1)
    scores = [10.0 * float(row @ QUERY) for row in made.descriptors]
    level = log_mean(scores)
    center_x, center_y = grid.map.centers()
    covered = 0
    for i, y_m in enumerate(center_y):
        for j, x_m in enumerate(center_x):
            owner = literal_owner(made, x_m, y_m)
            covered += owner is not None
            expected = 0.0 if owner is None else scores[owner] - level
            assert found[i, j, 0] == pytest.approx(expected, abs=1e-5)
    assert 0.3 < covered / (30 * 40) < 0.95


def test_zero_is_the_mean_likelihood_of_all_tiles():
    # a lattice without gaps: every tile owns 16 cells of a grid that holds them all
    lattice = np.array([(64.0 * i, 64.0 * k) for i in range(6) for k in range(5)])
    made = Gallery.of(FRAME, lattice, descriptors(30), footprint_m=64, model=MODEL, scale=10.0)
    grid = PoseGrid(cells(-32, 4 * 64 + 32, 16, 20, 24), 1)
    found = made.log_likelihood(QUERY, grid)
    assert np.ptp(found) > 3
    assert log_mean(found.ravel().tolist()) == pytest.approx(0, abs=1e-5)
    # so a place beyond the tiles is as probable after the query as before
    wider = PoseGrid(grid.map.padded(64), 1)
    posterior = Posterior.flat(wider).update(made.log_likelihood(QUERY, wider))
    outside = np.ones(wider.map.shape, bool)
    outside[4:-4, 4:-4] = False
    assert posterior.position()[outside].sum() == pytest.approx(outside.mean(), rel=1e-4)


def test_the_value_of_a_place_does_not_depend_on_the_window():
    made = gallery()
    whole = PoseGrid(cells(-400, 400, 10, 80, 80), 1)
    part = PoseGrid(whole.map.shifted(rows=20, cols=30), 1)
    part = PoseGrid(replace(part.map, height=25, width=15), 1)
    found = made.log_likelihood(QUERY, whole)[20:45, 30:45]
    np.testing.assert_allclose(made.log_likelihood(QUERY, part), found, atol=1e-6)


def test_a_cell_coarser_than_tiles_has_the_mean_likelihood_inside_of_it():
    lattice = np.array([(32.0 + 64 * i, 32.0 + 64 * k) for i in range(2) for k in range(2)])
    made = Gallery.of(FRAME, lattice, descriptors(4), footprint_m=64, model=MODEL, scale=10.0)
    grid = PoseGrid(cells(0, 128, 128, 1, 1), 1)
    assert made.log_likelihood(QUERY, grid).item() == pytest.approx(0, abs=1e-5)
    wider = PoseGrid(cells(0, 128, 256, 1, 1), 1)  # three quarters of it have no tile: 0
    assert made.log_likelihood(QUERY, wider).item() == pytest.approx(0, abs=1e-5)
    fine = made.log_likelihood(QUERY, PoseGrid(cells(0, 128, 16, 8, 4), 1))
    west = PoseGrid(cells(0, 128, 64, 2, 1), 1)
    expected = [log_mean(fine[:4].ravel().tolist()), log_mean(fine[4:].ravel().tolist())]
    np.testing.assert_allclose(made.log_likelihood(QUERY, west).ravel(), expected, atol=1e-5)


def test_tiles_far_smaller_than_cells_are_not_missed():
    owner = owners(np.array([(5.0, -5.0)]), 2.0, cells(0, 0, 1.0, 10, 10))
    assert (owner == 0).sum() == 4
    made = Gallery.of(
        FRAME, [(5.0, -5.0), (500, 0)], descriptors(2), footprint_m=2.0, model=MODEL, scale=30.0
    )
    coarse = made.log_likelihood(made.descriptors[0], PoseGrid(cells(0, 0, 10.0, 1, 1), 1)).item()
    gain = math.exp(30 * 1.0 - log_mean([30.0, 30 * float(np.dot(*made.descriptors))]))
    # the tile has 4 of 100 square metres
    assert coarse == pytest.approx(math.log(0.04 * gain + 0.96), abs=1e-4)


# ---------------------------------------------------------------- probabilities


def test_tiles_and_none_of_them_share_one():
    made = gallery(30)
    scores = [10.0 * float(row @ QUERY) for row in made.descriptors]
    level = log_mean(scores)
    inside = np.flatnonzero(np.hypot(*made.positions_m.T) <= 900)
    found = made.probabilities(QUERY, prior=Disc(0, 0, 900), none=0.2)
    joint = [0.8 / len(inside) * math.exp(scores[row] - level) for row in inside]
    total = sum(joint) + 0.2
    assert found.rows.tolist() == inside.tolist()
    np.testing.assert_allclose(found.probability, np.array(joint) / total, rtol=1e-4)
    assert found.none == pytest.approx(0.2 / total, rel=1e-4)


def test_with_all_tiles_none_is_as_probable_as_before():
    found = gallery(30).probabilities(QUERY, none=0.3)
    assert found.none == pytest.approx(0.3, rel=1e-5)
    assert found.probability.sum() + found.none == pytest.approx(1)


def test_none_is_probable_where_the_prior_holds_worse_tiles_only():
    made = gallery(400, scale=40.0)
    best = made.search(QUERY, 1).rows[0]
    x_m, y_m = made.positions_m[best]
    there = made.probabilities(QUERY, prior=Disc(x_m, y_m, 150), none=0.1)
    elsewhere = made.probabilities(QUERY, prior=Disc(-x_m, -y_m, 150), none=0.1)
    assert there.none < 0.01
    assert elsewhere.none > 0.5


def test_a_posterior_weighs_tiles():
    made = town(4)
    grid = PoseGrid(cells(-32, 352, 64, 6, 10), 1)
    rng = np.random.default_rng(1)
    prior = Posterior.flat(grid).update(rng.normal(0, 2, (6, 10, 1)))
    found = made.probabilities(seen_at(23, 90), prior=prior, none=0.0)
    posterior = prior.update(made.log_likelihood(seen_at(23, 90), grid))
    for row, probability in zip(found.rows, found.probability, strict=True):
        at = grid.map.cell_of(*made.positions_m[row])
        assert probability == pytest.approx(posterior.position()[at], rel=1e-3, abs=1e-9)


def test_a_place_belongs_to_the_tile_that_owns_its_cell():
    made = gallery(2000)
    for x_m, y_m in places(300, half_m=1600, seed=9):
        assert made.owner_of(x_m, y_m) == literal_owner(made, x_m, y_m)


def test_none_must_be_a_probability():
    with pytest.raises(ValueError, match="none must be"):
        gallery().probabilities(QUERY, none=1.0)


# ---------------------------------------------------------------- headings


def town(num_headings, count=60, **options):
    """A lattice of pictures, described by the fake encoder."""
    lattice = np.array([(64.0 * (i % 10), 64.0 * (i // 10)) for i in range(count)])
    encoder = FakeEncoder()
    described = encoder.describe_tiles(pictures(count))
    return Gallery.of(
        FRAME, lattice, described, footprint_m=64, model=MODEL, encoder=encoder, scale=20.0,
        num_headings=num_headings, **options,
    )  # fmt: skip


ROW_23 = town(1).tile_ids.tolist().index("23")
"""Where the tile is in strips."""


def seen_at(number, heading_deg, *, stated_deg=None):
    """What a camera sees that looks there: the tile turned until the heading is up."""
    return Query(np.rot90(pictures(60)[number], round(heading_deg / 90)), stated_deg)


@pytest.mark.parametrize("heading_deg", [0, 90, 180, 270])
def test_the_heading_is_the_bin_whose_descriptor_fits(heading_deg):
    made = town(4)
    grid = PoseGrid(cells(-32, 6 * 64 - 32, 16, 24, 40), 4)
    posterior = Posterior.flat(grid).update(made.log_likelihood(seen_at(23, heading_deg), grid))
    best = posterior.mode()
    assert best.heading_deg == heading_deg
    assert abs(best.x_m - 64 * 3) < 32
    assert abs(best.y_m - 64 * 2) < 32
    assert posterior.heading()[heading_deg // 90] > 0.95


def test_without_bins_in_the_grid_headings_are_averaged():
    made = town(4)
    query = seen_at(23, 90)
    four = made.log_likelihood(query, PoseGrid(cells(-32, 352, 16, 24, 40), 4))
    one = made.log_likelihood(query, PoseGrid(cells(-32, 352, 16, 24, 40), 1))
    assert one.shape == (24, 40, 1)
    np.testing.assert_allclose(one[..., 0], np.log(np.exp(four).mean(axis=2)), atol=1e-4)


def test_bins_of_another_number_share_what_they_overlap():
    made = town(4)
    query = seen_at(23, 90)
    four = made.log_likelihood(query, PoseGrid(cells(-32, 352, 16, 24, 40), 4))
    eight = made.log_likelihood(query, PoseGrid(cells(-32, 352, 16, 24, 40), 8))
    # bin 1 of 8 spans 22.5 to 67.5 degrees: half of bin 0 of 4 and half of bin 1
    np.testing.assert_allclose(eight[..., 2], four[..., 1], atol=1e-4)
    half = np.log((np.exp(four[..., 0]) + np.exp(four[..., 1])) / 2)
    np.testing.assert_allclose(eight[..., 1], half, atol=1e-4)


def test_one_descriptor_holds_for_every_heading():
    made = town(1)
    grid = PoseGrid(cells(-32, 352, 16, 24, 40), 8)
    assert made.log_likelihood(seen_at(23, 0, stated_deg=0.0), grid).shape == (24, 40, 1)


def test_a_query_is_described_at_the_heading_that_it_states():
    made = town(1)
    for heading_deg in (0, 90, 270):
        query = seen_at(23, heading_deg, stated_deg=float(heading_deg))
        np.testing.assert_allclose(made.described(query), made.descriptors[[ROW_23]], atol=1e-6)
    query = seen_at(23, 180)
    np.testing.assert_allclose(
        made.described(query, heading_deg=180.0), made.descriptors[[ROW_23]], atol=1e-6
    )
    assert made.search(made.described(query, heading_deg=180.0), 1).rows.tolist() == [ROW_23]
    assert len(town(4).described(query)) == 4  # what it states is no more than one of them
    assert len(town(4).described(query, heading_deg=180.0)) == 1


def test_headings_are_counted_from_the_tiles_and_not_from_true_north():
    asked = []

    class Asking(FakeEncoder):
        def describe(self, query, headings_deg=None):
            asked.extend(headings_deg)
            return super().describe(query, headings_deg)

    made = town(1)
    far_east = made.positions_m + np.array([30_000.0, 0.0])
    made = replace(made, positions_m=far_east, encoder=Asking())
    made.described(seen_at(23, 90, stated_deg=90.0))
    true_north = FRAME.geo_pose(Pose(*far_east.mean(axis=0), asked[0])).heading_deg
    assert true_north == pytest.approx(90.0)
    assert asked[0] < 90 - 0.3


def test_nobody_is_taken_to_look_north():
    """A query without a heading would have the likelihood of one that looks north."""
    made = town(1)
    grid = PoseGrid(cells(-32, 352, 16, 24, 40), 8)
    for ask in (
        lambda: made.log_likelihood(seen_at(23, 90), grid),
        lambda: made.search(seen_at(23, 90), 1),
        lambda: made.probabilities(seen_at(23, 90)),
        lambda: made.described(object()),
    ):
        with pytest.raises(GalleryError, match=r"does not say where it looks.*--headings 16"):
            ask()
    town(4).log_likelihood(seen_at(23, 90), grid)


def test_an_encoder_that_was_trained_for_any_heading_needs_none():
    encoder = FakeEncoder()
    encoder.heading_spread_deg = 180.0
    made = replace(town(1), encoder=encoder)
    straight = made.described(seen_at(23, 90), heading_deg=made.convergence_deg)
    np.testing.assert_array_equal(made.described(seen_at(23, 90)), straight)
    encoder.heading_spread_deg = 90.0
    with pytest.raises(GalleryError, match="--heading-spread-deg 180"):
        made.described(seen_at(23, 90))


class Limited(FakeEncoder):
    """Sees 90 degrees around the middle of a query, wherever it looks."""

    def __init__(self):
        super().__init__(preprocessing=replace(PREPROCESSING, fov_deg=90.0))

    def describe(self, query, headings_deg=None):
        assert headings_deg is None
        return picture_descriptor(query.image)


class LimitedThatOrients(FakeEncoder):
    """The same with descriptors that can be turned."""

    def __init__(self):
        super().__init__(preprocessing=replace(PREPROCESSING, fov_deg=90.0))

    def similarities(self, overhead, ground):
        """Of the best of four turns."""
        turned = [np.rot90(ground.reshape(-1, 4, 4), -k, (1, 2)) for k in range(4)]
        return np.max([overhead @ each.reshape(-1, 16).T for each in turned], axis=0)

    def headings_deg(self, overhead, ground):
        turned = [np.rot90(ground.reshape(-1, 4, 4), -k, (1, 2)) for k in range(4)]
        return 90.0 * np.argmax([overhead @ each.reshape(-1, 16).T for each in turned], axis=0)


def of_encoder(encoder, **options):
    made = town(1)
    return replace(made, model=Model.of(encoder), encoder=encoder, **options)


def test_an_encoder_that_sees_no_heading_needs_none_and_gets_none():
    made = of_encoder(Limited())
    np.testing.assert_allclose(
        made.described(seen_at(23, 0)), made.descriptors[[ROW_23]], atol=1e-6
    )
    same = made.described(seen_at(23, 0), heading_deg=120.0)
    np.testing.assert_allclose(same, made.descriptors[[ROW_23]], atol=1e-6)
    with pytest.raises(GalleryError, match=r"'fake' with fov_deg=90.*4 headings"):
        of_encoder(Limited(), num_headings=4)


def test_a_limited_view_that_knows_its_heading_is_asked_for_it():
    made = of_encoder(LimitedThatOrients())
    for query, heading_deg in ((seen_at(23, 90, stated_deg=90.0), None), (seen_at(23, 90), 90.0)):
        described = made.described(query, heading_deg=heading_deg)
        np.testing.assert_allclose(described, made.descriptors[[ROW_23]], atol=1e-6)
    assert len(of_encoder(LimitedThatOrients(), num_headings=4).described(seen_at(2, 0))) == 4


# ---------------------------------------------------------------- one query answered


def test_what_is_found_has_names_places_and_probabilities():
    made = town(4)
    found = find(made, seen_at(23, 90), 3)
    expected = made.search(seen_at(23, 90), 3)
    assert found.ranking.rows.tolist() == expected.rows.tolist()
    assert [tile.tile_id for tile in found.tiles] == made.tile_ids[expected.rows].tolist()
    best, stated = found.tiles[0], made.probabilities(seen_at(23, 90))
    assert FRAME.to_local(best.lat_deg, best.lon_deg) == pytest.approx((64 * 3, 64 * 2), abs=1e-6)
    assert best.probability == pytest.approx(stated.probability[ROW_23])
    assert found.probability_none == pytest.approx(stated.none)
    assert found.to_json()["found"][0] == {
        "tile_id": best.tile_id, "similarity": best.similarity, "lat_deg": best.lat_deg,
        "lon_deg": best.lon_deg, "probability": best.probability,
    }  # fmt: skip
    bare = find(replace(made, scale=None), seen_at(23, 90), 3)
    assert bare.probability_none is bare.tiles[0].probability is None
    assert list(bare.to_json()) == ["gallery", "found"]


def test_a_known_heading_is_one_of_the_headings():
    """Of a town whose tile 40 looks like tile 23 to somebody who looks elsewhere."""
    made = town(4)
    rows = made.descriptors.copy()
    rows[40] = picture_descriptor(np.rot90(pictures(60)[23], 1))
    made = replace(made, descriptors=rows)
    assert find(made, seen_at(23, 90), 2).tiles[1].similarity == pytest.approx(1, abs=1e-5)
    told = find(made, seen_at(23, 90), 2, heading_deg=90.0)
    assert told.ranking.rows[0] == ROW_23
    assert told.tiles[1].similarity < 0.95
    stated = find(made, seen_at(23, 90, stated_deg=90.0), 2)
    assert stated.to_json() == told.to_json()


@pytest.mark.parametrize("prior", [None, Disc(64 * 3, 64 * 2, 150)])
def test_an_encoder_that_finds_headings_is_asked_where_nobody_knows(prior, caplog):
    made = of_encoder(LimitedThatOrients())
    query = seen_at(23, 90)
    literal = [
        max(float(row @ picture_descriptor(np.rot90(query.image, -k))) for k in range(4))
        for row in made.descriptors
    ]
    inside = made.rows_inside(prior)
    found = find(made, query, 4, prior=prior)
    assert found.ranking.rows.tolist() == sorted(inside, key=lambda row: -literal[row])[:4]
    np.testing.assert_allclose(
        found.ranking.similarity, np.array(literal)[found.ranking.rows], atol=1e-6
    )
    assert found.tiles[0].heading_deg == pytest.approx(90.0, abs=0.01)
    assert found.tiles[0].probability is None
    assert found.probability_none is None
    assert "looks 90 deg" in found.sentences()
    assert "No probabilities are stated" in caplog.text
    told = find(made, query, 4, prior=prior, heading_deg=90.0)
    assert told.tiles[0].probability > 0.5
    assert told.tiles[0].heading_deg is None


def test_a_place_far_away_is_said_to_be():
    made = town(1)
    with pytest.raises(MapOutsideError, match="about 1112 km from the gallery"):
        made.disc(FRAME.lat_deg - 10.0, FRAME.lon_deg, 200.0)  # a degree of a sphere is 111.195 km
    disc = made.disc(*FRAME.to_geodetic(100.0, 50.0), 200.0)
    assert (disc.x_m, disc.y_m, disc.radius_m) == pytest.approx((100.0, 50.0, 200.0))


# ---------------------------------------------------------------- coarse cells


def literal_spread(made, scores, grid, parts):
    """The log of the mean likelihood of the parts of every cell, all of them at once."""
    fine = grid.map.divided(parts)
    owner = owners(made.positions_m, made.footprint_m, fine)
    values = np.concatenate([scores, np.zeros((1, scores.shape[1]))]).astype(np.float32)
    height, width = grid.map.shape
    closely = values[owner].reshape(height, parts, width, parts, -1).astype(np.float64)
    peak = closely.max(axis=(1, 3), keepdims=True)
    mean = np.exp(closely - peak).mean(axis=(1, 3))
    return np.log(mean) + peak[:, 0, :, 0]


@pytest.mark.parametrize(("cell_m", "parts"), [(24.0, 2), (64.0, 4), (150.0, 10)])
@pytest.mark.parametrize("num_headings", [1, 8])
def test_bands_of_coarse_cells_are_all_of_them_at_once(monkeypatch, cell_m, parts, num_headings):
    made = gallery(3000, num_headings=num_headings, scale=40.0)
    grid = PoseGrid(cells(-800, 700, cell_m, 11, 13), num_headings)
    similarity = made.descriptors @ descriptors(num_headings, seed=5).T
    level = np.log(np.exp(40.0 * similarity.astype(float)).mean())
    expected = literal_spread(made, 40.0 * similarity.astype(float) - level, grid, parts)
    whole = made.log_likelihood_of(similarity, grid)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    monkeypatch.setattr("crossview.cell_owners._PARTS_AT_ONCE", 600)
    banded = replace(made).log_likelihood_of(similarity, grid)
    np.testing.assert_array_equal(banded, whole)


@pytest.mark.parametrize("num_headings", [1, 16])
@pytest.mark.parametrize(("cell_m", "count"), [(32.0, 240), (64.0, 120), (128.0, 60)])
def test_coarse_grids_take_little_more_memory_than_their_answer(cell_m, count, num_headings):
    lattice = np.stack(np.meshgrid(np.arange(60), np.arange(60)), -1).reshape(-1, 2) * 128.0
    made = Gallery.of(
        FRAME, lattice, descriptors(3600), footprint_m=64, model=MODEL, scale=20.0,
        num_headings=num_headings,
    )  # fmt: skip
    query = np.repeat(QUERY[None], num_headings, axis=0)
    grid = PoseGrid(cells(0, 60 * 128, cell_m, count, count), num_headings)
    made.probabilities(query)  # what every grid needs is there
    tracemalloc.start()
    answer = made.log_likelihood(query, grid)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * answer.nbytes + 8e6


# ---------------------------------------------------------------- messages


def test_a_gallery_without_a_name_has_none_in_messages():
    with pytest.raises(GalleryError, match="Nobody has fitted the scale of the gallery, so"):
        gallery(name="", scale=None).probabilities(QUERY)


def test_given_similarities_are_taken_as_the_descriptors_would_be():
    made = town(4)
    grid = PoseGrid(cells(-32, 352, 16, 24, 40), 8)
    query = seen_at(23, 90)
    given = made.descriptors @ made.described(query).T
    np.testing.assert_allclose(
        made.log_likelihood_of(given, grid), made.log_likelihood(query, grid), atol=1e-4
    )
    assert made.log_likelihood_of(given[:, 0], grid).shape == (24, 40, 1)
    given[7, 1] = np.nan
    with pytest.raises(GalleryError, match="finite"):
        made.log_likelihood_of(given, grid)
    with pytest.raises(GalleryError, match="60 tiles"):
        made.log_likelihood_of(given[:59], grid)


# ---------------------------------------------------------------- the localizer


class Blind:
    """A matcher that knows nothing."""

    cell_m, num_headings, reach_m, map_parts, scale = 4.0, 4, 0.0, 1, 1.0

    def log_likelihood(self, query, map_raster, grid, *, headings=None):
        return np.zeros((1, 1, 1), np.float32)


def test_the_localizer_looks_where_the_gallery_says():
    made = town(4)
    localizer = Localizer(lambda grid: None, Blind(), gallery=made, max_windows=2)
    prior = Posterior.flat(PoseGrid(cells(-32, 352, 8, 48, 80), 4))
    answer = localizer.localize(seen_at(37, 180), prior)
    pose = answer.best.mode()
    assert abs(pose.x_m - 64 * 7) <= 32
    assert abs(pose.y_m - 64 * 3) <= 32
    assert pose.heading_deg == 180
    assert answer.weights[0] > 0.9


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.full(16, np.nan, np.float32), "NaN"),
        (np.full(16, 0.5, np.float32), "length"),
        (QUERY[:8], "16 dimensions"),
    ],
    ids=["NaN", "long", "short"],
)
def test_a_query_that_is_no_descriptor_is_refused(query, message):
    made, grid = gallery(), PoseGrid(cells(-60, 60, 10, 12, 12), 1)
    for ask in (
        lambda: made.search(query, 1),
        lambda: made.search_many(query[None], 1),
        lambda: made.log_likelihood(query, grid),
    ):
        with pytest.raises(GalleryError, match=message):
            ask()


def test_a_tile_with_nan_is_refused_by_name():
    rows = descriptors(3)
    rows[1, 4] = np.nan
    with pytest.raises(GalleryError, match=r"'1'.* NaN"):
        Gallery.of(FRAME, places(3), rows, footprint_m=64, model=MODEL)


def test_another_model_is_refused_by_name():
    made = gallery()
    for encoder, message in (
        (FakeEncoder(fingerprint="cd" * 32), r"'fake' \(abababababab\).*other weights"),
        (
            FakeEncoder(fingerprint="cd" * 32, architecture="safa"),
            r"encoder is 'safa' \(cdcdcdcdcdcd\): another architecture",
        ),
        (
            FakeEncoder(
                fingerprint="cd" * 32, preprocessing=replace(PREPROCESSING, ground_px=(8, 16))
            ),
            r"another preprocessing \(ground_px \[8, 8\] there and \[8, 16\] here\)",
        ),
    ):
        with pytest.raises(GalleryError, match=message):
            replace(made, encoder=encoder)
    assert replace(made, encoder=FakeEncoder()).encoder is not None


def test_another_frame_is_refused():
    grid = PoseGrid(MapGrid(LocalFrame(52.5, 13.5), -60, 60, 10, 12, 12), 1)
    with pytest.raises(FrameMismatchError):
        gallery().log_likelihood(QUERY, grid)
    with pytest.raises(FrameMismatchError):
        gallery().search(QUERY, 1, prior=Posterior.flat(grid))


def test_what_is_missing_is_said():
    grid = PoseGrid(cells(-60, 60, 10, 12, 12), 1)
    with pytest.raises(GalleryError, match="'town' was loaded without an encoder"):
        gallery().search(Query(pictures(1)[0]), 1)
    with pytest.raises(GalleryError, match="fitted the scale of the gallery 'town'"):
        replace(gallery(), scale=None).log_likelihood(QUERY, grid)
    with pytest.raises(GalleryError, match="3 descriptors"):
        town(4).log_likelihood(descriptors(3), grid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": -1.0}, "scale"),
        ({"footprint_m": 0.0}, "footprint_m"),
        ({"num_headings": 5}, "multiple of 4"),
        ({"tile_ids": np.array(["a"])}, "1 names"),
        ({"positions_m": places(400)}, "strips"),
    ],
)
def test_a_gallery_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(gallery(), **change)


def test_arrays_of_a_gallery_are_read_only():
    made = gallery()
    for array in (made.positions_m, made.descriptors):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0


def test_float16_ranks_like_the_same_numbers_in_float32():
    half = descriptors(400).astype(np.float16)
    made = Gallery.of(FRAME, places(400), half, footprint_m=64, model=MODEL, scale=10.0)
    same = Gallery.of(
        FRAME, places(400), half.astype(np.float32), footprint_m=64, model=MODEL, scale=10.0
    )
    prior = Disc(0, 0, 900)
    np.testing.assert_array_equal(
        made.search(QUERY, 20, prior=prior).rows, same.search(QUERY, 20, prior=prior).rows
    )
    assert made.descriptors.dtype == np.float16


def test_the_model_says_what_an_encoder_is():
    assert Model.of(FakeEncoder()) == MODEL
