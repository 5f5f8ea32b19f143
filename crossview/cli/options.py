"""Options that several commands share, with one meaning everywhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from crossview.birdseye_matcher import BirdsEyeMatcher
    from crossview.camera_noise import CameraNoise
    from crossview.joint_matcher import JointMatcher
    from crossview.segmenters import Segmenter
    from crossview.semantic import SemanticMatcher

_log = logging.getLogger(__name__)

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
    type=click.Choice(["semantic", "joint", "birdseye"]),
    default="semantic",
    show_default=True,
    help="What compares a photo with the map: its columns, a simple vote from above, or both.",
)
model: Decorator = click.option(
    "--model",
    help="Folder or name of the column model; by default the one that comes with the package for "
    "this segmentation.",
)
stations: Decorator = click.option(
    "--stations", help="Only these stations, by name or range of numbers, such as 482-494,500."
)
cache: Decorator = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that remembers what the network made of photos: later runs are quicker.",
)
compass_sigma_deg: Decorator = click.option(
    "--compass-sigma-deg",
    type=click.FloatRange(min=0, min_open=True),
    help="Standard deviation of the compass; without it the heading is searched in full.",
)
radius_m: Decorator = click.option(
    "--radius-m",
    type=click.FloatRange(min=0, min_open=True),
    default=25.0,
    show_default=True,
    help="Radius of the disc that surely holds the camera.",
)
shift_m: Decorator = click.option(
    "--shift-m",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    help="How far the disc's centre may be off the truth, per axis.",
)
seed: Decorator = click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the priors' errors."
)
single: Decorator = click.option(
    "--single", is_flag=True, help="Every photo on its own instead of whole rigs."
)
no_heights: Decorator = click.option(
    "--no-heights", is_flag=True, help="As if nobody had measured the map's buildings."
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


def numbers(text: str) -> list[int]:
    """Whole numbers of a text such as "3", "0-9" or "0-4,7"."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise click.UsageError(f"--seeds {text}: expected numbers or ranges, such as 0-9.")
        found.extend(range(int(first), int(last) + 1))
    return list(dict.fromkeys(found))


ESPNETV2_MODEL, CLASS_IMAGE_MODEL = "columns-espnetv2", "columns-class-image"
"""The column models that come with the package, by what segments."""


def matcher_of(
    name: str,
    weights: Path | None,
    *,
    class_image: bool,
    model: str | None = None,
    noise: CameraNoise | None = None,
    num_headings: int | None = None,
) -> SemanticMatcher | JointMatcher | BirdsEyeMatcher:
    """The matcher that --matcher, --weights, --class-image and --model ask for."""
    from crossview.birdseye_matcher import BirdsEyeMatcher
    from crossview.joint_matcher import JointMatcher

    if name == "birdseye":
        if model is not None:
            raise click.UsageError("--model is for matchers that look at columns. Leave it out.")
        return BirdsEyeMatcher(segmenter(weights, class_image=class_image))
    columns = column_matcher(
        weights, class_image=class_image, model=model, noise=noise, num_headings=num_headings
    )
    return columns if name == "semantic" else JointMatcher.of(columns)


def column_matcher(
    weights: Path | None,
    *,
    class_image: bool,
    model: str | None = None,
    noise: CameraNoise | None = None,
    num_headings: int | None = None,
) -> SemanticMatcher:
    """The column matcher that --weights, --class-image and --model ask for."""
    from crossview.models import load_model
    from crossview.segmenters import fingerprint
    from crossview.semantic import SemanticMatcher

    tables = load_model(model or (CLASS_IMAGE_MODEL if class_image else ESPNETV2_MODEL))
    options: dict[str, Any] = {} if noise is None else {"noise": noise}
    if num_headings is not None:
        options["num_headings"] = num_headings
    network = segmenter(weights, class_image=class_image)
    counted = tables.provenance.get("segmenter")
    if counted not in (None, fingerprint(network)):
        _log.warning(
            "The model's tables were counted with %s and the photos are looked at by %s: its "
            "probabilities may not hold. Fit one with `crossview fit semantic`.",
            counted,
            fingerprint(network),
        )
    return SemanticMatcher(network, tables, **options)
