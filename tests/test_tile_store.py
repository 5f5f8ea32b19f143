"""The tile store: the server's bytes, unchanged, in a file that others can open too."""

import io
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import mercantile
import numpy as np
import pytest
import rasterio
from fakes.tile_server import tile_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crossview.errors import ContentError, NoSpaceError, StoreBusyError, StoreError
from crossview.tiles import TileId
from data_tools import tile_store
from data_tools.tile_store import BATCH_TILES, TileImage, TileStore

PX = 32
TILES = [TileId(14, 8000 + i % 6, 5000 + i // 6) for i in range(30)]


def image(tile, body=None, **facts):
    return TileImage(tile, tile_bytes(*tile) if body is None else body, PX, **facts)


def encoded(array, image_format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some tiles?.mbtiles"


@pytest.fixture
def store(path):
    with TileStore.writing(path, tile_px=PX) as store:
        yield store


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_bytes_come_back_as_they_were(store, image_format):
    bodies = {tile: tile_bytes(*tile, image_format=image_format) for tile in TILES}
    store.put_many(image(tile, body) for tile, body in bodies.items())
    assert {tile: store.get(tile) for tile in TILES} == bodies
    assert store.get(TileId(14, 0, 0)) is None
    assert len(store) == len(TILES)
    assert store.damaged() == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "0 bytes that cannot be decoded"),
        (b"<html>no</html>", "<html>no"),
        (tile_bytes(1, 1, 1)[:-200], "cannot be decoded"),
        (tile_bytes(1, 1, 1, image_format="JPEG")[:-200], "cannot be decoded"),
        (tile_bytes(1, 1, 1, tile_px=24), r"32 x 32 pixels, got \(24, 24\)\..*--tile-px 24"),
        (encoded(np.zeros((PX, PX)), "GIF"), "cannot be decoded"),
    ],
)
def test_what_is_no_whole_tile_cannot_be_stored(body, words):
    with pytest.raises(ContentError, match=words):
        image(TILES[0], body)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    from fakes.images import png_bomb

    with pytest.raises(ContentError):
        image(TILES[0], png_bomb(tmp_path / "bomb.png").read_bytes())


def test_a_store_has_tiles_of_one_size(store, path):
    store.put_many([image(TILES[1])])
    with pytest.raises(StoreError, match="32 pixels, not 24"):
        store.put_many([TileImage(TILES[0], tile_bytes(1, 1, 1, tile_px=24), 24)])
    store.close()
    with pytest.raises(StoreError, match="crossview_tile_px = 32, not 256"):
        TileStore.writing(path, tile_px=256)


def test_a_store_keeps_to_its_source(path):
    first = {"crossview_template": "https://a.example/{z}"}
    second = {"crossview_template": "https://b.example"}
    for fill in (lambda store: store.put_many([image(TILES[0])]),
                 lambda store: store.put_absent({TILES[0]: "404"})):  # fmt: skip
        with TileStore.writing(path, tile_px=PX, metadata=first) as store:
            fill(store)
        TileStore.writing(path, tile_px=PX, metadata=first).close()
        with pytest.raises(StoreError, match="file of its own"):
            TileStore.writing(path, tile_px=PX, metadata=second)
        path.unlink()


def test_a_store_that_has_learnt_nothing_may_be_anothers(path):
    first = {"crossview_template": "https://a.example/{z}", "attribution": "A"}
    picture = image(TILES[0])
    TileStore.writing(path, tile_px=256, metadata=first, placeholders=[picture.sha256]).close()
    second = {"crossview_template": "https://b.example"}
    with TileStore.writing(path, tile_px=PX, metadata=second) as store:
        store.put_many([picture])
        assert store.metadata["crossview_template"] == "https://b.example"
        assert "attribution" not in store.metadata
        assert store.stored(TILES[:1]) == TILES[:1]


