"""Architectures: the two branches of each encoder that has a name, and what they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from crossview.nn import aggregation, backbones
from crossview.preprocessing import Preprocessing

DSM_CHANNELS = (256, 64, 16)
"""Of the convolutions behind the trunk of DSM; the first two halve the rows."""

Branches = tuple[keras.Model, keras.Model]
"""Of ground and of overhead images, one and the same where they share everything."""


def safa(
    preprocessing: Preprocessing,
    *,
    num_heads: int = 8,
    channel_reduce: str = "mean",
    dropout: float = 0.2,
    weights: str | None = None,
) -> Branches:
    """VGG16 and embeddings of places, separate weights; 4096 numbers.

    Args:
        preprocessing: What the branches take.
        num_heads: Masks of places.
        channel_reduce: "mean" as in the published code, "max" as in the paper.
        dropout: Share of the outputs of blocks 4 and 5 that training drops.
        weights: Of VGG16.

    Reference: Shi et al., "Spatial-Aware Feature Aggregation for Cross-View Image based
    Geo-Localization", NeurIPS 2019.
    """

    def branch(size_px: tuple[int, int], name: str) -> keras.Model:
        image = keras.Input((*size_px, 3), name="image")
        features = backbones.vgg16(image, dropout=dropout, weights=weights)
        features = keras.layers.MaxPooling2D(2, padding="same", name="block5_pool")(features)
        head = aggregation.SpatialEmbeddings(num_heads, channel_reduce, name="spatial")
        return _described(image, head(features), name)

    return _separate(branch, preprocessing)


def vigor(
    preprocessing: Preprocessing,
    *,
    num_heads: int = 8,
    channel_reduce: str = "max",
    dropout: float = 0.0,
    weights: str | None = None,
) -> Branches:
    """SAFA on panoramas and square tiles that need not be centred; see OffsetEncoder.

    Args:
        preprocessing: What the branches take.
        num_heads: As in safa.
        channel_reduce: As in safa; VIGOR's code takes the max.
        dropout: As in safa; VIGOR has none.
        weights: Of VGG16.

    Reference: Zhu et al., "VIGOR: Cross-View Image Geo-localization beyond One-to-one Retrieval",
    CVPR 2021.
    """
    return safa(
        preprocessing,
        num_heads=num_heads,
        channel_reduce=channel_reduce,
        dropout=dropout,
        weights=weights,
    )


def dsm(
    preprocessing: Preprocessing,
    *,
    dropout: float = 0.2,
    frozen_blocks: int = 0,
    weights: str | None = None,
) -> Branches:
    """VGG16 to its fourth block and three convolutions to maps of azimuth; see OrientedEncoder.

    The columns of overhead images go around, those of ground images do not, as published.

    Args:
        preprocessing: What the branches take; the overhead image is polar.
        dropout: Share of the outputs of block 4 that training drops.
        frozen_blocks: Blocks of the trunk that are not trained: 3 as published, with weights of
            ImageNet.
        weights: Of VGG16.

    Reference: Shi et al., "Where am I looking at? Joint Location and Orientation Estimation by
    Cross-View Matching", CVPR 2020.
    """
    if preprocessing.polar is None:
        raise ValueError("dsm compares columns of azimuth: polar is None, and must not be.")
    map_cols = -(-preprocessing.overhead_px[1] // 8)  # three poolings that round up

    def branch(size_px: tuple[int, int], name: str) -> keras.Model:
        circular = name == "overhead"
        image = keras.Input((*size_px, 3), name="image")
        features = backbones.vgg16(
            image, last="block4_conv3", dropout=dropout, circular=circular, weights=weights
        )
        for i, channels in enumerate(DSM_CHANNELS, start=1):
            is_last = i == len(DSM_CHANNELS)
            features = backbones.conv_2d(
                channels,
                3,
                circular=circular,
                strides=1 if is_last else (2, 1),
                activation=None if is_last else "relu",
                name="map" if is_last else f"reduce{i}",
            )(features)
        missing = map_cols - features.shape[2]
        if missing:
            around = (missing // 2, missing - missing // 2)
            features = keras.layers.ZeroPadding2D(((0, 0), around), name="unseen")(features)
        made = _described(image, keras.layers.Flatten(name="flat")(features), name)
        for layer in made.layers:
            if layer.name.startswith(tuple(f"block{i + 1}_" for i in range(frozen_blocks))):
                layer.trainable = False
        return made

    return _separate(branch, preprocessing)


def trunk(
    preprocessing: Preprocessing,
    *,
    trunk: str = "EfficientNetV2B0",
    stride: int = 16,
    head: str = "gem",
    head_options: Mapping[str, Any] | None = None,
    shared: bool = False,
    circular: bool = True,
    weights: str | None = None,
) -> Branches:
    """A network of keras.applications, cut at a stride, and a head.

    Args:
        preprocessing: What the branches take.
        trunk: Name of the network.
        stride: Pixels for each cell of its features.
        head: One of aggregation.HEADS.
        head_options: Of the head.
        shared: Whether both branches have the same weights.
        circular: Whether columns go around, of images that look all around.
        weights: Of the network.
    """
    if head not in aggregation.HEADS:
        raise ValueError(f"head is one of {', '.join(aggregation.HEADS)}, got {head!r}.")
    sizes = {"ground": preprocessing.ground_px, "overhead": preprocessing.overhead_px}
    around = {
        "ground": circular and preprocessing.is_full_turn,
        "overhead": circular and preprocessing.polar is not None,
    }
    make_head = aggregation.HEADS[head]

    def network(size_px: Any, is_circular: bool) -> keras.Model:
        return backbones.application(
            trunk, stride=stride, size_px=size_px, weights=weights, circular=is_circular
        )

    def branch(name: str, features_of: keras.Model, head_layer: Any) -> keras.Model:
        image = keras.Input((*sizes[name], 3), name="image")
        return _described(image, head_layer(features_of(image)), name)

    heads = {name: make_head(name="head", **(head_options or {})) for name in sizes}
    if not shared:
        ground, overhead = (
            branch(name, network(sizes[name], around[name]), heads[name]) for name in sizes
        )
        return ground, overhead
    if around["ground"] != around["overhead"]:
        raise ValueError(
            "Columns go around in both branches or in none where they share weights: choose "
            "circular=False, or a full turn and polar tiles."
        )
    if sizes["ground"] == sizes["overhead"]:
        both = branch("ground", network(sizes["ground"], around["ground"]), heads["ground"])
        return both, both
    if head in ("spe", "mixvpr"):
        raise ValueError(
            f"The head {head} has weights for each place, which images of {sizes['ground']} and "
            f"{sizes['overhead']} cannot share: choose equal sizes, another head, or shared=False."
        )
    features_of = network((None, None), around["ground"])
    return tuple(branch(name, features_of, heads["ground"]) for name in sizes)


def convnext(
    preprocessing: Preprocessing, *, size: str = "Base", weights: str | None = None
) -> Branches:
    """One ConvNeXt for panoramas and square tiles, averaged: in the style of Sample4Geo.

    Args:
        preprocessing: What the branch takes.
        size: "Tiny", "Small", "Base", "Large" or "XLarge".
        weights: Of the network.

    Reference: Deuser et al., "Sample4Geo: Hard Negative Sampling For Cross-View Geo-Localisation",
    ICCV 2023; Liu et al., "A ConvNet for the 2020s", CVPR 2022.
    """
    return trunk(
        preprocessing,
        trunk=f"ConvNeXt{size}",
        stride=32,
        head="average",
        shared=True,
        circular=False,
        weights=weights,
    )


def tiny(preprocessing: Preprocessing, *, width: int = 16, num_heads: int = 8) -> Branches:
    """A small network that trains on a CPU, with embeddings of places.

    Args:
        preprocessing: What the branches take; columns go around of images that look all around.
        width: Channels of the stem.
        num_heads: Masks of places; a descriptor has 6 width num_heads numbers.
    """

    def branch(size_px: tuple[int, int], name: str) -> keras.Model:
        circular = {
            "ground": preprocessing.is_full_turn,
            "overhead": preprocessing.polar is not None,
        }[name]
        image = keras.Input((*size_px, 3), name="image")
        features = backbones.small_trunk(image, width=width, circular=circular)
        return _described(image, aggregation.SpatialEmbeddings(num_heads)(features), name)

    return _separate(branch, preprocessing)


@dataclass(frozen=True)
class Architecture:
    """What an encoder of a name is.

    Args:
        make: Makes the branches, from the preprocessing and options.
        preprocessing: What they take unless it is said.
    """

    make: Callable[..., Branches]
    preprocessing: Preprocessing


ARCHITECTURES: dict[str, Architecture] = {
    "tiny": Architecture(tiny, Preprocessing((64, 256), (64, 256))),
    "safa": Architecture(safa, Preprocessing((112, 616), (112, 616), polar="safa")),
    "vigor": Architecture(vigor, Preprocessing((320, 640), (320, 320), (-90.0, 90.0), polar=None)),
    "dsm": Architecture(dsm, Preprocessing((128, 512), (128, 512), polar="safa")),
    "convnext": Architecture(
        convnext, Preprocessing((140, 768), (384, 384), (-90.0, 90.0), polar=None)
    ),
    "trunk": Architecture(trunk, Preprocessing((128, 512), (128, 512))),
}
"""By name."""


def _separate(
    branch: Callable[[tuple[int, int], str], keras.Model], preprocessing: Preprocessing
) -> Branches:
    """Two branches with weights of their own."""
    return (
        branch(preprocessing.ground_px, "ground"),
        branch(preprocessing.overhead_px, "overhead"),
    )


def _described(image: Any, sums: Any, name: str) -> keras.Model:
    """A branch; its last layer makes the length of its descriptors 1."""
    return keras.Model(image, aggregation.UnitLength(name="unit")(sums), name=name)
