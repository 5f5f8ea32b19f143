"""The command crossview-data: datasets and maps in, manifests out."""

from __future__ import annotations

import logging

import click

from crossview import __version__, console

COMMANDS = {
    "check": ("data_tools.cli.check", "Check a manifest: tables, files, images."),
    "import": ("data_tools.cli.imports", "Make a manifest of a published dataset."),
    "satellite": ("data_tools.cli.satellite", "Fetch satellite imagery: mosaics, crops, manifests."),
}
"""Where each command lives and what it does."""


@click.group(cls=console.LazyGroup, lazy=COMMANDS)
@click.version_option(__version__, prog_name="crossview-data")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
def main(quiet: bool) -> None:
    """Prepare datasets and maps for crossview."""
    console.words_to_stderr(logging.WARNING if quiet else logging.INFO)
