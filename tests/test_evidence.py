import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview import evidence, legends
from crossview.errors import (
    FrameMismatchError,
    ImpossibleEvidenceError,
    MissingLocationError,
    OutOfRegionError,
)
from crossview.frames import Fix, LocalFrame
from crossview.grids import Bounds, MapGrid, PoseGrid
from crossview.posterior import Posterior
from crossview.rasters import MapRaster

FRAME = LocalFrame(50.0, 8.0)
GRID = PoseGrid(MapGrid(FRAME, -10.0, 8.0, 1.0, 16, 20), 8)


def edges():
    cells = GRID.map
    return (
        cells.west_m + cells.cell_m * np.arange(cells.width + 1),
        cells.north_m - cells.cell_m * np.arange(cells.height + 1),
    )


def allowed(log_likelihood):
    """Which cells a 0 or -inf answer allows."""
    assert set(np.unique(log_likelihood)) <= {0.0, -np.inf}
    return (log_likelihood == 0)[..., 0]


# ---------------------------------------------------------------- gaussian


@pytest.mark.parametrize("sigma_m", [0.05, 0.5, 3.0, 200.0])
def test_a_gaussian_is_averaged_over_each_cell(sigma_m):
    found = evidence.gaussian(GRID, 1.3, -2.2, sigma_m=sigma_m)
    edge_x, edge_y = edges()
    across = np.diff(scipy.stats.norm.cdf(edge_x, 1.3, sigma_m))
    along = -np.diff(scipy.stats.norm.cdf(edge_y, -2.2, sigma_m))
    expected = np.outer(along, across) / GRID.map.cell_m**2
    assert found.shape == (16, 20, 1)
    assert np.exp(found[..., 0]) == approx(expected, rel=1e-9, abs=1e-12)


def test_a_gaussian_is_a_density_that_sums_to_one():
    grid = PoseGrid(MapGrid.around(FRAME, 0, 0, radius_m=40, cell_m=0.5), 1)
    density = np.exp(evidence.gaussian(grid, 0.1, 0.2, sigma_m=4))
    assert density.sum() * 0.25 == approx(1, abs=1e-9)


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.3, 30))
def test_a_gaussian_has_its_peak_in_the_cell_of_its_centre(x_m, y_m, sigma_m):
    found = evidence.gaussian(GRID, x_m, y_m, sigma_m=sigma_m)
    row, col = np.unravel_index(np.argmax(found), (16, 20))
    center_x, center_y = GRID.map.centers()
    assert abs(center_x[col] - x_m) <= 0.5 + 1e-6
    assert abs(center_y[row] - y_m) <= 0.5 + 1e-6


@pytest.mark.parametrize("distance_m", [100.0, 1e4, 1e5])
def test_the_tails_of_a_gaussian_are_finite_and_right_far_away(distance_m):
    found = evidence.gaussian(GRID, distance_m, 0.0, sigma_m=1.0)
    assert np.isfinite(found).all()
    # in the tail the nearest edge of the cell decides: log density there, less log(distance)
    edge_x = edges()[0][1:]
    gap_m = distance_m - edge_x
    leading = -(gap_m**2) / 2 - 0.5 * math.log(2 * math.pi) - np.log(gap_m)
    across = found[8, :, 0] - found[8, 0, 0]
    assert across == approx(leading - leading[0], rel=1e-6, abs=1e-3)


def test_a_fix_far_off_the_grid_still_orders_its_cells():
    found = evidence.gaussian(GRID, 400.0, 0.0, sigma_m=5.0)
    assert (np.diff(found[5, :, 0]) > 0).all()
    posterior = Posterior.flat(GRID).update(found)
    assert posterior.mode().x_m == 9.5


@pytest.mark.parametrize("sigma_m", [0, -1, math.nan, math.inf])
def test_a_gaussian_of_a_senseless_width_is_refused(sigma_m):
    with pytest.raises(ValueError, match="sigma_m"):
        evidence.gaussian(GRID, 0, 0, sigma_m=sigma_m)


def test_a_position_fix_uses_its_own_accuracy_unless_told_otherwise():
    lat_deg, lon_deg = FRAME.to_geodetic(3.0, -4.0)
    own = evidence.position_fix(GRID, Fix(lat_deg, lon_deg, accuracy_m=6.0))
    assert own == approx(evidence.gaussian(GRID, 3.0, -4.0, sigma_m=6.0), abs=1e-6)
    told = evidence.position_fix(GRID, Fix(lat_deg, lon_deg, accuracy_m=6.0), sigma_m=2.0)
    assert told == approx(evidence.gaussian(GRID, 3.0, -4.0, sigma_m=2.0), abs=1e-5)


