"""`crossview report`: a dataset with known poses in, a folder of successes and failures out."""

from __future__ import annotations

from pathlib import Path

import click

from crossview.cli import options


@click.command()
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.out
@options.model
@options.weights
@options.class_image
@options.stations
@options.cache
@options.radius_m
@options.shift_m
@options.compass_sigma_deg
@options.single
@options.no_heights
@options.seed
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many successes, and how many failures, are drawn.",
)
def command(
    dataset: Path,
    out: Path,
    model: str | None,
    weights: Path | None,
    class_image: bool,
    stations: str | None,
    cache: Path | None,
    radius_m: float,
    shift_m: float,
    compass_sigma_deg: float | None,
    single: bool,
    no_heights: bool,
    seed: int,
    count: int,
) -> None:
    """Localize every rig of DATASET, and show where that went best and worst.

    Writes OUT/report.md (figures, a table of all queries) with pictures: success-1-NAME.png and so
    on are the smallest position errors, failure-1-NAME.png the largest, each with what the columns
    saw and a heat map; reliability.png and errors.png are of all queries. Prints their names.

    The pictures are made from the dataset's photos: publish the folder only if their licence
    allows. The report says which licence that is.
    """
    from crossview.evidence import ENCLOSED
    from crossview.manifest import Manifest
    from crossview.pose_evaluation import Evaluation, PriorRule
    from crossview.reports import Report

    evaluation = Evaluation(
        Manifest.load(dataset),
        options.column_matcher(weights, class_image=class_image, model=model),
        stations=stations,
        single=single,
        heights=not no_heights,
        cache=cache,
    )
    rule = PriorRule(radius_m, shift_m, compass_sigma_deg, seed, ENCLOSED)
    for path in Report.of(evaluation, rule, count=count).write(out):
        click.echo(path)
