"""Remembering what a segmentation network made of photos: it takes most of the time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossview import columns, ground_votes
from crossview.columns import ColumnView
from crossview.photos import Panorama, Photo, Rig
from crossview.segmenters import fingerprint, upright_images
from crossview.semantic import SemanticMatcher

_LAYOUT = (
    tuple(columns.GROUPS.items()),
    columns.NUM_AZIMUTHS,
    columns.LOWEST_DEG,
    columns.HIGHEST_DEG,
    columns.ELEVATION_STEP_DEG,
    columns.NOMINAL_RANGE_M,
    ground_votes.CHANNELS,
    ground_votes.CELL_M,
    ground_votes.VIEW_M,
)


@dataclass(frozen=True)
class ObservationStore:
    """Column views in a folder, by content: pixels, cameras, network and noise.

    Args:
        folder: Where the files are; made when the first is written.
    """

    folder: Path

    def observe(
        self, query: Photo | Panorama | Rig, matcher: SemanticMatcher
    ) -> tuple[ColumnView, ...]:
        """What matcher.observe says, from the folder where it was asked before."""
        name = _name(query, matcher)
        paths = [self.folder / f"{name}-{i}.npz" for i in range(matcher.noise.num_views(query))]
        if all(path.is_file() for path in paths):
            return tuple(ColumnView.load(path) for path in paths)
        views = matcher.observe(query)
        self.folder.mkdir(parents=True, exist_ok=True)
        for view, path in zip(views, paths, strict=True):
            view.save(path)
        # what a later run reads, so that both give the same numbers
        return tuple(ColumnView.load(path) for path in paths)

    def observer(
        self, matcher: SemanticMatcher
    ) -> Callable[[Photo | Panorama | Rig], tuple[ColumnView, ...]]:
        """Observe for one matcher, in place of matcher.observe."""
        return lambda query: self.observe(query, matcher)


def _name(query: Photo | Panorama | Rig, matcher: SemanticMatcher) -> str:
    digest = hashlib.blake2b(digest_size=16)
    said: Sequence[object] = (_LAYOUT, fingerprint(matcher.segmenter), matcher.noise)
    digest.update(repr(said).encode())
    for image, mount in upright_images(query):
        level = (image.pitch_deg, image.roll_deg) if isinstance(image, Photo) else ()
        digest.update(repr((image.camera, level, image.height_m, mount)).encode())
        digest.update(image.image.tobytes())
        if image.mask is not None:
            digest.update(image.mask.tobytes())
    return digest.hexdigest()
