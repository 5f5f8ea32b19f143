"""Votes of a map, and poses found by them: signs, constants, refusals, and a town."""

import numpy as np
import pytest
import shapely
from fakes.court import COURT, WALLS, rig_taken, sphere_taken
from pytest import approx

from crossview import angles, legends
from crossview.birdseye_matcher import (
    BEHIND,
    FREE,
    WALL_BASE,
    BirdsEyeMatcher,
    BuildingVotes,
    observed,
)
from crossview.errors import FrameMismatchError, GridMismatchError
from crossview.evidence import prior_within
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.localizer import Localizer
from crossview.photos import Mount
from crossview.rasters import MapRaster
from crossview.synthetic.palette import PaletteSegmenter
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap

FRAME = LocalFrame(50.0, 8.0)
SEGMENTER = PaletteSegmenter()
NORTH = Pose(0.0, 0.0, 0.0)

# ------------------------------------------------------------------ votes of maps


def raster_of(building, *, cell_m=0.5, covered=None, surveyed=("building",), frame=FRAME):
    """A map of buildings only, its middle at the anchor."""
    building = np.asarray(building, bool)
    height, width = building.shape
    _, class_id = legends.legend("crossview").find("building")
    classes = np.zeros((height, width, 3), np.uint8)
    classes[..., 0][building] = class_id
    grid = MapGrid(frame, -width * cell_m / 2, height * cell_m / 2, cell_m, height, width)
    return MapRaster(
        grid,
        classes,
        "crossview",
        np.ones(building.shape, bool) if covered is None else covered,
        frozenset(surveyed),
        np.where(building, 8.0, 0.0).astype(np.float32),
    )


