"""An exam of encoders on small made-up datasets: whose sizes, whose tiles, and how much memory."""

import json
import logging
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pytest import approx

from crossview import describers, retrieval
from crossview.cli import main
from crossview.describers import PixelCorrelation
from crossview.errors import ManifestError
from crossview.frames import LocalFrame
from crossview.manifest import Manifest
from crossview.pairs import PairTable
from crossview.preprocessing import Preprocessing
from crossview.retrieval import Exam, Seeing

pytestmark = pytest.mark.usefixtures("loggers_as_they_were")

SQUARE = Preprocessing((8, 32), (16, 16), polar=None)
SPHERE = {"camera_id": "sphere", "model": "equirectangular", "width_px": 32, "height_px": 16}
FRAMES = {"north": LocalFrame(52.0, 8.0), "south": LocalFrame(48.0, 8.0)}


class Places:
    """Panoramas and square tiles, coloured by their number, as rows of a manifest."""

    def __init__(self, root):
        self.root, self.views, self.tiles, self.pairs = root, [], [], []

    def add_tile(self, region="north", *, at_m=(0.0, 0.0), cell_m=1.0, side_px=64):
        name = f"t{len(self.tiles)}"
        self._write(name, (side_px, side_px), len(self.tiles))
        self.tiles.append(
            {"tile_id": name, "region": region, "image": f"{name}.png", "cell_m": cell_m,
             **self._place(region, at_m)}
        )  # fmt: skip
        return name

    def add_view(self, tile_id, region="north", *, at_m=(0.0, 0.0), heading_deg=0.0, **columns):
        name = f"v{len(self.views)}"
        self._write(name, (16, 32), len(self.views))
        self.views.append(
            {"view_id": name, "region": region, "order": 0, "kind": "panorama",
             "image": f"{name}.png", "camera_id": "sphere", "heading_deg": heading_deg,
             **self._place(region, at_m), **columns}
        )  # fmt: skip
        self.add_pair(name, tile_id)
        return name

    def add_pair(self, view_id, tile_id, relation="positive"):
        self.pairs.append({"view_id": view_id, "tile_id": tile_id, "relation": relation})

    def manifest(self):
        regions = [
            {"name": name, "lat_deg": frame.lat_deg, "lon_deg": frame.lon_deg}
            for name, frame in FRAMES.items()
        ]
        made = Manifest.from_rows(
            name="made-up", licence="CC0", attribution="", image_root=str(self.root),
            regions=regions, cameras=[SPHERE], views=self.views, tiles=self.tiles, pairs=self.pairs,
        )  # fmt: skip
        return made.save(self.root / "dataset")

    def _place(self, region, at_m):
        lat_deg, lon_deg = FRAMES[region].to_geodetic(*at_m)
        return {"lat_deg": float(lat_deg), "lon_deg": float(lon_deg)}

    def _write(self, name, shape, number):
        rgb = np.full((*shape, 3), (4 * number, 0, 0), np.uint8)
        Image.fromarray(rgb).save(self.root / f"{name}.png")


class Reading:
    """Describes images by their colours: a view is like the tile of its number."""

    def __init__(self, preprocessing=SQUARE):
        self.preprocessing = preprocessing

    def ground_descriptors(self, images):
        number = np.rint(images[..., 0].mean(axis=(1, 2)) / 4).astype(int)
        return np.eye(64, dtype=np.float32)[number]

    overhead_descriptors = ground_descriptors


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path)


# ---------------------------------------------------------------- sizes of tiles


@pytest.fixture
def two_cities(places):
    """Cameras 35 m east of tiles of 64 m, which do not hold them, and of tiles of 76.8 m."""
    for region, cell_m in (("north", 1.0), ("south", 1.2)):
        for number in range(3):
            at_m = (200.0 * number, 0.0)
            tile_id = places.add_tile(region, at_m=at_m, cell_m=cell_m)
            places.add_view(tile_id, region, at_m=(at_m[0] + 35.0, 0.0))
    return places.manifest()


