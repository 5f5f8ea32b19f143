"""The command crossview-data: datasets and maps in, manifests out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from crossview import __version__, console

if TYPE_CHECKING:
    from crossview.manifest import Manifest
    from crossview.tables import Problem

PROGRESS_DELAY_S = 2.0
"""Work shorter than this shows no progress bar."""

_Item = TypeVar("_Item")

_FOLDER = click.Path(path_type=Path)
_EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(cls=console.OneLineErrors)
@click.version_option(__version__, prog_name="crossview-data")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
def main(quiet: bool) -> None:
    """Prepare datasets and maps for crossview."""
    console.words_to_stderr(logging.WARNING if quiet else logging.INFO)


@main.group("import")
def import_() -> None:
    """Make a manifest of a published dataset; its images stay where they are."""


@import_.command()
@click.argument("source", type=_EXISTING_FOLDER)
@click.option("--out", required=True, type=_FOLDER, help="The manifest's folder, made here.")
@click.option("--overwrite", is_flag=True, help="Replace a manifest that is there.")
def itowns(source: Path, out: Path, overwrite: bool) -> None:
    """The iTowns sample dataset of IGN (Paris): rigs, calibration, building footprints.

    Prints the manifest's folder.
    """
    from data_tools.importers.itowns import import_itowns

    import_itowns(source, out, overwrite=overwrite)
    click.echo(out)


@main.command()
@click.argument("folder", type=_EXISTING_FOLDER)
def check(folder: Path) -> None:
    """Check a manifest: every table, and that every image can be read.

    Prints a summary, and each problem with its file and row; exit code 1 if there are any.
    """
    from crossview import manifest_schema
    from crossview.manifest import Manifest

    found = manifest_schema.problems(folder)
    if not found:
        manifest = Manifest.load(folder)
        _echo_summary(manifest)
        checked = _progress(manifest.image_problems(), manifest.num_files, "images")
        found = [problem for problems in checked for problem in problems]
    _echo_problems(found)
    if found:
        raise click.exceptions.Exit(1)


def _echo_summary(manifest: Manifest) -> None:
    click.echo(f"name      {manifest.name}")
    click.echo(f"licence   {manifest.licence}")
    click.echo(f"images    {manifest.image_folder}")
    for table in manifest.TABLES:
        click.echo(f"{table:<9} {len(getattr(manifest, table))}")
    click.echo(f"stations  {len(manifest.stations())}")


def _echo_problems(found: list[Problem]) -> None:
    for problem in found:
        click.echo(str(problem))
    click.echo(f"problems  {len(found)}")


def _progress(items: Iterable[_Item], total: int, unit: str) -> Iterator[_Item]:
    """The items, with a bar on a terminal where they take long."""
    from tqdm import tqdm

    # disable=None: only where stderr is a terminal
    yield from tqdm(items, total=total, unit=unit, delay=PROGRESS_DELAY_S, disable=None)
