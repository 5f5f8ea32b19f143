"""`crossview demo`: the whole way on a made-up town, without any data."""

from __future__ import annotations

from pathlib import Path

import click

from crossview.cli import options


@click.command()
@options.out
@click.option("--seed", type=int, default=0, show_default=True, help="Of the town and the place.")
@click.option(
    "--stations",
    "num_stations",
    type=click.IntRange(min=0),
    default=0,
    help="Also write OUT/dataset: so many rigs of four photos, for `evaluate pose` and `show`.",
)
def command(out: Path, seed: int, num_stations: int) -> None:
    """Make a town, take a photo in it, and find out where the photo was taken.

    Writes the town as OpenStreetMap XML, the photo, a heat map (PNG), GeoJSON and GeoTIFF into OUT,
    and prints estimate, truth and error.
    """
    from crossview.demo import run
    from crossview.synthetic.dataset import write_dataset
    from crossview.synthetic.town import Town

    dataset = out / "dataset"
    if num_stations and dataset.exists():
        raise click.UsageError(f"{dataset} exists already. Remove it, or give another --out.")
    click.echo(run(out, seed=seed).report())
    if num_stations:
        town = Town.from_seed(seed)
        write_dataset(town, dataset, num_stations=num_stations, seed=seed)