class Pointing(Reading):
    """Says that every camera is 35 m east of the middle, in half sides of its own city."""

    def __init__(self, half_m, preprocessing=SQUARE):
        super().__init__(preprocessing)
        self.half_m = half_m

    def offsets(self, ground, overhead):
        number = np.rint(overhead[..., 0].mean(axis=(1, 2)) / 4).astype(int)
        return np.stack([0 * number, -35.0 / np.where(number < 3, *self.half_m)], axis=1)


def test_tiles_of_each_city_have_their_own_side(two_cities):
    found = Exam.of(two_cities).examine(Pointing((32.0, 38.4)), Seeing(0.0))
    assert found["recall_1"] == 1
    assert found["contains_camera_1"] == 0.5
    assert found["median_error_with_offset_m"] == approx(0, abs=0.01)
    assert found["within_1m_with_offset"] == 1


def test_what_is_cut_out_of_tiles_is_what_holds_a_camera(places):
    """A camera 28 m off the middle is in its tile of 64 m, but not in the 48 m that are seen."""
    places.add_view(places.add_tile(), at_m=(28.0, 0.0))
    exam = Exam.of(places.manifest())
    assert exam.examine(Reading(), Seeing(0.0))["contains_camera_1"] == 1
    cut = Preprocessing((8, 32), (16, 16), polar=None, footprint_m=48.0)
    described = Pointing((24.0, 24.0), cut)
    found = exam.examine(described, Seeing(0.0))
    assert found["recall_1"] == 1 and found["contains_camera_1"] == 0
    assert found["median_error_with_offset_m"] == approx(35.0 - 28.0, abs=0.01)


# ---------------------------------------------------------------- galleries


@pytest.fixture
def divided(places):
    """As CVACT: every tile is one view's own; three views to train on, two to validate."""
    for number, split in enumerate(["train", "val", "train", "val", "train"]):
        at_m = (100.0 * number, 0.0)
        places.add_view(places.add_tile(at_m=at_m), at_m=at_m, split=split)
    return places


def test_a_split_whose_tiles_are_its_own_is_looked_for_among_them(divided, caplog):
    manifest = divided.manifest()
    with caplog.at_level(logging.INFO, logger="crossview"):
        exam = Exam.of(manifest, split="val")
    assert exam.tile_ids == ("t1", "t3") and exam.tiles == "split"
    assert "2 views are looked for among 2 tiles, those of the split 'val', not all 5" in (
        caplog.text
    )
    assert len(Exam.of(manifest, split="val", tiles="region").tile_ids) == 5
    assert Exam.of(manifest).tiles == "region"


def test_views_without_a_position_leave_their_tiles_in_the_gallery(divided):
    tile_id = divided.add_tile(at_m=(900.0, 0.0))
    divided.add_view(tile_id, split="val", lat_deg=None, lon_deg=None)
    exam = Exam.of(divided.manifest(), split="val")
    assert len(exam.table) == 2 and exam.tile_ids == ("t1", "t3", "t5")


def test_tiles_of_a_grid_are_all_looked_among_as_vigor_does(divided, caplog):
    divided.add_tile(at_m=(50.0, 0.0))  # of no view
    with caplog.at_level(logging.INFO, logger="crossview"):
        exam = Exam.of(divided.manifest(), split="val")
    assert len(exam.tile_ids) == 6 and exam.tiles == "region"
    assert "2 views are looked for among 6 tiles, all of their regions" in caplog.text


def test_tiles_that_splits_share_are_all_looked_among(divided):
    divided.add_pair("v1", "t2", "semipositive")
    manifest = divided.manifest()
    assert Exam.of(manifest, split="val").tiles == "region"
    assert Exam.of(manifest, split="val", tiles="split").tile_ids == ("t1", "t2", "t3")


def test_tiles_of_no_split_are_refused(divided):
    manifest = divided.manifest()
    with pytest.raises(ManifestError, match="no split is: say which"):
        Exam.of(manifest, tiles="split")
    with pytest.raises(ValueError, match="one of split, region, got 'all'"):
        Exam.of(manifest, tiles="all")


