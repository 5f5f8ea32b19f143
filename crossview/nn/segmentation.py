"""ESPNetv2, a light network for semantic segmentation, and the segmenter that puts photos in.

Inside the network: batched, channels last, RGB in [0, 255] (the network normalises it), logits at
the size of its input. Outside: one photo, and one probability for each pixel and class. The border
is crossed in CityscapesSegmenter, and only there.

Reference: Mehta et al., "ESPNetv2: A Light-weight, Power Efficient, and General Purpose
Convolutional Neural Network", CVPR 2019.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from crossview.nn.eesp import EESP, ConvNormPReLU, GatedConv, NormPReLU, PyramidPool, StridedEESP
from crossview.nn.resampling import AlignedResize, HalvedImage

CITYSCAPES_CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
    "background",
)
"""The 19 evaluated classes of Cityscapes in the order of their train ids, then everything else."""

STRIDE_PX = 16
"""One cell of the coarsest feature map covers so many pixels."""

ENCODER_WIDTHS = {
    0.5: (16, 32, 64, 128),
    1.0: (32, 64, 128, 256),
    1.25: (32, 80, 160, 320),
    1.5: (32, 96, 192, 384),
    2.0: (32, 128, 256, 512),
}
"""Channels at strides 2, 4, 8 and 16 for each published scale of the network."""

_REPEATS = {4: 0, 8: 3, 16: 7}  # EESP units after the strided one, by stride
_STRIDED_RECEPTIVE_PX = {4: 13, 8: 11, 16: 9}
_RECEPTIVE_PX = {8: 9, 16: 7}
_DECODER_WIDTHS = {16: 64, 8: 48, 4: 32}
_MAX_PYRAMID_WIDTH = 16
_IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB / 255
_IMAGENET_STD = (0.229, 0.224, 0.225)


def espnetv2(*, num_classes: int = len(CITYSCAPES_CLASSES), scale: float = 2.0) -> keras.Model:
    """ESPNetv2 for semantic segmentation, with random weights.

    The encoder is the published one without its stride 32; the decoder pools a pyramid at each
    stride and adds the encoder's features, gated by channel. Rows and columns should be multiples
    of STRIDE_PX, as the published network demands; others work here, with maps rounded up.

    Args:
        num_classes: Number of outputs.
        scale: Width of the encoder, one of ENCODER_WIDTHS.

    Returns:
        A model from RGB in [0, 255], (batch, rows, cols, 3), to logits,
        (batch, rows, cols, num_classes).
    """
    if scale not in ENCODER_WIDTHS:
        raise ValueError(
            f"scale must be one of {', '.join(map(str, ENCODER_WIDTHS))}, got {scale}."
        )
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
    image = keras.Input((None, None, 3), name="image")
    encoded = _encoded(_normalization()(image), ENCODER_WIDTHS[scale])
    coarse_logits = _decoded(encoded, num_classes)
    logits = AlignedResize(name="logits")([coarse_logits, image])
    return keras.Model(image, logits, name="espnetv2")


def _encoded(image: Any, widths: tuple[int, int, int, int]) -> dict[int, Any]:
    """Features by stride, 2 to 16, of a normalised image."""
    halved = image
    images = {}
    for stride in (2, 4, 8, 16):
        halved = images[stride] = HalvedImage(name=f"image_{stride}")(halved)
    features = ConvNormPReLU(widths[0], kernel_size=3, strides=2, name="stem")(image)
    encoded = {2: features}
    for stride, width in zip((4, 8, 16), widths[1:], strict=True):
        features = StridedEESP(
            width, max_receptive_px=_STRIDED_RECEPTIVE_PX[stride], name=f"down_{stride}"
        )([features, images[stride]])
        for k in range(_REPEATS[stride]):
            features = EESP(max_receptive_px=_RECEPTIVE_PX[stride], name=f"unit_{stride}_{k}")(
                features
            )
        encoded[stride] = features
    return encoded


def _decoded(encoded: dict[int, Any], num_classes: int) -> Any:
    """Logits at stride 2."""
    pyramid_width = min(num_classes // 2, _MAX_PYRAMID_WIDTH)
    features = encoded[16]
    for stride, finer_stride in ((16, 8), (8, 4), (4, 2)):
        width = _DECODER_WIDTHS[stride]
        features = PyramidPool(width, pyramid_width, name=f"pyramid_{stride}")(features)
        features = NormPReLU(name=f"pooled_{stride}")(features)
        gated = GatedConv(width, name=f"gate_{finer_stride}")(encoded[finer_stride])
        finer = AlignedResize(name=f"upsampled_{finer_stride}")([features, gated])
        features = keras.layers.Add(name=f"sum_{finer_stride}")([gated, finer])
        features = NormPReLU(name=f"fused_{finer_stride}")(features)
    return PyramidPool(num_classes, pyramid_width, use_bias=True, name="pyramid_2")(features)


class CityscapesSegmenter:
    """What each pixel of a photo shows, as probabilities of the Cityscapes classes.

    The photo is resized to width_px columns, and to the multiple of STRIDE_PX rows that keeps its
    aspect best. The probabilities stay at that size: they cover the photo from edge to edge, so
    pixel (row, col) of theirs is the photo's (row * photo rows / rows, col * photo cols / cols), in
    positions with corner origin. Each size is compiled once, at its first photo. Photos should be
    upright: the network has not seen others.

    Args:
        model: From RGB in [0, 255], (batch, rows, cols, 3), to logits of CITYSCAPES_CLASSES,
            as `espnetv2` and `load_espnetv2` make.
        width_px: Columns that the network sees, a multiple of STRIDE_PX; 1024 as in training.
    """

    classes: tuple[str, ...] = CITYSCAPES_CLASSES

    def __init__(self, model: keras.Model, *, width_px: int = 1024) -> None:
        num_outputs = model.output_shape[-1]
        if num_outputs != len(self.classes):
            raise ValueError(
                f"The model has {num_outputs} outputs, Cityscapes has {len(self.classes)} classes. "
                "Pass a model made by espnetv2() or load_espnetv2(path)."
            )
        if width_px < STRIDE_PX or width_px % STRIDE_PX:
            raise ValueError(f"width_px must be a multiple of {STRIDE_PX}, got {width_px}.")
        self.model = model
        self.width_px = width_px
        self._networks: dict[tuple[int, int], keras.Model] = {}

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities of what a photo shows.

        Args:
            image: (photo rows, photo cols, 3) uint8 RGB, upright.

        Returns:
            (rows, cols, classes) float32 at `network_size_px` of the photo; sums to 1 over classes.
        """
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(
                "A photo is RGB of shape (rows, cols, 3) and dtype uint8, got "
                f"shape {image.shape} and dtype {image.dtype}."
            )
        size_px = self.network_size_px(*image.shape[:2])
        batch = _resized_photo(image, size_px)[None]
        return np.asarray(self._network(size_px).predict_on_batch(batch))[0]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of the weights and the size that the network sees."""
        digest = hashlib.blake2b(f"{self.width_px}".encode(), digest_size=16)
        for weight in self.model.weights:
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
        return f"{self.model.name}-{digest.hexdigest()}"

    def network_size_px(self, rows: int, cols: int) -> tuple[int, int]:
        """The (rows, cols) at which the network sees a photo of that size."""
        cells = round(rows * self.width_px / (cols * STRIDE_PX))
        return max(cells, 1) * STRIDE_PX, self.width_px

    def _network(self, size_px: tuple[int, int]) -> keras.Model:
        # One model per size, sharing the weights: with a fixed size every shape in the graph is
        # static, where one model for all sizes would be retraced with unknown ones.
        if size_px not in self._networks:
            image = keras.Input((*size_px, 3), name="image")
            self._networks[size_px] = keras.Model(image, ops.softmax(self.model(image)))
        return self._networks[size_px]


def _normalization() -> keras.layers.Normalization:
    return keras.layers.Normalization(
        mean=[255.0 * mean for mean in _IMAGENET_MEAN],
        variance=[(255.0 * std) ** 2 for std in _IMAGENET_STD],
        name="normalised",
    )


def _resized_photo(
    image: npt.NDArray[np.uint8], size_px: tuple[int, int]
) -> npt.NDArray[np.float32]:
    from PIL import Image

    rows, cols = size_px
    resized = Image.fromarray(image).resize((cols, rows), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)
