"""Retrieval from a dataset to a trained encoder and its recalls, by the commands."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pytest import approx

from crossview import retrieval_training
from crossview.augmentation import Augmentation, Variation, seen
from crossview.cameras import Equirectangular
from crossview.cli import main
from crossview.datasets import ManifestPairs, RenderedBatches, readable, require_room
from crossview.describers import PixelCorrelation
from crossview.errors import ManifestError
from crossview.manifest import Manifest
from crossview.nn.encoders import load_encoder, save_encoder
from crossview.nn.losses import contrastive_loss
from crossview.pairs import PairTable, cut, east_north_m, offset_m
from crossview.photos import Panorama
from crossview.preprocessing import UNSEEN_RGB, Preprocessing
from crossview.retrieval import Exam, Seeing
from crossview.sampling import NeighbourBatches, RandomBatches
from crossview.synthetic.on_the_fly import RenderedPairs
from crossview.synthetic.worlds import World
from crossview.training import Options

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.usefixtures("loggers_as_they_were"),
]

SMALL = Preprocessing((16, 64), (16, 64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("numba")
    out = tmp_path_factory.mktemp("towns") / "towns"
    arguments = "synthesize --town 1,2 --views 12 --width 128 --height 64 --tile-px 64"
    arguments += " --cell-m 1 --heading-spread-deg 180 --randomness 0 --traffic 0 --workers 1"
    main([*arguments.split(), "--out", str(out)], standalone_mode=False)
    return out


@pytest.fixture(scope="module")
def manifest(folder):
    return Manifest.load(folder)


def test_pairs_are_views_with_their_tiles_and_regions_lie_apart(manifest):
    table = PairTable.of(manifest)
    assert len(table) == 24
    assert table.view_ids[0].startswith("town-1") and table.view_ids[-1].startswith("town-2")
    apart_m = np.linalg.norm(table.position_m[:12, None] - table.position_m[None, 12:], axis=-1)
    assert apart_m.min() > 50_000
    within_m = np.linalg.norm(table.position_m[0] - table.position_m[1:12], axis=-1)
    x_m, y_m = manifest.pose(table.view_ids[3]).x_m, manifest.pose(table.view_ids[3]).y_m
    assert table.position_m[3] == approx((x_m, y_m)) and within_m.max() < 1000


def test_a_split_without_pairs_is_refused(manifest):
    with pytest.raises(ManifestError, match="no pairs of split 'train'"):
        PairTable.of(manifest, split="train")


def test_grey_levels_correlate_whatever_the_exposure():
    rng = np.random.default_rng(0)
    images = rng.integers(20, 120, (3, 16, 64, 3)).astype(np.uint8)
    pixels = PixelCorrelation(SMALL)
    one, other = pixels.ground_descriptors(images), pixels.overhead_descriptors(2 * images + 10)
    grey = images.mean(axis=3).reshape(3, -1)
    assert one @ other.T == approx(np.corrcoef(grey), abs=1e-5)
    with pytest.raises(ValueError, match="one size"):
        PixelCorrelation(Preprocessing((16, 64), (16, 32)))


def test_an_exam_turns_queries_and_describes_all_tiles(manifest):
    """The descriptor is the brightest column, which a turn moves; tiles are as they are."""

    class Brightest:
        preprocessing = SMALL

        def ground_descriptors(self, images):
            columns = images.astype(float).sum(axis=(1, 3)).argmax(axis=1)
            return np.eye(64, dtype=np.float32)[columns]

        overhead_descriptors = ground_descriptors

    exam = Exam.of(manifest)
    plain, again = (exam.query_descriptors(Brightest(), Seeing(0.0))[1] for _ in range(2))
    numbers, turned = exam.query_descriptors(Brightest(), Seeing(180.0, seed=3))
    assert np.array_equal(plain, again) and numbers.tolist() == list(range(24))
    for number in range(24):
        rng = np.random.default_rng([3, number])
        columns = round(rng.uniform(-180, 180) / 360 * 64)
        assert (plain[number].argmax() + columns - turned[number].argmax()) % 64 == 0
    _, tiles = exam.tile_descriptors(Brightest())
    own = SMALL.overhead(manifest.tile_pixels(exam.tile_ids[5]))
    assert tiles.shape == (24, 64)
    assert np.array_equal(tiles[5], Brightest().overhead_descriptors(own[None])[0])


def test_a_local_recall_has_fewer_tiles_and_is_no_worse(manifest):
    exam = Exam.of(manifest)
    rng = np.random.default_rng(0)
    queries, tiles = rng.normal(size=(2, 24, 8)).astype(np.float32)
    queries, tiles = (rows / np.linalg.norm(rows, axis=1)[:, None] for rows in (queries, tiles))
    found = exam.result(queries, tiles, prior_radius_m=60.0)
    assert found["local_num_tiles"] < 12 and found["local_recall_1"] >= found["recall_1"]


def test_one_descriptor_for_everything_finds_what_chance_finds(manifest):
    same = np.tile(np.float32([1, 0, 0]), (24, 1))
    found = Exam.of(manifest).result(same, same, prior_radius_m=1e9)
    assert found["recall_1"] == approx(1 / 24) and found["local_recall_5"] == approx(5 / 24)
    assert found["any_within_5m_1"] == approx(1 / 24, rel=0.2)


def test_metres_are_those_of_the_first_tile(manifest):
    """Every query finds the tile of the next one."""
    exam = Exam.of(manifest)
    queries = np.eye(24, dtype=np.float32)
    found = exam.result(queries, np.roll(queries, 1, axis=0))
    apart_m = exam.tile_position_m[np.roll(np.arange(24), -1)] - exam.table.position_m
    inside = (np.abs(apart_m).max(axis=1) <= 32).mean()
    assert set(exam.side_m) == {64}
    assert found["recall_1"] == 0 and found["contains_camera_1"] == inside
    assert found["median_error_m"] == approx(np.median(np.linalg.norm(apart_m, axis=1)), rel=1e-6)


# ---------------------------------------------------------------- what a camera sees


def columns(count=8):
    """One row whose colours say where each column looks."""
    image = np.zeros((1, count, 3), np.uint8)
    image[0, :, 0] = np.arange(count)
    return image


def test_turning_brings_the_north_to_the_stated_heading():
    turned = seen(columns(), turn_deg=90.0, fov_deg=360.0)
    # what was in the middle, at column 4, is a quarter of the columns farther to the right
    assert turned[0, :, 0].tolist() == [6, 7, 0, 1, 2, 3, 4, 5]


def test_a_narrow_camera_sees_its_part_and_the_rest_is_grey():
    found = seen(columns(), fov_deg=90.0, middle_deg=0.0)
    assert found[0, :, 0].tolist()[3:5] == [3, 4]
    assert (found[0, [0, 1, 2, 5, 6, 7]] == UNSEEN_RGB).all()
    behind = seen(columns(), fov_deg=90.0, middle_deg=180.0)
    assert behind[0, [0, 7], 0].tolist() == [0, 7] and (behind[0, 1:7] == UNSEEN_RGB).all()


def test_both_images_of_a_pair_are_varied_together():
    """A polar tile that equals the panorama still does; a square one turns as the world does."""
    for number in range(8):
        varied = Augmentation().draw(np.random.default_rng(number))
        ground, overhead = (
            varied.of_ground(columns(), Preprocessing((1, 8), (1, 8))),
            varied.of_overhead(columns(), is_polar=True),
        )
        assert np.array_equal(ground, overhead)
    polar = Preprocessing((4, 64), (4, 64))
    tile = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    tile = tile.repeat(4, axis=0).repeat(4, axis=1)
    for number in range(8):
        varied = Augmentation().draw(np.random.default_rng(number))
        ground = varied.of_ground(polar.overhead(tile), polar)
        square = varied.of_overhead(tile, is_polar=False)
        difference = polar.overhead(square).astype(float) - ground
        assert np.abs(difference).mean() < 3.0, number


def test_a_part_of_a_tile_lies_where_it_is_said_to():
    tile = np.arange(100).reshape(10, 10, 1) + np.zeros(3, int)
    part = cut(tile, 2.0, 12.0, shift_m=(2.0, 4.0))  # one column right, two rows up
    assert part.shape == (6, 6, 3) and part[0, 0, 0] == 3 and part[-1, -1, 0] == 58
    assert cut(tile, 2.0, None) is tile
    with pytest.raises(ManifestError, match="20 m does not hold a square of 12 m that is 6 m east"):
        cut(tile, 2.0, 12.0, shift_m=(6.0, 0.0))


def test_overhead_images_are_shifted_within_their_tiles(manifest):
    """Those of an epoch are parts of the tile, a square of 48 m of 64 m, off its middle."""
    small = dataclasses.replace(SMALL, footprint_m=48.0)
    plain = Augmentation(is_turned=False, is_mirrored=False, shift_m=8.0)
    pairs = ManifestPairs(manifest, small, RandomBatches(24, 6), augmentation=plain, seed=2)
    batch = pairs[0][0]["overhead"]
    rows = RandomBatches(24, 6).epoch(0)[0]
    for row, seen_tile in zip(rows.tolist(), batch, strict=True):
        east_m, north_m = np.random.default_rng([2, 0, row]).uniform(-8, 8, 2)
        tile = manifest.tile_pixels(pairs.table.tile_ids[row])
        top, left = 8 - round(north_m), 8 + round(east_m)
        expected = small.overhead(tile[top : top + 48, left : left + 48])
        assert np.array_equal(seen_tile, expected)
        centred = pairs.overhead(pairs.table.tile_ids[row])
        assert np.array_equal(centred, small.overhead(tile[8:56, 8:56]))
    with pytest.raises(ValueError, match="footprint_m"):
        ManifestPairs(manifest, SMALL, RandomBatches(24, 6), augmentation=plain)


def test_a_batch_depends_on_seed_and_epoch_alone(manifest):
    batches = RandomBatches(24, 6, seed=1)
    options = {"augmentation": Augmentation(10.0), "seed": 4}
    one = ManifestPairs(manifest, SMALL, batches, **options)
    other = ManifestPairs(manifest, SMALL, batches, **options)
    other[0]
    one.epoch = other.epoch = 2
    for (images, facts), (same, as_well) in zip(
        (one[k] for k in range(4)), (other[k] for k in (0, 1, 2, 3)), strict=True
    ):
        assert np.array_equal(images["ground"], same["ground"])
        assert np.array_equal(facts["position_m"], as_well["position_m"])
        assert facts["position_m"].mean(axis=0) == approx(0, abs=0.1)
    first = one[0][0]["ground"]
    one.on_epoch_end()
    assert not np.array_equal(first, one[0][0]["ground"])


def test_neighbours_share_batches_of_a_region(manifest):
    table = PairTable.of(manifest)
    pairs = ManifestPairs(
        manifest, SMALL, NeighbourBatches(table.position_m, 4, radius_m=500.0), table=table
    )
    spread_m = [np.ptp(pairs[k][1]["position_m"], axis=0).max() for k in range(len(pairs))]
    assert max(spread_m) < 1000


def test_a_cameras_place_is_varied_as_its_tile_is():
    """A bright pixel where the camera is, found again in the varied tile."""
    tile = np.zeros((9, 9, 3), np.uint8)
    tile[6, 1] = 255  # two rows below the middle, three columns to its left
    seen_turns = set()
    for number in range(60):
        varied = Augmentation().draw(np.random.default_rng(number))
        south, west = varied.of_offset(np.array([2.0, 3.0]))
        row, col = np.argwhere(varied.of_overhead(tile, is_polar=False)[..., 0])[0]
        assert (row - 4, 4 - col) == (south, west)
        seen_turns.add((varied.num_quarters, varied.is_mirrored))
    assert len(seen_turns) == 8


@pytest.fixture(scope="module")
def grid_manifest(tmp_path_factory):
    """Tiles every 32 m that are not centred on cameras."""
    pytest.importorskip("numba")
    out = tmp_path_factory.mktemp("grid") / "town"
    arguments = "synthesize --town 3 --views 8 --width 128 --height 64 --tiles grid --tile-px 64"
    arguments += " --cell-m 1 --randomness 0 --traffic 0 --workers 1"
    main([*arguments.split(), "--out", str(out)], standalone_mode=False)
    return Manifest.load(out)


def test_offsets_say_where_in_its_own_and_in_other_tiles_a_camera_is(grid_manifest):
    pairs = ManifestPairs(grid_manifest, SMALL, RandomBatches(8, 4), with_semipositives=True)
    images, facts = pairs[0]
    assert images["semipositive"].shape == images["overhead"].shape
    for k, row in enumerate(RandomBatches(8, 4).epoch(0)[0].tolist()):
        pose = grid_manifest.pose(pairs.table.view_ids[row])
        frame = grid_manifest.frame("town-3")
        expected = {}
        for tile_id in (pairs.table.tile_ids[row], *pairs.table.semipositive_ids[row]):
            tile = grid_manifest.row("tiles", tile_id)
            x_m, y_m = frame.to_local(tile["lat_deg"], tile["lon_deg"])
            expected[tile_id] = (y_m - pose.y_m) / 32, (x_m - pose.x_m) / 32
        own = expected.pop(pairs.table.tile_ids[row])
        assert facts["offset"][k] == approx(own, abs=0.01) and np.abs(own).max() <= 0.51
        other = next(
            tile_id
            for tile_id in pairs.table.semipositive_ids[row]
            if np.array_equal(pairs.overhead(tile_id), images["semipositive"][k])
        )
        assert facts["semipositive_offset"][k] == approx(expected[other], abs=0.01)


def test_places_that_share_any_tile_share_no_batch(grid_manifest):
    table = PairTable.of(grid_manifest)
    shown = table.shown()
    for row, tiles in enumerate(shown):
        assert (tiles >= 0).sum() == 1 + len(table.semipositive_ids[row])
    of = [set(tiles[tiles >= 0].tolist()) for tiles in shown]
    names = [{table.tile_ids[k], *table.semipositive_ids[k]} for k in range(len(table))]
    for one in range(len(table)):
        for other in range(len(table)):
            assert bool(of[one] & of[other]) == bool(names[one] & names[other])


def test_a_turned_tile_has_its_own_south(grid_manifest, tmp_path):
    """Its upper edge points east: what is east of its middle is above it."""
    view_id = PairTable.of(grid_manifest).view_ids[0]
    tile_id = PairTable.of(grid_manifest).tile_ids[0]
    south_m, west_m = offset_m(grid_manifest, tile_id, view_id)
    tiles = grid_manifest.tiles.copy()
    tiles.loc[tiles["tile_id"] == tile_id, "rotation_deg"] = 90.0
    turned = dataclasses.replace(grid_manifest, tiles=tiles)
    assert offset_m(turned, tile_id, view_id) == approx((west_m, -south_m), abs=0.05)
    for dataset in (grid_manifest, turned):
        told_m = east_north_m(dataset, tile_id, offset_m(dataset, tile_id, view_id))
        pose, tile = dataset.pose(view_id), dataset.row("tiles", tile_id)
        x_m, y_m = dataset.frame("town-3").to_local(tile["lat_deg"], tile["lon_deg"])
        assert told_m == approx((pose.x_m - x_m, pose.y_m - y_m), abs=1e-6)
    assert offset_m(grid_manifest, tile_id, view_id, shift_m=(3.0, 5.0)) == approx(
        (south_m + 5.0, west_m + 3.0)
    )


def halved(manifest):
    """The first town is split train, the second val."""
    views = manifest.views.copy()
    views["split"] = np.where(views["region"] == "town-1", "train", "val")
    return dataclasses.replace(manifest, views=views)


def test_what_is_validated_on_is_not_trained_on(manifest):
    halves = halved(manifest)
    views = halves.views.assign(split=halves.views["split"].replace("train", ""))
    part = dataclasses.replace(halves, views=views)
    assert PairTable.training_split(part, None) == ""
    assert PairTable.of(part, split="").view_ids == tuple(manifest.views["view_id"][:12])
    assert PairTable.training_split(halves, None) == "train"
    assert PairTable.training_split(halves, "val") == "val"
    assert PairTable.training_split(manifest, None) is None
    views = halves.views.assign(split="test")
    with pytest.raises(ManifestError, match=r"no split 'train'; it has 'test'.*--split"):
        PairTable.training_split(dataclasses.replace(halves, views=views), None)


def test_tiles_of_unseen_splits_join_without_their_photos(manifest):
    halves = halved(manifest)
    table = PairTable.of(halves, split="train", unseen=["val"])
    is_first = (halves.views["region"] == "town-1").to_numpy()
    assert len(table) == 24 and table.has_ground.tolist() == is_first.tolist()
    pairs = ManifestPairs(halves, SMALL, RandomBatches(24, 24), table=table)
    (images, facts), rows = pairs[0], RandomBatches(24, 24).epoch(0)[0]
    assert np.array_equal(facts["has_ground"], is_first[rows])
    seen_images = {images["ground"][k].tobytes() for k in np.flatnonzero(facts["has_ground"])}
    assert len(seen_images) == 12
    # what stands for the others are images of the batch
    assert {image.tobytes() for image in images["ground"]} == seen_images
    assert len({image.tobytes() for image in images["overhead"]}) == 24
    unseen = ~facts["has_ground"]
    np.testing.assert_array_equal(facts["position_m"][unseen], facts["ground_position_m"][unseen])
    assert (pairs.ground(23) == UNSEEN_RGB).all()
    assert len(PairTable.of(halves, split="train")) == 12
    with pytest.raises(ManifestError, match="no pairs of split 'test'; it has 'train', 'val'"):
        PairTable.of(halves, split="train", unseen=["test"])
    with pytest.raises(ManifestError, match="no pairs of split 'trian'; it has 'train', 'val'"):
        PairTable.of(halves, split="trian")
    with pytest.raises(ManifestError, match="both seen and unseen"):
        PairTable.of(halves, split="val", unseen=["val"])


def test_losses_know_where_tiles_and_where_cameras_are(grid_manifest):
    pairs = ManifestPairs(grid_manifest, SMALL, RandomBatches(8, 4), with_offsets=True)
    facts = pairs[0][1]
    apart_m = facts["ground_position_m"] - facts["position_m"]
    assert apart_m == approx(-32 * facts["offset"][:, ::-1], abs=0.01)  # east is not west
    assert np.abs(apart_m).max() > 1


def test_views_without_a_heading_are_for_networks_that_need_none(manifest, caplog):
    views = manifest.views.copy()
    views.loc[views.index[:5], "heading_deg"] = np.nan
    lost = dataclasses.replace(manifest, views=views)
    assert len(PairTable.of(lost, needs_heading=True)) == 19
    assert "5 views without a heading are left out" in caplog.text
    assert len(PairTable.of(lost)) == 24
    assert Seeing(5.0).needs_heading(SMALL) and not Seeing(180.0).needs_heading(SMALL)
    assert not Seeing(5.0).needs_heading(Preprocessing((16, 16), (16, 64), fov_deg=90.0))


def test_squares_that_would_leave_their_tiles_are_refused_before_training(manifest):
    wide = dataclasses.replace(SMALL, footprint_m=60.0)
    with pytest.raises(ManifestError, match="up to 8 m off the middle of tiles of 64 m, which"):
        ManifestPairs(manifest, wide, RandomBatches(24, 6), augmentation=Augmentation(shift_m=8.0))


# ---------------------------------------------------------------- limited fields of view

NARROW = Preprocessing((1, 2), (1, 8), fov_deg=90.0)


def test_a_limited_field_of_view_is_cut_out_of_a_turned_whole():
    """Of eight columns, the two in the middle after a turn by a quarter to the right."""
    assert NARROW.whole.ground_px == (1, 8) and NARROW.whole.fov_deg == 360.0
    for turn_deg, expected in ((0.0, [3, 4]), (90.0, [1, 2]), (180.0, [7, 0])):
        varied = Variation(turn_deg=turn_deg)
        assert varied.of_ground(columns(), NARROW)[0, :, 0].tolist() == expected


def test_a_narrow_camera_is_seen_by_an_encoder_that_takes_a_part():
    """The cut would often be wholly grey if what is seen lay anywhere."""
    for number in range(8):
        varied = Augmentation(180.0, (90.0, 90.0)).draw(np.random.default_rng(number))
        cut_out = varied.of_ground(columns(), NARROW)
        assert not (cut_out == UNSEEN_RGB).all(axis=-1).any()


def test_a_photo_of_a_limited_field_of_view_looks_ahead_wherever_that_is():
    photo = columns(2)
    for number in range(6):
        varied = Augmentation(180.0).draw(np.random.default_rng(number))
        expected = [1, 0] if varied.is_mirrored else [0, 1]
        assert varied.of_ground(photo, NARROW)[0, :, 0].tolist() == expected


def test_a_photo_shows_what_it_shows_in_an_image_of_a_full_turn():
    """A narrower field of view is for panoramas: a photo would mostly be wholly grey."""
    preprocessing = Preprocessing((1, 8), (1, 8))
    for number in range(6):
        varied = Augmentation(0.0, (90.0, 90.0)).draw(np.random.default_rng(number))
        photo = varied.of_ground(columns(), preprocessing, is_photo=True)
        assert sorted(photo[0, :, 0]) == list(range(8))
        panorama = varied.of_ground(columns(), preprocessing)
        assert (panorama == UNSEEN_RGB).all(axis=-1).sum() == 6


def test_photos_of_a_dataset_are_not_seen_in_part_only(manifest, monkeypatch):
    photos = {manifest.views["view_id"][3]}
    monkeypatch.setattr("crossview.datasets.is_photo", lambda _, view_id: view_id in photos)
    augmentation = Augmentation(0.0, (90.0, 90.0))
    pairs = ManifestPairs(manifest, SMALL, RandomBatches(24, 24), augmentation=augmentation)
    for row in range(24):
        image = pairs._varied(row)[0]["ground"]
        num_unseen = (image == UNSEEN_RGB).all(axis=(0, 2)).sum()
        assert num_unseen == (0 if row == 3 else 48)


def test_a_narrow_encoder_is_told_of_no_heading_by_any_door(manifest):
    narrow = Preprocessing((16, 16), (16, 64), fov_deg=90.0)
    told = Augmentation(0.0, is_turned=False, is_mirrored=False)
    pairs = ManifestPairs(manifest, narrow, RandomBatches(24, 24), augmentation=told)
    ahead = ManifestPairs(manifest, narrow, RandomBatches(24, 24))
    differ = [
        not np.array_equal(pairs._varied(k)[0]["ground"], ahead._varied(k)[0]["ground"])
        for k in range(24)
    ]
    assert sum(differ) > 20


class Oriented:
    """Its maps are the columns of what it sees; the overhead image is the panorama itself."""

    def __init__(self, preprocessing, manifest):
        self.preprocessing, self.manifest = preprocessing, manifest

    def ground_descriptors(self, images):
        grey = images.mean(axis=(1, 3))
        return (grey / np.linalg.norm(grey, axis=1, keepdims=True)).astype(np.float32)

    def _turned(self, overhead, ground):
        turned = np.stack([np.roll(overhead, k, axis=1) for k in range(overhead.shape[1])], axis=2)
        return np.einsum("ock,gc->ogk", turned, ground)

    def similarities(self, overhead, ground):
        return self._turned(overhead, ground).max(axis=2)

    def headings_deg(self, overhead, ground):
        cols = overhead.shape[1]
        return -self._turned(overhead, ground).argmax(axis=2) / cols * 360.0 % 360.0


def test_a_network_that_finds_headings_is_examined_at_the_best_one(manifest):
    """Panoramas at any heading, whose tiles are the panoramas that look north."""
    exam = Exam.of(manifest)
    described = Oriented(SMALL, manifest)
    straight = dict(zip(exam.table.tile_ids, exam.query_descriptors(described, Seeing(0.0))[1],
                        strict=True))  # fmt: skip
    described.overhead_descriptors = lambda images: np.stack(
        [straight[tile_id] for tile_id in np.resize(exam.tile_ids, len(images))]
    )
    found = exam.examine(described, Seeing(180.0, seed=1), prior_radius_m=200.0)
    assert found["recall_1"] > 0.95 and found["local_recall_1"] > 0.95
    assert found["median_heading_error_deg"] < 360 / 64  # a column
    by_products = exam.result(
        exam.query_descriptors(described, Seeing(180.0, seed=1))[1],
        described.overhead_descriptors(np.empty(24)),
    )
    assert by_products["recall_1"] < 0.5


def test_images_that_cannot_be_read_are_named_and_take_no_part(manifest, tmp_path, caplog):
    """A damaged photo is no query; a damaged tile is no answer, nor is its photo a query."""
    shutil.copytree(manifest.folder, tmp_path / "towns")
    damaged = Manifest.load(tmp_path / "towns")
    exam = Exam.of(damaged)
    damaged.image_path("views", exam.table.view_ids[2]).write_bytes(b"no picture")
    damaged.image_path("tiles", exam.table.tile_ids[5]).write_bytes(b"no picture")
    found = exam.examine(PixelCorrelation(SMALL), Seeing())
    assert (found["num_queries"], found["num_tiles"]) == (22, 23)
    assert (found["excluded_queries"], found["excluded_tiles"]) == (2, 1)
    text = caplog.text
    assert damaged.image_path("views", exam.table.view_ids[2]).name in text
    whole = Exam.of(manifest).examine(PixelCorrelation(SMALL), Seeing())
    assert whole["num_queries"] == 24 and whole["excluded_queries"] == 0


def test_a_place_that_a_network_points_at_is_measured_from_the_first_tiles_middle(grid_manifest):
    """It finds every tile and says where in it the camera is, 2 m too far south."""

    class Knowing:
        preprocessing = SMALL

        def __init__(self):
            exam = Exam.of(grid_manifest)
            self.right, self.num_tiles = exam.right(), len(exam.tile_ids)
            self.true = [
                ManifestPairs(grid_manifest, SMALL, RandomBatches(8, 8), with_offsets=True)[0][1][
                    "offset"
                ]
            ][0]
            self.order = RandomBatches(8, 8).epoch(0)[0]

        def ground_descriptors(self, images):
            return np.eye(self.num_tiles, dtype=np.float32)[np.resize(self.right, len(images))]

        def overhead_descriptors(self, images):
            self.described = getattr(self, "described", 0) + len(images)
            rows = np.arange(self.described - len(images), self.described) % self.num_tiles
            return np.eye(self.num_tiles, dtype=np.float32)[rows]

        def offsets(self, ground, overhead):
            assert len(ground) == len(overhead) == 8
            said = np.empty((8, 2))
            said[self.order] = self.true
            return said + np.array([2.0 / 32, 0.0])

    exam = Exam.of(grid_manifest)
    found = exam.examine(Knowing(), Seeing())
    assert found["recall_1"] == 1.0
    assert found["median_error_with_offset_m"] == approx(2.0, abs=0.01)
    assert found["within_1m_with_offset"] == 0.0 and found["within_5m_with_offset"] == 1.0


@pytest.mark.slow
def test_pairs_that_are_rendered_while_training_are_those_that_were_stored(folder):
    """Prepared like views of a dataset: the middle of a ground image looks north."""
    worlds = [World.read("town-1", folder / "maps" / "town-1.osm")]
    options = {
        "batch_size": 4, "num_batches": 2, "panorama": Equirectangular(128, 64), "tile_px": 64,
        "cell_m": 1.0, "randomness": 0.0, "traffic": 0.0, "seed": 5,
    }  # fmt: skip
    any_way = RenderedBatches(RenderedPairs(worlds, heading_spread_deg=180.0, **options), SMALL)
    (images, facts), headings_deg = any_way[1], any_way.pairs[1][1]
    assert facts == {} and images["ground"].shape == images["overhead"].shape == (4, 16, 64, 3)
    assert np.ptp(headings_deg) > 30
    for k, panorama in enumerate(any_way.pairs[1][0]["panorama"]):
        looking = Panorama(panorama, float(headings_deg[k]))
        assert np.array_equal(images["ground"][k], SMALL.ground(looking))
    any_way.epoch = 3
    assert any_way.pairs.epoch == 3 and not np.array_equal(
        any_way[1][0]["ground"], images["ground"]
    )


# ---------------------------------------------------------------- commands


def run(*arguments):
    main([str(argument) for argument in arguments], standalone_mode=False)


@pytest.mark.slow
def test_from_towns_to_recalls_by_commands(folder, tmp_path, capsys):
    """A few steps learn something: on what it was trained with, an encoder beats itself."""
    run(
        "train", "retrieval", folder, "--out", tmp_path / "model", "--epochs", 30,
        "--batch-size", 12, "--learning-rate", 3e-3, "--validate", folder,
        "--validate-every", 15, "--sampler", "similar", "--refresh-every", 10,
        "--heading-spread-deg", 0,
    )  # fmt: skip
    with (tmp_path / "model" / "log.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 30 and losses[-1] < losses[0]
    capsys.readouterr()
    recalls = []
    for which in (("--untrained", "tiny"), ("--model", tmp_path / "model" / "best")):
        run("evaluate", "retrieval", folder, *which, "--heading-spread-deg", 0,
            "--json", tmp_path / "found.json")  # fmt: skip
        found = json.loads(capsys.readouterr().out)
        written = json.loads((tmp_path / "found.json").read_text())
        curve = written.pop("metre_curve")
        assert found == written
        at_10_m = np.interp(10.0, curve["threshold_m"], curve["share"])
        assert at_10_m == approx(found["within_10m"], abs=1 / 24)
        recalls.append(found["recall_1"])
    assert recalls[1] > recalls[0] + 0.2


def test_a_training_is_of_the_split_train_and_remembers_how_large_tiles_were(
    manifest, tmp_path, monkeypatch
):
    given = {}

    def taken(encoder, pairs, contrast, folder, **options):
        given.update(options, encoder=encoder, pairs=pairs)
        return []

    monkeypatch.setattr(retrieval_training, "train", taken)
    known = retrieval_training.new_encoder(
        "tiny",
        seed=0,
        width=2,
        num_heads=2,
        ground_px=(32, 32),
        overhead_px=(32, 128),
        fov_deg=90.0,
    )
    save_encoder(known, tmp_path / "known", scale=20.0)
    retrieval_training.train_on(
        halved(manifest),
        retrieval_training.known_encoder(tmp_path / "known", seed=0),
        contrastive_loss("infonce"),
        tmp_path / "model",
        options=Options(epochs=1),
        sampling=retrieval_training.Sampling(batch_size=4),
        augmentation=Augmentation(heading_spread_deg=5.0),
    )
    assert set(given["pairs"].table.view_ids) == set(manifest.views["view_id"][:12])
    assert given["description"]["split"] == "train" and given["validate"] is not None
    # a limited field of view says nothing of where it looks
    assert given["description"]["augmentation"]["heading_spread_deg"] == 180.0
    # a scale is of the weights that it was fitted for
    assert load_encoder(tmp_path / "known").scale == 20.0 and given["encoder"].scale is None
    assert given["encoder"].tile_side_m == (64.0, 64.0)
    assert given["encoder"].heading_spread_deg == 180.0
    save_encoder(given["encoder"], tmp_path / "trained")
    assert load_encoder(tmp_path / "trained").tile_side_m == (64.0, 64.0)
    assert load_encoder(tmp_path / "trained").heading_spread_deg == 180.0


@pytest.mark.slow
def test_vigor_learns_where_cameras_are_and_is_trained_further(grid_manifest, tmp_path, capsys):
    sizes = '{"ground_px": [36, 52], "overhead_px": [48, 48]}'
    common = ("--epochs", 1, "--batch-size", 2, "--loss", "triplet", "--offsets")
    run("train", "retrieval", grid_manifest.folder, "--out", tmp_path / "one", "--model", "vigor",
        "--model-options", sizes, *common)  # fmt: skip
    run("train", "retrieval", grid_manifest.folder, "--out", tmp_path / "two",
        "--start", tmp_path / "one" / "best", *common, "--semipositives")  # fmt: skip
    capsys.readouterr()
    run("evaluate", "retrieval", grid_manifest.folder, "--model", tmp_path / "two" / "best")
    found = json.loads(capsys.readouterr().out)
    assert {"hit_rate", "median_error_with_offset_m", "within_10m_with_offset"} <= set(found)
    described = [
        json.loads((tmp_path / name / "best" / "model.json").read_text()) for name in ("one", "two")
    ]
    assert described[1]["training"]["start"] == described[0]["fingerprint"]
    assert described[1]["fingerprint"] != described[0]["fingerprint"]


def test_a_damaged_image_is_named_and_takes_no_part_in_training(folder, tmp_path, capsys, caplog):
    shutil.copytree(folder, tmp_path / "towns")
    damaged = Manifest.load(tmp_path / "towns")
    table = PairTable.of(damaged)
    whole = damaged.image_path("views", table.view_ids[2]).read_bytes()
    damaged.image_path("views", table.view_ids[2]).write_bytes(whole[: len(whole) // 2])
    damaged.image_path("tiles", table.tile_ids[5]).write_bytes(b"no picture")
    kept = readable(damaged, table)
    assert kept.view_ids == tuple(np.delete(table.view_ids, [2, 5]))
    assert f"Left out: view {table.view_ids[2]}" in caplog.text
    assert f"Left out: tile {table.tile_ids[5]}" in caplog.text


def test_tiles_of_another_shape_or_size_are_named_and_left_out(folder, tmp_path, caplog):
    shutil.copytree(folder, tmp_path / "towns")
    mixed = Manifest.load(tmp_path / "towns")
    table = PairTable.of(mixed)
    for row, size in ((1, (64, 50)), (4, (50, 50))):
        path = mixed.image_path("tiles", table.tile_ids[row])
        Image.open(path).resize(size).save(path)
    wide = dataclasses.replace(SMALL, footprint_m=60.0)
    kept = readable(mixed, table, least_side_m=60.0)
    assert kept.view_ids == tuple(np.delete(table.view_ids, [1, 4]))
    assert f"tile {table.tile_ids[1]}: It has 64 x 50 pixels" in caplog.text
    assert f"tile {table.tile_ids[4]}: Its side is 50.0 m, and 60.0 m are needed" in caplog.text
    found = Exam.of(mixed).examine(PixelCorrelation(wide), Seeing(0.0))
    assert (found["num_tiles"], found["excluded_tiles"], found["excluded_queries"]) == (22, 2, 2)
    assert len(readable(mixed, table, least_side_m=50.2)) == 23  # short by less than a hundredth
    assert cut(np.zeros((50, 50, 3)), 1.0, 50.4).shape == (50, 50, 3)
    mixed.image_path("tiles", table.tile_ids[0]).write_bytes(b"no picture")
    require_room(mixed, table, wide)  # of the next tile of the region
    with pytest.raises(ManifestError, match="up to 0 m off the middle of tiles of 64 m"):
        require_room(mixed, table, dataclasses.replace(SMALL, footprint_m=80.0))


def test_further_training_keeps_what_was_known_of_headings(folder, tmp_path, monkeypatch):
    known = retrieval_training.new_encoder(
        "tiny", seed=0, width=2, num_heads=2, ground_px=(32, 64), overhead_px=(32, 64)
    )
    spreads = []

    def taken(manifest, encoder, contrast, folder, *, augmentation, **options):
        spreads.append(augmentation.heading_spread_deg)

    monkeypatch.setattr(retrieval_training, "train_on", taken)
    for spread_deg in (None, 180.0):
        known.heading_spread_deg = spread_deg
        save_encoder(known, tmp_path / "known")
        to = ("--out", tmp_path / "model", "--start", tmp_path / "known")
        run("train", "retrieval", folder, *to)
        run("train", "retrieval", folder, *to, "--heading-spread-deg", 20)
    assert spreads == [5.0, 20.0, 180.0, 20.0]


@pytest.mark.slow
def test_other_pairs_in_the_same_folder_are_refused(manifest, folder, tmp_path, runner_error):
    common = ("train", "retrieval", str(folder), "--out", str(tmp_path / "model"), "--epochs", "1",
              "--model-options", '{"ground_px": [16, 32], "overhead_px": [16, 32]}')  # fmt: skip
    run(*common, "--batch-size", 12)
    text = runner_error(*common, "--batch-size", "12", "--validate", str(folder))
    assert "other options (validation)" in text
    text = runner_error(*common[:-2], "--batch-size", "48")
    assert "48 pairs is more than the 24" in text
    text = runner_error(*common[:-2], "--batch-size", "6", "--chunks", "4")
    assert "6 pairs does not divide into 4" in text
    text = runner_error(*common[:-2], "--loss", "triplet", "--smoothing", "0.1")
    assert "The loss triplet has no smoothing; it has added_pairs, beyond_m" in text


def test_terms_of_vigor_are_refused_where_they_mean_nothing(folder, tmp_path, runner_error):
    to = ("--out", str(tmp_path / "model"))
    assert "choose vigor" in runner_error("train", "retrieval", str(folder), *to, "--offsets")
    text = runner_error("train", "retrieval", str(folder), *to, "--semipositives")
    assert "no 'semipositive' pairs" in text and "--tiles grid" in text
    text = runner_error(
        "train", "retrieval", str(folder), *to, "--model", "tiny", "--start", str(tmp_path)
    )
    assert "leave --model" in text


def test_evaluation_wants_one_describer(folder, runner_error):
    text = runner_error("evaluate", "retrieval", str(folder))
    assert "Give one of --model, --untrained and --pixels" in text


@pytest.fixture
def runner_error():
    from click.testing import CliRunner

    def error(*arguments):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code != 0
        return result.output

    return error
