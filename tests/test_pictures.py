"""Pictures of a station: one file for each thing to look at, drawn from the real pieces."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fakes.towns import CAMERA, MOUNTS, town_dataset
from PIL import Image

from crossview import pictures
from crossview.column_tables import samples_of, tables
from crossview.errors import ManifestError
from crossview.manifest import Manifest
from crossview.pictures import draw_station
from crossview.pose_queries import map_sources
from crossview.pose_trials import PriorRule
from crossview.semantic import RayCache, SemanticMatcher
from crossview.synthetic.palette import CLASS_COLORS, PaletteSegmenter

NEAR = PriorRule(radius_m=8.0, shift_m=4.0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return Manifest.load(town_dataset(tmp_path_factory.mktemp("dataset"), num_stations=1))


@pytest.fixture(scope="module")
def maps(manifest):
    return map_sources(manifest)


@pytest.fixture(scope="module")
def matcher(manifest):
    """Tables of the one station; enough to draw."""
    segmenter = PaletteSegmenter()
    model = tables(samples_of(manifest, segmenter))
    return SemanticMatcher(segmenter, model, num_headings=64, block_cells=32, rays=RayCache())


@pytest.fixture(scope="module")
def draw(manifest, maps, matcher):
    """Draws a station of the dataset."""

    def drawing(out, *, station="s0", matcher=matcher, rule=NEAR):
        return draw_station(manifest, station, matcher, maps, rule=rule, out=out)

    return drawing


@pytest.fixture(scope="module")
def drawn(draw, tmp_path_factory):
    out = tmp_path_factory.mktemp("pictures") / "made" / "here"
    return out, draw(out)


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_every_view_has_its_classes_and_footprints_and_the_station_the_rest(drawn):
    out, paths = drawn
    views = [f"s0-{k}" for k in range(len(MOUNTS))]
    expected = [f"{view}-{kind}" for view in views for kind in ("classes", "footprints")]
    expected += ["birdseye", "columns", "map", "heatmap"]
    assert sorted(path.stem for path in paths) == sorted(expected)
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


def test_footprints_stand_on_the_walls_of_the_photo(draw, monkeypatch, tmp_path):
    """The feet that are drawn divide wall from ground in a photo that was rendered elsewhere."""
    calls = []
    monkeypatch.setattr(
        pictures.plots,
        "footprints_on_photo",
        lambda photo, footprints, pose, ax: calls.append((photo, footprints, pose)),
    )
    draw(tmp_path)
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


class Counting(PaletteSegmenter):
    """How often it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def __call__(self, image):
        self.asked += 1
        return super().__call__(image)


def test_the_network_looks_once_at_every_photo(draw, matcher, tmp_path):
    segmenter = Counting()
    draw(tmp_path, matcher=replace(matcher, segmenter=segmenter))
    assert segmenter.asked == len(MOUNTS)


def test_heat_map_and_columns_are_of_one_answer(draw, manifest, maps, monkeypatch, tmp_path):
    seen = {}

    def heatmap(localization, ax, *, background, truth):
        seen["best"] = localization.best.peak()

    def columns(view, model, ax, *, maps, frame, poses):
        seen["poses"] = poses

    monkeypatch.setattr(pictures.plots, "heatmap", heatmap)
    monkeypatch.setattr(pictures, "draw_columns", columns)
    draw(tmp_path)
    assert seen["poses"]["best"] == seen["best"]
    assert seen["poses"]["true"] == manifest.pose("s0-0")
    assert abs(seen["best"].x_m - seen["poses"]["true"].x_m) < 1.5


def explained_at(manifest, maps, matcher, **poses):
    """What draw_columns hands to the plot for poses."""
    handed = {}

    def columns(view, ax, *, poses, explained):
        handed.update(poses=poses, explained=explained)
        return ax

    (view,) = matcher.observe(manifest.rig("s0"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures.plots, "columns", columns)
        pictures.draw_columns(
            view, matcher.model, None, maps=maps["town"], frame=manifest.frame("town"), poses=poses
        )
    return handed


def test_columns_fit_the_true_pose_and_not_one_turned_around(manifest, maps, matcher):
    true = manifest.pose("s0-0")
    turned = replace(true, heading_deg=true.heading_deg + 180.0)
    handed = explained_at(manifest, maps, matcher, true=true, turned=turned)
    assert set(handed["poses"]) == {"true", "turned"}
    assert handed["explained"]["true"].shape == (256,)
    # better and worse than a place unknown
    assert handed["explained"]["true"].sum() > 0 > handed["explained"]["turned"].sum()


def test_a_pose_without_a_heading_is_left_out_of_the_columns(manifest, maps, matcher):
    true = manifest.pose("s0-0")
    handed = explained_at(manifest, maps, matcher, true=true, place=replace(true, heading_deg=None))
    assert set(handed["poses"]) == set(handed["explained"]) == {"true"}


@pytest.mark.parametrize(
    ("attribution", "expected"),
    [
        ("", "Photos: nobody (CC0-1.0)"),
        ("OpenStreetMap.", "Photos: nobody (CC0-1.0). Map: OpenStreetMap"),
        ("nobody", "Photos and map: nobody (photos: CC0-1.0)"),
    ],
)
def test_pictures_name_the_photos_with_their_licence_and_the_map(manifest, attribution, expected):
    assert pictures.sources(manifest, SimpleNamespace(attribution=attribution)) == expected


def test_an_unknown_station_is_refused_with_those_that_there_are(draw, tmp_path):
    with pytest.raises(ManifestError, match=r"no station 's9' with a pose\. It has s0\."):
        draw(tmp_path / "out", station="s9")
    assert not (tmp_path / "out").exists()


def test_pictures_are_drawn_without_a_screen_and_without_words(draw, tmp_path, caplog):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    with caplog.at_level(logging.WARNING):
        draw(tmp_path)
    assert plt.get_fignums() == before
    assert caplog.text == ""
