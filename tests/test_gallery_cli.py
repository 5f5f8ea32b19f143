"""crossview gallery: build, fit and search, with words that say what is wrong."""

import json

import numpy as np
import pytest
from fakes.commands import mistake, run, words_of
from fakes.galleries import FRAME, FakeEncoder, picture_descriptor, pictures, tile_dataset
from PIL import Image

from crossview.cli import gallery as commands
from crossview.gallery import Gallery
from crossview.gallery_files import store_scale
from crossview.grids import MapGrid, PoseGrid
from crossview.manifest import Manifest
from crossview.posterior import Posterior

pytestmark = pytest.mark.usefixtures("loggers_as_they_were")


@pytest.fixture
def encoder(monkeypatch):
    made = FakeEncoder()
    monkeypatch.setattr(commands, "_encoder", lambda folder: made)
    return made


@pytest.fixture
def gallery(encoder, tmp_path):
    """Twelve tiles, 50 m apart, and a photo that is tile 7 as seen by someone who looks north."""
    tile_dataset(tmp_path / "set")
    (tmp_path / "model").mkdir()
    done = run("gallery", "build", tmp_path / "set", *words_of(folders(tmp_path)))
    assert done.exit_code == 0, done.output
    Image.fromarray(pictures(12)[7]).save(tmp_path / "photo.png")
    return tmp_path / "g"


def folders(tmp_path):
    return {"model": tmp_path / "model", "out": tmp_path / "g"}


def search(tmp_path, *flags, photo="photo.png", **options):
    given = {"model": tmp_path / "model", "focal_px": 8, "heading_deg": 0, **options}
    return ("gallery", "search", tmp_path / "g", tmp_path / photo, *flags, *words_of(given))


def found(tmp_path, **options):
    answer = json.loads(run(*search(tmp_path, "--json", **options)).stdout)
    return [row["tile_id"] for row in answer["found"]], answer


def test_build_says_what_it_made_and_what_it_left_out(encoder, tmp_path):
    tile_dataset(tmp_path / "set")
    (tmp_path / "model").mkdir()
    (tmp_path / "images" / "4.png").write_bytes(b"torn")
    done = run(
        "gallery", "build", tmp_path / "set", "--json", "--headings", 4, "--dtype", "float16",
        *words_of(folders(tmp_path)),
    )  # fmt: skip
    summary = json.loads(done.stdout)
    assert (summary["num_tiles"], summary["dimensions"], summary["footprint_m"]) == (11, 16, 64.0)
    assert [one["tile_id"] for one in summary["excluded"]] == ["t4"]
    assert "Left out: t4: " in done.stderr
    made = Gallery.load(tmp_path / "g")
    assert (made.num_headings, made.descriptors.dtype) == (4, np.float16)
    assert "is a gallery already" in mistake(
        "gallery", "build", tmp_path / "set", *words_of(folders(tmp_path))
    )


def test_build_counts_in_words(gallery, tmp_path):
    done = run(
        "gallery", "build", tmp_path / "set",
        *words_of({"model": tmp_path / "model", "out": tmp_path / "again"}),
    )  # fmt: skip
    assert "12 tiles of 64 m, descriptors of 16 numbers" in done.stdout
    assert done.stderr == ""


def test_search_prints_tiles_best_first_with_their_places(gallery, tmp_path):
    names, answer = found(tmp_path, k=3)
    expected = [
        picture_descriptor(image) @ picture_descriptor(pictures(12)[7]) for image in pictures(12)
    ]
    assert names == [f"t{k}" for k in np.argsort(expected)[::-1][:3]]
    assert [row["similarity"] for row in answer["found"]] == pytest.approx(
        sorted(expected)[::-1][:3], abs=1e-5
    )
    place = FRAME.to_local(answer["found"][0]["lat_deg"], answer["found"][0]["lon_deg"])
    assert place == pytest.approx((50.0 * 3, 50.0 * 1), abs=0.01)
    *lines, none = run(*search(tmp_path, k=3)).stdout.splitlines()
    assert [line.split()[-1] for line in lines] == names
    assert lines[0].startswith("1.0000")
    assert none.startswith("none of these tiles: ")


def test_probabilities_are_there_where_a_scale_is(gallery, tmp_path):
    _, answer = found(tmp_path, k=12, none=0.2)
    stated = [row["probability"] for row in answer["found"]]
    assert sum(stated) + answer["probability_none"] == pytest.approx(1)
    assert stated == sorted(stated)[::-1]
    encoder_scale = Gallery.load(gallery).scale
    store_scale(gallery, encoder_scale / 100)
    assert found(tmp_path, k=12)[1]["found"][0]["probability"] < stated[0] / 2


def test_priors_narrow_the_search(gallery, tmp_path):
    lat, lon = FRAME.to_geodetic(0.0, 0.0)
    disc = {"lat": lat, "lon": lon, "radius_m": 75}
    assert set(found(tmp_path, k=12, **disc)[0]) == {"t0", "t1", "t4", "t5"}
    corners = np.array([(-10, 40), (110, 40), (110, 110), (-10, 110), (-10, 40)], float)
    lat, lon = FRAME.to_geodetic(*corners.T)
    (tmp_path / "area.geojson").write_text(
        json.dumps(
            {"type": "Polygon", "coordinates": [[*zip(lon.tolist(), lat.tolist(), strict=True)]]}
        )
    )
    area = tmp_path / "area.geojson"
    assert set(found(tmp_path, k=12, area=area)[0]) == {"t4", "t5", "t6", "t8", "t9", "t10"}
    Posterior.flat(PoseGrid(MapGrid(FRAME, -10, 10, 20, 1, 4), 1)).save(tmp_path / "prior.npz")
    assert set(found(tmp_path, k=12, prior=tmp_path / "prior.npz")[0]) == {"t0", "t1"}


