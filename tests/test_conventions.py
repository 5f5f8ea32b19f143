"""The contract: one test for every row of the table of conventions (docs/conventions.md)."""

import ast
import math
from pathlib import Path

import numpy as np
import pyproj
import pytest
from pytest import approx

from crossview import angles, frames, voting
from crossview.birdseye import BirdsEye, from_points, template
from crossview.cameras import map_from_camera
from crossview.errors import ImpossibleEvidenceError, OutOfRegionError
from crossview.export import to_geojson
from crossview.frames import Fix, GeoPose, LocalFrame, Pose
from crossview.grids import MapGrid, PoseGrid
from crossview.photos import Panorama
from crossview.posterior import Posterior
from crossview.tiles import GeoBounds

REPOSITORY = Path(__file__).resolve().parents[1]
GEOD = pyproj.Geod(ellps="WGS84")
CANBERRA = LocalFrame(lat_deg=-35.2809, lon_deg=149.13)
OXFORD = LocalFrame(lat_deg=51.752, lon_deg=-1.2577)


def test_metric_frame_is_transverse_mercator_around_its_region():
    """x east, y north, scale 1, its own north true north; 50 km at most; not UTM, not Web."""
    for frame, utm, utm_convergence_deg in (
        (CANBERRA, "EPSG:32755", -1.23),
        (OXFORD, "EPSG:32630", 1.37),
    ):
        assert frame.to_local(frame.lat_deg, frame.lon_deg) == approx((0, 0), abs=1e-6)
        for azimuth_deg, expected_m in ((90, (1000, 0)), (0, (0, 1000))):
            lon_deg, lat_deg, _ = GEOD.fwd(frame.lon_deg, frame.lat_deg, azimuth_deg, 1000)
            x_m, y_m = frame.to_local(lat_deg, lon_deg)
            assert type(x_m) is type(y_m) is float
            # the geodesic to the east bends towards the equator by less than a decimetre
            assert (x_m, y_m) == approx(expected_m, abs=1e-4)
        assert frame.convergence_deg(0, 0) == approx(0, abs=1e-9)
        to_utm = pyproj.Transformer.from_crs("EPSG:4326", utm, always_xy=True)
        grid_m = to_utm.transform(frame.lon_deg, frame.lat_deg)
        assert frames.grid_convergence_deg(utm, *grid_m) == approx(utm_convergence_deg, abs=0.01)
        with pytest.raises(OutOfRegionError):
            frame.to_local(frame.lat_deg + 0.46, frame.lon_deg)


def test_heading_is_clockwise_from_the_frames_north_in_a_pose_and_true_north_in_a_geo_pose():
    assert angles.forward(90) == approx((1, 0), abs=1e-12)
    assert Pose(0, 0, -90).heading_deg == 270
    # 20 km east of the anchor the frame's north is off true north
    pose = Pose(20_000, 0, 10)
    convergence_deg = OXFORD.convergence_deg(20_000, 0)
    assert convergence_deg == approx(
        20_000 / 6.39e6 * math.degrees(math.tan(math.radians(51.75))), rel=0.01
    )
    geo_pose = OXFORD.geo_pose(pose)
    assert geo_pose.heading_deg == approx(10 + convergence_deg)
    assert OXFORD.pose(geo_pose).heading_deg == approx(10)
    # true north is where the meridian goes
    north = GeoPose(geo_pose.lat_deg + 1e-4, geo_pose.lon_deg)
    x_m, y_m = OXFORD.to_local(north.lat_deg, north.lon_deg)
    meridian_deg = angles.heading_of(x_m - pose.x_m, y_m - pose.y_m)
    assert angles.difference_deg(0, meridian_deg) == approx(convergence_deg, abs=1e-4)


def test_rasters_are_north_up_with_square_cells():
    grid = MapGrid(OXFORD, west_m=-10, north_m=20, cell_m=2.0, height=3, width=5)
    assert grid.shape == (3, 5)
    assert grid.cell_of(-9.9, 19.9) == (0, 0)
    assert grid.cell_of(-0.1, 19.9) == (0, 4)
    assert grid.cell_of(-9.9, 14.1) == (2, 0)
    a, b, _, d, e, _, *_ = grid.transform
    assert (a, b, d, e) == (2, 0, 0, -2)