def test_a_fix_without_accuracy_needs_one_and_the_message_names_it():
    with pytest.raises(MissingLocationError, match="sigma_m"):
        evidence.position_fix(GRID, Fix(50.0, 8.0))


def test_a_fix_in_another_region_is_refused():
    with pytest.raises(OutOfRegionError):
        evidence.position_fix(GRID, Fix(51.0, 8.0), sigma_m=5)


# ---------------------------------------------------------------- areas


def test_a_disc_allows_the_cells_whose_centre_is_within_its_radius():
    inside = allowed(evidence.disc(GRID, 0.5, 0.5, radius_m=1.0))
    # the cell around (0.5, 0.5) is row 7, column 10; its four neighbours are 1 m away
    assert sorted(zip(*np.nonzero(inside), strict=True)) == [
        (6, 10),
        (7, 9),
        (7, 10),
        (7, 11),
        (8, 10),
    ]


def test_a_disc_smaller_than_a_cell_keeps_the_cell_of_its_centre():
    inside = allowed(evidence.disc(GRID, 0.9, 0.9, radius_m=0.1))
    assert np.argwhere(inside).tolist() == [[7, 10]]


def test_a_disc_off_the_grid_excludes_everything():
    with pytest.raises(ImpossibleEvidenceError):
        Posterior.flat(GRID).update(evidence.disc(GRID, 100, 0, radius_m=20))


def test_a_disc_without_a_radius_is_refused():
    with pytest.raises(ValueError, match="radius_m"):
        evidence.disc(GRID, 0, 0, radius_m=0)


def test_a_box_allows_the_cells_whose_centre_is_inside():
    inside = allowed(evidence.box(GRID, Bounds(west_m=0, south_m=-2, east_m=3, north_m=2)))
    expected = np.zeros((16, 20), bool)
    expected[6:10, 10:13] = True
    assert np.array_equal(inside, expected)


def test_a_polygon_allows_the_cells_whose_centre_is_inside():
    triangle = shapely.Polygon([(-10, -8), (10, -8), (-10, 8)])
    inside = allowed(evidence.polygon(GRID, triangle))
    center_x, center_y = GRID.map.centers()
    below = center_y[:, None] + 8 <= (10 - center_x[None, :]) * 16 / 20
    assert np.array_equal(inside, below)


def test_a_polygon_with_a_hole_and_a_multipolygon_are_areas_too():
    ring = shapely.box(-5, -5, 5, 5).difference(shapely.box(-2, -2, 2, 2))
    assert allowed(evidence.polygon(GRID, ring)).sum() == 100 - 16
    two = shapely.MultiPolygon([shapely.box(-9, 0, -7, 1), shapely.box(7, 0, 9, 1)])
    assert allowed(evidence.polygon(GRID, two)).sum() == 4


def test_a_polygon_of_a_box_is_that_box():
    bounds = Bounds(west_m=-3.3, south_m=-2.1, east_m=4.4, north_m=6.6)
    assert np.array_equal(evidence.polygon(GRID, shapely.box(*bounds)), evidence.box(GRID, bounds))


# ---------------------------------------------------------------- compass


def wrapped_normal(heading_deg, mean_deg, sigma_deg):
    return sum(
        scipy.stats.norm.pdf(heading_deg + 360 * n, mean_deg, sigma_deg) for n in range(-40, 41)
    )


@pytest.mark.parametrize("sigma_deg", [0.5, 5.0, 15.0, 120.0, 1000.0])
@pytest.mark.parametrize("heading_deg", [0.0, 11.0, 181.0, 359.0])
def test_a_compass_is_a_wrapped_normal_averaged_over_each_bin(heading_deg, sigma_deg):
    found = evidence.compass(GRID, heading_deg, sigma_deg=sigma_deg)
    assert found.shape == (8,)
    for k in range(8):
        fine = np.linspace((k - 0.5) * 45, (k + 0.5) * 45, 4001)
        mean = scipy.integrate.simpson(wrapped_normal(fine, heading_deg, sigma_deg), x=fine) / 45
        assert math.exp(found[k]) == approx(mean, rel=1e-5, abs=1e-12)


def test_a_compass_wraps_around_north():
    found = evidence.compass(GRID, 350, sigma_deg=20)
    assert np.argmax(found) == 0
    assert found[7] > found[1] > found[4]


