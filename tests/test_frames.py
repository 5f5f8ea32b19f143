import math

import numpy as np
import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from crossview import frames
from crossview.errors import OutOfRegionError
from crossview.frames import Fix, GeoPose, LocalFrame, Motion, Pose

GEOD = pyproj.Geod(ellps="WGS84")
CANBERRA = LocalFrame(-35.28, 149.13)
OXFORD = LocalFrame(51.75, -1.26)
PLACES = [CANBERRA, OXFORD, LocalFrame(0.0, 0.0), LocalFrame(64.1, -21.9), LocalFrame(-17.8, 180.0)]

places = st.sampled_from(PLACES)
metres = st.floats(-30_000, 30_000)
headings = st.floats(0, 359.99)
poses = st.builds(Pose, metres, metres, headings)


def turn_deg(a_deg, b_deg):
    return (a_deg - b_deg + 180) % 360 - 180


# ---------------------------------------------------------------- values


def test_the_anchor_is_the_origin():
    assert OXFORD.to_local(51.75, -1.26) == approx((0, 0), abs=1e-9)


def test_x_grows_east_and_y_grows_north():
    x_m, y_m = CANBERRA.to_local(-35.28 + 0.01, 149.13 + 0.02)
    # a hundredth of a degree of latitude is about 1109 m there, two of longitude 1820 m
    assert x_m == approx(1820, abs=5)
    assert y_m == approx(1109, abs=5)


def test_the_scale_at_the_anchor_is_one():
    for frame in PLACES:
        factors = pyproj.Proj(frame.crs).get_factors(frame.lon_deg, frame.lat_deg)
        assert (factors.meridional_scale, factors.parallel_scale) == approx((1, 1), abs=1e-9)


@pytest.mark.parametrize("frame", PLACES[:4], ids=str)
@pytest.mark.parametrize("distance_m, tolerance_m", [(5_000, 0.3e-3), (20_000, 17e-3)])
def test_a_diagonal_distance_agrees_with_the_geodesic(frame, distance_m, tolerance_m):
    for azimuth_deg in (45, 135, 225, 315):
        lon_deg, lat_deg, _ = GEOD.fwd(frame.lon_deg, frame.lat_deg, azimuth_deg, distance_m)
        x_m, y_m = frame.to_local(lat_deg, lon_deg)
        assert math.hypot(x_m, y_m) == approx(distance_m, abs=tolerance_m)


@pytest.mark.parametrize("frame", PLACES[:4], ids=str)
def test_no_direction_is_worse_than_transverse_mercator_must_be(frame):
    """Along east the projection stretches by s^3 / (6 R^2): 0.5 mm in 5 km, 33 mm in 20 km."""
    for distance_m in (5_000, 20_000, 45_000):
        must_be_m = 1.02 * distance_m**3 / (6 * 6.36e6**2)
        for azimuth_deg in range(0, 360, 15):
            lon_deg, lat_deg, _ = GEOD.fwd(frame.lon_deg, frame.lat_deg, azimuth_deg, distance_m)
            lon_deg = (lon_deg + 180) % 360 - 180
            x_m, y_m = frame.to_local(lat_deg, lon_deg)
            assert -1e-6 < math.hypot(x_m, y_m) - distance_m < must_be_m + 1e-6


@pytest.mark.parametrize(
    "heading_deg, ahead, right",
    [(0, (0, 1), (1, 0)), (90, (1, 0), (0, -1)), (180, (0, -1), (-1, 0)), (270, (-1, 0), (0, 1))],
)
def test_forward_is_along_the_heading_and_right_is_to_its_right(heading_deg, ahead, right):
    moved = Pose(5, 6, heading_deg).moved(Motion(forward_m=10))
    assert (moved.x_m - 5, moved.y_m - 6) == approx((10 * ahead[0], 10 * ahead[1]), abs=1e-12)
    moved = Pose(5, 6, heading_deg).moved(Motion(right_m=3))
    assert (moved.x_m - 5, moved.y_m - 6) == approx((3 * right[0], 3 * right[1]), abs=1e-12)


def test_a_motion_goes_along_the_heading_before_the_turn():
    moved = Pose(1, 2, 0).moved(Motion(forward_m=10, right_m=1, turn_deg=90))
    assert (moved.x_m, moved.y_m, moved.heading_deg) == approx((2, 12, 90))


# ---------------------------------------------------------------- true north


@pytest.mark.parametrize(
    "frame, epsg, expected_deg",
    [(CANBERRA, "EPSG:32755", -1.23), (OXFORD, "EPSG:32630", 1.37)],
    ids=["Canberra", "Oxford"],
)
def test_utm_north_is_more_than_a_degree_off_true_north(frame, epsg, expected_deg):
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", epsg, always_xy=True)
    easting_m, northing_m = to_utm.transform(frame.lon_deg, frame.lat_deg)
    convergence_deg = frames.grid_convergence_deg(epsg, easting_m, northing_m)
    assert convergence_deg == approx(expected_deg, abs=0.005)
    # and the sign: a step along grid north has this azimuth from true north
    lon_deg, lat_deg = to_utm.transform(easting_m, northing_m + 1, direction="INVERSE")
    azimuth_deg, _, _ = GEOD.inv(frame.lon_deg, frame.lat_deg, lon_deg, lat_deg)
    assert azimuth_deg == approx(convergence_deg, abs=1e-4)


