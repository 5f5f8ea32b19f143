"""Constant offsets between photos and map: found again where they were put in, and told apart."""

import math

import numpy as np
import pytest
from pytest import approx

from crossview import column_tables, columns, offsets
from crossview.cameras import Equirectangular
from crossview.column_model import Calibration
from crossview.frames import Motion, Pose
from crossview.photos import Panorama
from crossview.semantic import SemanticMatcher
from crossview.synthetic.palette import PaletteSegmenter, colored
from crossview.synthetic.render import render_photo
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap

CAMERA = Equirectangular(720, 360)
SEGMENTER = PaletteSegmenter()
RIGHT_M, FORWARD_M = 0.5, -0.25


@pytest.fixture(scope="module")
def stations(tmp_path_factory):
    """Panoramas of a town at known poses that look four ways."""
    town = Town.from_seed(5)
    path = tmp_path_factory.mktemp("town") / "town.osm"
    town.write(path)
    maps = VectorMap.read(path)
    scene = Scene.from_features(maps.features, town.frame)
    found = []
    for k, place in enumerate(town.viewpoints(4, seed=5)):
        pose = Pose(place.x_m, place.y_m, 90.0 * k + 20.0)
        image = colored(render_photo(scene, pose, CAMERA, height_m=2.0).classes)
        found.append((columns.observed(Panorama(image, height_m=2.0), SEGMENTER), pose))
    samples = [
        column_tables.Sample(str(k), view, pose, town.frame, maps, is_rig=True)
        for k, (view, pose) in enumerate(found)
    ]
    sharp = Calibration(pixel_scale=0.02, outlier_share=0.02, height_share=0.9, scale=0.3)
    model = column_tables.tables(samples).calibrated(sharp)
    return town.frame, maps, SemanticMatcher(SEGMENTER, model, sight_blocks=3), found


def preferences(stations, stated):
    """What the stations prefer if poses are stated by a function of the true ones."""
    frame, maps, matcher, found = stations
    return [
        offsets.preference(str(k), view, stated(pose), frame, maps, matcher=matcher)
        for k, (view, pose) in enumerate(found)
    ]


def beside(pose):
    """A rig whose position is stated too far to the left and ahead."""
    return pose.moved(Motion(forward_m=-FORWARD_M, right_m=-RIGHT_M))


def on_a_shifted_map(pose):
    return Pose(pose.x_m - RIGHT_M, pose.y_m - FORWARD_M, pose.heading_deg)


@pytest.mark.slow
def test_without_an_offset_none_is_found(stations):
    found = offsets.vehicle_offset(preferences(stations, lambda pose: pose))
    assert (found.right_m, found.forward_m) == approx((0, 0), abs=0.15)
    assert found.log_gain < 1.0


@pytest.mark.slow
def test_an_offset_of_the_rig_turns_with_the_vehicle(stations):
    found = preferences(stations, beside)
    vehicle, ground = offsets.vehicle_offset(found), offsets.ground_offset(found)
    assert (vehicle.right_m, vehicle.forward_m) == approx((RIGHT_M, FORWARD_M), abs=0.15)
    assert vehicle.log_gain > ground.log_gain + 5


@pytest.mark.slow
def test_an_offset_of_the_map_stays_on_the_ground(stations):
    found = preferences(stations, on_a_shifted_map)
    vehicle, ground = offsets.vehicle_offset(found), offsets.ground_offset(found)
    assert (ground.right_m, ground.forward_m) == approx((RIGHT_M, FORWARD_M), abs=0.15)
    assert ground.log_gain > vehicle.log_gain + 5


def test_a_preference_is_read_between_its_offsets_east_and_north():
    rows, cols = np.mgrid[0:5, 0:5]
    one = offsets.Preference("a", 0.0, (10.0 * rows + cols).astype(float))
    east_m = np.array([0.0, 1.0, 0.0, 0.5]) * offsets.CELL_M
    north_m = np.array([0.0, 0.0, 1.0, -1.0]) * offsets.CELL_M
    assert one.at(east_m, north_m) == approx([22.0, 23.0, 12.0, 32.5])


def test_the_standard_error_of_a_normal_preference_is_its_width():
    half = round(offsets.LARGEST_M * math.sqrt(2) / offsets.CELL_M)
    axis = np.arange(-half, half + 1) * offsets.CELL_M
    log_ratio = -0.5 * ((axis[None, :] - 0.25) / 0.3) ** 2 - 0.5 * (axis[:, None] / 0.2) ** 2
    one = offsets.Preference("a", 0.0, log_ratio)
    found = offsets.ground_offset([one])
    assert (found.right_m, found.forward_m) == approx((0.25, 0.0), abs=0.01)
    assert (found.sigma_right_m, found.sigma_forward_m) == approx((0.3, 0.2), abs=0.02)
    assert found.log_gain == approx(0.5 * (0.25 / 0.3) ** 2, abs=0.01)
    assert offsets.ground_offset([one] * 4).sigma_right_m == approx(0.15, abs=0.02)


def test_a_pose_without_a_heading_is_refused(stations):
    frame, maps, matcher, found = stations
    with pytest.raises(ValueError, match="has no heading"):
        offsets.preference("a", found[0][0], Pose(0, 0), frame, maps, matcher=matcher)
