"""Real photos: rigs, photos and drives of two stretches of one street in Paris, as README has them.

The runs are `crossview evaluate pose` on the iTowns sample dataset, from importing it on, with the
model that ships. The data are those that the data tests use; without them there is nothing to
measure.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import Results, run_command

FITTED, HELD_OUT, QUICK_STATIONS = "482-494", "495-508", "495-497"
DATASET = "paris_itowns"
WEIGHTS = "weights/espnetv2_s_2.0_city_1024x512.pth"
WRONG_CAMERA = (
    "--pitch-sigma-deg", "3", "--roll-sigma-deg", "2", "--height-sigma-m", "0.15",
    "--focal-sigma", "0.05", "--camera-error", "--seeds", "0-1",
)  # fmt: skip
TRUSTED_CAMERA = (*WRONG_CAMERA, "--trust-camera")
FRONT_AND_BACK = ("--single", "--cameras", "301,303")
COMPASS = ("--compass-sigma-deg", "5")

RIGS: Mapping[str, tuple[str, ...]] = {
    "5-photo rig, all headings": ("--wrong-place",),
    "the four level photos only (`--max-pitch-deg 45`)": ("--max-pitch-deg", "45"),
    "`--no-heights`": ("--no-heights",),
    "`--compass-sigma-deg 5`": COMPASS,
    "`--drive`, filter": ("--drive",),
}
PHOTOS: Mapping[str, tuple[str, ...]] = {
    "`--single --cameras 301,303` (front, back)": FRONT_AND_BACK,
    "the same, compass 5 deg": (*FRONT_AND_BACK, *COMPASS, "--wrong-place"),
    "`--single --cameras 302,304` (sides)": ("--single", "--cameras", "302,304"),
    "front and back, compass 5 deg, camera mis-stated (2 seeds)": (
        *FRONT_AND_BACK,
        *COMPASS,
        *WRONG_CAMERA,
    ),
    "the same, stated camera trusted": (*FRONT_AND_BACK, *COMPASS, *TRUSTED_CAMERA),
}
"""Label and options of every run; a drive's smoother is a row of its own. Sixteen cameras are
integrated over where the camera is mis-stated, so those runs have seeds of their own."""

SEEDS, QUICK_SEEDS = "0-9", "0"
QUICK = tuple(RIGS)[:1]

HEAD = (
    "| | n | median | within 1 / 2 / 5 m | median heading | within 10 deg | nll | "
    "coverage 50 / 90 / 95 | answered / of them within 5 m | elsewhere in wrong discs |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)

logger = logging.getLogger(__name__)


def run(*, quick: bool) -> Results:
    """Both stretches; quick, three rigs of one seed."""
    data = Path(os.environ.get("CROSSVIEW_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / DATASET).is_dir() or not (data / WEIGHTS).is_file():
        raise SystemExit(
            f"{data} has no {DATASET} and {WEIGHTS}: set CROSSVIEW_DATA to where they are."
        )
    runs = {**RIGS, **PHOTOS}
    if quick:
        runs = {label: runs[label] for label in QUICK}
    tables, numbers = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_command("crossview-data", "import", "itowns", data / DATASET, "--out", folder / "paris")
        for stations in (QUICK_STATIONS,) if quick else (HELD_OUT, FITTED):
            reports = {
                label: _evaluated(folder, data / WEIGHTS, stations, options, quick=quick)
                for label, options in runs.items()
            }
            numbers[stations] = reports
            tables.append(table(stations, reports))
    return Results("\n\n".join(tables), numbers)


def table(stations: str, summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of summaries of `crossview evaluate pose`, by label."""
    rows = []
    for label, summary in summaries.items():
        rows.append(row(label, summary))
        if "smoothed" in summary:
            rows.append(row(label.replace("filter", "smoother"), summary["smoothed"]))
    return "\n".join([f"Stations {stations}", "", HEAD, *rows])


def row(label: str, summary: Mapping[str, Any]) -> str:
    """One run: means over seeds, and the extremes where they differ by more than a last digit."""

    def cell(name: str, digits: int = 2) -> str:
        value = summary.get(name)
        if value is None:
            return "-"
        text = f"{value:.{digits}f}"
        low, high = (summary.get("range", {}).get(name) or (value, value))[:2]
        apart = round(high - low, digits) > 10**-digits
        return f"{text} ({low:.{digits}f}-{high:.{digits}f})" if apart else text

    def cells(*names: str) -> str:
        return " / ".join(map(cell, names))

    wrong = summary.get("wrong_place")
    elsewhere = "-" if wrong is None else (
        f"{wrong['probability_elsewhere']:.2f}, {wrong['answered']:.0%} answered"
    )  # fmt: skip
    return (
        f"| {label} | {summary['n']} | {cell('median_position_error_m')} m | "
        f"{cells('within_1m', 'within_2m', 'within_5m')} | "
        f"{cell('median_heading_error_deg', 1)} deg | {cell('within_10deg')} | {cell('nll')} | "
        f"{cells('coverage_50', 'coverage_90', 'coverage_95')} | "
        f"{cells('answered', 'selective_accuracy_5m')} | {elsewhere} |"
    )


def _evaluated(
    folder: Path, weights: Path, stations: str, options: tuple[str, ...], *, quick: bool
) -> dict[str, Any]:
    """The summary of one run."""
    report, start = folder / "report.json", time.perf_counter()
    run_command(
        "crossview", "evaluate", "pose", folder / "paris", "--stations", stations, "--seeds",
        QUICK_SEEDS if quick else SEEDS, "--weights", weights, "--cache", folder / "views",
        "--json", report, *options,
    )  # fmt: skip
    logger.info("%s: %s: %.0f s", stations, " ".join(options), time.perf_counter() - start)
    summary: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))["summary"]
    return summary
