"""Galleries of dsm with a limited field of view: what it is told of headings, and what it tells."""

import json

import numpy as np
import pytest
from fakes.commands import run
from PIL import Image

from crossview.frames import LocalFrame
from crossview.gallery import Gallery, Orienting, takes_headings
from crossview.gallery_files import GalleryWriter, Index, Model
from crossview.gallery_search import find
from crossview.nn.encoders import encoder, save_encoder
from crossview.photos import Panorama

pytestmark = [
    pytest.mark.usefixtures("loggers_as_they_were"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

FRAME = LocalFrame(52.5, 13.4)
NUM_TILES = 6
SHOWN = 2
"""The tile that the query looks like."""


@pytest.fixture(scope="module")
def made():
    """Sees 90 degrees: 16 of 64 columns of azimuth."""
    small = {"ground_px": (16, 64), "overhead_px": (16, 256)}
    return encoder("dsm", fov_deg=90.0, frozen_blocks=0, **small)


@pytest.fixture(scope="module")
def query():
    return np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def gallery(made, query):
    """Noise, but for one tile whose map is the query's where it looks: at 90 degrees."""
    rows = np.random.default_rng(1).normal(size=(NUM_TILES, made.descriptor_size))
    rows[SHOWN] = made.describe(Panorama(query), [90.0])[0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    places = np.column_stack([np.arange(NUM_TILES) * 50.0, np.zeros(NUM_TILES)])
    return Gallery.of(
        FRAME, places, rows.astype(np.float32), footprint_m=64.0, model=Model.of(made),
        encoder=made, scale=10.0, name="dsm",
    )  # fmt: skip


def test_it_orients_and_others_with_a_limited_view_take_no_headings(made):
    assert isinstance(made, Orienting)
    assert takes_headings(made)
    tiny = {"width": 4, "ground_px": (32, 64), "overhead_px": (32, 64)}
    assert not takes_headings(encoder("tiny", fov_deg=90.0, **tiny))
    assert takes_headings(encoder("tiny", **tiny))


def test_a_query_is_described_where_it_says_that_it_looks(made, query):
    east = made.describe(Panorama(query, 90.0))
    np.testing.assert_allclose(east, made.describe(Panorama(query), [90.0])[0], atol=1e-6)
    north = made.describe(Panorama(query))
    maps = [each.reshape(made.map_shape) for each in (north, east)]
    np.testing.assert_array_equal(maps[1], np.roll(maps[0], made.map_shape[1] // 4, axis=1))
    assert not np.allclose(east, north, atol=1e-3)


def test_the_heading_that_is_told_decides(gallery, query):
    told = find(gallery, Panorama(query), 1, heading_deg=90.0)
    assert told.ranking.rows.tolist() == [SHOWN]
    assert told.ranking.similarity[0] == pytest.approx(1.0, abs=1e-4)
    stated = find(gallery, Panorama(query, 90.0), 1)
    assert stated.to_json() == told.to_json()
    wrong = find(gallery, Panorama(query, 270.0), NUM_TILES)
    similarity = dict(zip(wrong.ranking.rows.tolist(), wrong.ranking.similarity, strict=True))
    assert similarity[SHOWN] == pytest.approx(0.0, abs=1e-6)  # zeros where it does not look


def test_an_unknown_heading_is_found_as_evaluation_finds_it(gallery, made, query):
    found = find(gallery, Panorama(query), NUM_TILES)
    assert found.tiles[0].tile_id == gallery.tile_ids[SHOWN]
    assert found.tiles[0].heading_deg == pytest.approx(90.0, abs=0.01)
    assert found.probability_none is None
    rows = found.ranking.rows
    straight = made.describe(Panorama(query), [0.0])
    alike = np.asarray(made.similarities(gallery.descriptors[rows], straight))[:, 0]
    np.testing.assert_allclose(found.ranking.similarity, alike, atol=1e-5)


def test_the_command_passes_headings_on(gallery, made, query, tmp_path):
    import pandas as pd

    save_encoder(made, tmp_path / "model")
    index = Index(FRAME, 64.0, Model.of(made), scale=10.0)
    tiles = pd.DataFrame(
        {"tile_id": gallery.tile_ids, "x_m": gallery.positions_m[:, 0], "y_m": 0.0, "image": ""}
    )
    with GalleryWriter(tmp_path / "g", index, tiles) as writer:
        for block in writer.blocks():
            writer.write(block, gallery.descriptors)
        writer.finish()
    Image.fromarray(query).save(tmp_path / "view.png")

    def best(*flags):
        done = run(
            "gallery", "search", tmp_path / "g", tmp_path / "view.png", "--panorama", "--json",
            "--k", 1, "--model", tmp_path / "model", *flags,
        )  # fmt: skip
        return json.loads(done.stdout)["found"][0]

    assert best("--heading-deg", 90)["similarity"] == pytest.approx(1.0, abs=1e-4)
    assert best("--heading-deg", 270)["similarity"] < 0.5
    assert best()["heading_deg"] == pytest.approx(90.0, abs=0.01)
