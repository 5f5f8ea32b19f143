"""Class images as colour pictures and back: the public Cityscapes palette."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

CLASS_COLORS = MappingProxyType(
    {
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
        "background": (0, 0, 0),
    }
)
"""Colour (red, green, blue) of every class, in train-id order (Cordts et al., CVPR 2016)."""

CLASSES = tuple(CLASS_COLORS)
"""Names of the classes; the index is the train id, and the last one is everything else."""

_PALETTE = np.array(list(CLASS_COLORS.values()), dtype=np.uint8)
_PALETTE.flags.writeable = False

_TOLERANCE = 24
"""Largest distance from a palette colour, in levels of one channel, that compression may cause."""

_STRANGE_SHARE = 0.05
"""Share of pixels that may be farther off, where compression blurs the edges."""


def colored(class_image: np.ndarray) -> np.ndarray:
    """A class image (rows, cols) of train ids as a picture, (rows, cols, 3) uint8 RGB."""
    class_image = np.asarray(class_image)
    if class_image.size and not 0 <= class_image.min() <= class_image.max() < len(CLASSES):
        raise ValueError(
            f"Class indices run from {class_image.min()} to {class_image.max()}; "
            f"expected 0 to {len(CLASSES) - 1}."
        )
    return _PALETTE[class_image]


class PaletteSegmenter:
    """Reads the classes back from a picture that `colored` made: a segmenter that never errs.

    Each pixel is given the class of the nearest palette colour, so that a picture survives
    JPEG compression.
    """

    classes: tuple[str, ...] = CLASSES

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(rows, cols, 3) uint8 RGB to (rows, cols, classes) float32, one for the class.

        Raises:
            ValueError: The image is not made of palette colours.
        """
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"Expected an RGB image, (rows, cols, 3) uint8; got {image.shape} {image.dtype}."
            )
        # few colours, many pixels: one number per colour
        packed = image.astype(np.int64) @ (1 << 16, 1 << 8, 1)
        found, where = np.unique(packed, return_inverse=True)
        colors = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=-1)
        distance = np.abs(colors[:, None] - _PALETTE.astype(np.int64)).max(axis=-1)
        strange = (distance.min(axis=-1) > _TOLERANCE)[where]
        if strange.mean() > _STRANGE_SHARE:
            raise ValueError(
                f"{strange.mean():.0%} of the pixels have no colour of the Cityscapes palette. "
                "PaletteSegmenter reads class images only; give a real photo to a network."
            )
        one_hot = np.eye(len(CLASSES), dtype=np.float32)
        return one_hot[distance.argmin(axis=-1)[where]]
