"""A gallery on disk: descriptors in strips, tiles, and an index; written in blocks, resumably.

The folder holds

- `index.json`: what the rest means (see Index). It is written last: without it a gallery is not
  finished.
- `tiles.csv`: tile_id, x_m, y_m (metres east and north in the frame) and image, one row per
  descriptor. `tiles.parquet` may stand beside it (see parquet).
- `descriptors.npy`: (tiles, dimensions) float32 or float16, of length one, in the order of
  tiles.csv: by strips of `strip_m` from south to north, in a strip from west to east. What lies in
  a disc is in a few runs of rows, so a memory-mapped file is read where it is needed only.

While it is written there are `building.json`, how far it is, and `descriptors.part`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import atomic, parquet, tables
from crossview.errors import GalleryError
from crossview.frames import LocalFrame
from crossview.strips import strip_order
from crossview.tables import Column

if TYPE_CHECKING:
    import pandas as pd
    import shapely

FORMAT_VERSION = 1

INDEX_FILE, TILES_FILE, DESCRIPTORS_FILE = "index.json", "tiles.csv", "descriptors.npy"
_BUILDING_FILE, _PART_FILE = "building.json", "descriptors.part"

COLUMNS = (
    Column("tile_id", required=True),
    Column("x_m", "number", required=True),
    Column("y_m", "number", required=True),
    Column("image"),
)

STRIP_M = 250.0
"""Height of a strip: half the radius of a usual prior, so that a disc touches about five."""

BLOCK_TILES = 256
"""Tiles between two states that a killed build can resume from."""

DTYPES = ("float32", "float16")

_LENGTH_TOLERANCE = 2e-3
"""How far the length of a descriptor may be off one: float16 rounds."""

_HEADER_BYTES = 128
"""Of a .npy file of two dimensions, however many rows it has."""


@dataclass(frozen=True)
class Excluded:
    """A tile that has no descriptor, and why."""

    tile_id: str
    reason: str


@dataclass(frozen=True)
class Model:
    """What made the descriptors.

    Args:
        name: For people: the architecture.
        sha256: The encoder's fingerprint.
        preprocessing: As plain values.
    """

    name: str
    sha256: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, encoder: Any) -> Model:
        """What an encoder says of itself."""
        name = str(getattr(encoder, "architecture", type(encoder).__qualname__))
        return cls(name, str(encoder.fingerprint), dict(encoder.preprocessing.to_json()))

    def require(self, other: Model) -> None:
        """Refuse another model.

        Raises:
            GalleryError: Its preprocessing or its weights differ; the message says which.
        """
        if other.sha256 == self.sha256:
            return
        keys = sorted({*self.preprocessing, *other.preprocessing})
        differing = [
            f"{key} {self.preprocessing.get(key)!r} there and {other.preprocessing.get(key)!r} here"
            for key in keys
            if self.preprocessing.get(key) != other.preprocessing.get(key)
        ]
        if differing:
            what = f"another preprocessing ({'; '.join(differing)})"
        elif other.name != self.name:
            what = "another architecture"
        else:
            what = "other weights"
        raise GalleryError(
            f"The gallery was built with the model {self.name!r} ({self.sha256[:12]}) and the "
            f"encoder is {other.name!r} ({other.sha256[:12]}): {what}. Their descriptors cannot be "
            "compared: use the gallery's own model, or build the gallery again."
        )


@dataclass(frozen=True)
class Index:
    """What index.json says.

    Args:
        frame: Where the metres are.
        footprint_m: Side of a tile on the ground.
        model: What made the descriptors.
        num_headings: Descriptors that a query has, one for each heading bin.
        scale: What makes similarities log-likelihoods; None where nobody has fitted it.
        strip_m: Height of a strip.
        dtype: Of the descriptors.
        name: Of the gallery, for people.
        attribution: What must be said where its tiles are shown.
        image_root: Where the images of tiles.csv begin, absolute or from the gallery's folder.
        excluded: Tiles without a descriptor.
    """

    frame: LocalFrame
    footprint_m: float
    model: Model
    num_headings: int = 1
    scale: float | None = None
    strip_m: float = STRIP_M
    dtype: str = "float32"
    name: str = ""
    attribution: str = ""
    image_root: str = ""
    excluded: tuple[Excluded, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Index:
        """Inverse of to_json.

        Raises:
            GalleryError: It is another version's.
        """
        values = dict(content)
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise GalleryError(
                f"The gallery has format version {version!r} and this version of crossview reads "
                f"{FORMAT_VERSION}. Build it again."
            )
        values["frame"] = LocalFrame(**values["frame"])
        values["model"] = Model(**values["model"])
        values["excluded"] = tuple(Excluded(**one) for one in values["excluded"])
        return cls(**values)


def require_descriptors(descriptors: np.ndarray, names: Sequence[str]) -> None:
    """Refuse rows that are no descriptors.

    Raises:
        GalleryError: One holds NaN or is not of length one.
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", descriptors, descriptors, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _LENGTH_TOLERANCE))
    if wrong.size:
        length = lengths[wrong[0]]
        what = "holds NaN or infinity" if not np.isfinite(length) else f"has length {length:.4g}"
        raise GalleryError(
            f"The descriptor of {names[int(wrong[0])]} {what}, and those of {wrong.size} of "
            f"{len(lengths)} are not of length one. Check the encoder's weights: a network that "
            "diverged in training answers so."
        )


