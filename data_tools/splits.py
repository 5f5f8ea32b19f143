"""Train, val and test divided on the ground, with a buffer so that neighbours do not leak.

Views that see the same house must not stand in two splits, or a model is tested on what it was
trained on. So whole cells, towns or polygons go to one split, and at the borders between splits
views are taken out until those that remain are at least a buffer apart: they get no split, an empty
cell in `views.csv`. The smaller split keeps its views, the larger one gives way. A station is never
divided. Where satellite tiles are used too, a buffer as wide as a tile keeps them apart as well.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossview.errors import ManifestError
from crossview.manifest import Manifest
from crossview.tiles import EARTH_RADIUS_M, ECCENTRICITY_SQUARED

DEFAULT_SHARES: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
DEFAULT_CELL_M = 500.0
DEFAULT_BUFFER_M = 50.0

NO_SPLIT = ""
"""Of a view in the buffer, outside of all polygons, or without a position."""

_SHARE_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Division:
    """A manifest with its views divided, and how it went.

    Args:
        manifest: The same dataset; only the split column is new.
        counts: Views by split.
        num_buffered: Views that gave way to those of another split.
        num_left_out: Views outside of everything that was asked for.
        num_unplaced: Views without a position.
    """

    manifest: Manifest
    counts: dict[str, int]
    num_buffered: int
    num_left_out: int
    num_unplaced: int

    @property
    def shares(self) -> dict[str, float]:
        """Of the views that have a split."""
        total = sum(self.counts.values())
        return {split: count / total for split, count in self.counts.items()}


def by_cells(
    manifest: Manifest,
    shares: Mapping[str, float] = DEFAULT_SHARES,
    *,
    cell_m: float = DEFAULT_CELL_M,
    buffer_m: float = DEFAULT_BUFFER_M,
    seed: int = 0,
) -> Division:
    """Square cells of each region's frame go to splits by lot.

    Args:
        manifest: The dataset.
        shares: What part of the views each split wants; they add to 1.
        cell_m: Side of a cell, several times the buffer.
        buffer_m: No two views of different splits are nearer than this.
        seed: Of the lot; the order of the rows does not matter.

    Raises:
        ValueError: The numbers make no sense.
        ManifestError: A split gets no views.
    """
    if not cell_m > 0 or cell_m <= 2 * buffer_m:
        raise ValueError(
            f"cell_m must be more than twice buffer_m, or the buffer takes whole cells; got "
            f"{cell_m} and {buffer_m}."
        )
    views = _Views(manifest)
    row, col = np.floor(views.y_m / cell_m), np.floor(views.x_m / cell_m)
    units = [
        f"{region} {c:.0f} {r:.0f}" for region, c, r in zip(views.region, col, row, strict=True)
    ]
    return views.divided(_by_lot(units, shares, seed), shares, buffer_m)


def by_regions(
    manifest: Manifest,
    shares: Mapping[str, float] = DEFAULT_SHARES,
    *,
    buffer_m: float = DEFAULT_BUFFER_M,
    seed: int = 0,
) -> Division:
    """Whole regions (towns) go to splits by lot; arguments as in by_cells."""
    views = _Views(manifest)
    return views.divided(_by_lot(views.region, shares, seed), shares, buffer_m)


def by_named_regions(
    manifest: Manifest,
    split_of: Mapping[str, str],
    *,
    rest: str = NO_SPLIT,
    buffer_m: float = DEFAULT_BUFFER_M,
) -> Division:
    """Each region (town) goes to the split that is said.

    Args:
        manifest: The dataset.
        split_of: Split by the name of a region.
        rest: Split of all other regions.
        buffer_m: As in by_cells.

    Raises:
        ManifestError: There is no such region, or a split gets no views.
    """
    known = set(manifest.regions["name"])
    if unknown := sorted(set(split_of) - known):
        raise ManifestError(f"There is no region {unknown[0]!r}; there are {sorted(known)}.")
    views = _Views(manifest)
    split = np.array([split_of.get(region, rest) for region in views.region], dtype=object)
    return views.divided(split, dict.fromkeys([*split_of.values(), rest]), buffer_m)


def by_polygons(
    manifest: Manifest,
    polygons: str | Path,
    *,
    rest: str = NO_SPLIT,
    buffer_m: float = DEFAULT_BUFFER_M,
) -> Division:
    """Views go to the split of the polygon that they stand in.

    Args:
        manifest: The dataset.
        polygons: A GeoJSON file: polygons in longitude and latitude, each with a property `split`.
        rest: Split of all other views.
        buffer_m: As in by_cells.

    Raises:
        ManifestError: The file is none of that, polygons of two splits hold the same view, or a
            split gets no views.
    """
    import shapely

    shapes = _polygons(Path(polygons))
    views = _Views(manifest)
    split = np.full(len(views.region), rest, dtype=object)
    is_owned = np.zeros(len(split), dtype=bool)
    for name, shape in shapes:
        shapely.prepare(shape)
        inside = shapely.contains_xy(shape, views.lon_deg, views.lat_deg)
        for i in np.flatnonzero(inside & is_owned & (split != name)):
            raise ManifestError(
                f"View {views.view_id[i]!r} is in polygons of {split[i]!r} and of {name!r} in "
                f"{polygons}. Cut them so that they do not overlap."
            )
        split[inside], is_owned[inside] = name, True
    return views.divided(split, dict.fromkeys([*(name for name, _ in shapes), rest]), buffer_m)


class _Views:
    """The views that have a position."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        views = manifest.views
        self.placed = np.flatnonzero(views["lat_deg"].notna())
        if not self.placed.size:
            raise ManifestError(f"{manifest.name} has no views with a position to divide.")
        self.view_id, self.region, self.lat_deg, self.lon_deg, station_id = (
            views[name].to_numpy()[self.placed]
            for name in ("view_id", "region", "lat_deg", "lon_deg", "station_id")
        )
        # views of one station share a fate
        names = np.where(station_id == "", self.view_id, station_id)
        self.station = np.unique(names.astype(str), return_inverse=True)[1]
        self.x_m, self.y_m = np.empty(self.placed.size), np.empty(self.placed.size)
        for region in set(self.region.tolist()):
            rows = self.region == region
            to_local = manifest.frame(region).to_local
            self.x_m[rows], self.y_m[rows] = to_local(self.lat_deg[rows], self.lon_deg[rows])

    def divided(self, split: np.ndarray, wanted: Mapping[str, Any], buffer_m: float) -> Division:
        """The manifest with a split for each view, less those in the buffer."""
        if not 0 <= buffer_m < math.inf:
            raise ValueError(f"buffer_m must be 0 or more metres, got {buffer_m}.")
        split = self._by_station(split)
        kept = _apart(self._positions_m(), split, self.station, buffer_m)
        column = np.full(len(self.manifest.views), NO_SPLIT, dtype=object)
        column[self.placed[kept]] = split[kept]
        counts = {name: int((column == name).sum()) for name in wanted if name != NO_SPLIT}
        empty = [name for name, count in counts.items() if not count]
        if empty:
            raise ManifestError(
                f"No view is left for the split {empty[0]!r}: {counts}. Take smaller cells, a "
                f"narrower buffer (it is {buffer_m:g} m), another seed, or other places."
            )
        return Division(
            manifest=replace(self.manifest, views=self.manifest.views.assign(split=column)),
            counts=counts,
            num_buffered=int(((split != NO_SPLIT) & ~kept).sum()),
            num_left_out=int((split == NO_SPLIT).sum()),
            num_unplaced=len(column) - self.placed.size,
        )

    def _by_station(self, split: np.ndarray) -> np.ndarray:
        """Every view of a station gets the split of the one whose name comes first."""
        order = np.lexsort((self.view_id.astype(str), self.station))
        first = order[np.unique(self.station[order], return_index=True)[1]]
        return split[first][self.station]

    def _positions_m(self) -> np.ndarray:
        """(N, 3), from the Earth's centre: chords are no longer than ways on the ground."""
        lat_rad, lon_rad = np.deg2rad(self.lat_deg), np.deg2rad(self.lon_deg)
        radius_m = EARTH_RADIUS_M / np.sqrt(1 - ECCENTRICITY_SQUARED * np.sin(lat_rad) ** 2)
        return np.stack(
            [
                radius_m * np.cos(lat_rad) * np.cos(lon_rad),
                radius_m * np.cos(lat_rad) * np.sin(lon_rad),
                radius_m * (1 - ECCENTRICITY_SQUARED) * np.sin(lat_rad),
            ],
            axis=1,
        )