def test_a_heading_turns_the_photo(gallery, tmp_path):
    turned = np.ascontiguousarray(np.rot90(pictures(12)[7], 1))  # the camera looks east
    Image.fromarray(turned).save(tmp_path / "east.png")
    assert found(tmp_path, photo="east.png")[1]["found"][0]["similarity"] < 0.9
    unknown = ("gallery", "search", tmp_path / "g", tmp_path / "east.png", "--focal-px", 8)
    message = mistake(*unknown, "--model", tmp_path / "model")
    assert "does not say where it looks" in message
    assert "--heading-deg" in message
    names, answer = found(tmp_path, photo="east.png", heading_deg=90)
    assert names[0] == "t7"
    assert answer["found"][0]["similarity"] == pytest.approx(1, abs=1e-5)


def test_search_draws_what_it_found(gallery, tmp_path):
    run(*search(tmp_path, k=3, picture=tmp_path / "strip.png"))
    with Image.open(tmp_path / "strip.png") as image:
        assert image.width > 2 * image.height


def test_fit_remembers_the_scale(gallery, tmp_path):
    rows = []
    for k in range(8):
        Image.fromarray(pictures(12)[k]).save(tmp_path / "images" / f"view{k}.png")
        lat, lon = FRAME.to_geodetic(50.0 * (k % 4), 50.0 * (k // 4))
        rows.append(
            {
                "view_id": f"v{k}", "region": "town", "kind": "photo", "order": 0,
                "image": f"view{k}.png", "camera_id": "c", "lat_deg": lat, "lon_deg": lon,
                "heading_deg": 0.0, "split": "val" if k < 6 else "train",
            }
        )  # fmt: skip
    camera = {
        "camera_id": "c", "model": "pinhole", "width_px": 8, "height_px": 8, "fx": 8.0, "fy": 8.0,
        "cx": 4.0, "cy": 4.0,
    }  # fmt: skip
    Manifest.append(tmp_path / "set", cameras=[camera], views=rows)
    options = {"model": tmp_path / "model", "split": "val"}
    done = run("gallery", "fit", gallery, tmp_path / "set", *words_of(options), "--json")
    report = json.loads(done.stdout)
    assert (report["num_queries"], report["num_outside"]) == (6, 0)
    assert Gallery.load(gallery).scale == report["scale"] != 20.0
    words = run("gallery", "fit", gallery, tmp_path / "set", *words_of(options)).stdout
    assert "6 queries" in words


def test_mistakes_say_what_to_do(gallery, tmp_path):
    lat, lon = FRAME.to_geodetic(-340.0, 0.0)
    far = search(tmp_path, lat=lat, lon=lon, radius_m=20)
    assert "the nearest is 320 m away" in mistake(*far)
    lat, lon = FRAME.to_geodetic(0.0, 0.0)
    far = search(tmp_path, lat=lat + 3, lon=lon, radius_m=20)  # 111.2 km each
    assert "is about 334 km from the gallery" in mistake(*far)
    assert "give one" in mistake(
        *search(tmp_path, radius_m=20, area=tmp_path / "photo.png"), exit_code=2
    )
    assert "--radius-m too" in mistake(*search(tmp_path, lat=lat, lon=lon), exit_code=2)
    (tmp_path / "points.geojson").write_text('{"type": "Point", "coordinates": [13.4, 52.5]}')
    assert "expected polygons" in mistake(*search(tmp_path, area=tmp_path / "points.geojson"))
    assert "no file of polygons" in mistake(*search(tmp_path, area=tmp_path / "photo.png"))
    (tmp_path / "g" / "index.json").unlink()
    assert "is no gallery" in mistake(*search(tmp_path))


def test_another_encoder_is_refused_by_name(gallery, tmp_path, monkeypatch):
    other = FakeEncoder(fingerprint="cd" * 32)
    monkeypatch.setattr(commands, "_encoder", lambda folder: other)
    assert "encoder is 'fake' (cdcdcdcdcdcd): other weights" in mistake(*search(tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_real_encoder_builds_and_finds_its_own_tiles(tmp_path):
    from crossview.nn.encoders import encoder, save_encoder

    made = encoder("tiny", width=4, ground_px=(16, 64), overhead_px=(16, 64))
    save_encoder(made, tmp_path / "model", scale=15.0)
    tile_dataset(tmp_path / "set")
    assert run("gallery", "build", tmp_path / "set", *words_of(folders(tmp_path))).exit_code == 0
    found = Gallery.load(tmp_path / "g", made)
    assert found.scale == 15.0
    images = [pictures(12)[int(name[1:])] for name in found.tile_ids]
    np.testing.assert_allclose(found.descriptors, made.describe_tiles(images), atol=1e-5)
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(tmp_path / "view.png")
    names = run(
        "gallery", "search", tmp_path / "g", tmp_path / "view.png", "--panorama", "--k", 2,
        "--heading-deg", 0, "--model", tmp_path / "model",
    ).stdout  # fmt: skip
    assert len(names.splitlines()) == 3
