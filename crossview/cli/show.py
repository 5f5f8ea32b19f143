"""`crossview show`: what a matcher sees at one station of a dataset, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from crossview.cli import options

if TYPE_CHECKING:
    from crossview.pose_trials import PriorRule


@click.command()
@options.dataset
@click.argument("station")
@options.out
@options.looks
@options.rule
def command(dataset: Path, station: str, out: Path, looks: options.Looks, rule: PriorRule) -> None:
    """Draw one STATION of DATASET: footprints on photos, classes, columns, map and heat map.

    Writes PNG files into OUT and prints their names. Heat map and best pose are the column
    matcher's; the bird's-eye view is what the simpler matcher looks at. The pictures show the
    dataset's photos: publish them only if its licence allows.
    """
    from crossview.manifest import Manifest
    from crossview.pictures import draw_station
    from crossview.pose_queries import map_sources

    manifest = Manifest.load(dataset)
    maps = map_sources(manifest)
    for path in draw_station(manifest, station, looks.columns(), maps, rule=rule, out=out):
        click.echo(path)