def _by_lot(units: Iterable[str], shares: Mapping[str, float], seed: int) -> np.ndarray:
    """A split for each view: units in a random order, each to the split that lacks most."""
    is_whole = abs(sum(shares.values()) - 1) <= _SHARE_TOLERANCE
    if not (is_whole and all(share > 0 for share in shares.values())):
        raise ValueError(f"Shares must be above 0 and add to 1, got {dict(shares)}.")
    if NO_SPLIT in shares:
        raise ValueError("A split needs a name.")
    names, unit = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    if len(names) < len(shares):
        raise ManifestError(
            f"The views lie in {len(names)} cells or regions, which cannot be divided into "
            f"{len(shares)} splits: {', '.join(shares)}. Take smaller cells."
        )
    num_views = np.bincount(unit)
    lacking = len(unit) * np.array(list(shares.values()))
    split_of_unit = np.empty(len(names), dtype=int)
    for chosen in np.random.default_rng(seed).permutation(len(names)):
        split_of_unit[chosen] = np.argmax(lacking)
        lacking[split_of_unit[chosen]] -= num_views[chosen]
    return np.array(list(shares), dtype=object)[split_of_unit][unit]


def _apart(
    positions_m: np.ndarray, split: np.ndarray, station: np.ndarray, buffer_m: float
) -> np.ndarray:
    """Which views stay, (N,) bool: smaller splits keep theirs, larger ones what is far enough."""
    from scipy.spatial import cKDTree

    names, counts = np.unique(split[split != NO_SPLIT].astype(str), return_counts=True)
    kept = np.zeros(len(split), dtype=bool)
    for name in names[np.argsort(counts, kind="stable")]:
        own = split == name
        if kept.any():
            tree = cKDTree(positions_m[kept])
            # a little more than the buffer: where it is exact, rounding must not decide
            reach_m = np.nextafter(buffer_m, math.inf)
            distance_m, _ = tree.query(positions_m[own], distance_upper_bound=reach_m)
            too_near = np.flatnonzero(own)[distance_m < buffer_m]
            own &= ~np.isin(station, station[too_near])
        kept |= own
    return kept


def _polygons(path: Path) -> list[tuple[str, Any]]:
    """Split and shape of each polygon in a GeoJSON file."""
    from shapely.geometry import shape

    try:
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        found: list[tuple[str, Any]] = [
            (f["properties"]["split"], shape(f["geometry"])) for f in features
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{path} is no GeoJSON of polygons with a property `split` ({error!r})."
        ) from error
    for split, geometry in found:
        if not isinstance(split, str) or not split:
            raise ManifestError(f"{path}: the split of a polygon is {split!r}; expected a name.")
        if geometry.geom_type not in ("Polygon", "MultiPolygon") or not geometry.is_valid:
            raise ManifestError(
                f"{path}: the {geometry.geom_type} of split {split!r} is no valid polygon."
            )
    if not found:
        raise ManifestError(f"{path} has no polygons.")
    return found