def test_lambert_93_north_is_half_a_degree_west_of_true_north_in_paris():
    # a conic projection converges by its cone constant times the longitude from 3 E
    easting_m, northing_m = 651_195.0, 6_861_380.0
    _, lon_deg = frames.geodetic_from_projected("EPSG:2154", easting_m, northing_m)
    convergence_deg = frames.grid_convergence_deg("EPSG:2154", easting_m, northing_m)
    assert convergence_deg == approx(-0.4827, abs=5e-4)
    assert convergence_deg == approx(0.7256077650 * (lon_deg - 3), abs=1e-6)


def test_a_projected_place_is_easting_first_and_comes_back_latitude_first():
    # the origin of Lambert-93: 46.5 N, 3 E is (700 000, 6 600 000)
    lat_deg, lon_deg = frames.geodetic_from_projected("EPSG:2154", 700_000, 6_600_000)
    assert (lat_deg, lon_deg) == approx((46.5, 3.0), abs=1e-9)


@pytest.mark.parametrize("frame", PLACES, ids=str)
def test_the_frames_own_north_is_true_north_along_the_anchors_meridian(frame):
    y_m = np.array([-20_000.0, 0.0, 20_000.0])
    assert frame.convergence_deg(np.zeros(3), y_m) == approx([0, 0, 0], abs=1e-7)


def test_convergence_is_a_twentieth_of_a_degree_5_km_east_at_50_north():
    frame = LocalFrame(50.0, 8.0)
    assert frame.convergence_deg(5_000, 0) == approx(0.0535, abs=2e-4)
    assert frame.convergence_deg(-5_000, 0) == approx(-0.0535, abs=2e-4)
    assert LocalFrame(-50.0, 8.0).convergence_deg(5_000, 0) == approx(-0.0535, abs=2e-4)


@given(places, metres, metres, headings)
def test_a_true_heading_is_the_geodesics_azimuth_along_the_pose(frame, x_m, y_m, heading_deg):
    pose = Pose(x_m, y_m, heading_deg)
    here, ahead = frame.geo_pose(pose), frame.geo_pose(pose.moved(Motion(forward_m=2)))
    azimuth_deg, _, _ = GEOD.inv(here.lon_deg, here.lat_deg, ahead.lon_deg, ahead.lat_deg)
    assert turn_deg(here.heading_deg, azimuth_deg) == approx(0, abs=5e-5)


# ---------------------------------------------------------------- round trips


@given(places, metres, metres, headings)
def test_pose_and_geo_pose_are_inverse(frame, x_m, y_m, heading_deg):
    back = frame.pose(frame.geo_pose(Pose(x_m, y_m, heading_deg)))
    assert (back.x_m, back.y_m) == approx((x_m, y_m), abs=1e-5)
    assert turn_deg(back.heading_deg, heading_deg) == approx(0, abs=1e-8)


def test_a_pose_without_heading_keeps_none_both_ways():
    geo_pose = OXFORD.geo_pose(Pose(10, 20))
    assert geo_pose.heading_deg is None
    assert OXFORD.pose(geo_pose).heading_deg is None


@given(poses, poses)
def test_motion_to_is_the_inverse_of_moved(start, end):
    motion = start.motion_to(end)
    back = start.moved(motion)
    assert (back.x_m, back.y_m) == approx((end.x_m, end.y_m), abs=1e-6)
    assert turn_deg(back.heading_deg, end.heading_deg) == approx(0, abs=1e-9)
    assert -180 < motion.turn_deg <= 180


def test_a_motion_to_a_place_on_the_left_goes_left():
    # looking east, north is left; the turn to north is a quarter to the left
    motion = Pose(0, 0, 90).motion_to(Pose(5, 2, 0))
    assert (motion.forward_m, motion.right_m, motion.turn_deg) == approx((5, -2, -90))


def test_numbers_give_numbers_and_arrays_give_arrays():
    assert all(type(value) is float for value in OXFORD.to_local(51.751, -1.26))
    assert all(type(value) is float for value in OXFORD.to_geodetic(1, 2))
    assert type(OXFORD.convergence_deg(1, 2)) is float
    x_m, y_m = OXFORD.to_local(np.full((2, 3), 51.76), np.full((2, 3), -1.25))
    assert x_m.shape == y_m.shape == (2, 3)
    assert OXFORD.convergence_deg(x_m, y_m).shape == (2, 3)


def test_arrays_agree_with_their_elements():
    lat_deg, lon_deg = np.array([51.7, 51.8]), np.array([-1.3, -1.2])
    x_m, y_m = OXFORD.to_local(lat_deg, lon_deg)
    for i in range(2):
        assert (x_m[i], y_m[i]) == approx(OXFORD.to_local(lat_deg[i], lon_deg[i]), abs=1e-9)


