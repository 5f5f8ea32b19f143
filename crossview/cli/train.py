"""`crossview train`: networks, from prepared datasets."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import click

from crossview import console
from crossview.cli import options

SAMPLERS = ("random", "neighbours", "similar")
HEADING_SPREAD_DEG = 5.0
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@click.group()
def command() -> None:
    """Train a network on a prepared dataset."""


@command.command()
@options.dataset
@options.out
@click.option("--model", help="Architecture of the encoder; tiny unless it is said.")
@click.option(
    "--start",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="In place of --model: train an encoder further that was trained before.",
)
@click.option(
    "--model-options",
    help='Of the architecture, as JSON: \'{"ground_px": [32, 128], "overhead_px": [32, 128]}\'.',
)
@click.option(
    "--loss",
    type=click.Choice(("triplet", "neighbour", "infonce")),
    default="infonce",
    show_default=True,
    help="Soft-margin triplets of all pairs or of neighbours, or InfoNCE.",
)
@click.option("--within-m", type=float, help="Only negatives at most so far away.")
@click.option("--beyond-m", type=float, help="Only negatives at least so far away.")
@click.option("--sigma-m", type=float, help="Negatives weigh less the nearer they are.")
@click.option(
    "--form",
    type=click.Choice(("metres", "squared")),
    help="Of the Gaussian of --sigma-m: metres, or squared as the first paper has it.",
)
@click.option(
    "--smoothing", type=click.FloatRange(0, 1, max_open=True), help="Of the targets of infonce."
)
@click.option(
    "--offsets",
    "with_offsets",
    is_flag=True,
    help="Also learn where in its tile a camera is: VIGOR's term, for --model vigor.",
)
@click.option(
    "--semipositives",
    "with_semipositives",
    is_flag=True,
    help="Also learn how tiles overlap that show a place without being its own: VIGOR's term, for "
    "--start with an encoder that knows something, on tiles of a grid.",
)
@click.option(
    "--sampler",
    type=click.Choice(SAMPLERS),
    help="What shares a batch: anything, neighbours, or what the network takes for alike; by "
    "default neighbours with --loss neighbour, else anything.",
)
@click.option(
    "--radius-m", type=float, default=100.0, show_default=True, help="Of --sampler neighbours."
)
@click.option(
    "--refresh-every",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Epochs between two looks at what is alike; neighbours until the first.",
)
@click.option(
    "--split", help="Only pairs of this split; by default train, where DATASET has splits."
)
@click.option(
    "--unseen",
    multiple=True,
    metavar="SPLIT",
    help="Tiles of this split join as negatives, its photos stay unseen (Xia et al., 2020); may be "
    "repeated.",
)
@click.option(
    "--validate",
    "validation",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another dataset for validation; by default the split val of DATASET, if it has one.",
)
@click.option("--validate-every", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--patience", type=click.IntRange(min=1), help="Stop after so many no better ones.")
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=2), default=64, show_default=True)
@click.option(
    "--chunks",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Compute a batch in so many parts, which needs less memory; same gradient.",
)
@click.option(
    "--accumulate",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Batches whose gradients are averaged for one step.",
)
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option("--weight-decay", type=float, default=0.03, show_default=True)
@click.option(
    "--heading-spread-deg",
    type=click.FloatRange(0, 180),
    help="Headings are known up to this, both ways; 180 is unknown. By default 5, or with --start "
    "what it was.",
)
@click.option(
    "--fov-deg",
    type=(float, float),
    default=(360.0, 360.0),
    show_default=True,
    help="Least and largest azimuth that is seen of a panorama.",
)
@click.option(
    "--shift-m",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Cut overhead images out of larger tiles so far off, for galleries on a grid; the model "
    "needs a footprint_m.",
)
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
def retrieval(
    dataset: Path,
    out: Path,
    model: str | None,
    start: Path | None,
    model_options: str | None,
    loss: str,
    with_offsets: bool,
    with_semipositives: bool,
    sampler: str | None,
    radius_m: float,
    refresh_every: int,
    split: str | None,
    unseen: tuple[str, ...],
    validation: Path | None,
    validate_every: int,
    patience: int | None,
    epochs: int,
    batch_size: int,
    chunks: int,
    accumulate: int,
    learning_rate: float,
    weight_decay: float,
    heading_spread_deg: float | None,
    fov_deg: tuple[float, float],
    shift_m: float,
    precision: str,
    seed: int,
    workers: int,
    **loss_options: Any,
) -> None:
    r"""Train an encoder of ground and overhead images on the pairs of DATASET.

    OUT/best is the encoder, for `crossview evaluate retrieval` and `crossview gallery build`;
    OUT/log.csv and OUT/tensorboard say how it went. Run the same command again to go on with what
    was interrupted, exactly.

    \b
    crossview synthesize --town 1-20 --pattern mixed --views 1000 --out towns
    crossview train retrieval towns --out model --epochs 20
    """
    from crossview.augmentation import Augmentation
    from crossview.manifest import Manifest
    from crossview.nn.losses import contrastive_loss
    from crossview.retrieval_training import Sampling, known_encoder, new_encoder, train_on
    from crossview.training import Options

    console.words_to_stderr(logging.INFO)
    try:
        made_with = dict(json.loads(model_options or "{}"))
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"--model-options is no JSON object: {error}.") from error
    if start is None:
        encoder = new_encoder(model or "tiny", seed=seed, precision=precision, **made_with)
    elif model is not None or made_with:
        raise click.UsageError("--start says what the model is: leave --model and its options out.")
    else:
        encoder = known_encoder(start, seed=seed, precision=precision)
    if heading_spread_deg is None:
        before_deg = encoder.heading_spread_deg
        heading_spread_deg = HEADING_SPREAD_DEG if before_deg is None else before_deg
    given = {name: value for name, value in loss_options.items() if value is not None}
    train_on(
        Manifest.load(dataset),
        encoder,
        contrastive_loss(loss, **given),
        out,
        options=Options(
            epochs=epochs,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            num_chunks=chunks,
            accumulate=accumulate,
            validate_every=validate_every,
            patience=patience,
        ),
        sampling=Sampling(
            sampler or ("neighbours" if loss == "neighbour" else "random"),
            batch_size,
            radius_m,
            refresh_every,
        ),
        augmentation=Augmentation(heading_spread_deg, fov_deg, shift_m=shift_m),
        validation=None if validation is None else Manifest.load(validation),
        split=split,
        unseen=unseen,
        with_offsets=with_offsets,
        with_semipositives=with_semipositives,
        start=None if start is None else encoder.fingerprint,
        seed=seed,
        workers=workers,
        precision=precision,
    )
