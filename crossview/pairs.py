"""Pairs of a prepared dataset: which view belongs to which tile, and what a camera sees of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossview.errors import ManifestError, PhotoError, TileError
from crossview.manifest import Manifest
from crossview.photos import read_tags
from crossview.preprocessing import Preprocessing

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

POSITIVE, SEMIPOSITIVE = "positive", "semipositive"
"""The relation of a view to the tile that is its own, and to others that show its place."""

TRAIN, VAL = "train", "val"
"""Splits to train on and to validate on."""

SAME_FOOTPRINT = 0.01
"""Share by which a tile's side may be short of what an encoder looks at."""

REGIONS_APART_M = 100_000.0
"""Between the frames of two regions, so that places of different regions are never neighbours."""


def ground_image(
    manifest: Manifest, view_id: str, tile_id: str, preprocessing: Preprocessing
) -> np.ndarray:
    """What a network may see of a view, its heading counted from the upper edge of a tile.

    Returns:
        (rows, cols, 3) uint8, a full turn whose middle looks to the tile's upper edge, which may
        be turned and of which preprocessing.middle_of is seen; of a photo and an encoder with a
        limited field of view only what the encoder sees, whatever the heading.
    """
    view, row = manifest.view(view_id), manifest.row("views", view_id)
    if not preprocessing.is_full_turn and is_photo(manifest, view_id):
        return preprocessing.ground(view)
    rotation_deg = manifest.row("tiles", tile_id)["rotation_deg"]
    turn_deg = float(np.nan_to_num(row["heading_deg"]) - np.nan_to_num(rotation_deg))
    return preprocessing.whole.ground(view, heading_deg=turn_deg)


def is_photo(manifest: Manifest, view_id: str) -> bool:
    """Whether a view is a photo, which sees a part of the turn, and no panorama."""
    return bool(manifest.row("views", view_id)["kind"] == "photo")


