"""Contrastive losses: a ground image is to be nearer to its overhead image than to others.

All matrices have overhead images in rows and ground images in columns, (overhead, ground), and
descriptors are L2-normalised. Half precision is computed in float32: a softplus of 40 does not fit
float16 as a logarithm of an exponential.

References: soft margin, Hu et al., "CVM-Net", CVPR 2018, as batch-all by Shi et al.,
"Spatial-Aware Feature Aggregation" (SAFA), NeurIPS 2019; neighbourhoods, Xia et al.,
"Geographically Local Representation Learning", ECCV Workshops 2020, and "Cross-View Matching for
Vehicle Localization", RA-L 2021; InfoNCE, van den Oord et al., 2018, symmetric as by Radford et
al., 2021, decoupled as by Yeh et al., 2022; overlaps and offsets, Zhu et al., "VIGOR", CVPR 2021.
"""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple

import keras
from keras import ops

GAMMA = 10.0
"""Steepness of the soft margin on squared distances (SAFA)."""

TEMPERATURE = 0.07
"""Where a learnable temperature starts (CLIP)."""

IOU_DIVISOR = 10.0
OFFSET_DIVISOR = 100.0
"""What VIGOR divides its two terms by before adding them to the triplets."""

FORMS = ("metres", "squared")
MASKS = ("outside", "inside")

_EXCLUDED = -1e30  # a logit that no sum of exponentials sees, finite so that gradients are


class Negatives(NamedTuple):
    """Which pairs are negatives, 1 or 0; the two directions differ where a ground image is missing.

    Args:
        of_ground: (overhead, ground) overhead images from which ground images are told apart.
        of_overhead: (overhead, ground) ground images from which overhead images are told apart.
    """

    of_ground: Any
    of_overhead: Any


def squared_distances(overhead: Any, ground: Any) -> Any:
    """Squared distances 2 - 2<s, g> of L2-normalised descriptors.

    Args:
        overhead: (overhead, D)
        ground: (ground, D)

    Returns:
        (overhead, ground), 0 to 4.
    """
    return 2.0 - 2.0 * similarities(overhead, ground)


def similarities(overhead: Any, ground: Any) -> Any:
    """Inner products, (overhead, ground), at least in float32."""
    return ops.matmul(_at_least_float32(overhead), ops.transpose(_at_least_float32(ground)))


def distances_m(overhead_position_m: Any, ground_position_m: Any) -> Any:
    """Metres between places, (overhead, ground), of (overhead, 2) and (ground, 2)."""
    to, of = _at_least_float32(overhead_position_m), _at_least_float32(ground_position_m)
    # differences first: norms of positions far from the origin would cancel
    return ops.sqrt(ops.sum(ops.square(to[:, None] - of[None]), axis=-1))


def footprint_iou(overhead_position_m: Any, other_position_m: Any, footprint_m: float) -> Any:
    """Intersection over union of north-up squares around places.

    Args:
        overhead_position_m: (overhead, 2) centres.
        other_position_m: (others, 2) centres.
        footprint_m: Side of every square.

    Returns:
        (overhead, others), 0 to 1.
    """
    to, of = _at_least_float32(overhead_position_m), _at_least_float32(other_position_m)
    return square_iou(to[:, None] - of[None], footprint_m)


def square_iou(offset: Any, side: float) -> Any:
    """Intersection over union of two equal parallel squares, (...), by (..., 2) between them."""
    offset = _at_least_float32(offset)
    shared = ops.prod(ops.maximum(1.0 - ops.abs(offset) / side, 0.0), axis=-1)
    return shared / (2.0 - shared)


def negatives(
    num_pairs: Any,
    *,
    distance_m: Any = None,
    within_m: float | None = None,
    beyond_m: float | None = None,
    overlap: Any = None,
    max_overlap: float = 0.0,
    has_ground: Any = None,
) -> Negatives:
    """All pairs of a batch that are negatives of each other; never an image's own partner.

    Args:
        num_pairs: Pairs of the batch.
        distance_m: (overhead, ground) metres, for the two radii.
        within_m: Only pairs at most so far apart (Xia et al., 2020).
        beyond_m: Only pairs at least so far apart (SAFA on CVACT: 25 m).
        overlap: (overhead, ground) intersection over union of footprints.
        max_overlap: Pairs that overlap more are not told apart.
        has_ground: (pairs,) bool, False where only the overhead image is there and its ground
            image is to stay unseen. Such an overhead image is a negative of other ground images,
            but no query, and its empty ground image is neither (Xia et al., 2020).
    """
    is_negative = 1.0 - ops.eye(num_pairs)
    if within_m is not None:
        is_negative *= ops.cast(distance_m <= within_m, is_negative.dtype)
    if beyond_m is not None:
        is_negative *= ops.cast(distance_m >= beyond_m, is_negative.dtype)
    if overlap is not None:
        is_negative *= ops.cast(overlap <= max_overlap, is_negative.dtype)
    if has_ground is None:
        return Negatives(is_negative, is_negative)
    has_ground = ops.cast(has_ground, is_negative.dtype)
    of_ground = is_negative * has_ground[None, :]
    return Negatives(of_ground, of_ground * has_ground[:, None])


