"""The manifest: one prepared dataset as a folder (see manifest_schema): poses, photos, rigs."""

from __future__ import annotations

import functools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from crossview import angles, manifest_schema, photos, tables
from crossview.cameras import Camera, Equirectangular, Pinhole
from crossview.errors import ManifestError
from crossview.frames import GeoPose, LocalFrame, Pose
from crossview.manifest_schema import STEEP_PITCH_DEG
from crossview.photos import Mount, Panorama, Photo, Rig
from crossview.tables import Problem

if TYPE_CHECKING:
    import pandas as pd

_SURVEYED_SEPARATOR = ";"
_Made = TypeVar("_Made", Photo, Panorama)


@dataclass(frozen=True)
class MapFile:
    """One map of a region.

    Args:
        region: Name of the region.
        path: The file.
        kind: osm, footprints or raster.
        surveyed: Classes whose absence on the map means absence.
        date: When the map was true, as written, or "".
    """

    region: str
    path: Path
    kind: str
    surveyed: frozenset[str]
    date: str


@dataclass(frozen=True)
class Station:
    """Views that were taken together, without their images (see Manifest.rig).

    Args:
        station_id: As in the table; a view without one is a station of its own.
        region: Whose frame the truth is in.
        sequence_id: The drive, or "".
        order: Place in the drive.
        split: Of the reference view, or "".
        view_ids: The reference first.
        mounts: One for each view; the first is zero.
        truth: Pose of the reference view in the region's frame, or None where it is not known.
    """

    station_id: str
    region: str
    sequence_id: str
    order: int
    split: str
    view_ids: tuple[str, ...]
    mounts: tuple[Mount, ...]
    truth: Pose | None


