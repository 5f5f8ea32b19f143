"""Training of an encoder on a dataset: which pairs share a batch, and how good it has become."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from crossview import atomic
from crossview.augmentation import AS_IT_IS, Augmentation
from crossview.datasets import Batches, ManifestPairs, readable, require_room
from crossview.describers import BATCH_SIZE
from crossview.errors import ManifestError
from crossview.manifest import Manifest
from crossview.nn.encoders import SiameseEncoder, encoder, load_encoder
from crossview.pairs import SEMIPOSITIVE, VAL, PairTable, tile_sides_m
from crossview.retrieval import Exam, Seeing
from crossview.sampling import NeighbourBatches, RandomBatches
from crossview.training import Options, Record, train

logger = logging.getLogger(__name__)

ALIKE_FILE = "alike.npz"
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class Sampling:
    """What shares a batch.

    Args:
        kind: "random", "neighbours" on the ground, or "similar": neighbours first, later what the
            network takes for alike.
        batch_size: Pairs.
        radius_m: Of neighbours.
        refresh_every: Epochs between two looks at what is alike.
    """

    kind: str = "random"
    batch_size: int = 64
    radius_m: float = 100.0
    refresh_every: int = 4

    def batches(self, table: PairTable, seed: int) -> RandomBatches | NeighbourBatches:
        """The sampler before anything is known of what is alike."""
        tiles = table.shown()
        if self.batch_size > len(table):
            raise ManifestError(
                f"A batch of {self.batch_size} pairs is more than the {len(table)} that there are: "
                "make batches smaller (--batch-size)."
            )
        if self.kind == "random":
            return RandomBatches(len(table), self.batch_size, seed=seed, excluding=tiles)
        return NeighbourBatches(
            table.tile_position_m,
            self.batch_size,
            radius_m=self.radius_m,
            seed=seed,
            excluding=tiles,
        )


def new_encoder(
    architecture: str, *, seed: int, precision: str = PRECISIONS[0], **options: Any
) -> SiameseEncoder:
    """An encoder as it begins.

    Args:
        architecture: As nn.encoders.encoder takes it.
        seed: Of its weights, and of all that networks draw from now on.
        precision: Policy in which networks compute from now on, one of PRECISIONS.
        options: Of the architecture.
    """
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    return encoder(architecture, **options)


def known_encoder(
    folder: str | Path, *, seed: int, precision: str = PRECISIONS[0]
) -> SiameseEncoder:
    """An encoder that was trained before, to be trained further; see new_encoder.

    Its scale is of the weights that it had, and gone.
    """
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    known = load_encoder(folder)
    known.scale = None
    return known


def train_on(
    manifest: Manifest,
    encoder: SiameseEncoder,
    contrast: keras.layers.Layer,
    folder: str | Path,
    *,
    options: Options,
    sampling: Sampling,
    augmentation: Augmentation,
    validation: Manifest | None = None,
    split: str | None = None,
    unseen: Sequence[str] = (),
    with_offsets: bool = False,
    with_semipositives: bool = False,
    seed: int = 0,
    workers: int = 2,
    precision: str = PRECISIONS[0],
    start: str | None = None,
) -> list[Record]:
    """Train on the pairs of a dataset; see training.train for what is written and resumed.

    Args:
        manifest: The dataset.
        encoder: What is trained, in place.
        contrast: The loss.
        folder: Of the training.
        options: How long and how fast.
        sampling: What shares a batch. Batches that are not full are left out of an epoch.
        augmentation: How pairs are varied. Its heading error is also that of validation; encoders
            with a limited field of view know no heading, see Augmentation.for_encoder.
        validation: A dataset to validate on; by default the split val, if there is one.
        split: Only pairs of this split; by default train, where the dataset has splits.
        unseen: Splits whose tiles join the batches without their ground images (Xia et al., 2020).
        with_offsets: Add VIGOR's term of where in its tile a camera is.
        with_semipositives: Add VIGOR's term of overlaps.
        seed: Of batches and augmentation.
        workers: Threads that read ahead.
        precision: The policy that the encoder was made with, for the record.
        start: Fingerprint of the encoder that this one began as, for the record.

    Raises:
        ManifestError: There are no such pairs, or no semi-positives.
        ValueError: The encoder does not say where cameras are.
    """
    if with_offsets and not hasattr(encoder, "offsets"):
        raise ValueError(
            f"{encoder.architecture} does not say where in a tile a camera is: choose vigor, or "
            "leave offsets out."
        )
    if sampling.batch_size % options.num_chunks:
        raise ValueError(
            f"A batch of {sampling.batch_size} pairs does not divide into {options.num_chunks} "
            "chunks: choose a size that does (--batch-size, --chunks)."
        )
    augmentation = augmentation.for_encoder(encoder.preprocessing)
    seeing = Seeing(augmentation.heading_spread_deg, min(augmentation.fov_deg), seed)
    needs_heading = seeing.needs_heading(encoder.preprocessing)
    split = PairTable.training_split(manifest, split)
    table = PairTable.of(manifest, split=split, unseen=unseen, needs_heading=needs_heading)
    require_room(manifest, table, encoder.preprocessing, shift_m=augmentation.shift_m)
    footprint_m = encoder.preprocessing.footprint_m
    table = readable(manifest, table, least_side_m=footprint_m or 0.0, workers=workers)
    if with_semipositives and not any(table.semipositive_ids):
        raise ManifestError(
            f"{manifest.name} has no {SEMIPOSITIVE!r} pairs: make them with `crossview synthesize "
            "--tiles grid`."
        )
    encoder.heading_spread_deg = augmentation.heading_spread_deg
    encoder.tile_side_m = (
        tile_sides_m(manifest, table.tile_ids) if footprint_m is None else (footprint_m,) * 2
    )
    sampler = sampling.batches(table, seed)
    pairs = ManifestPairs(
        manifest,
        encoder.preprocessing,
        _Full(sampler, len(table)),
        table=table,
        augmentation=augmentation,
        seed=seed,
        workers=workers,
        with_offsets=with_offsets,
        with_semipositives=with_semipositives,
    )
    exam = None
    if validation is not None:
        exam = Exam.of(validation, needs_heading=needs_heading)
    elif split != VAL and (manifest.views["split"] == VAL).any():
        exam = Exam.of(manifest, split=VAL, needs_heading=needs_heading)
    description = {
        "data": manifest.name,
        "split": split,
        "num_pairs": len(table),
        "pairs": _digest(table.view_ids, table.tile_ids, table.has_ground.tolist()),
        "validation": None if exam is None else _digest(exam.table.view_ids, exam.tile_ids),
        "augmentation": asdict(augmentation),
        "sampling": asdict(sampling),
        "seed": seed,
        "precision": precision,
        "unseen": list(unseen),
        "with_offsets": with_offsets,
        "with_semipositives": with_semipositives,
        "start": start,
    }
    return train(
        encoder,
        pairs,
        contrast,
        folder,
        options=options,
        validate=None if exam is None else _validator(exam, seeing),
        before_epoch=_refresher(pairs, sampler, sampling, Path(folder))
        if isinstance(sampler, NeighbourBatches) and sampling.kind == "similar"
        else None,
        description=description,
    )


def _digest(*ids: Sequence[Any]) -> str:
    """What tells one list of pairs from another."""
    return hashlib.sha256(json.dumps([list(each) for each in ids]).encode()).hexdigest()[:16]


def _validator(exam: Exam, seeing: Seeing) -> Callable[[SiameseEncoder], Record]:
    """Recalls of an encoder, the first one being that which is to grow."""

    def validate(encoder: SiameseEncoder) -> Record:
        found = exam.examine(encoder, seeing)
        return {f"val_{name}": found[name] for name in ("recall_1", "recall_5", "recall_10")}

    return validate


@dataclass(frozen=True)
class _Full:
    """Only batches of full size: chunks divide them, and networks see one size."""

    sampler: RandomBatches | NeighbourBatches
    num_pairs: int

    def epoch(self, number: int) -> list[np.ndarray]:
        batches = self.sampler.epoch(number)
        full = [batch for batch in batches if len(batch) == self.sampler.batch_size]
        if left_out := self.num_pairs - len(full) * self.sampler.batch_size:
            logger.info(
                "Epoch %d: %d of %d pairs are left out, as they fill no batch of %d.",
                number, left_out, self.num_pairs, self.sampler.batch_size,
            )  # fmt: skip
        return full


def _refresher(
    pairs: ManifestPairs, sampler: NeighbourBatches, sampling: Sampling, folder: Path
) -> Callable[[int, SiameseEncoder], None]:
    """What looks at what is alike, every few epochs; what it saw is kept for a resumed training."""

    def before_epoch(epoch: int, encoder: SiameseEncoder) -> None:
        last = epoch // sampling.refresh_every * sampling.refresh_every
        path = folder / ALIKE_FILE
        if last == 0:
            path.unlink(missing_ok=True)  # of a training that was begun anew
            return
        alike = _alike(path, last)
        if alike is None:
            alike = np.asarray(sampler.with_similar(*_descriptors(pairs, encoder)).alike)
            with atomic.replacing(path) as temporary:
                np.savez(temporary, alike=alike, epoch=last)
        num_companions = sampler.num_companions or max(1, sampler.batch_size // 2 - 1)
        batches: Batches = _Full(
            replace(sampler, alike=alike, num_companions=num_companions), len(pairs.table)
        )
        pairs.use(batches)

    return before_epoch


def _alike(path: Path, epoch: int) -> np.ndarray | None:
    if not path.is_file():
        return None
    with np.load(path) as kept:
        return kept["alike"] if kept["epoch"].item() == epoch else None


def _descriptors(pairs: ManifestPairs, encoder: SiameseEncoder) -> tuple[Any, Any]:
    """Of all overhead and all ground images as they are."""
    overhead_blocks, ground_blocks = [], []
    size = len(pairs.table)
    for start in range(0, size, BATCH_SIZE):
        # the last block is filled up, so that networks see one size only
        rows = [min(row, size - 1) for row in range(start, start + BATCH_SIZE)]
        tiles = np.stack([pairs.overhead(pairs.table.tile_ids[row]) for row in rows])
        views = np.stack(
            [AS_IT_IS.of_ground(pairs.ground(row), pairs.preprocessing) for row in rows]
        )
        overhead_blocks.append(encoder.overhead_descriptors(tiles))
        ground_blocks.append(encoder.ground_descriptors(views))
    overhead, ground = (np.concatenate(each)[:size] for each in (overhead_blocks, ground_blocks))
    # what is not looked at is alike to what its tile is alike to
    return overhead, np.where(pairs.table.has_ground[:, None], ground, overhead)
