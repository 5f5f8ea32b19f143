"""What a training step does: a chunk of a batch at a time, with the gradient of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from crossview.nn.losses import iou_loss, offset_loss, square_iou

SIDES = ("ground", "overhead")
SEMIPOSITIVE = "semipositive"
OFFSETS = ("offset", "semipositive_offset")


@keras.saving.register_keras_serializable("crossview")
class Stretched(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule for an optimizer that counts several steps for one.

    Args:
        schedule: By step.
        count: Of counted steps that are one.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, count: int):
        self.schedule, self.count = schedule, count

    def __call__(self, step: Any) -> Any:
        """The learning rate at a counted step."""
        return self.schedule(step // self.count)

    def get_config(self) -> dict[str, Any]:
        """Plain values."""
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "count": self.count}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Stretched:
        """Inverse of get_config."""
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(schedule, config["count"])


class PairTrainer(keras.Model):
    """An encoder with a contrastive loss.

    Contrastive losses compare every pair of a batch with every other, so a batch that does not fit
    into memory cannot simply be divided. Its descriptors can: they are computed chunk by chunk
    without gradients first; then each chunk again, with gradients, beside the descriptors of the
    others (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
    2021). The sum over chunks is the gradient of the whole batch, up to what a network computes of
    a whole batch itself, such as BatchNormalization's means, which here are those of chunks.

    Two terms of VIGOR are added where batches and encoder have what they need: where in its tile a
    camera is (fact "offset", output "offset"), and how tiles overlap that show its place without
    being its own (image "semipositive", facts "offset" and "semipositive_offset").

    Args:
        encoder: `.ground` and `.overhead`, from images to descriptors.
        contrast: Layer from (ground, overhead, **facts) to a loss.
        num_chunks: Parts of a batch. The optimizer must accumulate as many gradients.
    """

    def __init__(
        self, encoder: Any, contrast: keras.layers.Layer, *, num_chunks: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder
        self.contrast = contrast
        self.num_chunks = num_chunks
        self._describer = _Describer(encoder) if num_chunks > 1 else None

    def build(self, input_shape: Any) -> None:  # noqa: ARG002
        """Nothing: the encoder's branches have their weights already."""
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Descriptors of both sides, and of semi-positive tiles."""
        described = self.encoder(inputs, training=training)
        if SEMIPOSITIVE not in inputs:
            return described
        other = self.encoder.overhead(inputs[SEMIPOSITIVE], training=training)
        return {**described, SEMIPOSITIVE: other}

    def compute_loss(
        self,
        x: Any = None,  # noqa: ARG002
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,  # noqa: ARG002
        training: bool = True,  # noqa: ARG002
    ) -> Any:
        """The loss of the whole batch, as a function of this chunk's descriptors."""
        facts = dict(y)
        offset, other_offset = (facts.pop(name, None) for name in OFFSETS)
        sides = {side: ops.cast(y_pred[side], "float32") for side in SIDES}
        has_ground = facts.get("has_ground")
        if self.num_chunks > 1:
            # slice_update has no gradient in TensorFlow; sums of products with 0 and 1 are exact
            numbers_of_rows = facts.pop("rows")
            offset, other_offset, has_ground = (
                None if each is None else ops.take(each, numbers_of_rows, axis=0)
                for each in (offset, other_offset, has_ground)
            )
            rows = ops.one_hot(numbers_of_rows, ops.shape(facts["ground"])[0])
            for side in SIDES:
                # the optimizer averages over chunks where the gradient is a sum
                kept = ops.stop_gradient(sides[side])
                louder = self.num_chunks * sides[side] - (self.num_chunks - 1) * kept
                others = facts.pop(side) * (1.0 - ops.sum(rows, axis=0))[:, None]
                sides[side] = others + ops.matmul(ops.transpose(rows), louder)
        ground, overhead = sides["ground"], sides["overhead"]
        if hasattr(self.encoder, "similarities"):
            facts["similarity"] = self.encoder.similarities(overhead, ground)
        loss = self.contrast(ground, overhead, **facts)
        loss = loss + _vigor_terms(y_pred, offset, other_offset, has_ground)
        for penalty in self.losses:
            loss = loss + penalty
        return loss

    def step(self, images: Mapping[str, np.ndarray], facts: Mapping[str, np.ndarray]) -> float:
        """Take one step with a batch; its loss.

        Args:
            images: "ground", "overhead" and perhaps "semipositive", (batch, rows, cols, 3) each.
            facts: What the loss asks for, (batch, ...) each.
        """
        self.reset_metrics()
        if self._describer is None:
            return float(self.train_on_batch(images, dict(facts)))
        size = len(images["ground"])
        if size % self.num_chunks:
            raise ValueError(
                f"A batch of {size} pairs does not divide into {self.num_chunks} chunks: choose "
                "a batch size that does, and leave out smaller batches."
            )
        parts = np.arange(size).reshape(self.num_chunks, -1)
        chunks = [{name: each[rows] for name, each in images.items()} for rows in parts]
        # what dropout draws, and means of normalizations, are the same when a chunk comes again
        before, described = [], []
        for chunk in chunks:
            before.append([numbers(v) for v in self.non_trainable_variables])
            described.append(self._describer.predict_on_batch(chunk))
        whole = {side: np.concatenate([one[side] for one in described]) for side in SIDES}
        loss = 0.0
        for rows, chunk, values in zip(parts, chunks, before, strict=True):
            for variable, value in zip(self.non_trainable_variables, values, strict=True):
                variable.assign(value)
            known = {**facts, **whole, "rows": rows.astype(np.int32)}
            loss = float(self.train_on_batch(chunk, known))
        return loss


def _vigor_terms(
    described: Mapping[str, Any], offset: Any, other_offset: Any, has_ground: Any
) -> Any:
    """Of what a network says of a chunk, and what is true; 0 where it is not asked.

    Pairs without a ground image take no part: they are as if all was said right.
    """

    def where_seen(said: Any, else_: Any) -> Any:
        if has_ground is None:
            return said
        is_seen = ops.reshape(has_ground, (-1,) + (1,) * (len(said.shape) - 1))
        return ops.where(is_seen, said, ops.cast(else_, said.dtype))

    terms = 0.0
    if "offset" in described:
        said = described["offset"]
        # a head that is not asked has gradients of 0, rather than none, which Keras warns of
        terms = (
            0.0 * ops.sum(said) if offset is None else offset_loss(where_seen(said, offset), offset)
        )
    if SEMIPOSITIVE in described:
        # in halves of a side, which is 2
        ratio = square_iou(other_offset, 2.0) / square_iou(offset, 2.0)
        ground, own, other = (described[name] for name in (*SIDES, SEMIPOSITIVE))
        terms = terms + iou_loss(ground, own, where_seen(other, own), where_seen(ratio, 1.0))
    return terms


def numbers(variable: keras.Variable) -> np.ndarray:
    """A copy of what a variable holds; what NumPy has no type for, such as bfloat16, as float32."""
    values = ops.convert_to_tensor(variable)
    if keras.backend.standardize_dtype(values.dtype) == "bfloat16":
        values = ops.cast(values, "float32")
    return np.array(ops.convert_to_numpy(values))


class _Describer(keras.Model):
    """Descriptors as training computes them, without gradients."""

    def __init__(self, encoder: Any) -> None:
        super().__init__(name="describer")
        self.encoder = encoder

    def build(self, input_shape: Any) -> None:  # noqa: ARG002
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ARG002
        described = self.encoder(inputs, training=True)
        return {side: ops.cast(described[side], "float32") for side in SIDES}
