"""Views remembered by content: asked once, and never mistaken for another."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from crossview.camera_noise import CameraNoise
from crossview.cameras import Pinhole
from crossview.column_model import COUNTS_SHAPE, NUM_RANGES, ColumnModel
from crossview.observations import ObservationStore
from crossview.photos import Mount, Photo, Rig
from crossview.segmenters import fingerprint
from crossview.semantic import SemanticMatcher

MODEL = ColumnModel(np.ones(COUNTS_SHAPE), np.full(NUM_RANGES, 1 / NUM_RANGES))
CAMERA = Pinhole.from_focal(32, 24, 16.0)


@dataclass
class Halves:
    """Sky above and road below; counts how often it is asked."""

    name: str = "halves"
    asked: int = 0
    classes: tuple = field(default=("road", "sky"))

    @property
    def fingerprint(self):
        return self.name

    def __call__(self, image):
        self.asked += 1
        answer = np.zeros((*image.shape[:2], 2), np.float32)
        answer[: image.shape[0] // 2, :, 1] = 1
        answer[image.shape[0] // 2 :, :, 0] = 1
        return answer


def photo(seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return Photo(pixels, CAMERA, **options)


def test_a_query_is_looked_at_once_however_often_it_is_asked_about(tmp_path):
    segmenter = Halves()
    matcher = SemanticMatcher(segmenter, MODEL)
    store = ObservationStore(tmp_path / "views")
    (first,) = store.observe(photo(), matcher)
    (again,) = ObservationStore(tmp_path / "views").observe(photo(), matcher)
    assert segmenter.asked == 1
    assert np.array_equal(first.probability, again.probability)
    assert np.array_equal(first.seen, again.seen)
    assert first.height_m == again.height_m


def test_a_remembered_view_is_the_matchers_own_to_a_level_of_255(tmp_path):
    matcher = SemanticMatcher(Halves(), MODEL)
    (stored,) = ObservationStore(tmp_path).observe(photo(), matcher)
    (fresh,) = matcher.observe(photo())
    assert np.abs(stored.probability - fresh.probability).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    "other",
    [
        photo(seed=1),
        photo(pitch_deg=1.0),
        photo(roll_deg=1.0),
        photo(height_m=2.0),
        replace(photo(), camera=Pinhole.from_focal(32, 24, 17.0)),
        photo(mask=np.zeros((24, 32), bool)),
        Rig((photo(),), (Mount(heading_deg=10.0),)),
    ],
)
def test_another_photo_camera_or_mount_is_looked_at_anew(tmp_path, other):
    segmenter = Halves()
    matcher = SemanticMatcher(segmenter, MODEL)
    store = ObservationStore(tmp_path)
    store.observe(photo(), matcher)
    store.observe(other, matcher)
    assert segmenter.asked == 2


def test_another_network_or_noise_is_looked_at_anew(tmp_path):
    store = ObservationStore(tmp_path)
    segmenter, other = Halves(), Halves(name="other")
    store.observe(photo(), SemanticMatcher(segmenter, MODEL))
    store.observe(photo(), SemanticMatcher(other, MODEL))
    assert other.asked == 1
    noise = CameraNoise(pitch_sigma_deg=2.0, num_variants=3)
    views = store.observe(photo(), SemanticMatcher(segmenter, MODEL, noise=noise))
    assert len(views) == 3
    assert segmenter.asked == 2


def test_a_segmenter_without_a_fingerprint_is_known_by_its_class():
    assert fingerprint(object()) == "object"
    assert fingerprint(Halves()) == "halves"
