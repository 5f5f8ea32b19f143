"""Pairs that are rendered while training: the same for a seed, epoch and index, on each backend."""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from crossview.cameras import Equirectangular
from crossview.synthetic.on_the_fly import RenderedPairs
from crossview.synthetic.worlds import Source, World

REPOSITORY = Path(__file__).resolve().parents[1]
OPTIONS = {
    "batch_size": 3,
    "num_batches": 4,
    "panorama": Equirectangular(64, 32),
    "tile_px": 24,
    "cell_m": 2.0,
    "traffic": 0.5,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return World.read("town-1", Source("town-1", seed=1).write_map(folder))


def test_a_batch_depends_on_seed_epoch_and_index_only(world):
    pairs, again = (RenderedPairs([world], seed=3, **OPTIONS) for _ in range(2))
    with ThreadPoolExecutor(3) as pool:
        batches = list(pool.map(again.__getitem__, [3, 1, 0, 2]))
    for index, (images, headings_deg) in zip([3, 1, 0, 2], batches, strict=True):
        expected, expected_deg = pairs[index]
        np.testing.assert_array_equal(headings_deg, expected_deg)
        for name in ("panorama", "tile"):
            assert np.abs(images[name].astype(int) - expected[name]).max() <= 1
    first = pairs[0][0]["panorama"]
    pairs.on_epoch_end()
    assert np.abs(first.astype(int) - pairs[0][0]["panorama"]).mean() > 5
    other = RenderedPairs([world], seed=4, **OPTIONS)[0][0]["panorama"]
    assert np.abs(first.astype(int) - other).mean() > 5


def test_pairs_of_a_fixed_epoch_stay_the_same_for_validation(world):
    moving, fixed = (RenderedPairs([world], epoch=epoch, **OPTIONS) for epoch in (None, 2))
    for _ in range(2):
        moving.on_epoch_end()
        fixed.on_epoch_end()
    assert fixed.epoch == 2
    np.testing.assert_array_equal(moving[1][0]["panorama"], fixed[1][0]["panorama"])
    moving.on_epoch_end()
    assert (moving[1][0]["panorama"] != fixed[1][0]["panorama"]).mean() > 0.5
    with pytest.raises(ValueError, match="Epochs count from 0"):
        RenderedPairs([world], epoch=-1)


def test_panoramas_are_turned_by_the_stated_headings(world):
    level, turned = (
        RenderedPairs(
            [world], heading_spread_deg=spread, **{**OPTIONS, "traffic": 0}, randomness=0.0
        )[0]
        for spread in (0.0, 180.0)
    )
    assert np.all(level[1] == 0.0)
    assert np.ptp(turned[1]) > 20.0
    for north, panorama, heading_deg in zip(
        level[0]["panorama"], turned[0]["panorama"], turned[1], strict=True
    ):
        columns = np.rint(np.arange(64) + heading_deg / 360 * 64).astype(int) % 64
        errors = [
            np.abs(panorama.astype(int) - np.roll(north, shift, axis=1)[:, columns]).mean()
            for shift in range(64)
        ]
        assert min(errors) == pytest.approx(min(errors[0], errors[1], errors[63]))


def test_worlds_take_turns_and_wrong_sizes_are_refused(world):
    with pytest.raises(ValueError, match="one world or more"):
        RenderedPairs([])
    with pytest.raises(ValueError, match="are above 0"):
        RenderedPairs([world], batch_size=0)
    pairs = RenderedPairs([world, world], **OPTIONS)
    assert len(pairs) == 4
    assert pairs[1][0]["tile"].shape == (3, 24, 24, 3)
    with pytest.raises(IndexError):
        pairs[4]


TRAINING = """
import sys
from pathlib import Path
import keras
from crossview.cameras import Equirectangular
from crossview.synthetic.on_the_fly import RenderedPairs
from crossview.synthetic.worlds import World

assert keras.backend.backend() == sys.argv[1]
world = World.read("town-1", Path(sys.argv[2]))
pairs = RenderedPairs([world], batch_size=2, num_batches=3, panorama=Equirectangular(32, 16),
                      tile_px=16, cell_m=3.0, traffic=0.0, workers=2)
photo, tile = keras.Input((16, 32, 3), name="panorama"), keras.Input((16, 16, 3), name="tile")
pooled = [keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(one))
          for one in (photo, tile)]
answer = keras.layers.Dense(1)(keras.layers.Concatenate()(pooled))
model = keras.Model({"panorama": photo, "tile": tile}, answer)
model.compile("adam", "mse")
history = model.fit(pairs, epochs=2, verbose=0)
assert len(history.history["loss"]) == 2 and pairs.epoch >= 2, (history.history, pairs.epoch)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_a_network_trains_on_them(tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = Source("town-1", seed=1).write_map(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", TRAINING, backend, str(path)],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
