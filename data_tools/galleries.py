"""Galleries: crops as a manifest, alone or beside the views that they are for; and once more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview import atomic, manifest_schema, photos, tables
from crossview.errors import DatasetError, ManifestError
from crossview.frames import LocalFrame
from data_tools import crops
from data_tools.crops import Crop, WrittenCrop
from data_tools.imagery import Origin
from data_tools.points import Points

if TYPE_CHECKING:
    import pandas as pd

    from crossview.manifest import Manifest

COPIES_FOLDER = "images"
"""Of the dataset: photos that are copied into it."""

SAME_NUMBER = 1e-9
"""Degrees and metres of a computation that was made twice differ by less."""

_MADE_ANEW = frozenset({"date", "attribution", "terms_url", "sha256"})
"""Columns of tiles that may be said differently of the same crop."""

_IMAGES = (("cameras", "mask"), ("views", "image"), ("tiles", "image"))


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


# ---------------------------------------------------------------- manifests of crops


def gallery_of(
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
        folder: Where the manifest will be.
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
    )


@dataclass(frozen=True)
class Roots:
    """Where the images of views and of crops lie, as one manifest has them.

    Args:
        image_root: Of the manifest.
        of_photos: What paths of photos begin with.
        of_crops: What paths of crops begin with.
        copied: The folder that photos must be copied into, None where they stay.
    """

    image_root: str
    of_photos: str
    of_crops: str
    copied: Path | None = None


def roots_in_place(views: Manifest, crops_folder: Path) -> Roots:
    """Photos and crops where they are: the image root is the folder above both.

    Raises:
        DatasetError: They have no folder in common: an image root that is the whole file system
            would allow paths to anything.
    """
    photos_folder, crops_folder = views.image_folder.resolve(), crops_folder.resolve()
    try:
        root = Path(os.path.commonpath([photos_folder, crops_folder]))
    except ValueError:  # of Windows: on two drives
        root = Path(photos_folder.anchor)
    if root == root.parent:
        raise DatasetError(
            f"The photos in {photos_folder} and the crops in {crops_folder} have no folder in "
            "common, and a manifest has one image root. Copy the photos into the dataset "
            "(--copy-images), or give --out a folder nearer to them."
        )
    return Roots(root.as_posix(), _prefix(photos_folder, root), _prefix(crops_folder, root))


def roots_of_copies(views: Manifest, crops_folder: Path, folder: Path) -> Roots:
    """Photos copied to beside the crops, so that all of it may move together.

    What lies beside the crops already is not copied.
    """
    out, photos_folder = crops_folder.resolve().parent, views.image_folder.resolve()
    below = _prefix(crops_folder.resolve(), out)
    image_root = Path(os.path.relpath(out, folder.resolve())).as_posix()
    if photos_folder.is_relative_to(out):
        return Roots(image_root, _prefix(photos_folder, out), below)
    return Roots(image_root, f"{COPIES_FOLDER}/", below, out / COPIES_FOLDER)


def with_views(
    views: Manifest, written: Sequence[WrittenCrop], origin: Origin, roots: Roots
) -> Manifest:
    """A manifest of views, the crops around them, and which crop shows which view.

    Args:
        views: Theirs; its maps are not in it (see save).
        written: Crops that have a file; they take the place of tiles with their names.
        origin: Of their imagery.
        roots: Where images are.
    """
    from crossview.manifest import Manifest

    rows: dict[str, Any] = {
        name: getattr(views, name).to_dict("records") for name in Manifest.TABLES if name != "maps"
    }
    for table, column in _IMAGES:
        for row in rows[table]:
            row[column] = roots.of_photos + row[column] if row[column] else ""
    made = {crop.crop.tile_id for crop in written}
    for table in ("tiles", "pairs"):
        rows[table] = [row for row in rows[table] if row["tile_id"] not in made]
    rows["tiles"] += _tile_rows(written, origin, prefix=roots.of_crops)
    rows["pairs"] += _pair_rows(views, rows["views"], written)
    return Manifest.from_rows(
        name=views.name,
        licence=_together(views.licence, _licence(origin)),
        attribution=_together(views.attribution, origin.attribution),
        image_root=roots.image_root,
        **rows,
    )


def copy_images(views: Manifest, folder: Path) -> None:
    """Copy the images of a manifest to below a folder; those that are there already are left.

    Raises:
        DatasetError: One is not there, or lies outside of the image root.
    """
    root = views.image_folder.resolve()
    for table, column in _IMAGES:
        for name in sorted({name for name in getattr(views, table)[column] if name}):
            source, copy = (root / name).resolve(), folder / name
            if not source.is_relative_to(root):
                raise DatasetError(f"{name!r} in {table}.csv leads out of {root}, to {source}.")
            try:
                if copy.is_file() and _stamp(copy) == _stamp(source):
                    continue
                copy.parent.mkdir(parents=True, exist_ok=True)
                with atomic.replacing(copy) as temporary:
                    shutil.copy2(source, temporary)
            except OSError as error:
                raise DatasetError(f"{source} cannot be copied to {copy} ({error}).") from error


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def names_beside(
    views: Manifest, made: Sequence[Crop], crops_folder: Path, *, provider: str, image_format: str
) -> list[Crop]:
    """Crops under names that no other tile of a manifest has.

    A tile of the same name, place, file and provider is the crop itself, of an earlier run.

    Args:
        views: The manifest.
        made: The crops.
        crops_folder: Where their files will be.
        provider: Of their imagery.
        image_format: Of their files.
    """
    if not made or not len(views.tiles):
        return list(made)
    centers = crops.centers_of(made)
    taken = {row["tile_id"]: row for row in views.tiles.to_dict("records")}
    root = views.image_folder.resolve()

    def is_free(name: str, i: int) -> bool:
        row = taken.get(name)
        return row is None or (
            (row["region"], row["provider"]) == (made[i].region, provider)
            and root / row["image"] == crops_folder.resolve() / f"{name}.{image_format}"
            and abs(row["lat_deg"] - centers.lat_deg[i]) < SAME_NUMBER
            and abs(row["lon_deg"] - centers.lon_deg[i]) < SAME_NUMBER
            and abs(row["cell_m"] - made[i].grid.cell_m) < SAME_NUMBER
        )

    suffix, number = "", 1
    while not all(is_free(f"{crop.tile_id}{suffix}", i) for i, crop in enumerate(made)):
        number += 1
        suffix = f"_{number}"
    return [replace(crop, tile_id=f"{crop.tile_id}{suffix}") for crop in made]


# ---------------------------------------------------------------- again


def manifest_there(folder: Path) -> Manifest | None:
    """The manifest in a folder that is to be written, None where the folder is empty.

    Raises:
        ManifestError: What is there cannot be read as one.
    """
    from crossview.manifest import Manifest

    is_empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    return None if is_empty else Manifest.load(folder)


def require_same(before: Manifest, planned: Manifest, made: Sequence[Crop]) -> None:
    """Refuse to replace a manifest by one of other views or crops.

    The one that is there may lack crops, and may know more: cells that the planned one leaves
    empty, such as splits, and maps. See filled and save.

    Args:
        before: What is there.
        planned: What would be made if the imagery covered every crop.
        made: These crops.

    Raises:
        DatasetError: Something else is there.
    """
    if reason := difference(before, planned, made):
        raise DatasetError(
            f"{before.folder} is a manifest of something else: {reason}. Name another --out, or "
            "replace it and its crops with --overwrite."
        )


def difference(before: Manifest, planned: Manifest, made: Sequence[Crop]) -> str:
    """Why what is there is something else, "" where it is not; see require_same."""
    return next(_differences(before, planned, made), "")


def filled(made: Manifest, before: Manifest) -> Manifest:
    """A manifest with what an earlier one of the same (see require_same) knows besides.

    That are the cells of regions, cameras and views that are empty now, above all splits, and who
    else is credited, such as for a map.
    """
    old = before.tiles[before.tiles["tile_id"].isin(made.tiles["tile_id"])]
    credited = _others(before.attribution, set(old["attribution"]))
    licences = _others(before.licence, {_licence_of(url) for url in set(old["terms_url"])})
    return replace(
        made,
        attribution=_together(made.attribution, *credited),
        licence=_together(made.licence, *licences),
        regions=_filled(made.regions, before.regions),
        cameras=_filled(made.cameras, before.cameras),
        views=_filled(made.views, before.views),
    )


def save(
    made: Manifest, folder: Path, *, views: Manifest | None = None, before: Manifest | None = None
) -> Manifest:
    """Write a manifest into a folder, where other files than its tables stay.

    Args:
        made: The manifest.
        folder: Its folder.
        views: Whose maps it gets, for regions that have none.
        before: The manifest that is in the folder; maps of regions that are the same are kept.

    Returns:
        The manifest as it is found there.
    """
    from crossview.manifest import Manifest

    anchors = set(made.regions.itertuples(index=False, name=None))
    same = (
        {name for name, *_ in anchors}
        if before is None
        else {row[0] for row in before.regions.itertuples(index=False, name=None) if row in anchors}
    )
    there = [] if before is None else before.maps.to_dict("records")
    kept = [row for row in there if row["region"] in same]
    gone = {row["file"] for row in there} - {row["file"] for row in kept}
    files = [] if views is None else [file.path for file in views.map_files()]
    given = [] if views is None else views.maps.to_dict("records")
    mapped = {row["region"] for row in kept}
    with tables.atomic_folder(folder, overwrite=True) as partial:
        _carry(folder, partial, leaving=gone)
        for path, row in zip(files, given, strict=True):
            if row["region"] not in mapped:
                row["file"] = _free_name(partial, row["file"])
                _place(path, partial / row["file"])
                kept.append(row)
        whole = replace(made, maps=kept)  # type: ignore[arg-type]
        whole.write(partial)
        for name in gone:
            # the folder is replaced only when nothing but the new is in it
            (folder / name).unlink(missing_ok=True)
    return Manifest.load(folder)


def remove_orphans(before: Manifest, made: Manifest, crops_folder: Path) -> int:
    """Delete crops of an earlier manifest that the new one does not have; returns how many."""
    crops_folder = crops_folder.resolve()
    used, was = (
        {(manifest.image_folder / image).resolve() for image in manifest.tiles["image"]}
        for manifest in (made, before)
    )
    orphans = [p for p in was - used if p.parent == crops_folder and p.is_file()]
    for path in orphans:
        path.unlink()
    return len(orphans)


def _differences(before: Manifest, planned: Manifest, made: Sequence[Crop]) -> Iterator[str]:
    roots = [
        root.resolve()
        for root in (before.image_folder, Path(before.folder or "") / planned.image_root)
    ]
    for table in ("tiles", "views", "regions", "cameras"):
        key = manifest_schema.SCHEMA[table][0].name
        old, new = getattr(before, table), getattr(planned, table)
        if extra := sorted(set(old[key]) - set(new[key])):
            yield f"it has {len(extra)} {table} that the new one would not, such as {extra[0]!r}"
            return
        missing = sorted(set(new[key]) - set(old[key]))
        if missing and table != "tiles":
            yield f"it lacks {len(missing)} {table} of the new one, such as {missing[0]!r}"
            return
        aligned = new.set_index(key, drop=False).loc[old[key]]
        yield from _other_cells(table, (old, aligned), roots)
    known = set(planned.pairs.itertuples(index=False, name=None))
    pairs = before.pairs.itertuples(index=False, name=None)
    if other := [pair for pair in pairs if pair not in known]:
        yield f"it has {len(other)} pairs that the new one would not, such as {' '.join(other[0])}"
    names = {crop.tile_id for crop in made}
    for name in (name for name in before.tiles["tile_id"] if name in names):
        side_px, wanted_px = _side_px(before, name), made[0].grid.width
        if side_px not in (None, wanted_px):
            yield f"its crops have {side_px} pixels a side, not {wanted_px}"
        return


def _other_cells(table: str, both: Sequence[pd.DataFrame], roots: Sequence[Path]) -> Iterator[str]:
    """Cells that both know, and differently.

    Args:
        table: Its name.
        both: As it is and as it would be; rows correspond.
        roots: Of their images.
    """
    for column in manifest_schema.SCHEMA[table]:
        if table == "tiles" and column.name in _MADE_ANEW:
            continue
        was, is_now = (rows[column.name].to_numpy() for rows in both)
        differs = was != is_now
        if was.dtype.kind == "f":
            differs = ~(np.abs(was - is_now) <= SAME_NUMBER)
        differs &= _is_known(was) & _is_known(is_now)
        if (table, column.name) in _IMAGES and differs.any():
            # a manifest that was moved has other roots, one that gets crops other paths
            files = [
                np.array([os.path.normpath(root / name) for name in cells], dtype=object)
                for root, cells in zip(roots, (was, is_now), strict=True)
            ]
            differs &= files[0] != files[1]
        if differs.any():
            i = int(np.argmax(differs))
            name = both[0].iloc[i, 0]
            yield f"{column.name} of {name!r} in {table}.csv is {was[i]}, not {is_now[i]}"


def _is_known(cells: np.ndarray) -> np.ndarray:
    if cells.dtype.kind == "f":
        return ~np.isnan(cells)
    return np.asarray(cells != "", dtype=bool)


def _filled(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    key = new.columns[0]
    aligned = old.set_index(key, drop=False).loc[new[key]]
    return new.assign(
        **{
            name: np.where(_is_known(new[name].to_numpy()), new[name], aligned[name])
            for name in new.columns
        }
    )


def _side_px(manifest: Manifest, tile_id: str) -> int | None:
    try:
        return photos.decoded_size(manifest.image_path("tiles", tile_id))[0]
    except (ManifestError, photos.PhotoError):
        return None


def _carry(old: Path, new: Path, *, leaving: Collection[str]) -> None:
    """Put files of a folder that is replaced into the new one, but those that are written anew."""
    written = {manifest_schema.DATASET_FILE, *(f"{table}.csv" for table in manifest_schema.SCHEMA)}
    written |= {f"{table}.parquet" for table in manifest_schema.SCHEMA}
    for path in sorted(old.rglob("*")):
        name = path.relative_to(old).as_posix()
        if name in written or name in leaving or name.startswith(".append."):
            continue
        if path.is_dir() and not path.is_symlink():
            (new / name).mkdir(parents=True, exist_ok=True)
        else:
            _place(path, new / name)


def _place(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.is_symlink():
            target.symlink_to(path.readlink())
        else:
            shutil.copy2(path, target)
    except OSError as error:
        raise DatasetError(f"{path} cannot be copied to {target} ({error}).") from error


def _free_name(folder: Path, name: str) -> str:
    while (folder / name).exists():
        name = Path(name).with_name(f"_{Path(name).name}").as_posix()
    return name


# ---------------------------------------------------------------- rows


def _together(*texts: str) -> str:
    return "; ".join(dict.fromkeys(part for text in texts for part in text.split("; ") if part))


def _others(text: str, known: Collection[str]) -> list[str]:
    """Parts of what was put together that are not known."""
    parts = {part for one in known for part in one.split("; ")}
    return [part for part in text.split("; ") if part not in parts]


def _licence(origin: Origin) -> str:
    return _licence_of(origin.terms_url)


def _licence_of(terms_url: str) -> str:
    return f"satellite imagery: {terms_url}" if terms_url else ""


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