def west_half(size=40):
    """Buildings in the western half; the wall runs between columns size / 2 - 1 and size / 2."""
    building = np.zeros((size, size), bool)
    building[:, : size // 2] = True
    return building


def test_open_ground_speaks_against_buildings_and_for_everything_else():
    votes = BuildingVotes().log_ratios(raster_of(west_half()))[..., FREE]
    assert np.all(votes[:, :18] < -1.0)
    assert np.all(votes[:, 22:] > 0.4)
    assert votes[20, 0] == approx(np.log(0.1), abs=0.05)
    assert votes[20, 39] == approx(np.log(1.7), abs=0.005)


def test_votes_of_the_cells_beside_a_wall_by_hand():
    votes = BuildingVotes().log_ratios(raster_of(west_half()))
    # a quarter of a metre from the wall, inside: 1 / (1 + exp(-0.5)) = 0.622459
    assert votes[20, 19] == approx(
        [
            np.log(1.7 - 1.6 * 0.622459),
            np.log(0.3 + 0.7 * np.exp(-0.5 * (0.25 / 0.7) ** 2) / 0.15),
            np.log(0.6 + 1.1 * 0.622459),
        ],
        abs=1e-5,
    )
    # the same distance outside
    assert votes[20, 20, FREE] == approx(np.log(1.7 - 1.6 * (1 - 0.622459)), abs=1e-5)
    assert votes[20, 20, WALL_BASE] == approx(float(votes[20, 19, WALL_BASE]))


def test_wall_bases_speak_for_walls_and_against_all_that_is_far_from_one():
    votes = BuildingVotes().log_ratios(raster_of(west_half()))[..., WALL_BASE]
    assert np.all(votes[:, 18:22] > 0.5)
    assert np.all(votes[:, :14] < -1.0)
    assert np.all(votes[:, 26:] < -1.0)


def test_hidden_ground_speaks_for_buildings():
    votes = BuildingVotes().log_ratios(raster_of(west_half()))[..., BEHIND]
    assert np.all(votes[:, :18] > 0.4)
    assert np.all(votes[:, 22:] < -0.3)


def test_what_the_map_does_not_cover_votes_exactly_0():
    covered = np.ones((40, 40), bool)
    covered[5:15, 10:30] = False
    votes = BuildingVotes().log_ratios(raster_of(west_half(), covered=covered))
    assert np.all(votes[5:15, 10:30] == 0.0)
    assert np.all(votes[20:] != 0.0)


def test_where_buildings_are_not_surveyed_their_absence_votes_exactly_0():
    votes = BuildingVotes().log_ratios(raster_of(west_half(), surveyed=()))
    assert np.all(votes[:, 20:] == 0.0)
    assert np.all(votes[:, :18, FREE] < -1.0)


@pytest.mark.parametrize(
    "is_building, expected", [(False, (1.7, 0.3, 0.6)), (True, (0.1, 0.3, 1.7))]
)
def test_a_map_without_any_wall_votes_like_far_from_one(is_building, expected):
    votes = BuildingVotes().log_ratios(raster_of(np.full((6, 8), is_building)))
    assert votes == approx(np.broadcast_to(np.log(expected), (6, 8, 3)), abs=0.05)
    near_the_wall = BuildingVotes().log_ratios(raster_of(west_half()))
    assert votes[0, 0] == approx(near_the_wall[20, 0 if is_building else 39])


def test_votes_depend_on_metres_and_not_on_the_size_of_cells():
    coarse = BuildingVotes().log_ratios(raster_of(west_half(40), cell_m=1.0))
    fine = BuildingVotes().log_ratios(raster_of(west_half(120), cell_m=1.0 / 3.0))
    # the middle one of three fine cells has the coarse one's centre
    assert fine[1::3, 1::3] == approx(coarse, abs=1e-5)


# ---------------------------------------------------------------------- matching


def court_map():
    """The court as a map source, cell by cell."""

    def cut(grid: MapGrid) -> MapRaster:
        building = shapely.contains_xy(WALLS, *np.meshgrid(*grid.centers()))
        _, class_id = legends.legend("crossview").find("building")
        classes = np.zeros((*grid.shape, 3), np.uint8)
        classes[..., 0][building] = class_id
        return MapRaster(
            grid,
            classes,
            "crossview",
            np.ones(grid.shape, bool),
            frozenset({"building"}),
            np.where(building, 8.0, 0.0).astype(np.float32),
        )

    return cut


MATCHER = BirdsEyeMatcher(SEGMENTER, num_headings=32, view_m=12.0)
POSE = Pose(3.25, -4.25, 45.0)


@pytest.fixture(scope="module")
def court_view():
    return MATCHER.observe(sphere_taken(COURT, POSE))


@pytest.fixture(scope="module")
def court_grid():
    """20 x 20 m around the origin."""
    return PoseGrid(MapGrid.around(FRAME, 0.0, 0.0, radius_m=10.0, cell_m=0.5), 32)


def scores_on(grid, view, *, matcher=MATCHER, margin_m=None, headings=None):
    margin_m = matcher.reach_m if margin_m is None else margin_m
    return matcher.log_likelihood(
        view, court_map()(grid.map.padded(margin_m)), grid, headings=headings
    )


@pytest.fixture(scope="module")
def court_scores(court_view, court_grid):
    return scores_on(court_grid, court_view)


def test_the_best_pose_of_the_court_is_the_true_one(court_scores, court_grid):
    row, col, k = np.unravel_index(np.argmax(court_scores), court_scores.shape)
    best = court_grid.pose_at(int(row), int(col), int(k))
    assert max(abs(best.x_m - POSE.x_m), abs(best.y_m - POSE.y_m)) <= 0.5
    assert abs(angles.difference_deg(best.heading_deg, POSE.heading_deg)) <= 360 / 32


def test_scores_are_a_volume_on_the_grid(court_scores, court_grid):
    assert court_scores.shape == court_grid.shape
    assert np.isfinite(court_scores).all()


def test_images_and_what_observe_made_of_them_score_the_same(court_view, court_scores, court_grid):
    panorama = sphere_taken(COURT, POSE)
    assert np.array_equal(scores_on(court_grid, panorama), court_scores)


def test_a_score_is_scale_times_the_sum_of_votes_under_the_view(
    court_view, court_scores, court_grid
):
    votes = MATCHER.votes.log_ratios(court_map()(court_grid.map.padded(MATCHER.reach_m)))
    margin = round((court_grid.map.padded(MATCHER.reach_m).height - court_grid.map.height) / 2)
    view = court_view.values
    for row, col in [(0, 0), (11, 25), (39, 39)]:
        top, left = row + margin - court_view.camera_row, col + margin - court_view.camera_col
        under = votes[top : top + view.shape[0], left : left + view.shape[1]]
        expected = MATCHER.scale * np.sum(view.astype(float) * under)
        assert court_scores[row, col, 0] == approx(expected, rel=1e-4, abs=1e-4)


def test_one_heading_bin_holds_the_log_of_the_mean_over_all_headings(
    court_view, court_scores, court_grid
):
    grid = PoseGrid(court_grid.map, 1)
    scores = scores_on(grid, court_view)
    expected = np.logaddexp.reduce(court_scores.astype(float), axis=2) - np.log(32)
    assert scores.shape == (*court_grid.map.shape, 1)
    assert scores[..., 0] == approx(expected, abs=1e-4)


def test_headings_that_are_not_asked_for_are_impossible_and_the_others_the_same(
    court_view, court_scores, court_grid
):
    asked = np.array([0, 3, 4, 17, 31])
    scores = scores_on(court_grid, court_view, headings=asked)
    assert scores[..., asked] == approx(court_scores[..., asked], abs=2e-4)
    others = np.setdiff1d(np.arange(32), asked)
    assert np.all(scores[..., others] == -np.inf)


def test_a_window_scores_like_the_same_cells_of_a_larger_grid(court_view, court_scores, court_grid):
    part = court_grid.map
    window = MapGrid(FRAME, part.west_m + 2.0, part.north_m - 3.0, 0.5, height=9, width=14)
    scores = scores_on(PoseGrid(window, 32), court_view)
    assert scores == approx(court_scores[6:15, 4:18], rel=1e-4, abs=1e-4)


def test_the_score_of_a_pose_does_not_depend_on_how_much_map_was_cut_out(
    court_view, court_scores, court_grid
):
    more = scores_on(court_grid, court_view, margin_m=MATCHER.reach_m + 20.0)
    assert more == approx(court_scores, abs=2e-4)


def test_turning_map_and_window_by_a_quarter_turns_the_scores(court_view, court_grid):
    raster = court_map()(court_grid.map.padded(MATCHER.reach_m))
    turned = MapRaster(
        raster.grid,
        np.rot90(raster.classes, k=-1),
        raster.legend_id,
        np.rot90(raster.covered, k=-1),
        raster.surveyed,
        np.rot90(raster.building_height_m, k=-1),
    )
    scores = MATCHER.log_likelihood(court_view, raster, court_grid)
    expected = np.roll(np.rot90(scores, k=-1), 8, axis=2)
    assert MATCHER.log_likelihood(court_view, turned, court_grid) == approx(expected, abs=1e-4)


def test_the_margin_holds_all_that_a_rig_with_a_wide_mount_sees():
    mounts = (Mount(45.0, 1.5, 1.5), Mount(225.0, -1.5, -1.5))
    view = MATCHER.observe(rig_taken(COURT, NORTH, mounts))
    assert view.reach_m <= MATCHER.reach_m


def test_a_map_in_another_frame_is_refused(court_view, court_grid):
    elsewhere = raster_of(west_half(), frame=LocalFrame(50.0, 8.001))
    with pytest.raises(FrameMismatchError, match="Build both from one LocalFrame"):
        MATCHER.log_likelihood(court_view, elsewhere, court_grid)


@pytest.mark.parametrize(
    "grid",
    [
        PoseGrid(MapGrid(FRAME, -2.0, 2.0, 1.0, 4, 4), 32),
        PoseGrid(MapGrid(FRAME, -2.0, 2.0, 0.5, 8, 8), 64),
        PoseGrid(MapGrid(FRAME, -2.2, 2.0, 0.5, 8, 8), 32),
        PoseGrid(MapGrid(FRAME, -2.0, 2.2, 0.5, 8, 8), 32),
    ],
    ids=["cells of 1 m", "64 headings", "off the lattice in x", "off the lattice in y"],
)
def test_a_grid_that_the_matcher_does_not_vote_on_is_refused(court_view, grid):
    with pytest.raises(GridMismatchError, match=r"cells of 0\.5 m and 32 headings.*like=matcher"):
        MATCHER.log_likelihood(court_view, raster_of(west_half(200)), grid)


def test_a_map_of_other_cells_is_refused(court_view, court_grid):
    with pytest.raises(GridMismatchError, match="the map on"):
        MATCHER.log_likelihood(court_view, raster_of(west_half(200), cell_m=1.0), court_grid)


def test_a_map_smaller_than_the_grid_is_refused(court_view, court_grid):
    with pytest.raises(GridMismatchError):
        MATCHER.log_likelihood(court_view, raster_of(west_half(20)), court_grid)


def test_a_map_without_the_margin_is_refused(court_view, court_grid):
    with pytest.raises(GridMismatchError, match="reach_m"):
        scores_on(court_grid, court_view, margin_m=1.0)


def test_a_view_of_other_cells_is_refused(court_grid):
    view = observed(sphere_taken(COURT, POSE), SEGMENTER, cell_m=1.0, reach_m=12.0)
    with pytest.raises(GridMismatchError, match=r"1\.0 m"):
        scores_on(court_grid, view)


# ------------------------------------------------------------------- in the town


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    town = Town.from_seed(0)
    path = tmp_path_factory.mktemp("town") / "town.osm"
    town.write(path)
    vector_map = VectorMap.read(path)
    return town, vector_map, Scene.from_features(vector_map.features, town.frame)


@pytest.mark.parametrize("index", range(3))
def test_a_panorama_of_the_town_is_found_from_a_rough_prior(town, index):
    town, vector_map, scene = town
    truth = town.viewpoints(3, seed=1)[index]
    matcher = BirdsEyeMatcher(SEGMENTER)
    shift_x_m, shift_y_m = np.random.default_rng(index).uniform(-15, 15, 2)
    prior = prior_within(
        town.frame, truth.x_m + shift_x_m, truth.y_m + shift_y_m, radius_m=25.0, like=matcher
    )
    localizer = Localizer(maps=vector_map, matcher=matcher, max_windows=1, window_radius_m=27.0)
    localization = localizer.localize(sphere_taken(scene, truth), prior)
    estimate = localization.best.mode()
    assert max(abs(estimate.x_m - truth.x_m), abs(estimate.y_m - truth.y_m)) <= 0.5
    assert abs(angles.difference_deg(estimate.heading_deg, truth.heading_deg)) <= 360 / 128
    assert localization.probability_within(5.0) > 0.5
