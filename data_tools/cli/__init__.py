"""The command crossview-data: datasets and maps in, manifests out."""

from __future__ import annotations

import logging

import click

from crossview import __version__, console

COMMANDS = {
    "check": ("data_tools.cli.check", "Check a manifest: tables, files, images."),
    "info": ("data_tools.cli.info", "Say what a manifest holds: counts, extent, dates, splits."),
    "sheet": ("data_tools.cli.sheet", "Draw a contact sheet of a manifest: photos and tiles."),
    "split": ("data_tools.cli.split", "Divide views into train, val, test without leaking."),
    "photos": (
        "data_tools.cli.photos",
        "Make a manifest of photos: folders, GPX, Mapillary, Panoramax.",
    ),
    "import": ("data_tools.cli.imports", "Make a manifest of a published dataset."),
    "satellite": (
        "data_tools.cli.satellite",
        "Fetch satellite imagery: mosaics, crops, manifests.",
    ),
    "polar": ("data_tools.cli.polar", "Make polar tiles of a manifest's tiles or a folder's."),
    "osm": ("data_tools.cli.osm", "Make a map of OpenStreetMap or Overture data."),
}
"""Where each command lives and what it does."""


@click.group(cls=console.LazyGroup, lazy=COMMANDS)
@click.version_option(__version__, prog_name="crossview-data")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
def main(quiet: bool) -> None:
    """Prepare datasets and maps for crossview."""
    console.words_to_stderr(logging.WARNING if quiet else logging.INFO)