def test_a_compass_never_excludes_a_heading():
    assert np.isfinite(evidence.compass(GRID, 10, sigma_deg=1)).all()


def test_a_compass_says_nothing_where_heading_is_not_represented():
    grid = PoseGrid(GRID.map, 1)
    posterior = Posterior.flat(grid).update(evidence.compass(grid, 10, sigma_deg=5))
    assert posterior.log_mass == approx(Posterior.flat(grid).log_mass)


@pytest.mark.parametrize("sigma_deg", [0, -1, math.nan, math.inf])
def test_a_compass_of_a_senseless_width_is_refused(sigma_deg):
    with pytest.raises(ValueError, match="sigma_deg"):
        evidence.compass(GRID, 0, sigma_deg=sigma_deg)


def test_a_fix_s_true_heading_is_turned_into_the_frames_by_the_convergence_at_the_fix():
    grid = PoseGrid(MapGrid.around(FRAME, 30_000, 0, radius_m=5, cell_m=1), 360)
    lat_deg, lon_deg = FRAME.to_geodetic(30_000, 0)
    convergence_deg = FRAME.convergence_deg(30_000, 0)
    assert convergence_deg == approx(0.321, abs=0.002)
    found = evidence.compass_fix(grid, Fix(lat_deg, lon_deg, heading_deg=90), sigma_deg=2)
    expected = evidence.compass(grid, 90 - convergence_deg, sigma_deg=2)
    assert found == approx(expected, abs=1e-6)


def test_a_magnetic_heading_without_a_declination_is_refused():
    fix = Fix(50.0, 8.0, heading_deg=90, heading_reference="magnetic")
    with pytest.raises(ValueError, match="declination_deg"):
        evidence.compass_fix(GRID, fix)


def test_a_declination_is_added_to_a_magnetic_heading_only():
    magnetic = Fix(50.0, 8.0, heading_deg=350, heading_reference="magnetic")
    true = Fix(50.0, 8.0, heading_deg=350)
    found = evidence.compass_fix(GRID, magnetic, sigma_deg=5, declination_deg=13)
    assert found == approx(evidence.compass(GRID, 3, sigma_deg=5), abs=1e-9)
    found = evidence.compass_fix(GRID, true, sigma_deg=5, declination_deg=13)
    assert found == approx(evidence.compass(GRID, 350, sigma_deg=5), abs=1e-9)


def test_a_fix_without_compass_says_nothing():
    assert evidence.compass_fix(GRID, Fix(50.0, 8.0)).tolist() == [0]


# ---------------------------------------------------------------- maps and nothing


def road_map(grid, *, covered=None):
    """A road of class `road` along row 3, and a map that knows all or some cells."""
    legend = legends.legend("orienternet")
    classes = np.zeros((*grid.shape, 3), np.uint8)
    channel, class_id = legend.find("road")
    classes[3, :, channel] = class_id
    covered = np.ones(grid.shape, bool) if covered is None else covered
    heights = np.zeros(grid.shape, np.float32)
    return MapRaster(grid, classes, "orienternet", covered, frozenset({"road"}), heights)


def test_roads_allow_road_cells_only():
    inside = allowed(evidence.roads(GRID, road_map(GRID.map), road_classes=("road",)))
    assert inside[3].all()
    assert inside.sum() == 20


def test_roads_do_not_exclude_where_the_map_knows_nothing():
    covered = np.ones((16, 20), bool)
    covered[10:] = False
    raster = road_map(GRID.map, covered=covered)
    inside = allowed(evidence.roads(GRID, raster, road_classes=("road", "path")))
    assert inside[3].all()
    assert inside[10:].all()
    assert not inside[4:10].any()


def test_roads_need_the_map_on_the_same_cells_and_frame():
    with pytest.raises(ValueError, match="Cut the map"):
        evidence.roads(GRID, road_map(GRID.map.padded(2)), road_classes=("road",))
    elsewhere = MapGrid(LocalFrame(48.0, 2.0), -10.0, 8.0, 1.0, 16, 20)
    with pytest.raises(FrameMismatchError, match=r"48\.0"):
        evidence.roads(GRID, road_map(elsewhere), road_classes=("road",))


def test_nothing_changes_nothing():
    flat = Posterior.flat(GRID)
    posterior = flat.update(evidence.Nothing().log_likelihood("a photo", GRID))
    assert posterior.log_mass == approx(flat.log_mass)
    assert posterior.log_evidence == approx(0, abs=1e-6)


# ---------------------------------------------------------------- the usual prior


class Fineness:
    cell_m = 0.5
    num_headings = 64


