"""Worlds and encoders that the benchmarks of retrieval share, kept in a folder if one is given.

Everything goes on where it was interrupted, as `crossview synthesize` and `train retrieval` do.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import run_command

FOLDER = "CROSSVIEW_BENCHMARK_FOLDER"
"""Environment variable: where worlds and encoders are kept from one run to the next."""

TRAINING_TOWNS, VALIDATION_TOWN, TEST_TOWN, WIDE_TOWN = "401-420", "501", "500", "502"
VIEWS = 1000
PANORAMA = ("--width", "256", "--height", "128")
"""Rows within 45 degrees of the horizon are those of the encoder."""

TILES = ("--tile-px", "128", "--cell-m", "0.5")
LARGER_TILES = ("--tile-px", "160", "--cell-m", "0.5")
"""Of 64 m and of 80 m."""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """The folder of the environment variable, or one that is removed afterwards."""
    if kept := os.environ.get(FOLDER):
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def towns(where: Path, name: str, seeds: str, *options: str, size_m: int, views: int) -> Path:
    """A dataset of made-up towns with fully randomised appearance."""
    out = where / name
    run_command(
        "crossview", "synthesize", "--town", seeds, "--pattern", "mixed",
        "--size-m", str(size_m), "--views", str(views), "--heading-spread-deg", "180",
        *PANORAMA, *options, "--out", out,
    )  # fmt: skip
    return out


def training_towns(where: Path, *, quick: bool) -> Path:
    """20,000 pairs of 20 towns."""
    if quick:
        return towns(where, "train-quick", "401", *TILES, size_m=300, views=12)
    return towns(where, "train", TRAINING_TOWNS, *TILES, size_m=700, views=VIEWS)


def larger_tiles(where: Path, *, quick: bool) -> Path:
    """10,000 pairs of 10 towns, with tiles of 80 m, in which squares of 64 m can be shifted."""
    if quick:
        return towns(where, "train-wide-quick", "401", *LARGER_TILES, size_m=300, views=12)
    return towns(where, "train-wide", "401-410", *LARGER_TILES, size_m=700, views=VIEWS)


def validation_town(where: Path, *, quick: bool) -> Path:
    """A town by which epochs are chosen."""
    if quick:
        return towns(where, "val-quick", VALIDATION_TOWN, *TILES, size_m=300, views=12)
    return towns(where, "val", VALIDATION_TOWN, *TILES, size_m=1000, views=VIEWS)


def test_town(where: Path, *, quick: bool) -> Path:
    """A town that nothing was chosen by: 1,000 places on 0.77 square kilometres."""
    if quick:
        return towns(where, "test-quick", TEST_TOWN, *TILES, size_m=300, views=12)
    return towns(where, "test", TEST_TOWN, *TILES, size_m=1000, views=VIEWS)


def trained(
    where: Path,
    name: str,
    *options: str,
    quick: bool,
    epochs: int,
    pairs: Callable[..., Path] = training_towns,
) -> Path:
    """A tiny encoder, trained on a dataset; the folder of the best epoch."""
    size = ("--epochs", "1", "--batch-size", "4") if quick else ("--epochs", str(epochs))
    out = where / f"{name}{'-quick' if quick else ''}"
    run_command(
        "crossview", "train", "retrieval", pairs(where, quick=quick), "--out", out,
        *options, *size,
    )  # fmt: skip
    return out / "best"
