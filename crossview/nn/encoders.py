"""Encoders: a ground image and an overhead image as descriptors that are alike where they agree.

Inside: batches, RGB in 0..255, descriptors of length 1 in float32. Outside: one photo, panorama or
tile; the border is crossed in SiameseEncoder.describe and describe_tiles, and only there.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from crossview import atomic
from crossview.angles import FULL_TURN_DEG
from crossview.errors import WeightsError
from crossview.nn import aggregation, orientation
from crossview.nn.architectures import ARCHITECTURES
from crossview.preprocessing import Preprocessing, stated_heading_deg

if TYPE_CHECKING:
    from crossview.photos import Panorama, Photo

KIND = "retrieval"
SCHEMA = 1

MODEL_FILE, WEIGHTS_SUFFIX = "model.json", ".weights.h5"


@keras.saving.register_keras_serializable("crossview")
class SiameseEncoder(keras.Model):
    """Two branches that describe ground and overhead images; made by `encoder`.

    Args:
        architecture: Its name.
        preprocessing: What it takes, or that as plain values.
        options: Of the architecture, plain values.
        weights: Where its trunk starts: None, "imagenet" or a path.

    Call arguments:
        inputs: {"ground": (batch, rows, cols, 3), "overhead": (batch, rows, cols, 3)}, RGB in
            0..255 of the sizes of `preprocessing`.

    Returns:
        {"ground": (batch, D), "overhead": (batch, D)}, float32 of length 1.

    Attributes:
        ground: The branch of ground images.
        overhead: That of overhead images; the same where everything is shared.
        scale: What similarities are multiplied with to be log-likelihoods; None if not fitted.
        tile_side_m: Least and largest side on the ground of the tiles that it was trained on; None
            if nobody knows.
        heading_spread_deg: Up to this, both ways, headings of queries were known when it was
            trained; 180 is not at all, None is that nobody knows.
    """

    def __init__(
        self,
        architecture: str,
        preprocessing: Preprocessing | Mapping[str, Any],
        options: Mapping[str, Any],
        *,
        weights: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": architecture, **kwargs})
        if not isinstance(preprocessing, Preprocessing):
            preprocessing = Preprocessing.from_json(dict(preprocessing))
        self.architecture = architecture
        self.preprocessing = preprocessing
        self.scale: float | None = None
        self.tile_side_m: tuple[float, float] | None = None
        self.heading_spread_deg: float | None = None
        self._options = json.dumps(dict(options))
        given = {} if weights is None else {"weights": weights}
        make = ARCHITECTURES[architecture].make
        self.ground, self.overhead = make(preprocessing, **options, **given)
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Descriptors of both."""
        return {
            "ground": self.ground(inputs["ground"], training=training),
            "overhead": self.overhead(inputs["overhead"], training=training),
        }

    def similarities(self, overhead: Any, ground: Any) -> Any:
        """How alike descriptors are, (overhead, ground), of (overhead, D) and (ground, D)."""
        return ops.matmul(overhead, ops.transpose(ground))

    @property
    def options(self) -> dict[str, Any]:
        """Everything that its architecture was made with, defaults too."""
        return json.loads(self._options)

    @property
    def descriptor_size(self) -> int:
        """D, numbers of a descriptor."""
        return self.overhead.output_shape[-1]

    @property
    def fingerprint(self) -> str:
        """A digest of architecture, options, preprocessing and weights as they are now."""
        described = [self.architecture, self.options, self.preprocessing.to_json()]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for weight in self.weights:
            values = ops.convert_to_numpy(ops.convert_to_tensor(weight))
            array = np.ascontiguousarray(values)
            digest.update(f"{weight.name}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def describe(
        self, query: Panorama | Photo, headings_deg: Sequence[float] | None = None
    ) -> np.ndarray:
        """The descriptor of a photo or panorama.

        Args:
            query: What was photographed.
            headings_deg: Where its middle may look; by default what the query says of itself.

        Returns:
            (D,) float32; (headings, D) where headings are given.
        """
        if headings_deg is None:
            return self.ground_descriptors(self.preprocessing.ground(query)[None])[0]
        if not self.preprocessing.is_full_turn:
            raise ValueError(
                f"{self.architecture} with fov_deg={self.preprocessing.fov_deg} sees nothing of "
                "where a query looks: leave headings_deg out, or use the architecture dsm."
            )
        images = [self.preprocessing.ground(query, heading_deg=each) for each in headings_deg]
        return self.ground_descriptors(np.stack(images))

    def describe_tiles(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Descriptors of square, north-up RGB tiles of any size, (tiles, D) float32."""
        return self.overhead_descriptors(
            np.stack([self.preprocessing.overhead(image) for image in images])
        )

    def ground_descriptors(self, images: np.ndarray) -> np.ndarray:
        """Descriptors of a batch as preprocessing.ground makes, (batch, D) float32."""
        return np.asarray(self.ground.predict_on_batch(images))

    def overhead_descriptors(self, images: np.ndarray) -> np.ndarray:
        """Descriptors of a batch as preprocessing.overhead makes, (batch, D) float32."""
        return np.asarray(self.overhead.predict_on_batch(images))

    def activations(self, side: str, images: np.ndarray) -> np.ndarray:
        """Features of places before the head makes a descriptor of them, to look at.

        Args:
            side: "ground" or "overhead".
            images: A batch as preprocessing makes of that side.

        Returns:
            (batch, rows, cols, channels) float32, of the branch's last map.
        """
        branch = {"ground": self.ground, "overhead": self.overhead}[side]
        last = branch.output
        while len(last.shape) != 4:  # a head may be in both branches: this is its call in this one
            made = last._keras_history
            (last,) = made.operation._inbound_nodes[made.node_index].input_tensors
        return np.asarray(keras.Model(branch.input, last).predict_on_batch(images), np.float32)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {
            "architecture": self.architecture,
            "preprocessing": self.preprocessing.to_json(),
            "options": self.options,
            "name": self.name,
        }


@keras.saving.register_keras_serializable("crossview")
class OffsetEncoder(SiameseEncoder):
    """An encoder that also says where in the tile the camera stood.

    It returns "offset" beside the descriptors, (batch, 2), of pairs: see aggregation.OffsetHead.

    Reference: Zhu et al., "VIGOR", CVPR 2021.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sums = {
            side: keras.Model(branch.input, branch.layers[-1].input, name=f"{side}_sums")
            for side, branch in (("ground", self.ground), ("overhead", self.overhead))
        }
        self.offset = aggregation.OffsetHead(name="offset")
        self.offset.build([self.overhead.output_shape, self.ground.output_shape])

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Descriptors of both, and the offset of each pair."""
        sums = {side: each(inputs[side], training=training) for side, each in self.sums.items()}
        described = {side: aggregation.normalised(each) for side, each in sums.items()}
        return {**described, "offset": self.offset([sums["overhead"], sums["ground"]])}

    def offsets(self, ground: np.ndarray, overhead: np.ndarray) -> np.ndarray:
        """How far cameras are south and west of the middle of their tiles, (batch, 2), half tiles.

        Args:
            ground: A batch as preprocessing.ground makes.
            overhead: Of their tiles, as preprocessing.overhead makes.
        """
        return np.asarray(self.predict_on_batch({"ground": ground, "overhead": overhead})["offset"])


@keras.saving.register_keras_serializable("crossview")
class OrientedEncoder(SiameseEncoder):
    """An encoder whose descriptors are maps of azimuth columns, and so know where a query looks.

    A descriptor is a map (rows, cols, channels) of length 1, flattened; that of a limited field of
    view lies in the middle of zeros. Inner products of descriptors correlate at one heading, and
    are the published similarity for a full turn. `similarities` and `align` search over headings,
    and compare a limited field of view with what lies under it, as published.
    """

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of a descriptor."""
        return self.overhead.get_layer("map").output.shape[1:]

    @property
    def seen_columns(self) -> slice:
        """Columns of a ground map that are no zeros for want of view."""
        num_cols = self.ground.get_layer("map").output.shape[2]
        start = (self.map_shape[1] - num_cols) // 2
        return slice(start, start + num_cols)

    def align(self, overhead: Any, ground: Any) -> orientation.Aligned:
        """How alike descriptors are at their best heading, and the shift that it is at.

        Args:
            overhead: (overhead, D)
            ground: (ground, D)
        """
        rows, cols, channels = self.map_shape
        maps = [ops.reshape(each, (-1, rows, cols, channels)) for each in (overhead, ground)]
        return orientation.align(maps[0], maps[1][:, :, self.seen_columns])

    def similarities(self, overhead: Any, ground: Any) -> Any:
        """How alike descriptors are at their best heading, (overhead, ground)."""
        return self.align(overhead, ground).similarity

    def headings_deg(self, overhead: Any, ground: Any) -> np.ndarray:
        """Where ground images look if they belong to overhead images, (overhead, ground).

        Args:
            overhead: (overhead, D)
            ground: (ground, D), as described with heading 0.

        Returns:
            Degrees clockwise in [0, 360), of the query's middle, counted from the overhead
            images' upward direction.
        """
        columns = self.seen_columns
        return np.asarray(
            orientation.heading_deg(
                self.align(overhead, ground).shift,
                cols=self.map_shape[1],
                num_cols=columns.stop - columns.start,
            )
        )

    def describe(
        self, query: Panorama | Photo, headings_deg: Sequence[float] | None = None
    ) -> np.ndarray:
        """The descriptor of a photo or panorama, turned by whole columns to each heading.

        The query goes through the network once, whatever its field of view.

        Args:
            query: What was photographed.
            headings_deg: Where its middle may look; by default what the query says of itself (see
                preprocessing.stated_heading_deg), else 0: `align` and `similarities` find the
                heading of a query that was described so.

        Returns:
            (D,) float32; (headings, D) where headings are given.
        """
        if headings_deg is None:
            return self.describe(query, [stated_heading_deg(query) or 0.0])[0]
        straight = self.ground_descriptors(self.preprocessing.ground(query, heading_deg=0.0)[None])
        ahead = straight.reshape(self.map_shape)
        per_deg = self.map_shape[1] / FULL_TURN_DEG
        turned = [np.roll(ahead, round(each * per_deg), axis=1) for each in headings_deg]
        return np.stack(turned).reshape(len(turned), -1)


KINDS: dict[str, type[SiameseEncoder]] = {"vigor": OffsetEncoder, "dsm": OrientedEncoder}
"""Of the architectures whose encoders can do more."""


def encoder(architecture: str, *, weights: str | None = None, **options: Any) -> SiameseEncoder:
    """An encoder with random weights, or a trunk that was trained on ImageNet.

    Args:
        architecture: One of ARCHITECTURES.
        weights: None, "imagenet" or a path of a trunk's weights, as keras.applications take them.
        options: Of the function that makes its branches, and fields of Preprocessing that are to
            differ from the architecture's.

    Raises:
        ValueError: There is no such architecture or option.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"There is no architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}."
        )
    found = ARCHITECTURES[architecture]
    known = {**inspect.signature(found.make).parameters}
    del known["preprocessing"]
    if weights is not None and "weights" not in known:
        raise ValueError(f"{architecture} has no trunk with known weights; leave weights out.")
    known.pop("weights", None)
    rules = {field.name for field in fields(Preprocessing)}
    if unknown := sorted(set(options) - set(known) - rules):
        raise ValueError(
            f"{architecture} has no option {', '.join(unknown)}; it has "
            f"{', '.join([*known, *sorted(rules)])}."
        )
    preprocessing = _preprocessing(
        found.preprocessing, {name: options[name] for name in options if name in rules}
    )
    # defaults may change in another version, but not in an encoder that is stored
    complete = {name: options.get(name, option.default) for name, option in known.items()}
    kind = KINDS.get(architecture, SiameseEncoder)
    return kind(architecture, preprocessing, complete, weights=weights)


def save_encoder(
    encoder: SiameseEncoder,
    folder: str | os.PathLike[str],
    *,
    training: Mapping[str, Any] | None = None,
    scale: float | None = None,
) -> Path:
    """Write an encoder as a folder, model.json beside its weights. Inverse of load_encoder.

    Args:
        encoder: What to write.
        folder: Made where it is not there; an encoder that is there is replaced.
        training: What it was trained on and how, plain values, for people.
        scale: What similarities are multiplied with to be log-likelihoods; by default the
            encoder's own.

    Returns:
        The path of model.json.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{os.getpid()}{WEIGHTS_SUFFIX}"
    try:
        encoder.save_weights(temporary)
        digest = _file_digest(temporary)
        # its name is its own: whatever is interrupted, model.json names the file that it means
        weights = temporary.replace(folder / f"{digest[:16]}{WEIGHTS_SUFFIX}")
    finally:
        temporary.unlink(missing_ok=True)
    content = {
        "kind": KIND,
        "schema": SCHEMA,
        "architecture": encoder.architecture,
        "options": encoder.options,
        "preprocessing": encoder.preprocessing.to_json(),
        "scale": encoder.scale if scale is None else scale,
        "tile_side_m": encoder.tile_side_m,
        "heading_spread_deg": encoder.heading_spread_deg,
        "training": dict(training or {}),
        "weights": {"file": weights.name, "sha256": digest},
        "fingerprint": encoder.fingerprint,
    }
    path = folder / MODEL_FILE
    with atomic.replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for old in folder.glob(f"[!.]*{WEIGHTS_SUFFIX}"):
        if old != weights:
            old.unlink()
    return path


def load_encoder(folder: str | os.PathLike[str]) -> SiameseEncoder:
    """The encoder in a folder. Inverse of save_encoder.

    Raises:
        WeightsError: There is none, it is damaged, or this version cannot make it.
    """
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise WeightsError(
            f"There is no encoder in {folder}: expected a folder with {MODEL_FILE}, as "
            "`crossview train retrieval` writes."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] != KIND or content["schema"] != SCHEMA:
            raise ValueError(
                f"it is of kind {content['kind']!r} and schema {content['schema']}, not "
                f"{KIND!r} and {SCHEMA}"
            )
        loaded = encoder(content["architecture"], **content["options"], **content["preprocessing"])
        weights, expected = path.with_name(content["weights"]["file"]), content["weights"]["sha256"]
        loaded.scale, fingerprint = content["scale"], content["fingerprint"]
        if (side_m := content.get("tile_side_m")) is not None:
            loaded.tile_side_m = float(side_m[0]), float(side_m[1])
        loaded.heading_spread_deg = content.get("heading_spread_deg")
        # without options that are newer than the encoder
        loaded._options = json.dumps(content["options"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise WeightsError(f"{path} is no description of an encoder ({error!r}).") from error
    _load_weights(loaded, weights, expected)
    if loaded.fingerprint != fingerprint:
        raise WeightsError(
            f"{path} says that its fingerprint is {fingerprint} and it is {loaded.fingerprint}: "
            "it was edited, or written by another version. Train it again."
        )
    return loaded


def _load_weights(loaded: SiameseEncoder, weights: Path, expected: str) -> None:
    if not weights.is_file():
        raise WeightsError(f"{weights} is missing: copy the whole folder of the encoder.")
    found = _file_digest(weights)
    if found != expected:
        raise WeightsError(
            f"{weights} is damaged: its SHA-256 is {found}, expected {expected}. Copy it again."
        )
    loaded.load_weights(weights)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _preprocessing(default: Preprocessing, given: Mapping[str, Any]) -> Preprocessing:
    if "fov_deg" in given and "ground_px" not in given:
        rows, cols = default.ground_px
        given = {**given, "ground_px": (rows, int(given["fov_deg"] / FULL_TURN_DEG * cols))}
    return replace(default, **given)
