"""`crossview evaluate`: a dataset with known poses in, the figures that papers print out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from crossview import atomic
from crossview.cli import options


@click.group()
def command() -> None:
    """Measure a matcher on a dataset with known poses."""


@command.command()
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.matcher
@options.weights
@options.class_image
@click.option(
    "--radius-m",
    type=click.FloatRange(min=0, min_open=True),
    default=25.0,
    show_default=True,
    help="Radius of the disc that surely holds the camera.",
)
@click.option(
    "--shift-m",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    help="How far the disc's centre may be off the truth, per axis.",
)
@options.compass_sigma_deg
@click.option("--single", is_flag=True, help="Every photo on its own instead of whole rigs.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the priors' errors.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the figures here, with every query's result.",
)
def pose(
    dataset: Path,
    matcher: str,  # noqa: ARG001 - there is one so far
    weights: Path | None,
    class_image: bool,
    radius_m: float,
    shift_m: float,
    compass_sigma_deg: float | None,
    single: bool,
    seed: int,
    json_path: Path | None,
) -> None:
    """Localize every rig of DATASET (a manifest) from a rough prior, and compare with the truth.

    Prints one JSON object: shares are fractions, thresholds strict, nll is minus the log of the
    probability density at the truth per square metre and degree (null where that is infinite
    because an answer excluded the truth).
    """
    from tqdm import tqdm

    from crossview.evaluation import pose_summary
    from crossview.manifest import Manifest
    from crossview.pose_evaluation import PriorRule, map_sources, queries, trials
    from crossview.semantic import SemanticMatcher

    if json_path is not None and not json_path.parent.is_dir():
        raise click.UsageError(f"--json {json_path}: there is no folder {json_path.parent}.")
    manifest = Manifest.load(dataset)
    rule = PriorRule(radius_m, shift_m, compass_sigma_deg, seed)
    running = trials(
        manifest,
        SemanticMatcher(options.segmenter(weights, class_image=class_image)),
        map_sources(manifest),
        rule,
        single=single,
    )
    total = len(queries(manifest, single=single))
    progress = tqdm(running, total=total, unit="query", delay=2, disable=None)
    # posteriors are large: only what they were worth is kept
    results = {trial.name: trial.result for trial in progress}
    summary = _finite(pose_summary(results.values()))
    click.echo(json.dumps(summary, indent=2))
    if json_path is not None:
        report = {
            **summary,
            "prior": vars(rule) | {"single": single},
            "queries": {name: _finite(vars(result)) for name, result in results.items()},
        }
        with atomic.replacing(json_path) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures with null for what JSON cannot say."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }
