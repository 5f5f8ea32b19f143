"""Options that several commands share, with one meaning everywhere."""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossview.statements import OUTSIDE

if TYPE_CHECKING:
    from crossview.birdseye_matcher import BirdsEyeMatcher
    from crossview.camera_noise import CameraNoise
    from crossview.pose_evaluation import Evaluation
    from crossview.pose_trials import PriorRule
    from crossview.segmenters import Segmenter
    from crossview.semantic import SemanticMatcher

_log = logging.getLogger(__name__)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def bundle(name: str, make: Callable[..., Any], *options: Decorator) -> Decorator:
    """Options that reach a command as one argument: what make says of their values."""
    names = tuple(inspect.signature(make).parameters)

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            made = make(**{option: values.pop(option) for option in names})
            return function(**{name: made}, **values)

        shown: Callable[..., Any] = command
        for option in reversed(options):
            shown = option(shown)
        return shown

    return decorated


dataset: Decorator = click.argument(
    "dataset", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
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
    type=click.Choice(["semantic", "birdseye"]),
    default="semantic",
    show_default=True,
    help="What compares a photo with the map: its columns, or a simple vote from above.",
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
outside: Decorator = click.option(
    "--outside",
    type=click.FloatRange(0, 1, max_open=True),
    default=OUTSIDE,
    show_default=True,
    help="Probability, before the photo is seen, that the camera is not within --radius-m.",
)
seed: Decorator = click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the priors' errors."
)
seeds: Decorator = click.option(
    "--seeds",
    "--seed",
    "seeds",
    default="0",
    show_default=True,
    help="Of the priors' errors: a number, or a range such as 0-9.",
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


@dataclass(frozen=True)
class Looks:
    """What looks at photos: --weights or --class-image, and --model."""

    weights: Path | None
    class_image: bool
    model: str | None

    def columns(
        self, *, noise: CameraNoise | None = None, num_headings: int | None = None
    ) -> SemanticMatcher:
        """The column matcher."""
        from crossview.models import load_model
        from crossview.segmenters import fingerprint
        from crossview.semantic import SemanticMatcher

        tables = load_model(
            self.model or (CLASS_IMAGE_MODEL if self.class_image else ESPNETV2_MODEL)
        )
        options: dict[str, Any] = {} if noise is None else {"noise": noise}
        if num_headings is not None:
            options["num_headings"] = num_headings
        network = segmenter(self.weights, class_image=self.class_image)
        counted = tables.provenance.get("segmenter")
        if counted not in (None, fingerprint(network)):
            _log.warning(
                "The model's tables were counted with %s and the photos are looked at by %s: its "
                "probabilities may not hold. Fit one with `crossview fit semantic`.",
                counted,
                fingerprint(network),
            )
        return SemanticMatcher(network, tables, **options)

    def matcher(
        self, name: str, *, noise: CameraNoise | None = None, num_headings: int | None = None
    ) -> SemanticMatcher | BirdsEyeMatcher:
        """The one that --matcher names."""
        from crossview.birdseye_matcher import BirdsEyeMatcher

        if name == "birdseye":
            if self.model is not None:
                raise click.UsageError(
                    "--model is for matchers that look at columns. Leave it out."
                )
            return BirdsEyeMatcher(segmenter(self.weights, class_image=self.class_image))
        return self.columns(noise=noise, num_headings=num_headings)


@dataclass(frozen=True)
class Dataset(Looks):
    """DATASET, --stations and --cache, and what looks at its photos."""

    dataset: Path
    stations: str | None
    cache: Path | None

    def evaluation(
        self,
        name: str = "semantic",
        *,
        noise: CameraNoise | None = None,
        num_headings: int | None = None,
        **changes: Any,
    ) -> Evaluation:
        """A matcher by name on this dataset; changes are fields of the evaluation."""
        from crossview.manifest import Manifest
        from crossview.pose_evaluation import Evaluation

        if self.cache is not None and name != "semantic":
            raise click.UsageError(
                f"--cache remembers columns, and --matcher {name} looks at none. Leave it out, or "
                "use --matcher semantic."
            )
        return Evaluation(
            Manifest.load(self.dataset),
            self.matcher(name, noise=noise, num_headings=num_headings),
            stations=self.stations,
            cache=self.cache,
            **changes,
        )


@dataclass(frozen=True)
class CameraSigmas:
    """How badly the camera of a single photo is known; None where nobody says."""

    pitch_sigma_deg: float | None
    roll_sigma_deg: float | None
    height_sigma_m: float | None
    focal_sigma: float | None

    def noise(self, **usual: float) -> CameraNoise:
        """What was given, and the usual for the rest; 0 where there is nothing usual."""
        from crossview.camera_noise import CameraNoise

        return CameraNoise(**{**usual, **self._given()})

    def require_none(self, reason: str) -> None:
        """Refuse what was given."""
        if given := self._given():
            names = ", ".join("--" + name.replace("_", "-") for name in given)
            raise click.UsageError(f"{names}: {reason}. Leave out what does not belong together.")

    def _given(self) -> dict[str, Any]:
        return {name: sigma for name, sigma in vars(self).items() if sigma is not None}


def camera_sigmas(*, pitch: str, roll: str, height: str, focal: str) -> Decorator:
    """Options for CameraSigmas; the arguments say in words what holds where they are not given."""

    def sigma(name: str, default: str, of: str, largest: float | None = None) -> Decorator:
        return click.option(
            name,
            type=click.FloatRange(min=0, max=largest),
            help=f"Standard deviation of the {of}; {default} if not given.",
        )

    return bundle(
        "sigmas",
        CameraSigmas,
        sigma("--pitch-sigma-deg", pitch, "pitch"),
        sigma("--roll-sigma-deg", roll, "roll"),
        sigma("--height-sigma-m", height, "camera's height"),
        sigma("--focal-sigma", focal, "focal length, as a share of it", 0.5),
    )


def _rule(
    radius_m: float, shift_m: float, compass_sigma_deg: float | None, outside: float, seed: int
) -> PriorRule:
    from crossview.evidence import ENCLOSED
    from crossview.pose_trials import PriorRule

    return PriorRule(radius_m, shift_m, compass_sigma_deg, seed, ENCLOSED, outside)


def _rules(
    radius_m: float, shift_m: float, compass_sigma_deg: float | None, outside: float, seeds: str
) -> list[PriorRule]:
    return [_rule(radius_m, shift_m, compass_sigma_deg, outside, seed) for seed in numbers(seeds)]


_rough = radius_m, shift_m, compass_sigma_deg, outside
rule: Decorator = bundle("rule", _rule, *_rough, seed)
rules: Decorator = bundle("rules", _rules, *_rough, seeds)
"""How rough the priors of trials are: for one seed, or for several."""

looks: Decorator = bundle("looks", Looks, weights, class_image, model)
measured: Decorator = bundle(
    "dataset", Dataset, dataset, weights, class_image, model, stations, cache
)
"""What looks at photos, and a dataset of them."""
