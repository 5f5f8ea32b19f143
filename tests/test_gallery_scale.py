"""The scale of similarities: recovered where the truth is drawn by it, best by a literal look."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fakes.galleries import (
    FRAME,
    MODEL,
    PREPROCESSING,
    FakeEncoder,
    descriptors,
    gallery,
    pictures,
    places,
    tile_dataset,
)
from PIL import Image

from crossview.errors import GalleryError
from crossview.frames import Pose
from crossview.gallery import Gallery
from crossview.gallery_build import build
from crossview.gallery_files import store_scale
from crossview.gallery_scale import SCALES, fit_scale, held_out_queries
from crossview.manifest import Manifest


def drawn(made, scale, count, seed=0):
    """Queries whose true tile is drawn with probability proportional to exp(scale * similarity)."""
    rng = np.random.default_rng(seed)
    for query in descriptors(count, seed=seed + 50):
        weight = np.exp(scale * (made.descriptors @ query).astype(float))
        row = rng.choice(made.num_tiles, p=weight / weight.sum())
        yield query, Pose(*made.positions_m[row])


@pytest.mark.parametrize("scale", [4.0, 12.0, 30.0])
def test_the_scale_that_drew_the_truth_is_found(scale):
    made = gallery(60, scale=None)
    fit = fit_scale(made, drawn(made, scale, 2000))
    assert fit.scale == pytest.approx(scale, rel=0.07)
    assert (fit.num_queries, fit.num_outside) == (2000, 0)


def test_the_fit_is_the_best_and_says_what_the_gallery_would():
    made = gallery(40, scale=None)
    queries = list(drawn(made, 8.0, 30))
    fit = fit_scale(made, queries)

    def log_ratio(scale, query, similarity):
        scores = [scale * float(row @ query) for row in made.descriptors]
        return scale * similarity - math.log(sum(map(math.exp, scores)) / len(scores))

    def total(scale):
        """Of all queries, and of one more that is lost: the mean of what each would be."""
        found = lost = 0.0
        for query, pose in queries:
            row = made.owner_of(pose.x_m, pose.y_m)
            found += log_ratio(scale, query, float(made.descriptors[row] @ query))
            lost += log_ratio(scale, query, float((made.descriptors @ query).mean()))
        return found + lost / len(queries)

    assert total(fit.scale) > total(fit.scale * 1.03)
    assert total(fit.scale) > total(fit.scale / 1.03)
    fitted = made.with_scale(fit.scale)
    stated = [
        math.log(fitted.probabilities(query, none=0).probability[made.owner_of(p.x_m, p.y_m)] * 40)
        for query, p in queries
    ]
    assert fit.log_ratio_nats == pytest.approx(np.mean(stated), abs=1e-4)


def test_a_few_easy_queries_do_not_ask_for_certainty():
    made = gallery(40, scale=None)
    easy = [(made.descriptors[k].copy(), Pose(*made.positions_m[k])) for k in range(5)]
    fit = fit_scale(made, easy)
    assert SCALES[0] * 2 < fit.scale < SCALES[1] / 10
    assert (
        0.5 < made.with_scale(fit.scale).probabilities(*easy[0][:1], none=0).probability[0] < 0.99
    )


def test_queries_outside_of_the_tiles_are_counted_and_left_out():
    made = gallery(40, scale=None)
    queries = [*drawn(made, 8.0, 30), (descriptors(1)[0], Pose(9000, 0))]
    fit = fit_scale(made, queries)
    assert (fit.num_queries, fit.num_outside) == (30, 1)
    assert fit == replace(fit_scale(made, queries[:-1]), num_outside=1)
    with pytest.raises(GalleryError, match="None of 1 queries"):
        fit_scale(made, queries[-1:])


def test_headings_that_are_known_count():
    """Of four descriptors the one of the true heading is the tile's: the others must not help."""
    made = Gallery.of(
        FRAME, places(30), descriptors(30), footprint_m=64, model=MODEL, num_headings=4
    )
    others = descriptors(90, seed=3).reshape(30, 3, 16)
    queries = [
        (np.stack([o[0], o[1], row, o[2]]), Pose(*place, 170.0))
        for o, row, place in zip(others, made.descriptors, made.positions_m, strict=True)
    ]
    right = fit_scale(made, queries)
    unknown = fit_scale(made, [(q, Pose(p.x_m, p.y_m)) for q, p in queries])
    assert right.log_ratio_nats > unknown.log_ratio_nats + 1 > 2
    with pytest.raises(GalleryError, match="no more than like any"):
        fit_scale(made, [(q, Pose(p.x_m, p.y_m, 90.0)) for q, p in queries])


