"""SAFA and DSM written down from their formulas, in NumPy and float64: slow, and nothing of ours.

Weights are drawn by name, so that a network under test can be given the same.
"""

import zlib

import numpy as np

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
MEAN_BGR = np.array([103.939, 116.779, 123.6])


def drawn(name, shape):
    """He-scaled kernels, small biases; masks with a spread that tells heads apart."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    scale = np.sqrt(2.0 / np.prod(shape[:-1])) if name.endswith("kernel") else 0.05
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def convolved(image, kernel, bias, *, strides=(1, 1), circular=False):
    """One image (rows, cols, channels), padded as TensorFlow pads "same"."""
    frames = []
    for size, reach, stride in zip(image.shape[:2], kernel.shape[:2], strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        frames.append((total // 2, total - total // 2))
    framed = np.pad(image, (frames[0], (0, 0), (0, 0)))
    framed = np.pad(framed, ((0, 0), frames[1], (0, 0)), mode="wrap" if circular else "constant")
    windows = np.lib.stride_tricks.sliding_window_view(framed, kernel.shape[:2], axis=(0, 1))
    windows = windows[:: strides[0], :: strides[1]]  # rows, cols, channels, kernel rows, cols
    flat = windows.transpose(0, 1, 3, 4, 2).reshape(*windows.shape[:2], -1)
    return flat @ kernel.reshape(-1, kernel.shape[-1]).astype(float) + bias


def pooled(features):
    """Maxima of 2 x 2, the last odd row or column alone."""
    rows, cols, channels = features.shape
    framed = np.full((rows + rows % 2, cols + cols % 2, channels), -np.inf)
    framed[:rows, :cols] = features
    return framed.reshape(framed.shape[0] // 2, 2, framed.shape[1] // 2, 2, channels).max((1, 3))


def vgg(image, branch, *, num_blocks=5, circular=False):
    """Convolutions of VGG16 of one RGB image, poolings between blocks only."""
    features = image[..., ::-1] - MEAN_BGR
    for block, (filters, number) in enumerate(BLOCKS[:num_blocks], start=1):
        if block > 1:
            features = pooled(features)
        for i in range(1, number + 1):
            name = f"{branch}/block{block}_conv{i}"
            kernel = drawn(f"{name}/kernel", (3, 3, features.shape[-1], filters))
            bias = drawn(f"{name}/bias", (filters,))
            features = np.maximum(convolved(features, kernel, bias, circular=circular), 0)
    return features


def safa(image, branch, *, reduce):
    """The descriptor of one RGB image."""
    whole = safa_sums(image, branch, reduce=reduce)
    return whole / np.linalg.norm(whole)


def safa_sums(image, branch, *, num_heads=8, reduce):
    """The same, not normalised."""
    features = pooled(vgg(image, branch))
    places = features.reshape(-1, features.shape[-1])
    num_places = len(places)
    shape1 = (num_places, num_places // 2, num_heads)
    w1, b1 = drawn(f"{branch}/weights1", shape1), drawn(f"{branch}/biases1", (1, *shape1[1:]))
    shape2 = (num_places // 2, num_places, num_heads)
    w2, b2 = drawn(f"{branch}/weights2", shape2), drawn(f"{branch}/biases2", (1, *shape2[1:]))
    strength = reduce(places, axis=1)
    parts = []
    for d in range(num_heads):
        hidden = strength @ w1[:, :, d] + b1[0, :, d]
        mask = hidden @ w2[:, :, d] + b2[0, :, d]
        parts.append(mask @ places)
    return np.concatenate(parts)


def dsm(image, branch, *, circular):
    """The map (rows, cols, 16) of one RGB image, of length 1."""
    features = vgg(image, branch, num_blocks=4, circular=circular)
    for name, filters, strides in (
        ("reduce1", 256, (2, 1)),
        ("reduce2", 64, (2, 1)),
        ("map", 16, (1, 1)),
    ):
        kernel = drawn(f"{branch}/{name}/kernel", (3, 3, features.shape[-1], filters))
        bias = drawn(f"{branch}/{name}/bias", (filters,))
        features = convolved(features, kernel, bias, strides=strides, circular=circular)
        if name != "map":
            features = np.maximum(features, 0)
    return features / np.linalg.norm(features)


def give(encoder):
    """Give an encoder the weights that are drawn here."""
    for branch in (encoder.ground, encoder.overhead):
        for layer in branch.layers:
            for variable in layer.weights:
                name = f"{branch.name}/{layer.name}/{variable.name}"
                name = name.replace("/spatial/", "/")
                variable.assign(drawn(name, variable.shape))
