"""The yardstick of learned matchers: the semantic matcher on rendered worlds.

Panoramas with perfect labels, the same with errors as of a network, and rigs of four rendered
photos that a real network labels. Each on three towns that no table and no calibration has seen,
and on a real city if its map is there. The camera is searched in a disc of 25 m, its heading
unknown.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Results, run_command

TOWNS = {"grid": 301, "organic": 302, "mixed": 303}
"""Seed by pattern; tables and calibration of the class-image model are of town 100."""

SIZE_M = 700
CITY = "osm/monaco.osm.gz"
WEIGHTS = "weights/espnetv2_s_2.0_city_1024x512.pth"
NUM_VIEWS, NUM_RIGS, QUICK_VIEWS = 500, 500, 2
LABEL_NOISE = 0.5
THRESHOLDS = (1.0, 3.0, 5.0)

HEAD = (
    "| labels | world | n | median | within 1 / 3 / 5 m | heading within 1 / 3 / 5 deg | nll | "
    "coverage 50 / 90 | s per query |\n|---|---|---|---|---|---|---|---|---|"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """How pixels get their classes.

    Args:
        name: Of the row.
        synthesis: Options of `crossview synthesize`.
        is_network: Whether the network labels rendered photos.
    """

    name: str
    synthesis: tuple[str, ...]
    is_network: bool = False


LABELS = (
    Labels("perfect", ("--pictures", "classes")),
    Labels(
        f"errors of {LABEL_NOISE:g}",
        ("--pictures", "classes", "--label-noise", str(LABEL_NOISE)),
    ),
    Labels("ESPNetv2 on rendered rigs", ("--kind", "rig"), is_network=True),
)


def run(*, quick: bool) -> Results:
    """All labels on all worlds; what needs the data is left out without them."""
    data = Path(os.environ.get("CROSSVIEW_DATA", Path(__file__).parents[2] / "shared" / "data"))
    worlds: dict[str, tuple[str, ...]] = {
        f"{pattern} town {seed}": (
            "--town", str(seed), "--pattern", pattern, "--size-m", str(SIZE_M),
        )
        for pattern, seed in TOWNS.items()
    }  # fmt: skip
    if (data / CITY).is_file():
        worlds["Monaco"] = ("--osm", str(data / CITY))
    labels = [one for one in LABELS if not one.is_network or (data / WEIGHTS).is_file()]
    if quick:
        worlds, labels = dict(list(worlds.items())[:1]), labels[:1]
    rows, numbers = [HEAD], {}
    for one in labels:
        num_views = QUICK_VIEWS if quick else NUM_RIGS if one.is_network else NUM_VIEWS
        for world, source in worlds.items():
            found = _measured(source, one, num_views, data / WEIGHTS)
            numbers[f"{one.name}: {world}"] = found
            rows.append(row(one.name, world, found))
            logger.info("%s", rows[-1])
    return Results("\n".join(rows), numbers)


def recall(queries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Shares of queries within THRESHOLDS metres and degrees."""
    errors = {
        unit: np.array([query[name] for query in queries], dtype=float)
        for unit, name in (("m", "position_error_m"), ("deg", "heading_error_deg"))
    }
    return {
        f"within_{threshold:g}{unit}": float((error < threshold).mean())
        for unit, error in errors.items()
        for threshold in THRESHOLDS
    }


def row(labels: str, world: str, found: Mapping[str, Any]) -> str:
    """One line of the table."""

    def shares(unit: str) -> str:
        return " / ".join(f"{found[f'within_{threshold:g}{unit}']:.2f}" for threshold in THRESHOLDS)

    nll = "inf" if found["nll"] is None else f"{found['nll']:.2f}"
    return (
        f"| {labels} | {world} | {found['n']} | {found['median_position_error_m']:.2f} m | "
        f"{shares('m')} | {shares('deg')} | {nll} | "
        f"{found['coverage_50']:.2f} / {found['coverage_90']:.2f} | {found['query_s']:.2f} |"
    )


def _measured(
    source: Sequence[str], labels: Labels, num_views: int, weights: Path
) -> dict[str, Any]:
    """Synthesize a world and place all of its views."""
    with tempfile.TemporaryDirectory() as name:
        folder, report = Path(name) / "world", Path(name) / "report.json"
        looks = ("--weights", weights) if labels.is_network else ("--class-image",)
        run_command(
            "crossview", "synthesize", *source, *labels.synthesis, "--tiles", "none",
            "--views", str(num_views), "--out", folder,
        )  # fmt: skip
        start = time.perf_counter()
        run_command(
            "crossview", "evaluate", "pose", folder, *looks, "--seeds", "0", "--json", report
        )
        query_s = (time.perf_counter() - start) / num_views
        answers: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return {
        **answers["summary"],
        **recall(list(answers["queries"]["0"].values())),
        "query_s": query_s,
    }