# ------------------------------------------------------------------ reading


def read_index(folder: Path) -> tuple[Index, dict[str, str]]:
    """The index of a finished gallery, and the SHA-256 of its files by name.

    Raises:
        GalleryError: There is none, or it is not finished.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        if (folder / _BUILDING_FILE).is_file():
            raise GalleryError(
                f"The gallery {folder} is not finished. Run the command that builds it again: it "
                "goes on where it was interrupted."
            )
        raise GalleryError(
            f"{folder} is no gallery: it has no {INDEX_FILE}. `crossview gallery build` makes one."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sums = {str(name): str(sha256) for name, sha256 in content.pop("sha256").items()}
        return Index.from_json(content), sums
    except GalleryError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GalleryError(
            f"{path} is no index of a gallery ({error!r}). Build it again."
        ) from error


def read_tiles(folder: Path, sha256: str) -> pd.DataFrame:
    """The table of tiles.

    Raises:
        GalleryError: It is not what was written: descriptors would be at other places.
    """
    path = folder / TILES_FILE
    if not path.is_file() or _sha256(path) != sha256:
        raise GalleryError(
            f"{path} is not the file that was written: its SHA-256 differs from the one in "
            f"{INDEX_FILE}, so descriptors may belong to other tiles. Build the gallery again."
        )
    table, problems = parquet.read(path, COLUMNS) or tables.read(path, COLUMNS)
    if problems:
        raise GalleryError(f"{folder}: {problems[0]} Build the gallery again.")
    return table


def mapped_descriptors(folder: Path) -> np.ndarray:
    """The descriptors, memory-mapped and read-only.

    Raises:
        GalleryError: The file is missing, cut off or none of ours.
    """
    path = folder / DESCRIPTORS_FILE
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise GalleryError(f"{path} cannot be read ({error}). Build the gallery again.") from error
    # a memmap object costs microseconds at every slice; the plain array holds on to it
    return np.asarray(mapped).view(np.ndarray)


def damages(folder: Path) -> list[str]:
    """Files of a gallery that are not as they were written; reads all of it."""
    _, sums = read_index(folder)
    return [
        f"{name}: its SHA-256 is not the one in {INDEX_FILE}."
        for name, sha256 in sums.items()
        if not (folder / name).is_file() or _sha256(folder / name) != sha256
    ]


def write_index(folder: Path, index: Index, sums: Mapping[str, str]) -> None:
    """Put an index in the place of the one that is there."""
    with atomic.replacing(folder / INDEX_FILE) as temporary:
        text = json.dumps({**index.to_json(), "sha256": dict(sums)}, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_area(path: Path, frame: LocalFrame) -> shapely.Polygon | shapely.MultiPolygon:
    """The area of all polygons of a GeoJSON or any other vector file, in a frame's metres.

    Raises:
        GalleryError: It cannot be read, or holds no polygon.
    """
    import geopandas
    from pyogrio.errors import DataSourceError

    try:
        rows = geopandas.read_file(path)
        area = rows.to_crs(frame.crs).union_all()
    except (DataSourceError, ValueError) as error:
        raise GalleryError(f"{path} is no file of polygons ({error}).") from error
    if area.is_empty or area.geom_type not in {"Polygon", "MultiPolygon"}:
        raise GalleryError(f"{path} holds {area.geom_type or 'nothing'}; expected polygons.")
    return area


def store_scale(folder: str | os.PathLike[str], scale: float) -> None:
    """Remember a fitted scale in a gallery's index; whoever reads it meanwhile has either."""
    folder = Path(folder)
    index, sums = read_index(folder)
    write_index(folder, replace(index, scale=scale), sums)


