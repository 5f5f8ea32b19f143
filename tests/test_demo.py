"""The demo: everything from a town's XML to files, and right to a cell and a heading bin."""

import json
import shutil

import numpy as np
import pytest
import rasterio
from PIL import Image
from pytest import approx

from crossview import demo
from crossview.errors import ManifestError
from crossview.frames import Pose
from crossview.grids import MapGrid
from crossview.manifest import Manifest
from crossview.synthetic.dataset import write_dataset
from crossview.synthetic.moments import traffic
from crossview.synthetic.palette import PaletteSegmenter
from crossview.synthetic.render import render_photo
from crossview.synthetic.scene import Scene
from crossview.synthetic.town import Town
from crossview.vectors import VectorMap


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, demo.run(folder)


def test_the_photo_is_placed_within_one_cell_and_one_heading_bin(made):
    _, result = made
    grid = result.answer.localization.best.grid
    assert grid.map.cell_m == 0.5
    assert grid.num_headings >= 64
    assert abs(result.estimate.x_m - result.truth.x_m) <= 0.5
    assert abs(result.estimate.y_m - result.truth.y_m) <= 0.5
    assert result.heading_error_deg <= 360.0 / grid.num_headings


def test_the_answer_is_certain_and_not_by_the_prior_alone(made):
    _, result = made
    assert result.answer.is_certain
    assert result.answer.localization.probability_within(1.0) > 0.5
    frame = result.answer.localization.best.grid.map.frame
    assert np.hypot(*frame.to_local(frame.lat_deg, frame.lon_deg)) == approx(0.0, abs=1e-6)
    # the rough place, the frame's anchor, is far from the truth
    assert np.hypot(result.truth.x_m, result.truth.y_m) > 2.0


def test_every_file_of_the_demo_is_written(made):
    folder, _ = made
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "town.osm",
        "photo.png",
        "labels.png",
        "satellite.png",
        "demo.png",
        "photo_localized.geojson",
        "photo_localized.png",
        "photo_localized.tif",
    }


def test_the_geojson_holds_the_estimate(made):
    folder, result = made
    collection = json.loads((folder / "photo_localized.geojson").read_text(encoding="utf-8"))
    best = collection["features"][0]
    frame = result.answer.localization.best.grid.map.frame
    place = frame.geo_pose(result.estimate)
    assert best["geometry"]["coordinates"] == approx([place.lon_deg, place.lat_deg], abs=1e-7)
    assert best["properties"]["heading_deg"] == approx(place.heading_deg, abs=1e-3)
    assert best["properties"]["answer"] == "ok"


def test_the_geotiff_sums_to_one_and_the_heat_map_is_a_picture(made):
    folder, _ = made
    with rasterio.open(folder / "photo_localized.tif") as raster:
        assert raster.read(1).sum() == approx(1.0, abs=1e-4)
    with Image.open(folder / "photo_localized.png") as image:
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 200


