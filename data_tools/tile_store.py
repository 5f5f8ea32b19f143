"""Tiles in one MBTiles file: the server's bytes as they came, what is known to be absent, resume.

The file is a plain MBTiles 1.3 (rasterio, GDAL and QGIS open it) with three tables of ours:
`crossview_answers` (checksum and HTTP validators of stored tiles), `crossview_absent` (tiles that a
server does not have) and `crossview_placeholders` (checksums of "no imagery" pictures).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import logging
import os
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossview import tiles
from crossview.errors import ContentError, NoSpaceError, StoreBusyError, StoreError
from crossview.tiles import TileId

logger = logging.getLogger(__name__)

BATCH_TILES = 256
"""Tiles of one commit."""
PLACEHOLDER_TILES = 16
"""Distinct tiles with identical, structured bytes: a picture that says "no imagery"."""
SAMPLE_TILES = 1024
"""That say how large a tile is."""
WAIT_S = 60.0
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
"""Pillow's name and MBTiles' name."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS metadata (name TEXT NOT NULL PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS tiles (
    zoom_level INTEGER NOT NULL, tile_column INTEGER NOT NULL, tile_row INTEGER NOT NULL,
    tile_data BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS tile_index ON tiles (zoom_level, tile_column, tile_row);
CREATE TABLE IF NOT EXISTS crossview_answers (
    zoom_level INTEGER NOT NULL, tile_column INTEGER NOT NULL, tile_row INTEGER NOT NULL,
    sha256 BLOB NOT NULL, etag TEXT, last_modified TEXT,
    PRIMARY KEY (zoom_level, tile_column, tile_row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS crossview_bodies ON crossview_answers (sha256);
CREATE TABLE IF NOT EXISTS crossview_absent (
    zoom_level INTEGER NOT NULL, tile_column INTEGER NOT NULL, tile_row INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (zoom_level, tile_column, tile_row)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crossview_placeholders (sha256 BLOB NOT NULL PRIMARY KEY);
"""
_KEY = "zoom_level = ? AND tile_column = ? AND tile_row = ?"
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_TOOBIG)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@dataclass(frozen=True)
class TileImage:
    """A tile as a server sent it, decoded once to see that it is whole.

    Attributes:
        tile: Which one.
        body: The server's bytes.
        tile_px: Rows, and columns, that it must have.
        etag: The server's validator, None where it sent none.
        last_modified: The same, by date.
        format: Of the bytes: jpg, png or webp; found here.
        is_structured: The picture has more than one colour.
        is_empty: The picture is transparent all over.

    Raises:
        ContentError: The bytes are no image, damaged, or of another size.
    """

    tile: TileId
    body: bytes = field(repr=False)
    tile_px: int
    etag: str | None = None
    last_modified: str | None = None
    format: str = field(init=False)
    is_structured: bool = field(init=False)
    is_empty: bool = field(init=False)

    def __post_init__(self) -> None:
        name, low, high = _decoded(self.body, self.tile_px)
        object.__setattr__(self, "tile", TileId(*self.tile))
        object.__setattr__(self, "format", FORMATS[name])
        object.__setattr__(self, "is_structured", low != high)
        object.__setattr__(self, "is_empty", high[3] == 0)

    @property
    def sha256(self) -> bytes:
        """Checksum of the bytes."""
        return hashlib.sha256(self.body).digest()


def _decoded(body: bytes, tile_px: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """Format, least and largest value of every channel."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body), formats=list(FORMATS)) as image:
            # before decoding: a bomb is a file of the wrong size
            if image.size == (tile_px, tile_px):
                low, high = zip(*image.convert("RGBA").getextrema(), strict=True)
                return str(image.format), low, high
            size = image.size
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise ContentError(
            f"Expected an image of {tile_px} x {tile_px} pixels (JPEG, PNG or WebP), got "
            f"{len(body)} bytes that cannot be decoded, beginning with {body[:60]!r} ({error})."
        ) from None
    hint = f" If all tiles are such, say --tile-px {size[0]}." if size[0] == size[1] else ""
    raise ContentError(f"Expected a tile of {tile_px} x {tile_px} pixels, got {size}.{hint}")


class TileStore:
    """Tiles in an MBTiles file; rows are TMS inside and XYZ outside.

    `TileStore(path)` reads a file that exists, `TileStore.writing` makes or continues one. Any
    number of threads and processes may read while one process writes; every thread has a
    connection of its own.

    Raises:
        StoreError: The file is not there, no tile store, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"{self.path} is not there. Download tiles into it first.")
        self._is_writer = False
        self._begin()
        if self._connection().execute(
            "SELECT count(*) FROM sqlite_master WHERE name IN ('tiles', 'metadata')"
        ).fetchone() != (2,):
            self.close()
            raise StoreError(f"{self.path} is a database but no MBTiles file.")

    @classmethod
    def writing(
        cls,
        path: str | os.PathLike[str],
        *,
        tile_px: int = 256,
        metadata: Mapping[str, str] | None = None,
        placeholders: Iterable[bytes] = (),
        wait_s: float = WAIT_S,
    ) -> TileStore:
        """Open for writing, made where there is none; one process at a time.

        Args:
            path: The MBTiles file.
            tile_px: Rows, and columns, of every tile.
            metadata: MBTiles metadata: name, attribution, description, and what one likes. A
                store keeps to the `crossview_template` of its first tile.
            placeholders: SHA-256 digests of pictures that say "no imagery".
            wait_s: How long to wait for another process that writes.

        Raises:
            StoreBusyError: Another process still writes.
            StoreError: The file holds tiles of another size or source, or is no tile store.
            NoSpaceError: The disk is full.
        """
        store = cls.__new__(cls)
        store.path = Path(path)
        store._is_writer = True
        store._begin()
        store._lock = _writers_lock(store.path, wait_s)
        try:
            store._prepare(tile_px, dict(metadata or {}), placeholders)
        except BaseException:
            store.close()
            raise
        return store

    def _begin(self) -> None:
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._opening = threading.Lock()
        self._lock: int | None = None

    def _prepare(
        self, tile_px: int, metadata: dict[str, str], placeholders: Iterable[bytes]
    ) -> None:
        connection = self._connection()
        with self._translated():
            connection.execute("PRAGMA journal_mode = WAL")
            # a commit survives a killed process; the last ones may not survive a power cut
            connection.execute("PRAGMA synchronous = NORMAL")
        with self._transaction() as connection:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            if self._is_empty():
                # a store that has learnt nothing is nobody's
                connection.execute("DELETE FROM metadata")
                connection.execute("DELETE FROM crossview_placeholders")
            self.require_source(tile_px, metadata)
            facts = {"type": "baselayer", "version": "1.0", "name": self.path.stem, **metadata}
            _write_metadata(connection, facts | {"crossview_tile_px": str(tile_px)})
            connection.executemany(
                "INSERT OR IGNORE INTO crossview_placeholders VALUES (?)",
                [(digest,) for digest in placeholders],
            )
            self._placeholders = {
                row[0] for row in connection.execute("SELECT sha256 FROM crossview_placeholders")
            }
            extent = connection.execute(
                "SELECT zoom_level, min(tile_column), max(tile_column), min(tile_row), "
                "max(tile_row) FROM tiles GROUP BY zoom_level"
            )
            self._extents = {zoom: tuple(sides) for zoom, *sides in extent}
        self._tile_px = tile_px

    def _is_empty(self) -> bool:
        tables = ("tiles", "crossview_absent") if self._has_ours() else ("tiles",)
        return not any(
            self._connection().execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608
            for table in tables
        )

    def require_source(self, tile_px: int, metadata: Mapping[str, str]) -> None:
        """Refuse to mix sources; see `writing` for the arguments.

        Raises:
            StoreError: The file holds tiles, or absences, of another size or source.
        """
        with self._translated():
            if self._is_empty():
                return
        before = self.metadata
        expected = {"crossview_tile_px": str(tile_px)}
        if "crossview_template" in metadata:
            expected["crossview_template"] = metadata["crossview_template"]
        for name, value in expected.items():
            if before.get(name, value) != value:
                raise StoreError(
                    f"{self.path} holds tiles with {name} = {before[name]}, not {value}. Write "
                    "each source into a file of its own."
                )

    # ------------------------------------------------------------ life

    def __enter__(self) -> TileStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; a writer leaves one file, which needs nothing beside it."""
        if self._is_writer and self._connections:
            with contextlib.suppress(sqlite3.Error, StoreError):
                # fails at once while others read, and is then left to the next writer
                self._connection().execute("PRAGMA busy_timeout = 0")
                self._connection().execute("PRAGMA journal_mode = DELETE")
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._local = threading.local()
        if self._lock is not None:
            # the name goes before the lock does: see _writers_lock
            _lock_path(self.path).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._translated():
                mode = "rwc" if self._is_writer else "ro"
                connection = sqlite3.connect(
                    f"{self.path.absolute().as_uri()}?mode={mode}",
                    uri=True,
                    timeout=WAIT_S,
                    isolation_level=None,
                    check_same_thread=False,  # closed by whoever closes the store
                )
                with self._opening:
                    self._connections.append(connection)
                self._local.connection = connection
                # the header is read here, where a damaged one has a name
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors by our names."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", -1)
            if code in _FULL or code & 0xFF in _FULL:
                raise NoSpaceError(
                    f"No space to write {self.path} ({error}). What was committed is kept: make "
                    "room and run again."
                ) from error
            if code & 0xFF in _BUSY:
                raise StoreBusyError(f"{self.path} is in use by another process.") from error
            raise StoreError(
                f"{self.path} cannot be used as a tile store ({error}). If it is damaged, move it "
                "away and download again."
            ) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing."""
        connection = self._connection()
        with self._translated():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # a full disk may have ended the transaction already
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    # ------------------------------------------------------------ reading

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata table."""
        with self._translated():
            return dict(self._connection().execute("SELECT name, value FROM metadata"))

    @property
    def tile_px(self) -> int:
        """Rows, and columns, of a tile."""
        return int(self.metadata.get("crossview_tile_px", "256"))

    def __len__(self) -> int:
        with self._translated():
            return int(self._connection().execute("SELECT count(*) FROM tiles").fetchone()[0])

    def mean_bytes(self) -> float | None:
        """Of a tile, about, None where none is stored; the file's size says nothing while tiles
        that were committed are in the file beside it.
        """
        sample = f"SELECT tile_data FROM tiles LIMIT {SAMPLE_TILES}"  # noqa: S608
        query = f"SELECT avg(length(tile_data)) FROM ({sample})"  # noqa: S608
        with self._translated():
            mean: float | None = self._connection().execute(query).fetchone()[0]
        return mean

    def get(self, tile: TileId) -> bytes | None:
        """A tile's bytes as the server sent them, None where it is not stored."""
        with self._translated():
            row = (
                self._connection()
                .execute(f"SELECT tile_data FROM tiles WHERE {_KEY}", _row(tile))  # noqa: S608
                .fetchone()
            )
        return None if row is None else bytes(row[0])

    def validators(self, tile: TileId) -> tuple[str | None, str | None]:
        """ETag and Last-Modified of a stored tile, for a conditional request."""
        row = self._one_of_ours(
            f"SELECT etag, last_modified FROM crossview_answers WHERE {_KEY}",  # noqa: S608
            _row(tile),
        )
        return (None, None) if row is None else (row[0], row[1])

    def stored(self, tiles: Iterable[TileId]) -> list[TileId]:
        """Those of the tiles that are stored, in their order."""
        wanted = [TileId(*tile) for tile in tiles]
        there = self._keys_among("tiles", wanted)
        return [tile for tile in wanted if tile in there]

    def absent(self, tiles: Iterable[TileId]) -> list[TileId]:
        """Those of the tiles that the server is known not to have, in their order."""
        wanted = [TileId(*tile) for tile in tiles]
        there = self._keys_among("crossview_absent", wanted)
        return [tile for tile in wanted if tile in there]

    def missing(self, tiles: Iterable[TileId]) -> list[TileId]:
        """Those of the tiles that are neither stored nor known to be absent, once, in order."""
        wanted = list(dict.fromkeys(TileId(*tile) for tile in tiles))
        there = self._keys_among("tiles", wanted) | self._keys_among("crossview_absent", wanted)
        return [tile for tile in wanted if tile not in there]

    def _keys_among(self, table: str, wanted: list[TileId]) -> set[TileId]:
        """Keys of a table within the boxes, one a zoom, around some tiles."""
        found: set[TileId] = set()
        by_zoom: dict[int, list[TileId]] = {}
        for tile in wanted:
            by_zoom.setdefault(tile.zoom, []).append(tile)
        with self._translated():
            if table != "tiles" and not self._has_ours():
                return found
            for zoom, some in by_zoom.items():
                columns, rows = [t.x for t in some], [2**zoom - 1 - t.y for t in some]
                box = (zoom, min(columns), max(columns), min(rows), max(rows))
                found.update(
                    TileId(zoom, column, 2**zoom - 1 - row)
                    for column, row in self._connection().execute(
                        f"SELECT tile_column, tile_row FROM {table} WHERE zoom_level = ? "  # noqa: S608
                        "AND tile_column BETWEEN ? AND ? AND tile_row BETWEEN ? AND ?",
                        box,
                    )
                )
        return found

    def _has_ours(self) -> bool:
        """Somebody else's MBTiles files can be read too."""
        query = "SELECT 1 FROM sqlite_master WHERE name = 'crossview_answers'"
        return self._connection().execute(query).fetchone() is not None

    def _one_of_ours(self, query: str, values: tuple[int, ...]) -> tuple[str, ...] | None:
        with self._translated():
            if not self._has_ours():
                return None
            row: tuple[str, ...] | None = self._connection().execute(query, values).fetchone()
            return row

    def absence(self, tile: TileId) -> str | None:
        """Why a tile is known to be absent ("404", "placeholder"), None where it is not."""
        row = self._one_of_ours(
            f"SELECT reason FROM crossview_absent WHERE {_KEY}",  # noqa: S608
            _row(tile),
        )
        return None if row is None else row[0]

    def damaged(self) -> list[TileId]:
        """Stored tiles whose bytes are not those that the server sent."""
        query = (
            "SELECT zoom_level, tile_column, tile_row, tile_data, sha256 FROM tiles "
            "JOIN crossview_answers USING (zoom_level, tile_column, tile_row)"
        )
        with self._translated():
            return [
                TileId(zoom, column, 2**zoom - 1 - row)
                for zoom, column, row, body, digest in self._connection().execute(query)
                if hashlib.sha256(body).digest() != digest
            ]

    # ------------------------------------------------------------ writing

    def _require_writer(self) -> None:
        if not self._is_writer:
            raise StoreError(f"{self.path} was opened to read. Use TileStore.writing.")

    def put_many(self, images: Iterable[TileImage]) -> None:
        """Store tiles, 256 a commit; one that is there already is replaced.

        A picture that says "no imagery" is not stored: its tile becomes absent. It is one of the
        `placeholders`, or bytes with more than one colour that came for 16 distinct tiles: texture
        does not repeat to the bit. Pictures of one colour are kept, for they may be the sea.

        Raises:
            NoSpaceError: The disk is full; the batches before are kept.
        """
        self._require_writer()
        for batch in _batches(images):
            for image in batch:
                if image.tile_px != self._tile_px:
                    raise StoreError(
                        f"{self.path} holds tiles of {self._tile_px} pixels, not {image.tile_px}."
                    )
            with self._transaction() as connection:
                extents, placeholders = dict(self._extents), set(self._placeholders)
                for image in batch:
                    digest = image.sha256
                    if image.is_empty or digest in placeholders:
                        reason = "transparent" if image.is_empty else "placeholder"
                        _insert_absent(connection, image.tile, reason)
                        continue
                    _insert(connection, image, digest)
                    _extend(extents, _row(image.tile))
                    if image.is_structured and _count(connection, digest) >= PLACEHOLDER_TILES:
                        logger.info("%d tiles are one picture: no imagery", PLACEHOLDER_TILES)
                        _move_to_absent(connection, digest)
                        placeholders.add(digest)
                _write_metadata(connection, _extent_facts(extents))
                connection.execute(
                    "INSERT OR IGNORE INTO metadata VALUES ('format', ?)", (batch[0].format,)
                )
            self._extents, self._placeholders = extents, placeholders

    def put_absent(self, reasons: Mapping[TileId, str]) -> None:
        """Remember tiles that the server does not have, and why: they are not asked for again."""
        self._require_writer()
        with self._transaction() as connection:
            for tile, reason in reasons.items():
                _insert_absent(connection, tile, reason)

    def forget_absent(self) -> int:
        """Forget what was absent, so that it is asked for again; returns how many tiles."""
        self._require_writer()
        with self._transaction() as connection:
            return connection.execute("DELETE FROM crossview_absent").rowcount


def _row(tile: TileId) -> tuple[int, int, int]:
    """Zoom, column and row as MBTiles counts them: from the south."""
    zoom, x, y = tile
    return zoom, x, 2**zoom - 1 - y


def _batches(images: Iterable[TileImage]) -> Iterator[list[TileImage]]:
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, BATCH_TILES)):
        yield batch