def overhead_image(
    manifest: Manifest,
    tile_id: str,
    preprocessing: Preprocessing,
    *,
    shift_m: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """What a network sees of a tile; larger ones are cut to preprocessing.footprint_m.

    Returns:
        (rows, cols, 3) uint8, as preprocessing says.

    Raises:
        TileError: The tile is not square, or too small.
    """
    tile, cell_m = manifest.tile_pixels(tile_id), float(manifest.row("tiles", tile_id)["cell_m"])
    try:
        return preprocessing.overhead(cut(tile, cell_m, preprocessing.footprint_m, shift_m=shift_m))
    except ValueError as error:
        raise TileError(f"Tile {tile_id}: {error}") from error


def cut(
    tile: np.ndarray,
    cell_m: float,
    footprint_m: float | None,
    *,
    shift_m: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """A square part of a tile, to the next pixel.

    Args:
        tile: (side, side, 3), north-up.
        cell_m: Of its pixels.
        footprint_m: Side of the part; None for all of it. A tile whose side is short of it by no
            more than SAME_FOOTPRINT is taken whole.
        shift_m: East and north from the tile's middle to the part's.

    Raises:
        ManifestError: The part reaches beyond the tile.
    """
    if footprint_m is None:
        return tile
    side = round(footprint_m / cell_m)
    if len(tile) >= side * (1 - SAME_FOOTPRINT):
        side = min(side, len(tile))
    east, north = (round(length_m / cell_m) for length_m in shift_m)
    top, left = (len(tile) - side) // 2 - north, (len(tile) - side) // 2 + east
    if not (0 <= top <= len(tile) - side and 0 <= left <= len(tile) - side):
        raise ManifestError(
            f"A tile of {len(tile) * cell_m:g} m does not hold a square of {footprint_m:g} m that "
            f"is {shift_m[0]:g} m east and {shift_m[1]:g} m north of its middle. Make larger tiles "
            "(--tile-px), or shift less."
        )
    return tile[top : top + side, left : left + side]


def tile_side_m(manifest: Manifest, tile_id: str) -> float:
    """Side of a tile on the ground; its pixels are not read."""
    tags = read_tags(manifest.image_path("tiles", tile_id), ignore_gps=True)
    return tags.width_px * float(manifest.row("tiles", tile_id)["cell_m"])


def tile_sides_m(manifest: Manifest, tile_ids: Sequence[str]) -> tuple[float, float]:
    """The least and the largest side on the ground of the first tiles of every region.

    Raises:
        ManifestError: None of the tiles can be read.
    """
    regions = manifest.tiles.set_index("tile_id")["region"].loc[list(tile_ids)]
    side_m: dict[str, float] = {}
    for tile_id, region in regions.items():
        if region not in side_m:
            with contextlib.suppress(PhotoError, ManifestError):  # the next one will do
                side_m[region] = tile_side_m(manifest, str(tile_id))
    if not side_m:
        raise ManifestError(
            f"No tile of {manifest.name} can be read. `crossview-data check` lists what is wrong."
        )
    return min(side_m.values()), max(side_m.values())


def positions_m(manifest: Manifest, rows: pd.DataFrame) -> np.ndarray:
    """Where rows of views or tiles are, (rows, 2) float64; regions lie REGIONS_APART_M apart."""
    position_m = np.empty((len(rows), 2))
    for number, region in enumerate(manifest.regions["name"]):
        here = np.flatnonzero((rows["region"] == region).to_numpy())
        lat_deg, lon_deg = (rows[name].to_numpy()[here] for name in ("lat_deg", "lon_deg"))
        x_m, y_m = manifest.frame(region).to_local(lat_deg, lon_deg)
        position_m[here] = np.column_stack([x_m + number * REGIONS_APART_M, y_m])
    return position_m


@dataclass(frozen=True, eq=False)
class PairTable:
    """Which view belongs to which tile, and where it was taken.

    Args:
        view_ids: Of the pairs.
        tile_ids: Of the pairs.
        position_m: (pairs, 2) float64 of the views, see positions_m.
        tile_position_m: (pairs, 2) float64 of the middles of the tiles, likewise.
        semipositive_ids: Of each pair, tiles that show the view's place without being its own.
        has_ground: (pairs,) bool, False where the view is not to be looked at: its tile is a
            negative of others only (Xia et al., 2020).
    """

    view_ids: tuple[str, ...]
    tile_ids: tuple[str, ...]
    position_m: np.ndarray
    tile_position_m: np.ndarray
    semipositive_ids: tuple[tuple[str, ...], ...]
    has_ground: np.ndarray

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        *,
        split: str | None = None,
        unseen: Sequence[str] = (),
        needs_heading: bool = False,
    ) -> PairTable:
        """The positive pairs of a dataset, those of one split if it has any.

        Args:
            manifest: The dataset.
            split: Only pairs of this split; "" are those of none.
            unseen: Splits whose pairs are there too, without their ground images.
            needs_heading: Leave out, and count in the log, views whose heading nobody knows.

        Raises:
            ManifestError: There are none.
        """
        if split in unseen:
            raise ManifestError(f"The split {split!r} cannot be both seen and unseen.")
        views = manifest.views.set_index("view_id")
        pairs = manifest.pairs[manifest.pairs["relation"] == POSITIVE]
        of_pairs = views.loc[pairs["view_id"]]
        is_unseen = of_pairs["split"].isin(list(unseen)).to_numpy()
        is_seen = ~is_unseen & of_pairs["lat_deg"].notna().to_numpy()
        splits = splits_of(of_pairs)
        wanted = [*unseen, *([split] if split else [])]
        if missing := sorted(set(wanted) - set(splits)):
            raise ManifestError(
                f"{manifest.name} has no pairs of split {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(repr, splits)) or 'no splits'}."
            )
        if split is not None:
            is_seen &= (of_pairs["split"].fillna("") == split).to_numpy()
        if needs_heading:
            has_heading = of_pairs["heading_deg"].notna().to_numpy()
            if num_without := int((is_seen & ~has_heading).sum()):
                first = of_pairs.index[is_seen & ~has_heading][0]
                logger.warning(
                    "%d views without a heading are left out, such as %s. "
                    "--heading-spread-deg 180 takes them.", num_without, first,
                )  # fmt: skip
            is_seen &= has_heading
        if not is_seen.any():
            which = "" if split is None else f" of split {split!r}"
            what = "a position and a heading" if needs_heading else "a position"
            raise ManifestError(
                f"{manifest.name} has no pairs{which} of a view with {what} and a "
                f"{POSITIVE!r} tile: make them with `crossview synthesize --tiles centered` or "
                "`crossview-data satellite --points`."
            )
        is_used = is_seen | (is_unseen & of_pairs["lat_deg"].notna().to_numpy())
        pairs, of_pairs = pairs[is_used], of_pairs[is_used]
        others: dict[str, list[str]] = {view_id: [] for view_id in pairs["view_id"]}
        of_others = manifest.pairs[manifest.pairs["relation"] == SEMIPOSITIVE]
        for view_id, tile_id in zip(of_others["view_id"], of_others["tile_id"], strict=True):
            if view_id in others:
                others[view_id].append(tile_id)
        return cls(
            tuple(pairs["view_id"]),
            tuple(pairs["tile_id"]),
            positions_m(manifest, of_pairs),
            positions_m(manifest, manifest.tiles.set_index("tile_id").loc[pairs["tile_id"]]),
            tuple(tuple(others[view_id]) for view_id in pairs["view_id"]),
            is_seen[is_used],
        )

    @staticmethod
    def training_split(manifest: Manifest, split: str | None) -> str | None:
        """The split to train on: the one that is asked for, else train, else what is in none.

        Raises:
            ManifestError: All views are of splits, but of no train, and none is asked for.
        """
        splits = splits_of(manifest.views)
        if split is not None or not splits:
            return split
        if TRAIN in splits:
            return TRAIN
        if not (manifest.views["split"].fillna("") == "").any():
            raise ManifestError(
                f"{manifest.name} has no split {TRAIN!r}; it has "
                f"{', '.join(map(repr, splits))}: say which one to train on (--split)."
            )
        return ""

    def __len__(self) -> int:
        """Pairs."""
        return len(self.view_ids)

    def only(self, rows: np.ndarray) -> PairTable:
        """Some of the pairs."""
        return PairTable(
            tuple(self.view_ids[row] for row in rows),
            tuple(self.tile_ids[row] for row in rows),
            self.position_m[rows],
            self.tile_position_m[rows],
            tuple(self.semipositive_ids[row] for row in rows),
            self.has_ground[rows],
        )

    def shown(self) -> np.ndarray:
        """(pairs, any) numbers of all tiles that show a pair's place, -1 for none."""
        shown = [
            (own, *others) for own, others in zip(self.tile_ids, self.semipositive_ids, strict=True)
        ]
        numbers = {
            tile_id: k for k, tile_id in enumerate(sorted({t for one in shown for t in one}))
        }
        table = np.full((len(shown), max(map(len, shown))), -1)
        for row, tiles in zip(table, shown, strict=True):
            row[: len(tiles)] = [numbers[tile_id] for tile_id in tiles]
        return table


def splits_of(views: pd.DataFrame) -> list[str]:
    """The names of the splits of a table of views, sorted."""
    return sorted({name for name in views["split"] if isinstance(name, str) and name})


def offset_m(
    manifest: Manifest, tile_id: str, view_id: str, *, shift_m: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """How far a camera is south and west of the middle of (a part of) a tile, (2,) metres.

    Args:
        manifest: Of both, in one region.
        tile_id: Of the tile; south is towards its lower edge.
        view_id: Of what the camera took.
        shift_m: From the tile's middle to that of its part, as `cut` takes it.
    """
    tile, view = manifest.row("tiles", tile_id), manifest.row("views", view_id)
    x_m, y_m = manifest.frame(str(tile["region"])).to_local(
        np.array([view["lat_deg"], tile["lat_deg"]]), np.array([view["lon_deg"], tile["lon_deg"]])
    )
    cos, sin = _axes(manifest, tile_id)
    east_m, north_m = x_m[0] - x_m[1], y_m[0] - y_m[1]
    right_m, up_m = east_m * cos - north_m * sin, east_m * sin + north_m * cos
    return np.array([shift_m[1] - up_m, shift_m[0] - right_m])


def east_north_m(manifest: Manifest, tile_id: str, offset_m: np.ndarray) -> np.ndarray:
    """From the middle of a tile to a place, (2,) metres in its region's frame; of offset_m there.

    Inverse of offset_m, without a shift.
    """
    cos, sin = _axes(manifest, tile_id)
    up_m, right_m = -np.asarray(offset_m)
    return np.array([right_m * cos + up_m * sin, up_m * cos - right_m * sin])


def _axes(manifest: Manifest, tile_id: str) -> tuple[float, float]:
    """Cosine and sine of where a tile's upper edge points, clockwise from its frame's north."""
    tile = manifest.row("tiles", tile_id)
    frame = manifest.frame(str(tile["region"]))
    place_m = frame.to_local(float(tile["lat_deg"]), float(tile["lon_deg"]))
    turn_deg = np.nan_to_num(float(tile["rotation_deg"])) - frame.convergence_deg(*place_m)
    return float(np.cos(np.deg2rad(turn_deg))), float(np.sin(np.deg2rad(turn_deg)))
