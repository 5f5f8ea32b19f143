"""Maps from files: reading beside osmnx, and drawing windows of a town and of a city."""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Results
from crossview.frames import LocalFrame
from crossview.grids import MapGrid

EXTRACT = "osm/liechtenstein-latest.osm.pbf"
VECTOR_TILES = "osm/firenze.pmtiles"
WINDOW_M = 256.0
CELL_M = 0.5
NUM_WINDOWS = 200
QUICK_WINDOWS = 5
AIMS = {"seconds": 20.0, "memory": 10.0, "town_ms": 5.0, "city_ms": 50.0}
SEED = 4

CITY = (43.7731, 11.2560)
"""(lat_deg, lon_deg) of Florence's cathedral."""

CITY_RADIUS_M = 3000.0

_READERS = {
    "ours": "crossview-data osm, to .gpkg",
    "osmnx": "osmnx.features_from_xml, .osm",
}
_MAPS = {"town": "the extract", "city": "the vector tiles"}


def run(*, quick: bool) -> Results:
    """Each step in a process of its own; without the real data, or quick, a made-up town."""
    data = Path(os.environ.get("CROSSVIEW_DATA", Path(__file__).parents[2] / "shared" / "data"))
    num_windows = QUICK_WINDOWS if quick else NUM_WINDOWS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        extract = data / EXTRACT
        if quick or not extract.is_file():
            extract = _made_up(folder / "made-up.osm")
        xml = _as_xml(extract, folder / "extract.osm")
        reading = {
            "ours": _own("ours", extract, folder / "town.gpkg"),
            "osmnx": _own("osmnx", xml, folder),
        }
        drawing = {"town": _own("draw", folder / "town.gpkg", num_windows)}
        tiles = data / VECTOR_TILES
        if tiles.is_file() and not quick:
            reading["tiles"] = _own("ours", tiles, folder / "city.gpkg")
            drawing["city"] = _own("draw", folder / "city.gpkg", num_windows, "--city")
    ratios = {
        "seconds": reading["osmnx"]["cpu_s"] / reading["ours"]["cpu_s"],
        "memory": reading["osmnx"]["peak_above_imports_bytes"]
        / reading["ours"]["peak_above_imports_bytes"],
    }
    numbers = {"extract": extract.name, "ratios": ratios, "aims": AIMS}
    return Results(
        f"{_reading_table(reading, ratios, extract.name)}\n\n{_drawing_table(drawing)}",
        {**numbers, "reading": reading, "drawing": drawing},
    )


def _own(step: str, *arguments: Any) -> dict[str, Any]:
    return harness.in_own_process("benchmarks.osm", step, *arguments)


def _made_up(path: Path) -> Path:
    from crossview.synthetic.town import Town

    Town.from_seed(SEED).write(path)
    return path


def _as_xml(source: Path, path: Path) -> Path:
    """The same elements as XML, which is all that osmnx reads."""
    import osmium

    with osmium.SimpleWriter(str(path)) as writer:
        for element in osmium.FileProcessor(str(source)):
            writer.add(element)
    return path