def _insert(connection: sqlite3.Connection, image: TileImage, digest: bytes) -> None:
    row = _row(image.tile)
    connection.execute("INSERT OR REPLACE INTO tiles VALUES (?, ?, ?, ?)", (*row, image.body))
    connection.execute(
        "INSERT OR REPLACE INTO crossview_answers VALUES (?, ?, ?, ?, ?, ?)",
        (*row, digest, image.etag, image.last_modified),
    )
    connection.execute(f"DELETE FROM crossview_absent WHERE {_KEY}", row)  # noqa: S608


def _insert_absent(connection: sqlite3.Connection, tile: TileId, reason: str) -> None:
    # what is stored is worth more than what a server says later
    connection.execute(
        "INSERT OR REPLACE INTO crossview_absent SELECT ?, ?, ?, ? "  # noqa: S608
        f"WHERE NOT EXISTS (SELECT 1 FROM tiles WHERE {_KEY})",
        (*_row(tile), reason, *_row(tile)),
    )


def _count(connection: sqlite3.Connection, digest: bytes) -> int:
    query = "SELECT count(*) FROM crossview_answers WHERE sha256 = ?"
    return int(connection.execute(query, (digest,)).fetchone()[0])


def _move_to_absent(connection: sqlite3.Connection, digest: bytes) -> None:
    """Tiles that were stored before their picture was known for a placeholder."""
    connection.execute("INSERT OR IGNORE INTO crossview_placeholders VALUES (?)", (digest,))
    keys = "SELECT zoom_level, tile_column, tile_row FROM crossview_answers WHERE sha256 = ?"
    rows = connection.execute(keys, (digest,)).fetchall()
    connection.executemany(f"DELETE FROM tiles WHERE {_KEY}", rows)  # noqa: S608
    connection.execute("DELETE FROM crossview_answers WHERE sha256 = ?", (digest,))
    connection.executemany(
        "INSERT OR REPLACE INTO crossview_absent VALUES (?, ?, ?, 'placeholder')", rows
    )


