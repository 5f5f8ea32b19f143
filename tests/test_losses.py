"""Contrastive losses: golden numbers of the published formulas, masks and half precision."""

import numpy as np
import pytest

from crossview.nn.losses import contrastive_loss

POSITION_M = np.stack([[0.0, 10.0, 40.0, 200.0], np.zeros(4)], axis=1)

# Values of the published formulas in float64 for the descriptors of golden_descriptors.
GOLDEN = [
    ("triplet", {"count_diagonal": True}, 4.011826900520346),
    ("triplet", {}, 3.780777840333699),
    ("triplet", {"beyond_m": 25, "mask": "inside", "count_diagonal": True}, 4.9528217167235535),
    ("neighbour", {"form": "squared"}, 0.006210104777854157),
    ("neighbour", {"within_m": 50, "beyond_m": 5, "sigma_m": 10}, 0.006208021506191683),
    ("infonce", {}, 5.627724064256832),
    ("infonce", {"smoothing": 0.1}, 6.19941999742602),
]


def golden_descriptors():
    """(overhead, ground), (4, 5) float64 each."""
    row, col = np.arange(4)[:, None], np.arange(5)[None]
    overhead, ground = np.sin(3 * row + col + 1), np.cos(2 * row + col + 0.5)
    return tuple(one / np.linalg.norm(one, axis=1, keepdims=True) for one in (overhead, ground))


@pytest.mark.parametrize(("name", "options", "value"), GOLDEN)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_golden_numbers(name, options, value, dtype):
    overhead, ground = (one.astype(dtype) for one in golden_descriptors())
    loss = contrastive_loss(name, **options)
    assert float(loss(ground, overhead, POSITION_M)) == pytest.approx(value, rel=1e-6, abs=1e-9)
