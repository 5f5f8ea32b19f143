"""`crossview demo`: the whole way on a made-up town, without any data."""

from __future__ import annotations

from pathlib import Path

import click

from crossview.cli import options


@click.command()
@options.out
@click.option("--seed", type=int, default=0, show_default=True, help="Of the town and the place.")
def command(out: Path, seed: int) -> None:
    """Make a town, take a photo in it, and find out where the photo was taken.

    Writes the town as OpenStreetMap XML, the photo, a heat map (PNG), GeoJSON and GeoTIFF into OUT,
    and prints estimate, truth and error.
    """
    from crossview.demo import run

    click.echo(run(out, seed=seed).report())
