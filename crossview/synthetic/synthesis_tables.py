"""The tables of a synthetic dataset, and what stands beside them: times, odometry, class images."""

from __future__ import annotations

import csv
import json
import math
import shutil
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossview import atomic
from crossview.frames import LocalFrame
from crossview.manifest import Manifest
from crossview.synthetic import moments
from crossview.synthetic.recipes import Recipe
from crossview.synthetic.shooting import Made, camera_row, flight_of
from crossview.synthetic.worlds import MADE_UP_LICENCE, OSM_LICENCE

TIMES_FILE = "times.jsonl"
ODOMETRY_FILE = "odometry.csv"
ODOMETRY_COLUMNS = (
    "sequence_id", "order", "station_id",
    "forward_m", "right_m", "turn_deg", "sigma_m", "sigma_deg",
)  # fmt: skip
LABELS_FOLDER = "class_images"
"""A second manifest of the same views as class images, of datasets of photos in colours."""

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
SPLIT_CELL_M = 200.0
SPLIT_BUFFER_M = 25.0
"""Views nearer than this to a cell of another split belong to none."""


@dataclass(frozen=True)
class Survey:
    """A world that is to be photographed.

    Args:
        region: Its name.
        lat_deg: Anchor of its frame.
        lon_deg: Likewise.
        bounds_m: Where cameras may stand.
        attribution: Who must be named.
        map_path: Its map file.
        map_sha256: Of that.
        square_km: Of the ground where cameras may stand.
        num_buildings: In the scene.
        street_km: Of lanes to stand on.
        notes: What the map said that cannot be, and how often.
    """

    region: str
    lat_deg: float
    lon_deg: float
    bounds_m: tuple[float, float, float, float]
    attribution: str
    map_path: str
    map_sha256: str
    square_km: float
    num_buildings: int
    street_km: float
    notes: dict[str, int]


def write_tables(
    recipe: Recipe, out: Path, surveys: list[Survey], parts: list[Made]
) -> dict[str, Any]:
    """Write the manifest and what stands beside it.

    Args:
        recipe: What was made.
        out: The dataset's folder, with its images and maps.
        surveys: The worlds.
        parts: All blocks, in the order of the tables.

    Returns:
        Counts by name, as Summary has them.
    """
    rows: dict[str, Any] = {"views": [], "tiles": [], "pairs": []}
    refused: Counter[str] = Counter()
    for part in parts:
        for table, some in part.rows.items():
            rows[table] += some
        refused.update(part.refused)
    _split(recipe, surveys, rows["views"])
    names = [source.map_file for source in recipe.sources]
    maps = [
        {"region": survey.region, "file": name, "kind": "osm", "sha256": survey.map_sha256}
        for survey, name in zip(surveys, names, strict=True)
    ]
    attributions = dict.fromkeys(filter(None, (survey.attribution for survey in surveys)))
    is_made_up = all(source.is_made_up for source in recipe.sources)
    about: dict[str, Any] = {
        "name": "synthetic: " + ", ".join(survey.region for survey in surveys),
        "licence": MADE_UP_LICENCE if is_made_up else OSM_LICENCE,
        "attribution": "; ".join(attributions),
    }
    regions = [{"name": s.region, "lat_deg": s.lat_deg, "lon_deg": s.lon_deg} for s in surveys]
    cameras = [camera_row(recipe.camera_id, recipe.camera)]
    shared: dict[str, Any] = {"regions": regions, "cameras": cameras, "maps": maps}
    _write_times(recipe, out, surveys, parts)
    _write_odometry(recipe, out, parts)
    labels = {view_id: sha256 for part in parts for view_id, sha256 in part.labels.items()}
    if labels and recipe.pictures == "rgb":
        _write_labels(out, about, shared, rows["views"], labels)
    Manifest.from_rows(**about, image_root=".", **shared, **rows).write(out)
    sequences = {row["sequence_id"] for row in rows["views"] if row["sequence_id"]}
    num_places = len({row["station_id"] for row in rows["views"]})
    num_bytes = sum(part.num_bytes for part in parts) + sum(
        (out / name).stat().st_size for name in names
    )
    splits = Counter(row.get("split", "") for row in rows["views"])
    return {
        "num_places": num_places,
        "num_missing": recipe.num_views * len(surveys) - num_places,
        "num_views": len(rows["views"]),
        "num_tiles": len(rows["tiles"]),
        "num_pairs": len(rows["pairs"]),
        "num_drives": len(sequences),
        "num_files": sum(len(part.files) for part in parts) + len(maps),
        "megabytes": round(num_bytes / 1e6, 3),
        "refused": dict(sorted(refused.items())),
        "splits": {} if recipe.split == "none" else dict(sorted(splits.items())),
    }


