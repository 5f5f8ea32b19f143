"""`crossview-data check`: is a manifest as it should be?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from crossview.manifest import Manifest
    from crossview.tables import Problem

PROGRESS_DELAY_S = 2.0
"""Work shorter than this shows no progress bar."""

_Item = TypeVar("_Item")

_EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("folder", type=_EXISTING_FOLDER)
def command(folder: Path) -> None:
    """Check a manifest: every table, and that every image can be read.

    Prints a summary, and each problem with its file and row; exit code 1 if there are any.
    """
    from crossview import manifest_schema
    from crossview.manifest import Manifest

    found = manifest_schema.problems(folder)
    if not found:
        manifest = Manifest.load(folder)
        _echo_summary(manifest)
        checked = _progress(manifest.file_problems(), manifest.num_files, "images")
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
