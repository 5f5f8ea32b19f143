"""Encoders: a ground image and an overhead image as descriptors that are alike where they agree.

Inside: batches, RGB in 0..255, descriptors of length 1 in float32. Outside: one photo, panorama or
tile; the border is crossed in SiameseEncoder.describe and describe_tiles, and only there.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from crossview import atomic
from crossview.errors import WeightsError
from crossview.nn import aggregation, backbones
from crossview.preprocessing import Preprocessing

if TYPE_CHECKING:
    from crossview.photos import Panorama, Photo

KIND = "retrieval"
SCHEMA = 1

MODEL_FILE, WEIGHTS_SUFFIX = "model.json", ".weights.h5"

Branches = tuple[keras.Model, keras.Model, Preprocessing]
"""The ground and the overhead branch (one model where weights are shared), and what they take."""


@keras.saving.register_keras_serializable("crossview")
class SiameseEncoder(keras.Model):
    """Two branches that describe ground and overhead images; made by `encoder`.

    Args:
        architecture: Its name.
        options: What it was made with, plain values.

    Call arguments:
        inputs: {"ground": (batch, rows, cols, 3), "overhead": (batch, rows, cols, 3)}, RGB in
            0..255 of the sizes of `preprocessing`.

    Returns:
        {"ground": (batch, D), "overhead": (batch, D)}, float32 of length 1.

    Attributes:
        ground: The branch of ground images.
        overhead: That of overhead images; the same where weights are shared.
        preprocessing: What they take.
        scale: What similarities are multiplied with to be log-likelihoods; None if not fitted.
    """

    def __init__(self, architecture: str, options: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**{"name": architecture, **kwargs})
        self.architecture = architecture
        options = _all_options(architecture, options)
        self._options = json.dumps(options)
        self.ground, self.overhead, self.preprocessing = ARCHITECTURES[architecture](**options)
        self.scale: float | None = None
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Descriptors of both."""
        return {
            "ground": self.ground(inputs["ground"], training=training),
            "overhead": self.overhead(inputs["overhead"], training=training),
        }

    @property
    def options(self) -> dict[str, Any]:
        """Everything that it was made with, defaults too."""
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
            array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
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

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {"architecture": self.architecture, "options": self.options, "name": self.name}


def encoder(architecture: str, **options: Any) -> SiameseEncoder:
    """An encoder with random weights.

    Args:
        architecture: One of ARCHITECTURES.
        options: Of the function of that name.

    Raises:
        ValueError: There is no such architecture or option.
    """
    return SiameseEncoder(architecture, options)


def tiny(
    *,
    width: int = 16,
    num_heads: int = 8,
    ground_px: Sequence[int] = (64, 256),
    overhead_px: Sequence[int] = (64, 256),
    elevation_deg: Sequence[float] = (-45.0, 45.0),
    footprint_m: float | None = None,
) -> Branches:
    """A small network that trains on a CPU: panoramas and polar tiles, columns go around.

    Args:
        width: Channels of the stem.
        num_heads: Masks of places; a descriptor has 6 width num_heads numbers.
        ground_px: See Preprocessing, as the other ones.
        overhead_px: See Preprocessing.
        elevation_deg: See Preprocessing.
        footprint_m: See Preprocessing.
    """
    preprocessing = Preprocessing(
        _pair(ground_px), _pair(overhead_px), _pair(elevation_deg), footprint_m=footprint_m
    )

    def branch(size_px: tuple[int, int], name: str) -> keras.Model:
        image = keras.Input((*size_px, 3), name="image")
        features = backbones.small_trunk(image, width=width, circular=True)
        sums = aggregation.SpatialEmbeddings(num_heads)(features)
        return keras.Model(image, aggregation.UnitLength()(sums), name=name)

    ground = branch(preprocessing.ground_px, "ground")
    return ground, branch(preprocessing.overhead_px, "overhead"), preprocessing


ARCHITECTURES: dict[str, Callable[..., Branches]] = {"tiny": tiny}
"""By name, what makes the branches."""


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
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
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
            raise WeightsError(
                f"{path} describes a model of kind {content['kind']!r}, schema "
                f"{content['schema']}; expected {KIND!r}, schema {SCHEMA}."
            )
        loaded = encoder(content["architecture"], **content["options"])
        weights, expected = path.with_name(content["weights"]["file"]), content["weights"]["sha256"]
        scale = content["scale"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path} is no description of an encoder ({error!r}).") from error
    _load_weights(loaded, weights, expected)
    if loaded.fingerprint != content.get("fingerprint"):
        raise WeightsError(
            f"{path} says that its fingerprint is {content.get('fingerprint')} and it is "
            f"{loaded.fingerprint}: it was edited, or written by another version. Train it again."
        )
    loaded.scale = scale
    return loaded


def _load_weights(loaded: SiameseEncoder, weights: Path, expected: str) -> None:
    if not weights.is_file():
        raise WeightsError(f"{weights} is missing: copy the whole folder of the encoder.")
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != expected:
        raise WeightsError(
            f"{weights} is damaged: its SHA-256 is {found}, expected {expected}. Copy it again."
        )
    loaded.load_weights(weights)


def _all_options(architecture: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options and the defaults of the others: they may change, a stored encoder may not."""
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"There is no architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}."
        )
    known = inspect.signature(ARCHITECTURES[architecture]).parameters
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"{architecture} has no option {', '.join(unknown)}; it has {', '.join(known)}."
        )
    return {name: options.get(name, option.default) for name, option in known.items()}


def _pair(values: Sequence[Any]) -> tuple[Any, Any]:
    first, second = values
    return first, second
