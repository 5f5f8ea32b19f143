"""What lies on the ground: seen where geometry says, counted and voted where the map says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
from fakes.court import rig_taken, sphere_taken, taken
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx
from shapely import LineString, box

from crossview import angles, columns, ground_votes
from crossview.birdseye import BirdsEye
from crossview.errors import MapError
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.ground_votes import CHANNELS, LABELS, NOTHING, OPEN, UNKNOWN, GroundTable
from crossview.legends import CROSSVIEW, ORIENTERNET
from crossview.photos import Mount
from crossview.rasters import MapRaster
from crossview.synthetic.palette import PaletteSegmenter
from crossview.synthetic.scene import Barrier, Building, Scene, Tree

FRAME = LocalFrame(50.0, 8.0)
ROAD, SIDEWALK = box(-4, -40, 4, 40), box(-6, -40, 6, 40)
HOUSE = box(10, -12, 30, 20)
HEDGE = LineString([(-10, -15), (-10, 15)])
TRUNK = (-8.0, 3.0)
STREET = Scene(
    (Building(HOUSE, 9.0),),
    trees=(Tree(*TRUNK),),
    barriers=(Barrier(HEDGE, 1.5, "vegetation"),),
    roads=ROAD,
    sidewalks=SIDEWALK,
)
TRUTH = Pose(1.0, -2.0, 30.0)
RIG = (Mount(0.0), Mount(90.0, 0.3, 0.2), Mount(180.0, -0.4, 0.0), Mount(270.0, 0.0, -0.3))


def seen_from(query) -> BirdsEye:
    return ground_votes.observed(columns.segmented(query, PaletteSegmenter()))


def on_map(view, pose, channel, *, sure=0.5):
    """Centres of the cells that a channel is sure of, as map points, by rotating them."""
    rows, cols = np.nonzero(view.values[..., CHANNELS.index(channel)] > sure)
    ahead = (view.camera_row - rows) * view.cell_m
    right = (cols - view.camera_col) * view.cell_m
    turned = (right + 1j * ahead) * np.exp(-1j * np.deg2rad(pose.heading_deg))
    return shapely.points(pose.x_m + turned.real, pose.y_m + turned.imag)


def drawn(places, *, legend=CROSSVIEW, surveyed=None, cell_m=0.5, covered=None) -> MapRaster:
    """A map of 60 x 60 m with classes in boxes (west, south, east, north)."""
    side = round(60 / cell_m)
    grid = MapGrid(FRAME, -30.0, 30.0, cell_m, side, side)
    classes = np.zeros((side, side, 3), np.uint8)
    x_m, y_m = grid.centers()
    for name, (west, south, east, north) in places:
        channel, number = legend.find(name)
        inside = ((x_m > west) & (x_m < east))[None] & ((y_m > south) & (y_m < north))[:, None]
        classes[inside, channel] = number
    covered = np.ones((side, side), bool) if covered is None else covered
    known = legend.names if surveyed is None else frozenset(surveyed)
    height = np.zeros((side, side), np.float32)
    return MapRaster(grid, classes, legend.legend_id, covered, known, height)


def label_at(map_raster, x_m, y_m):
    number = ground_votes.place_labels(map_raster)[map_raster.grid.cell_of(x_m, y_m)]
    return None if number == UNKNOWN else LABELS[number]


# ------------------------------------------------------------------- what is seen


@pytest.mark.parametrize("make", [sphere_taken, lambda s, p: rig_taken(s, p, RIG)])
def test_surfaces_and_feet_lie_where_the_scene_has_them(make):
    view = seen_from(make(STREET, TRUTH))
    cell = 0.5 * view.cell_m * 2**0.5 + 0.02
    walk, lawn = SIDEWALK.difference(ROAD), shapely.union_all([SIDEWALK, HOUSE])
    assert shapely.distance(on_map(view, TRUTH, "road"), ROAD).max() < cell
    assert shapely.distance(on_map(view, TRUTH, "sidewalk"), walk).max() < cell
    far = on_map(view, TRUTH, "terrain")
    assert shapely.distance(far, lawn.boundary)[shapely.within(far, lawn)].max(initial=0) < cell
    walls = on_map(view, TRUTH, "wall foot")
    assert len(walls) > 20
    assert shapely.distance(walls, HOUSE.boundary).max() < 0.6
    plants = on_map(view, TRUTH, "plant foot", sure=0.1)
    standing = shapely.union_all([HEDGE, shapely.Point(TRUNK)])
    assert len(plants) > 20
    # a row of half a degree is this long on the ground
    row_m = shapely.distance(plants, shapely.Point(1.0, -2.0)) ** 2 / 1.6 * np.deg2rad(0.5)
    assert np.all(shapely.distance(plants, standing) < cell + row_m)


def test_most_of_the_road_around_is_seen():
    view = seen_from(sphere_taken(STREET, TRUTH))
    seen = shapely.union_all(shapely.buffer(on_map(view, TRUTH, "road", sure=0.0), 0.36))
    near = ROAD.intersection(shapely.Point(TRUTH.x_m, TRUTH.y_m).buffer(10.0))
    # nearest to the camera a panorama is looked at steeply, and nothing is left out
    assert seen.intersection(near).area / near.area > 0.98


def test_what_stands_behind_something_has_no_foot():
    hidden = Barrier(LineString([(-14, -10), (-14, 10)]), 1.0, "fence")
    view = seen_from(sphere_taken(replace(STREET, barriers=(*STREET.barriers, hidden)), TRUTH))
    assert len(on_map(view, TRUTH, "fence foot", sure=0.1)) == 0


def test_a_camera_that_looks_up_sees_nothing_on_the_ground():
    view = seen_from(taken(STREET, TRUTH, pitch_deg=70.0))
    assert not view.seen.any()


def test_ground_hidden_by_a_mask_is_not_seen():
    photo = taken(STREET, TRUTH)
    masked = replace(photo, mask=np.zeros(photo.image.shape[:2], bool))
    assert seen_from(photo).seen.any()
    assert not seen_from(masked).seen.any()


# ------------------------------------------------------------ what the map says


def test_the_most_particular_of_what_meets_in_a_cell_labels_it():
    places = [
        ("road", (-20, -20, 20, 20)),
        ("tree", (0, 0, 1, 1)),
        ("hedge", (0, 0, 1, 4)),
        ("building", (10, 10, 30, 30)),
        ("building_outline", (10, 10, 11, 30)),
    ]
    town = drawn(places)
    expected = {
        (0.5, 0.5): "tree",
        (0.5, 2.5): "barrier",
        (-3, -3): "road",
        (10.5, 15): "building edge",
        (15, 15): "building",
        (-25, -25): NOTHING,
    }
    assert {at: label_at(town, *at) for at in expected} == expected


def test_absence_says_as_much_as_was_surveyed():
    house = [("building", (0, 0, 10, 10))]
    assert label_at(drawn(house), -5, -5) == NOTHING
    only = drawn(house, surveyed={"building"})
    assert (label_at(only, -5, -5), label_at(only, 5, 5)) == (OPEN, "building")
    assert label_at(drawn(house, surveyed=()), -5, -5) is None
    nowhere = drawn(house, covered=np.zeros((120, 120), bool))
    assert label_at(nowhere, 5, 5) is None


def test_an_area_of_a_kind_that_nobody_counts_is_not_nothing():
    assert label_at(drawn([("rail", (0, 0, 2, 2))]), 1, 1) is None
    # and does not hide what stands on it
    fenced = drawn([("rail", (0, 0, 2, 2)), ("fence", (0, 0, 2, 2))])
    assert label_at(fenced, 1, 1) == "barrier"


def test_votes_on_a_map_of_another_legend_are_refused():
    table = table_of(road=[900, 50, 50, 0, 0, 0, 0])
    with pytest.raises(MapError, match=r"'crossview'.*'orienternet'"):
        table.log_ratios(drawn([("road", (0, 0, 2, 2))], legend=ORIENTERNET))


def test_both_legends_name_roads_buildings_and_trees():
    for legend in (CROSSVIEW, ORIENTERNET):
        for name in ("road", "building", "tree", "fence"):
            town = drawn([(name, (0, 0, 2, 2))], legend=legend)
            assert label_at(town, 1, 1) not in (None, NOTHING)


# ------------------------------------------------------------------------ counts


def test_counts_are_of_the_place_that_lies_where_the_camera_looks():
    # heading east: what is 10 m ahead lies 10 m to the east, what is to the right to the south
    values = np.zeros((45, 45, len(CHANNELS)), np.float32)
    values[2, 22, CHANNELS.index("road")] = 0.75
    values[22, 42, CHANNELS.index("terrain")] = 0.5
    view = BirdsEye(values, values.any(axis=2), 0.5, 22, 22)
    town = drawn([("road", (9, -1, 11, 1)), ("grass", (-1, -11, 1, -9))])
    total = ground_votes.counts(view, Pose(0.0, 0.0, 90.0), town)
    expected = np.zeros((len(LABELS), len(CHANNELS)))
    expected[LABELS.index("road"), CHANNELS.index("road")] = 0.75
    expected[LABELS.index("green"), CHANNELS.index("terrain")] = 0.5
    assert total == approx(expected)


def test_what_lies_outside_of_the_map_is_not_counted():
    view = seen_from(sphere_taken(STREET, TRUTH))
    nowhere = drawn([], covered=np.zeros((120, 120), bool))
    assert ground_votes.counts(view, TRUTH, nowhere).sum() == 0


# ------------------------------------------------------------------------- votes


def table_of(**rows) -> GroundTable:
    counts = np.zeros((len(LABELS), len(CHANNELS)))
    for label, row in rows.items():
        counts[LABELS.index(label)] = row
    return GroundTable(counts)


def test_ratios_are_shares_on_a_place_over_shares_anywhere():
    table = table_of(road=[900, 50, 50, 0, 0, 0, 0], path=[100, 850, 50, 0, 0, 0, 0])
    anywhere = np.array([1001, 901, 101, 1, 1, 1, 1]) / 2007
    on_road = np.array([900, 50, 50, 0, 0, 0, 0]) + 50 * anywhere
    assert table.ratios()[LABELS.index("road")] == approx(on_road / 1050 / anywhere)


def test_a_place_of_which_nothing_was_seen_and_one_unknown_vote_nothing():
    table = table_of(road=[900, 50, 50, 0, 0, 0, 0])
    assert table.ratios()[UNKNOWN].tolist() == [1.0] * len(CHANNELS)
    assert table.ratios()[LABELS.index("water")] == approx(1.0)
    town = drawn([("road", (-30, -30, 0, 30))], covered=np.zeros((120, 120), bool))
    assert np.abs(table.log_ratios(town)).max() == approx(0.0, abs=1e-6)


@given(st.integers(0, 10_000))
def test_votes_of_random_tables_are_finite_and_average_to_no_ratio_above_the_share_seen(seed):
    rng = np.random.default_rng(seed)
    table = GroundTable(rng.gamma(0.3, 300.0, (len(LABELS), len(CHANNELS))))
    ratios = table.ratios()[:UNKNOWN]
    assert np.isfinite(table.log_ratios(drawn([("road", (-30, -30, 0, 30))]))).all()
    # the shares of a place's channels sum to one again
    anywhere = (table.counts.sum(0) + 1) / (table.counts.sum(0) + 1).sum()
    assert ratios @ anywhere == approx(1.0)


def test_finer_maps_vote_alike():
    table = table_of(road=[900, 50, 50, 0, 0, 0, 0], nothing=[10, 300, 900, 5, 0, 0, 0])
    road = [("road", (-10, -30, 10, 30))]
    coarse = table.log_ratios(drawn(road))
    fine = table.log_ratios(drawn(road, cell_m=0.25), parts=2)
    assert fine == approx(coarse, abs=1e-5)


def test_votes_fall_off_within_a_metre_of_a_border():
    table = table_of(road=[900, 50, 50, 0, 0, 0, 0], nothing=[10, 300, 900, 5, 0, 0, 0])
    votes = table.log_ratios(drawn([("road", (-10, -30, 10, 30))]))[60, :, 0]
    flat = votes[40 + 4 : 80 - 4]
    assert np.ptp(flat) < 1e-3
    assert votes[:36].max() < flat.min() - 1.0
    assert np.all(np.diff(votes[35:45]) > -1e-6)


def test_the_true_pose_has_more_votes_than_others():
    view = seen_from(sphere_taken(STREET, TRUTH))
    town = drawn(
        [
            ("path", (-6, -30, 6, 30)),
            ("road", (-4, -30, 4, 30)),
            ("building", (10, -12, 30, 20)),
            ("building_outline", (10, -12, 10.5, 20)),
            ("hedge", (-10.25, -15, -9.75, 15)),
        ]
    )
    table = GroundTable(ground_votes.counts(view, TRUTH, town))
    votes = table.log_ratios(town)

    def score(pose):
        rows, cols = np.nonzero(view.seen)
        ahead, right = (view.camera_row - rows) * 0.5, (cols - view.camera_col) * 0.5
        east, north = angles.forward(pose.heading_deg)
        col, row = town.grid.to_pixel(
            pose.x_m + ahead * east + right * north, pose.y_m + ahead * north - right * east
        )
        return float((votes[row.astype(int), col.astype(int)] * view.values[rows, cols]).sum())

    for other in (replace(TRUTH, x_m=3.0), replace(TRUTH, heading_deg=40.0)):
        assert score(TRUTH) > score(other) + 10


# -------------------------------------------------------------------------- files


def test_a_table_survives_json():
    rng = np.random.default_rng(3)
    table = GroundTable(rng.uniform(0, 999, (len(LABELS), len(CHANNELS))).round(1))
    again = GroundTable.from_json(json.loads(json.dumps(table.to_json())))
    assert np.array_equal(again.counts, table.counts)
    assert again.legend_id == "crossview"


def test_tables_of_other_places_or_shapes_are_refused():
    content = GroundTable(np.ones((len(LABELS), len(CHANNELS)))).to_json()
    with pytest.raises(ValueError, match="labels"):
        GroundTable.from_json({**content, "labels": ["road"]})
    with pytest.raises(ValueError, match="places"):
        GroundTable(np.ones((2, 3)))
    with pytest.raises(ValueError, match="0 or more"):
        GroundTable(-np.ones((len(LABELS), len(CHANNELS))))


def test_a_view_survives_its_file(tmp_path):
    rig = rig_taken(STREET, TRUTH, RIG)
    images = columns.segmented(rig, PaletteSegmenter())
    view = replace(columns.levelled(images), ground=ground_votes.observed(images))
    view.save(tmp_path / "view.npz")
    ground = columns.ColumnView.load(tmp_path / "view.npz").ground
    assert ground.values == approx(view.ground.values, abs=1 / 255)
    assert np.array_equal(ground.seen, view.ground.seen)
    assert (ground.cell_m, ground.camera_row) == (view.ground.cell_m, view.ground.camera_row)
