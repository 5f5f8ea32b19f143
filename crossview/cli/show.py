"""`crossview show`: what a matcher sees at one station of a dataset, as pictures."""

from __future__ import annotations

from pathlib import Path

import click

from crossview.cli import options


@click.command()
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("station")
@options.out
@options.model
@options.weights
@options.class_image
@options.radius_m
@options.shift_m
@options.compass_sigma_deg
@options.seed
def command(
    dataset: Path,
    station: str,
    out: Path,
    model: str | None,
    weights: Path | None,
    class_image: bool,
    radius_m: float,
    shift_m: float,
    compass_sigma_deg: float | None,
    seed: int,
) -> None:
    """Draw one STATION of DATASET: footprints on photos, classes, columns, map and heat map.

    Writes PNG files into OUT and prints their names. Heat map and best pose are the column
    matcher's; the bird's-eye view is what the simpler matcher looks at. The pictures show the
    dataset's photos: publish them only if its licence allows.
    """
    from crossview.evidence import ENCLOSED
    from crossview.manifest import Manifest
    from crossview.pictures import draw_station
    from crossview.pose_evaluation import PriorRule, map_sources

    manifest = Manifest.load(dataset)
    written = draw_station(
        manifest,
        station,
        options.column_matcher(weights, class_image=class_image, model=model),
        map_sources(manifest),
        rule=PriorRule(radius_m, shift_m, compass_sigma_deg, seed, ENCLOSED),
        out=out,
    )
    for path in written:
        click.echo(path)
