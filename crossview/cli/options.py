"""Options that several commands share, with one meaning everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from crossview.semantic import Segmenter

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

out: Decorator = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write into; made where it is not there.",
)
weights: Decorator = click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Published ESPNetv2 weights (.pth) of the segmentation network.",
)
class_image: Decorator = click.option(
    "--class-image",
    is_flag=True,
    help="The photos are class images in the Cityscapes colours: no network is needed.",
)
matcher: Decorator = click.option(
    "--matcher",
    type=click.Choice(["semantic"]),
    default="semantic",
    show_default=True,
    help="What compares a photo with the map.",
)
compass_sigma_deg: Decorator = click.option(
    "--compass-sigma-deg",
    type=click.FloatRange(min=0, min_open=True),
    help="Standard deviation of the compass; without it the heading is searched in full.",
)


def segmenter(weights: Path | None, *, class_image: bool) -> Segmenter:
    """What says what each pixel shows: a network with its weights, or the photo itself."""
    if class_image:
        from crossview.synthetic.palette import PaletteSegmenter

        return PaletteSegmenter()
    if weights is None:
        raise click.UsageError(
            "A segmentation network needs its weights: give --weights FILE (.pth), or "
            "--class-image for photos that are class images already."
        )
    # TensorFlow's greetings are neither data nor words of ours
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from crossview.nn.checkpoints.espnetv2 import load_espnetv2
    from crossview.nn.segmentation import CityscapesSegmenter

    return CityscapesSegmenter(load_espnetv2(weights))
