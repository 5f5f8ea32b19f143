"""Training of retrieval encoders: epochs that survive being killed, and a record of them."""

from __future__ import annotations

import csv
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from crossview import atomic, console
from crossview.errors import DatasetError, WeightsError
from crossview.nn.encoders import SiameseEncoder, save_encoder
from crossview.nn.trainer import PairTrainer, Stretched, numbers

STATE_FILE, LOG_FILE, BEST_FOLDER, BOARD_FOLDER = "state.npz", "log.csv", "best", "tensorboard"

WARM_UP_SHARE = 0.05
"""Of all steps: the learning rate rises to its value, and falls as a cosine afterwards."""

logger = logging.getLogger(__name__)

Record = dict[str, float]
"""What is known of one epoch."""


@dataclass(frozen=True)
class Options:
    """How to train.

    Args:
        epochs: Passes over the pairs.
        learning_rate: Largest, of AdamW.
        weight_decay: Of AdamW.
        clip_norm: Longest gradient.
        num_chunks: Parts that a batch is computed in, to need less memory; its gradient stays that
            of the whole batch (see nn.trainer).
        accumulate: Batches whose gradients are averaged for one step.
        validate_every: Epochs between validations; the last epoch is always validated.
        patience: Stop after so many validations that were no better than the best one; None never.
    """

    epochs: int = 10
    learning_rate: float = 1e-3
    weight_decay: float = 0.03
    clip_norm: float = 1.0
    num_chunks: int = 1
    accumulate: int = 1
    validate_every: int = 1
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "num_chunks", "accumulate", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, got {getattr(self, name)}.")


