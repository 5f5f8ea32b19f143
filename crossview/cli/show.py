"""`crossview show`: what a matcher sees at one station of a dataset, as pictures."""

from __future__ import annotations

from pathlib import Path

import click

from crossview.cli import options


@click.command()
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("station")
@options.out
@options.weights
@options.class_image
@click.option("--radius-m", type=click.FloatRange(min=0, min_open=True), default=25.0)
@click.option("--shift-m", type=click.FloatRange(min=0), default=15.0)
@options.compass_sigma_deg
@click.option("--seed", type=int, default=0, show_default=True, help="Of the prior's error.")
def command(
    dataset: Path,
    station: str,
    out: Path,
    weights: Path | None,
    class_image: bool,
    radius_m: float,
    shift_m: float,
    compass_sigma_deg: float | None,
    seed: int,
) -> None:
    """Draw one STATION of DATASET: footprints on photos, classes, bird's-eye view, map, heat map.

    Writes PNG files into OUT and prints their names.
    """
    from crossview.manifest import Manifest
    from crossview.pictures import draw_station
    from crossview.pose_evaluation import PriorRule, map_sources
    from crossview.birdseye_matcher import BirdsEyeMatcher

    manifest = Manifest.load(dataset)
    written = draw_station(
        manifest,
        station,
        BirdsEyeMatcher(options.segmenter(weights, class_image=class_image)),
        map_sources(manifest),
        rule=PriorRule(radius_m, shift_m, compass_sigma_deg, seed),
        out=out,
    )
    for path in written:
        click.echo(path)