# ------------------------------------------------------------------ writing


class GalleryWriter:
    """Writes a gallery in blocks; one that was killed goes on with the block it was at.

    Args:
        folder: The gallery; new, or of the same tiles and model and not finished.
        index: What it is; `excluded` is added to.
        tiles: Rows of tile_id, x_m, y_m, image in any order.
        block_tiles: Tiles of a block.

    Example:
        with GalleryWriter(folder, index, tiles) as writer:
            for block in writer.blocks():
                writer.write(block, descriptors_of(block))
            writer.finish()

    Raises:
        GalleryError: The folder holds another gallery, or another process writes into it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        index: Index,
        tiles: pd.DataFrame,
        *,
        block_tiles: int = BLOCK_TILES,
    ) -> None:
        if index.dtype not in DTYPES:
            raise GalleryError(f"dtype is {index.dtype!r}; expected one of {', '.join(DTYPES)}.")
        if not len(tiles):
            raise GalleryError("A gallery has at least one tile, got none.")
        table, problems = tables.parse(TILES_FILE, tiles, COLUMNS)
        problems = problems or tables.duplicates(TILES_FILE, table, "tile_id")
        if problems:
            raise GalleryError(str(problems[0]))
        order = strip_order(table[["x_m", "y_m"]].to_numpy(), index.strip_m)
        self.folder = Path(folder)
        self.index = index
        self.tiles = table.iloc[order].reset_index(drop=True)
        self._block_tiles = block_tiles
        self._plan = _plan_of(index, self.tiles, block_tiles)
        self._state: dict[str, Any] = {}
        self._file = self._opened()

    def __enter__(self) -> GalleryWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def num_done(self) -> int:
        """Tiles that are written or excluded."""
        return min(self._state["blocks"] * self._block_tiles, len(self.tiles))

    def blocks(self) -> Iterator[pd.DataFrame]:
        """What is left to do, in order: rows of tile_id, x_m, y_m, image."""
        for first in range(self.num_done, len(self.tiles), self._block_tiles):
            yield self.tiles.iloc[first : first + self._block_tiles]

    def write(
        self, block: pd.DataFrame, descriptors: np.ndarray, excluded: Sequence[Excluded] = ()
    ) -> None:
        """Add the descriptors of the next block.

        Args:
            block: As blocks gave it.
            descriptors: (n, dimensions) of its tiles without the excluded ones, in their order.
            excluded: Tiles of it that have none.

        Raises:
            GalleryError: A descriptor is not of length one, or they are of another number.
        """
        if len(block) and block.index[0] != self.num_done:
            raise GalleryError(
                f"The next block begins at tile {self.num_done}, got one at {block.index[0]}. "
                "Write blocks in the order of writer.blocks()."
            )
        names = _without(block, excluded)["tile_id"].tolist()
        self._check(descriptors, names)
        if len(names):
            rows = np.ascontiguousarray(descriptors, dtype=self.index.dtype)
            self._state["dimensions"] = rows.shape[1]
            self._file.write(rows.tobytes())
            self._file.flush()
            os.fsync(self._file.fileno())
        self._state["rows"] += len(names)
        self._state["excluded"] += [asdict(one) for one in excluded]
        self._state["blocks"] += 1
        self._remember()

    def finish(self) -> Path:
        """Make the folder a gallery.

        Raises:
            GalleryError: Blocks are missing, or every tile was excluded.
        """
        if self.num_done < len(self.tiles):
            raise GalleryError(
                f"{len(self.tiles) - self.num_done} of {len(self.tiles)} tiles are not written."
            )
        excluded = tuple(Excluded(**one) for one in self._state["excluded"])
        if not self._state["rows"]:
            raise GalleryError(
                f"None of the {len(self.tiles)} tiles could be described; the first, "
                f"{excluded[0].tile_id}: {excluded[0].reason}"
            )
        self._file.seek(0)
        self._file.write(self._header())
        self._file.flush()
        os.fsync(self._file.fileno())
        kept = _without(self.tiles, excluded)
        with atomic.replacing(self.folder / TILES_FILE) as temporary:
            tables.write(temporary, kept, COLUMNS)
        if len(kept) >= parquet.MIN_ROWS and parquet.is_available():
            parquet.write(self.folder / TILES_FILE, kept, COLUMNS)
        (self.folder / _PART_FILE).replace(self.folder / DESCRIPTORS_FILE)
        sums = {name: _sha256(self.folder / name) for name in (TILES_FILE, DESCRIPTORS_FILE)}
        write_index(self.folder, replace(self.index, excluded=excluded), sums)
        (self.folder / _BUILDING_FILE).unlink()
        return self.folder

    def _check(self, descriptors: np.ndarray, names: Sequence[str]) -> None:
        dimensions = self._state["dimensions"]
        fits = (
            descriptors.ndim == 2
            and len(descriptors) == len(names)
            and dimensions in (None, descriptors.shape[1])
        )
        if names and not fits:
            wanted = "any number" if dimensions is None else dimensions
            raise GalleryError(
                f"The block has {len(names)} tiles with a descriptor of {wanted} numbers each, got "
                f"an array of {descriptors.shape}."
            )
        if names:
            require_descriptors(descriptors, names)

    def _opened(self) -> Any:
        import fcntl  # not on Windows, and only needed here

        if (self.folder / INDEX_FILE).is_file():
            raise GalleryError(f"{self.folder} is a gallery already. Choose another folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        path, whole = self.folder / _PART_FILE, self.folder / DESCRIPTORS_FILE
        if whole.is_file() and not path.is_file():
            whole.rename(path)  # killed between the last two steps of finish
        file = path.open("r+b" if path.is_file() else "w+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise GalleryError(
                f"Another process writes into {self.folder}. Try again when it has finished."
            ) from error
        try:
            self._resume(path)
        except GalleryError:
            file.close()
            raise
        # what a killed block left behind its last whole predecessor
        file.truncate(_HEADER_BYTES + self._num_bytes())
        file.seek(0, os.SEEK_END)
        return file

    def _resume(self, part: Path) -> None:
        """Take up the state of a killed build, or begin one."""
        state = self.folder / _BUILDING_FILE
        if not state.is_file():
            self._state = {"blocks": 0, "rows": 0, "dimensions": None, "excluded": []}
            self._remember()
            return
        content = json.loads(state.read_text(encoding="utf-8"))
        if content["plan"] != self._plan:
            differing = sorted(k for k, v in self._plan.items() if content["plan"].get(k) != v)
            raise GalleryError(
                f"{self.folder} holds the beginning of another gallery: {', '.join(differing)} "
                "differ. Choose another folder, or delete this one."
            )
        self._state = {key: value for key, value in content.items() if key != "plan"}
        if part.stat().st_size < _HEADER_BYTES + self._num_bytes():
            raise GalleryError(f"{part} is shorter than {state} says. Delete {self.folder}.")

    def _remember(self) -> None:
        with atomic.replacing(self.folder / _BUILDING_FILE) as temporary:
            temporary.write_text(json.dumps({"plan": self._plan, **self._state}), encoding="utf-8")

    def _num_bytes(self) -> int:
        width = (self._state["dimensions"] or 0) * np.dtype(self.index.dtype).itemsize
        return int(self._state["rows"]) * width

    def _header(self) -> bytes:
        """The first bytes of a .npy file of all rows."""
        import io

        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer,
            {
                "descr": np.dtype(self.index.dtype).str,
                "fortran_order": False,
                "shape": (self._state["rows"], self._state["dimensions"]),
            },
        )
        header = buffer.getvalue()
        if len(header) != _HEADER_BYTES:
            raise GalleryError(f"The header of {DESCRIPTORS_FILE} has {len(header)} bytes.")
        return header


def _plan_of(index: Index, tiles: pd.DataFrame, block_tiles: int) -> dict[str, Any]:
    """What must be the same for a build to go on: all but the scale, which is no work."""
    digest = hashlib.sha256()
    for text in tables.csv_blocks(tiles, [column.name for column in COLUMNS]):
        digest.update(text.encode())
    values = index.to_json()
    values.pop("scale"), values.pop("excluded")
    return {**json.loads(json.dumps(values)), "tiles": digest.hexdigest(), "block": block_tiles}


def _without(tiles: pd.DataFrame, excluded: Sequence[Excluded]) -> pd.DataFrame:
    if not excluded:
        return tiles
    return tiles[~tiles["tile_id"].isin([one.tile_id for one in excluded])]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
