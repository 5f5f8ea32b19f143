"""Galleries on disk: what comes back, what a killed build leaves, and what is refused."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes.galleries import (
    FRAME,
    MODEL,
    FakeEncoder,
    descriptors,
    gallery,
    places,
    tile_dataset,
)

from crossview import gallery_files, parquet
from crossview.errors import GalleryError
from crossview.gallery import Disc, Gallery
from crossview.gallery_files import Excluded, GalleryWriter, Index, damages

REPOSITORY = Path(__file__).resolve().parents[1]
COUNT = 50
INDEX = Index(FRAME, 64.0, MODEL, num_headings=4, scale=12.5, attribution="Nobody", name="town")
ROWS = dict(zip([f"t{k}" for k in range(COUNT)], descriptors(COUNT), strict=True))


def tiles(count=COUNT):
    x_m, y_m = places(count).T
    names = [f"t{k}" for k in range(count)]
    return pd.DataFrame(
        {"tile_id": names, "x_m": x_m, "y_m": y_m, "image": [f"{n}.jpg" for n in names]}
    )


def write(folder, *, index=INDEX, table=None, blocks=None, excluded=()):
    """Write some blocks of eight, or all and finish; how many were written."""
    table = tiles() if table is None else table
    with GalleryWriter(folder, index, table, block_tiles=8) as writer:
        written = 0
        for block in writer.blocks():
            if written == blocks:
                return written
            out = [one for one in excluded if one.tile_id in set(block["tile_id"])]
            kept = [name for name in block["tile_id"] if name not in {o.tile_id for o in out}]
            writer.write(block, np.array([ROWS[name] for name in kept]), out)
            written += 1
        writer.finish()
    return written


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_gallery_comes_back(tmp_path):
    assert write(tmp_path / "g") == 7
    made = Gallery.load(tmp_path / "g", FakeEncoder())
    table = tiles().set_index("tile_id")
    assert set(made.tile_ids) == set(ROWS)
    for name, place, row, image in zip(
        made.tile_ids, made.positions_m, made.descriptors, made.images, strict=True
    ):
        assert tuple(place) == (table["x_m"][name], table["y_m"][name])
        np.testing.assert_array_equal(row, ROWS[name])
        assert image == f"{name}.jpg"
    assert (made.frame, made.footprint_m, made.model) == (FRAME, 64.0, MODEL)
    assert (made.scale, made.num_headings, made.attribution) == (12.5, 4, "Nobody")
    assert made.name == "town"
    assert damages(tmp_path / "g") == []


def test_descriptors_are_a_plain_npy_file_that_stays_on_disk(tmp_path):
    write(tmp_path / "g")
    made = Gallery.load(tmp_path / "g")
    np.testing.assert_array_equal(np.load(tmp_path / "g" / "descriptors.npy"), made.descriptors)
    base = made.descriptors
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_float16_takes_half(tmp_path):
    write(tmp_path / "g", index=replace(INDEX, dtype="float16"))
    made = Gallery.load(tmp_path / "g")
    assert made.descriptors.dtype == np.float16
    assert (tmp_path / "g" / "descriptors.npy").stat().st_size == 128 + COUNT * 16 * 2
    for name, row in zip(made.tile_ids, made.descriptors, strict=True):
        np.testing.assert_allclose(row, ROWS[name], atol=1e-3)


def test_a_large_table_has_a_copy_in_parquet(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(parquet, "MIN_ROWS", 10)
    write(tmp_path / "g")
    assert (tmp_path / "g" / "tiles.parquet").is_file()
    assert set(Gallery.load(tmp_path / "g").tile_ids) == set(ROWS)


# ---------------------------------------------------------------- interrupted


@pytest.mark.parametrize("blocks", [0, 1, 3, 6])
@pytest.mark.parametrize("torn", [0, 5, 1000])
def test_an_interrupted_writer_goes_on_and_the_files_are_the_same(tmp_path, blocks, torn):
    write(tmp_path / "whole")
    write(tmp_path / "g", blocks=blocks)
    with (tmp_path / "g" / "descriptors.part").open("ab") as file:
        file.write(b"x" * torn)  # what a killed block had written
    assert write(tmp_path / "g") == 7 - blocks
    assert bytes_of(tmp_path / "g") == bytes_of(tmp_path / "whole")


def test_excluded_tiles_have_no_row_and_are_remembered_across_an_interrupt(tmp_path):
    excluded = [Excluded("t3", "torn"), Excluded("t41", "black")]
    write(tmp_path / "g", blocks=4, excluded=excluded)
    write(tmp_path / "g", excluded=excluded)
    made = Gallery.load(tmp_path / "g")
    assert set(made.tile_ids) == set(ROWS) - {"t3", "t41"}
    assert set(made.excluded) == set(excluded)
    assert all(
        np.array_equal(ROWS[n], r) for n, r in zip(made.tile_ids, made.descriptors, strict=True)
    )
    assert len(made.search(ROWS["t3"], 1000).rows) == COUNT - 2


def killed(*_):
    raise KeyboardInterrupt


def test_a_writer_killed_between_its_last_steps_finishes(tmp_path, monkeypatch):
    write(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(gallery_files, "write_index", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "g")
    with pytest.raises(GalleryError, match="not finished"):
        Gallery.load(tmp_path / "g")
    assert write(tmp_path / "g") == 0
    assert bytes_of(tmp_path / "g") == bytes_of(tmp_path / "whole")


def test_an_unfinished_gallery_is_refused(tmp_path):
    write(tmp_path / "g", blocks=2)
    with pytest.raises(GalleryError, match=r"is not finished. Run the command"):
        Gallery.load(tmp_path / "g")


def test_two_writers_at_once_are_refused(tmp_path):
    with (
        GalleryWriter(tmp_path / "g", INDEX, tiles()),
        pytest.raises(GalleryError, match="Another process writes"),
    ):
        GalleryWriter(tmp_path / "g", INDEX, tiles())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": replace(INDEX, model=replace(MODEL, sha256="cd" * 32))}, "model differ"),
        ({"index": replace(INDEX, num_headings=8)}, "num_headings differ"),
        ({"table": tiles(49)}, "tiles differ"),
        ({"table": tiles().assign(x_m=lambda t: t["x_m"] + 1)}, "tiles differ"),
    ],
)
def test_the_beginning_of_another_gallery_is_refused(tmp_path, change, message):
    write(tmp_path / "g", blocks=2)
    with pytest.raises(GalleryError, match=message):
        write(tmp_path / "g", **change)


def test_a_finished_gallery_is_not_overwritten(tmp_path):
    write(tmp_path / "g")
    with pytest.raises(GalleryError, match="is a gallery already"):
        write(tmp_path / "g")


# ---------------------------------------------------------------- killed by the system

KILLED = """
import os, signal, sys
from pathlib import Path
from crossview.gallery_build import build
from crossview.manifest import Manifest
from fakes.galleries import FakeEncoder
import crossview.gallery_build as gallery_build

