"""The manifest: one prepared dataset as a folder (see manifest_schema): poses, photos, rigs."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from crossview import angles, appends, atomic, manifest_schema, parquet, photos, tables
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
        given: dict[str, Any] = {table: rows.get(table, ()) for table in cls.TABLES}
        return cls(name, licence, attribution, str(image_root), folder=folder, **given)

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read a manifest; images are opened only when they are asked for.

        Raises:
            ManifestError: It is not one, or something in it breaks the schema.
        """
        folder = Path(folder)
        dataset, parsed, found = manifest_schema.read(folder)
        _raise_problems(found, folder)
        return cls(folder=folder, **dataset, **parsed)  # type: ignore[arg-type]

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
        for table in self.TABLES:
            self._write_table(folder, table)
        self._write_dataset(folder, image_root)
        if self.folder is not None:
            self._copy_maps(folder)

    def rewrite(self, *names: str) -> None:
        """Put tables in the place of those in the manifest's folder, each whole or not at all.

        Of an older schema version all tables are rewritten.

        Raises:
            ManifestError: The manifest has no folder, or another process changes it.
        """
        folder = self._own_folder()
        with appends.writing(folder, manifest_schema.DATASET_FILE):
            self._rewrite(names)

    @classmethod
    def append(cls, folder: str | Path, **rows: Iterable[Mapping[str, Any]]) -> Manifest:
        """Add rows to tables of a saved manifest without rewriting them: all of them or none.

        Every append reads and checks the whole manifest, so a few large ones are quicker than many
        small ones. An older schema version is brought up to date first.

        Args:
            folder: The manifest.
            rows: By table, rows by column name.

        Returns:
            The manifest with its new rows.

        Raises:
            ManifestError: The rows break the schema together with those that are there (the
                message counts them as if they were), or another process changes the manifest.
        """
        import pandas as pd

        folder = Path(folder)
        with appends.writing(folder, manifest_schema.DATASET_FILE):
            manifest = cls.load(folder)
            if manifest_schema.version_of(folder) < manifest_schema.SCHEMA_VERSION:
                manifest._rewrite(())
            added, whole, found = {}, {}, []
            for name, given in rows.items():
                if name not in cls.TABLES:
                    raise ManifestError(f"Unknown table {name!r}; there are {cls.TABLES}.")
                table = getattr(manifest, name)
                new, wrong = tables.parse(f"{name}.csv", given, manifest_schema.SCHEMA[name])
                found += [replace(one, row=(one.row or 1) + len(table)) for one in wrong]
                added[f"{name}.csv"] = new
                whole[name] = pd.concat([table, new], ignore_index=True)
            _raise_problems(found, None)
            manifest = replace(manifest, **whole)
            for name in added:
                parquet.path_of(folder / name).unlink(missing_ok=True)
            appends.append(folder, added)
        return manifest

    def with_checksums(self) -> Manifest:
        """The same manifest with the SHA-256 of every image and map.

        Raises:
            ManifestError: A file cannot be read.
        """
        changed = {}
        for name, column in manifest_schema.CHECKED_FILES.items():
            table = getattr(self, name)
            sums = [_sha256(self._file(name, row[column])) for row in tables.rows(table)]
            changed[name] = table.assign(sha256=np.array(sums, dtype=object))
        return replace(self, **changed)

    @property
    def image_folder(self) -> Path:
        """Where image paths begin."""
        root = Path(self.image_root)
        if root.is_absolute():
            return root
        return self._own_folder() / root

    def frame(self, region: str) -> LocalFrame:
        """The frame of a region."""
        row = self.row("regions", region)
        return LocalFrame(row["lat_deg"], row["lon_deg"])

    def row(self, table: str, key: str) -> dict[str, Any]:
        """The cells of regions, cameras, views or tiles with a key, by column name.

        Raises:
            ManifestError: There is no such row.
        """
        return self._row_at(table, self._position(table, key))

    def image_path(self, table: str, key: str) -> Path:
        """The image of a view or a tile.

        Raises:
            ManifestError: It lies outside of the image root, by a symbolic link.
        """
        return self._file(table, self.row(table, key)["image"])

    def camera(self, camera_id: str) -> Camera:
        """The camera of stored pixels."""
        row = self.row("cameras", camera_id)
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
        row = self.row("views", view_id)
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

    def view(self, view_id: str) -> Photo | Panorama:
        """One view, whichever of the two it is."""
        is_panorama = self.row("views", view_id)["kind"] == "panorama"
        return self.panorama(view_id) if is_panorama else self.photo(view_id)

    def tile_pixels(self, tile_id: str) -> np.ndarray:
        """The image of a tile, (rows, cols, 3) uint8 RGB; see its row for where it lies."""
        return self._pixels(self.row("tiles", tile_id))

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
        found = (self._station(i, max_pitch_deg) for i in range(self.num_stations))
        return [
            station
            for station in found
            if region in (None, station.region) and split in (None, station.split)
        ]

    def rig(self, station_id: str, *, max_pitch_deg: float = STEEP_PITCH_DEG) -> Rig:
        """The photos of one station, read now, with their mounts."""
        number = self._stations.numbers.get(station_id)
        if number is None:
            raise ManifestError(f"There is no station {station_id!r} in views.csv.")
        station = self._station(number, max_pitch_deg)
        return Rig(tuple(self.photo(view_id) for view_id in station.view_ids), station.mounts)

    def map_files(self, region: str | None = None) -> list[MapFile]:
        """The maps, of one region or of all.

        Raises:
            ManifestError: One lies outside of the manifest's folder, by a symbolic link.
        """
        return [
            MapFile(
                region=row["region"],
                path=self._file("maps", row["file"]),
                kind=row["kind"],
                surveyed=frozenset(filter(None, row["surveyed"].split(_SURVEYED_SEPARATOR))),
                date=row["date"],
            )
            for row in tables.records(self.maps)
            if region in (None, row["region"])
        ]

    def file_problems(self) -> Iterator[list[Problem]]:
        """Open every file that the tables name, one list of problems for each (see num_files).

        Images are decoded and compared with their camera, checksums with the file.
        """
        cameras = {row["camera_id"]: row for row in tables.rows(self.cameras)}
        for i, row in enumerate(tables.rows(self.cameras), tables.FIRST_ROW):
            if row["mask"]:
                yield self._image_problems("cameras", i, "mask", row, row)
        for i, row in enumerate(tables.rows(self.views), tables.FIRST_ROW):
            yield self._image_problems("views", i, "image", row, cameras.get(row["camera_id"]))
        for i, row in enumerate(tables.rows(self.tiles), tables.FIRST_ROW):
            yield self._image_problems("tiles", i, "image", row, None)
        for i, row in enumerate(tables.rows(self.maps), tables.FIRST_ROW):
            yield self._problems_of("maps", i, "file", row, _require_file)

    @property
    def num_files(self) -> int:
        """How many files file_problems opens."""
        num_masks = int((self.cameras["mask"] != "").sum())
        return num_masks + len(self.views) + len(self.tiles) + len(self.maps)

    @property
    def num_stations(self) -> int:
        """How many stations there are, those of views to the sky too."""
        return len(self._stations.names)

    @functools.cached_property
    def _stations(self) -> _Groups:
        station_id, view_id = (self.views[name].to_numpy() for name in ("station_id", "view_id"))
        return _Groups.of(np.where(station_id == "", view_id, station_id))

    @functools.cached_property
    def _indices(self) -> dict[str, pd.Index]:
        """Keys of the tables that have them, in the order of the rows."""
        import pandas as pd

        return {
            table: pd.Index(getattr(self, table)[manifest_schema.SCHEMA[table][0].name])
            for table in manifest_schema.KEYED_TABLES
        }

    @functools.cached_property
    def _arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Columns by table and name."""
        return {
            table: {column.name: getattr(self, table)[column.name].to_numpy() for column in columns}
            for table, columns in manifest_schema.SCHEMA.items()
        }

    def _position(self, table: str, key: str) -> int:
        """Where the row with a key is in its table."""
        try:
            return int(self._indices[table].get_loc(key))  # type: ignore[arg-type]
        except KeyError:
            column = manifest_schema.SCHEMA[table][0].name
            raise ManifestError(f"There is no {column} {key!r} in {table}.csv.") from None

    def _row_at(self, table: str, position: int) -> dict[str, Any]:
        return {name: array.item(position) for name, array in self._arrays[table].items()}

    def _view(self, view_id: str, kind: str) -> dict[str, Any]:
        row = self.row("views", view_id)
        if row["kind"] != kind:
            raise ManifestError(
                f"View {view_id!r} is a {row['kind']}, not a {kind}: read it as one."
            )
        return row

    def _station(self, number: int, max_pitch_deg: float) -> Station:
        members = (self._row_at("views", int(i)) for i in self._stations.rows_of(number))
        rows = sorted(members, key=lambda row: (row["order"], row["view_id"]))
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

    def _rewrite(self, names: Iterable[str]) -> None:
        folder = self._own_folder()
        if manifest_schema.version_of(folder) < manifest_schema.SCHEMA_VERSION:
            names = self.TABLES
        for table in names:
            self._write_table(folder, table)
        # last: tables of a newer version may stand beside an older number, not the other way round
        self._write_dataset(folder, self.image_root)

    def _write_table(self, folder: Path, table: str) -> None:
        path, columns = folder / f"{table}.csv", manifest_schema.SCHEMA[table]
        rows = getattr(self, table)
        with atomic.replacing(path) as temporary:
            tables.write(temporary, rows, columns)
        if len(rows) >= parquet.MIN_ROWS and parquet.is_available():
            parquet.write(path, rows, columns)

    def _write_dataset(self, folder: Path, image_root: str) -> None:
        values = (self.name, self.licence, self.attribution, image_root)
        dataset = {
            "schema_version": manifest_schema.SCHEMA_VERSION,
            **dict(zip(manifest_schema.DATASET_KEYS, values, strict=True)),
        }
        text = json.dumps(dataset, indent=2, ensure_ascii=False) + "\n"
        path = folder / manifest_schema.DATASET_FILE
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return  # whoever holds the lock holds it on this very file
        with atomic.replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _copy_maps(self, folder: Path) -> None:
        for name in set(self.maps["file"]):
            path, copy = self._file("maps", name), folder / name
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
        return photos.read_pixels(self._file("views", row["image"]))

    def _mask(self, camera_id: str) -> np.ndarray | None:
        path = self.row("cameras", camera_id)["mask"]
        return photos.read_mask(self._file("cameras", path)) if path else None

    def _file(self, table: str, name: str) -> Path:
        """A file that a table names, which must lie below its root even where a link leads."""
        root = self._own_folder() if table == "maps" else self.image_folder
        path = root / name
        if not path.resolve().is_relative_to(root.resolve()):
            raise ManifestError(
                f"{name!r} in {table}.csv leads out of {root}, by a symbolic link to "
                f"{path.resolve()}. Set the image_root of {manifest_schema.DATASET_FILE} to where "
                "the images are, or copy the file."
            )
        return path

    def _made(self, view_id: str, make: Callable[[], _Made]) -> _Made:
        """A photo or panorama; what does not fit names the row of its table."""
        try:
            return make()
        except ValueError as error:
            row = self._position("views", view_id) + tables.FIRST_ROW
            raise ManifestError(str(Problem("views.csv", row, "image", str(error)))) from error

    def _image_problems(
        self,
        table: str,
        row: int,
        column: str,
        cells: Mapping[str, Any],
        camera: Mapping[str, Any] | None,
    ) -> list[Problem]:
        def check(path: Path) -> None:
            size = photos.decoded_size(path)
            if camera is not None and size != (camera["width_px"], camera["height_px"]):
                expected = f"{camera['width_px']} x {camera['height_px']}"
                raise ManifestError(
                    f"{cells[column]} has {size[0]} x {size[1]} pixels and its camera {expected}."
                )

        return self._problems_of(table, row, column, cells, check)

    def _problems_of(
        self,
        table: str,
        row: int,
        column: str,
        cells: Mapping[str, Any],
        check: Callable[[Path], None],
    ) -> list[Problem]:
        """What is wrong with the file of a cell."""
        try:
            path = self._file(table, cells[column])
            check(path)
            expected = cells.get("sha256")
            if expected and _sha256(path) != expected:
                raise ManifestError(
                    f"{cells[column]} is not the file that it was: its SHA-256 differs from the "
                    "sha256 in the table."
                )
        except (photos.PhotoError, ManifestError) as error:
            return [Problem(f"{table}.csv", row, column, str(error))]
        return []


@dataclass(frozen=True, eq=False)
class _Groups:
    """Rows by name, in the order in which the names come.

    Args:
        names: (groups,), each once.
        order: (rows,), rows by group.
        starts: (groups + 1,), where each group begins in order.
    """

    names: np.ndarray
    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, names: np.ndarray) -> _Groups:
        """Groups of equal names."""
        import pandas as pd

        codes, distinct = pd.factorize(names)
        starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(distinct)))])
        return cls(np.asarray(distinct), np.argsort(codes, kind="stable"), starts)

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Which group a name is."""
        return {name: i for i, name in enumerate(self.names.tolist())}

    def rows_of(self, number: int) -> np.ndarray:
        """Rows of a group, in their order."""
        return self.order[self.starts[number] : self.starts[number + 1]]


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ManifestError(f"there is no file {path.name!r}.")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ManifestError(f"{path} cannot be read ({error}).") from error


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
