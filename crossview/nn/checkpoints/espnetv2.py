"""The published weights of ESPNetv2 for Cityscapes, put into our network.

The file `espnetv2_s_2.0_city_1024x512.pth` is the authors' (sacmehta/EdgeNets). Its 526 tensors are
accounted for one by one: 456 become the 456 weights of our network; 67 count the training steps of
its batch normalisations and 3 are slopes of rectifiers that the published network makes and never
applies. The last 70 have no counterpart here, but must be there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from crossview.errors import WeightsError
from crossview.nn.segmentation import espnetv2
from crossview.pickles import MAX_BYTES, read_torch_tensors

PUBLISHED_SHA256 = "a72d59699801c7ce8e8b89a53af9097eaaa60dc12180ecde86fd700ba1222fe8"
"""Of the authors' file."""

_LARGEST_WEIGHT = 1e6
"""No trained network of this size holds larger numbers; the published one's largest is 18."""

_log = logging.getLogger(__name__)

_STAGES = ((2, 4, 0), (3, 8, 3), (4, 16, 7))  # published level, our stride, units after the first
_DECODERS = ((1, 16), (2, 8), (3, 4), (4, 2))  # published number, our stride
_CONV_FROM_TORCH = (2, 3, 1, 0)  # (out, in, rows, cols) to (rows, cols, in, out)
_DEPTHWISE_FROM_TORCH = (2, 3, 0, 1)  # (channels, 1, rows, cols) to (rows, cols, channels, 1)
_MOST_LISTED = 5


def load_espnetv2(path: str | Path, *, max_bytes: int = MAX_BYTES) -> keras.Model:
    """ESPNetv2 at scale 2.0 with the published weights for Cityscapes.

    Args:
        path: The published file, `espnetv2_s_2.0_city_1024x512.pth`.
        max_bytes: Refuse a file that would take more memory than this.

    Returns:
        The network of `espnetv2()`; hand it to a CityscapesSegmenter.

    Raises:
        WeightsError: The file is damaged, or its tensors are not those of this network; the
            message lists which are missing, unexpected or of another shape.
    """
    arrays = read_torch_tensors(path, max_bytes=max_bytes)
    _require_plausible(arrays, source=str(path))
    if hashlib.sha256(Path(path).read_bytes()).hexdigest() != PUBLISHED_SHA256:
        _log.warning(
            "%s is not the file that the authors published (SHA-256 %s...). Its layout has no "
            "checksums, so if it is meant to be that file, it is damaged: download it again.",
            path,
            PUBLISHED_SHA256[:12],
        )
    network = espnetv2()
    assign_published(network, arrays, source=str(path))
    return network


def _require_plausible(arrays: Mapping[str, np.ndarray], *, source: str) -> None:
    """Refuse numbers that no training makes: what is left of a damaged file."""
    wrong = [
        name
        for name, array in arrays.items()
        if not np.all(np.abs(np.asarray(array, dtype=float)) < _LARGEST_WEIGHT)
        and not name.endswith("num_batches_tracked")
    ]
    if wrong:
        raise WeightsError(
            f"{source} is damaged: {len(wrong)} tensors hold values that are not finite or beyond "
            f"{_LARGEST_WEIGHT:g}, the first is {wrong[0]}. Download it again."
        )


def assign_published(
    network: keras.Model, arrays: Mapping[str, npt.NDArray[Any]], *, source: str
) -> None:
    """Puts the published tensors into a network made by `espnetv2`, at any scale.

    Args:
        network: Takes the weights; unchanged if a tensor is missing, unexpected or misshapen.
        arrays: The tensors by their published names, all of them.
        source: Where they come from, for the error's message.
    """
    expected = {tensor.name: tensor for tensor in published_tensors(network)}
    _check(arrays, expected, source)
    for name, tensor in expected.items():
        if tensor.weight is not None:
            values = arrays[name].transpose(tensor.axes)
            tensor.weight.assign(values.reshape(tensor.weight.shape).astype(np.float32))


