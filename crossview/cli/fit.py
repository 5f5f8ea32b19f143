"""`crossview fit`: tables and calibration of a matcher from a dataset with known poses."""

from __future__ import annotations

import json
from pathlib import Path

import click

from crossview.cli import options


@click.group()
def command() -> None:
    """Fit a matcher on a dataset with known poses."""


@command.command()
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.out
@options.weights
@options.class_image
@options.stations
@options.cache
@click.option(
    "--folds",
    "num_folds",
    type=click.IntRange(min=2),
    default=3,
    show_default=True,
    help="Stretches of street for the cross-validation of the calibration.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the searched discs.")
def semantic(
    dataset: Path,
    out: Path,
    weights: Path | None,
    class_image: bool,
    stations: str | None,
    cache: Path | None,
    num_folds: int,
    seed: int,
) -> None:
    """Fit the column matcher: count what DATASET's rigs show, and calibrate by likelihood.

    Writes OUT/model.json for --model, and prints the calibration with its left-out score.
    """
    from crossview.manifest import Manifest
    from crossview.models import save_model
    from crossview.semantic_fit import fit, provenance_of, samples_of, with_correlation

    manifest = Manifest.load(dataset)
    segmenter = options.segmenter(weights, class_image=class_image)
    samples = samples_of(manifest, segmenter, stations=stations, cache=cache)
    found = fit(
        samples,
        segmenter,
        num_folds=num_folds,
        seed=seed,
        provenance=provenance_of(manifest, segmenter),
    )
    model = with_correlation(found.model, manifest, segmenter, stations=stations, cache=cache)
    save_model(model, out)
    report = {
        "calibration": vars(model.calibration),
        "left_out_log_score": found.log_score,
        "left_out_log_score_by_station": dict(found.log_score_by_station),
    }
    click.echo(json.dumps(report, indent=2))