def test_a_tile_in_another_region_than_its_view_is_named(places):
    places.add_view(places.add_tile("north"), "north")
    places.add_view(places.add_tile("south"), "north")
    with pytest.raises(ManifestError) as caught:
        Exam.of(places.manifest())
    assert "view v1 is in the region 'north' and its tile t1 in 'south'" in str(caught.value)
    assert "correct pairs.csv" in str(caught.value)


# ---------------------------------------------------------------- figures


def unit(values):
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


class Grid:
    """Queries on a street and tiles every 4 m, without images: an exam of given descriptors."""

    def __init__(self, num_queries, num_tiles, width, monkeypatch, noise=0.15):
        rng = np.random.default_rng(0)
        self.tile_m = np.stack([4.0 * np.arange(num_tiles), np.zeros(num_tiles)], axis=1)
        self.own = np.sort(rng.choice(num_tiles, num_queries, replace=False))
        self.query_m = self.tile_m[self.own] + rng.uniform(-1.5, 1.5, (num_queries, 2))
        self.tiles = unit(rng.normal(size=(num_tiles, width)))
        self.queries = unit(self.tiles[self.own] + noise * rng.normal(size=(num_queries, width)))
        names = tuple(map(str, range(num_tiles)))
        table = PairTable(
            tuple(map(str, range(num_queries))), tuple(names[k] for k in self.own), self.query_m,
            self.tile_m[self.own], ((),) * num_queries, np.ones(num_queries, bool),
        )  # fmt: skip
        row = {"heading_deg": 0.0, "kind": "panorama"}
        manifest = SimpleNamespace(name="grid", row=lambda table, key: row)
        self.exam = Exam(manifest, table, names, self.tile_m)
        image = np.zeros((1, 4, 3), np.uint8)

        def numbered(manifest, key, *args, **kwargs):
            image[:] = np.array((*divmod(int(key), 256), 0))
            return image.copy()

        for name in ("ground_image", "overhead_image"):
            monkeypatch.setattr(retrieval, name, numbered)
        monkeypatch.setattr(retrieval, "tile_side_m", lambda manifest, tile_id: 64.0)

    def describer(self, *, orienting=False):
        def number(images):
            return images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]

        known = {
            "preprocessing": Preprocessing((1, 4), (1, 4)),
            "ground_descriptors": lambda images: self.queries[number(images)],
            "overhead_descriptors": lambda images: self.tiles[number(images)],
        }
        if orienting:
            known["similarities"] = self.alike
            known["headings_deg"] = lambda overhead, ground: np.zeros((len(overhead), len(ground)))
        return SimpleNamespace(**known)

    @staticmethod
    def alike(overhead, ground):
        """No inner product: what two halves agree about better."""
        half = overhead.shape[1] // 2
        return np.maximum(overhead[:, :half] @ ground[:, :half].T,
                          overhead[:, half:] @ ground[:, half:].T)  # fmt: skip


def test_any_within_5_m_of_the_first_k_and_one_percent(monkeypatch):
    grid = Grid(90, 250, 8, monkeypatch, noise=0.25)
    found = grid.exam.examine(grid.describer(), Seeing(0.0))
    order = np.argsort(-(grid.queries @ grid.tiles.T), axis=1)
    near = np.linalg.norm(grid.tile_m[order] - grid.query_m[:, None], axis=2) <= 5
    own = order == grid.own[:, None]
    for name, hit in (("any_within_5m", near), ("recall", own)):
        for k, of in ((1, 1), (5, 5), (10, 10), ("one_percent_floor", 2),
                      ("one_percent_plus_1", 3)):  # fmt: skip
            assert found[f"{name}_{k}"] == approx(hit[:, :of].any(axis=1).mean()), (name, k)
    assert 0.3 < found["recall_1"] < found["any_within_5m_10"] < 1