def test_damaged_bytes_are_found(store):
    store.put_many(map(image, TILES))
    z, x, y = TILES[3]
    store._connection().execute(
        "UPDATE tiles SET tile_data = x'00' WHERE tile_column = ? AND tile_row = ?",
        (x, 2**z - 1 - y),
    )
    assert store.damaged() == [TILES[3]]


# ---------------------------------------------------------------- others read it


def test_rasterio_opens_the_file_where_mercantile_says_and_sees_the_pixels(path):
    tiles = [TileId(12, 656 + x, 1402 + y) for y in range(2) for x in range(3)]
    bodies = {tile: tile_bytes(*tile, tile_px=256) for tile in tiles}
    with TileStore.writing(path, metadata={"attribution": "Somebody"}) as store:
        store.put_many(TileImage(tile, body, 256) for tile, body in bodies.items())
    with rasterio.open(path) as dataset:
        assert (dataset.width, dataset.height) == (3 * 256, 2 * 256)
        assert dataset.crs.to_epsg() == 3857
        corner = mercantile.xy_bounds(656, 1402, 12)
        pixel_m = (corner.right - corner.left) / 256
        assert dataset.transform.a == pytest.approx(pixel_m, rel=1e-9)
        assert dataset.transform.c == pytest.approx(corner.left, abs=0.01 * pixel_m)
        assert dataset.transform.f == pytest.approx(corner.top, abs=0.01 * pixel_m)
        seen = np.moveaxis(dataset.read([1, 2, 3]), 0, -1)
        assert dataset.tags()["attribution"] == "Somebody"
    for tile, body in bodies.items():
        row, col = 256 * (tile.y - 1402), 256 * (tile.x - 656)
        expected = np.asarray(Image.open(io.BytesIO(body)))
        np.testing.assert_array_equal(seen[row : row + 256, col : col + 256], expected)


def test_rows_are_tms_inside(store, path):
    store.put_many([image(TileId(3, 1, 0))])
    rows = sqlite3.connect(path).execute("SELECT * FROM tiles").fetchall()
    assert rows == [(3, 1, 7, tile_bytes(3, 1, 0))]


def test_metadata_says_where_and_what(path):
    facts = {"attribution": "A", "terms_url": "https://example.org"}
    with TileStore.writing(path, tile_px=PX, metadata=facts) as store:
        store.put_many([image(TileId(3, 1, 2)), image(TileId(5, 7, 9)), image(TileId(5, 9, 12))])
        said = store.metadata
    west, north = mercantile.bounds(7, 9, 5).west, mercantile.bounds(7, 9, 5).north
    east, south = mercantile.bounds(9, 12, 5).east, mercantile.bounds(9, 12, 5).south
    bounds = [float(side) for side in said["bounds"].split(",")]
    assert bounds == pytest.approx([west, south, east, north], abs=1e-8)
    assert (said["minzoom"], said["maxzoom"], said["format"]) == ("3", "5", "png")
    assert facts.items() <= said.items()