@dataclass(frozen=True, eq=False)
class Manifest:
    """One prepared dataset.

    Tables are pandas DataFrames, checked here; do not change them in place.

    Args:
        name: Of the dataset.
        licence: Of its images.
        attribution: What must be said where results are shown.
        image_root: Folder of the images: absolute, or relative to the manifest's folder.
        regions: Table, or rows by column name.
        cameras: Likewise.
        views: Likewise.
        tiles: Likewise.
        pairs: Likewise.
        maps: Likewise.
        folder: Where the manifest lies; None before it is saved.

    Raises:
        ManifestError: A table breaks the schema; the message names file, row and column.
    """

    name: str
    licence: str
    attribution: str
    image_root: str
    regions: pd.DataFrame
    cameras: pd.DataFrame
    views: pd.DataFrame
    tiles: pd.DataFrame
    pairs: pd.DataFrame
    maps: pd.DataFrame
    folder: Path | None = None

    TABLES: ClassVar[tuple[str, ...]] = tuple(manifest_schema.SCHEMA)

    def __post_init__(self) -> None:
        checked, found = manifest_schema.checked(
            {name: getattr(self, name) for name in self.TABLES}
        )
        _raise_problems(found, self.folder)
        for name, table in checked.items():
            object.__setattr__(self, name, table)

    @classmethod
    def from_rows(
        cls,
        *,
        name: str,
        licence: str,
        attribution: str,
        image_root: str | Path,
        folder: Path | None = None,
        **rows: Iterable[Mapping[str, Any]],
    ) -> Manifest:
        """A manifest of rows by column name; a table that is not given is empty."""
        unknown = set(rows) - set(cls.TABLES)
        if unknown:
            raise ManifestError(f"Unknown tables {sorted(unknown)}; there are {cls.TABLES}.")
        given: dict[str, Any] = {table: list(rows.get(table, ())) for table in cls.TABLES}
        return cls(name, licence, attribution, str(image_root), folder=folder, **given)

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read a manifest; images are opened only when they are asked for.

        Raises:
            ManifestError: It is not one, or something in it breaks the schema.
        """
        folder = Path(folder)
        dataset, rows, found = manifest_schema.read(folder)
        _raise_problems(found, folder)
        return cls.from_rows(
            name=dataset["name"],
            licence=dataset["licence"],
            attribution=dataset["attribution"],
            image_root=dataset["image_root"],
            folder=folder,
            **rows,
        )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Manifest:
        """Write the manifest as a new folder: all of it or nothing.

        Its maps are copied, images are not.

        Args:
            folder: The folder, which must not exist yet.
            overwrite: Replace a manifest that is there, if it holds nothing else.

        Returns:
            The manifest as it is found there.
        """
        with tables.atomic_folder(folder, overwrite=overwrite) as partial:
            self.write(partial)
        return type(self).load(folder)

    def write(self, folder: Path) -> None:
        """Write the files of the manifest into a folder that exists (see tables.atomic_folder)."""
        image_root = self.image_root
        if self.folder is not None and not Path(image_root).is_absolute():
            image_root = self.image_folder.resolve().as_posix()
        values = (self.name, self.licence, self.attribution, image_root)
        dataset = {
            "schema_version": manifest_schema.SCHEMA_VERSION,
            **dict(zip(manifest_schema.DATASET_KEYS, values, strict=True)),
        }
        text = json.dumps(dataset, indent=2, ensure_ascii=False) + "\n"
        (folder / manifest_schema.DATASET_FILE).write_text(text, encoding="utf-8")
        for table, columns in manifest_schema.SCHEMA.items():
            tables.write(folder / f"{table}.csv", getattr(self, table), columns)
        if self.folder is not None:
            self._copy_maps(folder)

    @property
    def image_folder(self) -> Path:
        """Where image paths begin."""
        root = Path(self.image_root)
        if root.is_absolute():
            return root
        return self._own_folder() / root

    def frame(self, region: str) -> LocalFrame:
        """The frame of a region."""
        row = self._row("regions", region)
        return LocalFrame(row["lat_deg"], row["lon_deg"])

    def camera(self, camera_id: str) -> Camera:
        """The camera of stored pixels."""
        row = self._row("cameras", camera_id)
        if row["model"] == "equirectangular":
            return Equirectangular(row["width_px"], row["height_px"])
        return Pinhole(
            row["width_px"],
            row["height_px"],
            fx=row["fx"],
            fy=row["fy"],
            cx=row["cx"],
            cy=row["cy"],
            distortion=manifest_schema.distortion_of(row["distortion"])
            if row["distortion"]
            else None,
        )

    def pose(self, view_id: str) -> Pose | None:
        """Where a view was taken, in its region's frame; None where the table does not say."""
        row = self._row("views", view_id)
        if math.isnan(row["lat_deg"]):
            return None
        heading_deg = None if math.isnan(row["heading_deg"]) else row["heading_deg"]
        return self.frame(row["region"]).pose(GeoPose(row["lat_deg"], row["lon_deg"], heading_deg))

    def photo(self, view_id: str) -> Photo:
        """One photo, without a fix: the position in the table is the answer, not a hint.

        Unknown roll and pitch count as 0.
        """
        row = self._view(view_id, "photo")
        camera = self.camera(row["camera_id"])
        return self._made(
            view_id,
            lambda: Photo(
                self._pixels(row),
                camera,  # type: ignore[arg-type]
                roll_deg=_or(row["roll_deg"], 0.0),
                pitch_deg=_or(row["pitch_deg"], 0.0),
                height_m=_or(row["height_m"], photos.DEFAULT_HEIGHT_M),
                mask=self._mask(row["camera_id"]),
            ),
        )

    def panorama(self, view_id: str) -> Panorama:
        """One panorama, without a fix."""
        row = self._view(view_id, "panorama")
        return self._made(
            view_id,
            lambda: Panorama(
                self._pixels(row),
                None if math.isnan(row["heading_deg"]) else row["heading_deg"],
                height_m=_or(row["height_m"], photos.DEFAULT_HEIGHT_M),
                mask=self._mask(row["camera_id"]) if row["camera_id"] else None,
            ),
        )

    def stations(
        self,
        *,
        region: str | None = None,
        split: str | None = None,
        max_pitch_deg: float = STEEP_PITCH_DEG,
    ) -> list[Station]:
        """Views grouped by station, in the order of the table.

        Args:
            region: Only of this region.
            split: Only whose reference view is in this split.
            max_pitch_deg: Leave out views that look higher or lower than this, such as a rig's
                camera to the sky; 90 keeps all. A station of such views alone keeps them.
        """
        found = (self._station(rows, max_pitch_deg) for rows in self._station_rows.values())
        return [
            station
            for station in found
            if region in (None, station.region) and split in (None, station.split)
        ]

    def rig(self, station_id: str, *, max_pitch_deg: float = STEEP_PITCH_DEG) -> Rig:
        """The photos of one station, read now, with their mounts."""
        if station_id not in self._station_rows:
            raise ManifestError(f"There is no station {station_id!r} in views.csv.")
        station = self._station(self._station_rows[station_id], max_pitch_deg)
        return Rig(tuple(self.photo(view_id) for view_id in station.view_ids), station.mounts)

    def map_files(self, region: str | None = None) -> list[MapFile]:
        """The maps, of one region or of all."""
        return [
            MapFile(
                region=row["region"],
                path=self._own_folder() / row["file"],
                kind=row["kind"],
                surveyed=frozenset(filter(None, row["surveyed"].split(_SURVEYED_SEPARATOR))),
                date=row["date"],
            )
            for row in tables.records(self.maps)
            if region in (None, row["region"])
        ]

    def image_problems(self) -> Iterator[list[Problem]]:
        """Open every file that the tables name, one list of problems for each (see num_files)."""
        sizes = {row["camera_id"]: row for row in tables.records(self.cameras)}
        for i, row in enumerate(tables.records(self.cameras), tables.FIRST_ROW):
            if row["mask"]:
                yield self._file_problems("cameras.csv", i, "mask", row["mask"], row)
        for i, row in enumerate(tables.records(self.views), tables.FIRST_ROW):
            camera = sizes.get(row["camera_id"])
            yield self._file_problems("views.csv", i, "image", row["image"], camera)
        for i, row in enumerate(tables.records(self.tiles), tables.FIRST_ROW):
            yield self._file_problems("tiles.csv", i, "image", row["image"], None)
        for i, (row, map_file) in enumerate(
            zip(tables.records(self.maps), self.map_files(), strict=True), tables.FIRST_ROW
        ):
            message = f"there is no file {row['file']!r}."
            missing = [] if map_file.path.is_file() else [message]
            yield [Problem("maps.csv", i, "file", text) for text in missing]

    @property
    def num_files(self) -> int:
        """How many files image_problems opens."""
        num_masks = int((self.cameras["mask"] != "").sum())
        return num_masks + len(self.views) + len(self.tiles) + len(self.maps)

    @functools.cached_property
    def _station_rows(self) -> dict[str, list[dict[str, Any]]]:
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in tables.records(self.views):
            rows.setdefault(row["station_id"] or row["view_id"], []).append(row)
        return rows

    @functools.cached_property
    def _rows(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Rows of the tables that have keys, by key."""
        return {
            table: {row[columns[0].name]: row for row in tables.records(getattr(self, table))}
            for table, columns in manifest_schema.SCHEMA.items()
            if table in manifest_schema.KEYED_TABLES
        }

    def _row(self, table: str, key: str) -> dict[str, Any]:
        row = self._rows[table].get(key)
        if row is None:
            column = manifest_schema.SCHEMA[table][0].name
            raise ManifestError(f"There is no {column} {key!r} in {table}.csv.")
        return row

    def _view(self, view_id: str, kind: str) -> dict[str, Any]:
        row = self._row("views", view_id)
        if row["kind"] != kind:
            raise ManifestError(
                f"View {view_id!r} is a {row['kind']}, not a {kind}: read it as one."
            )
        return row

    def _station(self, rows: Sequence[dict[str, Any]], max_pitch_deg: float) -> Station:
        rows = sorted(rows, key=lambda row: (row["order"], row["view_id"]))
        # a camera to the sky has no heading worth the name: the rig's is that of a level one
        level = _within_pitch(rows, min(max_pitch_deg, STEEP_PITCH_DEG))
        ordered = _within_pitch(rows, max_pitch_deg) or rows
        reference = (level or ordered)[0]
        ordered = [reference, *(row for row in ordered if row is not reference)]
        return Station(
            station_id=reference["station_id"] or reference["view_id"],
            region=reference["region"],
            sequence_id=reference["sequence_id"],
            order=reference["order"],
            split=reference["split"],
            view_ids=tuple(row["view_id"] for row in ordered),
            mounts=tuple(self._mount(row, reference) for row in ordered),
            truth=self.pose(reference["view_id"]),
        )

    def _mount(self, row: Mapping[str, Any], reference: Mapping[str, Any]) -> Mount:
        """Where a view stands seen from the reference; same place where no position is known."""
        if row is reference:
            return Mount()
        pose, origin = self.pose(row["view_id"]), self.pose(reference["view_id"])
        # the schema has seen to it that views of a station have headings, and all or none a pose
        if pose is None or origin is None or pose.heading_deg is None or origin.heading_deg is None:
            return Mount(row["heading_deg"] - reference["heading_deg"])
        ahead_x, ahead_y = angles.forward(origin.heading_deg)
        east_m, north_m = pose.x_m - origin.x_m, pose.y_m - origin.y_m
        return Mount(
            heading_deg=pose.heading_deg - origin.heading_deg,
            forward_m=float(east_m * ahead_x + north_m * ahead_y),
            right_m=float(east_m * ahead_y - north_m * ahead_x),
        )

    def _copy_maps(self, folder: Path) -> None:
        for path in {map_file.path for map_file in self.map_files()}:
            copy = folder / path.relative_to(self._own_folder())
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, copy)
            except OSError as error:
                raise ManifestError(f"The map {path} cannot be copied ({error}).") from error

    def _own_folder(self) -> Path:
        if self.folder is None:
            raise ManifestError(
                "The manifest is not saved yet, so its relative paths begin nowhere. Save it, and "
                "use what save returns."
            )
        return self.folder

    def _pixels(self, row: Mapping[str, Any]) -> np.ndarray:
        return photos.read_pixels(self.image_folder / row["image"])

    def _mask(self, camera_id: str) -> np.ndarray | None:
        path = self._row("cameras", camera_id)["mask"]
        return photos.read_mask(self.image_folder / path) if path else None

    def _made(self, view_id: str, make: Callable[[], _Made]) -> _Made:
        """A photo or panorama; what does not fit names the row of its table."""
        try:
            return make()
        except ValueError as error:
            row = list(self._rows["views"]).index(view_id) + tables.FIRST_ROW
            raise ManifestError(str(Problem("views.csv", row, "image", str(error)))) from error

    def _file_problems(
        self, file: str, row: int, column: str, path: str, camera: Mapping[str, Any] | None
    ) -> list[Problem]:
        try:
            size = photos.decoded_size(self.image_folder / path)
        except photos.PhotoError as error:
            return [Problem(file, row, column, str(error))]
        if camera is not None and size != (camera["width_px"], camera["height_px"]):
            expected = f"{camera['width_px']} x {camera['height_px']}"
            message = f"{path} has {size[0]} x {size[1]} pixels and its camera {expected}."
            return [Problem(file, row, column, message)]
        return []


def _within_pitch(rows: Sequence[dict[str, Any]], max_pitch_deg: float) -> list[dict[str, Any]]:
    return [row for row in rows if abs(_or(row["pitch_deg"], 0.0)) <= max_pitch_deg]


def _raise_problems(found: Sequence[Problem], folder: Path | None) -> None:
    if not found:
        return
    where = "" if folder is None else f" `crossview-data check {folder}` lists them."
    more = f" ({len(found) - 1} more problems.{where})" if len(found) > 1 else ""
    raise ManifestError(f"{found[0]}{more}")


def _or(value: float, default: float) -> float:
    return default if math.isnan(value) else float(value)
