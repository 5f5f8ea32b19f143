import gzip
import struct

import geopandas
import pytest
import shapely

from crossview.errors import MapError
from data_tools import pmtiles


@pytest.fixture
def path(tmp_path):
    """Made by GDAL: zooms 3 to 7 of a square, a line and points."""
    table = geopandas.GeoDataFrame(
        {"building": ["yes"] * 40},
        geometry=[shapely.box(9 + i, 45, 9.5 + i, 46) for i in range(40)],
        crs=4326,
    )
    table.to_file(
        tmp_path / "gdal.pmtiles", driver="PMTiles", MINZOOM=3, MAXZOOM=7, NAME="town 2024-02-29"
    )
    return tmp_path / "gdal.pmtiles"


def archive_bytes(*, tile_type=1, compression=2, tile=b"", directory=None, metadata=b"{}"):
    """An archive with one tile, 0/0/0, written out from the specification."""
    pack = gzip.compress if compression == 2 else bytes
    root = pack(directory or bytes([1, 0, 1, len(tile) or 1, 1]))
    metadata = pack(metadata)
    end = 127 + len(root) + len(metadata)
    offsets = struct.pack(
        "<11Q", 127, len(root), 127 + len(root), len(metadata), end, 0, end, len(tile), 1, 1, 1
    )
    box = struct.pack("<4i", 0, 0, 10**8, 10**8)
    kinds = bytes([1, compression, 1, tile_type, 0, 0])
    return b"PMTiles\x03" + offsets + kinds + box + bytes(9) + root + metadata + tile


def read(path, zoom, column, row):
    with path.open("rb") as file:
        return pmtiles.read_tile(file, pmtiles.open_archive(path), zoom, column, row)


def test_tiles_are_numbered_along_the_curve_of_the_specification():
    """The first zooms as the specification lists them, and its example at zoom 12."""
    numbers = {(0, 0, 0): 0, (1, 0, 0): 1, (1, 0, 1): 2, (1, 1, 1): 3, (1, 1, 0): 4, (2, 0, 0): 5}
    assert {tile: pmtiles.tile_id(*tile) for tile in numbers} == numbers
    assert pmtiles.tile_id(12, 3423, 1763) == 19078479


def test_every_number_belongs_to_one_tile_and_neighbours_share_an_edge():
    by_number = {pmtiles.tile_id(4, x, y): (x, y) for x in range(16) for y in range(16)}
    assert sorted(by_number) == list(range(85, 85 + 256))
    for number in range(85, 85 + 255):
        (x, y), (next_x, next_y) = by_number[number], by_number[number + 1]
        assert abs(next_x - x) + abs(next_y - y) == 1


def test_an_archive_that_gdal_wrote_is_read(path):
    archive = pmtiles.open_archive(path)
    assert (archive.tile_type, archive.min_zoom, archive.max_zoom) == ("mvt", 3, 7)
    assert (archive.name, archive.date) == ("town 2024-02-29", "2024-02-29")
    assert archive.extent == pytest.approx((9, 45, 48.5, 46), abs=1e-6)
    # column 71 of zoom 7 is 19.7 to 22.5 deg east, row 45 is 45.1 to 47.0 deg north
    assert b"building" in read(path, 7, 71, 45)
    assert read(path, 7, 71, 20) is None
    assert read(path, 7, 0, 0) is None


def test_equal_tiles_are_stored_once_and_read_everywhere(tmp_path):
    # tiles 1 to 4 are one run, tile 5 is another, both with the same bytes
    directory = bytes([2, 1, 4, 4, 1, 3, 3, 1, 1])
    path = tmp_path / "runs.pmtiles"
    path.write_bytes(archive_bytes(directory=directory, tile=b"abc", compression=1))
    assert [read(path, 1, x, y) for x, y in ((0, 0), (1, 0), (1, 1))] == [b"abc"] * 3
    assert read(path, 2, 0, 0) == b"abc"
    assert read(path, 0, 0, 0) is None
    assert read(path, 2, 3, 3) is None


def test_tiles_that_follow_each_other_need_no_offset(tmp_path):
    directory = bytes([3, 1, 1, 1, 1, 1, 1, 2, 3, 1, 1, 0, 0])
    path = tmp_path / "rows.pmtiles"
    path.write_bytes(archive_bytes(directory=directory, tile=b"aabbbc", compression=1))
    assert [read(path, 1, x, y) for x, y in ((0, 0), (0, 1), (1, 1))] == [b"aa", b"bbb", b"c"]


def test_attribution_is_plain_text(tmp_path):
    path = tmp_path / "said.pmtiles"
    path.write_bytes(
        archive_bytes(metadata=b'{"attribution": "<a href=\\"x\\">A &amp; B</a> \xc2\xa9  C"}')
    )
    assert pmtiles.open_archive(path).attribution == "A & B © C"


def test_numbers_of_several_bytes_are_decoded():
    assert pmtiles.varints(bytes([0, 1, 127, 0x80, 1, 0xAC, 2])).tolist() == [0, 1, 127, 128, 300]
    assert pmtiles.varints(b"\xff" * 9 + b"\x01").tolist() == [-1]
    for broken in (b"", b"\x80", b"\x80" * 10 + b"\x01"):
        with pytest.raises(ValueError, match="a number"):
            pmtiles.varints(broken)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PMTiles\x02" + bytes(200), "does not begin"),
        (b"PMTiles\x03", "cannot be read"),
        (archive_bytes()[:140], "ends early"),
        (archive_bytes(metadata=b"not json"), "cannot be read"),
        (archive_bytes(compression=3), "compression 3"),
        (archive_bytes(tile_type=9), "cannot be read"),
    ],
)
def test_a_damaged_header_is_a_clear_error(tmp_path, content, reason):
    path = tmp_path / "bad.pmtiles"
    path.write_bytes(content)
    with pytest.raises(MapError, match=reason):
        pmtiles.open_archive(path)


def test_a_missing_archive_is_a_clear_error(tmp_path):
    with pytest.raises(MapError, match="There is no map file"):
        pmtiles.open_archive(tmp_path / "none.pmtiles")


def test_a_part_that_unpacks_to_more_than_any_tile_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pmtiles, "MAX_PART_BYTES", 1000)
    path = tmp_path / "bomb.pmtiles"
    path.write_bytes(archive_bytes(metadata=b'"' + b" " * 100_000 + b'"'))
    with pytest.raises(MapError, match="larger than any tile"):
        pmtiles.open_archive(path)


@pytest.mark.parametrize(
    "directory",
    [
        bytes([200, 255, 1, 0]),  # more entries than bytes
        bytes([1, 0, 1, 3, 0]),  # follows an entry that is not there
        bytes([1, 0, 0, 5, 1]),  # a directory that is not there
        bytes([1, 0, 1, 5, *[255] * 8, 127]),  # a tile beyond all file systems
    ],
)
def test_damaged_directories_are_clear_errors(tmp_path, directory):
    path = tmp_path / "bad.pmtiles"
    path.write_bytes(archive_bytes(directory=directory, compression=1))
    with pytest.raises(MapError, match="cannot be read"), pmtiles.explained(path):
        read(path, 0, 0, 0)
