"""Pictures of a station: one file for each thing to look at, drawn from the real pieces."""

import logging

import numpy as np
import pytest
from fakes.towns import CAMERA, MOUNTS, town_dataset
from PIL import Image

from crossview import pictures
from crossview.errors import ManifestError
from crossview.manifest import Manifest
from crossview.pictures import draw_station
from crossview.pose_evaluation import PriorRule, map_sources
from crossview.birdseye_matcher import BirdsEyeMatcher
from crossview.synthetic.palette import CLASS_COLORS, PaletteSegmenter

NEAR = PriorRule(radius_m=8.0, shift_m=4.0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return Manifest.load(town_dataset(tmp_path_factory.mktemp("dataset"), num_stations=1))


@pytest.fixture(scope="module")
def maps(manifest):
    return map_sources(manifest)


def draw(manifest, maps, out, *, station="s0", rule=NEAR):
    matcher = BirdsEyeMatcher(PaletteSegmenter(), num_headings=64)
    return draw_station(manifest, station, matcher, maps, rule=rule, out=out)


@pytest.fixture(scope="module")
def drawn(manifest, maps, tmp_path_factory):
    out = tmp_path_factory.mktemp("pictures") / "made" / "here"
    return out, draw(manifest, maps, out)


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_every_view_has_its_classes_and_footprints_and_the_station_the_rest(drawn):
    out, paths = drawn
    views = [f"s0-{k}" for k in range(len(MOUNTS))]
    expected = [f"{view}-{kind}" for view in views for kind in ("classes", "footprints")]
    assert sorted(path.stem for path in paths) == sorted([*expected, "birdseye", "map", "heatmap"])
    assert sorted(out.iterdir()) == sorted(paths)


def test_every_picture_shows_something(drawn):
    _, paths = drawn
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 500, path.name
            assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 20, path.name


def test_pictures_of_the_views_differ(drawn):
    out, _ = drawn
    contents = {(out / f"s0-{k}-footprints.png").read_bytes() for k in range(len(MOUNTS))}
    assert len(contents) == len(MOUNTS)


def test_footprints_stand_on_the_walls_of_the_photo(drawn, manifest, monkeypatch, maps, tmp_path):
    """The feet that are drawn divide wall from ground in a photo that was rendered elsewhere."""
    calls = []
    monkeypatch.setattr(
        pictures.plots,
        "footprints_on_photo",
        lambda photo, footprints, pose, ax: calls.append((photo, footprints, pose)),
    )
    draw(manifest, maps, tmp_path)
    assert len(calls) == len(MOUNTS)
    building = CLASS_COLORS["building"]
    checked = right = 0
    for photo, footprints, pose in calls:
        assert (photo.camera, photo.height_m) == (CAMERA, 2.0)
        assert len(footprints) > 3
        is_building = np.all(photo.image == building, axis=-1)
        for col, row in _feet(footprints, pose, photo):
            if 3 <= row < CAMERA.height_px - 3:
                checked += 1
                right += is_building[row - 3, col] and not is_building[row + 3, col]
    # other walls, trees and fences hide half of the feet; 2 m or 10 degrees off, a quarter is right
    assert checked > 200
    assert right / checked > 0.4


def _feet(footprints, pose, photo):
    """Pixels of points along the walls' feet, by plain trigonometry."""
    heading = np.deg2rad(pose.heading_deg)
    for polygon, _ in footprints:
        ring = polygon.exterior
        for along_m in np.arange(0.0, ring.length, 2.0):
            point = ring.interpolate(along_m)
            east_m, north_m = point.x - pose.x_m, point.y - pose.y_m
            ahead_m = east_m * np.sin(heading) + north_m * np.cos(heading)
            right_m = east_m * np.cos(heading) - north_m * np.sin(heading)
            if 3.0 < ahead_m < 40.0 and abs(right_m) < 0.99 * ahead_m:
                col = CAMERA.cx + CAMERA.fx * right_m / ahead_m
                yield int(col), int(CAMERA.cy + CAMERA.fy * photo.height_m / ahead_m)


def test_an_unknown_station_is_refused_with_those_that_there_are(manifest, maps, tmp_path):
    with pytest.raises(ManifestError, match=r"no station 's9' with a pose\. It has s0\."):
        draw(manifest, maps, tmp_path / "out", station="s9")
    assert not (tmp_path / "out").exists()


def test_pictures_are_drawn_without_a_screen_and_without_words(manifest, maps, tmp_path, caplog):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    with caplog.at_level(logging.WARNING):
        draw(manifest, maps, tmp_path)
    assert plt.get_fignums() == before
    assert caplog.text == ""
