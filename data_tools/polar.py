"""Polar tiles as files: for the tiles of a manifest, or for every image below a folder.

A file has the modification time of the image that it was made of: one that has is not made again,
and so a build that was killed goes on where it was.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from crossview import atomic, photos
from crossview.errors import DatasetError
from crossview.polar import RESCALES, polar_grid
from crossview.preprocessing import overhead_image
from data_tools.crops import IMAGE_FORMATS
from data_tools.ground_images import PHOTO_SUFFIXES, require_below

if TYPE_CHECKING:
    from crossview.manifest import Manifest

FORM_FILE, INDEX_FILE = "polar.json", "polar.csv"
"""How polar tiles were made, and which: tile, file and, where there is none, why."""

TIME_TOLERANCE_NS = 1_000_000
"""Some file systems round times."""

_HEADING_DECIMALS = 2
"""Of a tile's heading: a table serves all that look the same way."""

_BATCH = 256


@dataclass(frozen=True)
class PolarForm:
    """What polar tiles are made like.

    Args:
        height: Rows.
        width: Columns, 360 degrees.
        heading_deg: Azimuth of the centre column.
        convention: "crossview" averages fine tiles first, as encoders do; "safa" is as published.
        rescale: "minmax" stretches each tile to 0..255, as published.
        image_format: png, or jpg of quality 95.
    """

    height: int = 112
    width: int = 616
    heading_deg: float = 0.0
    convention: str = "crossview"
    rescale: str | None = None
    image_format: str = "png"

    def __post_init__(self) -> None:
        polar_grid(  # checks
            self.height, self.width, 2, heading_deg=self.heading_deg, convention=self.convention
        )
        for name, choices in (("rescale", RESCALES), ("image_format", tuple(IMAGE_FORMATS))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {choices}, got {getattr(self, name)!r}.")

    def of(self, image: np.ndarray, *, rotation_deg: float = 0.0) -> np.ndarray:
        """The polar form of a tile, (height, width, 3) uint8.

        Args:
            image: (size, size, 3) uint8 RGB.
            rotation_deg: Where its upper edge points.
        """
        heading_deg = round(self.heading_deg - rotation_deg, _HEADING_DECIMALS)
        return overhead_image(
            image,
            self.height,
            self.width,
            polar=self.convention,
            heading_deg=heading_deg,
            rescale=self.rescale,
        )


@dataclass(frozen=True)
class SquareTile:
    """A tile to be made polar.

    Args:
        name: Of the tile.
        folder: Where images begin, and which none leaves.
        image: Its path below.
        rotation_deg: Where its upper edge points.
    """

    name: str
    folder: Path
    image: str
    rotation_deg: float = 0.0


@dataclass(frozen=True)
class PolarFile:
    """What became of a tile.

    Args:
        tile: Its name.
        file: Below the folder of polar tiles; "" where none could be made.
        problem: Why, or "".
        is_kept: Whether it was there before.
    """

    tile: str
    file: str = ""
    problem: str = ""
    is_kept: bool = False


def tiles_of(manifest: Manifest) -> list[SquareTile]:
    """The tiles of a manifest.

    Raises:
        DatasetError: It has none.
    """
    columns = (manifest.tiles[name] for name in ("tile_id", "image", "rotation_deg"))
    tiles = [
        SquareTile(name, manifest.image_folder, image, float(np.nan_to_num(rotation_deg)))
        for name, image, rotation_deg in zip(*columns, strict=True)
    ]
    if not tiles:
        raise DatasetError(f"{manifest.name} has no tiles. Name a folder of images instead.")
    return tiles


def tiles_in(folder: Path, *, leaving: Path | None = None) -> list[SquareTile]:
    """The JPEG and PNG files below a folder, north-up, by name; hidden ones are left out.

    Args:
        folder: The folder.
        leaving: A folder below it, by the same path, whose files are none: where polar tiles go.

    Raises:
        DatasetError: There is none.
    """
    names = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in PHOTO_SUFFIXES
        and not path.name.startswith(".")
        and (leaving is None or leaving not in path.parents)
    ]
    if not names:
        raise DatasetError(f"There are no JPEG or PNG files below {folder}.")
    return [SquareTile(name, folder, name) for name in names]