def _write_labels(
    out: Path,
    about: dict[str, Any],
    shared: dict[str, Any],
    views: list[dict[str, Any]],
    labels: dict[str, str],
) -> None:
    """The manifest of class images, whose map is a copy (it must lie in its own folder)."""
    folder = out / LABELS_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for row in shared["maps"]:
        (folder / row["file"]).parent.mkdir(exist_ok=True)
        shutil.copyfile(out / row["file"], folder / row["file"])
    rows = [
        {
            **row,
            "image": f"classes/{Path(row['image']).relative_to('views').with_suffix('.png')}",
            "sha256": labels[row["view_id"]],
        }
        for row in views
    ]
    about = {**about, "name": f"{about['name']} (class images)"}
    Manifest.from_rows(**about, image_root="..", **shared, views=rows).write(folder)


def _write_times(recipe: Recipe, out: Path, surveys: list[Survey], parts: list[Made]) -> None:
    with (
        atomic.replacing(out / TIMES_FILE) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        for survey in surveys if recipe.tiles != "none" else ():
            for number in range(recipe.num_flights):
                facts = flight_of(recipe, survey.region, number).facts()
                file.write(json.dumps({**facts, "traffic": recipe.traffic}) + "\n")
        for part in parts:
            for facts in part.times:
                file.write(json.dumps(facts) + "\n")


def _write_odometry(recipe: Recipe, out: Path, parts: list[Made]) -> None:
    if not recipe.frames:
        return
    with (
        atomic.replacing(out / ODOMETRY_FILE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, ODOMETRY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for part in parts:
            writer.writerows(part.motions)


def _split(recipe: Recipe, surveys: list[Survey], views: list[dict[str, Any]]) -> None:
    """Put views into splits, in place; all of a station go together."""
    if recipe.split == "none":
        return
    if recipe.split == "town":
        split_of = _shares([survey.region for survey in surveys], recipe.seed)
        for row in views:
            row["split"] = split_of[row["region"]]
        return
    frames = {survey.region: LocalFrame(survey.lat_deg, survey.lon_deg) for survey in surveys}
    for row in views:
        x_m, y_m = frames[row["region"]].to_local(row["lat_deg"], row["lon_deg"])
        near = {
            _split_of_cell(recipe.seed, row["region"], float(x_m) + east, float(y_m) + north)
            for east in (-SPLIT_BUFFER_M, 0.0, SPLIT_BUFFER_M)
            for north in (-SPLIT_BUFFER_M, 0.0, SPLIT_BUFFER_M)
        }
        row["split"] = near.pop() if len(near) == 1 else ""


def _split_of_cell(seed: int, region: str, x_m: float, y_m: float) -> str:
    cell = f"{region} {math.floor(x_m / SPLIT_CELL_M)} {math.floor(y_m / SPLIT_CELL_M)}"
    draw = np.random.default_rng([seed, zlib.crc32(cell.encode()), moments.SPLITS]).uniform()
    names, shares = list(SHARES), np.cumsum(list(SHARES.values()))
    return names[min(int(np.searchsorted(shares, draw)), len(names) - 1)]


def _shares(regions: list[str], seed: int) -> dict[str, str]:
    """Splits of worlds by lot: of two, one is for tests; of three or more, one is for val too."""
    order = np.random.default_rng([seed, moments.SPLITS]).permutation(len(regions))
    num_test = max(round(len(regions) * SHARES["test"]), int(len(regions) > 1))
    num_val = max(round(len(regions) * SHARES["val"]), int(len(regions) > 2))
    names = ["test"] * num_test + ["val"] * num_val
    names += ["train"] * (len(regions) - len(names))
    return {regions[k]: name for k, name in zip(order.tolist(), names, strict=True)}
