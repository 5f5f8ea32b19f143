"""Polar tiles: published check values, a literal loop, panoramas of the same place, and back."""

import math

import numpy as np
import pytest
import shapely
from pytest import approx
from scipy import ndimage

from crossview import polar, polar_kernels
from crossview.cameras import Equirectangular, Pinhole
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.polar import (
    PolarTable,
    byte_rescaled,
    ground_plane_tile,
    ground_plane_view,
    polar_grid,
    polar_tile,
    square_tile,
)
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.render import render_photo, render_satellite
from crossview.synthetic.scene import Building, Scene


def noise(size_px, channels=3, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 256, (size_px, size_px, channels)).astype(dtype)


def smooth(size_px, seed=0):
    """A tile without detail finer than some pixels, so that it survives being resampled."""
    blurred = ndimage.gaussian_filter(noise(size_px, seed=seed, dtype=float), (6, 6, 0))
    return 255 * (blurred - blurred.min()) / np.ptp(blurred)


def published(image, height, width):
    """The published polar transform, pixel by pixel; a tile's indices are (row, column)."""
    size = len(image)
    out = np.zeros((height, width, image.shape[2]))
    for i in range(height):
        for j in range(width):
            theta = 2 * math.pi * j / width
            rho = size / 2 * (height - 1 - i) / height
            row, col = size / 2 + rho * math.cos(theta), size / 2 - rho * math.sin(theta)
            up, left = int(row), int(col)
            down, right = row - up, col - left
            out[i, j] = (
                (1 - down) * (1 - right) * image[up, left]
                + (1 - down) * right * image[up, left + 1]
                + down * (1 - right) * image[up + 1, left]
                + down * right * image[up + 1, left + 1]
            )
    return out


@pytest.mark.parametrize(
    ("sizes", "place", "index"),
    [
        ((112, 616, 750), (0, 0), (746.6518, 375)),
        ((112, 616, 750), (0, 154), (375, 3.3482)),
        ((112, 616, 750), (0, 308), (3.3482, 375)),
        ((112, 616, 750), (0, 462), (375, 746.6518)),
        ((112, 616, 750), (111, 99), (375, 375)),
        ((112, 616, 750), (56, 77), (505.2150, 244.7850)),
        ((112, 616, 1200), (0, 0), (1194.6429, 600)),
        ((112, 616, 1200), (56, 77), (808.3440, 391.6560)),
        ((128, 512, 750), (64, 64), (505.5109, 244.4891)),
    ],
)
def test_published_indices_are_ours_less_half_a_pixel(sizes, place, index):
    """The (row, column) that the published formula gives."""
    col, row = polar_grid(*sizes, convention="safa")
    assert (row[place] - 0.5, col[place] - 0.5) == approx(index, abs=5e-5)


def test_ours_are_at_the_centres_of_pixels():
    col, row = polar_grid(2, 4, 100)
    # rings at a quarter and three quarters of the half side, looking 225, 315, 45 and 135 degrees
    for i, radius_px in ((0, 37.5), (1, 12.5)):
        away = radius_px / math.sqrt(2)
        assert col[i] == approx(50 + away * np.array([-1, -1, 1, 1]))
        assert row[i] == approx(50 + away * np.array([1, -1, -1, 1]))


@pytest.mark.parametrize("convention", polar.CONVENTIONS)
def test_a_heading_is_at_the_centre_column(convention):
    north = polar_tile(noise(60), 8, 36, convention=convention)
    # ten degrees are a column here
    turned = polar_tile(noise(60), 8, 36, heading_deg=40, convention=convention)
    assert np.array_equal(turned, np.roll(north, -4, axis=1))


def test_published_tiles_are_those_of_a_literal_loop():
    image = noise(90)
    expected = published(image.astype(float), 20, 48)
    table = PolarTable.of(20, 48, 90, convention="safa")
    assert table.values(image) == approx(expected, abs=1e-9)
    rescaled = polar_tile(image, 20, 48, convention="safa", rescale="minmax")
    low, high = expected.min(), expected.max()
    assert np.array_equal(
        rescaled, ((expected - low) * (255 / (high - low)) + 0.5).astype(np.uint8)
    )