def train(
    encoder: SiameseEncoder,
    pairs: keras.utils.PyDataset,
    contrast: keras.layers.Layer,
    folder: str | Path,
    *,
    options: Options,
    validate: Callable[[SiameseEncoder], Mapping[str, float]] | None = None,
    before_epoch: Callable[[int, SiameseEncoder], None] | None = None,
    description: Mapping[str, Any] | None = None,
) -> list[Record]:
    """Train an encoder; the same command in the same folder goes on where it was interrupted.

    After every epoch the folder holds log.csv, TensorBoard's events where TensorFlow is installed,
    and everything that is needed to go on exactly. Its `best` is the encoder with the best
    validation, or the last one without; it is a folder for load_encoder.

    Args:
        encoder: What is trained, in place.
        pairs: Batches of `({"ground", "overhead"}, facts)`; it has an `epoch`, which is set.
        contrast: The loss, of nn.losses.
        folder: Of all that is written.
        options: How.
        validate: Of the encoder; the first of its numbers is the one that is to grow.
        before_epoch: Called with the number of an epoch before it begins, to choose other batches.
        description: Of the training, plain values, kept in the model and compared when going on.

    Returns:
        A record of every epoch: "epoch", "loss" and what validate says.

    Raises:
        WeightsError: The folder holds a training with other options.
        FolderBusyError: Another process trains in it.
        DatasetError: An epoch has no batch, or none with a negative.
        ArithmeticError: The loss is not finite any more.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # names of layers count what was made before them
    loss = {name: value for name, value in contrast.get_config().items() if name != "name"}
    about = {
        "architecture": encoder.architecture,
        "encoder": encoder.options,
        "loss": loss,
        **asdict(options),
        **dict(description or {}),
    }
    trainer = _trainer(encoder, contrast, pairs, options)
    with atomic.alone(folder), _Board(folder / BOARD_FOLDER) as board:
        records = _restored(trainer, folder, about)
        learns = bool(records)
        for epoch in range(len(records), options.epochs):
            if _has_stalled(records, options.patience):
                logger.info("No better for %d validations: stopped.", options.patience)
                break
            pairs.epoch = epoch
            if before_epoch is not None:
                before_epoch(epoch, encoder)
            if not len(pairs):
                raise DatasetError(
                    f"Epoch {epoch} has no batch: there are too few pairs, or too many show the "
                    "same places, for the size of a batch. Make batches smaller (--batch-size)."
                )
            batches = console.progress(_ahead(pairs), total=len(pairs), unit="batches")
            losses = []
            for images, facts in batches:
                learns = learns or _has_negatives(contrast, len(images["ground"]), facts)
                losses.append(trainer.step(images, facts))
            record: Record = {"epoch": epoch, "loss": float(np.mean(losses))}
            if not np.isfinite(record["loss"]):
                raise ArithmeticError(
                    f"The loss of epoch {epoch} is {record['loss']}. Lower the learning rate, or "
                    f"compute in float32; {folder} holds the epochs before."
                )
            if not learns:
                raise DatasetError(
                    f"In no batch of epoch {epoch} is a pair a negative of another, so there is "
                    "nothing to learn. Let neighbours share batches (--sampler neighbours), or "
                    "take negatives from farther away (--within-m, --beyond-m)."
                )
            is_last = epoch + 1 == options.epochs
            if validate is not None and (is_last or (epoch + 1) % options.validate_every == 0):
                record |= validate(encoder)
            records.append(record)
            logger.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in record.items()))
            if _is_best(records):
                save_encoder(encoder, folder / BEST_FOLDER, training={**about, "record": record})
            board.write(record)
            _save(trainer, folder, about, records)
    return records


def _trainer(
    encoder: SiameseEncoder,
    contrast: keras.layers.Layer,
    pairs: keras.utils.PyDataset,
    options: Options,
) -> PairTrainer:
    """The network with an optimizer, all of their variables made."""
    num_steps = max(1, options.epochs * len(pairs) // options.accumulate)
    num_warm_up = max(1, round(WARM_UP_SHARE * num_steps))
    schedule: keras.optimizers.schedules.LearningRateSchedule
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, num_steps - num_warm_up),
        warmup_target=options.learning_rate, warmup_steps=num_warm_up,
    )  # fmt: skip
    num_counted = options.num_chunks * options.accumulate
    optimizer = keras.optimizers.AdamW(
        Stretched(schedule, num_counted) if num_counted > 1 else schedule,
        weight_decay=options.weight_decay,
        global_clipnorm=options.clip_norm,
        gradient_accumulation_steps=num_counted if num_counted > 1 else None,
    )
    trainer = PairTrainer(encoder, contrast, num_chunks=options.num_chunks)
    trainer.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")
    if not contrast.built:
        contrast.build((None, encoder.descriptor_size))
    # what it was wrapped in for half precision has variables too
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def _has_negatives(
    contrast: keras.layers.Layer, num_pairs: int, facts: Mapping[str, np.ndarray]
) -> bool:
    """Whether a pair of a batch is a negative of another, of a loss that says so."""
    if not hasattr(contrast, "candidates"):
        return True
    names = ("position_m", "has_ground", "ground_position_m")
    found = contrast.candidates(num_pairs, **{n: facts[n] for n in names if n in facts})
    return any(numbers(each).any() for each in found)


def _ahead(pairs: keras.utils.PyDataset) -> Iterator[Any]:
    """The batches in order, made ahead by threads."""
    indices = iter(range(len(pairs)))
    with ThreadPoolExecutor(max(1, pairs.workers)) as pool:
        coming = deque(
            pool.submit(pairs.__getitem__, i)
            for i in itertools.islice(indices, pairs.workers + pairs.max_queue_size)
        )
        while coming:
            batch = coming.popleft().result()
            coming.extend(pool.submit(pairs.__getitem__, i) for i in itertools.islice(indices, 1))
            yield batch


def _variables(trainer: PairTrainer) -> list[keras.Variable]:
    """All that a step changes; what dropout draws from is among them."""
    return [*trainer.variables, *trainer.optimizer.variables]


def _save(
    trainer: PairTrainer, folder: Path, about: Mapping[str, Any], records: list[Record]
) -> None:
    arrays: dict[str, Any] = {
        f"v{i:05d}": numbers(variable) for i, variable in enumerate(_variables(trainer))
    }
    said = json.dumps({"about": about, "records": records})
    with atomic.replacing(folder / STATE_FILE) as temporary:
        np.savez(temporary, said=np.array(said), **arrays)
    names = list(dict.fromkeys(name for record in records for name in record))
    with atomic.replacing(folder / LOG_FILE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(records)


def _restored(trainer: PairTrainer, folder: Path, about: Mapping[str, Any]) -> list[Record]:
    """Put everything back as it was after the last epoch; the records up to there."""
    path = folder / STATE_FILE
    if not path.is_file():
        return []
    with np.load(path) as state:
        said = json.loads(state["said"].item())
        differing = sorted(
            name
            for name in {*said["about"], *about}
            if said["about"].get(name) != json.loads(json.dumps(about.get(name)))
        )
        if differing:
            raise WeightsError(
                f"{folder} holds a training with other options ({', '.join(differing)}): repeat "
                "its command to go on with it, or choose another --out."
            )
        variables = _variables(trainer)
        if len(state.files) != len(variables) + 1:
            raise WeightsError(
                f"{path} holds {len(state.files) - 1} variables and this training has "
                f"{len(variables)}: it is of another version. Choose another --out."
            )
        for i, variable in enumerate(variables):
            variable.assign(state[f"v{i:05d}"])
    records = said["records"]
    logger.info("Going on after epoch %d.", len(records))
    return records


def _validated(records: list[Record]) -> list[float]:
    """The number that is to grow, of the epochs that were validated; the loss if none was."""
    names = next((list(r)[2:] for r in records if len(r) > 2), None)
    if names is None:
        return [-record["loss"] for record in records]
    return [record[names[0]] for record in records if names[0] in record]


def _is_best(records: list[Record]) -> bool:
    """Whether the last epoch is the one to keep; without any validation the last one is."""
    if all(len(record) == 2 for record in records):
        return True
    values = _validated(records)
    return len(records[-1]) > 2 and (len(values) == 1 or values[-1] > max(values[:-1]))


def _has_stalled(records: list[Record], patience: int | None) -> bool:
    values = _validated(records)
    if patience is None or not values:
        return False
    since = len(values) - 1 - int(np.argmax(values))
    return since >= patience


class _Board:
    """TensorBoard's events, where TensorFlow is installed; TensorBoard need not be."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def __enter__(self) -> _Board:
        try:
            import tensorflow as tf
        except ImportError:
            logger.info("Without TensorFlow there are no events for TensorBoard.")
            return self
        self._folder.mkdir(exist_ok=True)
        # a file of its own for every run, as TensorBoard wants it
        name = f"events.out.tfevents.{len(list(self._folder.iterdir())):05d}"
        self._writer = tf.io.TFRecordWriter(str(self._folder / name))
        self._add(file_version="brain.Event:2")
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, record: Record) -> None:
        """Numbers of an epoch."""
        if self._writer is None:
            return
        import tensorflow as tf

        values = [
            tf.compat.v1.Summary.Value(tag=name, simple_value=value)
            for name, value in record.items()
            if name != "epoch"
        ]
        self._add(step=int(record["epoch"]), summary=tf.compat.v1.Summary(value=values))

    def _add(self, **content: Any) -> None:
        import tensorflow as tf

        event = tf.compat.v1.Event(wall_time=time.time(), **content)
        self._writer.write(event.SerializeToString())
        self._writer.flush()
