"""Square crops of imagery in true metres, as galleries hold them (VIGOR, CVACT)."""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossview import atomic
from crossview.frames import MAX_DISTANCE_M, LocalFrame
from crossview.grids import MapGrid
from data_tools.areas import Area
from data_tools.imagery import Imagery
from data_tools.points import Points

IMAGE_FORMATS: Mapping[str, Mapping[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}
"""By suffix, how Pillow writes a crop."""

POSITIVE, SEMIPOSITIVE = "positive", "semipositive"
"""A view is in the middle half of a tile, or further out; after VIGOR (Zhu et al., 2021)."""

DEFAULT_OVERLAP = 0.5
"""Of neighbours on a grid: every place is then in the middle half of one crop."""

REGION_RADIUS_M = 20_000.0
"""Points this near to each other share a frame: its north is then within 0.3 deg of true north."""

MAX_CROPS = 2_000_000
"""Of one grid; more is a mistake in the units."""

MAX_SIDE_PX = 16_384
"""Of a crop: it and what it is made of are in memory at once."""

TURN_MARGIN = 1.02
"""A crop is upright in its region's frame, which turns against true north far from its anchor."""

_log = logging.getLogger(__name__)

_ANCHOR_DECIMALS = 4
_TOUCH = 1e-6
_BATCH = 256


@dataclass(frozen=True)
class CropSize:
    """Side of a crop.

    Args:
        side_px: Rows, and columns.
        cell_m: Side of a cell.
    """

    side_px: int
    cell_m: float

    def __post_init__(self) -> None:
        if self.side_px < 1 or not 0 < self.cell_m < math.inf:
            raise ValueError(
                f"A crop needs at least one pixel and cells above 0 m, got {self.side_px} px and "
                f"{self.cell_m} m."
            )
        if self.side_px > MAX_SIDE_PX:
            raise ValueError(
                f"A crop of {self.side_px:,} pixels a side is more than the {MAX_SIDE_PX:,} that "
                "are cut in one. Choose larger cells (--cell-m), fewer pixels (--crop-px) or a "
                "smaller side (--crop-m); of a whole area make a mosaic."
            )

    @classmethod
    def of(
        cls,
        side_m: float | None,
        side_px: int | None,
        cell_m: float | None,
        *,
        pixel_m: float | None = None,
    ) -> CropSize | None:
        """The size by two of its measures, or by one and the imagery's pixel; None by none.

        Raises:
            ValueError: Three of them, or one without a known pixel, or one that is not positive;
                or more than MAX_SIDE_PX.
        """
        given = [measure for measure in (side_m, side_px, cell_m) if measure is not None]
        if not given:
            return None
        if len(given) == 3 or not all(0 < measure < math.inf for measure in given):
            raise ValueError(
                "A crop's size is two of its side in metres (--crop-m), its side in pixels "
                f"(--crop-px) and the size of a pixel (--cell-m), above 0; got {side_m}, {side_px} "
                f"and {cell_m}."
            )
        if side_m is not None and side_px is not None:
            return cls(side_px, side_m / side_px)
        cell_m = cell_m or pixel_m
        if side_m is not None and cell_m is not None:
            side_px = max(1, round(side_m / cell_m))
        if side_px is None or cell_m is None:
            raise ValueError(
                "A crop's size is not known yet. Give two of --crop-m, --crop-px and --cell-m."
            )
        return cls(side_px, cell_m)

    @property
    def side_m(self) -> float:
        """On the ground."""
        return self.side_px * self.cell_m


@dataclass(frozen=True, eq=False)
class Crop:
    """One square of ground, north-up in its region's frame.

    Args:
        tile_id: Its name, which is a possible file name.
        region: Name of its region.
        grid: Its cells.
    """

    tile_id: str
    region: str
    grid: MapGrid

    @property
    def center_m(self) -> tuple[float, float]:
        """(x_m, y_m) of its middle."""
        x_m, y_m = self.grid.to_xy(self.grid.width / 2, self.grid.height / 2)
        return float(x_m), float(y_m)


def regions_of(points: Points, name: str = "region") -> tuple[dict[str, LocalFrame], np.ndarray]:
    """Frames that points share, by name, and which one each has, (N,) names.

    A point begins a region, and those within REGION_RADIUS_M of it join; the frame is anchored in
    their middle.
    """
    radius_deg = np.rad2deg(REGION_RADIUS_M / 6_371_000.0)
    region = np.full(len(points), -1)
    frames: list[LocalFrame] = []
    while (free := np.flatnonzero(region < 0)).size:
        lat_deg, lon_deg = points.lat_deg[free], points.lon_deg[free]
        east_deg = (lon_deg - lon_deg[0] + 180.0) % 360.0 - 180.0
        squeezed = east_deg * np.cos(np.deg2rad(lat_deg[0]))
        near = np.hypot(lat_deg - lat_deg[0], squeezed) <= radius_deg
        region[free[near]] = len(frames)
        middle_deg = lon_deg[0] + east_deg[near].mean()
        middle_deg = (middle_deg + 180.0) % 360.0 - 180.0
        lat_anchor = round(float(lat_deg[near].mean()), _ANCHOR_DECIMALS)
        frames.append(LocalFrame(lat_anchor, round(float(middle_deg), _ANCHOR_DECIMALS)))
    names = [name] if len(frames) == 1 else [f"{name}_{k + 1}" for k in range(len(frames))]
    return dict(zip(names, frames, strict=True)), np.array(names)[region]


def centred_crops(
    points: Points, size: CropSize, frames: Mapping[str, LocalFrame], regions: np.ndarray
) -> list[Crop]:
    """A crop around every point, whose middle is the point.

    Args:
        points: Where; a crop has the name of its point if all names differ, else a number.
        size: Of every crop.
        frames: By region.
        regions: (N,) the region of each point.
    """
    names = _crop_names(points.names)
    half_m = size.side_m / 2
    crops: list[Crop | None] = [None] * len(points)
    for region, frame in frames.items():
        which = np.flatnonzero(np.asarray(regions) == region)
        x_m, y_m = frame.to_local(points.lat_deg[which], points.lon_deg[which])
        for i, x, y in zip(which, x_m, y_m, strict=True):
            grid = MapGrid(frame, x - half_m, y + half_m, size.cell_m, size.side_px, size.side_px)
            crops[i] = Crop(names[i], region, grid)
    return [crop for crop in crops if crop is not None]


def _crop_names(names: Sequence[str]) -> list[str]:
    """Names of points as those of crops, or numbers where they are no names of files."""
    files = [file_name(name) for name in names]
    counts = Counter(files)
    unusable = [name for name, file in zip(names, files, strict=True) if not file]
    double = [name for name, file in zip(names, files, strict=True) if file and counts[file] > 1]
    if not (unusable or double):
        return files
    numbers = [f"{i:06d}" for i in range(len(files))]
    if any(names):  # a track has none to begin with
        reasons = [
            f"{len(some)} {what}, such as {some[0]!r}"
            for some, what in ((double, "are double"), (unusable, "are no file names"))
            if some
        ]
        _log.warning(
            "Of the names of %d points %s: crops are named %s to %s, in the order of the points.",
            len(names),
            " and ".join(reasons),
            numbers[0],
            numbers[-1],
        )
    return numbers


def grid_crops(
    area: Area,
    size: CropSize,
    *,
    overlap: float = DEFAULT_OVERLAP,
    region: str = "region",
    frame: LocalFrame | None = None,
) -> tuple[dict[str, LocalFrame], list[Crop]]:
    """Crops on a lattice that cover an area, north-west to south-east, and their region's frame.

    Every place of the area is in the middle of one crop: at half an overlap, as VIGOR has it, in
    the middle half. The lattice is that of the frame, so that grids of one area and size line up.

    Args:
        area: What to cover.
        size: Of every crop.
        overlap: Share of a crop's side that its neighbour shows too, 0 up to but without 1.
        region: Name of the region.
        frame: Of the region; by default one in the area's middle.

    Raises:
        ValueError: The area is too large for one region, or for MAX_CROPS.
    """
    import shapely

    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be from 0 up to but without 1, got {overlap}.")
    if frame is None:
        lat_deg, lon_deg = (round(angle, _ANCHOR_DECIMALS) for angle in area.center)
        frame = LocalFrame(lat_deg, lon_deg)
    shape = _in_frame(area, frame)
    step_m = size.side_m * (1 - overlap)
    west, south, east, north = (side / step_m for side in shape.bounds)
    cols = np.arange(math.floor(west), math.ceil(east))
    rows = np.arange(math.ceil(north), math.floor(south), -1)
    if cols.size * rows.size > MAX_CROPS:
        raise ValueError(
            f"{area.name} needs up to {cols.size * rows.size:,} crops of {size.side_m:g} m, more "
            f"than {MAX_CROPS:,}. Choose a smaller area, larger crops or less overlap."
        )
    col, row = (axis.ravel() for axis in np.meshgrid(cols, rows))
    hair = _TOUCH  # an area that only touches a cell does not need it
    own = shapely.box(
        (col + hair) * step_m,
        (row - 1 + hair) * step_m,
        (col + 1 - hair) * step_m,
        (row - hair) * step_m,
    )
    shapely.prepare(shape)
    is_needed = shapely.intersects(shape, own)
    margin_m = (size.side_m - step_m) / 2
    crops = []
    for c, r in zip(col[is_needed], row[is_needed], strict=True):
        grid = MapGrid(
            frame,
            float(c * step_m - margin_m),
            float(r * step_m + margin_m),
            size.cell_m,
            size.side_px,
            size.side_px,
        )
        name = f"{region}_r{rows[0] - r:04d}_c{c - cols[0]:04d}"
        crops.append(Crop(file_name(name), region, grid))
    return {region: frame}, crops


def centers_of(crops: Sequence[Crop]) -> Points:
    """The middles of crops on the globe."""
    lat_deg, lon_deg = np.empty(len(crops)), np.empty(len(crops))
    frames = {crop.grid.frame for crop in crops}
    for frame in frames:
        which = [i for i, crop in enumerate(crops) if crop.grid.frame == frame]
        x_m, y_m = np.array([crops[i].center_m for i in which]).T
        lat_deg[which], lon_deg[which] = frame.to_geodetic(x_m, y_m)
    return Points(lat_deg, lon_deg, tuple(crop.tile_id for crop in crops))


@dataclass(frozen=True)
class WrittenCrop:
    """What became of a crop.

    Args:
        crop: Which.
        covered: Share of its cells that the imagery shows.
        file: Name of its file, or None where it was left out.
        sha256: Of the file.
    """

    crop: Crop
    covered: float
    file: str | None = None
    sha256: str = ""


def write_crops(
    imagery: Imagery,
    crops: Iterable[Crop],
    folder: str | Path,
    *,
    image_format: str = "png",
    min_covered: float = 1.0,
) -> Iterator[WrittenCrop]:
    """Cut crops and write each as a file TILE_ID.png or .jpg, whole or not at all.

    Args:
        imagery: What to cut.
        crops: Where.
        folder: Of the files.
        image_format: png, or jpg of quality 95.
        min_covered: Leave out a crop of which the imagery shows a smaller share: black is not what
            the ground looks like.

    Yields:
        Every crop, in order.
    """
    if image_format not in IMAGE_FORMATS:
        raise ValueError(
            f"image_format is {image_format!r}; expected {' or '.join(IMAGE_FORMATS)}."
        )
    folder = Path(folder)

    def write(crop: Crop) -> WrittenCrop:
        tile = imagery.on(crop.grid)
        covered = float(tile.covered.mean())
        if covered < max(min_covered, np.finfo(float).tiny):
            return WrittenCrop(crop, covered)
        body = _encoded(tile.rgb, image_format)
        file = f"{crop.tile_id}.{image_format}"
        with atomic.replacing(folder / file) as temporary:
            temporary.write_bytes(body)
        return WrittenCrop(crop, covered, file, hashlib.sha256(body).hexdigest())

    # warping and encoding leave the interpreter's lock
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = iter(crops)
        while batch := list(itertools.islice(waiting, _BATCH)):
            folder.mkdir(parents=True, exist_ok=True)
            yield from pool.map(write, batch)


def pairs_of(
    view_ids: Sequence[str], x_m: np.ndarray, y_m: np.ndarray, crops: Sequence[Crop]
) -> Iterator[dict[str, str]]:
    """Rows of the pairs table: every crop that shows a view's place, and how far in.

    Args:
        view_ids: (N,) names.
        x_m: (N,) where the views are, in the crops' frame.
        y_m: (N,) likewise.
        crops: Of one region and size.
    """
    from scipy.spatial import cKDTree

    if not crops or not len(view_ids):
        return
    centers = np.array([crop.center_m for crop in crops])
    half_m = crops[0].grid.width * crops[0].grid.cell_m / 2
    places = np.stack([x_m, y_m], axis=-1)
    # the largest of the distances along x and y: crops are squares
    found = cKDTree(centers).query_ball_point(places, half_m, p=np.inf, return_sorted=True)
    for view_id, place, near in zip(view_ids, places, found, strict=True):
        for i in near:
            # a place on the line between two middles belongs to the crop east and north of it
            offset = (place - centers[i]) / (half_m / 2)
            is_inside = np.all((offset >= -1) & (offset < 1))
            relation = POSITIVE if is_inside else SEMIPOSITIVE
            yield {"view_id": view_id, "tile_id": crops[i].tile_id, "relation": relation}


def _in_frame(area: Area, frame: LocalFrame) -> Any:
    """An area in a frame's metres; sides of a box bend there, so they get more corners."""
    import shapely

    south, north = area.shape.bounds[1], area.shape.bounds[3]
    west, east = area.bounds.west, area.bounds.east
    lat_deg = np.array([south, north, south, north])
    lon_deg = np.array([west, west, east, east])
    try:
        frame.to_local(lat_deg, lon_deg)
    except ValueError as error:
        raise ValueError(
            f"{area.name} has {area.square_km:,.0f} square km, and crops share one frame that "
            f"reaches {MAX_DISTANCE_M / 1000:.0f} km from its middle. Cut the area into regions."
        ) from error

    def to_local(lonlat: np.ndarray) -> np.ndarray:
        return np.stack(frame.to_local(lonlat[:, 1], lonlat[:, 0]), axis=-1)

    dense = shapely.segmentize(area.shape, max(north - south, 1e-9) / 16)
    return shapely.make_valid(shapely.transform(dense, to_local))


def _encoded(rgb: np.ndarray, image_format: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, **IMAGE_FORMATS[image_format])
    return buffer.getvalue()


def file_name(name: str) -> str:
    """A name that is a file name on any system; without a picture's suffix."""
    stem = re.sub(r"\.(jpe?g|png)$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).strip(".")
