"""What says what each pixel shows, and how a query is put in front of it."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np

from crossview.photos import Mount, Panorama, Photo, Rig


class Segmenter(Protocol):
    """Anything that says what each pixel of an upright image shows.

    Attributes:
        classes: Names of the channels, as in Cityscapes.
    """

    classes: tuple[str, ...]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(rows, cols, 3) uint8 RGB to (rows, cols, classes) probabilities, any resolution."""


class Remembering:
    """A segmenter that answers the same image once: networks are slow.

    Args:
        segmenter: Who is asked.
        max_images: How many answers are kept; the oldest go. One of a megapixel has 80 MB.
    """

    def __init__(self, segmenter: Segmenter, *, max_images: int = 6) -> None:
        self.classes = segmenter.classes
        self.max_images = max_images
        self._segmenter = segmenter
        self._answers: dict[bytes, np.ndarray] = {}

    @property
    def fingerprint(self) -> str:
        """That of whom it asks."""
        return fingerprint(self._segmenter)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The segmenter's answer."""
        name = hashlib.blake2b(
            repr(image.shape).encode() + image.tobytes(), digest_size=16
        ).digest()
        if name not in self._answers:
            while len(self._answers) >= self.max_images:
                del self._answers[next(iter(self._answers))]
            self._answers[name] = self._segmenter(image)
        return self._answers[name]


def fingerprint(segmenter: Segmenter) -> str:
    """What a segmenter says of itself (`fingerprint`), or the name of its class."""
    return str(getattr(segmenter, "fingerprint", type(segmenter).__qualname__))


def upright_images(query: Photo | Panorama | Rig) -> list[tuple[Photo | Panorama, Mount]]:
    """The images of a query as a network knows images, each with its place on the rig."""
    if isinstance(query, Rig):
        upright = [photo.upright() for photo in query.photos]
        return list(zip(upright, query.mounts, strict=True))
    return [(query.upright() if isinstance(query, Photo) else query, Mount())]


def usable_pixels(query: Photo | Panorama, rows: int, cols: int) -> np.ndarray:
    """Pixels that show the world and not the camera's own car, (rows, cols) bool of any size."""
    if query.mask is None:
        return np.ones((rows, cols), dtype=bool)
    row = (np.arange(rows) + 0.5) * (query.mask.shape[0] / rows)
    col = (np.arange(cols) + 0.5) * (query.mask.shape[1] / cols)
    return query.mask[np.ix_(row.astype(int), col.astype(int))]
