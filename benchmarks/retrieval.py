"""What a tiny encoder learns on rendered towns, beside one that has learned nothing and pixels.

Tested on a town that nothing was chosen by, for panoramas whose heading is known to 5 degrees,
for any heading, and for photos of 90 degrees with a compass; always under other light, season,
weather and traffic than the tiles.
"""

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import retrieval_worlds as worlds
from benchmarks.harness import Results, run_command

logger = logging.getLogger(__name__)

HEAD = (
    "| queries | encoder | R@1 | R@5 | R@10 | R@1 % | R@1 within 100 m | first within 5 m |\n"
    "|---|---|---|---|---|---|---|---|"
)
LEARNING = (
    "--loss", "infonce", "--smoothing", "0.1", "--learning-rate", "2e-3", "--batch-size", "128",
    "--validate-every", "2",
)  # fmt: skip
EPOCHS = 10


@dataclass(frozen=True)
class Camera:
    """What queries show, in training and in the test."""

    name: str
    training: tuple[str, ...]
    test: tuple[str, ...]


CAMERAS = (
    Camera("aligned panoramas", ("--heading-spread-deg", "5"), ("--heading-spread-deg", "5")),
    Camera("any heading", ("--heading-spread-deg", "180"), ("--heading-spread-deg", "180")),
    Camera(
        "90 degrees, compass",
        ("--heading-spread-deg", "5", "--fov-deg", "90", "180"),
        ("--heading-spread-deg", "5", "--fov-deg", "90"),
    ),
)


def run(*, quick: bool) -> Results:
    """All cameras and encoders."""
    rows, numbers = [HEAD], {}
    with worlds.folder() as where:
        test = worlds.test_town(where, quick=quick)
        val = worlds.validation_town(where, quick=quick)
        for camera in CAMERAS:
            model = worlds.trained(
                where, f"model-{CAMERAS.index(camera)}", *LEARNING, *camera.training,
                "--validate", str(val), quick=quick, epochs=EPOCHS,
            )  # fmt: skip
            describers = {
                "trained": ("--model", str(model)),
                "untrained": ("--untrained", "tiny"),
                "pixels": ("--pixels",),
            }
            for name, which in describers.items():
                found = evaluated(test, *which, *camera.test)
                numbers[f"{camera.name}: {name}"] = found
                rows.append(row(camera.name, name, found))
                logger.info("%s", rows[-1])
    return Results("\n".join(rows), numbers)


def evaluated(dataset: Path, *options: str) -> dict[str, Any]:
    """What `crossview evaluate retrieval` finds."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "found.json"
        run_command("crossview", "evaluate", "retrieval", dataset, *options, "--json", path)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def row(camera: str, name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    shares = (
        *(f"recall_{k}" for k in (1, 5, 10)), "recall_one_percent_floor", "local_recall_1",
        "any_within_5m_1",
    )  # fmt: skip
    return f"| {camera} | {name} | " + " | ".join(cell([found[s]]) for s in shares) + " |"


def cell(shares: list[float | None]) -> str:
    """The mean of shares, or a dash where there are none, as of 1 % of less than 100 tiles."""
    there = [share for share in shares if share is not None]
    return f"{sum(there) / len(there):.3f}" if there else "-"