def test_one_percent_of_less_than_100_tiles_is_no_figure(monkeypatch):
    grid = Grid(20, 99, 8, monkeypatch)
    found = grid.exam.examine(grid.describer(), Seeing(0.0))
    assert found["recall_one_percent_floor"] is None
    assert found["any_within_5m_one_percent_floor"] is None
    assert found["recall_one_percent_plus_1"] == found["recall_1"]


def test_networks_that_find_headings_rank_as_their_whole_matrix_does(monkeypatch):
    grid = Grid(150, 330, 8, monkeypatch)
    found = grid.exam.examine(grid.describer(orienting=True), Seeing(0.0), prior_radius_m=90.0)
    matrix = grid.alike(grid.tiles, grid.queries).T
    better = matrix > matrix[np.arange(150), grid.own][:, None]
    near = np.linalg.norm(grid.tile_m - grid.query_m[:, None], axis=2) <= 90
    for k in (1, 5, 10):
        assert found[f"recall_{k}"] == approx(np.mean(better.sum(axis=1) < k))
        assert found[f"local_recall_{k}"] == approx(np.mean((better & near).sum(axis=1) < k))
    first_m = np.linalg.norm(grid.tile_m[matrix.argmax(axis=1)] - grid.query_m, axis=1)
    assert found["median_error_m"] == approx(np.median(first_m))
    assert 0.1 < found["recall_1"] < found["local_recall_1"] < 1


# ---------------------------------------------------------------- memory


def peak_bytes(grid, describer):
    grid.exam.examine(describer, Seeing(0.0))  # what is imported and kept once
    tracemalloc.start()
    try:
        grid.exam.examine(describer, Seeing(0.0))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_similarities_of_all_pairs_are_never_held(monkeypatch):
    grid = Grid(1500, 3000, 4, monkeypatch)
    peak = peak_bytes(grid, grid.describer(orienting=True))
    assert peak < 5e6 < 4 * 1500 * 3000 / 3