def colours(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_what_is_localized_are_the_towns_classes_with_the_stated_errors(made):
    folder, _ = made
    labels = PaletteSegmenter()(colours(folder / "labels.png")).argmax(axis=-1)
    town = Town.from_seed(0)
    scene = Scene.from_features(VectorMap.read(folder / "town.osm").features, town.frame)
    (pose,) = town.viewpoints(1, seed=0)
    movers = traffic(scene, 0, 1.0, keep_out_m=[(pose.x_m, pose.y_m)])
    true = render_photo(scene, pose, demo.CAMERA, height_m=1.6, movers=movers).classes
    assert 0.01 < (labels != true).mean() < 0.1


def test_photo_and_satellite_view_are_pictures_of_the_same_size_as_said(made):
    folder, _ = made
    photo, tile = colours(folder / "photo.png"), colours(folder / "satellite.png")
    assert photo.shape == (demo.CAMERA.height_px, demo.CAMERA.width_px, 3)
    assert tile.shape[0] * demo.TILE_CELL_M == approx(demo.TILE_M, abs=1.5 * demo.TILE_CELL_M)
    for picture in (photo, tile, colours(folder / "demo.png")):
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def test_the_satellite_view_lies_on_the_map(made):
    """Roads and roofs differ in brightness; on a shifted map they would not."""
    folder, _ = made
    tile = colours(folder / "satellite.png").astype(float).mean(axis=-1)
    town = Town.from_seed(0)
    place = demo.rough_place(town, town.viewpoints(1, seed=0)[0], seed=0)
    grid = MapGrid.around(
        town.frame, *map(float, town.frame.to_local(place.lat_deg, place.lon_deg)),
        radius_m=demo.TILE_M / 2, cell_m=demo.TILE_CELL_M,
    )  # fmt: skip
    raster = VectorMap.read(folder / "town.osm")(grid)
    road = raster.class_mask("road") & ~raster.class_mask("building")

    def contrast(mask):
        return abs(tile[mask].mean() - tile[~mask].mean()) / tile.std()

    assert contrast(road) > 1.3 * contrast(np.rot90(road))
    assert contrast(road) > 1.3 * contrast(road[::-1])


def test_the_map_that_is_written_is_the_town(made):
    folder, _ = made
    assert (folder / "town.osm").read_bytes() == Town.from_seed(0).to_osm_xml()
    table = VectorMap.read(folder / "town.osm").features.table
    assert sum("building" in tags for tags in table["tags"]) > 50


def test_the_report_says_estimate_truth_and_error(made):
    _, result = made
    lines = dict(line.split(": ", 1) for line in result.report().splitlines())
    frame = result.answer.localization.best.grid.map.frame
    truth = frame.geo_pose(result.truth)
    assert lines["answer"] == "ok"
    assert lines["truth"].startswith(f"{truth.lat_deg:.7f}, {truth.lon_deg:.7f}, heading ")
    assert lines["estimate"].startswith(lines["lat, lon"])
    expected = f"{result.position_error_m:.2f} m, {result.heading_error_deg:.1f} deg"
    assert lines["error"] == expected


def test_the_truth_is_where_the_towns_camera_stood(made):
    _, result = made
    town = Town.from_seed(0)
    (viewpoint,) = town.viewpoints(1, seed=0)
    there, here = town.frame, result.answer.localization.best.grid.map.frame
    truth, expected = here.geo_pose(result.truth), there.geo_pose(viewpoint)
    assert (truth.lat_deg, truth.lon_deg) == approx((expected.lat_deg, expected.lon_deg), abs=1e-9)
    assert truth.heading_deg == approx(expected.heading_deg, abs=1e-6)


def test_the_demo_is_the_same_every_time(made, tmp_path):
    folder, _ = made
    demo.run(tmp_path)
    for name in ("town.osm", "photo.png", "photo_localized.geojson"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_errors_are_a_distance_and_the_shorter_turn(made):
    _, result = made
    other = demo.DemoResult(result.answer, Pose(3.0, 0.0, 350.0), Pose(0.0, 4.0, 20.0))
    assert other.position_error_m == approx(5.0)
    assert other.heading_error_deg == approx(30.0)


@pytest.mark.parametrize("seed", range(6))
def test_the_rough_place_is_up_to_15_m_off_per_axis(seed):
    town, truth = Town.from_seed(0), Pose(30.0, -40.0, 10.0)
    place = demo.rough_place(town, truth, seed=seed)
    x_m, y_m = town.frame.to_local(place.lat_deg, place.lon_deg)
    assert max(abs(x_m - 30.0), abs(y_m + 40.0)) <= 15.0
    assert (x_m, y_m) != approx((30.0, -40.0), abs=0.5)


# ---------------------------------------------------------------------- dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(
        Town.from_seed(0), tmp_path_factory.mktemp("town") / "dataset", num_stations=2, seed=5
    )


def test_a_station_of_the_dataset_is_four_photos_that_see_all_around(dataset):
    assert [station.station_id for station in dataset.stations()] == ["000", "001"]
    for station in dataset.stations():
        turns_deg = [mount.heading_deg for mount in station.mounts]
        assert turns_deg == approx([0.0, 90.0, 180.0, 270.0], abs=1e-6)
        assert all(mount.forward_m == approx(0.0, abs=1e-3) for mount in station.mounts)
    camera = dataset.rig("000").photos[0].camera
    assert camera.horizontal_fov_deg == approx(90.0)


def test_the_poses_of_the_dataset_are_the_towns_viewpoints(dataset):
    expected = Town.from_seed(0).viewpoints(2, seed=5)
    for station, pose in zip(dataset.stations(), expected, strict=True):
        assert (station.truth.x_m, station.truth.y_m) == approx((pose.x_m, pose.y_m), abs=1e-4)
        assert station.truth.heading_deg == approx(pose.heading_deg, abs=1e-6)


def test_the_dataset_holds_its_map_and_every_image_opens(dataset):
    (map_file,) = dataset.map_files()
    assert map_file.path.read_bytes() == Town.from_seed(0).to_osm_xml()
    assert [problem for problems in dataset.file_problems() for problem in problems] == []


def test_the_dataset_can_be_moved_because_its_paths_are_relative(dataset, tmp_path):
    shutil.copytree(dataset.folder, tmp_path / "moved")
    moved = Manifest.load(tmp_path / "moved")
    assert moved.image_folder == tmp_path / "moved"
    assert moved.photo("000-090").image.shape == (600, 600, 3)


def test_a_dataset_that_is_there_is_not_overwritten(dataset):
    before = sorted(path.name for path in dataset.folder.parent.iterdir())
    with pytest.raises(ManifestError, match="dataset"):
        write_dataset(Town.from_seed(0), dataset.folder, num_stations=1, seed=0)
    assert sorted(path.name for path in dataset.folder.parent.iterdir()) == before
