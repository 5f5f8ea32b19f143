"""Weights of ESPNetv2 drawn with NumPy: the same numbers on every backend, and in PyTorch."""

import zlib

import numpy as np


def drawn_tensor(name, shape):
    """A tensor of the published layout; it depends on its name and shape only."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(7, np.int64)
    if len(shape) == 4:
        fan_in = shape[1] * shape[2] * shape[3]
        return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith(("running_mean", "bias")):
        return rng.uniform(-0.2, 0.2, shape).astype(np.float32)
    return rng.uniform(0.2, 1.2, shape).astype(np.float32)  # scales and slopes


def drawn_image(rows, cols):
    """RGB in [0, 255], (1, rows, cols, 3)."""
    return np.random.default_rng(0).integers(0, 256, (1, rows, cols, 3)).astype(np.float32)