def test_a_frame_across_the_antimeridian_is_seamless():
    fiji = LocalFrame(-17.8, 179.999)
    x_m, _ = fiji.to_local(-17.8, -179.999)
    assert x_m == approx(0.002 * 106_033, abs=0.5)
    lat_deg, lon_deg = fiji.to_geodetic(1_000, 0)
    assert lon_deg == approx(-180 + (1_000 / 106_033 - 0.001), abs=1e-5)
    assert GeoPose(lat_deg, lon_deg).lon_deg == lon_deg


def test_a_coordinate_reference_system_puts_east_first_in_metres():
    axes = OXFORD.crs.axis_info
    assert [axis.direction for axis in axes] == ["east", "north"]
    assert {axis.unit_name for axis in axes} == {"metre"}


def test_equal_anchors_are_the_same_frame():
    assert LocalFrame(51, 2) == LocalFrame(51.0, 2.0)
    assert hash(LocalFrame(51, 2)) == hash(LocalFrame(51.0, 2.0))
    assert LocalFrame(51, 2) != LocalFrame(51, 2.0000001)


# ---------------------------------------------------------------- refusals


def test_a_place_more_than_50_km_away_is_refused():
    lon_deg, lat_deg, _ = GEOD.fwd(-1.26, 51.75, 90, 50_100)
    with pytest.raises(OutOfRegionError, match=r"50 km.*LocalFrame"):
        OXFORD.to_local(lat_deg, lon_deg)
    lon_deg, lat_deg, _ = GEOD.fwd(-1.26, 51.75, 90, 49_900)
    OXFORD.to_local(lat_deg, lon_deg)


def test_a_pose_more_than_50_km_away_has_no_geo_pose():
    with pytest.raises(OutOfRegionError, match="50 km"):
        OXFORD.geo_pose(Pose(50_100, 0, 0))


def test_one_far_place_among_near_ones_is_refused():
    with pytest.raises(OutOfRegionError):
        OXFORD.to_local(np.array([51.75, 48.85]), np.array([-1.26, 2.35]))


@pytest.mark.parametrize("frame", [CANBERRA, OXFORD], ids=["Canberra", "Oxford"])
def test_swapped_latitude_and_longitude_are_refused_and_the_message_says_so(frame):
    with pytest.raises(OutOfRegionError, match="swapped"):
        frame.to_local(frame.lon_deg, frame.lat_deg)


def test_a_place_that_is_not_a_number_is_refused():
    with pytest.raises(OutOfRegionError):
        OXFORD.to_local(math.nan, -1.26)


@pytest.mark.parametrize("make", [LocalFrame, GeoPose, Fix])
@pytest.mark.parametrize("lat_deg, lon_deg", [(149.13, -35.28), (0, 181), (math.nan, 0)])
def test_coordinates_that_are_no_place_are_refused(make, lat_deg, lon_deg):
    with pytest.raises(ValueError, match="latitude first"):
        make(lat_deg, lon_deg)


@pytest.mark.parametrize("make", [Pose, GeoPose, Fix])
def test_headings_are_normalised_and_must_be_finite(make):
    assert make(1, 2, heading_deg=-90).heading_deg == 270
    assert make(1, 2, heading_deg=360).heading_deg == 0
    with pytest.raises(ValueError, match="None where it is not known"):
        make(1, 2, heading_deg=math.nan)


def test_a_fix_refuses_another_north_and_a_senseless_accuracy():
    with pytest.raises(ValueError, match="'true' or 'magnetic'"):
        Fix(1, 2, heading_deg=3, heading_reference="grid")
    for accuracy_m in (0, -3, math.nan, math.inf):
        with pytest.raises(ValueError, match="accuracy_m"):
            Fix(1, 2, accuracy_m=accuracy_m)


def test_a_motion_refuses_negative_spread_and_missing_numbers():
    with pytest.raises(ValueError, match="0 or more"):
        Motion(sigma_m=-1)
    with pytest.raises(ValueError, match="0 or more"):
        Motion(sigma_deg=-1)
    with pytest.raises(ValueError, match="finite"):
        Motion(forward_m=math.nan)


def test_a_pose_without_heading_cannot_be_moved():
    with pytest.raises(ValueError, match="heading_deg"):
        Pose(0, 0).moved(Motion(forward_m=1))


def test_no_motion_leads_to_or_from_a_pose_without_heading():
    for start, end in [(Pose(0, 0), Pose(1, 1, 0)), (Pose(0, 0, 0), Pose(1, 1))]:
        with pytest.raises(ValueError, match="Give both a heading_deg"):
            start.motion_to(end)


@pytest.mark.parametrize("value", [Pose(1, 2, 3), GeoPose(1, 2, 3), LocalFrame(1, 2), Motion()])
def test_places_and_poses_are_immutable(value):
    name = next(iter(vars(value)))
    with pytest.raises(AttributeError):
        setattr(value, name, 5.0)
