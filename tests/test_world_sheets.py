"""The sheet of a synthetic dataset: polar tiles line up with panoramas, and all is drawn."""

import numpy as np
import pytest
import shapely
from PIL import Image

from crossview.cameras import Equirectangular
from crossview.errors import ManifestError
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.synthetic.palette import CLASSES
from crossview.synthetic.recipes import Recipe
from crossview.synthetic.render import render_photo, render_satellite
from crossview.synthetic.scene import Building, Scene
from crossview.synthetic.synthesis import synthesize
from crossview.synthetic.worlds import Source
from crossview.world_sheets import draw_sheet, polar

FRAME = LocalFrame(50.0, 8.0)
BUILDING = CLASSES.index("building")


def tile_around(x_m, y_m, half_m=40.0, cell_m=0.25):
    side = round(2 * half_m / cell_m)
    return MapGrid(FRAME, x_m - half_m, y_m + half_m, cell_m, side, side)


@pytest.mark.parametrize(
    ("heading_deg", "col"), [(0.0, 270), (90.0, 180), (180.0, 90), (45.0, 225)]
)
def test_what_is_east_is_a_quarter_right_of_north_and_as_high_as_it_is_far(heading_deg, col):
    grid = tile_around(100.0, 200.0)
    image = np.zeros((*grid.shape, 1))
    row, middle = grid.cell_of(110.05, 199.95)  # 10 m to the east
    image[row - 2 : row + 2, middle - 2 : middle + 2] = 1.0
    turned = polar(image, grid, Pose(100.0, 200.0, heading_deg), width_px=360, rows=80)
    rows, cols, _ = np.nonzero(turned)
    assert np.mean(cols + 0.5) == pytest.approx(col, abs=1.0)
    assert np.mean(rows + 0.5) == pytest.approx(80 * (1 - 10 / 40), abs=1.0)


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
    pose, grid = Pose(0.0, 0.0, 70.0), tile_around(0.0, 0.0)
    seen = render_photo(scene, pose, Equirectangular(720, 360)).classes == BUILDING
    above = render_satellite(scene, grid).classes == BUILDING
    turned = polar(above[..., None], grid, pose, width_px=720, rows=160)[..., 0]
    assert 0.1 < seen.any(axis=0).mean() < 0.6
    assert (seen.any(axis=0) == turned.any(axis=0)).mean() > 0.99


def test_a_sheet_of_a_dataset_is_drawn(tmp_path):
    recipe = Recipe((Source("town-1", seed=1),), 3, width_px=64, height_px=32, tile_px=16,
                    pictures="classes", traffic=0.0)  # fmt: skip
    with pytest.raises(ManifestError, match=r"no synthesis\.json"):
        draw_sheet(tmp_path, tmp_path / "sheet.png")
    synthesize(recipe, tmp_path / "town")
    drawn = draw_sheet(tmp_path / "town", tmp_path / "pictures" / "sheet.png", num_views=2)
    assert len(drawn) == 2
    assert set(drawn) < {f"town-1-{k:06d}" for k in range(3)}
    sheet = np.asarray(Image.open(tmp_path / "pictures" / "sheet.png").convert("RGB"))
    road = (sheet == (128, 64, 128)).all(axis=-1)
    assert road.mean() > 0.05  # class images in their colours
    with pytest.raises(ValueError, match="1 view or more"):
        draw_sheet(tmp_path / "town", tmp_path / "sheet.png", num_views=0)


def test_other_lots_draw_other_places(tmp_path):
    recipe = Recipe((Source("town-1", seed=1),), 12, width_px=64, height_px=32, tiles="none",
                    pictures="classes", traffic=0.0)  # fmt: skip
    synthesize(recipe, tmp_path / "town")
    drawn = {
        tuple(draw_sheet(tmp_path / "town", tmp_path / f"{seed}.png", num_views=1, seed=seed))
        for seed in range(3)
    }
    assert len(drawn) > 1
