"""`crossview evaluate`: a dataset with known poses in, the figures that papers print out."""

from __future__ import annotations

import json
from pathlib import Path

import click

from crossview import atomic
from crossview.cli import options


@click.group()
def command() -> None:
    """Measure a matcher on a dataset with known poses."""


@command.command()
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.matcher
@options.model
@options.weights
@options.class_image
@options.stations
@options.cache
@options.radius_m
@options.shift_m
@options.compass_sigma_deg
@options.single
@click.option("--cameras", help="With --single: only photos of these cameras, such as 301,303.")
@click.option(
    "--drive",
    "as_drive",
    is_flag=True,
    help="Follow every drive with a noisy odometry; the disc is known at its first frame only.",
)
@options.no_heights
@click.option(
    "--max-pitch-deg",
    type=click.FloatRange(0, 90),
    default=90.0,
    show_default=True,
    help="Rigs leave out cameras that look higher or lower.",
)
@click.option(
    "--seeds",
    "--seed",
    "seeds",
    default="0",
    show_default=True,
    help="Of the priors' errors: a number, or a range such as 0-9.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the figures here, with every query's result.",
)
def pose(
    dataset: Path,
    matcher: str,
    model: str | None,
    weights: Path | None,
    class_image: bool,
    stations: str | None,
    cache: Path | None,
    radius_m: float,
    shift_m: float,
    compass_sigma_deg: float | None,
    single: bool,
    cameras: str | None,
    as_drive: bool,
    no_heights: bool,
    max_pitch_deg: float,
    seeds: str,
    json_path: Path | None,
) -> None:
    """Localize every rig of DATASET (a manifest) from a rough prior, and compare with the truth.

    Prints one JSON object: shares are fractions, thresholds strict, nll is minus the log of the
    probability density at the truth per square metre and degree (null where that is infinite
    because an answer excluded the truth). With several seeds, means over them and "range", the
    smallest and largest; with --drive, those of the filter and "smoothed".
    """
    from crossview.evidence import ENCLOSED
    from crossview.manifest import Manifest
    from crossview.pose_evaluation import DRIVE_HEADINGS, Evaluation, PriorRule

    if as_drive and single:
        raise click.UsageError("A drive is of whole rigs: give --drive or --single, not both.")
    if cameras and not single:
        raise click.UsageError("--cameras chooses single photos: give --single too.")
    if json_path is not None and not json_path.parent.is_dir():
        raise click.UsageError(f"--json {json_path}: there is no folder {json_path.parent}.")
    evaluation = Evaluation(
        Manifest.load(dataset),
        options.matcher_of(
            matcher,
            weights,
            class_image=class_image,
            model=model,
            num_headings=DRIVE_HEADINGS if as_drive else None,
        ),
        stations=stations,
        single=single,
        cameras=tuple(cameras.split(",")) if cameras else None,
        heights=not no_heights,
        max_pitch_deg=max_pitch_deg,
        cache=cache,
    )
    rules = [
        PriorRule(radius_m, shift_m, compass_sigma_deg, seed, ENCLOSED)
        for seed in options.numbers(seeds)
    ]
    report = evaluation.drives(rules) if as_drive else evaluation.places(rules)
    click.echo(json.dumps(report["summary"], indent=2))
    if json_path is not None:
        with atomic.replacing(json_path) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


@command.command()
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.model
@options.weights
@options.class_image
@options.stations
@options.cache
def offset(
    dataset: Path,
    model: str | None,
    weights: Path | None,
    class_image: bool,
    stations: str | None,
    cache: Path | None,
) -> None:
    """Are DATASET's photos and map off by a constant, and does it turn with the vehicle?

    Prints the offset of the columns' best places from the true ones that all rigs share, in the
    vehicle's axes (then the rig or the pose convention is off) and on the ground (then the map or
    the positions are), each with standard errors and its log-likelihood ratio to no offset.
    """
    from crossview import offsets
    from crossview.manifest import Manifest
    from crossview.pose_evaluation import Evaluation

    matcher = options.column_matcher(weights, class_image=class_image, model=model)
    evaluation = Evaluation(Manifest.load(dataset), matcher, stations=stations, cache=cache)
    found = offsets.preferences(evaluation, matcher)
    report = {
        "n": len(found),
        "vehicle": vars(offsets.vehicle_offset(found)),
        "ground": vars(offsets.ground_offset(found)),
    }
    click.echo(json.dumps(report, indent=2))