gallery_build.BATCH_TILES = 2
folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])

class Killed(FakeEncoder):
    def describe_tiles(self, images):
        rows = super().describe_tiles(images)
        print(*self.described[-len(images):], flush=True)
        if len(self.described) >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

build(Manifest.load(folder / "set"), Killed(), folder / "g", block_tiles=6)
"""


def test_a_killed_build_computes_only_its_last_block_again(tmp_path):
    tile_dataset(tmp_path / "set", count=20)

    def run(kill_at):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path), str(kill_at)],
            cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, [int(word) for word in done.stdout.split()]

    code, first = run(kill_at=16)
    assert code == -signal.SIGKILL
    assert len(first) == 16  # two blocks of six, and four of the third
    code, second = run(kill_at=1000)
    assert code == 0
    assert second[:4] == first[12:]
    assert sorted(first[:12] + second) == list(range(20))
    assert Gallery.load(tmp_path / "g").num_tiles == 20


# ---------------------------------------------------------------- bad content


def test_a_descriptor_with_nan_is_refused_by_the_name_of_its_tile(tmp_path):
    with GalleryWriter(tmp_path / "g", INDEX, tiles(), block_tiles=8) as writer:
        block = next(writer.blocks())
        rows = np.array([ROWS[name] for name in block["tile_id"]])
        rows[5] = np.nan
        with pytest.raises(GalleryError, match=f"{block['tile_id'].iloc[5]} holds NaN"):
            writer.write(block, rows)
        rows[5] = 0.0
        with pytest.raises(GalleryError, match="length 0"):
            writer.write(block, rows)
        assert writer.num_done == 0


def test_blocks_of_another_shape_or_order_are_refused(tmp_path):
    with GalleryWriter(tmp_path / "g", INDEX, tiles(), block_tiles=8) as writer:
        first, second = list(writer.blocks())[:2]
        with pytest.raises(GalleryError, match=r"8 tiles.*\(7, 16\)"):
            writer.write(first, descriptors(7))
        with pytest.raises(GalleryError, match="order"):
            writer.write(second, descriptors(8))
        writer.write(first, descriptors(8))
        with pytest.raises(GalleryError, match="descriptor of 16 numbers"):
            writer.write(second, descriptors(8, dimensions=8))
        with pytest.raises(GalleryError, match="42 of 50 tiles are not written"):
            writer.finish()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (tiles(0), "at least one tile"),
        (tiles().assign(tile_id="same"), "'same' is in row 2 already"),
        (tiles().assign(x_m=np.nan), "x_m"),
    ],
)
def test_tables_that_are_no_tiles_are_refused(tmp_path, table, message):
    with pytest.raises(GalleryError, match=message):
        GalleryWriter(tmp_path / "g", INDEX, table)


def test_a_gallery_without_a_readable_tile_is_refused_with_a_reason(tmp_path):
    excluded = [Excluded(name, "not an image") for name in ROWS]
    with pytest.raises(GalleryError, match=r"None of the 50 tiles.*not an image"):
        write(tmp_path / "g", excluded=excluded)


def test_damage_is_found(tmp_path):
    folder = tmp_path / "g"
    write(folder)
    body = bytearray((folder / "descriptors.npy").read_bytes())
    body[500] ^= 1
    (folder / "descriptors.npy").write_bytes(body)
    assert [text.split(":")[0] for text in damages(folder)] == ["descriptors.npy"]
    (folder / "descriptors.npy").write_bytes(body[:-100])
    with pytest.raises(GalleryError, match="cannot be read"):
        Gallery.load(folder)
    (folder / "descriptors.npy").unlink()
    assert len(damages(folder)) == 1
    with pytest.raises(GalleryError, match="cannot be read"):
        Gallery.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "no index"),
        (lambda text: "[]", "no index"),
        (lambda text: json.dumps({**json.loads(text), "format_version": 99}), "version 99"),
        (lambda text: json.dumps({**json.loads(text), "colour": "red"}), "no index"),
    ],
)
def test_an_index_of_something_else_is_refused(tmp_path, change, message):
    write(tmp_path / "g")
    path = tmp_path / "g" / "index.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(GalleryError, match=message):
        Gallery.load(tmp_path / "g")


def test_tiles_that_were_edited_are_refused(tmp_path):
    write(tmp_path / "g")
    path = tmp_path / "g" / "tiles.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(GalleryError, match=r"tiles.csv is not the file that was written"):
        Gallery.load(tmp_path / "g")


def test_a_folder_that_is_no_gallery_is_refused(tmp_path):
    with pytest.raises(GalleryError, match="is no gallery"):
        Gallery.load(tmp_path)


def test_search_in_a_mapped_gallery_is_search_in_memory(tmp_path):
    made = gallery(COUNT)
    write(tmp_path / "g")
    mapped = Gallery.load(tmp_path / "g")
    prior, query = Disc(0, 0, 1000), descriptors(1, seed=7)[0]
    names = [made.tile_ids[row] for row in made.search(query, 9, prior=prior).rows]
    found = mapped.search(query, 9, prior=prior)
    assert [mapped.tile_ids[row] for row in found.rows] == [f"t{name}" for name in names]
