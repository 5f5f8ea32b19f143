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
    found = made.search(Query(pictures(12)[7], heading_deg=0.0), 1)
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
    assert len(made.search(Query(pictures(12)[4], heading_deg=0.0), 100).rows) == 7


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


def for_tiles_of(footprint_m, **options):
    return FakeEncoder(
        preprocessing=Preprocessing((8, 8), (8, 8), polar=None, footprint_m=footprint_m, **options)
    )


def test_tiles_smaller_than_the_encoder_is_for_are_refused(tmp_path):
    with pytest.raises(GalleryError, match=r"tile t0 is 64.0 m wide.*for tiles of 80.0 m"):
        build(tile_dataset(tmp_path / "set"), for_tiles_of(80.0), tmp_path / "g")
    assert not (tmp_path / "g").exists()


def test_larger_tiles_are_cut_to_what_the_encoder_is_for(tmp_path):
    """Of 8 x 8 pixels of 8 m, 32 m are the 4 x 4 in the middle, as training cuts them."""
    manifest = tile_dataset(tmp_path / "set")
    Image.fromarray(pictures(1, seed=5, side=4)[0]).save(tmp_path / "images" / "5.png")
    Image.fromarray(pictures(1, seed=5, side=2)[0]).save(tmp_path / "images" / "6.png")
    made = build(manifest, for_tiles_of(32.0), tmp_path / "g")
    assert made.footprint_m == 32.0
    rows = dict(zip(made.tile_ids, made.descriptors, strict=True))
    for k in (0, 7, 11):
        expected = picture_descriptor(pictures(12)[k][2:6, 2:6])
        np.testing.assert_array_equal(rows[f"t{k}"], expected)
    np.testing.assert_array_equal(rows["t5"], picture_descriptor(pictures(1, seed=5, side=4)[0]))
    reasons = {one.tile_id: one.reason for one in made.excluded}
    assert reasons == {"t6": "Its side is 16.0 m and that of others 32.0 m."}
    places = dict(zip(made.tile_ids, made.positions_m.tolist(), strict=True))
    assert places["t7"] == pytest.approx((50.0 * 3, 50.0 * 1), abs=1e-6)


def test_a_small_tile_is_left_out_wherever_it_stands(tmp_path):
    manifest = tile_dataset(tmp_path / "set")
    Image.fromarray(pictures(1, side=4)[0]).save(tmp_path / "images" / "0.png")
    made = build(manifest, for_tiles_of(64.0), tmp_path / "g")
    assert [one.tile_id for one in made.excluded] == ["t0"]
    assert (made.footprint_m, made.num_tiles) == (64.0, 11)


def test_a_tile_that_is_a_pixel_short_is_taken_as_it_is(tmp_path):
    made = build(tile_dataset(tmp_path / "set"), for_tiles_of(64.3), tmp_path / "g")
    assert (made.footprint_m, made.num_tiles) == (64.0, 12)


def test_tiles_of_another_size_than_in_training_are_warned_of(tmp_path, caplog):
    manifest = tile_dataset(tmp_path / "set")
    encoder = for_tiles_of(None)
    encoder.tile_side_m = (60.0, 70.0)
    build(manifest, encoder, tmp_path / "alike")
    assert not caplog.text
    encoder.tile_side_m = (30.0, 40.0)
    build(manifest, encoder, tmp_path / "other")
    assert "64.0 m wide, and the encoder was trained on tiles of 30.0 to 40.0 m" in caplog.text


def test_headings_are_not_for_encoders_that_see_none(tmp_path):
    with pytest.raises(GalleryError, match=r"'fake' with fov_deg=90 sees nothing.*--headings 1"):
        build(
            tile_dataset(tmp_path / "set"), for_tiles_of(None, fov_deg=90.0), tmp_path / "g",
            num_headings=16,
        )  # fmt: skip
    assert not (tmp_path / "g").exists()


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