def test_a_closed_store_is_one_file(path):
    with TileStore.writing(path, tile_px=PX) as store:
        store.put_many(map(image, TILES))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_somebody_elses_mbtiles_can_be_read(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE metadata (name text, value text)")
        connection.execute(
            "CREATE TABLE tiles (zoom_level int, tile_column int, tile_row int, tile_data blob)"
        )
        connection.execute("INSERT INTO tiles VALUES (3, 1, 7, x'0102')")
    connection.close()
    with TileStore(path) as store:
        assert store.get(TileId(3, 1, 0)) == b"\x01\x02"
        assert store.missing([TileId(3, 1, 0), TileId(3, 1, 1)]) == [TileId(3, 1, 1)]
        assert store.validators(TileId(3, 1, 0)) == (None, None)
        assert store.absence(TileId(3, 1, 0)) is None
        assert store.absent([TileId(3, 1, 0)]) == []


# ---------------------------------------------------------------- what is there, what is not

NEARBY = st.integers(1, 4).flatmap(
    lambda zoom: st.builds(
        TileId, st.just(zoom), st.integers(0, 2**zoom - 1), st.integers(0, 2**zoom - 1)
    )
)


@settings(max_examples=15)
@given(
    stored=st.sets(NEARBY, max_size=12),
    absent=st.sets(NEARBY, max_size=12),
    wanted=st.lists(NEARBY, max_size=40),
)
def test_missing_is_the_difference_of_sets(tmp_path_factory, stored, absent, wanted):
    path = tmp_path_factory.mktemp("stores") / "a.mbtiles"
    with TileStore.writing(path, tile_px=PX) as store:
        store.put_many(map(image, stored))
        store.put_absent(dict.fromkeys(absent, "404"))
        assert store.missing(wanted) == [
            tile for tile in dict.fromkeys(wanted) if tile not in stored | absent
        ]
        assert store.stored(wanted) == [tile for tile in wanted if tile in stored]
        assert store.absent(wanted) == [tile for tile in wanted if tile in absent - stored]
    shutil.rmtree(path.parent)


def test_absent_tiles_are_remembered_until_they_are_forgotten(path):
    with TileStore.writing(path, tile_px=PX) as store:
        store.put_absent({TILES[0]: "404", TILES[1]: "204"})
    with TileStore.writing(path, tile_px=PX) as store:
        assert (store.absence(TILES[0]), store.absence(TILES[1])) == ("404", "204")
        assert store.missing(TILES[:3]) == [TILES[2]]
        store.put_many([image(TILES[1])])
        assert store.absence(TILES[1]) is None
        assert store.forget_absent() == 1
        assert store.missing(TILES[:3]) == [TILES[0], TILES[2]]


def test_what_is_stored_does_not_become_absent(store):
    store.put_many([image(TILES[0])])
    store.put_absent({TILES[0]: "404"})
    assert store.absence(TILES[0]) is None
    assert store.get(TILES[0]) is not None


def test_validators_are_kept(store):
    store.put_many([image(TILES[0], etag='"a"', last_modified="yesterday"), image(TILES[1])])
    assert store.validators(TILES[0]) == ('"a"', "yesterday")
    assert store.validators(TILES[1]) == (None, None)


# ---------------------------------------------------------------- placeholders


def test_one_picture_for_many_tiles_is_no_imagery(path):
    body = tile_bytes(0, 0, 0)
    with TileStore.writing(path, tile_px=PX) as store:
        store.put_many(image(tile, body) for tile in TILES[:15])
        assert len(store) == 15
    with TileStore.writing(path, tile_px=PX) as store:
        store.put_many([image(TILES[20])])
        store.put_many([image(TILES[15], body)])
        assert store.stored(TILES) == [TILES[20]]
        assert store.absence(TILES[0]) == "placeholder"
    with TileStore.writing(path, tile_px=PX) as store:
        store.put_many([image(TILES[16], body)])
        assert store.absent(TILES) == TILES[:17]


def test_the_sea_is_imagery(store):
    body = encoded(np.full((PX, PX, 3), [10, 40, 80]))
    store.put_many(image(tile, body) for tile in TILES)
    assert len(store) == len(TILES)


def test_a_placeholder_that_the_provider_is_known_for_is_never_stored(path):
    body = encoded(np.full((PX, PX, 3), 204))
    digest = image(TILES[0], body).sha256
    with TileStore.writing(path, tile_px=PX, placeholders=[digest]) as store:
        store.put_many([image(TILES[0], body), image(TILES[1])])
        assert store.stored(TILES) == [TILES[1]]
        assert store.absence(TILES[0]) == "placeholder"


def test_a_transparent_tile_holds_no_imagery(store):
    store.put_many([image(TILES[0], encoded(np.zeros((PX, PX, 4)))), image(TILES[1])])
    assert store.absence(TILES[0]) == "transparent"
    assert store.stored(TILES) == [TILES[1]]


# ---------------------------------------------------------------- threads and processes


def test_many_threads_read_while_one_writes(store):
    wrong = []

    def read():
        for _ in range(20):
            wrong.extend(t for t in TILES if store.get(t) not in (None, tile_bytes(*t)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for tile in TILES:
        store.put_many([image(tile)])
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_second_writer_says_that_it_cannot(store, path):
    with pytest.raises(StoreBusyError, match="Another process writes"):
        TileStore.writing(path, tile_px=PX, wait_s=0.05)
    store.put_many([image(TILES[0])])
    with TileStore(path) as reader:
        assert reader.get(TILES[0]) == tile_bytes(*TILES[0])
    with pytest.raises(StoreError, match="opened to read"):
        reader.put_many([image(TILES[1])])


def test_closing_does_not_wait_for_readers(path):
    store = TileStore.writing(path, tile_px=PX)
    store.put_many(map(image, TILES))
    with TileStore(path) as reader:
        reader.get(TILES[0])
        started_s = time.monotonic()
        store.close()
        # else it would be a minute
        assert time.monotonic() - started_s < tile_store.WAIT_S / 2
        assert reader.stored(TILES) == TILES
    TileStore.writing(path, tile_px=PX).close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def _put(path, tiles):
    with TileStore.writing(path, tile_px=PX, wait_s=60) as store:
        for tile in tiles:
            store.put_many([image(tile)])


def test_processes_write_one_after_the_other(path):
    context = multiprocessing.get_context("spawn")
    shares = [TILES[k::3] for k in range(3)]
    processes = [context.Process(target=_put, args=(path, share)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with TileStore(path) as store:
        assert store.stored(TILES) == TILES
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_lock_ends_with_its_process(path):
    code = (
        "import os, sys\nfrom data_tools.tile_store import TileStore\n"
        "TileStore.writing(sys.argv[1], tile_px=32)\nos._exit(0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=True)
    assert tile_store._lock_path(path).exists()
    TileStore.writing(path, tile_px=PX, wait_s=0.0).close()


# ---------------------------------------------------------------- trouble


def test_a_full_disk_keeps_what_was_committed(store):
    store.put_many(map(image, TILES[:10]))
    connection = store._connection()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(NoSpaceError, match="make room and run again"):
        store.put_many(map(image, TILES[10:]))
    assert store.stored(TILES) == TILES[:10]
    connection.execute("PRAGMA max_page_count = 100000")
    store.put_many(map(image, TILES[10:]))
    assert store.stored(TILES) == TILES


def test_batches_before_the_full_disk_are_kept(store, monkeypatch):
    monkeypatch.setattr(tile_store, "BATCH_TILES", 8)
    connection = store._connection()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(NoSpaceError):
        store.put_many(map(image, TILES))
    assert store.stored(TILES) == TILES[: len(store)]
    assert len(store) in (8, 16, 24)
    assert BATCH_TILES == 256


@pytest.mark.parametrize("content", [b"not a database, but some text" * 40, b"SQLite format 3\0"])
def test_what_is_no_database_is_said(path, content):
    path.write_bytes(content)
    for opened in (TileStore, lambda path: TileStore.writing(path, tile_px=PX)):
        with pytest.raises(StoreError, match="tile store"):
            opened(path)
    assert path.read_bytes() == content


def test_a_damaged_store_is_said(store, path):
    store.put_many(map(image, TILES))
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="move it away"), TileStore(path) as damaged:
        for tile in TILES:
            damaged.get(tile)


def test_another_database_is_no_tile_store(path):
    sqlite3.connect(path).execute("CREATE TABLE notes (text)").connection.close()
    with pytest.raises(StoreError, match="no MBTiles"):
        TileStore(path)


def test_a_store_that_is_not_there_is_not_made_by_reading(path):
    with pytest.raises(StoreError, match="not there"):
        TileStore(path)
    assert not path.exists()
    with pytest.raises(StoreError, match="cannot be written"):
        TileStore.writing(path.parent / "no such folder" / "a.mbtiles")
