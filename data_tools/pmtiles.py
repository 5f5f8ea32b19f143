"""PMTiles archives (version 3): what they hold, and their tiles one by one."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from crossview.errors import MapError
from crossview.tiles import GeoBounds

SUFFIX = ".pmtiles"

MAX_PART_BYTES = 64_000_000
"""Of a tile or a directory when it is unpacked; real ones stay below a tenth of that."""

MAX_VARINT_BYTES = 10

TILE_TYPES = ("unknown", "mvt", "png", "jpeg", "webp", "avif")

_MAGIC = b"PMTiles\x03"
_HEADER_BYTES = 127
_NO_COMPRESSION, _GZIP = 1, 2
_MAX_DIRECTORIES = 4
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:T[\d:]+Z)?")

_DAMAGE = (
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
    *(struct.error, zlib.error, RecursionError, MemoryError),
)

_Place = tuple[int, int]
"""Offset and length, bytes."""


@dataclass(frozen=True)
class Archive:
    """The header of an archive, and what it says of itself.

    Args:
        path: The file.
        tile_type: One of TILE_TYPES.
        extent: The box that it maps, degrees.
        min_zoom: Its smallest zoom.
        max_zoom: Its largest zoom.
        name: What it calls itself; empty where it does not.
        attribution: Who must be named, as plain text.
        root: Where its first directory is.
        leaves_offset: Where the others begin.
        tiles_offset: Where the tiles begin.
        directory_compression: A number of the format.
        tile_compression: A number of the format.
    """

    path: Path
    tile_type: str
    extent: GeoBounds
    min_zoom: int
    max_zoom: int
    name: str
    attribution: str
    root: _Place
    leaves_offset: int
    tiles_offset: int
    directory_compression: int
    tile_compression: int

    @property
    def date(self) -> str:
        """The first date in its name, as basemaps have it; empty where there is none."""
        found = _DATE.search(self.name)
        return found.group() if found else ""


def open_archive(path: str | Path) -> Archive:
    """Read the header of an archive.

    Raises:
        MapError: The file is missing, or is no such archive.
    """
    path = Path(path)
    if not path.is_file():
        raise MapError(f"There is no map file {path}.")
    with explained(path), path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        if header[: len(_MAGIC)] != _MAGIC:
            raise ValueError("it does not begin like an archive of version 3")
        root, metadata, leaves, tiles = struct.iter_unpack("<2Q", header[8:72])
        packed, tile_packed, tile_type, min_zoom, max_zoom = header[97:102]
        west, south, east, north = (side / 1e7 for side in struct.unpack_from("<4i", header, 102))
        said = json.loads(_unpacked(_part(file, metadata), packed) or b"{}")
        return Archive(
            path,
            TILE_TYPES[tile_type],
            GeoBounds(west, south, east, north),
            min_zoom,
            max_zoom,
            str(said.get("name", "")),
            _plain(str(said.get("attribution", ""))),
            root,
            leaves[0],
            tiles[0],
            packed,
            tile_packed,
        )


def read_tile(file: BinaryIO, archive: Archive, zoom: int, column: int, row: int) -> bytes | None:
    """The unpacked bytes of a tile; None where the archive has none.

    Args:
        file: The archive's file, open for reading.
        archive: What it holds.
        zoom: Of the tile.
        column: Its x, from the west.
        row: Its y, from the north.

    Raises:
        ValueError, IndexError, struct.error, zlib.error: The archive is damaged; see explained.
    """
    wanted, place = tile_id(zoom, column, row), archive.root
    for _ in range(_MAX_DIRECTORIES):
        entry = _entry(_unpacked(_part(file, place), archive.directory_compression), wanted)
        if entry is None:
            return None
        run_length, offset, length = entry
        if run_length:
            content = _part(file, (archive.tiles_offset + offset, length))
            return _unpacked(content, archive.tile_compression)
        place = (archive.leaves_offset + offset, length)
    raise ValueError("directories that lead nowhere")


def tile_id(zoom: int, column: int, row: int) -> int:
    """Number of a tile in an archive: zooms one after the other, each along a Hilbert curve."""
    number, side = ((1 << 2 * zoom) - 1) // 3, 1 << zoom >> 1
    while side:
        right, low = int(column & side > 0), int(row & side > 0)
        number += side * side * (3 * right ^ low)
        if not low:
            if right:
                column, row = ~column, ~row
            column, row = row, column
        side >>= 1
    return number


def varints(content: bytes | memoryview) -> np.ndarray:
    """All variable-length integers (of protocol buffers) in bytes, (integers,) int64.

    Raises:
        ValueError: The last one is cut off, or one has more than 64 bits.
    """
    byte = np.frombuffer(content, np.uint8)
    is_last = byte < 0x80
    if not len(byte) or not is_last[-1]:
        raise ValueError("a number that is cut off")
    starts = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
    place = np.arange(len(byte)) - np.repeat(starts, np.diff([*starts, len(byte)]))
    if place.max() >= MAX_VARINT_BYTES:
        raise ValueError("a number of more than 64 bits")
    digits = (byte & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(digits, starts).astype(np.int64)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """What a damaged archive leads to, as a MapError."""
    try:
        yield
    except MapError:
        raise
    except _DAMAGE as error:
        raise MapError(
            f"{path} cannot be read as PMTiles ({error}). If it was downloaded, download it again."
        ) from error


def _part(file: BinaryIO, place: _Place) -> bytes:
    offset, length = place
    if length > MAX_PART_BYTES:
        raise ValueError(f"a part of {length} bytes")
    if offset + length > file.seek(0, os.SEEK_END):
        raise ValueError("the file ends early")
    file.seek(offset)
    return file.read(length)


def _unpacked(content: bytes, compression: int) -> bytes:
    if compression == _NO_COMPRESSION or not content:
        return content
    if compression != _GZIP:
        raise ValueError(f"compression {compression} is not supported, only none and gzip are")
    reader = zlib.decompressobj(wbits=31)
    unpacked = reader.decompress(content, MAX_PART_BYTES)
    if not reader.eof:
        raise ValueError("a part that is cut off, or larger than any tile")
    return unpacked


def _entry(directory: bytes, wanted: int) -> tuple[int, int, int] | None:
    """Run length (0: of a directory), offset and length of what holds a tile."""
    numbers = varints(directory)
    steps, runs, lengths, offsets = numbers[1 : 4 * numbers[0] + 1].reshape(4, numbers[0])
    tile_ids = np.cumsum(steps)
    i = int(np.searchsorted(tile_ids, wanted, side="right")) - 1
    if i < 0 or (runs[i] and wanted >= tile_ids[i] + runs[i]):
        return None
    first = i
    while offsets[first] == 0:  # it follows the entry before
        first -= 1
    offset = int(offsets[first]) - 1 + int(lengths[first:i].sum())
    return int(runs[i]), offset, int(lengths[i])


def _plain(text: str) -> str:
    """A text without its HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split())