def _reading_table(reading: dict[str, Any], ratios: dict[str, float], name: str) -> str:
    ours, osmnx = reading["ours"], reading["osmnx"]
    rows = [(name, _READERS["ours"], ours, ""), (name, _READERS["osmnx"], osmnx, "")]
    rows[1] = (
        *rows[1][:3],
        f"{ratios['seconds']:.0f}x the seconds, {ratios['memory']:.1f}x the memory",
    )
    if "tiles" in reading:
        rows.append((Path(VECTOR_TILES).name, _READERS["ours"], reading["tiles"], ""))
    lines = [
        f"| {file} | {how} | {row['cpu_s']:.2f} | {row['wall_s']:.2f} | "
        f"{row['peak_above_imports_bytes'] / 1e6:.0f} MB | {row['features']:,} | {beside} |"
        for file, how, row, beside in rows
    ]
    return "\n".join(
        [
            "| file | how | CPU s | seconds | memory above imports | features | beside ours |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


def _drawing_table(drawing: dict[str, Any]) -> str:
    lines = [
        f"| {_MAPS[name]} | {row['load_s']:.1f} | {row['first_ms']:.0f} | {row['median_ms']:.1f} | "
        f"{row['cpu_ms']:.1f} | {row['high_ms']:.1f} | {AIMS[f'{name}_ms']:g} |"
        for name, row in drawing.items()
    ]
    return "\n".join(
        [
            f"| {WINDOW_M:g} m windows of {CELL_M:g} m from the .gpkg of | load, s | first window, "
            "ms | median, ms | CPU, ms | 95 %, ms | aim, ms |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


# ------------------------------------------------------------------ in a process of its own


def _read_by_us(source: Path, out: Path) -> dict[str, Any]:
    import geopandas  # noqa: F401
    import osmium  # noqa: F401
    import pyogrio  # noqa: F401

    from data_tools.cli import main, osm  # noqa: F401

    command = ["-q", "osm", str(source), "--out", str(out), "--overwrite", "--json"]
    said = io.StringIO()

    def call() -> int:
        with redirect_stdout(said):
            main(command, standalone_mode=False)
        facts = json.loads(said.getvalue())
        return facts["areas"] + facts["lines"] + facts["points"]

    return _timed(call)


def _read_by_osmnx(source: Path) -> dict[str, Any]:
    import osmnx

    from crossview.legends import MAP_KEYS

    tags: dict[str, Any] = dict.fromkeys(sorted(MAP_KEYS), True)
    return _timed(lambda: len(osmnx.features_from_xml(source, tags=tags)))


def _timed(call: Callable[[], int]) -> dict[str, Any]:
    before = harness.resident_bytes()
    features, seconds = harness.cheapest(call, repeats=1)
    numbers: dict[str, Any] = {"features": features, **seconds}
    return numbers | harness.peak(before)


def _draw(path: Path, num_windows: int, *, is_city: bool) -> dict[str, Any]:
    from crossview.vectors import VectorMap

    start = time.perf_counter()
    vector_map = VectorMap.read(path)
    load_s = time.perf_counter() - start
    west, south, east, north = vector_map.bounds_geo
    frame = LocalFrame(*CITY) if is_city else LocalFrame((south + north) / 2, (west + east) / 2)
    durations_ms, cpu_ms = [], []
    for x_m, y_m in _centres(vector_map, frame, num_windows + 1, is_city=is_city):
        start, cpu_start = time.perf_counter(), time.process_time()
        raster = vector_map(_window(frame, x_m, y_m))
        durations_ms.append(1e3 * (time.perf_counter() - start))
        cpu_ms.append(1e3 * (time.process_time() - cpu_start))
        assert raster.classes.any()
    first_ms, *rest_ms = durations_ms  # the first one brings the map into the frame
    return {
        "load_s": load_s,
        "first_ms": first_ms,
        "median_ms": float(np.median(rest_ms)),
        "cpu_ms": float(np.median(cpu_ms[1:])),
        "high_ms": float(np.percentile(rest_ms, 95)),
        "num_windows": num_windows,
    }


def _window(frame: LocalFrame, x_m: float, y_m: float) -> MapGrid:
    return MapGrid.around(frame, x_m, y_m, radius_m=WINDOW_M / 2, cell_m=CELL_M)


def _centres(vector_map: Any, frame: LocalFrame, number: int, *, is_city: bool) -> np.ndarray:
    """Middles of windows, (number, 2) metres: anywhere in the city, or at buildings of the town."""
    rng = np.random.default_rng(SEED)
    if is_city:
        angle, reach = rng.uniform(0, 2 * np.pi, number), np.sqrt(rng.uniform(0, 1, number))
        return CITY_RADIUS_M * np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)
    table = vector_map.features.table
    buildings = table[[("building" in tags) for tags in table["tags"]]]
    bounds = buildings.bounds.to_numpy()[rng.integers(len(buildings), size=number)]
    x_m, y_m = frame.to_local(bounds[:, 1], bounds[:, 0])
    return np.stack([x_m, y_m], axis=1)


def _measured(step: str, source: Path, argument: str, *, is_city: bool) -> dict[str, Any]:
    if step == "ours":
        return _read_by_us(source, Path(argument))
    if step == "osmnx":
        return _read_by_osmnx(source)
    return _draw(source, int(argument), is_city=is_city)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("ours", "osmnx", "draw"))
    parser.add_argument("source", type=Path)
    parser.add_argument("argument")
    parser.add_argument("--city", action="store_true")
    options = parser.parse_args()
    numbers = _measured(options.step, options.source, options.argument, is_city=options.city)
    print(json.dumps(numbers), file=sys.stdout)