def _write_metadata(connection: sqlite3.Connection, facts: Mapping[str, str]) -> None:
    connection.executemany("INSERT OR REPLACE INTO metadata VALUES (?, ?)", facts.items())


_Extents = dict[int, tuple[int, ...]]
"""By zoom: least and largest column, least and largest row (TMS)."""


def _extend(extents: _Extents, row: tuple[int, int, int]) -> None:
    zoom, column, tms_row = row
    west, east, south, north = extents.get(zoom, (column, column, tms_row, tms_row))
    extents[zoom] = (
        min(west, column),
        max(east, column),
        min(south, tms_row),
        max(north, tms_row),
    )


def _extent_facts(extents: _Extents) -> dict[str, str]:
    """MBTiles' words for where the tiles of the deepest zoom lie."""
    if not extents:
        return {}
    zoom = max(extents)
    west, east, south, north = extents[zoom]
    low = tiles.bounds(west, 2**zoom - 1 - south, zoom)
    high = tiles.bounds(east, 2**zoom - 1 - north, zoom)
    box = (low.west, low.south, high.east, high.north)
    return {
        "bounds": ",".join(f"{float(side):.9f}" for side in box),
        "minzoom": str(min(extents)),
        "maxzoom": str(zoom),
    }


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _writers_lock(path: Path, wait_s: float) -> int | None:
    """A lock that ends with its process, however that ends; None where the system has none.

    The holder removes the file before it lets go, so whoever then has the lock of a file that is
    no longer there begins again.
    """
    try:
        import fcntl
    except ImportError:
        return None
    lock, until_s, is_waiting = _lock_path(path), time.monotonic() + wait_s, False
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(handle).st_ino == lock.stat().st_ino:
                    return handle
            os.close(handle)
            continue
        except BlockingIOError:
            os.close(handle)
        if time.monotonic() > until_s:
            raise StoreBusyError(
                f"Another process writes into {path}. Wait until it has finished, or use a file "
                "of its own."
            )
        if not is_waiting:
            logger.warning("Another process writes into %s: waiting up to %.0f s", path, wait_s)
            is_waiting = True
        time.sleep(min(0.1, max(0.01, wait_s / 20)))