def test_pixels_have_a_corner_origin():
    grid = MapGrid(OXFORD, west_m=-10, north_m=20, cell_m=2.0, height=3, width=5)
    assert grid.to_pixel(-10, 20) == approx((0, 0))
    assert grid.to_xy(0.5, 0.5) == approx((-9, 19))
    x_m, y_m = grid.centers()
    assert (x_m[0], y_m[0]) == approx((-9, 19))


def test_pose_volume_is_rows_cols_headings_with_centred_bins():
    grid = PoseGrid(MapGrid(OXFORD, 0, 0, 1.0, height=3, width=5), num_headings=8)
    assert Posterior.flat(grid).log_mass.shape == (3, 5, 8)
    assert grid.headings_deg == approx([0, 45, 90, 135, 180, 225, 270, 315])
    assert angles.bin_of([-22, 0, 22], 8).tolist() == [0, 0, 0]
    assert angles.bin_of([-23, 23], 8).tolist() == [7, 1]


def test_birds_eye_view_is_drawn_as_the_map_looks_at_heading_0():
    """Row 0 farthest ahead, column 0 leftmost; the camera at the centre of its cell."""
    ahead = from_points([3.0], [1.0], [[7.0]], cell_m=1.0, reach_m=4.0)
    assert (ahead.camera_row, ahead.camera_col) == (4, 4)
    assert ahead.values[4 - 3, 4 + 1, 0] == 7
    assert np.argwhere(ahead.seen).tolist() == [[1, 5]]
    # turned to the east, ahead is to the right and right is below; rotation about the camera
    turned = template(ahead, 90)
    row, col, _ = np.unravel_index(np.argmax(turned.values), turned.values.shape)
    assert (row + turned.first_row, col + turned.first_col) == (1, 3)
    # and a map with that one cell says that the camera is 3 cells west and 1 north of it
    landmark = np.zeros((12, 14, 1), np.float32)
    landmark[6, 8] = 1
    votes = voting.vote(ahead, landmark, num_headings=4)
    row, col = np.unravel_index(np.argmax(votes.scores[:, :, 1]), (12, 14))
    assert (row, col) == (5, 5)


def test_birds_eye_view_may_have_rows_behind_the_camera():
    behind = from_points([-2.0], [0.0], [[1.0]], cell_m=1.0, reach_m=3.0)
    assert isinstance(behind, BirdsEye)
    assert np.argwhere(behind.seen).tolist() == [[3 + 2, 3]]


def test_camera_is_x_right_y_down_z_forward_and_turns_heading_then_pitch_then_roll():
    right, down, ahead = map_from_camera(0, 0, 0).T
    assert np.array([right, down, ahead]) == approx(np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]))
    assert map_from_camera(0, 10, 0)[2, 2] > 0  # looks up
    assert map_from_camera(0, 0, 10)[2, 0] < 0  # right side down
    # east, then 30 up, then a quarter roll: right is where down was, half east and down
    right, down, ahead = map_from_camera(90, 30, 90).T
    cos, sin = math.cos(math.radians(30)), 0.5
    assert ahead == approx([cos, 0, sin], abs=1e-12)
    assert right == approx([sin, 0, -cos], abs=1e-12)
    assert down == approx([0, 1, 0], abs=1e-12)


def test_panorama_has_its_heading_at_half_its_width_and_azimuth_grows_to_the_right():
    panorama = Panorama(np.zeros((100, 200, 3), np.uint8), heading_deg=30)
    to_map = map_from_camera(panorama.heading_deg)
    for col, azimuth_deg in ((100, 30), (150, 120), (50, 300), (0, 210)):
        east, north, up = to_map @ panorama.camera.rays(col, 50)
        assert up == approx(0, abs=1e-12)
        assert angles.heading_of(east, north) == approx(azimuth_deg)


def test_polar_tile_has_the_columns_of_a_north_aligned_panorama():
    polar = pytest.importorskip("crossview.polar", reason="no polar tiles yet")
    col, row = polar.polar_grid(8, 16, 100)
    # columns 7 and 8 straddle the middle, which looks north; row 0 is the rim
    assert (col[0, 7] + col[0, 8]) / 2 == approx(50)
    assert row[0, 8] < row[-1, 8] < 50
    # a quarter of the width to the right looks east
    assert (row[0, 11] + row[0, 12]) / 2 == approx(50)
    assert col[0, 12] > col[-1, 12] > 50


