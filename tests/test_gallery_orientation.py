"""Galleries of dsm with a limited field of view: what it is told of headings, and what it tells."""

import dataclasses
import json

import numpy as np
import pytest
from fakes.commands import run
from PIL import Image

from crossview.errors import GalleryError
from crossview.frames import LocalFrame, Pose
from crossview.gallery import Gallery, Orienting, takes_headings
from crossview.gallery_files import GalleryWriter, Index, Model
from crossview.gallery_search import find
from crossview.grids import MapGrid, PoseGrid
from crossview.nn.encoders import encoder, save_encoder
from crossview.photos import Fix, Panorama
from crossview.posterior import Posterior

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


def test_headings_are_told_from_true_north_far_from_the_meridian(gallery, query):
    """30 km east of the frame's meridian its north is 0.35 degrees off true north."""
    places = gallery.positions_m + np.array([30_000.0, 0.0])
    far = dataclasses.replace(gallery, positions_m=places)
    told_deg = find(far, Panorama(query), 1).tiles[0].heading_deg
    in_frame = FRAME.pose(FRAME.geo_pose(Pose(*places.mean(axis=0), 90.0)))
    assert in_frame.heading_deg == pytest.approx(90.0)
    true_deg = FRAME.geo_pose(Pose(*places.mean(axis=0), 90.0)).heading_deg
    assert abs(true_deg - 90.0) > 0.3
    assert told_deg == pytest.approx(true_deg, abs=0.01)


def test_several_headings_have_probabilities_where_the_heading_is_unknown(gallery, query):
    found = find(dataclasses.replace(gallery, num_headings=64), Panorama(query), NUM_TILES)
    assert found.tiles[0].tile_id == gallery.tile_ids[SHOWN]
    assert found.tiles[0].heading_deg is None
    stated = [tile.probability for tile in found.tiles]
    assert sum(stated) + found.probability_none == pytest.approx(1.0)
    assert stated[0] == max(stated)


def test_a_prior_of_probabilities_is_not_weighed_by_a_scale_of_known_headings(gallery, query):
    cells = PoseGrid(MapGrid.around(FRAME, 100.0, 0.0, radius_m=200.0, cell_m=10.0), 1)
    with pytest.raises(GalleryError, match="State the heading"):
        find(gallery, Panorama(query), 1, prior=Posterior.flat(cells))
    assert find(gallery, Panorama(query, 90.0), 1, prior=Posterior.flat(cells)).tiles


def test_refusals_say_what_helps_this_encoder_and_this_compass(gallery, query):
    with pytest.raises(GalleryError, match=r"does not say.*gallery_search.find align"):
        gallery.described(Panorama(query))
    fix = Fix(52.5, 13.4, heading_deg=60.4, heading_reference="magnetic")
    with pytest.raises(GalleryError, match=r"says 60.4 deg from \*magnetic\* north"):
        gallery.described(Panorama(query, fix=fix))


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
