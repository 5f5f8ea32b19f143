"""What a manifest holds, in a few numbers: counts, extent, dates, splits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.tiles import GeoBounds

if TYPE_CHECKING:
    from crossview.manifest import Manifest

NO_SPLIT = "(none)"
"""How views that belong to no split are counted."""


@dataclass(frozen=True)
class Summary:
    """What a manifest holds.

    Args:
        name: Of the dataset.
        licence: Of its images.
        attribution: What must be said where results are shown.
        image_folder: Where its image paths begin.
        counts: Rows by table, and "stations".
        kinds: Views by kind.
        splits: Views by split, with NO_SPLIT for those in none.
        placed: Views with a position, and with a heading from true north.
        extent: By region, the box of its views and tiles in degrees; a region without any is left
            out. A box across the antimeridian has its east beyond 180.
        first: Time of the earliest view, ISO 8601 in UTC, or "".
        last: Time of the latest view.
        tile_dates: The earliest and the latest date of tiles as written, or two "".
        providers: Tiles by provider.
    """

    name: str
    licence: str
    attribution: str
    image_folder: str
    counts: dict[str, int]
    kinds: dict[str, int]
    splits: dict[str, int]
    placed: dict[str, int]
    extent: dict[str, GeoBounds]
    first: str
    last: str
    tile_dates: tuple[str, str]
    providers: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "extent": {k: box._asdict() for k, box in self.extent.items()}}

    def lines(self) -> list[str]:
        """The same for people: a word and its value on each line."""
        named = {
            "name": self.name,
            "licence": self.licence,
            "attribution": self.attribution,
            "images": self.image_folder,
            **{table: str(count) for table, count in self.counts.items()},
            "kinds": _counted(self.kinds),
            "placed": _counted(self.placed),
            "splits": _counted(self.splits),
            "times": f"{self.first} to {self.last}" if self.first else "",
            "providers": _counted(self.providers),
            "dates": " to ".join(dict.fromkeys(self.tile_dates)),
        }
        boxes = [
            f"{'extent':<12}{region}: {box.south:.5f} to {box.north:.5f} N, "
            f"{box.west:.5f} to {box.east:.5f} E"
            for region, box in self.extent.items()
        ]
        return [f"{word:<12}{value}" for word, value in named.items() if value] + boxes


def summary(manifest: Manifest) -> Summary:
    """Count a manifest's rows; its images are not opened."""
    views, tiles = manifest.views, manifest.tiles
    first, last = _times(views["time_utc"].unique().tolist())
    dates = sorted(filter(None, tiles["date"].unique().tolist()))
    return Summary(
        name=manifest.name,
        licence=manifest.licence,
        attribution=manifest.attribution,
        image_folder=str(manifest.image_folder),
        counts={
            **{table: len(getattr(manifest, table)) for table in manifest.TABLES},
            "stations": manifest.num_stations,
        },
        kinds=_count(views["kind"]),
        splits=_count(views["split"].replace("", NO_SPLIT)),
        placed={
            "position": int(views["lat_deg"].notna().sum()),
            "heading": int(views["heading_deg"].notna().sum()),
            "magnetic heading": int(views["magnetic_heading_deg"].notna().sum()),
        },
        extent=_extent(manifest),
        first=first,
        last=last,
        tile_dates=(dates[0], dates[-1]) if dates else ("", ""),
        providers=_count(tiles["provider"][tiles["provider"] != ""]),
    )


def _count(column: Any) -> dict[str, int]:
    return {str(value): int(count) for value, count in column.value_counts().sort_index().items()}


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _times(texts: list[str]) -> tuple[str, str]:
    times = [datetime.fromisoformat(text).astimezone(UTC) for text in texts if text]
    if not times:
        return "", ""
    earliest, latest = (
        moment.isoformat().replace("+00:00", "Z") for moment in (min(times), max(times))
    )
    return earliest, latest


def _extent(manifest: Manifest) -> dict[str, GeoBounds]:
    """By region; a region is small, so a wide box means that it crosses the antimeridian."""
    boxes = {}
    for region in manifest.regions["name"].tolist():
        tables = [table[table["region"] == region] for table in (manifest.views, manifest.tiles)]
        lat_deg, lon_deg = (
            np.concatenate([table[name].to_numpy() for table in tables])
            for name in ("lat_deg", "lon_deg")
        )
        lat_deg, lon_deg = lat_deg[~np.isnan(lat_deg)], lon_deg[~np.isnan(lon_deg)]
        if lat_deg.size:
            if np.ptp(lon_deg) > 180:
                lon_deg = lon_deg % 360
            boxes[region] = GeoBounds(
                *map(float, (lon_deg.min(), lat_deg.min(), lon_deg.max(), lat_deg.max()))
            )
    return boxes
