"""Galleries: crops as a manifest, of their own or beside the views that they are for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.errors import DatasetError
from crossview.frames import LocalFrame
from data_tools import crops
from data_tools.crops import WrittenCrop
from data_tools.imagery import Origin
from data_tools.points import Points

if TYPE_CHECKING:
    from crossview.manifest import Manifest


def places_of(views: Manifest) -> tuple[Points, dict[str, LocalFrame], np.ndarray]:
    """Where the stations of a manifest stand: points by station_id, frames by region, and the
    region of each point.

    Raises:
        ValueError: No view has a position.
    """
    rows = [
        (station, views.frame(station.region))
        for station in views.stations()
        if station.truth is not None
    ]
    places = [frame.geo_pose(station.truth) for station, frame in rows if station.truth]
    points = Points(
        np.array([place.lat_deg for place in places]),
        np.array([place.lon_deg for place in places]),
        tuple(station.station_id for station, _ in rows),
    )
    frames = {station.region: frame for station, frame in rows}
    return points, frames, np.array([station.region for station, _ in rows])


def save_gallery(
    written: Sequence[WrittenCrop],
    origin: Origin,
    frames: Mapping[str, LocalFrame],
    crops_folder: Path,
    folder: Path,
    *,
    name: str,
) -> Manifest:
    """A manifest of crops alone; both folders may move together.

    Args:
        written: Those that have a file.
        origin: Of their imagery.
        frames: Of their regions.
        crops_folder: Where the files are.
        folder: Of the manifest.
        name: Of the dataset.
    """
    from crossview.manifest import Manifest

    return Manifest.from_rows(
        name=name,
        licence=_licence(origin),
        attribution=origin.attribution,
        image_root=Path(os.path.relpath(crops_folder, folder)).as_posix(),
        regions=[
            {"name": region, "lat_deg": frame.lat_deg, "lon_deg": frame.lon_deg}
            for region, frame in frames.items()
        ],
        tiles=_tile_rows(written, origin, prefix=""),
    ).save(folder, overwrite=True)


def common_folder(views: Manifest, crops_folder: Path) -> Path:
    """The image root of photos and crops together.

    Raises:
        DatasetError: They have no folder in common: an image root that is the whole file system
            would allow paths to anything.
    """
    photos_folder = views.image_folder.resolve()
    root = Path(os.path.commonpath([photos_folder, crops_folder.resolve()]))
    if root == root.parent:
        raise DatasetError(
            f"The photos in {photos_folder} and the crops in {crops_folder} have no folder in "
            "common, and a manifest has one image root. Give --out a folder nearer to the photos."
        )
    return root


def save_with_views(
    views: Manifest,
    written: Sequence[WrittenCrop],
    origin: Origin,
    crops_folder: Path,
    folder: Path,
) -> Manifest:
    """A manifest of views, the crops around them, and which crop shows which view.

    Arguments are those of save_gallery. Photos and crops stay where they are: the image root is the
    folder above both.
    """
    from crossview.manifest import Manifest

    crops_folder = crops_folder.resolve()
    root = common_folder(views, crops_folder)
    below = _prefix(views.image_folder.resolve(), root)
    rows: dict[str, list[dict[str, Any]]] = {
        name: getattr(views, name).to_dict("records") for name in Manifest.TABLES
    }
    for table, column in (("cameras", "mask"), ("views", "image"), ("tiles", "image")):
        for row in rows[table]:
            row[column] = below + row[column] if row[column] else ""
    rows["tiles"] += _tile_rows(written, origin, prefix=_prefix(crops_folder, root))
    rows["pairs"] += _pair_rows(views, rows["views"], written)
    return Manifest.from_rows(
        name=views.name,
        licence="; ".join(filter(None, (views.licence, _licence(origin)))),
        attribution="; ".join(filter(None, (views.attribution, origin.attribution))),
        image_root=root,
        folder=views.folder,
        **rows,
    ).save(folder, overwrite=True)


def _licence(origin: Origin) -> str:
    return f"satellite imagery: {origin.terms_url}" if origin.terms_url else ""


def _prefix(folder: Path, root: Path) -> str:
    """What paths below a folder begin with, seen from a root above it."""
    below = folder.relative_to(root).as_posix()
    return "" if below == "." else f"{below}/"


def _tile_rows(
    written: Sequence[WrittenCrop], origin: Origin, *, prefix: str
) -> list[dict[str, Any]]:
    centers = crops.centers_of([crop.crop for crop in written])
    rows = []
    for crop, lat_deg, lon_deg in zip(written, centers.lat_deg, centers.lon_deg, strict=True):
        grid = crop.crop.grid
        rows.append(
            {
                "tile_id": crop.crop.tile_id,
                "region": crop.crop.region,
                "image": f"{prefix}{crop.file}",
                "lat_deg": lat_deg,
                "lon_deg": lon_deg,
                "cell_m": grid.cell_m,
                # upright in the frame, whose north turns away from true north
                "rotation_deg": grid.frame.convergence_deg(*crop.crop.center_m) % 360.0,
                "date": origin.date,
                "provider": origin.provider,
                "attribution": origin.attribution,
                "terms_url": origin.terms_url,
                "sha256": crop.sha256,
            }
        )
    return rows


def _pair_rows(
    manifest: Manifest, views: Sequence[dict[str, Any]], written: Sequence[WrittenCrop]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for region in sorted({crop.crop.region for crop in written}):
        known = [v for v in views if v["region"] == region and not np.isnan(v["lat_deg"])]
        around = [crop.crop for crop in written if crop.crop.region == region]
        lat_deg, lon_deg = np.array([(v["lat_deg"], v["lon_deg"]) for v in known]).reshape(-1, 2).T
        x_m, y_m = manifest.frame(region).to_local(lat_deg, lon_deg)
        rows += crops.pairs_of([v["view_id"] for v in known], x_m, y_m, around)
    return rows
