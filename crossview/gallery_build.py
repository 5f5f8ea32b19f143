"""Building a gallery: every satellite tile of a manifest's region, described by an encoder."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import angles, photos
from crossview.errors import GalleryError, ManifestError, PhotoError
from crossview.gallery import Encoder, Gallery, require_headings
from crossview.gallery_files import BLOCK_TILES, Excluded, GalleryWriter, Index, Model
from crossview.manifest import Manifest
from crossview.pairs import SAME_FOOTPRINT, cut, tile_side_m

if TYPE_CHECKING:
    import pandas as pd

BATCH_TILES = 32
"""Tiles that are in memory at once, twice: one batch is read while another is described."""

MAX_TURN_DEG = 2.0
"""Tiles whose upper edge is off the frame's north by more are not north-up."""

SIMILAR_FOOTPRINT = 1.1
"""How many times as wide tiles may be as those that an encoder was trained on, without a word."""

READERS = 2
"""Threads that decode images."""

Progress = Callable[[Iterable[Any], int], Iterable[Any]]
"""Passes items on and says how far it is: of items and their number."""

_log = logging.getLogger(__name__)


def build(
    manifest: Manifest,
    encoder: Encoder,
    folder: str | os.PathLike[str],
    *,
    region: str | None = None,
    num_headings: int = 1,
    dtype: str = "float32",
    block_tiles: int = BLOCK_TILES,
    progress: Progress | None = None,
) -> Gallery:
    """Describe all tiles of a region; a build that was killed goes on with the block it was at.

    Tiles that are larger than the encoder is for are cut to its footprint_m, as in training. A tile
    whose image cannot be read, or is not square or not as large on the ground as the others, gets
    no descriptor: it is in Gallery.excluded with the reason.

    Args:
        manifest: The dataset.
        encoder: What describes them; its scale, if it has one, becomes the gallery's.
        folder: Of the gallery: new, or one whose build was interrupted.
        region: Of the manifest; may be left out where only one has tiles.
        num_headings: Descriptors that a query will have, see Gallery.
        dtype: Of the descriptors on disk, float32 or float16.
        block_tiles: Tiles between two states that a killed build can resume from.
        progress: Says how far it is.

    Raises:
        GalleryError: The tiles are no gallery or smaller than the encoder is for, it cannot be
            asked for several headings, or the folder holds another gallery.
        ManifestError: There is no such region.
    """
    require_headings(encoder, num_headings)
    folder = Path(folder)
    region = region or _only_region(manifest)
    frame = manifest.frame(region)
    rows = manifest.tiles[manifest.tiles["region"] == region]
    if rows.empty:
        raise GalleryError(f"The region {region!r} has no tiles in tiles.csv.")
    x_m, y_m = frame.to_local(rows["lat_deg"].to_numpy(), rows["lon_deg"].to_numpy())
    turn_deg = rows["rotation_deg"].fillna(0.0).to_numpy() - frame.convergence_deg(x_m, y_m)
    _require_north_up(rows["tile_id"].tolist(), turn_deg)
    cell_m = dict(zip(rows["tile_id"], rows["cell_m"], strict=True))
    reader = _Reader(manifest, cell_m, encoder.preprocessing.footprint_m)
    _compare(reader.footprint_m, getattr(encoder, "tile_side_m", None))
    index = Index(
        frame=frame,
        footprint_m=reader.footprint_m,
        model=Model.of(encoder),
        num_headings=num_headings,
        scale=getattr(encoder, "scale", None),
        dtype=dtype,
        name=f"{manifest.name} {region}".strip(),
        attribution=manifest.attribution,
        image_root=os.path.relpath(manifest.image_folder.resolve(), folder.resolve()),
    )
    tiles = rows[["tile_id", "image"]].assign(x_m=x_m, y_m=y_m)
    with GalleryWriter(folder, index, tiles, block_tiles=block_tiles) as writer:
        if writer.num_done:
            _log.warning("%s: %d of %d tiles are done.", folder, writer.num_done, len(tiles))
        num_left = math.ceil((len(tiles) - writer.num_done) / block_tiles)
        blocks: Iterable[pd.DataFrame] = writer.blocks()
        with ThreadPoolExecutor(READERS) as pool:
            for block in blocks if progress is None else progress(blocks, num_left):
                writer.write(block, *_described(block["tile_id"].tolist(), encoder, reader, pool))
        writer.finish()
    return Gallery.load(folder, encoder)


def _described(
    tile_ids: Sequence[str], encoder: Encoder, reader: _Reader, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, list[Excluded]]:
    """Descriptors of the tiles that can be read, (n, D), and the others."""
    parts: list[np.ndarray] = []
    excluded: list[Excluded] = []
    for read in _batches(tile_ids, reader, pool):
        excluded += [one for one in read if isinstance(one, Excluded)]
        images = [one for one in read if not isinstance(one, Excluded)]
        if images:
            parts.append(np.asarray(encoder.describe_tiles(images)))
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32), excluded