# ---------------------------------------------------------------- of a dataset


class Looking(FakeEncoder):
    """Knows panoramas by the tile whose number is their blue channel, whatever the heading."""

    def describe(self, query, headings_deg=None):
        row = self.describe_tiles([pictures(12)[int(query.image[0, 0, 2])]])
        self.asked = headings_deg
        return row[0] if headings_deg is None else np.repeat(row, len(headings_deg), axis=0)


def with_views(folder):
    """The tiles of tile_dataset and a panorama at each of the first six, and one of no position."""
    manifest = tile_dataset(folder)
    rows = []
    for k in range(7):
        pixels = np.full((8, 16, 3), k, np.uint8)
        Image.fromarray(pixels).save(folder.with_name("images") / f"view{k}.png")
        geo = FRAME.geo_pose(Pose(50.0 * (k % 4) + 5, 50.0 * (k // 4), 30.0))
        known = {"lat_deg": geo.lat_deg, "lon_deg": geo.lon_deg, "heading_deg": geo.heading_deg}
        rows.append(
            {
                "view_id": f"v{k}", "region": "town", "kind": "panorama", "order": 0,
                "image": f"view{k}.png", "split": "val" if k < 3 else "train",
                **(known if k < 6 else {}),
            }
        )  # fmt: skip
    return Manifest.append(folder, views=rows) if manifest else None


def unsplit(manifest):
    return replace(manifest, views=manifest.views.assign(split=""))


def test_views_with_a_position_are_queries_at_their_pose(tmp_path):
    manifest = unsplit(with_views(tmp_path / "set"))
    encoder = Looking()
    made = build(manifest, encoder, tmp_path / "g")
    queries = list(held_out_queries(manifest, made))
    assert len(queries) == 6
    assert encoder.asked == pytest.approx([30.0], abs=0.001)
    for k, (described, pose) in enumerate(queries):
        assert pose.x_m == pytest.approx(50.0 * (k % 4) + 5, abs=1e-6)
        assert made.tile_ids[made.owner_of(pose.x_m, pose.y_m)] == f"t{k}"
        assert made.tile_ids[made.search(described, 1).rows[0]] == f"t{k}"
    with pytest.raises(GalleryError, match="encoder"):
        next(held_out_queries(manifest, Gallery.load(tmp_path / "g")))


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    manifest = with_views(tmp_path / "set")
    made = build(manifest, Looking(), tmp_path / "g")
    with pytest.raises(
        GalleryError, match=r"Made-up has no views of split 'vall'; .*'train', 'val'"
    ):
        next(held_out_queries(manifest, made, split="vall"))
    views = manifest.views.copy()
    views.loc[views["split"] == "val", ["lat_deg", "lon_deg"]] = np.nan
    with pytest.raises(GalleryError, match=r"no views that are queries of split 'val' of region"):
        next(held_out_queries(replace(manifest, views=views), made, split="val", region="town"))


def test_a_gallery_without_a_name_is_not_named(tmp_path):
    made = gallery(40, scale=None, name="")
    with pytest.raises(GalleryError, match="where the gallery has a tile"):
        fit_scale(made, [(descriptors(1)[0], Pose(9000, 0))])
    with pytest.raises(GalleryError, match="There are no queries"):
        fit_scale(made, [])


def test_a_scale_is_not_fitted_on_what_was_trained_on(tmp_path):
    manifest = with_views(tmp_path / "set")
    made = build(manifest, Looking(), tmp_path / "g")
    assert len(list(held_out_queries(manifest, made))) == 3  # val
    views = manifest.views.copy()
    views.loc[views["split"] == "val", "split"] = "test"
    assert len(list(held_out_queries(replace(manifest, views=views), made))) == 3
    assert len(list(held_out_queries(manifest, made, split="train"))) == 3
    assert len(list(held_out_queries(unsplit(manifest), made))) == 6


def headless(manifest, *view_ids):
    views = manifest.views.copy()
    views.loc[views["view_id"].isin(view_ids), "heading_deg"] = np.nan
    return replace(manifest, views=views)


def test_views_without_a_heading_are_no_queries_of_one_heading(tmp_path, caplog):
    manifest = headless(unsplit(with_views(tmp_path / "set")), "v2", "v3")
    made = build(manifest, Looking(), tmp_path / "g")
    assert len(list(held_out_queries(manifest, made))) == 4
    assert "2 views without a heading are left out, such as v2" in caplog.text
    of_several = replace(made, num_headings=4)
    queries = list(held_out_queries(manifest, of_several))
    assert [len(described) for described, _ in queries] == [4] * 6


def test_queries_of_an_encoder_for_any_heading_look_anywhere(tmp_path):
    manifest = headless(unsplit(with_views(tmp_path / "set")), "v2")
    encoder = Looking()
    encoder.heading_spread_deg = 180.0
    made = build(manifest, encoder, tmp_path / "g")
    asked = []
    for _ in held_out_queries(manifest, made):
        asked += list(encoder.asked)
    assert len(asked) == 6 and np.ptp(asked) > 60.0
    assert asked == [next(iter(encoder.asked)) for _ in held_out_queries(manifest, made)]


def test_encoders_that_see_no_heading_are_asked_for_none(tmp_path):
    manifest = headless(unsplit(with_views(tmp_path / "set")), "v2")
    encoder = Looking(preprocessing=replace(PREPROCESSING, fov_deg=90.0))
    made = build(manifest, encoder, tmp_path / "g")
    assert len(list(held_out_queries(manifest, made))) == 6
    assert encoder.asked is None


def test_views_of_other_regions_are_no_queries_and_damaged_ones_are_named(tmp_path, caplog):
    manifest = unsplit(with_views(tmp_path / "set"))
    made = build(manifest, Looking(), tmp_path / "g")
    views, regions = manifest.views.copy(), manifest.regions
    views.loc[views["view_id"] == "v4", "region"] = "elsewhere"
    other = regions.assign(name="elsewhere")
    two = replace(manifest, views=views, regions=pd.concat([regions, other], ignore_index=True))
    with pytest.raises(GalleryError, match="elsewhere, town, and a gallery is of one"):
        next(held_out_queries(two, made))
    assert len(list(held_out_queries(two, made, region="town"))) == 5
    two.image_path("views", "v1").write_bytes(b"no picture")
    assert len(list(held_out_queries(two, made, region="town"))) == 4
    assert "Left out: " in caplog.text and "view1.png" in caplog.text


def test_a_fitted_scale_is_remembered(tmp_path):
    manifest = with_views(tmp_path / "set")
    made = build(manifest, Looking(scale=None), tmp_path / "g")
    assert made.scale is None
    fit = fit_scale(made, held_out_queries(manifest, made))
    store_scale(tmp_path / "g", fit.scale)
    again = Gallery.load(tmp_path / "g")
    assert again.scale == fit.scale
    np.testing.assert_array_equal(again.descriptors, made.descriptors)
