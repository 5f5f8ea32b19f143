"""The command line: each command parses, calls one public function, and writes."""

from __future__ import annotations

import logging

import click

from crossview import __version__, console

COMMANDS = {
    "demo": ("crossview.cli.demo", "Localize a photo of a made-up town; needs no data."),
    "evaluate": ("crossview.cli.evaluate", "Measure a matcher on a dataset with known poses."),
    "fit": ("crossview.cli.fit", "Fit a matcher on a dataset with known poses."),
    "gallery": (
        "crossview.cli.gallery",
        "Describe satellite tiles once, find the ones that a photo looks like.",
    ),
    "localize": ("crossview.cli.localize", "Where was this photo taken?"),
    "report": ("crossview.cli.report", "A folder of successes and failures on a dataset."),
    "show": ("crossview.cli.show", "Pictures of how a matcher sees one place of a dataset."),
    "synthesize": (
        "crossview.cli.synthesize",
        "A dataset of a made-up town or a real map, from the street and from above.",
    ),
    "train": ("crossview.cli.train", "Train a network on a prepared dataset."),
}
"""Where each command lives and what it does: `crossview --help` imports none of them."""


@click.group(cls=console.LazyGroup, lazy=COMMANDS)
@click.version_option(__version__, prog_name="crossview")
@click.option("-v", "--verbose", is_flag=True, help="Say more, and where an error happened.")
def main(verbose: bool) -> None:
    """Cross-view geo-localization: where exactly a photo was taken, and how sure that is.

    Data goes to stdout, words to stderr.
    """
    console.words_to_stderr(logging.DEBUG if verbose else logging.WARNING)