def hardest(candidates: Negatives, distances: Any, num_hardest: int) -> Negatives:
    """Of each query's negatives only the nearest descriptors.

    Args:
        candidates: The negatives to choose from.
        distances: (overhead, ground) squared distances.
        num_hardest: How many to keep for each query; more where they tie.
    """
    distances = ops.stop_gradient(distances)
    by_ground = _hardest_of_rows(
        ops.transpose(candidates.of_ground), ops.transpose(distances), num_hardest
    )
    by_overhead = _hardest_of_rows(candidates.of_overhead, distances, num_hardest)
    return Negatives(ops.transpose(by_ground), by_overhead)


def gaussian_weights(distance_m: Any, sigma_m: float, *, form: str = "metres") -> Any:
    """Weights of negatives that grow with their distance, from 0 at the place itself to 1.

    Args:
        distance_m: (...) metres.
        sigma_m: Standard deviation of the Gaussian that is taken from 1.
        form: "metres" is 1 - exp(-d^2 / 2 sigma^2), as Xia et al. (2021); "squared" puts d^2 in
            the place of d, as the code of Xia et al. (2020) does: with sigma 25 an exclusion of
            some 6 m.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
    if not sigma_m > 0:
        raise ValueError(f"sigma_m must be positive, got {sigma_m}.")
    distance_m = _at_least_float32(distance_m)
    deviation = (distance_m if form == "metres" else ops.square(distance_m)) / sigma_m
    return -ops.expm1(-0.5 * ops.square(deviation))


def soft_margin_triplet(
    distances: Any,
    candidates: Negatives | None = None,
    *,
    weights: Any = None,
    gamma: float = GAMMA,
    mask: str = "outside",
    count_diagonal: bool = False,
    added_pairs: float = 0.0,
) -> Any:
    """Mean of log(1 + exp(gamma (positive - negative))) over all negatives, both directions.

    Args:
        distances: (pairs, pairs) squared distances, overhead in rows; partners on the diagonal.
        candidates: Negatives; all pairs but the partners if None.
        weights: (pairs, pairs) factors of the terms, which the mean's denominator does not see.
        gamma: Steepness.
        mask: Where the mask of negatives multiplies: "outside" the logarithm, so that masked
            pairs add nothing, or "inside", so that each adds ln 2 (SAFA on CVACT; parity).
        count_diagonal: Add the terms of partners, ln 2 each, as SAFA's printed losses do.
        added_pairs: Added to the number of negatives that divides (Xia et al.: 0.001).

    Returns:
        A scalar; 0 for a batch without negatives.
    """
    if mask not in MASKS:
        raise ValueError(f"mask must be one of {', '.join(MASKS)}, got {mask!r}.")
    distances = _at_least_float32(distances)
    if candidates is None:
        candidates = negatives(ops.shape(distances)[0])
    partners = ops.eye(ops.shape(distances)[0], dtype=distances.dtype)
    positive = ops.diagonal(distances)

    def mean(excess: Any, is_negative: Any) -> Any:
        is_negative = ops.cast(is_negative, distances.dtype)
        if mask == "inside":
            excess, counted = excess * is_negative, 1.0 - partners
        else:
            counted = is_negative
        if weights is not None:
            counted *= ops.cast(weights, distances.dtype)
        if count_diagonal:
            counted += partners
        num_negatives = ops.sum(is_negative) + added_pairs
        terms = counted * ops.softplus(gamma * excess)
        return ops.sum(terms) / ops.where(num_negatives > 0, num_negatives, 1.0)

    return 0.5 * (
        mean(positive[None, :] - distances, candidates.of_ground)
        + mean(positive[:, None] - distances, candidates.of_overhead)
    )


def info_nce(
    similarity: Any,
    candidates: Negatives | None = None,
    *,
    scale: Any = 1.0 / TEMPERATURE,
    weights: Any = None,
    smoothing: float = 0.0,
    decoupled: bool = False,
) -> Any:
    """Symmetric InfoNCE: cross entropy of finding the partner, in both directions.

    Args:
        similarity: (pairs, pairs) inner products, overhead in rows; partners on the diagonal.
        candidates: Negatives; all pairs but the partners if None.
        scale: One over the temperature.
        weights: (pairs, pairs) factors of negatives in the sum of exponentials.
        smoothing: Share of the target that is spread evenly over partner and negatives.
        decoupled: Leave the partner out of the sum of exponentials.

    Returns:
        A scalar, the mean over queries that have a negative; 0 if none has.
    """
    logits = _at_least_float32(similarity)
    logits *= ops.cast(scale, logits.dtype)
    if candidates is None:
        candidates = negatives(ops.shape(logits)[0])
    if weights is None:
        weights = ops.ones_like(logits)

    def of_rows(logits: Any, is_negative: Any, weights: Any) -> Any:
        partners = ops.eye(ops.shape(logits)[0], dtype=logits.dtype)
        share = ops.cast(is_negative, logits.dtype) * ops.cast(weights, logits.dtype)
        is_offered = ops.cast(share > 0, logits.dtype)
        num_offered = ops.sum(is_offered, axis=1, keepdims=True)
        target = (1.0 - smoothing) * partners
        target += smoothing * (partners + is_offered) / (1.0 + num_offered)
        if not decoupled:
            share += partners
        log_share = ops.where(share > 0, ops.log(ops.where(share > 0, share, 1.0)), _EXCLUDED)
        nats = ops.logsumexp(logits + log_share, axis=1) - ops.sum(target * logits, axis=1)
        is_query = num_offered[:, 0] > 0
        num_queries = ops.sum(ops.cast(is_query, logits.dtype))
        return ops.sum(ops.where(is_query, nats, 0.0)) / ops.maximum(num_queries, 1.0)

    of_ground = of_rows(
        ops.transpose(logits), ops.transpose(candidates.of_ground), ops.transpose(weights)
    )
    return 0.5 * (of_ground + of_rows(logits, candidates.of_overhead, weights))


def iou_loss(ground: Any, positive: Any, semi_positive: Any, iou_ratio: Any) -> Any:
    """How far similarities of two overhead images are from the ratio of their overlaps (VIGOR).

    The mean of (<semi, g> / <positive, g> - ratio)^2 / 10: for networks that are trained already,
    since the quotient means nothing while the similarity to the positive may be 0.

    Args:
        ground: (pairs, D) L2-normalised descriptors.
        positive: (pairs, D) of the overhead images that hold the camera near their centres.
        semi_positive: (pairs, D) of overhead images that hold it farther out.
        iou_ratio: (pairs,) square_iou of the semi-positive over that of the positive, each
            between an overhead image and one centred at the camera.
    """
    ground = _at_least_float32(ground)
    to_positive = ops.sum(_at_least_float32(positive) * ground, axis=-1)
    to_semi_positive = ops.sum(_at_least_float32(semi_positive) * ground, axis=-1)
    excess = to_semi_positive / to_positive - ops.cast(iou_ratio, ground.dtype)
    return ops.mean(ops.square(excess)) / IOU_DIVISOR


def offset_loss(offset: Any, true_offset: Any) -> Any:
    """The mean squared length of errors of the camera's place in the overhead image (VIGOR), / 100.

    Args:
        offset: (pairs, 2) in halves of the overhead image's side.
        true_offset: The same.
    """
    error = _at_least_float32(offset) - _at_least_float32(true_offset)
    return ops.mean(ops.sum(ops.square(error), axis=-1)) / OFFSET_DIVISOR


class ContrastiveLoss(keras.layers.Layer):
    """Base of losses of a batch of pairs: chooses and weighs the negatives.

    Args:
        within_m: Only negatives at most so far away.
        beyond_m: Only negatives at least so far away.
        footprint_m: Side of the overhead images' north-up footprints; with it, pairs whose
            footprints overlap by more than max_overlap are no negatives.
        max_overlap: Intersection over union, 0 to 1.
        sigma_m: Negatives weigh less the nearer they are, see gaussian_weights.
        form: Of the Gaussian.
        num_hardest: Only each query's so many nearest negatives.

    Call arguments:
        ground, overhead: (pairs, D) L2-normalised descriptors.
        position_m: (pairs, 2) east, north of the overhead images' centres in a local frame,
            metres; needed with any of the options in metres.
        has_ground: (pairs,) bool, see negatives; all if None.
        ground_position_m: (pairs, 2) of the ground images if they are not at the centres:
            distances are then from overhead to ground, as Xia et al. (2021) measure them.
        similarity: (overhead, ground) where it is not the inner product of descriptors but, as
            with DSM, that at the heading that fits best.

    Output shape:
        (), float32
    """

    def __init__(
        self,
        *,
        within_m: float | None = None,
        beyond_m: float | None = None,
        footprint_m: float | None = None,
        max_overlap: float = 0.0,
        sigma_m: float | None = None,
        form: str = "metres",
        num_hardest: int | None = None,
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        # not autocast: positions in half precision would be metres off
        super().__init__(dtype=dtype, autocast=False, **kwargs)
        lengths = {
            "within_m": within_m,
            "beyond_m": beyond_m,
            "footprint_m": footprint_m,
            "sigma_m": sigma_m,
            "num_hardest": num_hardest,
        }
        for name, value in lengths.items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive or None, got {value}.")
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
        if not 0 <= max_overlap < 1:
            raise ValueError(f"max_overlap must be in [0, 1), got {max_overlap}.")
        self.within_m, self.beyond_m, self.sigma_m, self.form = within_m, beyond_m, sigma_m, form
        self.footprint_m, self.max_overlap = footprint_m, max_overlap
        self.num_hardest = num_hardest

    @property
    def needs_position(self) -> bool:
        """Whether position_m must be given."""
        return any((self.within_m, self.beyond_m, self.footprint_m, self.sigma_m))

    def call(
        self,
        ground: Any,
        overhead: Any,
        position_m: Any = None,
        has_ground: Any = None,
        ground_position_m: Any = None,
        *,
        similarity: Any = None,
    ) -> Any:
        """The loss of a batch."""
        weights = None
        if self.sigma_m is not None:
            distance_m = self._distance_m(position_m, ground_position_m)
            weights = gaussian_weights(distance_m, self.sigma_m, form=self.form)
        if similarity is None:
            similarity = similarities(overhead, ground)
        candidates = self.candidates(
            ops.shape(similarity)[0], position_m, has_ground, ground_position_m
        )
        if self.num_hardest is not None:
            candidates = hardest(candidates, -similarity, self.num_hardest)
        return self.loss(similarity, candidates, weights)

    def candidates(
        self,
        num_pairs: Any,
        position_m: Any = None,
        has_ground: Any = None,
        ground_position_m: Any = None,
    ) -> Negatives:
        """The negatives of a batch, before the hardest are chosen; see call."""
        overlap = None
        if self.footprint_m is not None:
            overlap = footprint_iou(position_m, position_m, self.footprint_m)
        return negatives(
            num_pairs,
            distance_m=self._distance_m(position_m, ground_position_m),
            within_m=self.within_m,
            beyond_m=self.beyond_m,
            overlap=overlap,
            max_overlap=self.max_overlap,
            has_ground=has_ground,
        )

    def _distance_m(self, position_m: Any, ground_position_m: Any) -> Any:
        """(overhead, ground) metres, None where no option needs them."""
        if not self.needs_position:
            return None
        if position_m is None:
            raise ValueError(
                f"{type(self).__name__} has options in metres and needs position_m, "
                "(pairs, 2): east and north of the overhead images."
            )
        return distances_m(
            position_m, position_m if ground_position_m is None else ground_position_m
        )

    def loss(self, similarity: Any, candidates: Negatives, weights: Any) -> Any:
        """The loss of (overhead, ground) inner products; weights may be None."""
        raise NotImplementedError

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> tuple[int, ...]:  # noqa: ARG002
        """A scalar."""
        return ()

    def get_config(self) -> dict[str, Any]:
        """Plain values."""
        names = ("within_m", "beyond_m", "footprint_m", "max_overlap", "sigma_m", "form")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in (*names, "num_hardest")},
        }


@keras.saving.register_keras_serializable("crossview")
class TripletLoss(ContrastiveLoss):
    """Soft-margin triplets of all pairs in a batch (SAFA).

    Args:
        gamma, mask, count_diagonal, added_pairs: See soft_margin_triplet.
        kwargs: Choice and weights of negatives, see ContrastiveLoss.
    """

    def __init__(
        self,
        *,
        gamma: float = GAMMA,
        mask: str = "outside",
        count_diagonal: bool = False,
        added_pairs: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if mask not in MASKS:
            raise ValueError(f"mask must be one of {', '.join(MASKS)}, got {mask!r}.")
        self.gamma, self.mask = gamma, mask
        self.count_diagonal, self.added_pairs = count_diagonal, added_pairs

    def loss(self, similarity: Any, candidates: Negatives, weights: Any) -> Any:
        """Soft-margin triplets."""
        return soft_margin_triplet(
            2.0 - 2.0 * similarity,
            candidates,
            weights=weights,
            gamma=self.gamma,
            mask=self.mask,
            count_diagonal=self.count_diagonal,
            added_pairs=self.added_pairs,
        )

    def get_config(self) -> dict[str, Any]:
        """Plain values."""
        names = ("gamma", "mask", "count_diagonal", "added_pairs")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("crossview")
class NeighbourLoss(TripletLoss):
    """Soft-margin triplets of neighbours only, the nearest weighing least (Xia et al.).

    Args:
        within_m: Radius of the neighbourhood, that of the prior at query time.
        sigma_m: Of the Gaussian weights.
        form: Of the Gaussian; the paper of 2020 has "squared", that of 2021 "metres".
        added_pairs: Added to the number of negatives that divides.
        kwargs: See TripletLoss and ContrastiveLoss.
    """

    def __init__(
        self,
        *,
        within_m: float | None = 100.0,
        sigma_m: float | None = 25.0,
        form: str = "metres",
        added_pairs: float = 0.001,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            within_m=within_m, sigma_m=sigma_m, form=form, added_pairs=added_pairs, **kwargs
        )


@keras.saving.register_keras_serializable("crossview")
class InfoNCELoss(ContrastiveLoss):
    """Symmetric InfoNCE with a temperature that is learned (Sample4Geo: smoothing 0.1).

    Args:
        temperature: At the start.
        learn_temperature: Train its logarithm.
        smoothing: Of the targets.
        decoupled: Leave partners out of the sums of exponentials.
        kwargs: Choice and weights of negatives, see ContrastiveLoss.
    """

    def __init__(
        self,
        *,
        temperature: float = TEMPERATURE,
        learn_temperature: bool = True,
        smoothing: float = 0.0,
        decoupled: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be in [0, 1), got {smoothing}.")
        self.temperature, self.learn_temperature = temperature, learn_temperature
        self.smoothing, self.decoupled = smoothing, decoupled
        # here and not in build: an optimizer may be built before the loss is first called
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(),
            initializer=keras.initializers.Constant(-math.log(temperature)),
            trainable=learn_temperature,
        )
        self.built = True

    def loss(self, similarity: Any, candidates: Negatives, weights: Any) -> Any:
        """InfoNCE at the present temperature."""
        return info_nce(
            similarity,
            candidates,
            scale=ops.exp(self.log_scale),
            weights=weights,
            smoothing=self.smoothing,
            decoupled=self.decoupled,
        )

    def get_config(self) -> dict[str, Any]:
        """Plain values."""
        names = ("temperature", "learn_temperature", "smoothing", "decoupled")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


LOSSES: dict[str, type[ContrastiveLoss]] = {
    "triplet": TripletLoss,
    "neighbour": NeighbourLoss,
    "infonce": InfoNCELoss,
}
"""Losses by the names that commands take."""


def contrastive_loss(name: str, **options: Any) -> ContrastiveLoss:
    """A loss by its name in LOSSES."""
    if name not in LOSSES:
        raise ValueError(f"There is no loss {name!r}; expected one of {', '.join(LOSSES)}.")
    known = {
        option
        for kind in LOSSES[name].__mro__
        if issubclass(kind, ContrastiveLoss)
        for option in inspect.signature(kind.__init__).parameters
    } - {"self", "kwargs", "dtype"}
    if unknown := sorted(set(options) - known - {"name", "dtype"}):
        raise ValueError(
            f"The loss {name} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}."
        )
    return LOSSES[name](**options)


def _hardest_of_rows(is_negative: Any, distances: Any, num_hardest: int) -> Any:
    nearness = ops.where(is_negative > 0, -distances, _EXCLUDED)
    num_cols = ops.shape(nearness)[1]  # a tensor where TensorFlow's graph leaves it open
    num = (min if isinstance(num_cols, int) else ops.minimum)(num_hardest, num_cols)
    least = ops.top_k(nearness, num)[0][:, -1:]
    return is_negative * ops.cast(nearness >= least, is_negative.dtype)


def _at_least_float32(values: Any) -> Any:
    values = ops.convert_to_tensor(values)
    is_wide = keras.backend.standardize_dtype(values.dtype) == "float64"
    return values if is_wide else ops.cast(values, "float32")