def test_many_descriptors_are_kept_in_a_file_that_is_gone_afterwards(monkeypatch, tmp_path):
    grid = Grid(1200, 1500, 1024, monkeypatch)
    describer = grid.describer()
    expected = grid.exam.examine(describer, Seeing(0.0))
    monkeypatch.setattr(describers, "MAX_DESCRIPTOR_BYTES", 1e6, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # beside them: what retrieval_evaluation multiplies at a time
    monkeypatch.setattr(
        retrieval, "ranks_by",
        lambda *args, before=retrieval.ranks_by: before(*args, max_bytes=1_000_000),
    )  # fmt: skip
    numbers, described = grid.exam.tile_descriptors(describer)
    assert np.array_equal(described, grid.tiles) and len(numbers) == 1500
    del described
    assert peak_bytes(grid, describer) < 4e6 < grid.tiles.nbytes
    assert grid.exam.examine(describer, Seeing(0.0)) == expected
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- what is known of cameras


NARROW = Preprocessing((1, 8), (8, 8), polar=None, fov_deg=90.0)


class Columns(Reading):
    """Tells where it looks: the brightest column of a panorama of bright columns."""

    def ground_descriptors(self, images):
        return images[:, 0, :, 1].astype(np.float32)


def striped(places, heading_deg=0.0, **columns):
    """A dataset of views whose columns of azimuth are numbered in green."""
    for number in range(6):
        at_m = (100.0 * number, 0.0)
        name = places.add_view(places.add_tile(at_m=at_m), at_m=at_m, heading_deg=heading_deg,
                               **columns)  # fmt: skip
        rgb = np.zeros((16, 32, 3), np.uint8)
        rgb[..., 1] = 4 * np.arange(32) + 50
        Image.fromarray(rgb).save(places.root / f"{name}.png")
    return places.manifest()


def test_limited_fields_of_view_are_cut_at_any_heading_whatever_is_asked_for(places, caplog):
    exam = Exam.of(striped(places))
    seen = {
        spread: exam.query_descriptors(Columns(NARROW), Seeing(spread, seed=1))[1]
        for spread in (0.0, 5.0, 180.0)
    }
    assert np.array_equal(seen[0.0], seen[180.0]) and np.array_equal(seen[5.0], seen[180.0])
    middles = seen[180.0][:, 3]
    assert np.ptp(middles) > 60  # of 128: they look everywhere
    with caplog.at_level(logging.INFO, logger="crossview"):
        found = exam.report(Reading(NARROW), Seeing(5.0))
    assert "sees 90 degrees is told of no heading" in caplog.text
    assert found["heading_spread_deg"] == 180


def test_headings_that_nobody_knows_have_no_error(places):
    """Of two cameras, the second does not say where it looked."""
    at_m = (100.0, 0.0)
    places.add_view(places.add_tile())
    places.add_view(places.add_tile(at_m=at_m), at_m=at_m, heading_deg=None)
    describer = Reading()
    describer.similarities = lambda overhead, ground: overhead @ ground.T
    turns_deg = [-Seeing(180.0).turn_deg(number) for number in range(2)]
    wrong_deg = [turns_deg[0] + 3.0, turns_deg[1] + 90.0]
    describer.headings_deg = lambda overhead, ground: np.tile(wrong_deg, (2, 1))[
        : len(overhead), : len(ground)
    ]
    manifest = places.manifest()
    found = Exam.of(manifest).examine(describer, Seeing(180.0))
    assert found["recall_1"] == 1
    assert found["median_heading_error_deg"] == approx(3.0) and found["within_5deg"] == 1
    alone = Exam.of(manifest).table.only(np.array([1]))
    nobody = Exam(manifest, alone, ("t1",), Exam.of(manifest).tile_position_m[1:])
    assert "median_heading_error_deg" not in nobody.examine(describer, Seeing(180.0))


# ---------------------------------------------------------------- the command


def test_what_was_evaluated_and_how_is_written_beside_the_figures(divided, tmp_path, capsys):
    folder = divided.manifest().folder
    path = tmp_path / "found.json"
    main(
        ["evaluate", "retrieval", str(folder), "--pixels", "--split", "val", "--seed", "7",
         "--fov-deg", "90", "--tiles", "region", "--json", str(path)],
        standalone_mode=False,
    )  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    written = json.loads(path.read_text())
    assert len(written.pop("metre_curve")["share"]) == 242
    assert found == written
    expected = {
        "dataset": "made-up", "architecture": "PixelCorrelation", "fingerprint": None,
        "split": "val", "tiles": "region", "heading_spread_deg": 5.0, "fov_deg": 90.0, "seed": 7,
        "prior_radius_m": 100.0, "num_queries": 2, "num_tiles": 5,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


def test_encoders_are_named_by_fingerprint(divided):
    describer = PixelCorrelation(Preprocessing((8, 32), (8, 32)))
    named = SimpleNamespace(
        preprocessing=describer.preprocessing, architecture="tiny", fingerprint="ab12",
        ground_descriptors=describer.ground_descriptors,
        overhead_descriptors=describer.overhead_descriptors,
    )  # fmt: skip
    found = Exam.of(divided.manifest(), split="val").report(named, Seeing())
    assert (found["architecture"], found["fingerprint"]) == ("tiny", "ab12")
    assert (found["tiles"], found["num_tiles"]) == ("split", 2)


def test_images_of_one_grey_are_like_nothing_but_each_other(places):
    """Night, sea: they take part, and are found as often as chance finds them."""
    one = np.random.default_rng(0).integers(0, 255, (8, 32, 3)).astype(np.uint8)
    flat = [np.full_like(one, level) for level in (0, 37, 255)]
    described = PixelCorrelation(Preprocessing((8, 32), (8, 32))).ground_descriptors(
        np.stack([one, *flat])
    )
    expected = np.ones((4, 4))
    expected[0, 1:] = expected[1:, 0] = 0
    assert described @ described.T == approx(expected, abs=1e-5)