def make_polar_tiles(
    tiles: Sequence[SquareTile], out: Path, form: PolarForm, *, num_threads: int | None = None
) -> Iterator[PolarFile]:
    """Write the polar form of every tile below a folder, under the paths of their images.

    Files appear whole or not at all, and those that are there already are kept. What cannot be
    read or is not square has no file; at the end INDEX_FILE says so.

    Args:
        tiles: Of different images.
        out: The folder, which says in FORM_FILE how its files were made.
        form: What they are like.
        num_threads: By default as many as there are cores.

    Yields:
        Every tile, in order.

    Raises:
        DatasetError: The folder holds polar tiles of another form, or something else.
    """
    files = _files_of(tiles, form)
    _begin(out, form)
    made = []

    def make(both: tuple[SquareTile, str]) -> PolarFile:
        return _made(*both, out, form)

    # decoding, the kernel and encoding leave the interpreter's lock
    with ThreadPoolExecutor(num_threads or os.cpu_count()) as pool:
        waiting = zip(tiles, files, strict=True)
        while batch := list(itertools.islice(waiting, _BATCH)):
            for one in pool.map(make, batch):
                made.append(one)
                yield one
    _write_index(out, made)


def _files_of(tiles: Sequence[SquareTile], form: PolarForm) -> list[str]:
    files = [
        PurePosixPath(tile.image).with_suffix(f".{form.image_format}").as_posix() for tile in tiles
    ]
    (file, count), *_ = Counter(files).most_common(1)
    if count > 1:
        double = [tile.name for tile, other in zip(tiles, files, strict=True) if other == file]
        raise DatasetError(
            f"{count} tiles would be written to {file}: {', '.join(double[:3])}. Give each image a "
            "name of its own, beside its suffix."
        )
    return files


def _begin(out: Path, form: PolarForm) -> None:
    path, wanted = out / FORM_FILE, asdict(form)
    if path.is_file():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DatasetError(f"{path} is no JSON ({error}). Choose another folder.") from error
        if there != wanted:
            raise DatasetError(
                f"{out} has polar tiles of another form: {there}, not {wanted}. Choose another "
                "folder, or delete that one."
            )
    elif out.is_dir() and any(out.iterdir()):
        raise DatasetError(
            f"{out} is not empty and has no {FORM_FILE}. Choose another folder: files of the same "
            "names would be replaced."
        )
    out.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    for left in out.rglob(".*.part*"):  # by a build that was killed
        left.unlink(missing_ok=True)


def _made(tile: SquareTile, file: str, out: Path, form: PolarForm) -> PolarFile:
    from PIL import Image

    source, target = tile.folder / tile.image, out / file
    try:
        require_below(source, tile.folder)
        time_ns = source.stat().st_mtime_ns
        if _has_time(target, time_ns):
            return PolarFile(tile.name, file, is_kept=True)
        polar = form.of(photos.read_pixels(source), rotation_deg=tile.rotation_deg)
    except (ValueError, OSError) as error:  # of reading; writing is outside
        target.unlink(missing_ok=True)  # of an image that was there before
        return PolarFile(tile.name, problem=str(error))
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(target) as temporary:
        Image.fromarray(polar).save(temporary, **IMAGE_FORMATS[form.image_format])
        os.utime(temporary, ns=(time_ns, time_ns))
    return PolarFile(tile.name, file)


def _has_time(path: Path, time_ns: int) -> bool:
    try:
        return abs(path.stat().st_mtime_ns - time_ns) <= TIME_TOLERANCE_NS
    except FileNotFoundError:
        return False


def _write_index(out: Path, made: Iterable[PolarFile]) -> None:
    with (
        atomic.replacing(out / INDEX_FILE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["tile", "file", "problem"])
        writer.writerows([one.tile, one.file, one.problem] for one in made)
