"""A manifest of a million views: seconds and memory of saving, loading, checking, appending."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Results
from crossview import manifest_schema, parquet
from crossview.frames import LocalFrame
from crossview.manifest import Manifest

NUM_VIEWS = 1_000_000
QUICK_VIEWS = 20_000
NUM_APPENDED = 1000
VIEWS_PER_STATION = 5
SEED = 4
STEPS = ("save", "load CSV", "load Parquet", "check tables", "append 1,000 rows")
_FRAME = LocalFrame(48.85, 2.33)
_FOLDER = "made-up"


def run(*, quick: bool) -> Results:
    """Every step in a process of its own, on one manifest."""
    num_views = QUICK_VIEWS if quick else NUM_VIEWS
    rows = []
    with tempfile.TemporaryDirectory() as parent:
        for step in STEPS:
            if step == "load Parquet" and not parquet.is_available():
                continue
            row = harness.in_own_process("benchmarks.manifest", step, parent, num_views)
            rows.append({"step": step, **row})
        size_bytes = (Path(parent) / _FOLDER / "views.csv").stat().st_size
    table = [
        f"| {num_views:,} views ({size_bytes / 1e6:.0f} MB of CSV) | seconds | peak memory |",
        "|---|---|---|",
        *(f"| {r['step']} | {r['wall_s']:.1f} | {r['peak_bytes'] / 1e6:.0f} MB |" for r in rows),
    ]
    return Results("\n".join(table), {"num_views": num_views, "rows": rows})


def views(num_views: int, *, seed: int, first: int = 0) -> Any:
    """A table of views, every cell filled: five to a station, all in one town."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    number = np.arange(first, first + num_views)
    station = [f"station-{i:07}" for i in number // VIEWS_PER_STATION]
    lat_deg, lon_deg = _FRAME.to_geodetic(*rng.uniform(-20_000, 20_000, (2, num_views)))
    return pd.DataFrame(
        {
            "view_id": [f"view-{i:07}" for i in number],
            "region": "town",
            "station_id": station,
            "sequence_id": [f"drive-{i:04}" for i in number // 1000],
            "order": number,
            "time_utc": [f"2014-06-16T{i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02}.841Z"
                         for i in number.tolist()],
            "kind": "photo",
            "image": [f"photos/{i // 1000:04}/view-{i:07}.jpg" for i in number],
            "camera_id": "wide",
            "lat_deg": lat_deg,
            "lon_deg": lon_deg,
            "heading_deg": rng.uniform(0, 359, num_views),
            "roll_deg": rng.normal(0, 1, num_views),
            "pitch_deg": rng.normal(0, 1, num_views),
            "height_m": 2.5,
            "accuracy_m": rng.uniform(1, 9, num_views),
            "split": rng.choice(["train", "val", "test"], num_views),
            "licence": "CC-BY-SA-4.0",
        }
    )  # fmt: skip


def _save(parent: Path, num_views: int) -> None:
    camera = {"camera_id": "wide", "model": "pinhole", "width_px": 80, "height_px": 60}
    camera |= {"fx": 40.0, "fy": 40.0, "cx": 40.0, "cy": 30.0}
    manifest = Manifest.from_rows(
        name="Made-up",
        licence="CC0",
        attribution="nobody",
        image_root="images",
        regions=[{"name": "town", "lat_deg": _FRAME.lat_deg, "lon_deg": _FRAME.lon_deg}],
        cameras=[camera],
        views=views(num_views, seed=SEED),
    )
    manifest.save(parent / _FOLDER)


def _measured(step: str, parent: Path, num_views: int) -> dict[str, Any]:
    folder = parent / _FOLDER
    start = time.perf_counter()
    if step == "save":
        _save(parent, num_views)
    elif step == "load CSV":
        _, parsed, found = manifest_schema.read(folder, use_parquet=False)
        manifest_schema.checked(parsed)
        assert len(parsed["views"]) == num_views and not found
    elif step == "load Parquet":
        assert len(Manifest.load(folder).views) == num_views
    elif step == "check tables":
        assert not manifest_schema.problems(folder)
    else:
        added = views(NUM_APPENDED, seed=SEED + 1, first=num_views)
        assert len(Manifest.append(folder, views=added).views) == num_views + NUM_APPENDED
    return {"wall_s": time.perf_counter() - start, **harness.peak(0)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("parent", type=Path)
    parser.add_argument("num_views", type=int)
    options = parser.parse_args()
    print(json.dumps(_measured(options.step, options.parent, options.num_views)), file=sys.stdout)