@dataclass(frozen=True)
class PublishedTensor:
    """A tensor that the published file holds, and the weight that it becomes.

    Args:
        name: Its name in the file.
        shape: Its shape in the file.
        axes: Order in which its axes are taken.
        weight: What it becomes, reshaped; None where it has no counterpart.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    weight: keras.Variable | None


def published_tensors(network: keras.Model) -> Iterator[PublishedTensor]:
    """What the published file holds for a network made by `espnetv2`, at any scale."""
    yield from _conv_norm_prelu("base_net.level1.", network.get_layer("stem"))
    for level, stride, num_units in _STAGES:
        yield from _strided_eesp(f"base_net.level{level}_0.", network.get_layer(f"down_{stride}"))
        for k in range(num_units):
            unit = network.get_layer(f"unit_{stride}_{k}")
            yield from _dilated_pyramid(f"base_net.level{level}.{k}.", unit.pyramid)
            yield _slopes(f"base_net.level{level}.{k}.module_act", unit.rectifier)
    for number, stride in _DECODERS:
        yield from _pyramid_pool(f"bu_dec_l{number}.", network.get_layer(f"pyramid_{stride}"))
        if stride > 2:
            pooled = network.get_layer(f"pooled_{stride}")
            yield from _norm_prelu(f"bu_dec_l{number}.br.br.", ("0", "1"), pooled)
        if stride < 16:
            yield from _gated_conv(f"merge_enc_dec_l{number}.", network.get_layer(f"gate_{stride}"))
            fused = network.get_layer(f"fused_{stride}")
            yield from _norm_prelu(f"bu_br_l{number}.", ("0", "1"), fused)


def _strided_eesp(prefix: str, layer: Any) -> Iterator[PublishedTensor]:
    yield from _dilated_pyramid(f"{prefix}eesp.", layer.pyramid)
    # made by the published unit, but applied only by those that do not stride
    yield PublishedTensor(f"{prefix}eesp.module_act.weight", (layer.pyramid.filters,), (0,), None)
    yield from _conv_norm_prelu(f"{prefix}inp_reinf.0.", layer.look)
    yield from _conv_norm(f"{prefix}inp_reinf.1.", layer.reinforce)
    yield _slopes(f"{prefix}act", layer.rectifier)


def _dilated_pyramid(prefix: str, layer: Any) -> Iterator[PublishedTensor]:
    yield from _conv_norm_prelu(f"{prefix}proj_1x1.", layer.reduce)
    for k, branch in enumerate(layer.branches):
        yield _depthwise(f"{prefix}spp_dw.{k}.conv", branch)
    yield from _norm_prelu(f"{prefix}br_after_cat.", ("bn", "act"), layer.fuse)
    yield from _conv_norm(f"{prefix}conv_1x1_exp.", layer.expand)


def _pyramid_pool(prefix: str, layer: Any) -> Iterator[PublishedTensor]:
    names = ("cbr.0", "cbr.1", "cbr.2")
    yield from _conv_norm_prelu(f"{prefix}projection_layer.", layer.project, names)
    for k, view in enumerate(layer.views):
        yield _depthwise(f"{prefix}stages.{k}", view)
    yield from _norm_prelu(f"{prefix}merge_layer.0.br.", ("0", "1"), layer.normalise)
    yield from _conv_norm_prelu(f"{prefix}merge_layer.2.", layer.merge, names)
    yield _kernel(f"{prefix}merge_layer.3", layer.expand)
    if layer.use_bias:
        yield _vector(f"{prefix}merge_layer.3.bias", layer.expand.bias)


def _gated_conv(prefix: str, layer: Any) -> Iterator[PublishedTensor]:
    yield _kernel(f"{prefix}wt_layer.1", layer.gate)
    names = ("cbr.0", "cbr.1", "cbr.2")
    yield from _conv_norm_prelu(f"{prefix}expansion_layer.", layer.convolve, names)


def _conv_norm_prelu(
    prefix: str, layer: Any, names: tuple[str, str, str] = ("conv", "bn", "act")
) -> Iterator[PublishedTensor]:
    yield from _conv_norm(prefix, layer, names[:2])
    yield _slopes(prefix + names[2], layer.rectifier)


def _conv_norm(
    prefix: str, layer: Any, names: tuple[str, str] = ("conv", "bn")
) -> Iterator[PublishedTensor]:
    yield _kernel(prefix + names[0], layer)
    yield from _norm(prefix + names[1], layer.norm)


def _norm_prelu(prefix: str, names: tuple[str, str], layer: Any) -> Iterator[PublishedTensor]:
    yield from _norm(prefix + names[0], layer.norm)
    yield _slopes(prefix + names[1], layer.rectifier)


def _norm(name: str, layer: keras.layers.BatchNormalization) -> Iterator[PublishedTensor]:
    yield _vector(f"{name}.weight", layer.gamma)
    yield _vector(f"{name}.bias", layer.beta)
    yield _vector(f"{name}.running_mean", layer.moving_mean)
    yield _vector(f"{name}.running_var", layer.moving_variance)
    yield PublishedTensor(f"{name}.num_batches_tracked", (), (), None)


def _slopes(name: str, layer: keras.layers.PReLU) -> PublishedTensor:
    return _vector(f"{name}.weight", layer.alpha)


def _vector(name: str, weight: keras.Variable) -> PublishedTensor:
    return PublishedTensor(name, (weight.shape[-1],), (0,), weight)


def _kernel(name: str, layer: Any) -> PublishedTensor:
    rows, cols, channels, filters = layer.kernel.shape
    shape = (filters, channels, rows, cols)
    return PublishedTensor(f"{name}.weight", shape, _CONV_FROM_TORCH, layer.kernel)


def _depthwise(name: str, layer: Any) -> PublishedTensor:
    rows, cols, channels, _ = layer.kernel.shape
    shape = (channels, 1, rows, cols)
    return PublishedTensor(f"{name}.weight", shape, _DEPTHWISE_FROM_TORCH, layer.kernel)


def _check(
    arrays: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, PublishedTensor], source: str
) -> None:
    missing = [name for name in expected if name not in arrays]
    unexpected = [name for name in arrays if name not in expected]
    misshapen = [
        f"{name} is {arrays[name].shape}, expected {tensor.shape}"
        for name, tensor in expected.items()
        if name in arrays and arrays[name].shape != tensor.shape
    ]
    if missing or unexpected or misshapen:
        raise WeightsError(
            f"{source} does not hold the {len(expected)} tensors of this ESPNetv2. "
            f"{_listed('Missing', missing)}{_listed('Unexpected', unexpected)}"
            f"{_listed('Of another shape', misshapen)}"
            "Pass the published espnetv2_s_2.0_city_1024x512.pth."
        )


def _listed(heading: str, items: list[str]) -> str:
    if not items:
        return ""
    rest = len(items) - _MOST_LISTED
    more = f" and {rest} more" if rest > 0 else ""
    return f"{heading} ({len(items)}): {', '.join(items[:_MOST_LISTED])}{more}. "