def test_a_prior_within_a_radius_is_a_disc_of_the_matchers_cells():
    prior = evidence.prior_within(FRAME, 10.0, -5.0, radius_m=20, like=Fineness)
    center_x, center_y = prior.grid.map.centers()
    inside = np.hypot(center_x[None] - 10, center_y[:, None] + 5) <= 20
    assert prior.grid.map.cell_m == 0.5
    assert np.array_equal(prior.position() > 0, inside)
    assert prior.mean().x_m == approx(10, abs=1e-3)


def test_a_prior_with_a_compass_prefers_its_heading():
    prior = evidence.prior_within(
        FRAME, 0, 0, radius_m=5, like=Fineness, heading_deg=90, compass_sigma_deg=10
    )
    assert prior.grid.num_headings == 64
    assert prior.mode().heading_deg == 90
    # bins of 5.6 degrees widen it by their own variance, once when rounded and once inside
    assert prior.heading_std_deg() == approx(math.sqrt(100 + 2 * 5.625**2 / 12), abs=0.02)


def test_a_prior_that_would_not_fit_into_memory_takes_cells_larger_by_whole_factors(monkeypatch):
    monkeypatch.setattr(evidence, "MAX_VOLUME_BYTES", 10_000_000)
    prior = evidence.prior_within(FRAME, 0, 0, radius_m=60, like=Fineness, heading_deg=90)
    ratio = prior.grid.map.cell_m / 0.5
    assert ratio == round(ratio) > 1
    assert 4 * math.prod(prior.grid.shape) < 10_000_000
    assert evidence.prior_within(FRAME, 0, 0, radius_m=6, like=Fineness).grid.map.cell_m == 0.5


# --------------------------------------------------------------- reachable


def court_map(*, door_m=0.0, height_m=10.0):
    """A building of 24 x 24 m around a court of 12 x 12 m, with a door to the south, and rim."""
    cells = MapGrid(FRAME, -20.0, 20.0, 0.5, 80, 80)
    x_m, y_m = (np.abs(axis) for axis in np.meshgrid(*cells.centers()))
    solid = (np.maximum(x_m, y_m) < 12) & (np.maximum(x_m, y_m) > 6)
    solid &= ~((x_m < door_m / 2) & (np.meshgrid(*cells.centers())[1] < 0))
    height = np.where(solid, height_m, 0).astype(np.float32)
    classes = np.zeros((80, 80, 3), np.uint8)
    channel, building = legends.legend("crossview").find("building")
    classes[..., channel][solid] = building
    known = frozenset({"building"})
    covered = np.ones((80, 80), bool)
    return MapRaster(cells, classes, "crossview", covered, known, height)


def reached(court, x_m, y_m, **options):
    grid = PoseGrid(MapGrid(FRAME, -15.0, 15.0, 0.5, 60, 60), 4)
    answer = evidence.reachable(grid, court, **options)
    assert answer.shape == (60, 60, 1)
    return float(answer[(*grid.map.cell_of(x_m, y_m), 0)])


def test_a_closed_courtyard_and_the_inside_of_buildings_are_improbable():
    court = court_map()
    assert reached(court, 0.1, 0.1, enclosed=0.02) == approx(math.log(0.02))
    assert reached(court, 9.1, 0.1, enclosed=0.02) == approx(math.log(0.02))
    assert reached(court, 13.1, 0.1) == 0.0
    assert reached(court, 12.1, 12.1) == 0.0


def test_a_courtyard_with_a_wide_door_is_open_and_with_a_narrow_one_is_not():
    assert reached(court_map(door_m=3.0), 0.1, 0.1, passage_m=1.0) == 0.0
    assert reached(court_map(door_m=1.0), 0.1, 0.1, passage_m=2.0) < 0.0


def test_open_ground_reaches_up_to_the_walls():
    assert reached(court_map(door_m=3.0), 5.9, 5.9) == 0.0
    assert reached(court_map(), 12.1, 0.1) == 0.0


def test_a_building_of_unknown_height_encloses_too():
    assert reached(court_map(height_m=np.nan), 0.1, 0.1) < 0.0


def test_what_the_map_does_not_know_is_open():
    court = court_map()
    unknown = MapRaster(
        court.grid,
        court.classes,
        court.legend_id,
        np.zeros((80, 80), bool),
        court.surveyed,
        court.building_height_m,
    )
    assert reached(unknown, 0.1, 0.1) == 0.0


def test_an_enclosed_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="enclosed must be a share"):
        reached(court_map(), 0.1, 0.1, enclosed=0.0)