@pytest.mark.parametrize("size_px", [2, 37, 200])
def test_bytes_are_interpolated_as_scipy_does_and_rounded(size_px):
    image = noise(size_px)
    col, row = polar_grid(24, 60, size_px)
    expected = np.stack(
        [
            ndimage.map_coordinates(
                image[..., k].astype(float), [row - 0.5, col - 0.5], order=1, mode="nearest"
            )
            for k in range(3)
        ],
        axis=-1,
    )
    found = polar_tile(image, 24, 60)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() < 0.52  # half a step, and weights of 15 bits
    assert polar_tile(image.astype(np.float32), 24, 60) == approx(expected, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_compiled_kernel_and_numpy_agree_to_the_bit(channels, monkeypatch):
    if polar_kernels.compiled(channels) is None:
        pytest.skip("numba is not installed: uv pip install -e .[fast]")
    image = noise(150, channels)
    compiled = polar_tile(image, 20, 48)
    monkeypatch.setattr(polar_kernels, "compiled", lambda _: None)
    assert np.array_equal(polar_tile(image, 20, 48), compiled)


def test_weights_of_bytes_sum_to_one():
    for size_px in (2, 33, 1200):
        weights = PolarTable.of(16, 40, size_px).byte_weights
        assert set(weights.sum(axis=1).tolist()) == {1 << polar_kernels.WEIGHT_BITS}
    white = np.full((1200, 1200, 3), 255, np.uint8)
    assert (polar_tile(white, 16, 40) == 255).all()


def test_bytes_are_rescaled_as_old_scipy_wrote_images():
    # the example of its own documentation
    image = np.array(
        [
            [91.06794177, 3.39058326, 84.4221549],
            [73.88003259, 80.91433048, 4.88878881],
            [51.53875334, 34.45808177, 27.5873488],
        ]
    )
    expected = [[255, 0, 236], [205, 225, 4], [140, 90, 70]]
    assert byte_rescaled(image).tolist() == expected
    assert byte_rescaled(noise(4)).tolist() == noise(4).tolist()
    assert (byte_rescaled(np.full((2, 2), 7.0)) == 0).all()
    with pytest.raises(ValueError, match="finite"):
        byte_rescaled(np.array([0.0, np.nan]))


@pytest.mark.parametrize(("convention", "center"), [("crossview", 60.0), ("safa", 60.5)])
def test_a_tile_comes_back_inside_the_rim_and_says_where(convention, center):
    image = smooth(121)
    options = {"heading_deg": 77, "convention": convention}
    again, valid = square_tile(polar_tile(image, 200, 900, **options), 121, **options)
    away_px = np.hypot(*(np.indices((121, 121)) - center))
    assert valid[away_px < 60.2].all()
    assert not valid[away_px > 60.51].any()
    assert np.abs(again - image)[valid].max() < 2.0
    assert (again[~valid] == 0).all()


def test_what_is_no_tile_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="Crop it around"):
        polar_tile(np.zeros((4, 5, 3)), 8, 16)
    with pytest.raises(ValueError, match="of 4 px, got"):
        PolarTable.of(8, 16, 4)(np.zeros((5, 5, 3)))
    with pytest.raises(ValueError, match="'SAFA'"):
        polar_grid(8, 16, 100, convention="SAFA")
    with pytest.raises(ValueError, match="'byte'"):
        polar_tile(noise(4), 8, 16, rescale="byte")
    with pytest.raises(ValueError, match="0 x 16 of 100"):
        polar_grid(0, 16, 100)
    with pytest.raises(ValueError, match="finite"):
        polar_grid(8, 16, 100, heading_deg=math.nan)


# ---------------------------------------------------------------- panoramas of the same place


def tile_around(half_m, cell_m):
    side = round(2 * half_m / cell_m)
    return MapGrid(LocalFrame(50.0, 8.0), -half_m, half_m, cell_m, side, side)


@pytest.mark.parametrize(("heading_deg", "col"), [(0, 270), (90, 180), (180, 90), (45, 225)])
def test_what_is_east_is_a_quarter_right_of_north_and_as_high_as_it_is_far(heading_deg, col):
    grid = tile_around(40.0, 0.25)
    image = np.zeros((*grid.shape, 1))
    row, middle = grid.cell_of(10.05, -0.05)  # 10 m to the east
    image[row - 2 : row + 2, middle - 2 : middle + 2] = 1.0
    rows, cols, _ = np.nonzero(polar_tile(image, 80, 360, heading_deg=heading_deg))
    assert np.mean(cols + 0.5) == approx(col, abs=1.0)
    assert np.mean(rows + 0.5) == approx(80 * (1 - 10 / 40), abs=1.0)


def test_walls_stand_in_the_same_columns_of_panorama_and_polar_tile():
    rng = np.random.default_rng(5)
    boxes = []
    for azimuth in np.deg2rad([10, 95, 160, 230, 300]):
        x_m, y_m = 20 * np.sin(azimuth), 20 * np.cos(azimuth)
        half_m = rng.uniform(2, 5, size=2)
        boxes.append(
            shapely.box(x_m - half_m[0], y_m - half_m[1], x_m + half_m[0], y_m + half_m[1])
        )
    scene = Scene(buildings=tuple(Building(box, 8.0) for box in boxes))
    building = CLASSES.index("building")
    seen = render_photo(scene, Pose(0, 0, 70), Equirectangular(720, 360)).classes == building
    above = render_satellite(scene, tile_around(40.0, 0.25)).classes == building
    turned = polar_tile(above[..., None].astype(float), 160, 720, heading_deg=70)[..., 0] > 0.5
    assert 0.1 < seen.any(axis=0).mean() < 0.6
    assert (seen.any(axis=0) == turned.any(axis=0)).mean() > 0.99


