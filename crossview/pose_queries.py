"""What a dataset with known poses asks: its rigs or photos, and the maps they are looked for on."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossview.errors import ManifestError
from crossview.frames import Pose
from crossview.grids import MapGrid
from crossview.manifest_schema import STEEP_PITCH_DEG
from crossview.photos import Panorama, Photo, Rig
from crossview.rasters import MapRaster

if TYPE_CHECKING:
    from crossview.manifest import Manifest
    from crossview.vectors import VectorMap

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Query:
    """A rig or a photo of a dataset, not yet read.

    Args:
        name: Of its station or view.
        station: Of its station.
        region: Whose frame the truth is in.
        truth: Its pose.
        read: Reads the images.
    """

    name: str
    station: str
    region: str
    truth: Pose
    read: Callable[[], Panorama | Photo | Rig]


def queries(
    manifest: Manifest,
    *,
    single: bool = False,
    stations: Collection[str] | None = None,
    cameras: Collection[str] | None = None,
    max_pitch_deg: float = STEEP_PITCH_DEG,
) -> list[Query]:
    """Everything in a dataset that has a pose: its stations, or each of their photos on its own.

    Args:
        manifest: The dataset.
        single: Each photo on its own. Views that look steeply up or down are none then.
        stations: Only these; None for all.
        cameras: Only single photos of these; None for all.
        max_pitch_deg: Rigs leave out views that look higher or lower; 90 keeps all.
    """
    camera_of = dict(zip(manifest.views["view_id"], manifest.views["camera_id"], strict=True))
    read_view = {"panorama": manifest.panorama, "photo": manifest.photo}
    kinds = dict(zip(manifest.views["view_id"], manifest.views["kind"], strict=True))
    limit_deg = min(max_pitch_deg, STEEP_PITCH_DEG) if single else max_pitch_deg
    found = []
    for station in manifest.stations(max_pitch_deg=limit_deg):
        if stations is not None and station.station_id not in stations:
            continue
        place = station.station_id, station.region
        is_alone = len(station.view_ids) == 1
        if not single and not is_alone and station.truth is not None:
            read = _reader(manifest.rig, station.station_id, max_pitch_deg=limit_deg)
            found.append(Query(station.station_id, *place, station.truth, read))
        for view_id in station.view_ids if single or is_alone else ():
            truth = manifest.pose(view_id)
            if truth is not None and (cameras is None or camera_of[view_id] in cameras):
                name = view_id if single else station.station_id
                read = _reader(read_view[kinds[view_id]], view_id)
                found.append(Query(name, *place, truth, read))
    return found


def stations_of(manifest: Manifest, text: str) -> list[str]:
    """Stations by name or by range of numbers, such as "482-494,500", in the table's order.

    Raises:
        ManifestError: A part of the text names no station.
    """
    known = [station.station_id for station in manifest.stations(max_pitch_deg=90.0)]
    wanted: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)-(\d+)", part)
        found = {part} & set(known)
        if not found and match is not None:
            first, last = int(match[1]), int(match[2])
            found = {name for name in known if name.isdecimal() and first <= int(name) <= last}
        if not found:
            raise ManifestError(
                f"{part!r} names no station of {manifest.name}. It has {', '.join(known[:8])}"
                f"{' ...' if len(known) > 8 else ''}; ranges are like 482-494."
            )
        wanted |= found
    return [name for name in known if name in wanted]


def map_sources(manifest: Manifest) -> dict[str, VectorMap]:
    """The vector map of every region of a dataset, by name.

    Raises:
        ManifestError: A region has no map.
    """
    from crossview.vectors import VectorMap

    sources = {}
    for region in manifest.regions["name"]:
        files = manifest.map_files(region)
        if not files:
            raise ManifestError(
                f"Region {region!r} of {manifest.name} has no map. Add one to maps.csv."
            )
        if len(files) > 1:
            _log.warning("Region %s has %d maps; %s is used.", region, len(files), files[0].path)
        # an empty list means "not stated", and the map's own kind then decides
        sources[region] = VectorMap.read(files[0].path, surveyed=files[0].surveyed or None)
    return sources


def without_heights(maps: Callable[[MapGrid], MapRaster]) -> Callable[[MapGrid], MapRaster]:
    """The same map as if nobody had measured its buildings."""
    return lambda grid: maps(grid).without_heights()


def _reader(
    read: Callable[..., Any], name: str, **options: float
) -> Callable[[], Panorama | Photo | Rig]:
    return lambda: read(name, **options)
