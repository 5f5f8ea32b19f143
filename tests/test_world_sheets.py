"""The sheet of a synthetic dataset: all is drawn."""

import re

import numpy as np
import pytest
from PIL import Image

from crossview.errors import ManifestError
from crossview.synthetic.recipes import Recipe
from crossview.synthetic.synthesis import synthesize
from crossview.synthetic.worlds import Source
from crossview.world_sheets import draw_sheet


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


def test_what_a_map_says_that_cannot_be_is_said_once(tmp_path, caplog):
    text = Source("town-1", seed=1).write_map(tmp_path).read_text()
    extract = tmp_path / "some.osm"
    extract.write_text(re.sub(r'(k="building:levels" v=)"\d+"', r'\1"-3"', text, count=1))
    recipe = Recipe((Source("some", file=str(extract)),), 1, width_px=64, height_px=32,
                    tiles="none", pictures="classes", traffic=0.0)  # fmt: skip
    synthesize(recipe, tmp_path / "out")
    draw_sheet(tmp_path / "out", tmp_path / "sheet.png", num_views=1)
    said = [one.getMessage() for one in caplog.records if "that cannot be" in one.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("some: 1 heights of buildings that cannot be")


def test_other_lots_draw_other_places(tmp_path):
    recipe = Recipe((Source("town-1", seed=1),), 12, width_px=64, height_px=32, tiles="none",
                    pictures="classes", traffic=0.0)  # fmt: skip
    synthesize(recipe, tmp_path / "town")
    drawn = {
        tuple(draw_sheet(tmp_path / "town", tmp_path / f"{seed}.png", num_views=1, seed=seed))
        for seed in range(3)
    }
    assert len(drawn) > 1