# ---------------------------------------------------------------- the ground plane


def test_ground_is_as_far_as_its_angle_below_the_horizon_says():
    grid = tile_around(20.0, 0.1)
    tile = np.zeros(grid.shape, np.uint8)
    row, col = grid.cell_of(0.0, 3.0)  # 3 m to the north, a camera 3 m high: 45 degrees down
    tile[row - 2 : row + 2, col - 2 : col + 2] = 255
    panorama, valid = ground_plane_view(tile, 0.1, Equirectangular(720, 360), height_m=3.0)
    rows, cols = np.nonzero(panorama > 127)
    assert (np.mean(rows + 0.5), np.mean(cols + 0.5)) == approx((270, 360), abs=0.5)
    assert not valid[:180].any()  # the sky
    # 20 m to the north and south end the tile: atan(3 / 20) = 8.53 degrees
    assert np.flatnonzero(valid[:, 360])[0] == 180 + 17
    assert valid[198:].all()
    # looking west with a perspective camera, it is 90 degrees to the right, which is not seen
    photo, _ = ground_plane_view(
        tile, 0.1, Pinhole.from_focal(200, 200, 100), height_m=3.0, heading_deg=270, pitch_deg=-45
    )
    assert not photo.any()
    # looking there it is in the middle
    photo, valid = ground_plane_view(
        tile, 0.1, Pinhole.from_focal(200, 200, 100), height_m=3.0, pitch_deg=-45
    )
    rows, cols = np.nonzero(photo > 127)
    assert (np.mean(rows + 0.5), np.mean(cols + 0.5)) == approx((100, 100), abs=0.5)
    # a field of view of 90 degrees ends at the horizon above and straight down below
    assert valid[-1].all()


@pytest.mark.parametrize(
    ("camera", "turned"),
    [
        (Equirectangular(1440, 720), {"heading_deg": 50.0}),
        (Pinhole.from_focal(900, 700, 500), {"heading_deg": 50, "pitch_deg": -40, "roll_deg": 8}),
    ],
)
def test_ground_comes_back_where_the_camera_saw_it(camera, turned):
    tile = smooth(121).astype(np.float32)
    view, seen = ground_plane_view(tile, 0.1, camera, height_m=2.5, **turned)
    again, valid = ground_plane_tile(view, camera, 121, 0.1, height_m=2.5, **turned)
    if isinstance(camera, Equirectangular):
        assert valid.all()
    else:
        assert 0.2 < valid.mean() < 0.9
    # what the view has around each of these cells is of the tile
    away_m = np.hypot(*(np.indices((121, 121)) - 60)) * 0.1
    known = valid & (away_m < 5.5)
    assert np.abs(again - tile)[known].max() < 2.0
    assert seen.any()
    assert (again[~valid] == 0).all()


def test_a_rendered_wall_has_its_foot_where_it_stands():
    """A house beside the camera, seen from the street and laid on the ground."""
    scene = Scene(buildings=(Building(shapely.box(4.0, -30.0, 9.0, 30.0), 5.0),))
    camera = Equirectangular(1440, 720)
    seen = render_photo(scene, Pose(0, 0, 120), camera, height_m=2.0)
    is_building = (seen.classes == CLASSES.index("building")).astype(np.float32)
    above, _ = ground_plane_tile(is_building, camera, 120, 0.1, height_m=2.0, heading_deg=120)
    # its foot is 4 m to the east of the middle, column 100; all behind it is smeared over
    assert (above[10:110, 102:] > 0.5).all()
    assert (above[:, :98] < 0.5).all()


def test_a_camera_in_the_ground_is_refused():
    with pytest.raises(ValueError, match="positive metres, got 0 and"):
        ground_plane_tile(np.zeros((4, 8)), Equirectangular(8, 4), 4, 0.1, height_m=0)
    with pytest.raises(ValueError, match="Scale the camera"):
        ground_plane_tile(np.zeros((8, 4)), Equirectangular(8, 4), 4, 0.1, height_m=1.0)
    with pytest.raises(ValueError, match="square"):
        ground_plane_view(np.zeros((8, 4)), 0.1, Equirectangular(8, 4), height_m=1.0)