def calls_of(path, name):
    """Calls whose function ends with a name, anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name):
            yield node


def test_geographic_order_is_by_name_and_longitude_first_only_in_geojson():
    assert list(LocalFrame(lat_deg=1, lon_deg=2).__dict__) == ["lat_deg", "lon_deg"]
    assert list(GeoPose(1, 2).__dict__)[:2] == ["lat_deg", "lon_deg"]
    assert list(Fix(1, 2).__dict__)[:2] == ["lat_deg", "lon_deg"]
    assert OXFORD.to_geodetic(0, 0) == approx((51.752, -1.2577))
    assert GeoBounds._fields == ("west", "south", "east", "north")
    grid = PoseGrid(MapGrid.around(OXFORD, 0, 0, radius_m=2, cell_m=1), 4)
    collection = to_geojson(Posterior.flat(grid).update(_peak_at(grid, Pose(0.5, 0.5, 90))))
    pose = collection["features"][0]
    assert pose["geometry"]["coordinates"][:2] == approx([-1.2577, 51.752], abs=1e-4)
    assert collection["bbox"] == approx([-1.2577, 51.752, -1.2577, 51.752], abs=1e-3)
    west, south, east, north = collection["bbox"]
    assert west < east
    assert south < north


def _peak_at(grid, pose):
    scores = np.zeros(grid.shape)
    scores[grid.index_of(pose)] = 20
    return scores


def test_pyproj_transforms_with_longitude_first_and_in_one_module():
    made = {
        path.relative_to(REPOSITORY).as_posix(): list(calls_of(path, "Transformer.from_crs"))
        for package in ("crossview", "data_tools")
        for path in sorted((REPOSITORY / package).rglob("*.py"))
    }
    assert [name for name, calls in made.items() if calls] == ["crossview/frames.py"]
    for call in made["crossview/frames.py"]:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options["always_xy"] == "True"


def test_probability_is_in_natural_logs_and_only_update_combines():
    grid = PoseGrid(MapGrid(OXFORD, 0, 0, 1.0, height=1, width=3), num_headings=1)
    flat = Posterior.flat(grid)
    scores = np.array([[[math.log(3)], [0.0], [-np.inf]]])
    posterior = flat.update(scores)
    # ln 3 makes three times as probable, -inf excludes, the mass sums to one
    assert np.exp(posterior.log_mass).ravel() == approx([0.75, 0.25, 0], abs=1e-6)
    assert posterior.log_evidence == approx(math.log(4 / 3), abs=1e-6)
    # any constant will do
    shifted = flat.update(scores + 1234.5)
    assert shifted.log_mass == approx(posterior.log_mass, abs=1e-5)
    with pytest.raises(ValueError, match="NaN"):
        flat.update(math.nan)
    with pytest.raises(ImpossibleEvidenceError):
        flat.update(-math.inf)


@pytest.mark.slow
def test_networks_are_batched_and_channels_last_inside_and_single_outside():
    keras = pytest.importorskip("keras", exc_type=ImportError)
    segmentation = pytest.importorskip("crossview.nn.segmentation", exc_type=ImportError)
    seen_shapes = []

    class Watching(keras.layers.Layer):
        def call(self, image):
            seen_shapes.append(tuple(image.shape))
            return keras.ops.concatenate([image] * 6 + [image[..., :2]], axis=-1)

    photo = keras.Input((None, None, 3))
    segmenter = segmentation.CityscapesSegmenter(keras.Model(photo, Watching()(photo)), width_px=64)
    image = np.zeros((96, 64, 3), np.uint8)
    image[:48, :, 1] = 255
    probabilities = segmenter(image)
    assert all(len(shape) == 4 and shape[-1] == 3 for shape in seen_shapes)
    assert probabilities.shape == (96, 64, len(segmenter.classes))
    assert probabilities.sum(axis=-1) == approx(1, abs=1e-5)
    # rows stay rows and channels stay channels: green is above
    assert probabilities[10, 30, 1] > 0.1 > 1.5 * probabilities[90, 30, 1]
