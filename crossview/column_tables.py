"""Tables of a column model: samples of known pose, and what is counted in them.

Tables need poses but no optimiser: at a known pose the map says which region every pixel is in, and
the pixels are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossview import column_evidence, ground_votes, raycast
from crossview.birdseye import BirdsEye
from crossview.column_model import COUNTS_SHAPE, NUM_RANGES, ColumnModel
from crossview.columns import ColumnView
from crossview.frames import LocalFrame, Pose
from crossview.grids import MapGrid
from crossview.ground_votes import GroundTable
from crossview.observations import ObservationStore
from crossview.pose_queries import map_sources, queries, stations_of
from crossview.rasters import MapRaster
from crossview.segmenters import Remembering, Segmenter, fingerprint
from crossview.semantic import SemanticMatcher

if TYPE_CHECKING:
    from crossview.manifest import Manifest

_HEIGHTS_WITHIN_M = 50.0

_EMPTY_MODEL = ColumnModel(np.ones(COUNTS_SHAPE), np.full(NUM_RANGES, 1 / NUM_RANGES))
"""For looking only."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A rig or a photo with a known pose.

    Args:
        station: Its place in the street: samples of one station are left out together.
        view: Its columns.
        truth: Its pose in the frame of its region.
        frame: That frame.
        maps: Cuts the map of its region.
        is_rig: Whether it is a whole rig, whose pixels are counted; else it is one of its photos.
    """

    station: str
    view: ColumnView
    truth: Pose
    frame: LocalFrame
    maps: Callable[[MapGrid], MapRaster]
    is_rig: bool


def samples_of(
    manifest: Manifest,
    segmenter: Segmenter,
    *,
    stations: str | None = None,
    cache: Path | None = None,
) -> list[Sample]:
    """The rigs of a dataset and their single photos, looked at, in the order of the drive.

    Args:
        manifest: The dataset.
        segmenter: What each pixel shows.
        stations: Which ones, as pose_queries.stations_of understands; None for all.
        cache: Folder that remembers views.
    """
    from tqdm import tqdm

    chosen = None if stations is None else set(stations_of(manifest, stations))
    maps = map_sources(manifest)
    # a rig and its single photos are the same images
    looker = SemanticMatcher(Remembering(segmenter), _EMPTY_MODEL)
    observe = looker.observe if cache is None else ObservationStore(cache).observer(looker)
    rigs = queries(manifest, stations=chosen, max_pitch_deg=90.0)
    photos = queries(manifest, single=True, stations=chosen)
    per_station = Counter(photo.station for photo in photos)
    # the one photo of a station is its rig
    singles = (photo for photo in photos if per_station[photo.station] > 1)
    found = [*rigs, *singles]
    order = {s.station_id: s.order for s in manifest.stations(max_pitch_deg=90.0)}
    found.sort(key=lambda query: (query.region, order[query.station], query.station))
    return [
        Sample(
            query.station,
            observe(query.read())[0],
            query.truth,
            manifest.frame(query.region),
            maps[query.region],
            is_rig=query.name == query.station,
        )
        for query in tqdm(found, unit="query", delay=2, disable=None)
    ]


def provenance_of(manifest: Manifest, segmenter: Segmenter) -> dict[str, str]:
    """What a model says of where it comes from."""
    return {
        "dataset": manifest.name,
        "licence": manifest.licence,
        "attribution": manifest.attribution,
        "segmenter": fingerprint(segmenter),
    }


def tables(samples: Iterable[Sample]) -> ColumnModel:
    """What the rigs of known poses show, with the default calibration."""
    rigs = [sample for sample in samples if sample.is_rig]
    counts = sum(_counted(sample) for sample in rigs)
    heights_m = np.concatenate([_heights_around_m(sample) for sample in rigs])
    model = ColumnModel(np.asarray(counts), _range_shares(rigs), ground=_ground_table(rigs))
    if heights_m.size < 2 or float(np.std(heights_m)) == 0:
        return model
    return replace(
        model,
        height_mean_m=round(float(np.mean(heights_m)), 2),
        height_std_m=round(float(np.std(heights_m)), 2),
    )


def _counted(sample: Sample) -> np.ndarray:
    rays = raycast.look_around(
        sample.maps,
        sample.frame,
        sample.truth,
        height_m=sample.view.height_m,
        num_azimuths=sample.view.num_azimuths,
    )
    return column_evidence.region_counts(sample.view, *rays)


def _ground_table(rigs: Sequence[Sample]) -> GroundTable | None:
    """What the rigs show on each kind of place; None where they looked at columns only."""
    counts = [_ground_counted(rig, rig.view.ground) for rig in rigs if rig.view.ground is not None]
    return GroundTable(np.sum(counts, axis=0)) if counts else None


def _ground_counted(sample: Sample, ground: BirdsEye) -> np.ndarray:
    pose = sample.truth
    around = MapGrid.around(
        sample.frame,
        pose.x_m,
        pose.y_m,
        radius_m=ground_votes.MARGIN_M,
        cell_m=ground_votes.CELL_M / 2,
    )
    return ground_votes.counts(ground, pose, sample.maps(around))


def _range_shares(rigs: Sequence[Sample]) -> np.ndarray:
    """How often the first wall is in each range, seen from free places around the stations."""
    counts = np.ones(NUM_RANGES)
    for rig in rigs:
        cells = MapGrid.around(rig.frame, rig.truth.x_m, rig.truth.y_m, radius_m=16, cell_m=2.0)
        rays = raycast.cast(
            rig.maps(cells.padded(column_evidence.FARTHEST_M).divided(8)),
            cells,
            height_m=rig.view.height_m,
            num_azimuths=64,
            reach_m=column_evidence.FARTHEST_M,
        )
        bins = column_evidence.range_bins(rays.range_m[rays.free].astype(np.float32))
        counts += np.bincount(bins.ravel(), minlength=NUM_RANGES + 1)[:NUM_RANGES]
    return counts / counts.sum()


def _heights_around_m(sample: Sample) -> np.ndarray:
    """Heights of map cells with a building around a station: large buildings count more."""
    pose = sample.truth
    cells = MapGrid.around(sample.frame, pose.x_m, pose.y_m, radius_m=_HEIGHTS_WITHIN_M, cell_m=2.0)
    height_m = sample.maps(cells).building_height_m
    return height_m[np.isfinite(height_m) & (height_m > 0)]
