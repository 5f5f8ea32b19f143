"""Galleries of a manifest's tiles: what is described, and what is left out by name."""

import numpy as np
import pytest
from fakes.galleries import (
    FakeEncoder,
    Query,
    picture_descriptor,
    pictures,
    tile_dataset,
)
from PIL import Image

from crossview import gallery_build
from crossview.errors import GalleryError
from crossview.gallery import Gallery
from crossview.gallery_build import build
from crossview.preprocessing import Preprocessing


def test_every_tile_is_described_at_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_build, "BATCH_TILES", 3)
    encoder = FakeEncoder()
    made = build(tile_dataset(tmp_path / "set"), encoder, tmp_path / "g", block_tiles=5)
    assert sorted(encoder.described) == list(range(12))
    for name, place, row in zip(made.tile_ids, made.positions_m, made.descriptors, strict=True):
        k = int(name[1:])
        np.testing.assert_allclose(place, (50.0 * (k % 4), 50.0 * (k // 4)), atol=1e-6)
        np.testing.assert_array_equal(row, picture_descriptor(pictures(12)[k]))
    assert (made.footprint_m, made.scale, made.attribution) == (64.0, 20.0, "Nobody")
    assert made.name == "Made-up town"
    assert made.encoder is encoder
    found = made.search(Query(pictures(12)[7]), 1)
    assert made.tile_ids[found.rows[0]] == "t7"
    assert found.similarity[0] == pytest.approx(1, abs=1e-6)


def test_images_are_found_from_the_gallery_wherever_both_are(tmp_path):
    build(tile_dataset(tmp_path / "a" / "set"), FakeEncoder(), tmp_path / "a" / "deep" / "g")
    (tmp_path / "a").rename(tmp_path / "b")
    made = Gallery.load(tmp_path / "b" / "deep" / "g")
    assert (made.image_path(3)).is_file()
    assert made.image_path(3).parent == tmp_path / "b" / "images"


def torn(path):
    path.write_bytes(path.read_bytes()[:100])


def test_a_corrupt_image_is_listed_and_never_scored(tmp_path):
    manifest = tile_dataset(tmp_path / "set")
    images = tmp_path / "images"
    torn(images / "4.png")
    (images / "5.png").unlink()
    (images / "6.png").write_text("<html>404</html>")
    Image.fromarray(np.zeros((8, 6, 3), np.uint8)).save(images / "9.png")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(images / "10.png")
    encoder = FakeEncoder()
    made = build(manifest, encoder, tmp_path / "g")
    left_out = {"t4", "t5", "t6", "t9", "t10"}
    assert {one.tile_id for one in made.excluded} == left_out
    reasons = {one.tile_id: one.reason for one in made.excluded}
    assert "4.png" in reasons["t4"]
    assert "5.png" in reasons["t5"]
    assert reasons["t9"] == "It has 6 x 8 pixels and is not square."
    assert reasons["t10"] == "Its side is 128.0 m and that of others 64.0 m."
    assert set(made.tile_ids) == {f"t{k}" for k in range(12)} - left_out
    assert sorted(encoder.described) == [0, 1, 2, 3, 7, 8, 11]
    assert len(made.search(Query(pictures(12)[4]), 100).rows) == 7


def test_a_gallery_whose_images_are_all_gone_is_refused(tmp_path):
    manifest = tile_dataset(tmp_path / "set")
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(GalleryError, match=r"None of the 12 images.*image_root"):
        build(manifest, FakeEncoder(), tmp_path / "g")


def test_tiles_that_are_not_north_up_are_refused_by_name(tmp_path):
    manifest = tile_dataset(
        tmp_path / "set", changes=[(3, {"rotation_deg": 350.0}), (5, {"rotation_deg": 1.5})]
    )
    with pytest.raises(GalleryError, match=r"1 of 12 tiles.*t3 is turned by -10.0 degrees"):
        build(manifest, FakeEncoder(), tmp_path / "g")


def test_tiles_of_another_size_than_the_encoder_is_for_are_refused(tmp_path):
    encoder = FakeEncoder(preprocessing=Preprocessing((8, 8), (8, 8), footprint_m=50.0))
    with pytest.raises(GalleryError, match=r"64.0 m wide.*for tiles of 50.0 m"):
        build(tile_dataset(tmp_path / "set"), encoder, tmp_path / "g")


def test_a_region_must_be_chosen_where_there_are_several(tmp_path):
    manifest = tile_dataset(tmp_path / "set", changes=[(3, {"region": "village"})])
    with pytest.raises(GalleryError, match="town, village"):
        build(manifest, FakeEncoder(), tmp_path / "g")
    made = build(manifest, FakeEncoder(), tmp_path / "g", region="village")
    assert made.tile_ids.tolist() == ["t3"]
    with pytest.raises(GalleryError, match="is a gallery already"):
        build(manifest, FakeEncoder(), tmp_path / "g", region="town")


def test_a_dataset_without_tiles_is_refused(tmp_path):
    with pytest.raises(GalleryError, match=r"tiles.csv is empty"):
        build(tile_dataset(tmp_path / "set", count=0), FakeEncoder(), tmp_path / "g")


def test_progress_counts_blocks(tmp_path):
    seen = []

    def progress(items, total):
        seen.append(total)
        yield from items

    build(
        tile_dataset(tmp_path / "set"), FakeEncoder(), tmp_path / "g", block_tiles=5,
        progress=progress,
    )  # fmt: skip
    assert seen == [3]
