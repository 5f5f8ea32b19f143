"""`crossview evaluate`: a dataset with known poses in, the figures that papers print out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crossview import atomic
from crossview.cli import options

if TYPE_CHECKING:
    from crossview.pose_trials import PriorRule


@click.group()
def command() -> None:
    """Measure a matcher on a dataset with known poses."""


@command.command()
@options.measured
@options.matcher
@options.rules
@click.option(
    "--wrong-place",
    is_flag=True,
    help="Also search discs that do not hold the camera, on open ground 70 to 150 m away.",
)
@options.single
@click.option("--cameras", help="With --single: only photos of these cameras, such as 301,303.")
@options.camera_sigmas(pitch="0", roll="0", height="0", focal="0")
@click.option(
    "--camera-error",
    is_flag=True,
    help="Mis-state the camera of every single photo by errors of these standard deviations.",
)
@click.option(
    "--trust-camera",
    is_flag=True,
    help="With --camera-error: match as if the stated camera were exact, to compare.",
)
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
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the figures here, with every query's result.",
)
def pose(
    dataset: options.Dataset,
    matcher: str,
    rules: list[PriorRule],
    wrong_place: bool,
    single: bool,
    cameras: str | None,
    sigmas: options.CameraSigmas,
    camera_error: bool,
    trust_camera: bool,
    as_drive: bool,
    no_heights: bool,
    max_pitch_deg: float,
    json_path: Path | None,
) -> None:
    """Localize every rig of DATASET (a manifest) from a rough prior, and compare with the truth.

    Prints one JSON object: shares are fractions, thresholds strict, nll is minus the log of the
    probability density at the truth per square metre and degree (null where that is infinite
    because an answer excluded the truth). Beside every coverage is its 90 % interval (Jeffreys) as
    num_stations independent answers tell it. With several seeds, means over them and "range", the
    smallest and largest; with --drive, those of the filter and "smoothed".

    probability_elsewhere and probability_within_5m are means of what `crossview localize` states,
    answered is the share of queries that it would answer, and selective_accuracy_5m the share of
    those answers that are within 5 m. With --wrong-place, "wrong_place" says the same of n discs
    that do not hold the camera: elsewhere should be probable, and nothing answered.
    """
    from crossview.pose_evaluation import DRIVE_HEADINGS

    if as_drive and (single or wrong_place):
        raise click.UsageError(
            "A drive is of whole rigs in their place: give --drive, or --single and --wrong-place."
        )
    if cameras and not single:
        raise click.UsageError("--cameras chooses single photos: give --single too.")
    if not single:
        sigmas.require_none("the cameras of rigs are calibrated, those of --single photos may vary")
    elif matcher == "birdseye" and not trust_camera:
        sigmas.require_none("--matcher birdseye takes the camera as it is stated")
    noise = sigmas.noise()
    if camera_error and noise.is_none:
        raise click.UsageError(
            "--camera-error draws from the standard deviations of a single photo's camera: give "
            "--single and at least one of them, such as --pitch-sigma-deg 3."
        )
    if trust_camera and not camera_error:
        raise click.UsageError("--trust-camera is for wrong cameras: give --camera-error too.")
    if json_path is not None and not json_path.parent.is_dir():
        raise click.UsageError(f"--json {json_path}: there is no folder {json_path.parent}.")
    evaluation = dataset.evaluation(
        matcher,
        noise=None if trust_camera else noise,
        num_headings=DRIVE_HEADINGS if as_drive else None,
        single=single,
        cameras=tuple(cameras.split(",")) if cameras else None,
        heights=not no_heights,
        max_pitch_deg=max_pitch_deg,
        wrong_place=wrong_place,
        camera_error=noise if camera_error else None,
    )
    report = evaluation.drives(rules) if as_drive else evaluation.places(rules)
    click.echo(json.dumps(report["summary"], indent=2))
    if json_path is not None:
        with atomic.replacing(json_path) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


@command.command()
@options.measured
def offset(dataset: options.Dataset) -> None:
    """Are DATASET's photos and map off by a constant, and does it turn with the vehicle?

    Prints the offset of the columns' best places from the true ones that all rigs share, in the
    vehicle's axes (then the rig or the pose convention is off) and on the ground (then the map or
    the positions are), each with standard errors and its log-likelihood ratio to no offset.
    """
    from crossview import offsets

    found = offsets.preferences(dataset.evaluation())
    report = {
        "n": len(found),
        "vehicle": vars(offsets.vehicle_offset(found)),
        "ground": vars(offsets.ground_offset(found)),
    }
    click.echo(json.dumps(report, indent=2))


@command.command()
@options.dataset
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of an encoder, as `crossview train retrieval` writes.",
)
@click.option(
    "--untrained", metavar="NAME", help="In place of --model: an architecture as it begins."
)
@click.option("--pixels", is_flag=True, help="In place of --model: the correlation of grey levels.")
@click.option("--split", help="Only views of this split.")
@click.option(
    "--tiles",
    type=click.Choice(("split", "region")),
    help="Look among the tiles of the views of --split, or all of their regions. By default those "
    "of the split where every tile is a view's own and of one split, as in CVUSA and CVACT.",
)
@click.option(
    "--heading-spread-deg",
    type=click.FloatRange(0, 180),
    default=5.0,
    show_default=True,
    help="Headings are known up to this, both ways; 180 is unknown, as it always is to networks "
    "with a limited field of view.",
)
@click.option(
    "--fov-deg",
    type=click.FloatRange(0, 360, min_open=True),
    default=360.0,
    show_default=True,
    help="Azimuth that is seen of a panorama.",
)
@click.option(
    "--prior-radius-m",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    help="Of the prior of local recalls.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of headings and views.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write here."
)
def retrieval(
    dataset: Path,
    model: Path | None,
    untrained: str | None,
    pixels: bool,
    split: str | None,
    tiles: str | None,
    heading_spread_deg: float,
    fov_deg: float,
    prior_radius_m: float,
    seed: int,
    json_path: Path | None,
) -> None:
    """Look for every view of DATASET among its tiles, and print recalls.

    Shares are fractions, ties never help. recall_K: the view's own tile is among the first K;
    any_within_5m_K: the centre of one of them is within 5 m; contains_camera_1: the first shows the
    place at all; local_recall_K: among the tiles within --prior-radius-m only; hit_rate: at 1,
    where tiles that show the place beside its own do not compete. Metres are those to the first
    tile's centre or, with_offset, to where in it the network sees the camera. Images that cannot be
    read are named, and counted as excluded_. At one_percent_floor K is a hundredth of the tiles,
    rounded down: of less than 100 tiles that is 0, and the figure null. The file of --json also has
    the curve of metres.
    """
    from crossview.describers import Describer, PixelCorrelation
    from crossview.manifest import Manifest
    from crossview.retrieval import CURVE, Exam, Seeing

    if sum((model is not None, untrained is not None, pixels)) != 1:
        raise click.UsageError("Give one of --model, --untrained and --pixels.")
    seeing = Seeing(heading_spread_deg, fov_deg, seed)
    describer: Describer
    if pixels:
        from crossview.preprocessing import Preprocessing

        describer = PixelCorrelation(Preprocessing((64, 256), (64, 256)))
    elif model is not None:
        from crossview.nn.encoders import load_encoder

        describer = load_encoder(model)
    else:
        from crossview.retrieval_training import new_encoder

        describer = new_encoder(str(untrained), seed=seed)
    needs_heading = seeing.needs_heading(describer.preprocessing)
    exam = Exam.of(Manifest.load(dataset), split=split, needs_heading=needs_heading, tiles=tiles)
    found = exam.report(describer, seeing, prior_radius_m=prior_radius_m)
    if json_path is not None:
        with atomic.replacing(json_path) as temporary:
            temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    del found[CURVE]
    click.echo(json.dumps(found, indent=2))
