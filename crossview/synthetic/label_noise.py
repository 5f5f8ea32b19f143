"""Errors of a segmentation network, made up: what a perfect class image would not teach.

Three kinds, all seeded: labels shift at boundaries (a smooth random displacement), whole blobs take
the class that they are usually mistaken for, and small holes become "background". At strength 1
about one pixel of a panorama in eleven is wrong, and one in seven within 30 degrees of the horizon
(measured in a made-up town; about in proportion for other strengths).
"""

from __future__ import annotations

import hashlib

import numpy as np

from crossview.segmenters import Segmenter, fingerprint
from crossview.synthetic.palette import CLASSES

SHIFT_PX = 0.012
"""Standard deviation of the displacement at strength 1, as a share of the image's height."""

SHIFT_SCALE = 0.05
"""How far apart displacements are independent, as a share of the height."""

BLOBS = 24
"""Confused blobs of an image at strength 1."""

BLOB_RADIUS = (0.01, 0.07)
"""Half axes of blobs, as shares of the height."""

HOLES = 0.01
"""Share of the pixels in holes at strength 1."""

MISTAKEN_FOR = {
    "road": ("sidewalk", "terrain"),
    "sidewalk": ("road", "terrain"),
    "building": ("wall", "vegetation", "sky"),
    "wall": ("building", "fence"),
    "fence": ("wall", "vegetation"),
    "pole": ("building", "vegetation"),
    "traffic light": ("building", "vegetation"),
    "traffic sign": ("building", "pole"),
    "vegetation": ("terrain", "building", "fence"),
    "terrain": ("vegetation", "sidewalk"),
    "sky": ("building", "vegetation"),
    "person": ("rider", "building"),
    "rider": ("person", "bicycle"),
    "car": ("truck", "road"),
    "truck": ("car", "bus"),
    "bus": ("truck", "building"),
    "train": ("bus", "building"),
    "motorcycle": ("bicycle", "car"),
    "bicycle": ("motorcycle", "fence"),
    "background": ("terrain", "road"),
}
"""What each class is confused with, each equally often."""


def noisy(classes: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """A class image with errors.

    Args:
        classes: (rows, cols) uint8, indices into palette.CLASSES.
        rng: Draws; the same draws give the same errors.
        strength: 0 none, 1 as the module says; displacements, blobs and holes grow in proportion.

    Raises:
        ValueError: The strength is negative.
    """
    if not 0 <= strength < np.inf:
        raise ValueError(f"The strength of label noise is 0 or more, got {strength}.")
    if strength == 0:
        return np.array(classes)
    shifted = _shifted(np.asarray(classes), rng, strength)
    confused = _confused(shifted, rng, strength)
    return _with_holes(confused, rng, strength)


class NoisySegmenter:
    """A segmenter whose answers have the errors of `noisy`, each image its own.

    The answer is sure of its labels, wrong ones too: 1 for the label, 0 for the rest.

    Args:
        segmenter: Who is asked; its classes are those of the Cityscapes palette.
        strength: Of the noise.
        seed: Of the noise; an image of the same pixels gets the same errors.
    """

    def __init__(self, segmenter: Segmenter, *, strength: float = 1.0, seed: int = 0) -> None:
        if tuple(segmenter.classes) != CLASSES[: len(segmenter.classes)]:
            raise ValueError(
                f"Label noise knows the classes {', '.join(CLASSES)}; got "
                f"{', '.join(segmenter.classes)}."
            )
        self.classes: tuple[str, ...] = CLASSES
        self.strength = strength
        self.seed = seed
        self._segmenter = segmenter

    @property
    def fingerprint(self) -> str:
        """That of whom it asks, with the noise."""
        return f"{fingerprint(self._segmenter)} with noise {self.strength:g}, seed {self.seed}"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(rows, cols, 3) uint8 RGB to (rows, cols, classes) float32."""
        classes = self._segmenter(image).argmax(axis=-1).astype(np.uint8)
        name = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(name, "big")])
        return np.eye(len(CLASSES), dtype=np.float32)[noisy(classes, rng, strength=self.strength)]


def _shifted(classes: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    from scipy.ndimage import map_coordinates

    rows, cols = classes.shape
    knots = [max(2, round(side / (SHIFT_SCALE * rows)) + 1) for side in (rows, cols)]
    shift_px = rng.normal(0.0, strength * SHIFT_PX * rows, size=(2, *knots))
    at = np.meshgrid(
        np.linspace(0, knots[0] - 1, rows), np.linspace(0, knots[1] - 1, cols), indexing="ij"
    )
    down, right = (map_coordinates(one, at, order=1) for one in shift_px)
    row = np.arange(rows)[:, None] + np.rint(down).astype(int)
    col = np.arange(cols)[None] + np.rint(right).astype(int)
    return classes[row.clip(0, rows - 1), col.clip(0, cols - 1)]


def _confused(classes: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    rows, cols = classes.shape
    confused = classes.copy()
    for _ in range(rng.poisson(BLOBS * strength * cols / rows / 2)):
        row, col = rng.uniform(0, rows), rng.uniform(0, cols)
        half_rows, half_cols = rng.uniform(*BLOB_RADIUS, size=2) * rows
        choice = rng.uniform()
        # a blob keeps to one class, as mistakes of a network do
        old = classes[int(row), int(col)]
        names = MISTAKEN_FOR[CLASSES[old]]
        box = (
            slice(max(0, int(row - half_rows)), int(row + half_rows) + 1),
            slice(max(0, int(col - half_cols)), int(col + half_cols) + 1),
        )
        down = (np.arange(rows)[box[0]] + 0.5 - row) / half_rows
        right = (np.arange(cols)[box[1]] + 0.5 - col) / half_cols
        is_in = (down[:, None] ** 2 + right[None] ** 2 < 1) & (classes[box] == old)
        confused[box][is_in] = CLASSES.index(names[int(choice * len(names))])
    return confused


def _with_holes(classes: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Squares of a few pixels that the network is blank at."""
    rows, cols = classes.shape
    side = max(1, round(rows / 100))
    share = min(1.0, HOLES * strength)
    is_hole = rng.uniform(size=(-(-rows // side), -(-cols // side))) < share
    is_hole = is_hole.repeat(side, axis=0).repeat(side, axis=1)[:rows, :cols]
    return np.where(is_hole, np.uint8(CLASSES.index("background")), classes)