def _batches(
    tile_ids: Sequence[str], reader: _Reader, pool: ThreadPoolExecutor
) -> Iterator[list[np.ndarray | Excluded]]:
    """Images batch by batch; the next ones are read while one is described."""
    waiting: list[Future[np.ndarray | Excluded]] = []
    for first in range(0, len(tile_ids) + BATCH_TILES, BATCH_TILES):
        following = [pool.submit(reader, one) for one in tile_ids[first : first + BATCH_TILES]]
        yield [future.result() for future in waiting]
        waiting = following


class _Reader:
    """Reads tiles of one size on the ground, or the middles of larger ones.

    Args:
        manifest: The dataset.
        cell_m: Of the pixels of tiles, by name.
        wanted_m: Side that an encoder is for; None where it may be any.

    Raises:
        GalleryError: No tile can be read, or all are smaller than what is wanted.
    """

    def __init__(
        self, manifest: Manifest, cell_m: dict[str, float], wanted_m: float | None
    ) -> None:
        self._manifest = manifest
        self._cell_m = cell_m
        self._wanted_m = wanted_m
        self.footprint_m = self._side_m()

    def __call__(self, tile_id: str) -> np.ndarray | Excluded:
        """The pixels of a tile, (side, side, 3) uint8 RGB, or why there are none."""
        try:
            image = photos.read_pixels(self._manifest.image_path("tiles", tile_id))
        except (PhotoError, ManifestError) as error:
            return Excluded(tile_id, str(error))
        height_px, width_px = image.shape[:2]
        if height_px != width_px:
            return Excluded(tile_id, f"It has {width_px} x {height_px} pixels and is not square.")
        cell_m = self._cell_m[tile_id]
        with contextlib.suppress(ManifestError):  # too small, as is said below
            image = cut(image, cell_m, self._wanted_m)
        side_m = len(image) * cell_m
        if abs(side_m / self.footprint_m - 1) > SAME_FOOTPRINT:
            return Excluded(
                tile_id, f"Its side is {side_m:.1f} m and that of others {self.footprint_m:.1f} m."
            )
        return image

    def _side_m(self) -> float:
        """Side on the ground of what is seen of the first tile that can be read and is no smaller.

        Raises:
            GalleryError: There is none.
        """
        too_small = None
        for tile_id, cell_m in self._cell_m.items():
            try:
                side_m = tile_side_m(self._manifest, tile_id)
            except (PhotoError, ManifestError):
                continue
            if self._wanted_m is None:
                return side_m
            if side_m >= self._wanted_m * (1 - SAME_FOOTPRINT):
                return min(side_m, round(self._wanted_m / cell_m) * cell_m)
            too_small = too_small or (
                f"The tile {tile_id} is {side_m:.1f} m wide and the encoder is for tiles of "
                f"{self._wanted_m:.1f} m, as all others. Cut tiles of that size or larger ones, or "
                "train an encoder on yours."
            )
        raise GalleryError(
            too_small
            or f"None of the {len(self._cell_m)} images of tiles can be read. Check the image_root "
            "of the manifest: crossview-data check lists what is wrong."
        )


def _compare(footprint_m: float, trained_m: tuple[float, float] | None) -> None:
    """Warn where an encoder was trained on tiles of quite another size."""
    if trained_m is None:
        return
    least_m, largest_m = trained_m
    if not least_m / SIMILAR_FOOTPRINT <= footprint_m <= largest_m * SIMILAR_FOOTPRINT:
        _log.warning(
            "The tiles are %.1f m wide, and the encoder was trained on tiles of %.1f to %.1f m: it "
            "knows places by their size too. Cut tiles of that size, or train an encoder on yours.",
            footprint_m, least_m, largest_m,
        )  # fmt: skip


def _only_region(manifest: Manifest) -> str:
    regions = sorted(set(manifest.tiles["region"]))
    if len(regions) != 1:
        raise GalleryError(
            f"A gallery is of one region and the manifest has tiles in {', '.join(regions)}. Give "
            "one (--region)."
            if regions
            else "The manifest has no tiles: tiles.csv is empty."
        )
    return regions[0]


def _require_north_up(tile_ids: Sequence[str], turn_deg: np.ndarray) -> None:
    turn_deg = angles.difference_deg(turn_deg, 0.0)
    turned = np.flatnonzero(np.abs(turn_deg) > MAX_TURN_DEG)
    if turned.size:
        worst = int(turned[np.argmax(np.abs(turn_deg[turned]))])
        raise GalleryError(
            f"{turned.size} of {len(tile_ids)} tiles are not north-up: {tile_ids[worst]} is turned "
            f"by {turn_deg[worst]:.1f} degrees, and at most {MAX_TURN_DEG:.0f} are taken as none. "
            "Cut them north-up (crossview-data satellite)."
        )
