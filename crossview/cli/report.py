"""`crossview report`: a dataset with known poses in, a folder of successes and failures out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from crossview.cli import options

if TYPE_CHECKING:
    from crossview.pose_trials import PriorRule


@click.command()
@options.measured
@options.out
@options.rule
@options.single
@options.no_heights
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many successes, and how many failures, are drawn.",
)
def command(
    dataset: options.Dataset,
    out: Path,
    rule: PriorRule,
    single: bool,
    no_heights: bool,
    count: int,
) -> None:
    """Localize every rig of DATASET, and show where that went best and worst.

    Writes OUT/report.md (figures, a table of all queries) with pictures: success-1-NAME.png and so
    on are the smallest position errors, failure-1-NAME.png the largest, each with what the columns
    saw and a heat map; reliability.png and errors.png are of all queries. Prints their names.

    The pictures are made from the dataset's photos: publish the folder only if their licence
    allows. The report says which licence that is.
    """
    from crossview.reports import Report

    evaluation = dataset.evaluation(single=single, heights=not no_heights)
    for path in Report.of(evaluation, rule, count=count).write(out):
        click.echo(path)
